"""The output of a command: the result on stdout, everything else on stderr.

With `--json` stdout has one JSON document, and stderr has only a problem. With `--json-lines` stdout has an object a
line: events as `{"event": …}`, then `{"result": …}` or `{"problem": …}`, as the control socket sends them. Tables fit
the width of a terminal; in a pipe they are plain columns that are never cut. Only this module makes text `printable`:
one string is one line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import click

from hfpeer.language.amounts import counted as counted
from hfpeer.language.amounts import human_size as human_size
from hfpeer.language.amounts import human_time as human_time
from hfpeer.system.printable import printable, printable_lines
from hfpeer_cli.language.chosen import translated, translated_word
from hfpeer_cli.screen.terminal import in_symbols, on_screen, styled, width_cells

if TYPE_CHECKING:
    from hfpeer.transfer.events import Event
    from hfpeer_cli.screen.tables import Column

JSON_VERSION = 1
"""Grows when a document loses a field, or a field another type or meaning. New fields do not change it."""

_one_line = Lock()
"""Held while a line is printed: events come from any thread."""


@dataclass(frozen=True)
class Output:
    """The two streams of one command. `is_lines` is `--json-lines`, and goes with `is_json`. `is_quiet`: the result
    alone, of a table the names. Documents go into `documents` instead of stdout, if it is a list."""

    is_json: bool
    is_lines: bool = False
    is_quiet: bool = False
    documents: list[object] | None = None

    def result(self, text: str | Iterable[str], document: object) -> None:
        """Prints the result: `document` with `--json`, else `text`, one line or several."""
        if self.is_json:
            self._document(document)
        else:
            click.echo(on_screen(text, sys.stdout))

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], document: object, *, names: int = 0
    ) -> None:
        """Prints a result that is a table; nothing when it has no rows. `names` is the column that names a row."""
        lines = list(rows)
        if self.is_json:
            self._document(document)
        elif self.is_quiet:
            shown = dict.fromkeys(printable(row[names]) for row in lines)
            click.echo("".join(f"{line}\n" for line in shown), nl=False)
        elif lines:
            self._table(columns, lines)

    def _table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        from hfpeer_cli.screen.tables import table_lines  # most commands print no table

        is_terminal = sys.stdout.isatty()
        fitted = table_lines(columns, rows, width_cells() if is_terminal else None)
        head, *lines = fitted.lines
        click.echo(in_symbols("\n".join([styled(head, sys.stdout), *lines]), sys.stdout))
        if fitted.left_out:
            self.note(f"No room for {', '.join(fitted.left_out)}: a wider terminal or --json shows it.")

    def note(self, text: str | Iterable[str]) -> None:
        """Prints something beside the result, in one line or several; nothing with `--json` or `--quiet`."""
        shown = "" if self.is_json or self.is_quiet else on_screen(text)
        if shown:
            click.echo(shown, err=True)

    def event(self, event: Event) -> None:
        """Prints an event, with `--json-lines` only. Thread-safe."""
        if self.is_lines:
            self._write(event.to_json())

    def _document(self, document: object) -> None:
        if self.documents is not None:
            self.documents.append(document)
        elif self.is_lines:
            self._line("result", document)
        else:
            click.echo(to_json(document))

    def _line(self, kind: str, value: object) -> None:
        self._write({kind: value})

    def _write(self, line: object) -> None:
        with _one_line:
            click.echo(json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=_plain))

    def log(self, text: str) -> None:
        """Prints lines of the log."""
        click.echo(printable_lines(text), nl=False)

    def interrupted(self, sentence: str) -> None:
        """Prints on stderr, in one line, that the user ended the command."""
        problem: dict[str, Any] = {"code": "interrupted", "message": sentence, "hint": None, "facts": {}}
        if self.is_lines:
            self._line("problem", problem)
        else:
            click.echo(json.dumps(problem) if self.is_json else translated(sentence), err=True)

    def problem(self, problem: Mapping[str, Any]) -> None:
        """Prints an error and its hint on stderr, as sentences or as one line of JSON."""
        if self.is_lines:
            self._line("problem", problem)
            return
        if self.is_json:
            click.echo(json.dumps(problem, ensure_ascii=False, default=str), err=True)
            return
        head = styled(translated_word("Error:"), sys.stderr, color="red")
        click.echo(f"{head} {on_screen(str(problem['message']))}", err=True)
        if problem.get("hint"):
            click.echo(f"{styled(translated_word('Hint:'), sys.stderr)} {on_screen(str(problem['hint']))}", err=True)


def to_json(document: object) -> str:
    """A dataclass, or any collection of them, as indented JSON."""
    return json.dumps(document, ensure_ascii=False, indent=2, default=_plain)


def _plain(value: object) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `node-2` before `node-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name.lower())]
