"""Completions of a shell: names in the cache, settings, and the peers that the daemon knows. No network is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfpeer.errors import HfpeerError
from hfpeer.names import MAIN, RepoId, RepoType
from hfpeer.repo_words import NamedRepo, parse_repo_word
from hfpeer_cli.invocation import Invocation

if TYPE_CHECKING:
    from hfpeer.control.operations import Operations

T = TypeVar("T")

MAX_FILES = 2000
"""At most this many files of a revision are offered."""


def items(names: Iterable[str] | Mapping[str, str], incomplete: str) -> list[Any]:
    """The names that begin like a word, with what a shell may show beside each."""
    from click.shell_completion import CompletionItem

    meanings = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    return [
        CompletionItem(name, help=meaning or None)
        for name, meaning in meanings.items()
        if name.startswith(incomplete) and "\n" not in name
    ]


def cached_names(invocation: Invocation, type: RepoType | None) -> list[str]:
    """The repos of a type in the cache folders. None: of all types, as hfpeer prints them."""
    if type is None:
        with_prefix = (RepoType.DATASET, RepoType.SPACE)
        others = (f"{kind.plural}/{name}" for kind in with_prefix for name in _of(invocation, kind))
        return [*_of(invocation, RepoType.MODEL), *others]
    return _of(invocation, type)


def complete_repo(ctx: click.Context, type: RepoType | None, incomplete: str) -> list[Any]:
    """The repos in the cache; behind `REPO@` its revisions."""
    invocation = ctx.ensure_object(Invocation)
    name, at, _ = incomplete.partition("@")
    if not at:
        return items(cached_names(invocation, type), incomplete)
    named = _named(name, type)
    revisions = revisions_of(invocation, named.repo) if named else {}
    return items({f"{name}@{revision}": meaning for revision, meaning in revisions.items()}, incomplete)


def complete_revision(ctx: click.Context, incomplete: str) -> list[Any]:
    """The revisions in the cache of the repos before the cursor."""
    invocation = ctx.ensure_object(Invocation)
    found: dict[str, str] = {}
    for named in named_so_far(ctx):
        found |= revisions_of(invocation, named.repo)
    return items(found, incomplete)


def complete_file(ctx: click.Context, incomplete: str) -> list[Any]:
    """The files in the cache of the repos before the cursor."""
    invocation = ctx.ensure_object(Invocation)
    said = ctx.params.get("revision")
    found = dict[str, None]()
    for named in named_so_far(ctx):
        found |= dict.fromkeys(_files(invocation, named.repo, str(named.revision or said or MAIN)))
    return items(found, incomplete)


def complete_peer(ctx: click.Context, incomplete: str) -> list[Any]:
    """The addresses of the peers that were added, and of those that the daemon knows, with their names."""
    found = dict.fromkeys(map(str, ctx.ensure_object(Invocation).settings.peers), "")
    found |= {peer.address: peer.name for peer in _of_daemon(ctx, lambda daemon: daemon.list_peers())}
    return items(found, incomplete)


def complete_nodes(ctx: click.Context, incomplete: str) -> list[Any]:
    """The names of the nodes that the daemon knows, and `all`; behind a comma those that are not named yet."""
    before, comma, _ = incomplete.rpartition(",")
    named = before.split(",")
    known = {peer.name: peer.address for peer in _of_daemon(ctx, lambda daemon: daemon.list_peers()) if peer.name}
    offered = known if comma else {"all": "every other node", **known}
    return items({f"{before}{comma}{name}": where for name, where in offered.items() if name not in named}, incomplete)


def complete_transfer(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """The ids of the transfers in the daemon, with their repos and states."""
    transfers = _of_daemon(ctx, lambda daemon: daemon.list_transfers())
    return items({str(one.id): f"{one.repo}, {one.state}" for one in transfers if one.id}, incomplete)


def _of_daemon(ctx: click.Context, ask: Callable[[Operations], Coroutine[Any, Any, list[T]]]) -> list[T]:
    """A list that the daemon gives; empty without a daemon."""
    from hfpeer.net.http1_blocking import run_blocking
    from hfpeer.node.session import find_daemon

    try:
        daemon = find_daemon(ctx.ensure_object(Invocation).settings)
        return run_blocking(ask(daemon)) if daemon is not None else []
    except HfpeerError:
        return []


def complete_key(ctx: click.Context, incomplete: str) -> list[Any]:
    """The keys of the settings."""
    from hfpeer.config.settings import KEYS

    return items({key.name: key.summary for key in KEYS.values()}, incomplete)


def complete_read_cache(ctx: click.Context, incomplete: str) -> list[Any]:
    """The cache folders that are only read."""
    return items(map(str, ctx.ensure_object(Invocation).settings.read_caches), incomplete)


def named_so_far(ctx: click.Context) -> list[NamedRepo]:
    """The repos in the cache that the words before the cursor name."""
    from hfpeer_cli.grammar.repos import RepoWord

    invocation = ctx.ensure_object(Invocation)
    type = next((one.type.of_type for one in ctx.command.params if isinstance(one.type, RepoWord)), None)
    named = (_named(word, type) for word in invocation.words)
    return [one for one in named if one and any(folder.is_dir() for folder in _folders(invocation, one.repo))]


def revisions_of(invocation: Invocation, repo: RepoId) -> dict[str, str]:
    """The refs of a repo in the cache, and its commits without a ref."""
    refs, commits = dict[str, str](), dict[str, str]()
    for folder in _folders(invocation, repo):
        for path in islice(_below(folder / "refs"), MAX_FILES):
            with suppress(OSError):
                refs[path] = (folder / "refs" / path).read_text()[:12].strip()
        commits |= dict.fromkeys(sorted(_names(folder / "snapshots")), "a commit")
    named = set(refs.values())
    return refs | {commit: meaning for commit, meaning in commits.items() if commit[:12] not in named}


def _files(invocation: Invocation, repo: RepoId, revision: str) -> Iterator[str]:
    for folder in _folders(invocation, repo):
        commit = revision
        with suppress(OSError):
            commit = (folder / "refs" / revision).read_text().strip()
        for snapshot in _names(folder / "snapshots"):
            if snapshot.startswith(commit):
                yield from islice(_below(folder / "snapshots" / snapshot), MAX_FILES)


def _below(folder: Path) -> Iterator[str]:
    """The files below a folder, by their paths in it."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in sorted(names))  # noqa: PTH118


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _named(word: str, type: RepoType | None) -> NamedRepo | None:
    try:
        return parse_repo_word(word, type or RepoType.MODEL)
    except HfpeerError:
        return None


def _folders(invocation: Invocation, repo: RepoId) -> list[Path]:
    settings = invocation.settings
    return [cache / repo.folder for cache in (settings.cache, *settings.read_caches)]


def _of(invocation: Invocation, type: RepoType) -> list[str]:
    settings = invocation.settings
    prefix = f"{type.plural}--"
    names = (name for cache in (settings.cache, *settings.read_caches) for name in _names(cache))
    return sorted({name.removeprefix(prefix).replace("--", "/") for name in names if name.startswith(prefix)})
