"""A question for copies: which of some blobs a node has whole, and which of those it is about to remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hfpeer.errors import InvalidName
from hfpeer.names import Digest
from hfpeer.peers.protocol import fields
from hfpeer.peers.protocol.paths import COPIES_PATH

MAX_ASKED_BLOBS = 500
"""Blobs in one question: its head stays below MAX_HEAD_BYTES, its answer below SMALL_MESSAGE_BYTES."""


@dataclass(frozen=True)
class CopiesMessage:
    """`GET /copies?digests=a,b,c`: the blobs that a node has whole and verified, and shares. `leaving` are those of
    them that it is about to remove, so they are no copies to count on."""

    held: frozenset[Digest] = frozenset()
    leaving: frozenset[Digest] = frozenset()

    def to_json(self) -> dict[str, Any]:
        return {"held": sorted(map(str, self.held)), "leaving": sorted(map(str, self.leaving))}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CopiesMessage:
        with fields.reading("answer on copies"):
            return cls(*(frozenset(map(Digest.parse, document[name])) for name in ("held", "leaving")))


def copies_path(digests: Iterable[Digest]) -> str:
    """`/copies?digests=a,b,c`."""
    return f"{COPIES_PATH}?digests={','.join(map(str, digests))}"


def parse_asked_digests(text: str) -> tuple[Digest, ...]:
    """The digests in such a query, each once. Raises InvalidName for none or too many."""
    digests = tuple(dict.fromkeys(Digest.parse(part) for part in text.split(",", MAX_ASKED_BLOBS)))
    if not 1 <= len(digests) <= MAX_ASKED_BLOBS:
        raise InvalidName(f"A question for copies has 1 to {MAX_ASKED_BLOBS} blobs.", digests=text[:200])
    return digests
