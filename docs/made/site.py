"""A hook of MkDocs: links that are right in a checkout are put right for the site, where each language stands alone."""

from __future__ import annotations

import re
from typing import Any

LANGUAGE_LINE = re.compile(r"^\*\[(?:中文|English)\]\([^)]+\)\*\n\n?", re.MULTILINE)
"""The link to the other language. The site has a menu for that."""
ENGLISH_PAGE = re.compile(r"(\]\((?:\.\./)*)\.\./en/")
"""The beginning of a link from a Chinese page to one that is in English only; the site has it in both languages."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page as the site shows it."""
    return ENGLISH_PAGE.sub(r"\1", LANGUAGE_LINE.sub("", markdown, count=1))
