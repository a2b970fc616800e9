"""What other tools see: files in `snapshots/`, names in `refs/`, listings in `trees/`.

Everything is put in place by a rename, so that a reader finds the old or the new and never a half. It is only handed
blobs that were verified, and never writes through a path: what lies there may be a link into a store shared by others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hfpeer.cache import layout
from hfpeer.cache.failures import translated
from hfpeer.errors import InvalidName
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EMLINK, errno.EACCES}
_FICLONE = 0x40049409
"""Linux: let a file share the blocks of another. Source: ioctl_ficlonerange(2)."""


ASIDE_SUFFIX = ".hfpeer"
SYNC_THREADS = 16
"""A file system makes many syncs that wait at once durable in one go."""


def temporary(path: Path) -> Path:
    """A fresh name beside a blob that the Hub client takes for an unfinished download and prunes."""
    return path.with_name(f"{path.name[:200]}.{secrets.token_hex(4)}.incomplete")


def aside(cache: Path, repo: RepoId) -> Path:
    """A fresh name in the repo's folder where the Hub client does not look, for what is no blob."""
    return layout.repo_folder(cache, repo) / f".{secrets.token_hex(4)}{ASIDE_SUFFIX}"


def write_file(path: Path, text: str, mode: int = 0o666, *, fresh: Path | None = None, is_synced: bool = False) -> None:
    """Puts a small file in place by a rename, from `fresh` or a name beside it; makes its folder.

    Raises NoSpace or BrokenCache.
    """
    fresh, body = fresh or temporary(path), text.encode()
    with translated("write a file", path, len(body)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(body)
                file.flush()
                if is_synced:
                    os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def written_aside(bodies: Mapping[Path, bytes]) -> Iterator[dict[Path, Path]]:
    """Writes each body to a fresh file beside its path and syncs them together, which is far quicker than one by one.

    Gives path -> fresh file; those that the block has not renamed are deleted after it. Raises NoSpace or BrokenCache.
    """
    fresh = {path: temporary(path) for path in bodies}
    where = next(iter(bodies), Path())
    try:
        with translated("write small files", where, sum(map(len, bodies.values()))):
            for folder in {path.parent for path in bodies}:
                folder.mkdir(parents=True, exist_ok=True)
            writes = list(zip(fresh.values(), bodies.values(), strict=True))
            threads = min(SYNC_THREADS, max(1, len(writes)))
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(_write_synced, (writes[start::threads] for start in range(threads))))
            yield fresh
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)


def _write_synced(writes: Iterable[tuple[Path, bytes]]) -> None:
    for path, body in writes:
        with open(path, "xb", buffering=0) as file:
            rest = memoryview(body)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())


def copy_blob(source: Path, target: Path, check: Callable[[Path], None] | None = None) -> None:
    """Puts the content of `source` at `target`, durably, as blocks shared by both where the file system can.

    Without a `check` the two may be one file: only for a source that nobody writes to in place, which is what blobs
    are. With one it is called with the copy, before it can be seen, and may raise. A `source` that is a link gives
    its bytes, not the link.
    """
    fresh, origin = temporary(target), source.resolve()
    with translated("copy a blob", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if check is not None or not _hard_link(origin, fresh):
                _copy(origin, fresh)
            if check is not None:
                check(fresh)
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def _hard_link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """A clone or a copy, with the mode of a new file."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def link_file(cache: Path, repo: RepoId, commit: Commit, path: FilePath, digest: Digest) -> Path:
    """Makes `snapshots/<commit>/<path>` the blob: a relative link to `blobs/<etag>`.

    Where there are no links the blob itself is moved there, as the Hub client does, and `blobs/` loses it. The path
    where the bytes are now is returned.
    """
    place, blob = layout.snapshot_file(cache, repo, commit, path), layout.blob_path(cache, repo, digest)
    target = layout.link_target(path, digest)
    with translated("link a file into a snapshot", place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(target)
        except FileExistsError:
            return _relink(place, target, blob, aside(cache, repo))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return blob.replace(place)
    return blob


def _relink(place: Path, target: str, blob: Path, fresh: Path) -> Path:
    """Replaces what is at `place` by a link, unless it is that link already."""
    with contextlib.suppress(OSError):
        if place.readlink() == Path(target):
            return blob
    try:
        fresh.symlink_to(target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return blob.replace(place)
    fresh.replace(place)
    return blob


def write_ref(cache: Path, repo: RepoId, revision: Revision, commit: Commit) -> None:
    """Makes `refs/<revision>` say `commit`. A full commit id needs no ref and gets none."""
    if not revision.is_commit:
        write_file(layout.ref_path(cache, repo, revision), str(commit), fresh=aside(cache, repo))


def read_ref(cache: Path, repo: RepoId, revision: Revision) -> tuple[Commit, float] | None:
    """What `refs/<revision>` says and since when (seconds since the epoch); None if there is nothing sensible."""
    path = layout.ref_path(cache, repo, revision)
    try:
        return Commit.parse(path.read_text(encoding="utf-8").strip()), path.stat().st_mtime
    except (OSError, UnicodeDecodeError, InvalidName):
        return None


def write_tree(cache: Path, repo: RepoId, commit: Commit, files: Iterable[ManifestFile]) -> None:
    """Leaves the Hub client the full listing of a commit, unless it has one. Without Xet hashes: Xet is not used.

    Source: huggingface_hub `_tree_cache`.
    """
    path = layout.tree_path(cache, repo, commit)
    if path.exists():
        return
    entries = {file.path: _tree_entry(file) for file in files}
    write_file(path, json.dumps({"format_version": 1, "files": entries}, indent=1), 0o600, fresh=aside(cache, repo))


def _tree_entry(file: ManifestFile) -> dict[str, str | int]:
    entry: dict[str, str | int] = {"size": file.size_bytes, "blob_id": file.blob_id}
    if file.is_lfs:
        entry |= {"lfs_sha256": file.digest.hex, "lfs_size": file.size_bytes}
    return entry


def read_tree(path: Path) -> dict[FilePath, tuple[Digest, int]] | None:
    """The full listing of a commit as the Hub client left it: digest and size by path. None if it left none."""
    try:
        document = json.loads(path.read_bytes())
        if document["format_version"] != 1:
            return None
        return {FilePath.parse(name): _read_entry(entry) for name, entry in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidName):
        return None


def _read_entry(entry: dict[str, object]) -> tuple[Digest, int]:
    sha256 = entry.get("lfs_sha256")
    digest = f"sha256:{sha256}" if sha256 else f"git-sha1:{entry['blob_id']}"
    size = entry["lfs_size"] if sha256 else entry["size"]
    if not isinstance(size, int):
        raise ValueError(f"{size!r} is not a size")
    return Digest.parse(digest), size
