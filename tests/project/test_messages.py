"""The Chinese catalog has every message of the source, with the same placeholders and the same commands."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from hfpeer.language.catalog import CATALOGS, Catalog, read_catalog
from hfpeer_cli.language.extraction import PAGE, all_messages, page_messages

PO = (CATALOGS / "zh_CN.po").read_text(encoding="utf-8")
CHINESE = read_catalog(PO)
"""By English message."""
OF_CLICK = set(read_catalog("\n\n".join(entry for entry in PO.split("\n\n") if entry.startswith("#: click\n"))))
"""The messages of click differ from version to version."""


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def quoted(text: str) -> list[str]:
    """Commands, options and the like, which stay as they are."""
    return sorted(re.findall(r"`[^`]*`", text))


def test_the_page_has_all_its_texts_in_chinese(root: Path) -> None:
    chinese = read_catalog((root / PAGE / "zh_CN.po").read_text(encoding="utf-8"))
    texts = page_messages(root)
    assert sorted(set(texts) - {key for key, text in chinese.items() if text}) == [], "translate them in zh_CN.po"
    assert sorted(set(chinese) - set(texts)) == [], "`just messages` drops them"
    for part in (placeholders, quoted):
        assert [(key, text) for key, text in chinese.items() if part(key) != part(text)] == []


def test_the_catalog_is_up_to_date_and_nothing_is_untranslated(root: Path) -> None:
    messages = {message for message, files in all_messages(root).items() if files != ["click"]}
    assert sorted(messages - {key for key, text in CHINESE.items() if text}) == [], "translate them in zh_CN.po"
    assert sorted(set(CHINESE) - messages - OF_CLICK) == [], "`just messages` drops them"


@pytest.mark.parametrize("part", [placeholders, quoted])
def test_a_translation_has_the_same_parts(part: object) -> None:
    assert callable(part)
    assert [(key, text) for key, text in CHINESE.items() if part(key) != part(text)] == []


@pytest.mark.parametrize(
    ("english", "part"),
    [
        ("acme/tiny is not in the cache.", "acme/tiny"),
        ("Show this message and exit.", ""),
    ],
)
def test_what_a_user_sees_is_chinese(english: str, part: str) -> None:
    shown = Catalog(CHINESE).text(english)
    assert re.search("[\u4e00-\u9fff]", shown) and part in shown
