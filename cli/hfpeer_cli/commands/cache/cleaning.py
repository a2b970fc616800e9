"""`hfpeer cache rm`, `prune` and `gc`: what goes is listed, and asked about, before it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfpeer.cache.cleaning.facts import PruneRules
from hfpeer.cache.cleaning.planning.requests import CleanRequest, parse_target
from hfpeer.config.amounts import time_seconds
from hfpeer.errors import InvalidName, NotFound
from hfpeer.names import RepoType
from hfpeer_cli.commands.cache.leftovers import NOUNS
from hfpeer_cli.commands.cache.sets import sets_beside, stay_notes
from hfpeer_cli.grammar import Verb, Word, pass_invocation
from hfpeer_cli.grammar.repos import RepoWord
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size
from hfpeer_cli.screen.terminal import on_screen

if TYPE_CHECKING:
    from hfpeer.cache.cleaning.facts import CleanReport, Kept, Step
    from hfpeer.prepared.results import ListedSet

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_NOT_FOUND, EXIT_KEPT, EXIT_LOCKED = 4, 3, 8
FORCEABLE = ("pinned", "last_copy", "unknown_copies", "in_use")
MAX_LISTED = 50
"""At most this many steps of one kind of leftover are printed one by one; JSON has all."""
GOES_ON = "Interrupted. What was removed is gone, nothing is half removed: the same command goes on."

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
force_option = click.option(
    "--force", is_flag=True, help="Remove also the last copy on the LAN, and what is being read or added."
)


def parse_age(text: str) -> float:
    """Seconds: `30d`, `12h`, `0`. Raises InvalidName."""
    seconds = time_seconds(text)
    if seconds is None:
        raise InvalidName(f"{text!r} is not a time.", hint="Write 30d, 12h or 0.", value=text)
    return seconds


@click.command(
    "rm",
    cls=Verb,
    examples=[
        "hfpeer cache rm Qwen/Qwen3-0.6B datasets/rajpurkar/squad@main",
        "hfpeer cache rm hf://Qwen/Qwen3-0.6B/model.safetensors",
        "hfpeer cache rm 475236b755f6 --dry-run",
    ],
)
@click.argument("words", nargs=-1, required=True, metavar="WHAT...", type=RepoWord(None))
@click.option(
    "--type",
    "type_",
    type=click.Choice([kind.value for kind in RepoType]),
    default=RepoType.MODEL.value,
    help="What a repo without a prefix is.",
)
@yes_option
@dry_run_option
@force_option
@pass_invocation
@click.pass_context
def rm(
    ctx: click.Context,
    invocation: Invocation,
    words: tuple[str, ...],
    type_: str,
    yes: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Remove repos, revisions, files, or half-fetched blobs.

    WHAT is REPO, REPO@REV, hf://REPO/FILE, or the first digits of a commit or of a half-fetched blob. Bytes that
    another revision needs stay. Asks at a terminal. The last copy on the LAN stays without --force. Prepared sets stay
    too; the output names the command that removes them.
    """
    targets = tuple(parse_target(word, type_) for word in words)
    report = clean(invocation, CleanRequest(targets, is_dry_run=dry_run, is_forced=force), yes=yes)
    ctx.exit(exit_code(report))


@click.command(
    "prune",
    cls=Verb,
    examples=[
        "hfpeer cache prune --dry-run",
        "hfpeer cache prune --older-than 0 -y",
        "hfpeer cache prune --all --keep 2 --older-than 90d",
    ],
)
@click.option("--all", "all_", is_flag=True, help="Revisions with a ref too.")
@click.option("--keep", type=click.IntRange(0), default=0, metavar="N", help="Keep the N last used ones of each repo.")
@click.option(
    "--older-than",
    type=Word("time", parse_age),
    default=PruneRules.older_than_seconds,
    metavar="TIME",
    help="Only what was not used for this time; 30d if left out.",
)
@yes_option
@dry_run_option
@force_option
@pass_invocation
def prune(
    invocation: Invocation, all_: bool, keep: int, older_than: float, yes: bool, dry_run: bool, force: bool
) -> None:
    """Remove old revisions without a ref, and unfinished downloads.

    Also what gc collects. Lists all of it and asks; without a terminal it needs --yes. The last copy on the LAN stays
    without --force.
    """
    if not (yes or dry_run) and (invocation.is_json or not sys.stdin.isatty()):
        raise click.UsageError("Not a terminal: pass --yes to confirm, or --dry-run to see what would go.")
    rules = PruneRules(older_than, keep, all_)
    clean(invocation, CleanRequest(prune=rules, is_dry_run=dry_run, is_forced=force), yes=yes)
    invocation.note_passed_over()


@click.command("gc", cls=Verb, examples=["hfpeer cache gc", "hfpeer cache gc --dry-run"])
@dry_run_option
@pass_invocation
def gc(invocation: Invocation, dry_run: bool) -> None:
    """Collect garbage: what belongs to no revision and has no use.

    Blobs that no revision uses, temporary files and lists of gone revisions, locks that no process holds, empty
    folders. Nothing that a process may still use, and nothing that hfpeer does not know. Does not ask.

    With a budget (`cache.max_size`, `cache.min_free`) also the least recently used revisions above it: those that no
    pin keeps, and that a hub or a peer gives again.
    """
    clean(invocation, CleanRequest(collects_garbage=True, is_dry_run=dry_run), yes=True)
    invocation.note_passed_over()


