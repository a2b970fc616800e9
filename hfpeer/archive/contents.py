"""The members of an archive, in their order, as a function of its index and its manifests. Pure.

Index, manifests, sums and listings for the Hub client come first; then the blobs, smallest first, each with its links
behind it; refs last. So what `tar x` makes of an archive that was cut has no link to nothing, and no tool takes a repo
for whole that is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hfpeer.archive.headers import HARD_LINK, LINK, header, padded, padding_bytes
from hfpeer.archive.index import ArchivedBlob, ArchivedRevision, ArchiveIndex, id_of
from hfpeer.cache.disk import layout
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Digest, FilePath

ROOT = f"{layout.LOCKS}/.hfpeer-archive"
"""The folder of all that is the archive's own. `hf cache` ignores it."""


@dataclass(frozen=True)
class Member:
    """A member of the tar. `head` is its header and, unless it is a blob, its filled content. `offset` is that of the
    head in the archive. `digest` is that of a blob, of which the last `size_bytes` follow the head: all of them, unless
    `skipped_bytes` are left out."""

    path: str
    head: bytes
    offset: int
    digest: Digest | None = None
    size_bytes: int = 0
    skipped_bytes: int = 0

    @property
    def start(self) -> int:
        """The offset of the bytes of a blob."""
        return self.offset + len(self.head)

    @property
    def stop(self) -> int:
        """The offset of the next member."""
        return self.start + self.size_bytes + padding_bytes(self.size_bytes)


def index_path(archive_id: str) -> str:
    """The path of the index, which is the first member."""
    return f"{ROOT}/{archive_id}/index.json"


def listing_path(archive_id: str, revision: ArchivedRevision) -> str:
    """The path of a manifest: with a proof, its place in the repo's own folder."""
    if revision.is_proved:
        return f"{revision.repo.folder}/{layout.PROOFS}/{revision.commit}.json"
    return f"{ROOT}/{archive_id}/{revision.repo.folder}/{revision.commit}.json"


def index_head(text: bytes, made_at: int) -> bytes:
    """The first member: the index and its header."""
    return header(index_path(id_of(text)), len(text), made_at) + padded(text)


def members(
    index: ArchiveIndex, text: bytes, manifests: Sequence[Manifest], listings: Sequence[bytes]
) -> Iterator[Member]:
    """All members. `text` is that of the index, `listings` are the texts of the manifests, in the order of the
    revisions."""
    offset = 0
    for path, head, blob in _heads(index, text, manifests, listings):
        facts = (None, 0, 0) if blob is None else (blob.digest, blob.packed_bytes, blob.skipped_bytes)
        member = Member(path, head, offset, *facts)
        yield member
        offset = member.stop


def sums(index: ArchiveIndex, manifests: Sequence[Manifest]) -> bytes:
    """The text of SHA256SUMS: the sha256 and the path of each whole blob, for `sha256sum -c`."""
    homes = _homes(index, manifests)
    whole = (blob for blob in index.blobs if not blob.skipped_bytes)
    return "".join(f"{blob.sha256}  {_blob_path(homes[blob.digest][0], blob.digest)}\n" for blob in whole).encode()


def packed(index: ArchiveIndex, manifest: Manifest) -> list[ManifestFile]:
    """The files of a manifest whose blobs are in the archive, or were left out because the target has them."""
    digests = {blob.digest for blob in index.blobs}.union(index.omitted)
    return [file for file in manifest.files if file.digest in digests]


_Head: TypeAlias = "tuple[str, bytes, ArchivedBlob | None]"


def _heads(
    index: ArchiveIndex, text: bytes, manifests: Sequence[Manifest], listings: Sequence[bytes]
) -> Iterator[_Head]:
    archive_id, at = id_of(text), index.made_at

    def file(path: str, content: bytes) -> _Head:
        return path, header(path, len(content), at) + padded(content), None

    def link(path: str, kind: bytes, target: str) -> _Head:
        return path, header(path, 0, at, kind, target), None

    yield file(index_path(archive_id), text)
    for revision, listing in zip(index.revisions, listings, strict=True):
        yield file(listing_path(archive_id, revision), listing)
    yield file(f"{ROOT}/{archive_id}/SHA256SUMS", sums(index, manifests))
    for revision, manifest in zip(index.revisions, manifests, strict=True):
        yield file(f"{manifest.repo.folder}/trees/{manifest.commit}.json", tree_text(manifest.files))
        for absent in revision.absent:
            yield file(f"{manifest.repo.folder}/{layout.ABSENCES}/{manifest.commit}/{absent}", b"")
    homes, places = _homes(index, manifests), _places(manifests)
    for blob in index.blobs:
        first, *others = homes[blob.digest]
        if blob.skipped_bytes:  # under a name that no tool takes for the blob
            path = f"{ROOT}/{archive_id}/rest/{blob.digest.hex}"
            yield path, header(path, blob.packed_bytes, at), blob
            continue
        path = _blob_path(first, blob.digest)
        yield path, header(path, blob.size_bytes, at), blob
        for folder in others:
            yield link(_blob_path(folder, blob.digest), HARD_LINK, path)
        for place, name in places[blob.digest]:
            yield link(f"{place}/{name}", LINK, layout.link_target(name, blob.digest))
    omitted = frozenset(index.omitted).union(blob.digest for blob in index.blobs if blob.skipped_bytes)
    for revision, manifest in zip(index.revisions, manifests, strict=True):
        if omitted.isdisjoint(manifest.sizes):
            for ref in revision.refs:
                yield file(f"{revision.repo.folder}/refs/{ref.name}", revision.commit.encode())


def tree_text(files: Iterable[ManifestFile]) -> bytes:
    """The listing of a commit as the Hub client keeps it in `trees/`."""
    return layout.tree_text(files).encode()


def _homes(index: ArchiveIndex, manifests: Sequence[Manifest]) -> dict[Digest, list[str]]:
    """By digest: the folders of the repos that have the blob, in the order of the revisions. The first gets the
    bytes."""
    homes: dict[Digest, list[str]] = {blob.digest: [] for blob in index.blobs}
    for manifest in manifests:
        for digest in manifest.sizes:
            folders = homes.get(digest)
            if folders is not None and manifest.repo.folder not in folders:
                folders.append(manifest.repo.folder)
    return homes


def _places(manifests: Sequence[Manifest]) -> dict[Digest, list[tuple[str, FilePath]]]:
    """By digest: the snapshots and paths of its files."""
    places: dict[Digest, list[tuple[str, FilePath]]] = {}
    for manifest in manifests:
        snapshot = f"{manifest.repo.folder}/snapshots/{manifest.commit}"
        for file in manifest.files:
            places.setdefault(file.digest, []).append((snapshot, file.path))
    return places


def _blob_path(folder: str, digest: Digest) -> str:
    return f"{folder}/blobs/{digest.hex}"
