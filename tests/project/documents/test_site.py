"""The site of the documents builds without a warning, in both languages, and asks no other host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from project.documents.reading import CHINESE, ENGLISH, PAGES, ROOT

for library in ("mkdocs", "material", "mkdocs_static_i18n", "jieba"):
    pytest.importorskip(library, reason="the site is built with the docs extra")
FOREIGN = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a link or an anchor that leads nowhere is an error, and a page that is in no menu."""
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder / "built"]
    built = subprocess.run(
        [*map(str, argv)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "built"


def test_each_page_is_there_in_both_languages(site: Path) -> None:
    pages = [page.removeprefix(ENGLISH).removesuffix(".md") for page in PAGES if page.startswith(ENGLISH)]
    places = ["" if page == "index" else f"{page}/" for page in pages]
    assert [place for place in places if not (site / place / "index.html").exists()] == []
    assert [place for place in places if not (site / "zh-CN" / place / "index.html").exists()] == []


def test_a_chinese_page_is_the_translation(site: Path) -> None:
    heading = re.search(r"^# (.+)$", (ROOT / CHINESE / "quickstart.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None and heading[1] in (site / "zh-CN/quickstart/index.html").read_text(encoding="utf-8")


def test_no_page_asks_another_host(site: Path) -> None:
    pages = {page: FOREIGN.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert {page: found for page, found in pages.items() if found} == {}


def test_programs_are_no_part_of_the_site(site: Path) -> None:
    assert list(site.rglob("*.py")) == []
