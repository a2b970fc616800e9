"""Sources of an import: an archive, or a folder that is a cache. They prove manifests and give bytes, which the import
hashes.

An archive is read by its index and its manifests alone. From them every header is computed; a header, link or ref that
differs is damage, and never becomes a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from hfpeer.archive.contents import Member, index_head, index_path, listing_path, members, packed
from hfpeer.archive.headers import BLOCK_BYTES, END, header, padded, padding_bytes
from hfpeer.archive.index import MAX_TIME, ArchivedRef, ArchiveIndex, bad_index, id_of
from hfpeer.archive.parts import CHUNK_BYTES, ArchiveBytes, Missing, read
from hfpeer.archive.results import Damage
from hfpeer.budgets import MAX_ARCHIVE_INDEX_BYTES
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import read_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.kinds import repos_in
from hfpeer.errors import BadArchive, CorruptData, InvalidName
from hfpeer.git.proof import prove
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    from hfpeer.cache.index.schema import AdoptedRow

_INDEX_PATH = re.compile(rb"\.locks/\.hfpeer-archive/[0-9a-f]{12}/index\.json")
MAX_ABSENT = 1000
"""At most this many notes on absent files of a commit are looked at."""
MAX_REF_BYTES = 256
"""A ref file with more bytes is none."""


@dataclass(frozen=True)
class SourceRevision:
    """A revision that can be imported: its manifest, the files whose blobs are there, its refs, its visibility, and
    paths that the commit does not have."""

    manifest: Manifest
    files: tuple[ManifestFile, ...]
    refs: tuple[ArchivedRef, ...] = ()
    visibility: Visibility = Visibility.UNKNOWN
    said_by: str = ""
    asked_at: int = 0
    absent: tuple[FilePath, ...] = ()


@dataclass(frozen=True)
class SourceBlob:
    """A blob that comes next; `path` is its place in the source."""

    digest: Digest
    size_bytes: int
    path: str


class Source(Protocol):
    """Something to import from. `damage` grows while it is read."""

    name: str
    revisions: list[SourceRevision]
    omitted: frozenset[Digest]
    skipped: Mapping[Digest, int]
    """By digest: the first bytes that the source leaves out of a blob."""
    can_read_again: bool
    damage: list[Damage]
    notes: list[str]

    def walk(self) -> Iterator[SourceBlob]:
        """The blobs, in the order in which they are read fastest."""
        ...

    def chunks(self, blob: SourceBlob, start: int) -> Iterator[bytes]:
        """The bytes of the blob that `walk` gave last, from `start`. Raises Missing if they end early."""
        ...

    def part_of(self, blob: SourceBlob) -> str:
        """The name of the file with the bytes of a blob."""
        ...

    def file_of(self, blob: SourceBlob) -> AdoptedRow | None:
        """The file that is the blob as it lies there, if it may be taken as a whole: by shared blocks, a link or a
        move."""
        ...


def read_index(data: ArchiveBytes) -> tuple[ArchiveIndex, bytes]:
    """The index of an archive, and its text. Raises BadArchive, BrokenCache."""
    try:
        first = read(data, 0, BLOCK_BYTES)
        if _INDEX_PATH.fullmatch(first[:100].rstrip(b"\0")) is None:
            raise bad_index(f"{data.name} does not begin with one")
        size_text = first[124:135]
        size_bytes = int(size_text, 8) if re.fullmatch(rb"[0-7]{11}", size_text) else -1
        if not 0 <= size_bytes <= MAX_ARCHIVE_INDEX_BYTES:
            raise bad_index(f"it may have at most {MAX_ARCHIVE_INDEX_BYTES} bytes")
        rest = read(data, BLOCK_BYTES, size_bytes + padding_bytes(size_bytes))
    except Missing as error:
        raise bad_index(f"{error.part} ends before its end") from error
    text = rest[:size_bytes]
    if first[:100].split(b"/")[2].decode() != id_of(text):
        raise bad_index("its bytes have changed")
    index = ArchiveIndex.from_json(text)
    if first + rest != index_head(text, index.made_at):
        raise bad_index("its header is another")
    return index, text


class ArchiveSource:
    """An archive as a source. The constructor reads and proves the manifests."""

    def __init__(self, data: ArchiveBytes) -> None:
        """Raises BadArchive, ForgedManifest, BrokenCache."""
        self.name = data.name
        self.can_read_again = not data.is_stream
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self._data = data
        self.index, self._text = read_index(data)
        self._manifests: list[Manifest] = []
        self._listings: list[bytes] = []
        self._read_manifests()
        self._refuse_contradictions()
        self.omitted = frozenset(self.index.omitted)
        self.skipped: Mapping[Digest, int] = {
            blob.digest: blob.skipped_bytes for blob in self.index.blobs if blob.skipped_bytes
        }
        self.revisions = [
            SourceRevision(
                manifest,
                tuple(packed(self.index, manifest)),
                revision.refs,
                revision.visibility,
                revision.said_by,
                revision.asked_at,
                revision.absent,
            )
            for revision, manifest in zip(self.index.revisions, self._manifests, strict=True)
        ]
        self._at: Member | None = None

    def _read_manifests(self) -> None:
        archive_id = id_of(self._text)
        offset = len(index_head(self._text, self.index.made_at))
        for revision in self.index.revisions:
            path = listing_path(archive_id, revision)
            head = header(path, revision.listing_bytes, self.index.made_at)
            try:
                found = read(self._data, offset, len(head))
                text = read(self._data, offset + len(head), revision.listing_bytes)
            except Missing as error:
                raise bad_index(f"{error.part} ends before its manifests do") from error
            if found != head or hashlib.sha256(text).hexdigest() != revision.listing_sha256:
                raise bad_index(f"{path} is not the manifest that it names")
            manifest = Manifest.from_json(text)
            if (manifest.repo, manifest.commit) != (revision.repo, revision.commit):
                raise bad_index(f"{path} is the manifest of another commit")
            if revision.is_proved:
                prove(manifest)
            elif not manifest.is_attested:
                raise bad_index(f"{path} has a proof that the index does not name")
            self._manifests.append(manifest)
            self._listings.append(text)
            offset += len(head) + len(padded(text))

    def _refuse_contradictions(self) -> None:
        """Raises BadArchive for a blob that no manifest has, or with another size, and for a wrong offset."""
        sizes: dict[Digest, int] = {}
        for manifest in self._manifests:
            for digest, size_bytes in manifest.sizes.items():
                if sizes.setdefault(digest, size_bytes) != size_bytes:
                    raise bad_index(f"{digest} has two sizes")
        for blob in self.index.blobs:
            if sizes.get(blob.digest) != blob.size_bytes:
                raise bad_index(f"{blob.digest} is in none of its revisions, or has another size there")
        for revision, manifest in zip(self.index.revisions, self._manifests, strict=True):
            if revision.absent and not _taken(manifest).isdisjoint(revision.absent):
                raise bad_index(f"it says that {manifest.repo} lacks a file that it has")
        if not sizes.keys() >= set(self.index.omitted):
            raise bad_index("it leaves out a blob that none of its revisions has")
        offsets = {blob.digest: blob.offset for blob in self.index.blobs}
        behind = len(index_head(self._text, self.index.made_at))
        for member in self._members():
            if member.digest is not None and offsets[member.digest] != member.start - behind:
                raise bad_index(f"the offset of {member.digest} is wrong")

    def _members(self) -> Iterator[Member]:
        return members(self.index, self._text, self._manifests, self._listings)

    def walk(self) -> Iterator[SourceBlob]:
        """Compares every member with what it has to be, and gives the blobs. Stops where the archive ends."""
        # The index and the manifests were compared when they were read.
        compared = {index_path(id_of(self._text))}
        compared |= {listing_path(id_of(self._text), revision) for revision in self.index.revisions}
        stop = 0
        for member in self._members():
            check_stop()
            stop = member.stop
            if member.path in compared:
                continue
            if not self._compare(member.path, member.offset, member.head):
                return
            if member.digest is not None:
                self._at = member
                yield SourceBlob(member.digest, member.skipped_bytes + member.size_bytes, member.path)
        self._compare("the end", stop, END)

    def _compare(self, path: str, offset: int, expected: bytes) -> bool:
        """Notes a member that differs or is missing. Returns False if nothing comes behind it."""
        part = self._data.part_at(offset)
        try:
            if read(self._data, offset, len(expected)) == expected:
                return True
            reason = "these bytes have changed, or are not those that belong there"
        except Missing as error:
            part = error.part
            if self._data.end is not None and self._data.end < offset + len(expected):
                reason = f"the archive was cut short: it ends after {self._data.end:,} bytes"
                self.damage.append(Damage(path, "", part, reason))
                return False
            reason = "this part is missing"
            if any((one.part, one.reason) == (part, reason) for one in self.damage):
                return True
        self.damage.append(Damage(path, "", part, reason))
        return True

    def chunks(self, blob: SourceBlob, start: int) -> Iterator[bytes]:
        assert self._at is not None and self._at.digest == blob.digest
        skipped = self._at.skipped_bytes
        if start < skipped:
            raise Missing(self.part_of(blob))
        return self._data.chunks(self._at.start + start - skipped, self._at.start + self._at.size_bytes)

    def part_of(self, blob: SourceBlob) -> str:
        assert self._at is not None
        return self._data.parts_of(self._at.start, self._at.start + self._at.size_bytes)

    def file_of(self, blob: SourceBlob) -> AdoptedRow | None:
        return None


class FilesSource:
    """Revisions whose blobs lie in files below a folder. Nothing there is changed."""

    can_read_again = True

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.revisions: list[SourceRevision] = []
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self.omitted: frozenset[Digest] = frozenset()
        self.skipped: Mapping[Digest, int] = {}
        self.top = folder
        self._places: dict[Digest, Path] = {}
        self._sizes: dict[Digest, int] = {}

    def find(self, file: ManifestFile, places: Iterable[Path]) -> bool:
        """Looks for the bytes of a file in some places. A link is followed to its end: the Hub client keeps bytes in a
        store that repos share."""
        if file.digest in self._places:
            return True
        for place in places:
            with contextlib.suppress(OSError):
                facts = place.stat()
                if stat.S_ISREG(facts.st_mode) and facts.st_size == file.size_bytes:
                    self._places[file.digest], self._sizes[file.digest] = place, file.size_bytes
                    return True
        return False

    def walk(self) -> Iterator[SourceBlob]:
        for digest, size_bytes in sorted(self._sizes.items(), key=lambda one: (one[1], one[0])):
            check_stop()
            yield SourceBlob(digest, size_bytes, str(self._places[digest].relative_to(self.top)))

    def chunks(self, blob: SourceBlob, start: int) -> Iterator[bytes]:
        place = self._places[blob.digest]
        try:
            with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
                file.seek(start)
                while start < blob.size_bytes:
                    check_stop()
                    chunk = file.read(min(CHUNK_BYTES, blob.size_bytes - start))
                    if not chunk:
                        raise Missing(str(place))
                    start += len(chunk)
                    yield chunk
        except OSError as error:
            raise Missing(str(place)) from error

    def part_of(self, blob: SourceBlob) -> str:
        return self.name

    def file_of(self, blob: SourceBlob) -> AdoptedRow | None:
        return None


class FolderSource(FilesSource):
    """A folder that is a cache: a copy, a stick, the cache of another user."""

    def __init__(self, folder: Path, manifests: Manifests) -> None:
        """`manifests` are those of this node: they help where the folder has no proof. Raises BadArchive if nothing in
        it can be imported."""
        super().__init__(folder)
        self.revisions = [
            revision
            for repo in repos_in(folder)
            for commit in _commits(folder, repo)
            for revision in self._read(repo, commit, manifests)
        ]
        if not self.revisions:
            raise BadArchive(
                f"{folder} has no revision that can be proved. {' '.join(self.notes)}".strip(),
                hint="`hfpeer verify --cache DIR` says what is there.",
            )

    def _read(self, repo: RepoId, commit: Commit, known: Manifests) -> list[SourceRevision]:
        try:
            manifest = read_proof(self.top, repo, commit) or known.load(repo, commit)
        except CorruptData as error:
            self.damage.append(Damage(f"{repo.folder}/{layout.PROOFS}/{commit}.json", "", self.name, error.message))
            manifest = known.load(repo, commit)
        if manifest is None:
            self.notes.append(f"{repo} at {commit.short} has no proof there and none is known here: it is left out.")
            return []
        files = tuple(file for file in manifest.files if self.find(file, cached_places(self.top, manifest, file)))
        refs, absent = tuple(refs_in(self.top, repo, commit)), absences(self.top, manifest)
        return [SourceRevision(manifest, files, refs, absent=absent)] if files else []


def cached_places(folder: Path, manifest: Manifest, file: ManifestFile) -> tuple[Path, Path]:
    """Where a cache may have the bytes of a file: in `blobs/`, or in the snapshot."""
    return (
        layout.blob_path(folder, manifest.repo, file.digest),
        layout.snapshot_file(folder, manifest.repo, manifest.commit, file.path),
    )


def absences(folder: Path, manifest: Manifest) -> tuple[FilePath, ...]:
    """The Hub client's notes in a cache on files that a commit does not have. Notes that the manifest refutes do not
    count."""
    place, found = layout.absences_path(folder, manifest.repo, manifest.commit), []
    with contextlib.suppress(OSError):
        for path in islice(sorted(place.rglob("*")), MAX_ABSENT):
            with contextlib.suppress(OSError, InvalidName):
                if stat.S_ISREG(path.lstat().st_mode):
                    found.append(FilePath.parse(str(path.relative_to(place))))
    taken = _taken(manifest)
    return tuple(path for path in found if path not in taken)


def _taken(manifest: Manifest) -> Set[str]:
    """The paths that a commit has, as files or as folders."""
    return manifest.by_path.keys() | {
        str(folder) for path in manifest.by_path for folder in PurePosixPath(path).parents
    }


def _commits(folder: Path, repo: RepoId) -> list[Commit]:
    """The commits that have a snapshot or a proof."""
    names = set()
    for place, suffix in ((layout.snapshots_folder(folder, repo), ""), (layout.proofs_folder(folder, repo), ".json")):
        with contextlib.suppress(OSError):
            names |= {path.name.removesuffix(suffix) for path in place.iterdir() if path.name.endswith(suffix)}
    commits = []
    for name in sorted(names):
        with contextlib.suppress(InvalidName):
            commits.append(Commit.parse(name))
    return commits


def refs_in(folder: Path, repo: RepoId, commit: Commit) -> Iterator[ArchivedRef]:
    """The refs of a cache that mean this commit, each with the time of its file."""
    place = layout.refs_folder(folder, repo)
    with contextlib.suppress(OSError):
        for path in sorted(place.rglob("*")):
            with contextlib.suppress(OSError, InvalidName):
                name = Revision.parse(str(path.relative_to(place)))
                facts = path.stat()
                if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_REF_BYTES or name.is_commit:
                    continue
                if path.read_bytes().strip() == commit.encode():
                    yield ArchivedRef(name, "a copy", min(max(0, int(facts.st_mtime)), MAX_TIME))
