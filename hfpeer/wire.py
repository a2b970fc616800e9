"""What nodes say to each other: messages, path templates, headers, and what a body from any source is.

The LAN door speaks HTTP/1.1, GET and HEAD only. JSON for what is small, raw bytes for blobs. Messages are parsed
here into values whose names are safe. No input or output.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Protocol
from urllib.parse import quote

from hfpeer.errors import CorruptData, InvalidName
from hfpeer.names import Commit, Digest, RepoId, Revision

PROTOCOL_VERSION = 1
SERVICE_TYPE = "_hfpeer._tcp.local."

NODE_HEADER = "X-Hfpeer-Node"
"""The sender's node id; marks a request as coming from a node, so that it is never forwarded."""
PROTOCOL_HEADER = "X-Hfpeer-Protocol"
WAIT_HEADER = "Prefer"
"""RFC 7240, section 4.3. With `wait=SECONDS` a node gives bytes that it is just getting from a holder as they come, for
as long as it never waits so long for the next; without it, and where they are not on their way, only what it has."""

NODE_PATH = "/v1/node"
CATALOGUE_PATH = "/v1/catalogue"
PEERS_PATH = "/v1/peers"
BATCH_PATH = "/v1/batch"
BLOBS_PREFIX = "/v1/blobs/"
PIECES_SUFFIX = "/pieces"
FOLLOW_SUFFIX = "/follow"
MANIFESTS_PREFIX = "/v1/manifests/"
REFS_PREFIX = "/v1/refs/"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""No JSON message from a peer may be larger: a listing of 100,000 files is about 20 MB."""
MAX_TOLD_PEERS = 64
"""How many peers one node tells another of, and how many of them are read."""
MAX_TOLD_MEMBERS = 32
"""How many members of the company that fetches a blob are read in one line of news."""
MAX_BATCH_BLOBS = 64
MAX_BATCH_BLOB_BYTES = 256 * 1024
"""A blob up to this size may travel in a batch: one request, many blobs, each checked against its digest."""


def blob_path(digest: Digest) -> str:
    return f"{BLOBS_PREFIX}{digest}"


def pieces_path(digest: Digest) -> str:
    return f"{BLOBS_PREFIX}{digest}{PIECES_SUFFIX}"


def follow_path(digest: Digest) -> str:
    """A blob, or a lot of small ones under the digest that is its name: then a piece is a file, of size 1."""
    return f"{BLOBS_PREFIX}{digest}{FOLLOW_SUFFIX}"


def manifest_path(repo: RepoId, commit: Commit) -> str:
    return f"{MANIFESTS_PREFIX}{repo.api_path}/{commit}"


def ref_path(repo: RepoId, revision: Revision) -> str:
    return f"{REFS_PREFIX}{repo.api_path}/{quote(revision, safe='')}"


def batch_path(digests: Iterable[Digest]) -> str:
    """`/v1/batch?digests=a,b,c`. The answer has a Content-Length and, for each digest in the order asked, one line
    of `encode_batch_header`, followed by the blob's bytes if it has any."""
    return f"{BATCH_PATH}?digests={','.join(map(str, digests))}"


def parse_batch_digests(text: str) -> tuple[Digest, ...]:
    """The value of `digests` in a batch's query, each digest once. Raises InvalidName for none or too many."""
    digests = tuple(dict.fromkeys(Digest.parse(part) for part in text.split(",", MAX_BATCH_BLOBS)))
    if not 1 <= len(digests) <= MAX_BATCH_BLOBS:
        raise InvalidName(f"A batch has 1 to {MAX_BATCH_BLOBS} blobs.", digests=text[:200])
    return digests


def encode_batch_header(digest: Digest, size_bytes: int | None) -> bytes:
    """`<digest> <size>\\n`, or `<digest> -\\n` for a blob that the node does not share or that is too large."""
    return f"{digest} {'-' if size_bytes is None else size_bytes}\n".encode()


MAX_BATCH_HEADER_BYTES = 128


def parse_batch_header(line: bytes) -> tuple[Digest, int | None]:
    """The inverse of `encode_batch_header`. Raises CorruptData for anything else, and for a size above the limit."""
    with _reading("batch header"):
        found = _BATCH_HEADER.fullmatch(line.decode("ascii"))
        if found is None:
            raise ValueError(repr(line[:MAX_BATCH_HEADER_BYTES]))
        size_bytes = None if found[2] == "-" else int(found[2])
        if size_bytes is not None and size_bytes > MAX_BATCH_BLOB_BYTES:
            raise ValueError(f"{size_bytes} bytes are too many for a batch")
        return Digest.parse(found[1]), size_bytes


