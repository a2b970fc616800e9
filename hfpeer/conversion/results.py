"""What a conversion has made, as values ready for JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MAX_NAMED = 100
"""At most this many missing pictures of a part are named; all are counted."""


@dataclass(frozen=True)
class Miss:
    """A picture that a row names and that was found nowhere."""

    source: str
    row: int
    column: str
    name: str


@dataclass(frozen=True)
class PartReport:
    """One part that is done. `replaced` counts values that the format cannot hold, by what they became; `pictures`
    counts the pictures that its rows name."""

    part: int
    file: str
    output: str
    rows: int
    size_bytes: int
    sha256: str
    pictures: int = 0
    missing: int = 0
    misses: tuple[Miss, ...] = ()
    replaced: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PartReport:
        """Raises TypeError or KeyError for anything else."""
        return cls(**{**document, "misses": tuple(Miss(**miss) for miss in document["misses"])})


@dataclass(frozen=True)
class ConvertedFile:
    """One file of the output; its path is relative to the folder."""

    path: str
    split: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion. `is_complete` is false if other parts are still to be made, elsewhere.

    `parts` of `parts_total` parts are done, `kept_parts` of them were done before. `missing` counts pictures that were
    found nowhere, `replaced` values that the format cannot hold.
    """

    repo: str
    commit: str
    config: str
    folder: str
    format: str
    shape: str
    rows: int
    files: tuple[ConvertedFile, ...]
    parts: int
    parts_total: int
    kept_parts: int
    pictures: int
    missing: int
    misses: tuple[Miss, ...]
    replaced: dict[str, int]
    is_complete: bool
    fetched_bytes: int = 0
    seconds: float = 0.0

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class RecipeReport:
    """The result of a recipe: by name the report of each dataset, and the merged files below the folder."""

    folder: str
    datasets: dict[str, ConversionReport]
    merged: tuple[ConvertedFile, ...]


def total_replaced(parts: Iterable[PartReport]) -> dict[str, int]:
    """The replaced values of several parts, by what they became."""
    totals: dict[str, int] = {}
    for part in parts:
        for kind, count in part.replaced.items():
            totals[kind] = totals.get(kind, 0) + count
    return dict(sorted(totals.items()))


def with_totals(report: ConversionReport, fetched_bytes: int, seconds: float) -> ConversionReport:
    """A report with what the run took."""
    return replace(report, fetched_bytes=fetched_bytes, seconds=round(seconds, 3))
