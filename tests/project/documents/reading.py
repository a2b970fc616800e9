"""What the tests of documents read in them: links, commands, tables. Owns the forms; asserts nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[3]
READMES = ("README.md", "README.zh-CN.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))
"""The pages of the site, from the checkout."""
DOCUMENTS = [*sorted(path.name for path in ROOT.glob("*.md")), *PAGES]
ENGLISH, CHINESE = "docs/en/", "docs/zh-CN/"
PAIRS = [
    (READMES[0], READMES[1]),
    *(
        (page, page.replace(ENGLISH, CHINESE, 1))
        for page in PAGES
        if page.startswith(ENGLISH) and page.replace(ENGLISH, CHINESE, 1) in PAGES
    ),
]
"""A document in English, and the same in Chinese."""
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(document: str) -> list[str]:
    """The lines of the shell blocks, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def hfpeer_lines(document: str) -> Iterator[str]:
    """What the shell blocks of a document tell to type after `hfpeer`; variables of the shell are numbers."""
    for line in shell_lines(document):
        for command in re.split(r" (?:&&|\|\|?|>>?|<) ", line):
            before, program, words = command.strip().rpartition("hfpeer ")
            if program and (not before or before.endswith(("/bin/", "sudo ", '"$('))):
                yield re.sub(r"\$\w+", "0", words.split(')"')[0])


def mentioned_commands(document: str) -> list[str]:
    """Each `hfpeer …` inside a sentence or a table; there a command may be a mere beginning. `a|b` is two commands, and
    `[--option]` stands for what is in it."""
    found = re.findall(r"`hfpeer ([^`…]+)(?:…[^`]*)?`", text_of(document))
    alternatives = (
        product(*(word.strip("[]").split("|") for word in shlex.split(words.replace("\n", " ")))) for words in found
    )
    return sorted({shlex.join(words) for each in alternatives for words in each})


def table_of(document: str, name: str) -> list[tuple[str, ...]]:
    """The body of the table between `<!-- name -->` and `<!-- /name -->`."""
    _, _, rest = text_of(document).partition(f"<!-- {name} -->\n")
    lines = rest.partition(f"<!-- /{name} -->")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
