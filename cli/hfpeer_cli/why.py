"""`hfpeer why`: where the bytes of cached files came from, by which road, verified when, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import click

from hfpeer.cache.records import FetchRecord, Giver
from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer.operations import MAIN, Provenance
from hfpeer_cli.grammar import FILE, REVISION, Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time

MAX_RANGES = 40
"""So many ranges of one source are printed; JSON has more."""


@click.command(
    "why",
    cls=Verb,
    examples=[
        "hfpeer why Qwen/Qwen3-0.6B",
        "hfpeer why Qwen/Qwen3-0.6B model.safetensors -v main",
        "hfpeer why -r rajpurkar/squad --type dataset --json",
    ],
)
@click.argument("words", nargs=-1, metavar="[REPO] [FILE]...")
@click.option("-r", "--repo", metavar="REPO", help="NAME or ORG/NAME, instead of the first word.")
@click.option("-v", "--revision", type=REVISION, default=MAIN, metavar="REV", help="As for add; main if left out.")
@click.option("-f", "--file", "named", type=FILE, multiple=True, metavar="FILE", help="Like a FILE behind REPO.")
@click.option(
    "--type",
    "type_",
    type=click.Choice([kind.value for kind in RepoType]),
    default=RepoType.MODEL.value,
    help="What REPO is.",
)
@pass_invocation
def why(
    invocation: Invocation,
    words: tuple[str, ...],
    repo: str | None,
    revision: Revision,
    named: tuple[FilePath, ...],
    type_: str,
) -> None:
    """Say where the bytes of a cached repo, or of some of its files, came from.

    Which source gave which bytes, by which road, when they were verified, and what had to be fetched twice. Asks
    nobody: it is what this node has kept, and it is forgotten with the file.
    """
    if repo is None and not words:
        raise click.UsageError("Which repo? hfpeer why REPO")
    name, *rest = (repo, *words) if repo is not None else words
    files = (*map(FilePath.parse, rest), *named)
    wanted = RepoId.parse(name, type_)
    found = invocation.run(lambda node: node.why(wanted, revision, files))
    invocation.output.result("\n".join(describe(found, time.time(), shows_ranges=bool(files))), found)


def describe(found: Sequence[Provenance], now: float, *, shows_ranges: bool) -> Iterator[str]:
    """The files in lines; `now` is in seconds since the epoch."""
    for file in found:
        yield f"{file.path}  {human_size(file.size_bytes)}, {_how(file, lambda at: _ago(at, now))}"
        if file.fetch is not None and file.how == "fetched":
            yield from (f"  {line}" for line in _story(file.fetch, now, shows_ranges=shows_ranges))


def _how(file: Provenance, ago: Callable[[float], str]) -> str:
    verified = "not verified yet" if file.verified_at is None else f"verified {ago(file.verified_at)}"
    if file.how == "missing":
        return "not in the cache"
    return {
        "fetched": verified,
        "published": f"published from this machine, {verified}",
    }.get(file.how, f"found in the cache, who brought it is not known, {verified}")


def _story(fetch: FetchRecord, now: float, *, shows_ranges: bool) -> Iterator[str]:
    if not fetch.size_bytes:
        yield "empty: nobody was asked"
    for giver in fetch.givers if fetch.size_bytes else ():
        yield _giver_line(giver, is_alone=len(fetch.givers) == 1)
        if shows_ranges:
            yield from (f"  {line}" for line in _range_lines(giver))
    for trouble in fetch.troubles:
        yield f"{trouble.source} {'lied' if trouble.was_lying else 'failed'} {_ago(trouble.at, now)}: {trouble.reason}"
    if fetch.refetched_bytes or fetch.wrong_ranges:
        wrong = ", ".join(f"{start:,}-{stop:,}" for start, stop in fetch.wrong_ranges[:MAX_RANGES])
        because = f", for these bytes were wrong: {wrong}" if wrong else ""
        yield f"fetched twice: {human_size(fetch.refetched_bytes)}{because}"


def _giver_line(giver: Giver, *, is_alone: bool) -> str:
    count = len(giver.ranges) + giver.more_ranges
    share = "all of it" if is_alone else f"{human_size(giver.size_bytes)} in {counted(count, 'range')}"
    if not giver.road:
        return f"{share} from {giver.name}, before this node was last started"
    through = f" through {giver.interface}" if giver.interface else ""
    return f"{share} from {giver.name} ({giver.kind}, {giver.road.upper()}{through}, {giver.address})"


def _range_lines(giver: Giver) -> Iterator[str]:
    for start, stop in giver.ranges[:MAX_RANGES]:
        yield f"bytes {start:,} to {stop:,}"
    rest = len(giver.ranges) + giver.more_ranges - MAX_RANGES
    if rest > 0:
        yield f"and {counted(rest, 'more range')}"


def _ago(at: float, now: float) -> str:
    return f"{human_time(max(0.0, now - at))} ago"
