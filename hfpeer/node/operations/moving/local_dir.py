"""Fills a plain folder with the files of a cached snapshot, as `hf download --local-dir` does.

It writes the metadata by which the Hub client knows each file, so that the client fetches none again. A file that is
right is left alone, also if its metadata got lost. A file that was changed in the folder is replaced only on request.
Source: huggingface_hub `_local_folder`: `.cache/huggingface/download/PATH.metadata` has commit, etag and time; and
`_tree_cache`: `.cache/huggingface/trees/COMMIT.json`.
"""

from __future__ import annotations

import stat
import time
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hfpeer.cache.disk.linking import HardLinks, place_file
from hfpeer.cache.disk.plain_folder import METADATA, PlainFolder
from hfpeer.cache.disk.same_names import leads_elsewhere, taken_for_another
from hfpeer.cache.disk.volume import refuse_unfit
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.cache.snapshots import read_tree
from hfpeer.control.operations import AddRequest, CachedFile, Operations
from hfpeer.errors import BrokenCache
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, Revision
from hfpeer.node.operations.selection import selection_of
from hfpeer.transfer.events import FileProgress, Finished, OnEvent, Progressed

_HUGGINGFACE = "/".join(METADATA)
_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by hfpeer.\n"
    "# For information about cache directory tags, see:\n"
    "#\thttps://bford.info/cachedir/\n"
)
EVENT_SECONDS = 0.2
"""Seconds between two events on the progress of copies."""


@dataclass(frozen=True)
class FilledFolder:
    """What filling a folder did.

    `ways` counts the files that were put in by the way of their bytes (`linking.Way`), `right_files` those that were
    right before. `kept` are the paths of files that were changed in the folder and left alone, `replaced` those of
    changed files that were replaced.
    """

    folder: str
    ways: dict[str, int]
    right_files: int
    kept: tuple[str, ...]
    replaced: tuple[str, ...]


async def selected_files(node: Operations, request: AddRequest, finished: Finished) -> list[CachedFile]:
    """The files of an added snapshot that its request selects."""
    (cached,) = await node.list_revisions(request.repo, Revision(finished.commit))
    listing = {file.path: file for file in cached.listing}
    manifest = Manifest(
        request.repo,
        Commit(finished.commit),
        tuple(
            ManifestFile(FilePath.parse(file.path), file.size_bytes, Digest.parse(file.digest))
            for file in cached.listing
        ),
    )
    return [listing[file.path] for file in selection_of(request).files_of(manifest)]


def fill_folder(
    folder: Path,
    snapshot: Path,
    commit: str,
    files: Sequence[CachedFile],
    *,
    replaceable: Container[str] = (),
    links_large_files: bool = False,
    on_event: OnEvent = lambda event: None,
) -> FilledFolder:
    """Makes `folder` hold these files of a snapshot in the cache, and the metadata files of the Hub client.

    A changed file is replaced if its path is in `replaceable`. With `links_large_files` an LFS file may become a hard
    link of its blob, which becomes read-only. Raises NotThisVolume before the first byte, NoSpace, BrokenCache and
    Locked; the same call continues.
    """
    sizes = [(file.path, file.size_bytes) for file in files]
    refuse_unfit(folder, sizes, hint="Leave them out with --exclude, or choose a folder on another volume.")
    for path, _ in sizes:
        if leads_elsewhere(folder, folder / path):
            raise taken_for_another(folder / path)
    with PlainFolder(folder) as plain:
        return _Filling(plain, snapshot, commit, links_large_files, on_event).run(files, replaceable)


class _State(Enum):
    """What a folder has in the place of a file."""

    NOTHING = "nothing"
    KNOWN = "known"
    """The right file, with metadata that says so."""
    RIGHT = "right"
    """The right file, found by its hash."""
    OLD = "old"
    """The unchanged file of another commit."""
    CHANGED = "changed"


@dataclass(frozen=True)
class _Metadata:
    commit: str
    etag: str
    written_at: float


