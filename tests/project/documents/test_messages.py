"""Every message that a page quotes is one that hfpeer prints."""

from __future__ import annotations

import re

import pytest

from project.documents.reading import PAGES, ROOT, text_of
from project.sources import texts_of_the_program

MESSAGE = re.compile("“([!-~…][ -~…]* [ -~…]*)”")
"""English between curved quotes, of more than one word; `…` stands for what differs."""
QUOTED = [(page, message) for page in PAGES for message in MESSAGE.findall(text_of(page))]


@pytest.fixture(scope="module")
def printed() -> list[str]:
    return [text for _, text in texts_of_the_program(ROOT)]


@pytest.mark.parametrize(("page", "message"), QUOTED)
def test_a_quoted_message_is_printed_by_the_program(page: str, message: str, printed: list[str]) -> None:
    parts = ".*".join(re.escape(part.strip()) for part in message.split("…"))
    assert any(re.search(parts, text, re.DOTALL) for text in printed), f"{page} quotes {message}"


def test_messages_are_quoted() -> None:
    assert len(QUOTED) > 40
