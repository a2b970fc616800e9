"""`hfpeer cache ls`: repos and revisions of all types, and what belongs to none."""

from __future__ import annotations

import fnmatch
import operator
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hfpeer.config.amounts import size_bytes, time_seconds
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId
from hfpeer_cli.commands.cache.leftovers import NOUNS, describe, several
from hfpeer_cli.commands.cache.sets import COLUMNS, prepared_in, set_notes, set_rows
from hfpeer_cli.commands.cache.states import STATES, repo_order, sharing
from hfpeer_cli.grammar import Verb, Word, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import Output, counted, human_size, human_time
from hfpeer_cli.screen.tables import Column, age, name, number, words

if TYPE_CHECKING:
    from hfpeer.cache.cleaning.facts import CacheReport, Leftover, StoredRevision

    Keep = Callable[[StoredRevision], bool]

REPO_COLUMNS = (
    name("REPO", least=18),
    number("REVISIONS", rank=2),
    number("SIZE"),
    age("UNUSED"),
    name("REFS", rank=1, least=10),
    words("STATE"),
    words("SHARED"),
)
REVISION_COLUMNS = (
    name("REPO, COMMIT", least=18),
    number("SIZE"),
    number("OWN"),
    age("UNUSED"),
    name("REFS", rank=1, least=10),
    words("STATE"),
    words("SHARED"),
)
LEFTOVER_COLUMNS = (words("BELONGS TO NO REVISION", least=24), number("TAKES"), age("UNTOUCHED"))
MAX_LISTED = 20
"""At most this many leftovers of one kind are printed one by one; JSON has all."""
_FILTER = re.compile(r"(size|own|used|accessed|type|refs|state|shared|name)\s*(>=|<=|!=|=|>|<)\s*(.+)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def parse_filter(text: str) -> Keep:
    """A filter as `hf cache ls` has them: `size>1GB`, `used>30d`, `type=model`, `refs=main`; `refs=none` are revisions
    without a ref, `name` may have `*`. Raises InvalidName."""
    found = _FILTER.fullmatch(text.strip())
    if found is None:
        raise _no_filter(text)
    key, sign, value = found[1], found[2], found[3].strip()
    compare = _COMPARE[sign]
    if key in ("size", "own"):
        wanted = size_bytes(value)
        if wanted is None:
            raise _no_filter(text)
        return lambda one: compare(one.own_bytes if key == "own" else one.revision.size_bytes, wanted)
    if key in ("used", "accessed"):
        seconds = time_seconds(value)
        if seconds is None:
            raise _no_filter(text)
        now = time.time()
        return lambda one: compare(now - one.used_at, seconds)
    if sign not in ("=", "!="):
        raise _no_filter(text)
    return lambda one: _has_word(one, key, value) is (sign == "=")


def _has_word(one: StoredRevision, key: str, value: str) -> bool:
    revision = one.revision
    if key == "refs":
        return value in (revision.refs or ("none",))
    if key == "name":
        return fnmatch.fnmatchcase(_name(one), value)
    if key == "shared":
        return revision.is_shared is (value in ("yes", "true"))
    return value.rstrip("s") in (revision.type, STATES[revision.is_complete])


def _no_filter(text: str) -> InvalidName:
    return InvalidName(
        f"{text!r} is not a filter.",
        hint="Write size>1GB, own>1GB, used>30d, type=dataset, refs=main, refs=none, state=partial, shared=no or "
        "name=Qwen/*.",
        value=text,
    )


SORTS: dict[str, Callable[[StoredRevision], Any]] = {
    "name": lambda one: (*repo_order(one.revision), -one.used_at),
    "size": lambda one: -one.revision.size_bytes,
    "age": lambda one: one.used_at,
}


@click.command(
    "ls",
    cls=Verb,
    examples=[
        "hfpeer cache ls",
        "hfpeer cache ls --revisions --sort size",
        "hfpeer cache ls --filter 'used>30d' --filter refs=none",
    ],
)
@click.option("--revisions", is_flag=True, help="Each revision below its repo.")
@click.option(
    "--sort", type=click.Choice(list(SORTS)), default="name", help="size: largest first; age: longest unused."
)
@click.option(
    "--filter",
    "filters",
    type=Word("filter", parse_filter),
    multiple=True,
    metavar="EXPR",
    help="Only revisions for which it holds: size>1GB, used>30d, type=dataset, refs=none. May be given many times.",
)
@pass_invocation
def ls(invocation: Invocation, revisions: bool, sort: str, filters: tuple[Keep, ...]) -> None:
    """List all that lies in the cache.

    Repos of all types, then what belongs to no revision: half-fetched blobs, downloads that other tools did not end,
    blobs that no revision uses; and the prepared sets beside the cache. OWN is what removing that revision alone frees.
    """
    report = invocation.run(lambda node: node.cache_report())
    kept = tuple(sorted((one for one in report.revisions if all(keep(one) for keep in filters)), key=SORTS[sort]))
    output, (sets, leftovers) = invocation.output, prepared_in(invocation)
    if output.is_json:
        prepared = {"sets": sets, "leftovers": leftovers}
        output.result("", {**vars(replace(report, revisions=kept)), "prepared": prepared})
        return
    sizes = {one.repo: one.size_bytes for one in report.repos}
    columns, rows = _tables(kept, sizes, sort, with_revisions=revisions)
    output.table(columns, rows, report)
    if not filters:
        _print_below(output, LEFTOVER_COLUMNS, list(_leftover_rows(report.leftovers)))
        _print_below(output, COLUMNS, list(set_rows(sets)))
    output.note(_summary(report, kept))
    if not filters:
        output.note(set_notes(invocation, sets, leftovers))
    for folder in invocation.settings.read_caches:
        output.note(f"{folder} is only read, and not counted: `hfpeer model ls` shows what is there.")


def _name(one: StoredRevision) -> str:
    return str(RepoId.parse(one.revision.repo, one.revision.type))


def _tables(
    found: Sequence[StoredRevision], sizes: Mapping[str, int], sort: str, *, with_revisions: bool
) -> tuple[Sequence[Column], Iterator[Sequence[str]]]:
    repos: dict[str, list[StoredRevision]] = {}
    for one in found:
        repos.setdefault(_name(one), []).append(one)
    names = list(repos)
    if sort == "size":
        names.sort(key=lambda name: -sizes.get(name, 0))
    elif sort == "age":
        names.sort(key=lambda name: max(one.used_at for one in repos[name]))
    if with_revisions:
        return REVISION_COLUMNS, (row for name in names for row in _revision_rows(name, repos[name]))
    return REPO_COLUMNS, (_repo_row(name, sizes.get(name, 0), repos[name]) for name in names)


def _repo_row(name: str, repo_bytes: int, found: Sequence[StoredRevision]) -> Sequence[str]:
    states = {STATES[one.revision.is_complete] for one in found}
    shares = {sharing(one.revision) for one in found}
    return (
        name,
        f"{len(found):,}",
        human_size(repo_bytes),
        _since(max(one.used_at for one in found)),
        ", ".join(dict.fromkeys(ref for one in found for ref in one.revision.refs)) or "none",
        states.pop() if len(states) == 1 else "mixed",
        shares.pop() if len(shares) == 1 else "in part",
    )


def _revision_rows(name: str, found: Sequence[StoredRevision]) -> Iterator[Sequence[str]]:
    yield (name, "", "", "", "", "", "")
    for one in found:
        revision = one.revision
        yield (
            f"  {revision.commit[:12]}",
            human_size(revision.size_bytes),
            human_size(one.own_bytes),
            _since(one.used_at),
            ", ".join(revision.refs) or "none",
            STATES[revision.is_complete],
            sharing(revision),
        )


def _since(at: float) -> str:
    return human_time(max(0.0, time.time() - at))


def _print_below(output: Output, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints a further table, if it has rows."""
    if rows:
        click.echo()
        output.table(columns, rows, ())


def _leftover_rows(found: Sequence[Leftover]) -> Iterator[Sequence[str]]:
    by_kind: dict[str, list[Leftover]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    for kind in (kind for kind in NOUNS if kind in by_kind):
        alike = by_kind[kind]
        if kind in ("partial", "unfinished", "orphan", "lost"):
            for one in sorted(alike, key=lambda one: -one.disk_bytes)[:MAX_LISTED]:
                yield describe(one), human_size(one.disk_bytes), _since(one.changed_at)
            alike = alike[MAX_LISTED:]
        if alike:
            oldest = _since(min(one.changed_at for one in alike))
            yield several(kind, len(alike)), human_size(sum(one.disk_bytes for one in alike)), oldest


def _summary(report: CacheReport, kept: Sequence[StoredRevision]) -> list[str]:
    repos = len({_name(one) for one in kept})
    (place,) = (place for place in report.places if place.name == "cache")
    lines = [
        f"{counted(repos, 'repo')}, {counted(len(kept), 'revision')}. "
        f"{report.cache} takes {human_size(place.disk_bytes)}, {human_size(report.free_bytes)} are free."
    ]
    if report.duplicates:
        lines.append(
            f"Further copies of blobs: {report.duplicates:,}, {human_size(report.duplicate_bytes)} "
            "less what the volume shares."
        )
    lines += [f"Not readable, so not counted: {folder}" for folder in report.unreadable]
    return lines
