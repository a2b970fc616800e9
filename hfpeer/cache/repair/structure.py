"""Repairs of the structure of a repo that need no bytes: refs, lists, proofs, names, modes.

Every file is put in place by a rename, no link is followed when writing, and a file that nothing explains is set aside
in the repo's folder, never deleted.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import opened
from hfpeer.cache.disk.linking import LINK_MIN_BYTES, HardLinks
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, CorruptData
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.system.ownership import user_name

COMPARED_BYTES = 1024 * 1024
"""Bytes compared at a time."""


# Refs


def write_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Writes a ref, and keeps that an answer of peers is in it."""
    known = snapshots.read_ref(cache, repo, revision)
    if known is not None and known[1] == snapshots.TOLD_REF_AT:
        snapshots.write_told_ref(cache, repo, revision, commit)
    else:
        snapshots.write_ref(cache, repo, revision, commit)


def remove_file(cache: Path, path: Path) -> None:
    """Removes a file of a repo that is no blob, and the folders that are empty then, up to the one in the repo's
    folder. A file that is gone is no error."""
    gone = contextlib.suppress(FileNotFoundError)
    with translated("remove a file", path), gone, opened(cache, path.parent) as folder:
        (folder / path.name).unlink(missing_ok=True)
    with contextlib.suppress(OSError, BrokenCache):
        for place in list(path.parents)[: len(path.relative_to(cache).parts) - 3]:
            with opened(cache, place.parent) as around:
                (around / place.name).rmdir()


# Lists and proofs


def write_list(store: Store, manifest: Manifest) -> None:
    """Writes the Hub client's list of a commit anew, over one that cannot be used."""
    path = layout.tree_path(store.cache, manifest.repo, manifest.commit)
    snapshots.write_inside(store.cache, manifest.repo, path, layout.tree_parts(manifest.files))


def write_proof_anew(store: Store, manifest: Manifest) -> None:
    """Replaces the proof in the repo's folder by that of a manifest, if it has one."""
    remove_file(store.cache, layout.proof_path(store.cache, manifest.repo, manifest.commit))
    write_proof(store.cache, manifest)


# Blobs


def rename_blob(cache: Path, repo: RepoId, odd: Path, digest: Digest) -> None:
    """Gives a blob whose name is in another case its name, if it has the digest and the name is free. Raises
    CorruptData, BrokenCache."""
    blob = layout.blob_path(cache, repo, digest)
    with translated("rename a blob", odd), opened(cache, blob.parent) as folder:
        facts = (folder / odd.name).lstat()
        is_free = not os.path.lexists(folder / blob.name) or os.path.samestat(facts, (folder / blob.name).lstat())
        is_right = stat.S_ISREG(facts.st_mode) and is_free
        if not is_right or hash_file(folder / odd.name, digest.algorithm, facts.st_size) != digest.hex:
            raise CorruptData(f"{odd.name} does not have the bytes of its name.", hint="It is left alone.")
        (folder / odd.name).rename(folder / blob.name)


def copy_in(cache: Path, repo: RepoId, digest: Digest) -> None:
    """Replaces a link in `blobs/` that leads out of the cache by a copy of its target, once the copy was hashed. Raises
    CorruptData for other bytes, and BrokenCache for a link of another user, which may lead to what is private."""
    blob = layout.blob_path(cache, repo, digest)
    facts = blob.lstat()
    if facts.st_uid != os.geteuid():
        raise BrokenCache(
            f"{blob} is a link of user {user_name(facts.st_uid)}. hfpeer does not follow it.",
            hint="Remove the link, and run the command again.",
            path=str(blob),
        )

    def check(copy: Path) -> None:
        if hash_file(copy, digest.algorithm, copy.stat().st_size) != digest.hex:
            raise CorruptData(f"The target of {blob} has other bytes than its name says.", hint="They are fetched.")

    with opened(cache, blob.parent) as folder:
        snapshots.copy_blob(blob, folder / blob.name, check, HardLinks.NEVER)


# What is in the way


def clear_way(cache: Path, repo: RepoId, commit: Commit, files: Iterable[ManifestFile]) -> None:
    """Sets aside what keeps blobs and links from their places: folders, and files in place of folders. An empty folder
    is removed. A link in place of `blobs/` or `snapshots/` stays: it is the user's way to another volume."""
    snapshot = layout.snapshot_path(cache, repo, commit)
    for folder in (layout.blobs_folder(cache, repo), snapshot.parent, snapshot):
        if _is_no_folder(folder) and (folder == snapshot or not folder.is_symlink()):
            set_aside(cache, repo, folder)
    folders: set[FilePath] = set()
    for file in files:
        parts = file.path.split("/")
        folders |= {FilePath("/".join(parts[:number])) for number in range(1, len(parts))}
        for path in (layout.blob_path(cache, repo, file.digest), layout.snapshot_file(cache, repo, commit, file.path)):
            if path.is_dir() and not path.is_symlink():
                _remove_or_set_aside(cache, repo, path)
    for folder in (layout.snapshot_file(cache, repo, commit, name) for name in sorted(folders)):
        if _is_no_folder(folder) and not folder.is_symlink():
            set_aside(cache, repo, folder)


