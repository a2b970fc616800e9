"""The Chinese documents use one word for one thing, that of the glossary, and no word of a literal translation."""

from __future__ import annotations

import pytest

from project.documents.reading import CHINESE, PAGES, text_of

GLOSSARY = "docs/zh-CN/reference/glossary.md"
DOCUMENTS = ["README.zh-CN.md", *(page for page in PAGES if page.startswith(CHINESE) and page != GLOSSARY)]
BETTER = {
    "邻居": "其他节点",
    "控制门": "控制接口",
    "镜像站": "镜像",
    "受限": "需申请访问",
    "需要授权": "需申请访问",
    "版本名": "修订版本",
    "由你作主": "由你决定",
    "说谎": "发送错误数据",
    "点名": "指出",
    "折算": "还原",
    "谁都联系不上": "所有来源均无法连接",
    "测一测": "运行测试",
    "不接受提交": "不接受代码提交",
}
"""What reads translated, or is a second word for a thing -> what an engineer writes."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_words_are_those_of_the_glossary(document: str) -> None:
    assert {word: better for word, better in BETTER.items() if word in text_of(document)} == {}
