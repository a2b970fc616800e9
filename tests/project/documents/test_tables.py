"""Pages, tables and schemas that follow from the code are up to date; the set-up commands are what CI runs."""

from __future__ import annotations

import click
import pytest

from docs.made.commands import all_commands
from docs.made.documents import DOCUMENTS
from docs.made.everything import made_files
from docs.made.tables import TABLES
from project.documents.reading import CHINESE, READMES, ROOT, shell_lines, table_of


def test_every_command_that_prints_json_has_its_document() -> None:
    verbs = {path for path, command in all_commands() if not isinstance(command, click.Group)}
    assert verbs - set(DOCUMENTS) == {"daemon logs", "run", "help"}
    assert set(DOCUMENTS) - verbs == {"version", "transfers"}, "a hidden command, and a group that is a command too"


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    stale = [name for name, text in made_files(ROOT).items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert stale == [], "`just reference` writes these anew"


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
