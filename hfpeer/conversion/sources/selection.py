"""Which rows of the files of a part belong to its output. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.conversion.plan import Part
from hfpeer.conversion.request.splits import rank


@dataclass(frozen=True)
class Selection:
    """The rows of a part; rows count from the first row of its first file."""

    first: int
    end: int | None
    split: str = ""
    row: int = 0
    seed: int | None = None
    highest_rank: str = ""

    @classmethod
    def of(cls, part: Part, seed: int | None) -> Selection:
        end = None if part.take is None else part.skip + part.take
        return cls(part.skip, end, part.split, part.row, seed, part.highest_rank)

    def ends_before(self, row: int) -> bool:
        """Whether no row from this one on belongs to the output."""
        return self.end is not None and row >= self.end

    def wants_any(self, first: int, end: int) -> bool:
        """Whether rows of this range can belong to the output."""
        return end > self.first and not self.ends_before(first)

    def chosen(self, first: int, count: int) -> range | list[int]:
        """The rows that belong to the output, of `count` rows from `first` on, as places in these."""
        start = min(max(self.first - first, 0), count)
        stop = count if self.end is None else min(max(self.end - first, start), count)
        places = range(start, stop)
        if self.seed is None or not self.highest_rank:
            return places
        base = self.row + first
        return [place for place in places if rank(self.seed, self.split, base + place) <= self.highest_rank]
