"""`hfpeer cache du`: the space that things take, by kind and by repo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hfpeer_cli.commands.cache.sets import prepared_in, set_name
from hfpeer_cli.commands.datasets.prepared import leftover_note
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import Output, counted, human_size
from hfpeer_cli.screen.tables import name, number, words

if TYPE_CHECKING:
    from hfpeer.cache.cleaning.facts import CacheReport, Place

MAX_REPOS = 10
"""At most this many repos, and prepared sets, are printed without --repos; JSON has all."""
SPACE: dict[str, str] = {
    "models": "models",
    "datasets": "datasets",
    "spaces": "spaces",
    "partial": "half-fetched blobs of hfpeer",
    "unfinished": "unfinished downloads of other tools",
    "orphan": "blobs that no revision uses",
    "lost": "blobs of revisions without their names",
    "shared_blob": "unused entries of the shared store",
    "temporary": "temporary files of killed processes",
    "lists": "links, refs, lists, locks, folders",
    "stale_list": "lists of commits that are not here",
    "dangling_ref": "refs to commits that are not here",
    "lock": "locks of blobs that are not here",
    "foreign": "files that hfpeer does not know",
}
"""By kind of space in a cache: its line in `du`, in the order of the lines."""
PLACES = {
    "home": "hfpeer's own data",
    "datasets": "prepared datasets",
    "xet": "chunks of Xet",
    "only read": "another cache folder",
    "behind links": "repos behind links",
}
"""By name of a place beside the cache: its line in `du`."""


@click.command("du", cls=Verb, examples=["hfpeer cache du", "hfpeer cache du --repos", "hfpeer cache du --json"])
@click.option("--repos", "all_repos", is_flag=True, help="The space of every repo and prepared set.")
@pass_invocation
def du(invocation: Invocation, all_repos: bool) -> None:
    """Say what takes the space, by kind and by repo.

    The sums are those of `du`: blocks on the disk, each file once. Counts the cache, hfpeer's own data, and what other
    tools keep beside the cache.
    """
    report = invocation.run(lambda node: node.cache_report())
    output, (sets, leftovers) = invocation.output, prepared_in(invocation)
    if output.is_json:
        told = {key: value for key, value in vars(report).items() if key not in ("revisions", "leftovers")}
        output.result("", {**told, "prepared": {"sets": sets, "leftovers": leftovers}})
        return
    output.table((words("WHAT", least=24), number("FILES"), number("SIZE")), _usage_rows(report), ())
    repos = [(one.repo, one.files, one.disk_bytes) for one in report.repos]
    _print_largest(output, "repo", repos, all_repos)
    _print_largest(output, "prepared set", [(set_name(one), one.files, one.disk_bytes) for one in sets], all_repos)
    output.note(leftover_note(leftovers))
    output.note(f"{human_size(report.free_bytes)} of {human_size(report.volume_bytes)} are free on this volume.")


def _print_largest(output: Output, noun: str, found: Sequence[tuple[str, int, int]], shows_all: bool) -> None:
    """Prints names with their files and bytes, the largest first."""
    largest = sorted(found, key=lambda one: -one[2])
    shown = largest if shows_all else largest[:MAX_REPOS]
    if shown:
        click.echo()
        rows = [(name, f"{files:,}", human_size(disk_bytes)) for name, files, disk_bytes in shown]
        output.table((name(noun.upper(), least=24), number("FILES"), number("SIZE")), rows, ())
    if len(largest) > len(shown):
        output.note(f"And {counted(len(largest) - len(shown), f'smaller {noun}')}: --repos shows all.")


def _usage_rows(report: CacheReport) -> Iterator[Sequence[str]]:
    for place in report.places:
        if place.name == "cache":
            yield from _kind_rows(place)
            yield _row(place.path, place)
    for place in report.places:
        if place.name != "cache":
            yield _row(f"{PLACES[place.name]}: {place.path}", place)
            if place.name == "home":
                for usage in place.kinds:
                    yield f"  {usage.kind}", f"{usage.files:,}", human_size(usage.disk_bytes)


def _kind_rows(place: Place) -> Iterator[Sequence[str]]:
    by_kind = {usage.kind: usage for usage in place.kinds}
    for kind in (kind for kind in SPACE if kind in by_kind):
        usage = by_kind[kind]
        yield f"  {SPACE[kind]}", f"{usage.files:,}", human_size(usage.disk_bytes)


def _row(name: str, place: Place) -> Sequence[str]:
    return name, f"{place.files:,}", human_size(place.disk_bytes)
