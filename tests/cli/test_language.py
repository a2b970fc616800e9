"""The language of a terminal: Chinese where the locale is, English in JSON and everywhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpeer.language import catalog
from hfpeer.language.cells import cells

Run = Callable[..., Any]

PO = """
msgid "Error:"
msgstr "错误:"

msgid "Hint:"
msgstr "提示:"

msgid "Usage:"
msgstr "用法:"

msgid "Options"
msgstr "选项"

msgid "Settings: the file in HFPEER_HOME, which the environment overrides."
msgstr "设置项决定这台机器上的节点怎样工作，包括监听的地址、缓存目录、上游、代理、证书以及各种限速。"

msgid "There is no setting {name}."
msgstr "没有设置项 {name}。"

msgid "No such command {name!r}."
msgstr "没有 {name} 这个命令。"

msgid "Try '{command} {option}' for help."
msgstr "运行“{command} {option}”查看帮助。"

msgid "Show this message and exit."
msgstr "显示这段帮助。"

msgid "SETTING"
msgstr "设置项"
"""


@pytest.fixture(autouse=True)
def small_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zh_CN.po").write_text(PO, encoding="utf-8")
    monkeypatch.setattr(catalog, "CATALOGS", tmp_path)


@pytest.mark.parametrize(
    ("variables", "is_chinese"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_CN"}, True),
        ({"LANG": "zh"}, True),
        ({"LANG": "zh_SG.UTF-8@x"}, True),
        ({"LANG": "zh_TW.UTF-8"}, False),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, True),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C", "HFPEER_LANG": "zh-CN"}, True),
        ({"LANG": "zh_CN.UTF-8", "HFPEER_LANG": "en"}, False),
    ],
)
def test_the_locale_chooses_and_hfpeer_lang_overrides(
    hfpeer: Run, environ: dict[str, str], variables: dict[str, str], is_chinese: bool
) -> None:
    environ.update(variables)
    ran = hfpeer("conf", "get", "nonsense")
    assert ran.err.splitlines()[0] == (
        "错误: 没有设置项 'nonsense'。" if is_chinese else "Error: There is no setting 'nonsense'."
    )
    assert ran.code == 2


def test_json_is_english_in_every_language(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["LANG"] = "zh_CN.UTF-8"
    problem = json.loads(hfpeer("--json", "conf", "get", "nonsense").err)
    assert (problem["code"], problem["message"]) == ("bad_name", "There is no setting 'nonsense'.")


def test_a_malformed_command_line_is_explained_in_the_language(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["LANG"] = "zh_CN.UTF-8"
    usage, *_, help_, empty, error = hfpeer("nonsense").err.splitlines()
    assert usage.startswith("用法: hfpeer ")
    assert (help_, empty) == ("运行“hfpeer -h”查看帮助。", "")
    assert error.startswith("错误: 没有 ")


def test_help_fits_the_width_also_with_wide_characters(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["LANG"] = "zh_CN.UTF-8"
    page = hfpeer("conf", "-h").out
    assert "决定这台机器上的节点" in page
    assert "显示这段帮助。" in page
    assert max(map(cells, page.splitlines())) <= 80
    assert not any(line.strip().startswith(("，", "。", "、")) for line in page.splitlines())


def test_the_next_command_in_english_is_english(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["LANG"] = "zh_CN.UTF-8"
    hfpeer("conf", "get", "nonsense")
    environ["LANG"] = "C.UTF-8"
    assert hfpeer("conf", "-h").out.startswith("Usage: ")
