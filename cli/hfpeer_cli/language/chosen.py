"""The language of this command: from `HFPEER_LANG`, else from the locale, else English."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfpeer_cli.language.catalog import Catalog

VARIABLES = ("HFPEER_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
"""The first that is set decides, as POSIX has it (XBD 8.2)."""
SIMPLIFIED_CHINESE = ("zh", "zh_cn", "zh_sg", "zh_hans")
CATALOGS = Path(__file__).parent

_catalog: Catalog | None = None


def choose_language(environ: Mapping[str, str]) -> str:
    """Makes the language of the environment that of `translated`; gives its code, `en` or `zh_CN`."""
    global _catalog
    name = next((environ[variable] for variable in VARIABLES if environ.get(variable)), "")
    if name.partition(".")[0].partition("@")[0].replace("-", "_").lower() not in SIMPLIFIED_CHINESE:
        _catalog = None
        return "en"
    from hfpeer_cli.language.catalog import Catalog, read_catalog  # an English command needs no catalog

    _catalog = Catalog(read_catalog((CATALOGS / "zh_CN.po").read_text(encoding="utf-8")))
    return "zh_CN"


def translated(text: str) -> str:
    """A message in the language of the command."""
    return text if _catalog is None else _catalog.text(text)


def translated_word(text: str) -> str:
    """A fixed text, such as the heading of a column, in the language of the command."""
    return text if _catalog is None else _catalog.word(text)