def _is_no_folder(path: Path) -> bool:
    """Whether anything but a folder is there."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _remove_or_set_aside(cache: Path, repo: RepoId, folder: Path) -> None:
    try:
        with opened(cache, folder.parent) as around:
            (around / folder.name).rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        set_aside(cache, repo, folder)


def set_aside(cache: Path, repo: RepoId, path: Path) -> Path:
    """Moves a file or folder of a repo to `set-aside/` in the repo's folder. Returns its new path. Raises
    BrokenCache."""
    target = _place_aside(cache, repo, path)
    with (
        translated("set a file aside", path),
        opened(cache, path.parent) as folder,
        opened(cache, target.parent, makes=True) as aside,
    ):
        (folder / path.name).rename(aside / target.name)
    return target


def keep_edited(cache: Path, repo: RepoId, path: Path) -> Path | None:
    """Gives a small regular file of a snapshot that is about to be replaced a second name in `set-aside/`: it may be an
    edit of the user. None for a large file, a link, and a pointer of git-lfs."""
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) or not 0 < facts.st_size < LINK_MIN_BYTES:
            return None
        if facts.st_size <= MAX_POINTER_BYTES and parse_pointer(path.read_bytes()) is not None:
            return None
    except OSError:
        return None
    target = _place_aside(cache, repo, path)
    with translated("set a file aside", path), opened(cache, target.parent, makes=True) as aside:
        usual = aside / path.name
        if usual.is_file() and not usual.is_symlink() and filecmp.cmp(usual, path, shallow=False):
            return target.with_name(path.name)  # a repair that was interrupted has kept it
        snapshots.copy_blob(path, aside / target.name)
    return target


def drop_if_damaged(cache: Path, kept: Path, right: Path) -> bool:
    """Removes a file that `keep_edited` kept if it is the beginning of the right one: no edit, but a cut. Whether it
    was removed."""
    try:
        with kept.open("rb") as one, right.open("rb") as other:
            while chunk := one.read(COMPARED_BYTES):
                if other.read(len(chunk)) != chunk:
                    return False
    except OSError:
        return False
    remove_file(cache, kept)
    return True


def _place_aside(cache: Path, repo: RepoId, path: Path) -> Path:
    """A free place in `set-aside/`, at the same path as in the repo's folder."""
    folder = layout.repo_folder(cache, repo)
    target = folder / layout.SET_ASIDE / path.relative_to(folder)
    return target.with_name(f"{target.name[:200]}.{secrets.token_hex(4)}") if os.path.lexists(target) else target


# Modes


def open_own(cache: Path, path: Path) -> None:
    """Gives this user the right to read a file or folder of its own. Raises BrokenCache for that of another user."""
    with translated("change the mode", path), opened(cache, path.parent) as folder:
        facts = (folder / path.name).lstat()
        if facts.st_uid != os.geteuid() or stat.S_ISLNK(facts.st_mode):
            raise BrokenCache(
                f"{path} belongs to user {user_name(facts.st_uid)}.", hint="Only its owner can open it.", path=str(path)
            )
        is_folder = stat.S_ISDIR(facts.st_mode)
        mode = stat.S_IMODE(facts.st_mode) | (0o700 if is_folder else 0o400)
        (folder / path.name).chmod(mode)


def open_to_group(cache: Path, repo: RepoId) -> None:
    """Lets the group of a shared cache write to the folders of a repo and read its lists, those that belong to this
    user. The others stay as they are."""
    group = cache.stat().st_gid
    top = layout.repo_folder(cache, repo)
    for place in (top, *(top / name for name in ("blobs", "snapshots", "refs", "trees"))):
        with contextlib.suppress(OSError, BrokenCache), opened(cache, place) as folder:
            _widen(f"{folder}/.", group, stat.S_ISGID | stat.S_IRWXG)
            for tree in folder.glob("*.json") if place.name == "trees" else ():
                _widen(tree, group, stat.S_IRGRP)


def _widen(path: Path | str, group: int, bits: int) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            if facts.st_uid == os.geteuid():
                os.fchown(fd, -1, group)
                os.fchmod(fd, stat.S_IMODE(facts.st_mode) | bits)
        finally:
            os.close(fd)
