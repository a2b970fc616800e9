"""Paths are those of the Hub client, and errors of the disk are sentences."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from huggingface_hub._tree_cache import _tree_cache_path
from huggingface_hub.file_download import _get_pointer_path, repo_folder_name

from fakes.hub_cache import COMMIT, REPO
from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.os_errors import MOVES_HOME, storage_error, translated
from hfpeer.errors import BrokenCache, NoSpace, StorageError
from hfpeer.names import Digest, FilePath, RepoId, Revision

CACHE = Path("/cache")
DIGEST = Digest("sha256", "a" * 64)


@pytest.mark.parametrize(
    "repo", [REPO, RepoId.parse("gpt2"), RepoId.parse("a/b", "dataset"), RepoId.parse("a/b", "space")]
)
@pytest.mark.parametrize("path", ["a", "a/b", "a/b/c.bin"])
def test_files_lie_where_the_hub_client_looks(repo: RepoId, path: str) -> None:
    folder = CACHE / repo_folder_name(repo_id=repo.full_name, repo_type=repo.type.value)
    file = layout.snapshot_file(CACHE, repo, COMMIT, FilePath(path))
    assert str(file) == _get_pointer_path(str(folder), COMMIT, path)
    assert str(layout.tree_path(CACHE, repo, COMMIT)) == _tree_cache_path(str(folder), COMMIT)
    target = os.path.normpath(file.parent / layout.link_target(FilePath(path), DIGEST))
    assert target == str(layout.blob_path(CACHE, repo, DIGEST)) == str(folder / "blobs" / DIGEST.hex)
    assert layout.lock_path(CACHE, repo, DIGEST) == CACHE / ".locks" / folder.name / f"{DIGEST.hex}.lock"
    assert layout.ref_path(CACHE, repo, Revision("refs/pr/1")) == folder / "refs/refs/pr/1"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format_version": 2, "files": {}}', '{"format_version": 1, "files": {"../x": {}}}',
     '{"format_version": 1, "files": {"a": {"size": "1", "blob_id": "x"}}}', '{"format_version": 1, "files": [1]}'],
)  # fmt: skip
def test_a_listing_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tree.json").write_text(text)
    assert snapshots.read_tree(tmp_path / "tree.json") is None
    assert snapshots.read_tree(tmp_path / "none.json") is None


def test_a_full_disk_is_reported_with_numbers_and_a_hint(tmp_path: Path) -> None:
    error = storage_error(
        OSError(errno.ENOSPC, "No space left on device"), "write a blob", tmp_path / "x" / "y", 1234567
    )
    assert isinstance(error, NoSpace)
    assert error.message.startswith("hfpeer could not write a blob: the volume is full. 1,234,567 bytes are needed, ")
    assert str(error.facts["volume"]) in error.message
    assert Path(error.facts["volume"]).is_mount()
    assert error.facts["free_bytes"] > 0


def test_a_quota_is_reported_as_one(tmp_path: Path) -> None:
    error = storage_error(OSError(errno.EDQUOT, "Disk quota exceeded"), "write a blob", tmp_path)
    assert isinstance(error, NoSpace)
    assert "quota" in error.message


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENOTDIR])
def test_every_other_refusal_is_a_broken_cache_with_a_hint(tmp_path: Path, number: int) -> None:
    with pytest.raises(StorageError) as caught, translated("do it", tmp_path):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, BrokenCache)
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.facts == {"path": str(tmp_path), "errno": number}


@pytest.mark.parametrize("kind", ["file", "loop", "dangling"])
def test_what_stands_where_a_folder_is_due_is_named(tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "the cache"
    if kind == "file":
        cache.write_text("")
    else:
        cache.symlink_to(cache if kind == "loop" else tmp_path / "unplugged")
    with pytest.raises(BrokenCache) as caught, translated("make a partial file", cache / ".locks" / "x"):
        (cache / ".locks").mkdir(parents=True)
    assert str(cache) in caught.value.message and ".locks" not in caught.value.message
    assert ("mv '" if kind == "file" else "remove the link") in str(caught.value.hint)


def test_a_folder_where_a_file_is_due_is_named(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "new").write_text("")
    with (
        pytest.raises(BrokenCache, match=r"main is a folder, and has to be a file"),
        translated("write a ref", tmp_path / "main"),
    ):
        (tmp_path / "new").replace(tmp_path / "main")


def test_the_place_that_the_system_names_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    with pytest.raises(BrokenCache, match=r"/catalog is a folder, and has to be a file"), translated("x", tmp_path):
        (tmp_path / "catalog").unlink()


def test_a_folder_that_is_missing_stands_in_nobodys_way(tmp_path: Path) -> None:
    with pytest.raises(BrokenCache, match="No such file or directory"), translated("read it", tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").read_bytes()


def test_a_volume_without_inodes_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = list(os.statvfs(tmp_path))
    facts[5:8] = [40, 0, 0]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(facts))
    error = storage_error(OSError(errno.ENOSPC, "No space left on device"), "write a file", tmp_path)
    assert isinstance(error, NoSpace)
    assert "can hold no more files (`df -i` shows it)" in error.message


def test_a_full_home_does_not_send_people_to_the_cache(tmp_path: Path) -> None:
    with pytest.raises(NoSpace) as caught, translated("write the pins", tmp_path, elsewhere=MOVES_HOME):
        raise OSError(errno.ENOSPC, "No space left on device")
    hint = str(caught.value.hint)
    assert "HFPEER_HOME" in hint and "model rm" not in hint
