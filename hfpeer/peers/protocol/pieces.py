"""The pieces of a blob that a node has, and news of further pieces."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from hfpeer import json_fields
from hfpeer.budgets import MAX_GOSSIPED_MEMBERS
from hfpeer.peers.protocol import fields


@dataclass(frozen=True)
class PieceMap:
    """`GET /blobs/{digest}/pieces`: the pieces of a blob that a node can send now.

    `bitfield` has one bit a piece, least significant first; None means the whole blob. `version` grows with every
    change; `GET /blobs/{digest}/follow` sends the changes.
    """

    size_bytes: int
    piece_size_bytes: int
    version: int
    bitfield: bytes | None

    def has(self, piece: int) -> bool:
        """Whether the node has piece number `piece`."""
        if self.bitfield is None:
            return True
        index = piece >> 3
        return index < len(self.bitfield) and bool(self.bitfield[index] >> (piece & 7) & 1)

    def to_json(self) -> dict[str, Any]:
        bitfield = None if self.bitfield is None else base64.b64encode(self.bitfield).decode()
        return {**asdict(self), "bitfield": bitfield}

    def to_line(self) -> bytes:
        """As a line of the response to `follow`."""
        return _line(self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PieceMap:
        with fields.reading("piece map"):
            bitfield = document["bitfield"]
            return cls(
                json_fields.number(document["size_bytes"]),
                max(1, json_fields.number(document["piece_size_bytes"])),
                json_fields.number(document["version"]),
                None if bitfield is None else base64.b64decode(bitfield, validate=True),
            )


@dataclass(frozen=True)
class PieceNews:
    """A line of `GET /blobs/{digest}/follow`, after the first, which is a piece map.

    The response is a stream of JSON lines while the node fetches the blob. `added`: pieces that came since the last
    line. `claimed`: all pieces that the node is requesting from a seed now, so that other nodes need not. `firsthand`
    maps pieces that came straight from a seed to `piece_digest` of their bytes, so that a node that gets them at second
    hand can tell whether they were changed on the way. `members` maps node ids of members of the swarm to their
    heartbeats; only those that have grown since the last line. A line without news says that the node is alive.
    """

    added: tuple[int, ...] = ()
    claimed: tuple[int, ...] = ()
    firsthand: Mapping[int, str] = field(default_factory=dict)
    members: Mapping[str, int] = field(default_factory=dict)

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
            self.members,
        )

    def to_json(self) -> dict[str, Any]:
        firsthand = {str(piece): digest for piece, digest in self.firsthand.items()}
        members = {"members": dict(self.members)} if self.members else {}
        return {"added": self.added, "claimed": self.claimed, "firsthand": firsthand, **members}

    def to_line(self) -> bytes:
        """As a line of the response to `follow`; encoded once for all followers."""
        return self._as_line

    @cached_property
    def _as_line(self) -> bytes:
        return _line(self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PieceNews:
        with fields.reading("piece news"):
            return cls(
                tuple(map(json_fields.number, document["added"])),
                tuple(map(json_fields.number, document["claimed"])),
                {fields.piece(piece): json_fields.text(digest, 64) for piece, digest in document["firsthand"].items()},
                _members(document["members"]) if "members" in document else {},
            )


_compact = json.JSONEncoder(separators=(",", ":"))


def _line(document: Mapping[str, Any]) -> bytes:
    return _compact.encode(document).encode() + b"\n"


def _members(value: Mapping[str, Any]) -> dict[str, int]:
    members = islice(value.items(), MAX_GOSSIPED_MEMBERS)
    return {json_fields.text(node_id, 64): json_fields.number(beat) for node_id, beat in members}


PIECE_DIGEST_BYTES = 16
"""Bytes of the digest of a piece."""


def piece_digest(data: bytes | memoryview) -> str:
    """The digest of a piece in `firsthand`: the first 128 bits of its BLAKE3, in hex. Releases the GIL.

    The blob's SHA-256 is computed over the same bytes; a second SHA-256 would double the CPU cost of a transfer.
    """
    from blake3 import blake3  # commands read other messages of this module, and need no blake3

    return blake3(data).hexdigest(length=16)


def parse_following(document: Mapping[str, Any]) -> PieceMap | PieceNews:
    """One line of the response to `follow`."""
    is_map = isinstance(document, dict) and "bitfield" in document
    return PieceMap.from_json(document) if is_map else PieceNews.from_json(document)
