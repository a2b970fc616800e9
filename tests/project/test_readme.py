"""The README says what is: its tables are those of the code, its commands parse, its set-up is what CI runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from hfpeer.config.settings import KEYS
from hfpeer.errors import CODES
from hfpeer_cli.grammar import EXIT_CODES
from hfpeer_cli.main import main
from hfpeer_cli.root import NOUNS

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
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


TABLES: dict[str, Callable[[], Table]] = {
    "settings": settings_table,
    "exit codes": exit_codes_table,
    "errors": errors_table,
}
"""Name of a table in the README -> what the code says. Its last column is text, which the translation translates."""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def table_of(readme: str, name: str) -> Table:
    """The body of the table between `<!-- name -->` and `<!-- /name -->`."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"<!-- {name} -->\n")
    lines = rest.partition(f"<!-- /{name} -->")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def as_markdown(table: Table) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def command_lines(readme: str) -> list[str]:
    """The lines of the shell blocks, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def hfpeer_lines() -> list[str]:
    """What the README tells to type after `hfpeer`."""
    parts = [line.rpartition("hfpeer ") for line in command_lines("README.md")]
    return [words for before, hfpeer, words in parts if hfpeer and (not before or before.endswith("/bin/"))]


def mentioned_commands() -> list[str]:
    """The `hfpeer ...` inside a text; there a command may be a mere beginning."""
    texts = [(ROOT / readme).read_text(encoding="utf-8") for readme in READMES]
    return sorted({words for text in texts for words in re.findall(r"`hfpeer ([^`…]+)`", text)})


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_readme_says_what_the_code_says(name: str) -> None:
    expected = TABLES[name]()
    assert table_of("README.md", name) == expected, f"it should read:\n{as_markdown(expected)}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_translation_has_the_same_rows(name: str) -> None:
    found = table_of("README.zh-CN.md", name)
    assert [row[:-1] for row in found] == [row[:-1] for row in TABLES[name]()]
    assert all(row[-1] for row in found)


@pytest.mark.parametrize("readme", READMES)
def test_the_two_set_up_commands_are_what_ci_runs(readme: str) -> None:
    demo, tests = [line for line in command_lines(readme) if ".venv/bin/" in line]
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert demo.endswith("/hfpeer demo") and demo in ci
    assert tests.endswith("/just test") and tests in ci


def test_the_translation_gives_the_same_commands() -> None:
    assert command_lines("README.zh-CN.md") == command_lines("README.md")


@pytest.mark.parametrize("words", hfpeer_lines())
def test_a_command_of_the_readme_parses(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    # All words are parsed and converted; only the work itself is left out.
    monkeypatch.setattr(click.Command, "invoke", lambda command, ctx: None)
    with pytest.raises(SystemExit) as end:
        main(shlex.split(words))
    assert end.value.code == 0


@pytest.mark.parametrize("words", mentioned_commands())
def test_a_command_that_the_readme_mentions_exists(words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(words), "--help"])
    assert end.value.code == 0


def test_the_readme_shows_every_noun() -> None:
    assert {words.split()[0] for words in hfpeer_lines()} == set(NOUNS)
