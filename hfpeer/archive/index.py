"""The index of an archive: its revisions, their refs, and the blobs in the order in which they lie in it. Pure.

The whole archive follows from the index and the manifests (`contents`), so an import knows each header beforehand and
compares it, and parses only the index and the manifests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hfpeer import json_fields
from hfpeer.budgets import MAX_ARCHIVE_INDEX_BYTES, MAX_LISTING_BYTES
from hfpeer.errors import BadArchive, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility, keeping_ref

FORMAT = "hfpeer-archive"
VERSION = 1
MAX_TIME = 8**11 - 1
"""The largest time in seconds since the epoch that a header of a tar can hold."""


@dataclass(frozen=True)
class ArchivedRef:
    """The commit of a revision was told by `answered_by` at `answered_at`, seconds since the epoch; both are empty for
    a ref that only keeps the commit from being pruned."""

    name: Revision
    answered_by: str = ""
    answered_at: int = 0


@dataclass(frozen=True)
class ArchivedRevision:
    """A commit of a repo. `visibility` is the answer of the hub `said_by` at `asked_at`, where the archive was made.

    `listing_bytes` and `listing_sha256` are those of its manifest; only a manifest that `is_proved` has its commit
    object. `absent` are paths that the Hub client has asked for and that the commit does not have.
    """

    repo: RepoId
    commit: Commit
    refs: tuple[ArchivedRef, ...]
    visibility: Visibility
    said_by: str
    asked_at: int
    is_proved: bool
    listing_bytes: int
    listing_sha256: str
    absent: tuple[FilePath, ...] = ()


@dataclass(frozen=True)
class ArchivedBlob:
    """A blob. `sha256` is that of its bytes, also where the digest is git's. `offset` is that of its bytes, counted
    from the end of the index. The first `skipped_bytes` are left out, because the target said it has them."""

    digest: Digest
    size_bytes: int
    sha256: str
    offset: int = 0
    skipped_bytes: int = 0

    @property
    def packed_bytes(self) -> int:
        """The bytes that are in the archive."""
        return self.size_bytes - self.skipped_bytes


@dataclass(frozen=True)
class ArchiveIndex:
    """`made_at` is the latest date that the index tells, in seconds since the epoch, so that equal caches give equal
    archives. `omitted` are the blobs that the target said it has."""

    made_at: int
    revisions: tuple[ArchivedRevision, ...]
    blobs: tuple[ArchivedBlob, ...]
    omitted: tuple[Digest, ...] = ()

    def to_json(self) -> bytes:
        """The text in the archive; `from_json` is its inverse."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "made_at": self.made_at,
            "revisions": [_revision_to_json(revision) for revision in self.revisions],
            "blobs": [_blob_to_json(blob) for blob in self.blobs],
            "omitted": [str(digest) for digest in self.omitted],
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> ArchiveIndex:
        """Reads the text of `to_json` and parses every name in it. Raises BadArchive."""
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise ValueError("it has another format")
            if document["version"] != VERSION:
                raise ValueError(f"it has version {document['version']!r:.20}, and this hfpeer reads {VERSION}")
            index = cls(
                json_fields.number(document["made_at"], MAX_TIME),
                tuple(_revision_from_json(one) for one in document["revisions"]),
                tuple(_blob_from_json(*one) for one in document["blobs"]),
                tuple(Digest.parse(one) for one in document["omitted"]),
            )
            _refuse_repetitions(index)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InvalidName) as error:
            raise bad_index(str(error)) from error
        return index


def id_of(text: bytes) -> str:
    """The id of the archive with this index: 12 hex digits."""
    return hashlib.sha256(text).hexdigest()[:12]


def with_offsets(index: ArchiveIndex, offsets: Mapping[Digest, int]) -> ArchiveIndex:
    """The index with the offset of each blob."""
    return replace(index, blobs=tuple(replace(blob, offset=offsets[blob.digest]) for blob in index.blobs))


def bad_index(reason: str) -> BadArchive:
    """The error for an index that cannot be used."""
    return BadArchive(
        f"The index of the archive cannot be used: {reason[:300]}.",
        hint="Copy the archive again, or make it again with `hfpeer export`.",
    )


def _refuse_repetitions(index: ArchiveIndex) -> None:
    revisions = [(revision.repo, revision.commit) for revision in index.revisions]
    blobs = [blob.digest for blob in index.blobs] + list(index.omitted)
    refs = [(revision.repo, ref.name) for revision in index.revisions for ref in revision.refs]
    absent = [(revision.repo, revision.commit, path) for revision in index.revisions for path in revision.absent]
    if not revisions or any(len({*names}) != len(names) for names in (revisions, blobs, refs, absent)):
        raise ValueError("it names a revision, a ref, a path or a blob twice, or none")
    if sum(revision.listing_bytes for revision in index.revisions) > MAX_ARCHIVE_INDEX_BYTES:
        raise ValueError(f"its manifests take more than {MAX_ARCHIVE_INDEX_BYTES} bytes")


def _revision_to_json(revision: ArchivedRevision) -> dict[str, Any]:
    return {
        "repo": revision.repo.api_path,
        "commit": revision.commit,
        "refs": [[ref.name, ref.answered_by, ref.answered_at] for ref in revision.refs],
        "visibility": revision.visibility.value,
        "said_by": revision.said_by,
        "asked_at": revision.asked_at,
        "is_proved": revision.is_proved,
        "listing": [revision.listing_bytes, revision.listing_sha256],
        "absent": list(revision.absent),
    }


def _revision_from_json(document: dict[str, Any]) -> ArchivedRevision:
    size_bytes, sha256 = document["listing"]
    is_proved = document["is_proved"]
    if type(is_proved) is not bool:
        raise ValueError(f"{is_proved!r:.80} is neither true nor false")
    commit = Commit.parse(document["commit"])
    refs = tuple(_ref_from_json(*ref) for ref in document["refs"])
    if any(bool(ref.answered_by) == (ref.name == keeping_ref(commit)) for ref in refs):
        raise ValueError("it does not say whose answer a ref is")
    return ArchivedRevision(
        RepoId.from_api_path(document["repo"]),
        commit,
        refs,
        Visibility(document["visibility"]),
        json_fields.text(document["said_by"]),
        json_fields.number(document["asked_at"], MAX_TIME),
        is_proved,
        json_fields.number(size_bytes, MAX_LISTING_BYTES),
        Digest.parse(f"sha256:{sha256}").hex,
        tuple(FilePath.parse(path) for path in document["absent"]),
    )


def _ref_from_json(name: str, answered_by: str, answered_at: int) -> ArchivedRef:
    revision = Revision.parse(name)
    if revision.is_commit:
        raise ValueError("a full commit id is the name of a ref")
    return ArchivedRef(revision, json_fields.text(answered_by), json_fields.number(answered_at, MAX_TIME))


def _blob_to_json(blob: ArchivedBlob) -> list[str | int]:
    skipped = [blob.skipped_bytes] if blob.skipped_bytes else []
    return [str(blob.digest), blob.size_bytes, blob.sha256, blob.offset, *skipped]


def _blob_from_json(digest: str, size_bytes: int, sha256: str, offset: int, skipped_bytes: int = 0) -> ArchivedBlob:
    largest = (1 << 63) - 1
    known = Digest.parse(f"sha256:{sha256}").hex
    size_bytes = json_fields.number(size_bytes, largest)
    skipped_bytes = json_fields.number(skipped_bytes, size_bytes)
    return ArchivedBlob(Digest.parse(digest), size_bytes, known, json_fields.number(offset, largest), skipped_bytes)
