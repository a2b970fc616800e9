"""Publishes a local folder: reads it as a commit, and puts that commit into the cache.

The same folder gives the same commit on every machine: author, time and message are fixed, order is git's, and only
names, contents, exec bits and links count. Files over 10 MB (10,000,000 bytes), and those that a `.gitattributes` of
the folder marks `filter=lfs`, are LFS files, as on the Hub. `.git`, `.cache/huggingface` and empty folders are left
out. A folder with anything that cannot be in a repo is refused, never changed.
"""

from __future__ import annotations

import os
import posixpath
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hfpeer.budgets import MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_RULES
from hfpeer.cache.disk.linking import BLOCK_BYTES, can_clone
from hfpeer.cache.disk.same_names import refuse_another
from hfpeer.cache.disk.volume import refuse_unfit
from hfpeer.cache.owner.overrides import AUTHOR, MESSAGE
from hfpeer.cache.partial.hashing import hash_file, hash_of
from hfpeer.cache.store import Store
from hfpeer.control.operations import Published, PublishRequest
from hfpeer.errors import CorruptData, InvalidName, Locked, StorageError
from hfpeer.git import attributes as gitattributes
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer, pointer_text
from hfpeer.git.proof import commit_body, object_id, root_tree
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import MAIN, Commit, Digest, FilePath, RepoId
from hfpeer.system.cancellation import check_stop, in_threads
from hfpeer.transfer.events import OnEvent, Progressed

LFS_THRESHOLD_BYTES = 10_000_000
"""Larger files are LFS files. The Hub takes no larger ones as plain git blobs."""
DEFAULT_THREADS = 4


EVENT_SECONDS = 0.25
"""Seconds between two events of progress."""
SMALL_BYTES = 256 * 1024
"""Files of at most this size are read whole, and put into the cache many together."""
TOGETHER_FILES, TOGETHER_BYTES = 2000, 16 * 1024**2
"""At most this many small files, and about this many bytes of them, are in memory at a time."""


@dataclass(frozen=True)
class FolderCommit:
    """A folder as a proved commit. `texts` has the blobs that are not files: the targets of symbolic links."""

    folder: Path
    manifest: Manifest
    texts: Mapping[Digest, bytes]

    def source(self, file: ManifestFile) -> Path:
        """A file that had the bytes of this one when it was read. Copy and verify it, never link it: its owner may
        write to it again."""
        return self.folder / file.path


class _Entry(NamedTuple):
    """A file or link of the folder as it was listed."""

    path: FilePath
    stamp: bytes
    """Device, inode, mode, size in bytes, mtime and ctime in nanoseconds, packed: there may be very many entries."""

    @property
    def mode(self) -> str:
        mode = _STAMP.unpack(self.stamp)[2]
        if stat.S_ISLNK(mode):
            return "120000"
        return "100755" if mode & stat.S_IXUSR else "100644"

    @property
    def size_bytes(self) -> int:
        return int(_STAMP.unpack(self.stamp)[3])


_STAMP = struct.Struct("=QQIqqq")


def _stamp(status: os.stat_result) -> bytes:
    times = status.st_mtime_ns, status.st_ctime_ns
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_mode, status.st_size, *times)


