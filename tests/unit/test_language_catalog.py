"""A finished sentence finds the template that it was made from, and becomes the same sentence in another language."""

from __future__ import annotations

import pytest

from hfpeer.language.catalog import CATALOGS, Catalog, Template, catalog_of, read_catalog

PO = r"""
msgid ""
msgstr ""
"Language: zh_CN\n"

#: a.py b.py
msgid "{repo} is not in the cache."
msgstr "缓存中没有 {repo}。"

msgid "{host} is full."
msgstr "{host} 已满。"

msgid "{host} cannot be asked: {reason}"
msgstr "无法询问 {host}：{reason}"

msgid "the {what} of {repo} is full."
msgstr "{repo} 的 {what} 已满。"

msgid "Published {files}, {size}."
msgstr "已发布 {files}，共 {size}。"

msgid "{count} file"
msgstr "{count} 个文件"

msgid "{count} files"
msgstr "{count} 个文件"

msgid "Write {{a}} or \"b\"."
msgstr "写 {{a}} 或 \"b\"。"

msgid "{value} is not {choice}."
msgstr "{value} 不是 {choice}。"

msgid "SIZE"
msgstr "大小"

msgid "`hfpeer {type} ls {repo}` lists {what}."
msgstr "用 `hfpeer {type} ls {repo}` 列出{what}。"

msgid " or "
msgstr " 或 "

msgid "fetched twice"
msgstr "重复下载"

#, fuzzy
msgid "Not sure."
msgstr "不确定。"

msgid "Not yet."
msgstr ""
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(read_catalog(PO))


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("acme/tiny is not in the cache.", "缓存中没有 acme/tiny。"),
        ("h1 cannot be asked: h1 is full.", "无法询问 h1：h1 已满。"),
        ("h1 cannot be asked: timed out", "无法询问 h1：timed out"),
        ("the disk of acme/tiny is full.", "acme/tiny 的 disk 已满。"),
        ("Published 1 file, 1.2 GB.", "已发布 1 个文件，共 1.2 GB。"),
        ("Published 1,200 files, 1.2 GB.", "已发布 1,200 个文件，共 1.2 GB。"),
        ("acme/a is not in the cache. h1 is full.", "缓存中没有 acme/a。h1 已满。"),
        ("acme/a is not in the cache. Something new. h1 is full.", "缓存中没有 acme/a。Something new. h1 已满。"),
        ('Write {a} or "b".', '写 {a} 或 "b"。'),
        ("  fetched twice   1.2 GB", "  重复下载        1.2 GB"),
        ("fetched twice  acme/a is not in the cache.", "重复下载       缓存中没有 acme/a。"),
        ("acme/a  x is not in the cache.", "acme/a  缓存中没有 x。"),
        ("`hfpeer SIZE ls acme/a` lists SIZE.", "用 `hfpeer SIZE ls acme/a` 列出大小。"),
        ("h1 cannot be asked: h1 is full. The rest is fine.", "无法询问 h1：h1 已满。The rest is fine."),
        ("acme/a is not in the cache. Then h1 is full. X", "缓存中没有 acme/a。Then h1 已满。X"),
        ("'ls' or 'SIZE'", "'ls' 或 'SIZE'"),
        ("Not sure.", "Not sure."),
        ("Not yet.", "Not yet."),
        ("fetched twice is not in the cache.", "缓存中没有重复下载。"),
        ("many files", "many files"),
        ("'x' is not 'y'.", "'x' 不是 'y'。"),
        ("A name that a command does not know is not there.", "A name that a command does not know is not there."),
        ("", ""),
    ],
)
def test_a_sentence_is_translated_with_its_values(catalog: Catalog, english: str, chinese: str) -> None:
    assert catalog.text(english) == chinese


def test_a_value_that_looks_like_a_template_is_a_value(catalog: Catalog) -> None:
    assert catalog.text("{repo} {0} is not in the cache.") == "缓存中没有 {repo} {0}。"


def test_only_a_whole_text_is_a_word(catalog: Catalog) -> None:
    assert (catalog.word("SIZE"), catalog.word("SIZE of it")) == ("大小", "SIZE of it")


def test_placeholders_take_the_shortest_text() -> None:
    assert Template("{a} of {b} is {c}.").values("x of y of z is here.") == ["x", "y of z", "here"]
    assert Template("{a} is {b}.").values("nothing fits") is None
    assert Template("from {a} to {b}").values("from to") is None


def test_each_message_is_found_among_those_that_begin_and_end_like_it() -> None:
    catalog = catalog_of("zh_CN")
    for key in read_catalog((CATALOGS / "zh_CN.po").read_text(encoding="utf-8")):
        template = Template(key)
        text = template.filled(dict.fromkeys(template.names, "42"))
        ends = text[0], text[-1]
        assert template.has_ends(*ends)
        assert len(catalog._candidates(text)) < 1500, "few of all templates are looked at"