_BATCH_HEADER = re.compile(r"(\S+) (-|[0-9]{1,12})\n")


def generation_etag(generation: int) -> str:
    """The etag of a catalogue, for `ETag` and `If-None-Match`."""
    return f'"{generation}"'


class Body(Protocol):
    """The bytes `[start, stop)` of a blob as they come from a source. Blocking: for a worker thread."""

    def readinto(self, view: memoryview) -> int:
        """Fills the front of `view`; 0 at the end. Raises SourceFault when the source breaks off early."""
        ...

    def close(self) -> None:
        """Gives the connection back if it was read to its end, else closes it."""
        ...

    def abort(self) -> None:
        """Makes a `readinto` that blocks in another thread fail at once. Thread-safe."""
        ...


class SourceFault(Exception):
    """A source did not give what was asked. A fact for the picker, never shown to a person as it is.

    `is_permanent` says that this source can never give this blob, `is_unreachable` that no connection came about,
    `retry_after_seconds` that it asked for rest.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_permanent: bool = False,
        is_unreachable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_permanent = is_permanent
        self.is_unreachable = is_unreachable
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class NodeMessage:
    """`GET /v1/node`: who answers here."""

    node_id: str
    name: str
    version: str
    protocol: int
    generation: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NodeMessage:
        with _reading("node message"):
            return cls(
                node_id=_text(document["node_id"], 64),
                name=_text(document["name"], 255),
                version=_text(document["version"], 64),
                protocol=_whole(document["protocol"]),
                generation=_whole(document["generation"]),
            )


@dataclass(frozen=True)
class RevisionMessage:
    """One revision of a catalogue. `refs` maps a ref's name to when it was resolved (seconds since the epoch)."""

    repo: RepoId
    commit: Commit
    is_complete: bool
    files: int
    size_bytes: int
    refs: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "repo": self.repo.api_path,
            "commit": self.commit,
            "is_complete": self.is_complete,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "refs": dict(self.refs),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RevisionMessage:
        with _reading("revision"):
            return cls(
                repo=RepoId.from_api_path(document["repo"]),
                commit=Commit.parse(document["commit"]),
                is_complete=document["is_complete"] is True,
                files=_whole(document["files"]),
                size_bytes=_whole(document["size_bytes"]),
                refs={Revision.parse(name): _moment(when) for name, when in dict(document["refs"]).items()},
            )


