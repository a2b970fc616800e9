"""After a kill at any instant the cache has only right bytes, and the next run continues."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from fakes.hub_cache import COMMIT, REPO, digest_of, listed
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.store import Store
from hfpeer.names import Digest

KILLS = 8
BODIES = {
    f"part-{number % 3}/{number}.{'bin' if number % 2 else 'json'}": b"%d" % number * 70_000 for number in range(24)
}

FILL = """
import sys
from pathlib import Path
from fakes.hub_cache import COMMIT, REPO, manifest_of
from hfpeer.cache.store import Store
from hfpeer.names import Revision

bodies = {f"part-{n % 3}/{n}.{'bin' if n % 2 else 'json'}": b"%d" % n * 70_000 for n in range(24)}
store = Store(Path(sys.argv[1]), Path(sys.argv[2]))
manifest = manifest_of(bodies)
print("begin", flush=True)
store.save_manifest(manifest)
store.scan()
for file in store.inventory.missing(manifest.files):
    body = memoryview(bodies[file.path])
    if file.path.endswith(".json"):
        store.ingester.ingest_many(REPO, {file.digest: bytes(body)})
        continue
    partial = store.open_partial(file.digest, file.size_bytes)
    for gap in list(partial.present.gaps(0, file.size_bytes)):
        partial.write(gap.start, body[gap.start : gap.stop])
        partial.record(*gap, "origin:hub")
    partial.sync()
    store.ingester.ingest_blob(partial, REPO)
    store.ingester.install(REPO, COMMIT, [file])
store.ingester.install(REPO, COMMIT, manifest.files)
store.refs.write(REPO, Revision("main"), COMMIT, "origin")
store.close()
"""


def run(tmp_path: Path) -> subprocess.Popen[str]:
    command: list[str | Path] = [sys.executable, "-c", FILL, tmp_path / "hub", tmp_path / "home"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    return process


def assert_all_is_right(cache: Path) -> None:
    """Every blob hashes to its name, every link leads to one, every ref to a snapshot."""
    folder = cache / REPO.folder
    for blob in (folder / "blobs").glob("*"):
        if not blob.name.endswith(".incomplete"):
            digest = Digest.from_etag(blob.name)
            assert hash_file(blob, digest.algorithm, blob.stat().st_size) == digest.hex
    for place in (folder / "snapshots").rglob("*"):
        if not place.is_dir():
            path = place.relative_to(folder / "snapshots" / COMMIT).as_posix()
            assert place.read_bytes() == BODIES[path]
    for ref in (folder / "refs").glob("*"):
        assert (folder / "snapshots" / ref.read_text()).is_dir()
    if (folder / "snapshots").exists():
        assert scan_cache_dir(cache).warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_instant_leaves_only_right_bytes(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(KILLS):
        process = run(tmp_path)
        time.sleep(dice.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_all_is_right(tmp_path / "hub")
    process = run(tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_all_is_right(tmp_path / "hub")
    store = Store(tmp_path / "hub", tmp_path / "home")
    assert store.inventory.missing(listed(BODIES)) == []
    assert store.revisions.all()[0].is_complete
    assert store.inventory.find(digest_of("x.bin", BODIES["part-1/1.bin"])) is not None
    store.close()
