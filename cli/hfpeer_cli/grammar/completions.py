"""The words that the shell can complete: names that are in the cache. Nothing is asked over a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hfpeer.names import RepoType
from hfpeer_cli.invocation import Invocation


def items(names: Iterable[str], incomplete: str) -> list[Any]:
    """The names that begin like a word."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def cached_names(invocation: Invocation, type: RepoType | None) -> list[str]:
    """The repos of a type in the cache folders. None: of all types, as hfpeer prints them."""
    if type is None:
        others = (
            f"{kind.plural}/{name}" for kind in (RepoType.DATASET, RepoType.SPACE) for name in _of(invocation, kind)
        )
        return [*_of(invocation, RepoType.MODEL), *others]
    return _of(invocation, type)


def _of(invocation: Invocation, type: RepoType) -> list[str]:
    settings = invocation.settings
    prefix = f"{type.plural}--"
    folders = (folder for cache in (settings.cache, *settings.read_caches) for folder in cache.glob(f"{prefix}*"))
    return sorted({folder.name.removeprefix(prefix).replace("--", "/") for folder in folders})