class _Stage:
    """One stage of a publication, hashing or copying, as events: at most one in EVENT_SECONDS."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._began_at = self._told_at = time.monotonic()
        self._size_bytes, self._done_bytes = 0, 0

    def begin(self, size_bytes: int) -> None:
        """The size is known."""
        self._size_bytes = size_bytes
        self._tell()

    def count(self, size_bytes: int) -> None:
        """More bytes are done. Called by one thread at a time."""
        self._done_bytes = min(self._size_bytes, self._done_bytes + size_bytes)
        if time.monotonic() - self._told_at >= EVENT_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        rate = self._done_bytes / max(self._told_at - self._began_at, 1e-3)
        self._on_event(Progressed(self._done_bytes, self._size_bytes, rate, {}, {}, (), 0, 0))


def publish_folder(store: Store, request: PublishRequest, publisher: str, on_event: OnEvent) -> Published:
    """Puts the commit of a folder into the cache, where peers see it as published by `publisher`. Blocks.

    The branch main means this commit afterwards, for other tools only if no hub has named another one or if it
    is forced. Peers see conversions of datasets only while they may see those. Raises the errors of `read_folder`
    and NoSpace.
    """
    folder, repo = Path(request.folder), request.repo
    hashing = _Stage(on_event)
    made = read_folder(folder, repo, on_listed=hashing.begin, on_bytes=hashing.count)
    manifest = made.manifest
    refuse_another(store.cache, repo.folder, store.cache / repo.folder)
    refuse_unfit(store.cache, [(file.path, file.size_bytes) for file in manifest.files])
    made_of = _converted(folder, manifest)
    _ingest(store, made, _Stage(on_event))
    store.save_manifest(manifest)
    # Before the snapshot: a snapshot that is not recorded as published counts as one of a hub, and its name as taken.
    store.note_published(repo, manifest.commit, publisher, made_of)
    snapshot = store.ingester.install(repo, manifest.commit, manifest.files)
    store.name_published(repo, MAIN, manifest.commit)
    if request.is_forced or store.refs.read(repo, MAIN) is None:
        store.refs.show(repo, MAIN, manifest.commit)
    return Published(
        repo=repo.full_name,
        commit=manifest.commit,
        snapshot=str(snapshot),
        files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        lfs_files=tuple(file.path for file in manifest.files if file.is_lfs),
    )


def _ingest(store: Store, made: FolderCommit, stage: _Stage) -> None:
    """Puts the blobs of a folder into the cache, small ones many together. Their bytes are read and hashed again."""
    repo = made.manifest.repo
    files = {file.digest: file for file in made.manifest.files if file.digest not in made.texts}
    stage.begin(sum(file.size_bytes for file in files.values()))
    smallest_bytes = _smallest_alone(store, made, files.values())
    for file in files.values():
        if file.size_bytes >= smallest_bytes:
            counted = _HalfCounted(file.size_bytes, stage)
            store.inventory.adopt(made.source(file), file.digest, repo, on_chunk=counted)
            counted.end()
    for batch in _batches(file for file in files.values() if file.size_bytes < smallest_bytes):
        check_stop()
        here = store.inventory.in_repo(repo, {file.digest: file.size_bytes for file in batch})
        bodies = {file.digest: _read_again(made.source(file), file) for file in batch if file.digest not in here}
        store.ingester.ingest_many(repo, bodies)
        stage.count(sum(file.size_bytes for file in batch))
    store.ingester.ingest_many(repo, made.texts)


class _HalfCounted:
    """Counts a file whose bytes are told twice, when they are copied and when they are hashed. Those of a file that
    shares its blocks are told once, or not at all."""

    def __init__(self, size_bytes: int, stage: _Stage) -> None:
        self._left_bytes = size_bytes
        self._stage = stage

    def __call__(self, size_bytes: int) -> None:
        self._count(size_bytes // 2)

    def end(self) -> None:
        self._count(self._left_bytes)

    def _count(self, size_bytes: int) -> None:
        counted = min(size_bytes, self._left_bytes)
        self._left_bytes -= counted
        self._stage.count(counted)


def _smallest_alone(store: Store, made: FolderCommit, files: Iterable[ManifestFile]) -> int:
    """Files of at least this size come into the cache one by one: where they can share their blocks with the folder's
    files, which then take no space, also small ones."""
    block = next((file for file in files if BLOCK_BYTES <= file.size_bytes <= SMALL_BYTES), None)
    above = next(place for place in (store.cache, *store.cache.parents) if place.is_dir())
    shares = block is not None and can_clone(made.source(block), above)
    return BLOCK_BYTES if shares else SMALL_BYTES + 1


def _batches(files: Iterable[ManifestFile]) -> Iterator[list[ManifestFile]]:
    batch: list[ManifestFile] = []
    size_bytes = 0
    for file in files:
        batch.append(file)
        size_bytes += file.size_bytes
        if len(batch) == TOGETHER_FILES or size_bytes >= TOGETHER_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _read_again(place: Path, file: ManifestFile) -> bytes:
    """The bytes of a small file. Raises CorruptData if they are others by now."""
    try:
        body = place.read_bytes()
    except OSError as error:
        raise _unreadable(place, error) from error
    if len(body) != file.size_bytes or hash_of(body, file.digest.algorithm) != file.digest.hex:
        raise CorruptData(f"A file changed while it was copied: its hash is not {file.digest}.", hint="Try again.")
    return body


def _converted(folder: Path, manifest: Manifest) -> str:
    """The commits of which there are conversions in a folder, as a `Publication` has them. Raises InvalidName for a
    conversion that is not finished."""
    from hfpeer.conversion.output.output import RECORD, WORK, converted_from

    parents = {posixpath.split(file.path) for file in manifest.files}
    unfinished = next((place for place, _ in sorted(parents) if WORK in place.split("/")), None)
    if unfinished is not None:
        raise InvalidName(
            f"{folder / unfinished.partition(WORK)[0]} has a conversion that is not finished.",
            hint="Run `hfpeer dataset convert` again, to its end, and publish then.",
        )
    sources = {converted_from(folder / place) for place, name in parents if name == RECORD}
    return " ".join(sorted(filter(None, sources)))


def read_folder(
    folder: Path,
    repo: RepoId,
    *,
    on_listed: Callable[[int], None] = lambda size_bytes: None,
    on_bytes: Callable[[int], None] | None = None,
    threads: int = DEFAULT_THREADS,
) -> FolderCommit:
    """The commit of a folder. Writes nothing. `on_listed` is called with the size of all files, then `on_bytes` with
    the number of bytes hashed since its last call, by one thread at a time.

    Raises InvalidName for what cannot be in a repo (an impossible name, a link that leaves the folder, a device, an
    LFS pointer without its content, an empty folder), Locked for a file that changes meanwhile, and StorageError for
    one that cannot be read.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.path, reverse=True)
    if not entries:
        raise InvalidName(f"There is no file to publish in {folder}.", folder=str(folder))
    on_listed(sum(entry.size_bytes for entry in entries if entry.mode != "120000"))
    is_lfs = _lfs_rule(folder, (entry.path for entry in entries if entry.mode != "120000"))
    hashing = _Hashing(folder, is_lfs, on_bytes)
    large = [entry for entry in reversed(entries) if entry.mode != "120000" and entry.size_bytes > SMALL_BYTES]
    hashed = iter(in_threads(hashing.large, large, threads, "read-folder"))
    is_large = {entry.path for entry in large}
    files = []
    while entries:  # an entry goes before the next file comes: both of each of many files take much memory
        entry = entries.pop()
        files.append(next(hashed) if entry.path in is_large else hashing.small(entry))
    return FolderCommit(folder, _commit(repo, tuple(files)), hashing.texts)


