"""Makes HTML of templates, in the language of the viewer. Every value is escaped, also what a terminal would obey."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hfpeer.language.amounts import counted, human_size, human_time
from hfpeer.language.catalog import Catalog, catalog_of, read_catalog
from hfpeer.language.tags import ENGLISH
from hfpeer.system.printable import printable
from hfpeer_daemon.page.viewer import Viewer


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("hfpeer_daemon.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    made.filters.update(
        size=_size,
        rate=_rate,
        number=lambda value: f"{value:,}",
        when=_when,
        percent=_percent,
        short=lambda text: text[:12],
    )
    made.globals.update(link=_link, human_size=human_size)
    return made


def html_of(template: str, viewer: Viewer, context: Mapping[str, Any]) -> str:
    """A template with its values. Blocking, and with many rows slow."""
    catalog = catalog_of(viewer.language)
    texts = {
        "viewer": viewer,
        "t": _Translator(_own_catalog(viewer.language)),
        "sentence": catalog.text,
        "duration": lambda seconds: catalog.text(human_time(seconds)),
        "counted": lambda number, noun: catalog.text(counted(number, noun)),
    }
    return _environment().get_template(template).render({**texts, **context})


@cache
def _own_catalog(language: str) -> Catalog:
    """The page's own catalog. Its single words must not stand in that of messages, which translates also the values in
    a sentence."""
    if language == ENGLISH:
        return Catalog({})
    return Catalog(read_catalog((resources.files(__package__) / f"{language}.po").read_text(encoding="utf-8")))


class _Translator:
    """Texts of the page in the viewer's language: `t("{count} of {all}", count=…, all=…)`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, template: str, **values: object) -> str:
        return self._catalog.message(template, {name: str(value) for name, value in values.items()})


def _size(size_bytes: float | None) -> Markup:
    """A size, with its exact number of bytes for programs."""
    if size_bytes is None:
        return Markup("–")
    return Markup('<data value="{}">{}</data>').format(int(size_bytes), human_size(size_bytes))


def _rate(bytes_per_second: float) -> str:
    return f"{human_size(bytes_per_second)}/s"


def _when(at: float | None) -> Markup:
    """A time by the local clock. The page's script says instead how long ago it was."""
    if at is None:
        return Markup("–")
    local = time.localtime(at)
    iso, shown = time.strftime("%Y-%m-%dT%H:%M:%S%z", local), time.strftime("%Y-%m-%d %H:%M", local)
    return Markup('<time datetime="{}">{}</time>').format(iso, shown)


def _percent(part: float, whole: float | None) -> int:
    """How much of a whole that is; 0 while the whole is unknown or nothing."""
    return min(100, int(part * 100 / whole)) if whole else 0


def _link(path: str, **fields: str) -> str:
    """A link within the page."""
    return f"{path}?{urlencode(fields)}" if fields else path
