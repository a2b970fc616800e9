"""A disk that fails at any one call of the operating system gives a storage error, and never another exception."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fakes.hub_cache import COMMIT, REPO, manifest_of
from hfpeer.cache.cleaning.leftovers import sweep
from hfpeer.cache.store import Store
from hfpeer.errors import StorageError
from hfpeer.names import Revision

BODIES = {"config.json": b"{}", "sub/model.bin": b"weights" * 100}
CALLS = ("open", "unlink", "replace", "rename", "mkdir", "rmdir", "symlink", "link", "fsync", "ftruncate", "pwrite")
READING_CALLS = ("stat", "lstat", "scandir", "listdir", "readlink")
MAX_CALLS = 400


class Fault:
    """Makes one call below a folder fail: the `at`-th of its kind."""

    def __init__(self, below: Path, at: int) -> None:
        self._below = str(below)
        self._left = at
        self.has_struck = False

    def wrap(self, call: Any, code: int) -> Any:
        def failing(*arguments: Any, **options: Any) -> Any:
            if arguments and self._is_below(arguments[0]):
                self._left -= 1
                if self._left == 0:
                    self.has_struck = True
                    raise OSError(code, os.strerror(code), str(arguments[0]))
            return call(*arguments, **options)

        return failing

    def _is_below(self, what: Any) -> bool:
        if isinstance(what, int):
            return True
        name = os.fsdecode(what) if isinstance(what, (str, bytes, os.PathLike)) else ""
        return name.startswith((self._below, "/proc/self/fd/")) or not name.startswith("/")


@contextmanager
def failing(call: str, code: int, fault: Fault) -> Iterator[None]:
    with mock.patch.object(os, call, fault.wrap(getattr(os, call), code)):
        yield


def fill(store: Store) -> None:
    manifest = manifest_of(BODIES)
    store.save_manifest(manifest)
    store.scan()
    for file in store.inventory.missing(manifest.files):
        body = BODIES[file.path]
        if file.path.endswith(".json"):
            store.ingester.ingest_many(REPO, {file.digest: body})
            continue
        partial = store.open_partial(file.digest, len(body))
        try:
            partial.write(0, memoryview(body))
            partial.record(0, len(body), "origin:hub")
            store.ingester.ingest_blob(partial, REPO)
        finally:
            partial.close()
    store.ingester.install(REPO, COMMIT, manifest.files)
    store.refs.write(REPO, Revision("main"), COMMIT, "origin")


def work(store: Store) -> None:
    fill(store)
    store.remove(REPO)
    sweep(store.cache)


@pytest.mark.slow
@pytest.mark.parametrize("call", [*CALLS, *READING_CALLS])
@pytest.mark.parametrize("code", [errno.EIO])
def test_a_fault_of_the_disk_is_a_storage_error_and_the_next_run_repairs_everything(
    tmp_path: Path, call: str, code: int
) -> None:
    store = Store(tmp_path / "hub", tmp_path / "home")
    for at in range(1, MAX_CALLS):
        fault = Fault(store.cache, at)
        with failing(call, code, fault), suppress(StorageError):
            work(store)
        if not fault.has_struck:
            break
    fill(store)
    for path, body in BODIES.items():
        assert (store.snapshot_path(REPO, COMMIT) / path).read_bytes() == body
    store.close()
