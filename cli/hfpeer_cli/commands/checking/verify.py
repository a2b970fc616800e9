"""`hfpeer verify`: the faults of a cache, the grade of each revision, and the repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfpeer.control.operations import RepairRequest, ToldRef, VerifyRequest
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.commands.checking.repair import MAX_WAN_BYTES, looked_at, parse_ref, repair
from hfpeer_cli.grammar import Verb, Word, pass_invocation, takes_repos, type_option
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import watching_check

if TYPE_CHECKING:
    from hfpeer.cache.verify.findings import Finding, VerifiedRevision, VerifyReport

MAX_ALIKE = 5
"""At most this many findings of one kind are printed of a revision; JSON has all."""
GRADES = {
    "proved": "proved: the list of files folds to the commit",
    "listed": "listed: a hub gave the list of files, nothing proves it",
    "named": "named: no list of files is here; the name of a blob proves its bytes, nothing proves the name of a file",
}


@click.command(
    "verify",
    cls=Verb,
    examples=[
        "hfpeer verify",
        "hfpeer verify Qwen/Qwen3-0.6B datasets/rajpurkar/squad",
        "hfpeer verify --quick --cache /media/stick/hub",
        "hfpeer verify --repair --dry-run",
        "hfpeer verify --repair --no-wan --cache /media/stick/hub",
        "hfpeer verify --prepared",
    ],
)
@takes_repos(None, is_needed=False, has_revision=False)
@click.option("--quick", is_flag=True, help="Names, links and sizes only; hash nothing.")
@click.option("--again", is_flag=True, help="Hash also what was hashed before and has not changed since.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A cache that is not this node's: a stick, a copy. Only --repair changes it.",
)
@click.option(
    "--repair",
    "repairs",
    is_flag=True,
    help="Make right what is wrong: links, refs, lists; and bytes, from this machine, peers, hubs.",
)
@click.option("--dry-run", is_flag=True, help="With --repair: say what it would do, and change nothing.")
@click.option("--no-wan", is_flag=True, help="With --repair: ask no hub, only peers.")
@click.option("--yes", is_flag=True, help="With --repair: also fetch more than 1 GB over the WAN.")
@click.option(
    "--ref",
    "refs",
    multiple=True,
    type=Word("ref", parse_ref),
    metavar="NAME=COMMIT",
    help="With --repair: write this ref of the REPO.",
)
@click.option("--prepared", is_flag=True, help="The prepared sets instead, as `hfpeer dataset verify --prepared`.")
@type_option
@click.pass_context
@pass_invocation
def verify(
    invocation: Invocation,
    ctx: click.Context,
    repos: tuple[NamedRepo, ...],
    quick: bool,
    again: bool,
    cache: Path | None,
    repairs: bool,
    dry_run: bool,
    no_wan: bool,
    yes: bool,
    refs: tuple[ToldRef, ...],
    prepared: bool,
    type_: str,
) -> None:
    """Say what is wrong in the cache: all of it, or these repos. With --repair also make it right.

    Names every link, ref, list and byte that is not as its commit says. Without --repair it needs no network and
    changes nothing. Exit code 7: wrong bytes. 8: right bytes that a tool may not find. 6: no source of them answered.
    """
    if prepared:
        if again or cache or repairs or dry_run or no_wan or yes or refs:
            raise InvalidName(
                "`--prepared` goes with REPO and `--quick`.",
                hint="`hfpeer dataset prepare -r REPO` repairs a prepared set.",
            )
        from hfpeer_cli.commands.datasets.prepared import verify_prepared

        of_datasets = tuple(replace(named.repo, type=RepoType.DATASET) for named in repos)
        ctx.exit(verify_prepared(invocation, of_datasets, quick=quick))
    wanted = tuple(named.repo for named in repos)
    folder = None if cache is None or _is_same(cache, invocation.settings.cache) else cache
    if repairs:
        if refs and len(wanted) != 1:
            raise InvalidName("`--ref` is of one repo.", hint="Name that REPO, and no other.")
        limit = None if yes else MAX_WAN_BYTES
        asked = RepairRequest(wanted, quick, again, dry_run, not no_wan, limit, refs)
        ctx.exit(repair(invocation, asked, folder))
    if dry_run or no_wan or yes or refs:
        raise InvalidName("`--dry-run`, `--no-wan`, `--yes` and `--ref` belong to `--repair`.", hint="Add `--repair`.")
    _verify(invocation, ctx, VerifyRequest(wanted, quick, again), folder)


def _verify(invocation: Invocation, ctx: click.Context, request: VerifyRequest, cache: Path | None) -> None:
    """Verifies the node's cache, or the one at `cache`, and prints the report."""
    output = invocation.output
    invocation.when_interrupted = "Interrupted. What was hashed is remembered: the same command continues from there."
    with watching_check(output) as on_event:
        if cache is None:
            report = invocation.run(lambda node: node.verify(request, on_event))
        else:
            report = _verify_folder(invocation, cache, request, on_event)
    output.result(list(_lines(report)), _document(report))
    if not output.is_json:
        output.note(_summary(report, cache))
    ctx.exit(report.exit_code)


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _verify_folder(invocation: Invocation, cache: Path, request: VerifyRequest, on_event: Any) -> VerifyReport:
    """Verifies in this process: a daemon may not see the same volumes."""
    import asyncio

    from hfpeer.node.operations.repair.verifying import verify_folder

    return asyncio.run(verify_folder(cache.absolute(), invocation.settings.home, request, on_event))


