"""`hfpeer why`: sources and networks of the bytes of cached files, the time of verification, and failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from hfpeer.cache.records import Contribution, FetchRecord
from hfpeer.control.operations import Provenance
from hfpeer.names import MAIN, FilePath, Revision
from hfpeer.repo_words import parse_repo_word
from hfpeer.trust.precedence import age_seconds
from hfpeer_cli.grammar import FILE, REVISION, Verb, pass_invocation, type_option
from hfpeer_cli.grammar.completions import complete_file
from hfpeer_cli.grammar.repos import RepoWord, refuse_file
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time

MAX_RANGES = 40
"""At most this many ranges of one source are printed; JSON has more."""


class RepoAndFiles(RepoWord):
    """The first word names a repo, the others files of it."""

    def __init__(self) -> None:
        super().__init__(None)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        is_file = bool(ctx.params.get("words") or ctx.params.get("repo"))
        return complete_file(ctx, incomplete) if is_file else super().shell_complete(ctx, param, incomplete)


@click.command(
    "why",
    cls=Verb,
    examples=[
        "hfpeer why Qwen/Qwen3-0.6B",
        "hfpeer why Qwen/Qwen3-0.6B@main model.safetensors",
        "hfpeer why datasets/rajpurkar/squad --json",
    ],
)
@click.argument("words", nargs=-1, metavar="[REPO] [FILE]...", type=RepoAndFiles())
@click.option("-r", "--repo", metavar="REPO", type=RepoWord(None), help="The repo, instead of the first word.")
@click.option(
    "-v", "--rev", "--revision", "revision", type=REVISION, metavar="REV", help="As for add; main if left out."
)
@click.option("-f", "--file", "named", type=FILE, multiple=True, metavar="FILE", help="Like a FILE behind REPO.")
@type_option
@pass_invocation
def why(
    invocation: Invocation,
    words: tuple[str, ...],
    repo: str | None,
    revision: Revision | None,
    named: tuple[FilePath, ...],
    type_: str,
) -> None:
    """Show where the bytes of a cached repo, or of some of its files, came from.

    Shows the source and network of each range, the time of verification, and bytes that were fetched twice. It comes
    from this node's own records, which are removed with the file.
    """
    if repo is None and not words:
        raise click.UsageError("Which repo? hfpeer why REPO")
    name, *rest = (repo, *words) if repo is not None else words
    if repo is None:
        refuse_file(invocation, name, None)
    wanted = parse_repo_word(name, type_)
    files = (*filter(None, [wanted.file]), *map(FilePath.parse, rest), *named)
    found = invocation.run(lambda node: node.why(wanted.repo, revision or wanted.revision or MAIN, files))
    first = str(invocation.settings.cache)
    invocation.output.result(describe(found, time.time(), first, shows_ranges=bool(files)), found)


def describe(found: Sequence[Provenance], now: float, first: str, *, shows_ranges: bool) -> Iterator[str]:
    """The files in lines; `now` is in seconds since the epoch, `first` the cache folder that needs no name."""
    for file in found:
        place = "the cache" if file.cache in ("", first) else file.cache
        yield f"{file.path}  {human_size(file.size_bytes)}, {_how(file, place, lambda at: _ago(at, now))}"
        if file.fetch is not None and file.how == "fetched":
            yield from (f"  {line}" for line in _story(file.fetch, now, shows_ranges=shows_ranges))


def _how(file: Provenance, place: str, ago: Callable[[float], str]) -> str:
    verified = "not verified yet" if file.verified_at is None else f"verified {ago(file.verified_at)}"
    if file.how == "missing":
        return "not in the cache"
    at = "" if place == "the cache" else f"in {place}, "
    return {
        "fetched": at + verified,
        "published": f"{at}published from this machine, {verified}",
    }.get(file.how, f"found in {place}, its source is not known, {verified}")


def _story(fetch: FetchRecord, now: float, *, shows_ranges: bool) -> Iterator[str]:
    if not fetch.size_bytes:
        yield "empty: no source was asked"
    for contribution in fetch.contributions if fetch.size_bytes else ():
        yield _contribution_line(contribution, is_alone=len(fetch.contributions) == 1)
        if shows_ranges:
            yield from (f"  {line}" for line in _range_lines(contribution))
    for failure in fetch.failures:
        source, ago, reason = failure.source, _ago(failure.at, now), failure.reason
        if failure.was_lying:
            yield f"{source} lied {ago}: {reason}"
        else:
            yield f"{source} failed {ago}: {reason}"
    if fetch.refetched_bytes or fetch.wrong_ranges:
        wrong = ", ".join(f"{start:,}-{stop:,}" for start, stop in fetch.wrong_ranges[:MAX_RANGES])
        because = f", for these bytes were wrong: {wrong}" if wrong else ""
        yield f"fetched twice: {human_size(fetch.refetched_bytes)}{because}"


def _contribution_line(contribution: Contribution, *, is_alone: bool) -> str:
    count = len(contribution.ranges) + contribution.more_ranges
    share = "all of it" if is_alone else f"{human_size(contribution.size_bytes)} in {counted(count, 'range')}"
    came = f"{share} came from {contribution.name}"
    if contribution.kind == "local":
        return came
    if not contribution.network:
        return f"{came}, before this node was last started"
    network = contribution.network.upper()
    through = f"{network} through {contribution.interface}" if contribution.interface else network
    facts = ", ".join(filter(None, (contribution.kind, through, contribution.address)))
    return f"{share} came from {contribution.name} ({facts})"


def _range_lines(contribution: Contribution) -> Iterator[str]:
    for start, stop in contribution.ranges[:MAX_RANGES]:
        yield f"bytes {start:,} to {stop:,}"
    rest = len(contribution.ranges) + contribution.more_ranges - MAX_RANGES
    if rest > 0:
        yield f"and {counted(rest, 'more range')}"


def _ago(at: float, now: float) -> str:
    """How long ago that was. A time in the future comes from a wrong clock."""
    age = age_seconds(at, now)
    return "at an unknown time" if age is None else f"{human_time(age)} ago"
