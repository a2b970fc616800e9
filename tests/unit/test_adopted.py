"""Adopted files: bytes of other tools that come into the cache only by their digest, and stay as they are there."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_cache import REPO, git_sha1_of, sha256_of
from hfpeer.cache.adopted import TakeBy
from hfpeer.cache.disk import linking
from hfpeer.cache.disk.layout import blob_path
from hfpeer.cache.disk.linking import Way
from hfpeer.cache.disk.mounts import Mount
from hfpeer.cache.index import adopted as adopted_table
from hfpeer.cache.index.adopted import stamp_of
from hfpeer.cache.index.schema import SCHEMA_VERSION, AdoptedRow
from hfpeer.cache.store import Store
from hfpeer.errors import NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, FilePath, RepoId

BODY = os.urandom(100_000)
FILE = ManifestFile(FilePath("model.gguf"), len(BODY), sha256_of(BODY))
OTHER = RepoId.parse("acme/other")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "other tool" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


def register(store: Store, path: Path, way: TakeBy = TakeBy.COPY, digest: Digest = FILE.digest) -> AdoptedRow:
    size_bytes, mtime_ns, ctime_ns, inode = stamp_of(path.stat())
    row = AdoptedRow(str(path), str(digest), "Ollama", "", way.value, size_bytes, mtime_ns, ctime_ns, inode)
    store.adopted.table.put([row])
    return row


def bring(store: Store, file: ManifestFile = FILE, repo: RepoId = REPO, **options: Any) -> Way | None:
    rows = store.adopted.table.with_digests([file.digest]).get(file.digest, [])
    return store.adopted.bring(file, repo, rows, **options)


def facts(path: Path) -> tuple[int, ...]:
    now = path.stat()
    return now.st_ino, now.st_mode, now.st_nlink, now.st_mtime_ns


def test_the_bytes_of_an_adopted_file_come_into_the_cache_and_it_stays_as_it_is(store: Store, source: Path) -> None:
    before = facts(source)
    register(store, source)
    counts: list[int] = []
    assert bring(store, on_chunk=counts.append) in (Way.CLONE, Way.KERNEL_COPY, Way.COPY)
    assert sum(counts) == 2 * len(BODY)
    blob = blob_path(store.cache, REPO, FILE.digest)
    assert blob.read_bytes() == BODY and not blob.samefile(source)
    assert facts(source) == before
    found = store.inventory.find(FILE.digest)
    assert found is not None and found.is_verified and not found.is_given


def test_a_file_that_comes_back_unchanged_is_known_still(store: Store, source: Path) -> None:
    """As on a disk that was unplugged."""
    register(store, source)
    source.parent.rename(source.parent.with_name("unplugged"))
    assert bring(store) is None
    source.parent.with_name("unplugged").rename(source.parent)
    assert bring(store) is not None


@pytest.mark.parametrize("change", ["content", "mtime", "replaced", "a folder"])
def test_a_changed_file_is_forgotten(store: Store, source: Path, change: str) -> None:
    register(store, source)
    if change == "content":
        source.write_bytes(BODY[:-1] + b"x")
    elif change == "mtime":
        os.utime(source, (5, 5))
    elif change == "replaced":
        source.with_name("new").write_bytes(BODY)
        source.with_name("new").replace(source)
    else:
        source.unlink()
        source.mkdir()
    assert bring(store) is None
    assert store.adopted.table.all() == []
    assert not blob_path(store.cache, REPO, FILE.digest).exists()


def test_a_write_whose_mtime_was_set_back_is_noticed(store: Store, source: Path) -> None:
    register(store, source)
    before = source.stat()
    with source.open("r+b") as file:
        file.write(b"X")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bring(store) is None


def test_on_a_volume_that_numbers_its_files_anew_size_and_mtime_tell_a_file(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_table, "mount_of", lambda folder: Mount("/", "fuse.sshfs"))
    register(store, source)
    before = source.stat()
    source.with_name("same").write_bytes(BODY)
    os.utime(source.with_name("same"), ns=(before.st_atime_ns, before.st_mtime_ns))
    source.with_name("same").replace(source)
    assert bring(store) is not None
    with source.open("r+b") as file:
        file.write(b"X")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bring(store, repo=OTHER) is None  # the bytes are hashed on the way
    assert store.adopted.table.all() == []
    assert not blob_path(store.cache, OTHER, FILE.digest).exists()


def test_a_wrong_digest_costs_time_and_nothing_else(store: Store, source: Path) -> None:
    register(store, source, digest=sha256_of(b"another"))
    wanted = replace(FILE, digest=sha256_of(b"another"))
    assert bring(store, wanted) is None
    assert list((store.cache / REPO.folder / "blobs").iterdir()) == []
    good = source.with_name("good.gguf")
    good.write_bytes(BODY)
    register(store, source.with_name("good.gguf"))
    register(store, source, digest=FILE.digest)
    assert bring(store) is not None


def test_a_hard_link_is_made_only_where_the_user_asked_and_then_of_large_files_only(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    register(store, source, TakeBy.LINK)
    assert bring(store) is not Way.HARD_LINK
    monkeypatch.setattr(linking, "LINK_MIN_BYTES", 1000)
    blob = blob_path(store.cache, OTHER, FILE.digest)
    blob_path(store.cache, REPO, FILE.digest).unlink()
    assert bring(store, repo=OTHER) is Way.HARD_LINK
    assert blob.samefile(source) and stat.S_IMODE(source.stat().st_mode) == 0o444
    assert [row.ctime_ns for row in store.adopted.table.all()] == [source.stat().st_ctime_ns]


def test_a_linked_blob_is_hashed_again_after_any_write_to_its_other_name(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    monkeypatch.setattr(linking, "LINK_MIN_BYTES", 1000)
    register(store, source, TakeBy.LINK)
    assert bring(store) is Way.HARD_LINK
    found = store.inventory.find(FILE.digest)
    assert found is not None and found.is_verified
    before = source.stat()
    source.chmod(0o644)
    with source.open("r+b") as file:
        file.write(b"X")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(FileNotFoundError):
        found.open()
    again = store.inventory.find(FILE.digest)
    assert again is not None and not again.is_verified
    assert not store.inventory.verify(again)
    assert store.inventory.find(FILE.digest) is None


def test_after_a_failed_link_the_file_has_its_mode_again(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    monkeypatch.setattr(linking, "LINK_MIN_BYTES", 1000)
    before = facts(source)
    register(store, source, TakeBy.LINK, digest=sha256_of(b"another"))
    assert bring(store, replace(FILE, digest=sha256_of(b"another"))) is None
    assert facts(source) == before


def test_a_move_removes_the_file_after_its_bytes_are_in_the_cache(store: Store, source: Path) -> None:
    inode = source.stat().st_ino
    register(store, source, TakeBy.MOVE)
    assert bring(store) is Way.HARD_LINK
    blob = blob_path(store.cache, REPO, FILE.digest)
    assert (blob.stat().st_ino, blob.stat().st_nlink, source.exists()) == (inode, 1, False)
    assert store.adopted.table.all() == []
    found = store.inventory.find(FILE.digest)
    assert found is not None and found.is_verified


def test_a_move_of_wrong_bytes_moves_nothing(store: Store, source: Path) -> None:
    before = facts(source)
    register(store, source, TakeBy.MOVE, digest=sha256_of(b"another"))
    assert bring(store, replace(FILE, digest=sha256_of(b"another"))) is None
    assert facts(source) == before and source.read_bytes() == BODY


def test_a_full_disk_ends_it_and_leaves_no_part(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    register(store, source)
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    monkeypatch.setattr(linking, "_copy_range", full)
    with pytest.raises(NoSpace):
        bring(store)
    assert list((store.cache / REPO.folder / "blobs").iterdir()) == []
    assert len(store.adopted.table.all()) == 1


def test_files_are_forgotten_by_folder_and_none_is_touched(store: Store, source: Path, tmp_path: Path) -> None:
    beside = tmp_path / "other tool 2.gguf"
    beside.write_bytes(b"beside")
    register(store, source)
    register(store, source, digest=git_sha1_of(BODY))
    register(store, beside, digest=sha256_of(b"beside"))
    assert store.adopted.table.forget(str(source.parent)) == (1, len(BODY))
    assert [row.path for row in store.adopted.table.all()] == [str(beside)]
    assert store.adopted.table.forget() == (1, 6)
    assert source.exists() and beside.exists()


def test_a_catalog_of_the_version_before_keeps_what_it_knows(tmp_path: Path, source: Path) -> None:
    store = Store(tmp_path / "hub", tmp_path / "home")
    register(store, source)
    bring(store)
    store.close()
    with sqlite3.connect(tmp_path / "home/catalog.sqlite") as file:
        file.execute("ALTER TABLE blobs DROP COLUMN ctime_ns")
        file.execute("UPDATE blobs SET path = substr(path, length(cache) + 2)")
        file.execute("ALTER TABLE blobs DROP COLUMN cache")
        file.execute("DROP TABLE adopted")
        file.execute("DROP TABLE fetches")
        file.execute("DROP TABLE fetch_documents")
        file.execute("CREATE TABLE fetches (digest TEXT PRIMARY KEY, ended_at FLOAT, document TEXT)")
        file.execute("PRAGMA user_version=4")
    file.close()
    store = Store(tmp_path / "hub", tmp_path / "home")
    found = store.inventory.find(FILE.digest)
    assert found is not None and found.is_verified
    assert store.adopted.table.all() == []
    store.close()
    with sqlite3.connect(tmp_path / "home/catalog.sqlite") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    file.close()
