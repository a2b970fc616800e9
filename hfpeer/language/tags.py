"""Which of the languages of hfpeer a language tag means. Pure."""

from __future__ import annotations

ENGLISH, CHINESE = "en", "zh_CN"
_SIMPLIFIED = ("zh", "zh_cn", "zh_sg", "zh_hans")


def language_of(tag: str) -> str:
    """`zh_CN` for a tag or locale of simplified Chinese, such as `zh-Hans-CN` or `zh_CN.UTF-8`; `en` for any other."""
    name = tag.partition(".")[0].partition("@")[0].strip().replace("-", "_").lower()
    return CHINESE if name in _SIMPLIFIED or name.startswith("zh_hans_") else ENGLISH
