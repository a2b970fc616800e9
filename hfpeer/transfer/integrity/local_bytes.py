"""Finds what is wrong of the bytes that files of this machine gave, when a blob does not have its digest.

A peer with the whole blob tells the digests of its pieces, so that only the pieces that differ are fetched. Without
such a peer all bytes of local files are given up. A digest that a peer tells proves nothing: the digest of the blob
decides, and shows afterwards whether the peer told the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES, piece_digest
from hfpeer.ranges import ByteRange, PieceGrid
from hfpeer.transfer.sources.local_files import spans_of_files

MAX_PEERS_ASKED = 3
"""At most this many peers are asked for the digests of their pieces. Each may take as long as reading the blob."""

AskDigests = Callable[[str, range], "bytes | None"]
"""Asks the source of this name for the digests of these pieces, `PIECE_DIGEST_BYTES` each; None if it tells none."""


class LocalBytes:
    """The bytes of local files in one partial. Belongs to one thread."""

    def __init__(self, partial: PartialBlob, ask: AskDigests, seeds: Callable[[], Sequence[str]]) -> None:
        """`seeds` gives the peers that have the whole blob now."""
        self._partial = partial
        self._grid = PieceGrid(partial.size_bytes)
        self._ask = ask
        self._seeds = seeds
        self._asked: set[str] = set()
        self.told: dict[int, tuple[str, str]] = {}
        """By piece that was given up: the peer that told another digest of it, and the digest."""

    def to_discard(self) -> list[ByteRange]:
        """The blob is wrong: the ranges to fetch again. Empty if no local file gave any of it, or a peer says that what
        they gave is right."""
        spans = spans_of_files(self._partial)
        if not spans:
            return []
        pieces = {piece for span in spans for piece in self._grid.pieces_touching(*span)}
        is_confirmed = False
        while (seed := self._next_seed()) is not None:
            wanted = range(min(pieces), max(pieces) + 1)
            digests = self._ask(seed, wanted)
            if digests is None:
                continue
            wrong = self._differing(seed, sorted(pieces), wanted.start, digests)
            if wrong:
                return wrong
            is_confirmed = True
        return [] if is_confirmed else spans

    def _next_seed(self) -> str | None:
        if len(self._asked) >= MAX_PEERS_ASKED:
            return None
        seed = next((name for name in self._seeds() if name not in self._asked), None)
        if seed is not None:
            self._asked.add(seed)
        return seed

    def _differing(self, seed: str, pieces: Sequence[int], first: int, digests: bytes) -> list[ByteRange]:
        wrong = []
        for piece in pieces:
            at = (piece - first) * PIECE_DIGEST_BYTES
            digest = digests[at : at + PIECE_DIGEST_BYTES].hex()
            extent = self._grid.range_of(piece)
            view = memoryview(bytearray(extent.size_bytes))
            self._partial.read(extent.start, view)
            if piece_digest(view) != digest:
                self.told[piece] = seed, digest
                wrong.append(extent)
        return wrong