@dataclass(frozen=True)
class CatalogueMessage:
    """`GET /v1/catalogue`: the shared revisions of a node. Its etag is the generation."""

    generation: int
    revisions: tuple[RevisionMessage, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "revisions": [revision.to_json() for revision in self.revisions],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CatalogueMessage:
        with _reading("catalogue"):
            return cls(
                _whole(document["generation"]),
                tuple(RevisionMessage.from_json(revision) for revision in document["revisions"]),
            )


@dataclass(frozen=True)
class RefMessage:
    """`GET /v1/refs/…`: what a node last knew a mutable revision to be, and since when."""

    commit: Commit
    resolved_at: float
    answered_by: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RefMessage:
        with _reading("ref"):
            return cls(
                Commit.parse(document["commit"]),
                _moment(document["resolved_at"]),
                _text(document["answered_by"], 255),
            )


@dataclass(frozen=True)
class PeersMessage:
    """`GET /v1/peers`: `HOST:PORT` of the peers that a node finds alive. Hearsay; each is to be asked itself."""

    addresses: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"peers": list(self.addresses)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PeersMessage:
        with _reading("list of peers"):
            return cls(tuple(_text(address, 255) for address in list(document["peers"])[:MAX_TOLD_PEERS]))


@dataclass(frozen=True)
class PieceMap:
    """`GET /v1/blobs/{digest}/pieces`: which pieces of a blob a node can give now.

    `bits` has one bit a piece, least significant first, and is None when the blob is whole. `version` grows with
    every change; `GET /v1/blobs/{digest}/follow` tells what comes after it.
    """

    size_bytes: int
    piece_size_bytes: int
    version: int
    bits: bytes | None

    def has(self, piece: int) -> bool:
        """Whether the node has piece number `piece`."""
        if self.bits is None:
            return True
        index = piece >> 3
        return index < len(self.bits) and bool(self.bits[index] >> (piece & 7) & 1)

    def to_json(self) -> dict[str, Any]:
        bits = None if self.bits is None else base64.b64encode(self.bits).decode()
        return {**asdict(self), "bits": bits}

    def to_line(self) -> bytes:
        """As a line of what is followed."""
        return _line(self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PieceMap:
        with _reading("piece map"):
            bits = document["bits"]
            return cls(
                _whole(document["size_bytes"]),
                max(1, _whole(document["piece_size_bytes"])),
                _whole(document["version"]),
                None if bits is None else base64.b64decode(bits, validate=True),
            )


@dataclass(frozen=True)
class PieceNews:
    """A line of `GET /v1/blobs/{digest}/follow`, after the first, which is a piece map.

    The answer is a stream of JSON lines for as long as the node fetches the blob. `added` are the pieces that came
    since the line before. `claimed` are all those that it is asking a holder of the whole blob for now, so that nobody
    else need. `firsthand` maps pieces that came straight from such a holder to `piece_digest` of their bytes: a node
    that gets them at second hand can tell whether they were changed on the way. `company` are node ids of some that
    fetch the blob, with a number that each raises while it does; only those whose number has grown since the line
    before. An empty line of news says that the node is still there.
    """

    added: tuple[int, ...] = ()
    claimed: tuple[int, ...] = ()
    firsthand: Mapping[int, str] = field(default_factory=dict)
    company: Mapping[str, int] = field(default_factory=dict)

    def within(self, count: int) -> PieceNews:
        """The same without pieces that a blob of `count` pieces cannot have."""
        if (
            max((*self.added, *self.claimed, *self.firsthand), default=0) < count
            and min(self.firsthand, default=0) >= 0
        ):
            return self
        return PieceNews(
            tuple(piece for piece in self.added if piece < count),
            tuple(piece for piece in self.claimed if piece < count),
            {piece: digest for piece, digest in self.firsthand.items() if 0 <= piece < count},
            self.company,
        )

    def to_json(self) -> dict[str, Any]:
        firsthand = {str(piece): digest for piece, digest in self.firsthand.items()}
        company = {"company": dict(self.company)} if self.company else {}
        return {"added": self.added, "claimed": self.claimed, "firsthand": firsthand, **company}

    def to_line(self) -> bytes:
        """As a line of what is followed; written once, however many are told."""
        return self._as_line

    @cached_property
    def _as_line(self) -> bytes:
        return _line(self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PieceNews:
        with _reading("piece news"):
            return cls(
                tuple(map(_whole, document["added"])),
                tuple(map(_whole, document["claimed"])),
                {int(piece): _text(digest, 64) for piece, digest in document["firsthand"].items()},
                _company(document["company"]) if "company" in document else {},
            )


_compact = json.JSONEncoder(separators=(",", ":"))


def _line(document: Mapping[str, Any]) -> bytes:
    return _compact.encode(document).encode() + b"\n"


def _company(told: Mapping[str, Any]) -> dict[str, int]:
    members = islice(told.items(), MAX_TOLD_MEMBERS)
    return {_text(node_id, 64): _whole(beat) for node_id, beat in members}


def piece_digest(data: bytes | memoryview) -> str:
    """What `firsthand` says of a piece: the first 128 bits of its BLAKE3, in hex. Releases the GIL.

    The blob's own SHA-256 is reckoned over the same bytes anyway; a second one would double the cost of a transfer.
    """
    from blake3 import blake3  # not for commands, which read the other messages here too

    return blake3(data).hexdigest(length=16)


def parse_following(document: Mapping[str, Any]) -> PieceMap | PieceNews:
    """One line of a followed blob."""
    is_map = isinstance(document, dict) and "bits" in document
    return PieceMap.from_json(document) if is_map else PieceNews.from_json(document)


class _reading:
    """Turns whatever goes wrong while a message is read into CorruptData that names the message."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, cls: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError, InvalidName, OverflowError)):
            raise CorruptData(
                f"A peer sent something that is not a {self._what}: {error}.", hint="Is it the same version?"
            ) from error


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is not a count")
    return value


def _moment(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ValueError(f"{value!r:.80} is not a short text")
    return value
