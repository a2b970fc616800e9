"""The language of this command: from `HFPEER_LANG`, else from the locale, else English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hfpeer.language.tags import language_of

if TYPE_CHECKING:
    from hfpeer.language.catalog import Catalog

VARIABLES = ("HFPEER_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
"""The first that is set decides, as POSIX has it (XBD 8.2)."""

_language = "en"


def choose_language(environ: Mapping[str, str]) -> str:
    """Makes the language of the environment that of `translated`; gives its code, `en` or `zh_CN`."""
    global _language
    name = next((environ[variable] for variable in VARIABLES if environ.get(variable)), "")
    _language = language_of(name)
    return _language


def _catalog() -> Catalog | None:
    """Read at the first message: a command that prints JSON, or English, needs no catalog."""
    if _language == "en":
        return None
    from hfpeer.language.catalog import catalog_of

    return catalog_of(_language)


def translated(text: str) -> str:
    """A message in the language of the command."""
    catalog = _catalog()
    return text if catalog is None else catalog.text(text)


def translated_word(text: str) -> str:
    """A fixed text, such as the heading of a column, in the language of the command."""
    catalog = _catalog()
    return text if catalog is None else catalog.word(text)
