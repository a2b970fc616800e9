"""Archives that are made for one target: without the beginnings that it has, of some files only; and how often an
import reads bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.archives import DATA, FILES, MODEL, ROWS, Opener, contents, export, fill, revisions, take
from fakes.hub.zoo import noise
from fakes.hub_cache import proved_manifest_of
from hfpeer.archive.export import plan_export, read_have, write_archive
from hfpeer.archive.have import Have, parse_have
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.parts import PartFiles, Stream, archives_of
from hfpeer.archive.sources import ArchiveSource
from hfpeer.archive.store_target import import_into
from hfpeer.cache.disk import layout
from hfpeer.cache.partial.files import kept_prefixes
from hfpeer.cache.store import Store
from hfpeer.errors import BadArchive, EntryNotFound
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Digest, FilePath
from hfpeer.node.operations.selection import Selection
from hfpeer.ranges import PIECE_SIZE_BYTES

WEIGHTS = next(file for file in proved_manifest_of(FILES, MODEL).files if file.path == "weights.bin")


def have_of(store: Store) -> Have:
    """What `hfpeer have` says of a cache."""
    store.scan_blobs(None)
    whole = frozenset(store.inventory.whole())
    return parse_have(Have(whole, {one.digest: one.kept_bytes for one in kept_prefixes(store.cache)}).to_text())


def begin(store: Store, body: bytes, digest: Digest, kept_bytes: int) -> None:
    """Leaves a partial with the first bytes of a blob."""
    partial = store.open_partial(digest, len(body))
    partial.write(0, memoryview(body)[:kept_bytes])
    partial.record(0, kept_bytes, "before")
    partial.close()


def test_the_beginning_of_a_blob_that_the_target_has_is_left_out(here: Store, opened: Opener, tmp_path: Path) -> None:
    there = opened("there")
    begin(there, FILES["weights.bin"], WEIGHTS.digest, 2 * PIECE_SIZE_BYTES)
    have = have_of(there)
    assert have.prefixes == {WEIGHTS.digest: 2 * PIECE_SIZE_BYTES}
    whole, rest = export(here, tmp_path / "whole.tar"), export(here, tmp_path / "rest.tar", have=have)
    assert rest.stat().st_size == pytest.approx(whole.stat().st_size - 2 * PIECE_SIZE_BYTES, abs=20_000)
    with rest.open("rb") as stream:
        report = import_into(there, ArchiveSource(Stream(stream)), ImportOptions()).run()
    assert not report.damage and contents(there, MODEL) == FILES and contents(there, DATA) == ROWS


def test_plain_tar_takes_the_rest_of_a_blob_for_no_blob(here: Store, opened: Opener, tmp_path: Path) -> None:
    have = Have(prefixes={WEIGHTS.digest: PIECE_SIZE_BYTES})
    archive, cache = export(here, tmp_path / "rest.tar", have=have), tmp_path / "there"
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert not any(name.endswith((f"blobs/{WEIGHTS.digest.hex}", "weights.bin")) for name in names)
    assert f"{MODEL.folder}/refs/main" not in names and f"{DATA.folder}/refs/main" in names
    cache.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", cache], check=True)
    sums = next(cache.glob(".locks/.hfpeer-archive/*/SHA256SUMS"))
    subprocess.run(["sha256sum", "-c", "--quiet", sums], cwd=cache, check=True)


@pytest.mark.parametrize("kept_bytes", [0, PIECE_SIZE_BYTES])
def test_a_target_that_has_lost_the_beginning_is_told_before_anything_is_written(
    here: Store, opened: Opener, tmp_path: Path, kept_bytes: int
) -> None:
    there = opened("there")
    if kept_bytes:
        begin(there, FILES["weights.bin"], WEIGHTS.digest, kept_bytes)
    archive = export(here, tmp_path / "rest.tar", have=Have(prefixes={WEIGHTS.digest: 2 * PIECE_SIZE_BYTES}))
    with pytest.raises(BadArchive, match="leaves out the first 2,097,152 bytes"):
        take(there, archive)
    assert contents(there, DATA) == {}


def test_a_wrong_beginning_is_damage_and_the_next_archive_has_all_of_it(
    here: Store, opened: Opener, tmp_path: Path
) -> None:
    there = opened("there")
    begin(there, b"\1" * WEIGHTS.size_bytes, WEIGHTS.digest, PIECE_SIZE_BYTES)
    (damage,) = take(there, export(here, tmp_path / "a.tar", have=have_of(there))).damage
    assert damage.digest == str(WEIGHTS.digest) and contents(there, MODEL) == {}
    have = have_of(there)
    assert not have.prefixes
    assert not take(there, export(here, tmp_path / "b.tar", have=have)).damage
    assert contents(there, MODEL) == FILES


def test_a_small_blob_and_one_that_changed_its_size_are_sent_whole(here: Store, tmp_path: Path) -> None:
    small = proved_manifest_of(FILES, MODEL).file(FilePath("config.json"))
    have = Have(prefixes={small.digest: 1, WEIGHTS.digest: WEIGHTS.size_bytes})
    index = plan_export(here, revisions(here), have).index
    assert not any(blob.skipped_bytes for blob in index.blobs)


@pytest.mark.parametrize("line", ["sha256:zz", f"sha256:{'0' * 64} -5", f"sha256:{'0' * 64} 1 2", "# comment"])
def test_a_line_that_is_no_digest_is_named(line: str) -> None:
    with pytest.raises(BadArchive, match="Line 2 of the have-file is no digest"):
        parse_have(f"hfpeer-have 1\n{line}\n")


def test_only_selected_files_are_packed(here: Store, opened: Opener, tmp_path: Path) -> None:
    there = opened("there")
    of_model = [(MODEL, commit) for repo, commit in revisions(here) if repo == MODEL]
    plan = plan_export(here, of_model, select=ending_with(".json"))
    (report,) = write_archive(plan, tmp_path / "few.tar").revisions
    assert (report.files, report.listed_files) == (2, len(FILES))
    take(there, tmp_path / "few.tar")
    assert contents(there, MODEL).keys() == {name for name in FILES if name.endswith(".json")}


def test_a_revision_of_which_no_file_is_selected_is_named(here: Store) -> None:
    with pytest.raises(EntryNotFound, match=r"No file of datasets/acme/rows at .* matches '\*\.json'"):
        plan_export(here, revisions(here), select=Selection(include=("*.json",)).files_of)


def ending_with(suffix: str) -> Callable[[Manifest], list[ManifestFile]]:
    return lambda manifest: [file for file in manifest.files if file.path.endswith(suffix)]


def test_notes_on_absent_files_come_along_if_the_manifest_confirms_them(
    here: Store, opened: Opener, tmp_path: Path
) -> None:
    there, manifest = opened("there"), proved_manifest_of(FILES, MODEL)
    noted = layout.absences_path(here.cache, MODEL, manifest.commit)
    for name in ("adapter_config.json", "sub/none.json", "config.json", "sub/folder"):
        (noted / name).parent.mkdir(parents=True, exist_ok=True)
        (noted / name).touch()
    take(there, export(here, tmp_path / "a.tar"))
    found = layout.absences_path(there.cache, MODEL, manifest.commit)
    assert {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()} == {
        "adapter_config.json",
        "sub/none.json",
    }
    (tmp_path / "plain").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "a.tar", "-C", tmp_path / "plain"], check=True)
    assert (layout.absences_path(tmp_path / "plain", MODEL, manifest.commit) / "adapter_config.json").is_file()


COUNTED_IMPORT = """
import os, sys, time
from pathlib import Path
from hfpeer.archive import parts
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.store_target import import_into
from hfpeer.archive.sources import ArchiveSource
from hfpeer.cache.store import Store
root, archive, log = map(Path, sys.argv[1:])
store = Store(root / "hub", root / "home")
source = ArchiveSource(parts.archives_of([archive])[0])
count = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
chunks = source.chunks
def counted(blob, start):
    for chunk in chunks(blob, start):
        os.write(count, b"%d\\n" % len(chunk))
        yield chunk
