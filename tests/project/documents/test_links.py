"""The documents lead somewhere: links, tests, modules and recipes that they name exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.documents.reading import CHINESE, DOCUMENTS, ENGLISH, LINK, PAGES, PAIRS, ROOT, anchors, text_of

NAMED_TEST = re.compile(r"`((?:tests/)?(?:unit|contract|swarm|cli|clients|project)/test_\w+\.py)(?:::(test_\w+))?`")
MODULE = re.compile(r"python[\s]-m[\s](bench(?:\.\w+)+)")
RECIPE = re.compile(r"(?:^|[`/] ?)just ([a-z][a-z-]+)", re.MULTILINE)
NO_FILE = re.compile(r"[a-z]+:|$")
PLACE = re.compile(r"`((?:hfpeer|cli|daemon|tests|bench|docs|systemd)/[\w./-]*)`")


def recipes() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*)(?: [^:]*)?:$", (ROOT / "justfile").read_text(), re.MULTILINE))


def broken_links(document: str) -> Iterator[str]:
    for link in LINK.findall(text_of(document)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / document).parent / file if file else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    assert list(broken_links(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_tests_exist(document: str) -> None:
    for file, function in NAMED_TEST.findall(text_of(document)):
        path = ROOT / "tests" / file.removeprefix("tests/")
        assert path.is_file(), f"{document} names {file}"
        assert not function or f"def {function}(" in path.read_text(), f"{document} names {file}::{function}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_places_modules_and_recipes_exist(document: str) -> None:
    text = text_of(document)
    gone = [
        place for place in PLACE.findall(text) if not (ROOT / place).exists() and not (ROOT / "tests" / place).exists()
    ]
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        gone += [] if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() else [module]
    gone += [recipe for recipe in RECIPE.findall(text) if recipe not in recipes()]
    assert gone == []


def test_every_recipe_is_in_the_contributors_table() -> None:
    told = set(RECIPE.findall(text_of("CONTRIBUTING.md")))
    assert told >= recipes() - {"default"}


def test_what_ci_and_the_hooks_run_are_the_recipes() -> None:
    """CI calls recipes and nothing of its own for lint, types and tests; the hooks run what `just check` runs."""
    check = (ROOT / "justfile").read_text().partition("\ncheck:\n")[2].partition("\n\n")[0]
    tools = re.findall(r"\{\{ bin \}\}/(\S+)", check)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    assert tools == re.findall(r"entry: \.venv/bin/(\S+)", hooks)
    assert "just check" in ci and not [tool for tool in tools if f"/{tool}" in ci]


def test_the_justfile_parses() -> None:
    just = Path(sys.executable).with_name("just")
    if not just.exists():
        pytest.skip("just is part of the dev extra")
    argv = [str(just), "--summary", "--justfile", str(ROOT / "justfile")]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
    assert set(told.split()) == recipes() - {"default"}


def test_pages_lie_in_the_rooms_of_their_language() -> None:
    """English in docs/en, Chinese in docs/zh-CN: at the top, in guide, in admin or in reference."""
    place = re.compile(rf"(?:{ENGLISH}|{CHINESE})(?:guide/|admin/|reference/)?[a-z-]+\.md")
    assert [page for page in PAGES if not place.fullmatch(page)] == []
    assert [page for page in PAGES if page.startswith(CHINESE) and page.replace(CHINESE, ENGLISH, 1) not in PAGES] == []


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_a_page_leads_to_its_translation(english: str, chinese: str) -> None:
    for page, other, word in ((english, chinese, "中文"), (chinese, english, "English")):
        link = os.path.relpath(ROOT / other, (ROOT / page).parent)
        assert f"*[{word}]({link})" in text_of(page).partition("\n\n")[2].partition("\n")[0]


def test_pages_lead_to_pages_alone() -> None:
    """The site has what is in docs/, and nothing else of the checkout."""
    links = ((page, link.partition("#")[0]) for page in PAGES for link in LINK.findall(text_of(page)))
    files = ((page, link, ((ROOT / page).parent / link).resolve()) for page, link in links if not NO_FILE.match(link))
    assert [(page, link) for page, link, file in files if not file.is_relative_to(ROOT / "docs")] == []


def test_the_menu_of_the_site_has_every_page() -> None:
    menu = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(menu) == [page.removeprefix(ENGLISH) for page in PAGES if page.startswith(ENGLISH)]