def _lines(report: VerifyReport) -> Iterator[str]:
    """By cache folder, if there are several: each revision with its grade and its findings, then what belongs to no
    revision."""
    caches = [folder.cache for folder in report.folders if not folder.away] or [report.cache]
    for cache in caches:
        if len(caches) > 1:
            yield f"{cache}:"
        yield from _folder_lines(report, cache)


def _folder_lines(report: VerifyReport, cache: str) -> Iterator[str]:
    by_revision: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        if (finding.cache or report.cache) == cache:
            by_revision.setdefault((finding.repo, finding.commit), []).append(finding)
    for revision in report.revisions:
        if (revision.cache or report.cache) == cache:
            name = _name(revision)
            found = by_revision.pop((name, revision.commit), [])
            yield f"{name} at {revision.commit[:12]}: {_state(revision, found, is_quick=report.is_quick)}"
            yield from _finding_lines(found)
    for (repo, commit), found in by_revision.items():
        at = f" at {commit[:12]}" if commit else ""
        yield f"{repo or cache}{at}:"
        yield from _finding_lines(found)


def _name(revision: VerifiedRevision) -> str:
    return str(RepoId.parse(revision.repo, revision.type))


def _state(revision: VerifiedRevision, found: Sequence[Finding], *, is_quick: bool) -> str:
    here = counted(revision.files, "file")
    if revision.listed_files is not None:
        here = f"{revision.files:,} of {counted(revision.listed_files, 'file')}"
    files = f"{here}, {human_size(revision.size_bytes)}"
    severities = {finding.severity for finding in found}
    if "wrong" in severities:
        state = "WRONG BYTES"
    elif "broken" in severities:
        state = "BROKEN"
    else:
        state = "sizes right, bytes not read" if is_quick else "right"
    refs = f" ({', '.join(revision.refs)})" if revision.refs else ""
    return f"{revision.grade}, {files}{refs}: {state}"


def _finding_lines(found: Sequence[Finding]) -> Iterator[str]:
    for kind, group in groupby(found, key=lambda finding: finding.kind):
        alike = list(group)
        for finding in alike[:MAX_ALIKE]:
            size = f" ({human_size(finding.size_bytes)})" if finding.size_bytes else ""
            yield f"  {kind}  {finding.path or 'the folder'}{size}: {finding.meaning}."
        if len(alike) > MAX_ALIKE:
            rest = alike[MAX_ALIKE:]
            yield f"  {kind}  and {len(rest):,} more ({human_size(sum(one.size_bytes for one in rest))})."
        if alike[0].repair:
            of_first = "" if len({one.repair for one in alike}) == 1 else " of the first (--json has all)"
            yield f"    repair{of_first}: {alike[0].repair}"


def _summary(report: VerifyReport, cache: Path | None) -> list[str]:
    lines = looked_at(report.folders)
    lines += [GRADES[grade] + "." for grade in GRADES if any(one.grade == grade for one in report.revisions)]
    if report.is_quick:
        lines.append("Quick: names, links and sizes. Without --quick every byte is hashed.")
    else:
        known = f"; {_amount(report.known_files, report.known_bytes)} unchanged since the last check" * bool(
            report.known_files
        )
        lines.append(f"Hashed {_amount(report.hashed_files, report.hashed_bytes)}{known}.")
    bad = sum(finding.severity != "noted" for finding in report.findings)
    verdict = counted(bad, "fault") if bad else "Nothing wrong"
    noted = len(report.findings) - bad
    lines.append(f"{verdict}, {counted(noted, 'note')}, in {human_time(report.seconds)}.")
    if bad:
        lines += [f"To repair: {command}" for command in _repair_commands(report, cache)]
    return lines


def _repair_commands(report: VerifyReport, cache: Path | None) -> Iterator[str]:
    """The command for each folder with faults. The node's own needs no name."""
    from hfpeer.cache.verify.findings import repair_command

    for folder in report.folders:
        if folder.exit_code:
            is_own = cache is None and folder.cache == report.cache
            yield "hfpeer verify --repair" if is_own else repair_command(folder.cache)


def _amount(files: int, size_bytes: int) -> str:
    return f"{counted(files, 'file')}, {human_size(size_bytes)}"


def _document(report: VerifyReport) -> dict[str, Any]:
    document = asdict(report)
    document["findings"] = [finding.to_json() for finding in report.findings]
    return {**document, "exit_code": report.exit_code}
