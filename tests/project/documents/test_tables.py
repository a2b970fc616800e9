"""The tables of settings, exit codes and error codes are those of the code; the set-up commands are what CI runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hfpeer.config.settings import KEYS
from hfpeer.errors import CODES
from hfpeer_cli.grammar import EXIT_CODES
from project.documents.reading import CHINESE, ENGLISH, READMES, ROOT, Table, as_markdown, shell_lines, table_of


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
"""Name of a table -> its page, and what the code says. Its last column is text, which the translation translates."""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    page, told = TABLES[name]
    assert table_of(ENGLISH + page, name) == told(), f"{ENGLISH + page} should read:\n{as_markdown(told())}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_translation_has_the_same_rows(name: str) -> None:
    page, told = TABLES[name]
    found = table_of(CHINESE + page, name)
    assert [row[:-1] for row in found] == [row[:-1] for row in told()], CHINESE + page
    assert all(row[-1] for row in found)


@pytest.mark.parametrize("readme", READMES)
def test_the_two_set_up_commands_are_what_ci_runs(readme: str) -> None:
    demo, tests = [line for line in shell_lines(readme) if ".venv/bin/" in line]
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert demo.endswith("/hfpeer demo") and demo in ci
    assert tests.endswith("/just test") and tests in ci
