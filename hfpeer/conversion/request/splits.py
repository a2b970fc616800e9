"""Reads what a user says of splits: `train`, `train[:1000]`, `train[10%:20%]`, `train+test`, `dev=train[-500:]`.

The rules of slices are those of `datasets`: percents are rounded to the nearest row. Source: datasets `arrow_reader`,
`_rel_to_abs_instr`. Pure.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hfpeer.errors import InvalidName

_TERM = re.compile(r"(?P<split>\w[\w.-]*)(?:\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?")
_OUTPUT = re.compile(r"\w[\w.+-]{0,99}")
_HINT = "Write NAME, NAME[10:20], NAME[:10%], NAME+NAME, or OUTPUT=NAME[:10]."


@dataclass(frozen=True)
class Bound:
    """One end of a slice: a row, or a percent; negative ones count from the end."""

    number: int
    is_percent: bool

    @classmethod
    def parse(cls, text: str | None) -> Bound | None:
        return None if text is None else cls(int(text.rstrip("%")), text.endswith("%"))

    @property
    def needs_total(self) -> bool:
        return self.is_percent or self.number < 0

    def row(self, total: int) -> int:
        """The row of this end in a split of `total` rows."""
        row = round(self.number * total / 100) if self.is_percent else self.number
        return min(max(row + total if row < 0 else row, 0), total)


@dataclass(frozen=True)
class Term:
    """Rows of one split, in order."""

    split: str
    first: Bound | None = None
    last: Bound | None = None

    @property
    def needs_total(self) -> bool:
        """Whether the slice depends on the number of rows of the split."""
        return any(bound is not None and bound.needs_total for bound in (self.first, self.last))

    @property
    def is_whole(self) -> bool:
        return self.first is None and self.last is None

    def rows(self, total: int) -> tuple[int, int]:
        """The first row and the one after the last, in a split of `total` rows."""
        first = 0 if self.first is None else self.first.row(total)
        last = total if self.last is None else self.last.row(total)
        return first, max(first, last)


@dataclass(frozen=True)
class SplitChoice:
    """One output: its name, and the rows that go into it."""

    name: str
    terms: tuple[Term, ...]


def parse_splits(texts: Iterable[str]) -> tuple[SplitChoice, ...]:
    """Raises InvalidName for a malformed text, and for two outputs of one name."""
    choices = [_choice(text) for text in texts]
    names = [choice.name for choice in choices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidName(
            f"Two of the splits would be written as {twice!r}.", hint=f"Name one: OTHER={twice}[…].", split=twice
        )
    return tuple(choices)


def _choice(text: str) -> SplitChoice:
    name, equals, rest = text.partition("=")
    found = [_TERM.fullmatch(part.strip()) for part in (rest if equals else text).split("+")]
    if not all(found) or (equals and not _OUTPUT.fullmatch(name)):
        raise InvalidName(f"{text!r} names no split.", hint=_HINT, split=text)
    terms = tuple(Term(one["split"], Bound.parse(one["first"]), Bound.parse(one["last"])) for one in found if one)
    return SplitChoice(name if equals else "+".join(dict.fromkeys(term.split for term in terms)), terms)


def rank(seed: int, split: str, row: int) -> str:
    """The rank of a row in a draw: the rows of the lowest ranks are drawn, the same on every machine."""
    return hashlib.blake2b(f"{seed}\0{split}\0{row}".encode(), digest_size=16).hexdigest()


def highest_rank(seed: int, ranges: Sequence[tuple[str, int, int]], samples: int) -> str:
    """The highest rank that is drawn, when `samples` rows are drawn of these ranges: split, first row, end. Empty if
    there is nothing to draw."""
    ranks = (rank(seed, split, row) for split, first, end in ranges for row in range(first, end))
    drawn = heapq.nsmallest(samples, ranks)
    return drawn[-1] if drawn else ""