def _commit(repo: RepoId, files: tuple[ManifestFile, ...]) -> Manifest:
    body = commit_body(root_tree(files), author=AUTHOR, time_seconds=0, message=MESSAGE)
    return Manifest(repo, Commit(object_id("commit", body)), files, (), body)


def _entries(folder: Path) -> Iterator[_Entry]:
    """Every file and link below the folder. Links to folders are not entered."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        check_stop()
        for child in _scan(folder / prefix):
            path = prefix + child.name
            if _is_left_out(path):
                continue
            status = child.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path + "/")
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield _Entry(FilePath.parse(path), _stamp(status))
            else:
                raise _unfit(path, "is neither a file nor a folder nor a link", "Take it out of the folder.")


def _scan(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as children:
            return list(children)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidName(f"{place} is no folder.", hint="Name a folder that exists.", folder=str(place)) from error
    except OSError as error:
        raise _unreadable(place, error) from error


def _is_left_out(path: str) -> bool:
    """Whether a path belongs to git or huggingface_hub. Source: huggingface_hub DEFAULT_IGNORE_PATTERNS."""
    name = path.rpartition("/")[2]
    return name == ".git" or path == ".cache/huggingface" or path.endswith("/.cache/huggingface")


def _lfs_rule(folder: Path, paths: Iterable[FilePath]) -> Callable[[FilePath], bool]:
    """Which files the folder's own `.gitattributes` make LFS files, the deeper ones overriding the upper ones."""
    named = (path for path in paths if path.endswith(gitattributes.NAME))
    texts = _attributes(folder, (path for path in named if path.rpartition("/")[2] == gitattributes.NAME))
    macros = gitattributes.lfs_macros(texts.get(b"", b""))
    rules = {place: gitattributes.lfs_rules(text, macros) for place, text in texts.items()}
    if sum(map(len, rules.values())) > MAX_ATTRIBUTES_RULES:
        reason = f"and those below it have more than {MAX_ATTRIBUTES_RULES} rules about LFS"
        raise _unfit(gitattributes.NAME, reason, "Name the files by fewer patterns.")
    return lambda path: bool(rules) and gitattributes.is_lfs(path.encode(), rules)


def _attributes(folder: Path, paths: Iterable[FilePath]) -> dict[bytes, bytes]:
    """The texts of these files, by the folder that each lies in."""
    texts: dict[bytes, bytes] = {}
    room_bytes = MAX_ATTRIBUTES_BYTES
    for path in paths:
        try:
            with (folder / path).open("rb") as file:
                text = file.read(room_bytes + 1)
        except OSError as error:
            raise _unreadable(folder / path, error) from error
        room_bytes -= len(text)
        if room_bytes < 0:
            raise _unfit(path, f"brings the .gitattributes to more than {MAX_ATTRIBUTES_BYTES} bytes", "Shorten them.")
        texts[path.rpartition("/")[0].encode()] = text
    return texts


