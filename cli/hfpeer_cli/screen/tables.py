"""Tables that fit a width. A name is cut; an address, a commit or a number never is.

If that is not enough, whole columns are left out: those of the highest rank first, then from the right. The first
column and the first of exact texts stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hfpeer.language.cells import cells, padded
from hfpeer.system.printable import printable
from hfpeer_cli.language.chosen import translated, translated_word

GAP = "  "
LEAST_CELLS = 6
"""Cells that remain of a name where even the columns that stay have no room."""
Kind: TypeAlias = Literal["name", "exact", "number", "words", "time"]
TRANSLATED, AT_RIGHT = ("words", "time"), ("number", "time")


@dataclass(frozen=True)
class Column:
    """A column under a heading.

    `kind`: *words* and *times* are hfpeer's own, and are translated; *numbers* and times stand at the right; a *name*
    and what is *exact* stay as they are. `least` cells remain of a cell that is cut; without it none is. A column with
    a `rank` may be left out, the highest rank first.
    """

    head: str
    kind: Kind = "words"
    rank: int = 0
    least: int = 0


def name(head: str, *, rank: int = 0, least: int = 12) -> Column:
    return Column(head, "name", rank, least)


def exact(head: str, *, rank: int = 0) -> Column:
    return Column(head, "exact", rank)


def number(head: str, *, rank: int = 0) -> Column:
    return Column(head, "number", rank)


def words(head: str, *, rank: int = 0, least: int = 0) -> Column:
    return Column(head, "words", rank, least)


def age(head: str, *, rank: int = 0) -> Column:
    return Column(head, "time", rank)


@dataclass(frozen=True)
class Fitted:
    """A table as lines; the first is the headings. `left_out` are the headings of the columns that had no room."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def table_lines(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> Fitted:
    """The lines of a table, at most `width` cells wide; without a width nothing is cut or left out."""
    places = list(range(len(columns)))
    grid = [[_shown(cell, column) for cell, column in zip(row, columns, strict=True)] for row in rows]
    left_out = list[int]()
    while True:
        shown = [columns[place] for place in places]
        heads = [translated_word(column.head) for column in shown]
        lines = [heads, *([row[place] for place in places] for row in grid)]
        widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
        if width is None or _shrink(widths, shown, width):
            break
        gone = _next_to_go(columns, places)
        if gone is None:
            _shrink(widths, shown, width, floor=LEAST_CELLS)
            break
        places.remove(gone)
        left_out.append(gone)
    aligned = (
        GAP.join(_cell(cell, room, column) for cell, room, column in zip(line, widths, shown, strict=True)).rstrip()
        for line in lines
    )
    heads_left_out = (translated_word(columns[place].head) for place in sorted(left_out))
    return Fitted(tuple(aligned), tuple(heads_left_out))


def _shown(text: str, column: Column) -> str:
    return printable(translated(text) if column.kind in TRANSLATED else text)


def _next_to_go(columns: Sequence[Column], places: Sequence[int]) -> int | None:
    """The column of those at `places` that is left out next; None if the others have to stay."""
    rank = max(columns[place].rank for place in places)
    first_exact = next(
        (place for place, column in enumerate(columns) if column.kind == "exact" and not column.rank), None
    )
    for place in reversed(places):
        if columns[place].rank == rank and place not in (0, first_exact):
            return place
    return None


def _shrink(widths: list[int], columns: Sequence[Column], width: int, floor: int | None = None) -> bool:
    """Makes the widest columns that may be cut narrower until the table fits; whether it does. `floor` holds in place
    of the least cells of a column."""
    room = width - len(GAP) * (len(widths) - 1)
    places = [place for place, column in enumerate(columns) if column.least]
    while sum(widths) > room:
        open_places = [place for place in places if widths[place] > (floor or columns[place].least)]
        if not open_places:
            return False
        widths[max(open_places, key=lambda place: widths[place])] -= 1
    return True


def _cell(text: str, room: int, column: Column) -> str:
    if cells(text) > room:
        return padded(cut(text, room), room)
    return " " * (room - cells(text)) + text if column.kind in AT_RIGHT else padded(text, room)


def cut(text: str, room: int) -> str:
    """The text in at most `room` cells, with `…` in place of the middle of a repo or path, or of the end of another
    name: hosts differ at their beginning."""
    if cells(text) <= room:
        return text
    if "/" not in text:
        return f"{_first(text, room - 1)}…"
    tail = _first(text[::-1], (room - 1) // 2)[::-1]
    return f"{_first(text, room - 1 - cells(tail))}…{tail}"


def _first(text: str, room: int) -> str:
    taken = ""
    for character in text:
        if cells(taken + character) > room:
            break
        taken += character
    return taken
