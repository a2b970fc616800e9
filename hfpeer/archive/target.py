"""The cache that an import writes to, as the import sees it.

It has two implementations: `store_target` over the cache of a node with its catalog, and the receiver of a push, which
has nothing but the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hfpeer.archive.index import ArchivedRef
from hfpeer.archive.sources import SourceRevision
from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId

if TYPE_CHECKING:
    from hfpeer.cache.index.schema import AdoptedRow


class Target(Protocol):
    """A cache. Every method blocks, and raises NoSpace, BrokenCache or Locked."""

    @property
    def cache(self) -> Path: ...

    def verify(self, revisions: Sequence[SourceRevision]) -> None:
        """Hashes the blobs of these revisions that other tools put there, also those to which no link leads. Those with
        wrong bytes count as missing from then on."""
        ...

    def missing(self, files: Collection[ManifestFile]) -> list[ManifestFile]:
        """The files whose blob is in no repo of the cache, each digest once, in order."""
        ...

    def open_partial(self, digest: Digest, size_bytes: int) -> PartialBlob: ...

    def ingest_blob(self, partial: PartialBlob, repo: RepoId) -> None:
        """Makes a partial with verified bytes a blob of `repo`, and closes it."""
        ...

    def ingest_many(self, repo: RepoId, bodies: Mapping[Digest, bytes]) -> None:
        """Makes verified bytes blobs of `repo`."""
        ...

    def bring(self, file: ManifestFile, repo: RepoId, row: AdoptedRow, on_chunk: Callable[[int], None]) -> bool:
        """Takes a file of this machine as a whole. Returns whether it had the bytes of `file`."""
        ...

    def install(self, revision: SourceRevision, files: Sequence[ManifestFile]) -> None:
        """Makes these files of a revision visible, and keeps its manifest, its listing and its notes on absent
        files."""
        ...

    def write_ref(self, manifest: Manifest, ref: ArchivedRef) -> Commit | None:
        """Writes a ref, unless a hub or the user has set it to another commit. Returns the commit that it keeps then,
        else None. An older answer from an archive gives way."""
        ...

    def learn(self, revision: SourceRevision) -> None:
        """Keeps what a hub said of the visibility where the archive was made, if no hub has told this node
        anything."""
        ...

    def is_shared(self, repo: RepoId, commit: Commit) -> bool:
        """Whether peers may see a commit."""
        ...
