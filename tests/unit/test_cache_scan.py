"""A scan of many files is fast, and requests do not wait for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from statistics import median

import pytest

from fakes.hub_cache import COMMIT, REPO, git_sha1_of, listed
from hfpeer.cache.disk.layout import link_target
from hfpeer.cache.store import Store
from hfpeer.names import Digest, FilePath, RepoId

FILES = 10_000
USUAL_WAIT_SECONDS = 0.1
"""Generous: a wait takes some milliseconds, on a machine that may be busy."""
LEAST_ANSWERED = 10
"""Least requests answered during the scan: usually about 100, and 1 or 2 if they wait for its end."""


def many_files(cache: Path, count: int) -> None:
    """A snapshot of `count` small files in folders of a hundred, as the Hub client leaves it."""
    folder = cache / REPO.folder
    (folder / "blobs").mkdir(parents=True)
    for number in range(count):
        path = FilePath(f"part-{number // 100:03}/file-{number:05}.json")
        digest = Digest("git-sha1", f"{number:040x}")
        place = folder / "snapshots" / COMMIT / path
        if number % 100 == 0:
            place.parent.mkdir(parents=True)
        (folder / "blobs" / digest.hex).touch()
        place.symlink_to(link_target(path, digest))


@pytest.mark.timed
def test_ten_thousand_files_are_scanned_in_seconds_while_requests_are_answered(tmp_path: Path) -> None:
    many_files(tmp_path / "hub", FILES)
    store = Store(tmp_path / "hub", tmp_path / "home")
    other = RepoId.parse("acme/other")
    store.ingester.ingest_many(other, {git_sha1_of(b"x"): b"x"})
    waits: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            began = time.monotonic()
            assert store.inventory.find(git_sha1_of(b"x")) is not None
            store.refs.write(other, store_revision, COMMIT, "origin")
            waits.append(time.monotonic() - began)
            time.sleep(0.002)

    from hfpeer.names import Revision

    store_revision = Revision("main")
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        result = store.scan()
    finally:
        done.set()
        asking.join()
    again = store.scan()
    print(f"\n{FILES} files: first {result.seconds:.2f} s, again {again.seconds * 1000:.0f} ms, ", end="")
    print(f"slowest of {len(waits)} requests meanwhile {max(waits) * 1000:.0f} ms")
    assert result.files == FILES
    assert store.revisions.all()[0].files == FILES
    assert result.seconds < 60
    assert len(waits) >= LEAST_ANSWERED and median(waits) < USUAL_WAIT_SECONDS
    began = time.process_time()
    assert len(store.inventory.missing(listed({f"{number}": b"%d" % number for number in range(2000)}))) == 2000
    assert time.process_time() - began < 2
    store.close()
