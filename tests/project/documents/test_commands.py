"""Every command in a document parses: in its shell blocks whole, in its sentences as far as it is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from hfpeer_cli.main import main
from hfpeer_cli.root import NOUNS
from project.documents.reading import (
    CHINESE,
    DOCUMENTS,
    ENGLISH,
    PAGES,
    PAIRS,
    READMES,
    hfpeer_lines,
    mentioned_commands,
    shell_lines,
)

ALL_MENTIONED = sorted({words for document in DOCUMENTS for words in mentioned_commands(document)})


@pytest.fixture
def exit_code_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """The exit code of a command line. All its words are parsed and converted; only the work itself is left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Command, "invoke", lambda command, ctx: None)

    def run(words: str) -> object:
        words = words.replace("~/", "home/")
        for path in re.findall(r"(?<= )home/[\w./-]+", words):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        for folder in re.findall(r"(?:^| )(?:\./)?([\w-]+)(?= |/|$)", words):
            (tmp_path / folder).mkdir(exist_ok=True)
        for file in re.findall(r"(?:^| )([\w-]+\.\w+)", words):
            (tmp_path / file).touch()
        with pytest.raises(SystemExit) as end:
            main(shlex.split(words))
        return end.value.code

    return run


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if list(hfpeer_lines(name))])
def test_the_commands_of_a_document_parse(document: str, exit_code_of: Callable[[str], object]) -> None:
    assert {words: code for words in hfpeer_lines(document) if (code := exit_code_of(words))} == {}


@pytest.mark.parametrize("words", ALL_MENTIONED)
def test_a_command_that_a_document_mentions_exists(words: str) -> None:
    before, dashes, rest = words.partition(" -- ")
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(before.removesuffix(" --")), "--help", *shlex.split(dashes + rest)])
    assert end.value.code == 0


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_a_translation_gives_the_same_commands(english: str, chinese: str) -> None:
    assert shell_lines(chinese) == shell_lines(english)


def test_the_documents_show_every_noun() -> None:
    for language, readme in zip((ENGLISH, CHINESE), READMES, strict=True):
        documents = [readme, *(page for page in PAGES if page.startswith(language))]
        shown = (words for document in documents for words in (*hfpeer_lines(document), *mentioned_commands(document)))
        assert {words.split()[0] for words in shown} >= set(NOUNS)
