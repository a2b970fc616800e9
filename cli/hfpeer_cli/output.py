"""What the command line prints: the result on stdout, everything else on stderr.

With `--json` stdout carries one JSON document and stderr nothing but a problem. Tables fit a terminal's width; into
a pipe they are plain columns, never cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Output:
    """The two streams of one command."""

    is_json: bool

    def result(self, text: str, document: object) -> None:
        """Prints the result: `document` as JSON if that was asked for, else `text`."""
        click.echo(to_json(document) if self.is_json else text)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]], document: object) -> None:
        """Prints a result that is a table; nothing when it has no rows."""
        lines = [tuple(row) for row in rows]
        if self.is_json:
            click.echo(to_json(document))
        elif lines and sys.stdout.isatty():
            _print_fitted(headings, lines)
        elif lines:
            click.echo("\n".join(_aligned([tuple(headings), *lines])))

    def note(self, text: str) -> None:
        """Tells the person something that is not the result."""
        if not self.is_json:
            click.echo(text, err=True)

    def interrupted(self, sentence: str) -> None:
        """Says that the user ended it, in one line on stderr."""
        problem: dict[str, Any] = {"code": "interrupted", "message": sentence, "hint": None, "facts": {}}
        click.echo(json.dumps(problem) if self.is_json else sentence, err=True)

    def problem(self, problem: Mapping[str, Any]) -> None:
        """Prints what went wrong and what to do, as sentences or as one line of JSON, on stderr."""
        if self.is_json:
            click.echo(json.dumps(problem, ensure_ascii=False, default=str), err=True)
            return
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {problem['message']}", err=True)
        if problem.get("hint"):
            click.echo(f"{click.style('Hint:', fg='yellow', bold=True)} {problem['hint']}", err=True)


def to_json(document: object) -> str:
    """A dataclass, or any collection of them, as indented JSON."""
    return json.dumps(document, ensure_ascii=False, indent=2, default=_plain)


def _plain(value: object) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _print_fitted(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def human_size(size_bytes: float) -> str:
    """`1.2 GB`: decimal units, as disks and links are sold."""
    from rich.filesize import decimal

    return decimal(int(size_bytes)).replace("bytes", "B").replace("byte", "B")


def human_time(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `2 days`: how long, or how long ago."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
