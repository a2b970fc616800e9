"""The manual: topics of help, and man pages from the same text."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from hfpeer.config.settings import KEYS
from hfpeer.errors import CODES
from hfpeer_cli.commands.manual.topics import TOPICS
from hfpeer_cli.grammar import EXIT_CODES
from hfpeer_cli.root import NOUNS, root

Run = Callable[..., Any]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_has_a_page_of_80_columns_with_examples(hfpeer: Run, topic: str) -> None:
    ran = hfpeer("help", topic)
    assert (ran.code, ran.err) == (0, "")
    assert "Examples:\n  " in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert re.search(rf"^  {topic} +\w", hfpeer("help", "-h").out, re.MULTILINE)
    assert topic in hfpeer("-h").out


def test_the_topics_name_all_that_there_is(hfpeer: Run) -> None:
    codes, environment = hfpeer("help", "exit-codes").out, hfpeer("help", "environment").out
    assert all(re.search(rf"^  {code} +\w", codes, re.MULTILINE) for code in EXIT_CODES)
    assert all(re.search(rf"\b{code}\b", codes) for code in CODES)
    assert all(key.variable in environment for key in KEYS.values())


def test_an_unknown_topic_is_answered_with_what_was_meant(hfpeer: Run) -> None:
    ran = hfpeer("help", "exitcodes")
    assert ran.code == 2
    assert "Did you mean 'exit-codes'?" in ran.err


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    with pytest.raises(SystemExit) as end:
        root.main(["help", "--man", str(folder)], prog_name="hfpeer")
    assert end.value.code == 0
    return folder


def verbs(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from verbs(child, (*path, name))


def test_the_pages_have_every_command_and_every_option_of_the_help(man: Path) -> None:
    for path, command in verbs(root, ()):
        page = man / "man1" / f"hfpeer{''.join(f'-{word}' for word in path[:1])}.1"
        text = page.read_text().replace("\\-", "-").replace("\\(aq", "'")
        assert " ".join(("hfpeer", *path)) in text
        for option in command.get_params(click.Context(command)):
            if isinstance(option, click.Option) and not option.hidden:
                assert all(name in text for name in option.opts) and (option.help or "") in text
    assert {page.name for page in (man / "man1").iterdir()} == {"hfpeer.1", *(f"hfpeer-{noun}.1" for noun in NOUNS)}
    assert {page.name for page in (man / "man7").iterdir()} == {f"hfpeer-{topic}.7" for topic in TOPICS}


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
def test_mandoc_finds_no_fault_in_the_pages(man: Path) -> None:
    pages = sorted(map(str, man.rglob("*.[17]")))
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_shows_a_page_as_it_was_written(man: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings=all", "-l", str(man / "man7" / "hfpeer-repos.7")],
        capture_output=True,
        text=True,
        env={"MANWIDTH": "80", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANROFFOPT": "-c"},
        check=True,
    )
    shown = re.sub(r".\x08", "", done.stdout)
    assert done.stderr == ""
    assert "'ORG/*'" in shown and "hf://datasets/ORG/NAME@REV/FILE" in shown
    assert "hfpeer ls 'Qwen/*' --sort size" in shown