def clean(invocation: Invocation, request: CleanRequest, *, yes: bool) -> CleanReport:
    """Runs a cleaning and prints it. Without `yes` it asks at a terminal first, and removes what was shown."""
    invocation.when_interrupted = GOES_ON
    output = invocation.output
    asks = not (yes or request.is_dry_run or output.is_json) and sys.stdin.isatty()
    if asks:
        planned = invocation.run(lambda node: node.clean(replace(request, is_dry_run=True)))
        if not planned.steps:
            show(invocation, planned, sets_beside(invocation, request.targets, planned))
            return planned
        output.note(_lines(planned))
        if not click.confirm(on_screen(f"Remove this, {human_size(planned.freed_bytes)}?"), err=True):
            output.note("Nothing was removed.")
            return replace(planned, steps=(), kept=())
        request = replace(request, only=tuple(step.id for step in planned.steps))
    try:
        report = invocation.run(lambda node: node.clean(request))
    except NotFound as error:
        beside = list(stay_notes(sets_beside(invocation, request.targets, None)))
        raise (
            NotFound(" ".join([error.message, *beside]), hint=error.hint, **error.facts) if beside else error
        ) from None
    show(invocation, report, sets_beside(invocation, request.targets, report))
    return report


def exit_code(report: CleanReport) -> int:
    """0 if all that was named is gone, or would go."""
    reasons = {one.reason for one in report.kept}
    if not reasons.isdisjoint(FORCEABLE):
        return EXIT_KEPT
    return EXIT_LOCKED if reasons else EXIT_NOT_FOUND if report.missing else 0


def show(invocation: Invocation, report: CleanReport, sets: Sequence[ListedSet]) -> None:
    """Prints what went, or would go, and what stays; `sets` are prepared sets of it."""
    output = invocation.output
    if output.is_json:
        output.result("", {**asdict(report), "prepared": sets})
        return
    if report.is_dry_run and report.steps:
        output.result(list(_lines(report)), None)
    amount = human_size(report.freed_bytes)
    if not report.steps:
        output.result("Nothing was removed." if report.kept else "Nothing to remove.", None)
    elif report.is_dry_run:
        output.note(f"{amount} would be free again. Nothing was removed.")
    else:
        output.result([*_summary(report.steps), f"{amount} are free again."], None)
    output.note([*_kept_lines(report), *stay_notes(sets)])


def _lines(report: CleanReport) -> Iterator[str]:
    """Each step in a line, those of one kind of leftover together when they are many."""
    width = max((len(human_size(step.freed_bytes)) for step in report.steps), default=0)
    for kind, alike in _by_kind(report.steps).items():
        for step in alike if kind in ("revision", "file", "partial", "unfinished") else alike[:MAX_LISTED]:
            noun = "" if kind in ("revision", "file", "catalog") else f"{NOUNS[kind][0]} "
            why = f": {step.why}" if step.why and kind in ("revision", "partial", "unfinished") else ""
            yield f"  {human_size(step.freed_bytes):>{width}}  {noun}{step.name}{why}"
            for note in step.notes:
                yield f"  {'':{width}}    {note}"
        rest = alike[MAX_LISTED:] if kind not in ("revision", "file", "partial", "unfinished") else []
        if rest:
            yield f"  {human_size(sum(step.freed_bytes for step in rest)):>{width}}  and {len(rest):,} more"


def _summary(steps: Sequence[Step]) -> Iterator[str]:
    for kind, alike in _by_kind(steps).items():
        if kind in ("revision", "file"):
            shown = alike[:3]
            more = f" and {len(alike) - 3:,} more" if len(alike) > 3 else ""
            yield f"Removed {', '.join(step.name for step in shown)}{more}."
        elif kind == "catalog":
            yield f"Dropped {alike[0].name}."
        else:
            one, many = NOUNS[kind]
            yield f"Removed {len(alike):,} {one if len(alike) == 1 else many}."


def _by_kind(steps: Sequence[Step]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.kind, []).append(step)
    return found


def _kept_lines(report: CleanReport) -> list[str]:
    lines = [f"Not in the cache: {', '.join(report.missing)}."] if report.missing else []
    alike: dict[str, list[Kept]] = {}
    for one in report.kept:
        if one.kind in ("revision", "file", "blob"):
            lines.append(f"Kept {one.name}: {one.sentence}.")
        else:
            alike.setdefault(f"{one.kind} {one.sentence}", []).append(one)
    for found in alike.values():
        noun = NOUNS[found[0].kind][len(found) > 1]
        lines.append(f"Kept {len(found):,} {noun}: {found[0].sentence}.")
    if any(one.reason in FORCEABLE for one in report.kept):
        lines.append("--force of `rm` and `prune` removes it all the same.")
    if report.lan:
        lines.append(report.lan)
    if report.left:
        lines.append("Not removed, because it is not part of a cache or is behind a link:")
        lines += [f"  {path!r:.300}" for path in report.left]
    return lines