class _Hashing:
    """Makes manifest files of entries, in any thread, and counts the bytes."""

    def __init__(
        self, folder: Path, is_lfs: Callable[[FilePath], bool], on_bytes: Callable[[int], None] | None
    ) -> None:
        self.texts: dict[Digest, bytes] = {}
        self._folder = folder
        self._is_lfs = is_lfs
        self._on_bytes = on_bytes
        self._lock = threading.Lock()

    def small(self, entry: _Entry) -> ManifestFile:
        """Of a link, or of a file of at most SMALL_BYTES."""
        if entry.mode == "120000":
            return self._link(entry)
        check_stop()
        descriptor = self._open(entry)
        try:
            body = os.read(descriptor, entry.size_bytes + 1)
            _check_unchanged(self._folder, entry, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if len(body) != entry.size_bytes:  # some network volumes give less than they were asked for
            return self.large(entry)
        algorithm = self._algorithm(entry, body)
        self._count(len(body))
        return _listed(entry, algorithm, hash_of(body, algorithm))

    def large(self, entry: _Entry) -> ManifestFile:
        descriptor = self._open(entry)
        try:
            _check_unchanged(self._folder, entry, os.fstat(descriptor))
            start = os.pread(descriptor, entry.size_bytes, 0) if entry.size_bytes <= MAX_POINTER_BYTES else b""
            algorithm = self._algorithm(entry, start)
            found = hash_file(descriptor, algorithm, entry.size_bytes, self._count)
            _check_unchanged(self._folder, entry, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return _listed(entry, algorithm, found)

    def _open(self, entry: _Entry) -> int:
        place = f"{self._folder}{os.sep}{entry.path}"
        try:
            return os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(Path(place), error) from error

    def _algorithm(self, entry: _Entry, body: bytes) -> str:
        """The algorithm of the file's digest. `body` is that of a file which may be an LFS pointer."""
        if entry.size_bytes <= MAX_POINTER_BYTES and parse_pointer(body) is not None:
            raise _unfit(entry.path, "is an LFS pointer, not the file it stands for", "Run `git lfs pull` first.")
        return "sha256" if entry.size_bytes > LFS_THRESHOLD_BYTES or self._is_lfs(entry.path) else "git-sha1"

    def _link(self, entry: _Entry) -> ManifestFile:
        try:
            target = os.readlink(self._folder / entry.path)  # noqa: PTH115  (a Path would not keep the text as it is)
        except OSError as error:
            raise _unreadable(self._folder / entry.path, error) from error
        _check_link(self._folder, entry.path, target)
        text = os.fsencode(target)
        digest = Digest("git-sha1", object_id("blob", text))
        self.texts[digest] = text
        return ManifestFile(entry.path, len(text), digest, entry.mode)

    def _count(self, size_bytes: int) -> None:
        if self._on_bytes is not None:
            with self._lock:
                self._on_bytes(size_bytes)


def _check_link(folder: Path, path: FilePath, target: str) -> None:
    """Raises InvalidName for a link that leads out of the folder, by its text or by where it ends."""
    place = folder / path
    by_text = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    leaves = target.startswith("/") or by_text.split("/")[0] == ".."
    if leaves or not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        hint = "Replace it by what it stands for: `cp -rL` makes a copy of the folder without links."
        raise _unfit(path, f"is a link that leaves the folder, to {target!r}", hint)


def _check_unchanged(folder: Path, entry: _Entry, now: os.stat_result) -> None:
    if entry.stamp != _stamp(now):
        hint = "Publish again when no program writes to the folder."
        raise Locked(f"{folder / entry.path} changed while it was read.", hint=hint, path=str(entry.path))


def _listed(entry: _Entry, algorithm: str, hex: str) -> ManifestFile:
    pointer_id = object_id("blob", pointer_text(hex, entry.size_bytes)) if algorithm == "sha256" else ""
    return ManifestFile(entry.path, entry.size_bytes, Digest(algorithm, hex), entry.mode, pointer_id)


def _unfit(path: str, reason: str, hint: str) -> InvalidName:
    printable = path.encode("utf-8", "replace").decode()
    return InvalidName(f"{printable!r} {reason}, so the folder cannot be published.", hint=hint, path=printable)


def _unreadable(place: Path, error: OSError) -> StorageError:
    name = os.fsencode(place).decode("utf-8", "replace")
    hint = "Give this user the right to read it, and make sure that no program removes it."
    return StorageError(f"{name} cannot be read: {error.strerror or error}.", hint=hint, path=name)
