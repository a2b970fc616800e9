"""The abilities of the terminal behind a stream, and text as it can show it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

import click

from hfpeer.system.printable import printable
from hfpeer_cli.language.chosen import translated

SYMBOLS = {"━": "#", "─": "-", "…": "...", "·": "-", "→": "->"}
"""The characters that hfpeer draws with, and their stand-ins on a terminal that has ASCII only."""
C_LOCALES = ("C", "POSIX")
WITHOUT_CURSOR = ("dumb", "unknown")
"""Values of TERM for terminals on which nothing can be drawn anew."""


def draws(stream: TextIO) -> bool:
    """Whether a picture on this stream may be drawn anew in place."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in WITHOUT_CURSOR


def is_colored(stream: TextIO) -> bool:
    """Whether colours and bold type may be used (https://no-color.org)."""
    return draws(stream) and not os.environ.get("NO_COLOR")


def styled(text: str, stream: TextIO, *, color: str | None = None) -> str:
    """The text in bold, and in a colour, where the stream may have them."""
    return click.style(text, fg=color, bold=True) if is_colored(stream) else text


def width_cells() -> int:
    """The columns of the terminal: `COLUMNS`, else as the terminal says, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    for output in (1, 2):
        try:
            return os.get_terminal_size(output).columns or 80
        except OSError:
            continue
    return 80


def has_ascii_only(stream: TextIO) -> bool:
    """Whether the symbols cannot be shown: by the encoding of the stream, or because the locale is C."""
    try:
        "".join(SYMBOLS).encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return True
    return stream.isatty() and is_c_locale(os.environ)


def is_c_locale(environ: Mapping[str, str]) -> bool:
    """Whether the locale is C, or is not set. Python then sets LC_CTYPE to C.UTF-8 by itself (PEP 538)."""
    by_type = environ.get("LC_CTYPE")
    names = (environ.get("LC_ALL"), None if by_type == "C.UTF-8" else by_type, environ.get("LANG"))
    return next(filter(None, names), "C") in C_LOCALES


def in_symbols(text: str, stream: TextIO) -> str:
    """The text with stand-ins for symbols that a terminal does not have; unchanged in a pipe of UTF-8."""
    if text.isascii() or not has_ascii_only(stream):
        return text
    for symbol, stand_in in SYMBOLS.items():
        text = text.replace(symbol, stand_in)
    return text


def on_screen(text: str | Iterable[str], stream: TextIO | None = None) -> str:
    """One line, or several, in the language of the command, as a terminal can show them. `stream` is stderr."""
    if not isinstance(text, str):
        return "\n".join(on_screen(line, stream) for line in text)
    return in_symbols(printable(translated(text)), stream or sys.stderr)