class _Filling:
    """One call of `fill_folder`."""

    def __init__(self, plain: PlainFolder, snapshot: Path, commit: str, links: bool, on_event: OnEvent) -> None:
        self._plain = plain
        self._snapshot = snapshot
        self._commit = commit
        self._links = links
        self._on_event = on_event

    def run(self, files: Sequence[CachedFile], replaceable: Container[str]) -> FilledFolder:
        self._write_common_files()
        progress = _Progress(files, self._on_event)
        ways: Counter[str] = Counter()
        right_files, kept, replaced = 0, [], []
        for file in files:
            metadata_path = f"{_HUGGINGFACE}/download/{file.path}.metadata"
            metadata = _parsed(self._plain.read_text(metadata_path))
            state = self._state(file, metadata)
            if state is _State.CHANGED and file.path not in replaceable:
                kept.append(file.path)
            elif state in (_State.KNOWN, _State.RIGHT):
                right_files += 1
                if state is _State.RIGHT or metadata is None or metadata.commit != self._commit:
                    self._write_metadata(file, metadata_path)
            else:
                ways[self._put(file, progress)] += 1
                if state is _State.CHANGED:
                    replaced.append(file.path)
                self._write_metadata(file, metadata_path)
            progress.file_done(file)
        return FilledFolder(str(self._plain.top), dict(ways), right_files, tuple(kept), tuple(replaced))

    def _write_common_files(self) -> None:
        tree = self._snapshot.parents[1] / "trees" / f"{self._commit}.json"
        self._write_unless_there(".gitignore", "*")
        self._write_unless_there("CACHEDIR.TAG", _CACHEDIR_TAG)
        if read_tree(tree) is not None:
            self._write_unless_there(f"trees/{self._commit}.json", tree.read_text())

    def _write_unless_there(self, name: str, text: str) -> None:
        if self._plain.facts(f"{_HUGGINGFACE}/{name}") is None:
            self._plain.put_text(f"{_HUGGINGFACE}/{name}", text)

    def _state(self, file: CachedFile, metadata: _Metadata | None) -> _State:
        facts = self._plain.facts(file.path)
        if facts is None:
            return _State.NOTHING
        if stat.S_ISLNK(facts.st_mode):
            return self._state_of_link(file)
        digest = Digest.parse(file.digest)
        is_untouched = metadata is not None and facts.st_mtime <= metadata.written_at
        if metadata is not None and is_untouched and metadata.etag != digest.hex:
            return _State.OLD
        if is_untouched and facts.st_size == file.size_bytes:
            return _State.KNOWN
        if facts.st_size == file.size_bytes and self._has_hash(file.path, facts.st_size, digest.hex):
            return _State.RIGHT
        if (
            metadata is not None
            and metadata.etag != digest.hex
            and self._has_hash(file.path, facts.st_size, metadata.etag)
        ):
            return _State.OLD
        return _State.CHANGED

    def _state_of_link(self, file: CachedFile) -> _State:
        """A link becomes a file if nothing is lost by that: it leads nowhere, or to the bytes that the file gets."""
        path = self._plain.top / file.path
        if not path.exists():
            return _State.OLD
        digest = Digest.parse(file.digest)
        is_right = path.is_file() and path.stat().st_size == file.size_bytes
        is_right = is_right and hash_file(path, digest.algorithm, file.size_bytes) == digest.hex
        return _State.OLD if is_right else _State.CHANGED

    def _has_hash(self, path: str, size_bytes: int, etag: str) -> bool:
        """Whether a file has the hash of an etag: SHA-256 or git's SHA-1, by its length."""
        algorithm = "sha256" if len(etag) == 64 else "git-sha1"
        return self._plain.read(path, lambda fd: hash_file(fd, algorithm, size_bytes)) == etag

    def _put(self, file: CachedFile, progress: _Progress) -> str:
        """Puts a file in and returns the way of its bytes."""
        source = self._snapshot / file.path
        is_lfs = Digest.parse(file.digest).algorithm == "sha256"
        hard_links = HardLinks.READ_ONLY if self._links and is_lfs else HardLinks.NEVER

        def write(fresh: Path) -> str:
            if not source.exists():
                raise BrokenCache(
                    f"Another process deleted a file from the cache: {source}.",
                    hint="Run the command again.",
                    path=str(source),
                )
            return place_file(source, fresh, hard_links, lambda count: progress.copied(file, count)).value

        return self._plain.put(file.path, write, progress.missing_bytes)

    def _write_metadata(self, file: CachedFile, path: str) -> None:
        facts = self._plain.facts(file.path)
        changed_at = 0.0 if facts is None else facts.st_mtime
        etag = Digest.parse(file.digest).hex
        self._plain.put_text(path, f"{self._commit}\n{etag}\n{max(time.time(), changed_at)}\n")


def _parsed(text: str | None) -> _Metadata | None:
    try:
        commit, etag, written_at = (text or "").split()
        return _Metadata(commit, etag, float(written_at))
    except ValueError:
        return None


class _Progress:
    """Tells the progress of a filling as events, a few times a second."""

    def __init__(self, files: Sequence[CachedFile], on_event: OnEvent) -> None:
        self._on_event = on_event
        self._files = len(files)
        self._size_bytes = sum(file.size_bytes for file in files)
        self._done_files = self._done_bytes = self._file_bytes = 0
        self._began_at = self._told_at = time.monotonic()

    @property
    def missing_bytes(self) -> int:
        """The bytes that are still to be put in."""
        return self._size_bytes - self._done_bytes - self._file_bytes

    def copied(self, file: CachedFile, count: int) -> None:
        """Adds bytes of the file that is being put in."""
        self._file_bytes += count
        now = time.monotonic()
        if now - self._told_at >= EVENT_SECONDS:
            self._told_at = now
            present = self._done_bytes + self._file_bytes
            under_way = FileProgress(file.path, self._file_bytes, file.size_bytes)
            rate = present / max(now - self._began_at, 1e-3)
            self._on_event(
                Progressed(present, self._size_bytes, rate, {}, {}, (under_way,), self._done_files, self._files)
            )

    def file_done(self, file: CachedFile) -> None:
        """Goes on to the next file."""
        self._done_files += 1
        self._done_bytes += file.size_bytes
        self._file_bytes = 0
