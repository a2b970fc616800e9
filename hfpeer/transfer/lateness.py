"""When a piece is late: it takes a fellow or a holder much longer than pieces have usually taken of late. Pure.

A slow node must cost no more than its piece. Rates do not tell it in time, for a piece is small and its source gives
to many at once; how long pieces take does, and it moves with the network and with the load of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.transfer.pieces import bits_of, pieces_of

LATE_RATIO = 4.0
LATE_SECONDS = 1.0
"""No piece is late before this, however fast the others are."""
FEW_PIECES = 8
"""Until so many have come nobody knows what is usual."""
MEMORY_PIECES = 16
LATE_IN_A_ROW = 3
"""So many late pieces, with none in time between, make a source slow."""
AVOIDED_SECONDS = 5.0
"""How long a late piece is not asked of the same source again, and not thought to be coming from it."""


class Usual:
    """How long pieces have taken of late."""

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0

    def note(self, seconds: float) -> None:
        """A piece has come. One that took very long counts as one that was just late."""
        if self.is_known:
            seconds = min(seconds, self.late_after())
        self._count += 1
        self._seconds += (seconds - self._seconds) / min(self._count, MEMORY_PIECES)

    @property
    def is_known(self) -> bool:
        return self._count >= FEW_PIECES

    def late_after(self, patience: float = 1.0) -> float:
        """The seconds after which a piece is late, `patience` times as many as usual; endless while unknown."""
        return patience * max(LATE_SECONDS, LATE_RATIO * self._seconds) if self.is_known else float("inf")


@dataclass
class Avoided:
    """The pieces that were late at one source, and how often in a row it was late."""

    _pieces: int = 0
    _until: float = 0.0
    in_a_row: int = 0

    def add(self, pieces: int, now: float) -> None:
        self._pieces = self.now(now) | pieces
        self._until = now + AVOIDED_SECONDS
        self.in_a_row += 1

    def now(self, now: float) -> int:
        return self._pieces if now < self._until else 0


@dataclass
class Claims:
    """The pieces that a fellow says it is asking a holder for, and since when."""

    _pieces: int = 0
    _since: dict[int, float] = field(default_factory=dict)

    def hear(self, pieces: int, now: float) -> None:
        """All that it claims now."""
        if pieces == self._pieces:
            return
        self._pieces = pieces
        self._since = {piece: self._since.get(piece, now) for piece in pieces_of(pieces)}

    def within(self, seconds: float, now: float) -> int:
        """Those that were claimed at most so long ago."""
        return bits_of(piece for piece, since in self._since.items() if now - since <= seconds)