source.chunks = counted
print("begun", flush=True)
import_into(store, source, ImportOptions(), lambda *facts: time.sleep(0.03)).run()
"""


def test_an_import_reads_at_most_a_piece_again_for_each_kill(here: Store, opened: Opener, tmp_path: Path) -> None:
    body = noise(24_500_000, "large")
    fill(here, MODEL, {"large.bin": body}, "large")
    archive, log, dice, kills = export(here, tmp_path / "a.tar"), tmp_path / "log", random.Random(11), 0
    size_bytes = sum(blob.size_bytes for blob in ArchiveSource(archives_of([archive])[0]).index.blobs)
    while True:
        words = [sys.executable, "-c", COUNTED_IMPORT, *map(str, (tmp_path / "there", archive, log))]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            try:
                process.wait(dice.uniform(0.05, 0.2) if kills < 3 else 100)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        if process.returncode == 0 and kills:
            break
        if process.returncode == 0:  # on a busy machine it may have ended before the first kill
            shutil.rmtree(tmp_path / "there")
            log.unlink()
    small_bytes = sum(len(text) for text in (*FILES.values(), *ROWS.values()) if len(text) < PIECE_SIZE_BYTES)
    read_bytes = sum(map(int, log.read_text().split()))
    assert read_bytes <= size_bytes + kills * (PIECE_SIZE_BYTES + small_bytes)
    assert contents(opened("there"), MODEL) == FILES


def test_an_archive_with_a_rest_continues_in_parts(here: Store, tmp_path: Path) -> None:
    have = Have(prefixes={WEIGHTS.digest: PIECE_SIZE_BYTES})
    whole = export(here, tmp_path / "whole.tar", have=have).read_bytes()
    export(here, tmp_path / "cut.tar", 1_000_000, have)
    part = tmp_path / "cut.tar.001"
    part.unlink()
    export(here, tmp_path / "cut.tar", 1_000_000, have)
    found = sorted(tmp_path.glob("cut.tar.*"))
    assert b"".join(path.read_bytes() for path in found) == whole
    assert isinstance(archives_of(found)[0], PartFiles) and read_have(found[0])
