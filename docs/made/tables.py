"""The tables of settings, exit codes and error codes, as the code has them."""

from __future__ import annotations

from collections.abc import Callable

from hfpeer.config.settings import KEYS
from hfpeer.errors import CODES
from hfpeer_cli.grammar import EXIT_CODES

Table = list[tuple[str, ...]]


def settings_table() -> Table:
    return [(_code(key.name), _code(key.default), _code(key.variable), key.summary) for key in KEYS.values()]


def exit_codes_table() -> Table:
    return [(str(code), meaning) for code, meaning in EXIT_CODES.items()]


def errors_table() -> Table:
    return [
        (_code(error.code), str(error.exit_code), str(error.http_status), (error.__doc__ or "").split("\n")[0])
        for error in CODES.values()
    ]


TABLES: dict[str, tuple[str, Callable[[], Table]]] = {
    "settings": ("reference/settings.md", settings_table),
    "exit codes": ("reference/exit-codes.md", exit_codes_table),
    "errors": ("reference/exit-codes.md", errors_table),
}
"""Name of a table -> its page in a language, and what the code says. Its last column is text that is translated."""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def as_markdown(table: Table) -> str:
    """The rows of a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in table)
