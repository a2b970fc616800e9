"""Help pages in the language of the command. Chinese has no spaces to break a line at, and its characters take two
cells of a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from hfpeer.language.catalog import paragraphs_of
from hfpeer.language.cells import cells, is_wide
from hfpeer_cli.language.chosen import translated, translated_word

_FACTS = re.compile(r"^(.*?)(  \[.*\])?$", re.DOTALL)
"""The help of an option, and what click says of it: `[default: 8; required]`."""
_NEVER_FIRST = "，。；：、！？）」』》”’…,.;:!?)]"
_NEVER_LAST = "（「『《“‘(["


class TranslatedHelp(click.HelpFormatter):
    """Writes a help page in the language of the command."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, f"{translated_word('Usage:')} " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(translated_word(heading))

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        paragraphs = ("\n".join(_wrapped(each, self.width, indent)) for each in map(translated, paragraphs_of(text)))
        self.write("\n\n".join(paragraphs) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        lines = list(rows)
        column = min(max((len(first) for first, _ in lines), default=0), col_max) + col_spacing
        left = self.current_indent
        for first, second in lines:
            meaning = _wrapped(_option_help(second), self.width - left - column, "")
            if len(first) > column - col_spacing or not meaning:
                self.write(f"{'':{left}}{first}\n")
            else:
                self.write(f"{'':{left}}{first:<{column}}{meaning.pop(0)}\n")
            for line in meaning:
                self.write(f"{'':{left + column}}{line}\n")


def _option_help(text: str) -> str:
    found = _FACTS.match(text)
    assert found is not None
    return translated(" ".join(found[1].split())) + (found[2] or "")


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """The lines of a paragraph: broken at spaces and between wide characters, but not before a closing mark."""
    lines, line = list[str](), ""
    for unit in _units(text):
        if line and cells(line + unit.rstrip()) > width - len(indent):
            lines.append(indent + line.rstrip())
            line = ""
        line += unit if line else unit.lstrip()
    return [*lines, indent + line.rstrip()] if line.strip() else lines


def _units(text: str) -> list[str]:
    """The pieces of a text between which a line may end."""
    units = list[str]()
    for character in text:
        before = units[-1][-1:] if units else ""
        is_break = before == " " or is_wide(character) or (bool(before) and is_wide(before))
        if not units or (is_break and character != " " and character not in _NEVER_FIRST and before not in _NEVER_LAST):
            units.append(character)
        else:
            units[-1] += character
    return units
