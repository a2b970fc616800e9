"""Docstrings and comments are plain English: odd constructions are counted and must stay rare."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("hfpeer", "daemon", "cli", "bench", "tests/fakes")
ODD = re.compile(
    r"\b(whoever|whomever|whom|whose word|nobody|anybody|everybody|somebody|for itself|but for"
    r"|so (many|long|far|often)|no more than that|in vain|of late|be it|thereby|therein|hereby|lest"
    r"|who (is|are|was|has|have|had|wants?|asks?|comes?|gives?|gets?|holds?|says?|may|can|needs?|sends?|makes?)"
    r"|what (is|was|has|had|comes|came|goes|went|they|it|others|peers|hubs|nobody)"
    r" (here|there|told|given|known|left|missing|had|said))\b"
    r"|(?:^|[.:;] )(Who|Whoever|Whose|Nobody|What|One (?:that|who|which|of)|Of those|Of these|Others)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Constructions that have to be read twice: a subject that is no thing of the glossary, or an inverted sentence."""
MAX_PER_1000_WORDS = 2.0


def prose(file: Path) -> Iterator[str]:
    """The docstrings, also those below constants, and the comments of a file."""
    source = file.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def odd_and_words(root: Path) -> tuple[list[str], int]:
    """Each odd construction with its file and line of text, and the number of words of all prose."""
    odd, words = list[str](), 0
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            for text in prose(file):
                words += len(text.split())
                odd += [
                    f"{file.relative_to(root)}: …{text[max(0, m.start() - 30) : m.end() + 30]}…"
                    for m in ODD.finditer(text)
                ]
    return odd, words


def test_odd_constructions_are_rare(root: Path) -> None:
    odd, words = odd_and_words(root)
    assert 1000 * len(odd) / words < MAX_PER_1000_WORDS, "\n".join(odd)
