"""`hfpeer verify --repair`: the outcome of each finding, the sources of the bytes, and the faults that are left."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfpeer.control.operations import RepairRequest, ToldRef
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Revision
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import watching_check
from hfpeer_cli.screen.terminal import on_screen

if TYPE_CHECKING:
    from hfpeer.cache.repair.results import RepairedFinding, RepairReport
    from hfpeer.cache.verify.findings import CheckedFolder

MAX_WAN_BYTES = 1_000_000_000
"""More bytes than this are fetched over the WAN only after the user agreed."""
MAX_ALIKE = 5
"""At most this many findings of one kind and outcome are printed of a revision; JSON has all."""


def parse_ref(text: str) -> ToldRef:
    """`NAME=COMMIT`. Raises InvalidName."""
    name, found, commit = text.partition("=")
    if not found:
        raise InvalidName(f"{text!r} is not a ref.", hint="Write NAME=COMMIT, such as main=5a0d…, with all 40 digits.")
    return ToldRef(Revision.parse(name), Commit.parse(commit))


def repair(invocation: Invocation, request: RepairRequest, cache: Path | None) -> int:
    """Repairs the node's cache, or the one at `cache`, and prints the report. Asks on a terminal before much comes over
    the WAN. Returns the exit code."""
    output = invocation.output
    invocation.when_interrupted = "Interrupted. What was repaired stays so: the same command goes on from there."
    report = _run(invocation, request, cache)
    if report.held_back_bytes and _is_agreed(report.held_back_bytes, is_json=output.is_json):
        report = _run(invocation, replace(request, max_wan_bytes=None, is_again=False), cache)
    output.result(list(_lines(report)) or ["Nothing is wrong."], _document(report))
    output.note([*looked_at((*report.after.folders, *report.others)), *_summary(report)])
    return report.exit_code


def _run(invocation: Invocation, request: RepairRequest, cache: Path | None) -> RepairReport:
    with watching_check(invocation.output) as on_event:
        if cache is None:
            report = invocation.run(lambda node: node.repair(request, on_event))
            invocation.note_environment()
            return report
        import asyncio

        from hfpeer.node.elsewhere import repair_folder

        return asyncio.run(repair_folder(cache.absolute(), invocation.settings, request, on_event))


def _is_agreed(size_bytes: int, *, is_json: bool) -> bool:
    if is_json or not sys.stdin.isatty():
        return False
    return click.confirm(on_screen(f"The rest needs {human_size(size_bytes)} from the WAN. Fetch it?"), err=True)


def _lines(report: RepairReport) -> Iterator[str]:
    """The findings by revision, those that are still there last; then a line for each other folder with faults."""
    for (repo, commit), some in groupby(report.findings, key=lambda one: (one.finding.repo, one.finding.commit)):
        at = f" at {commit[:12]}" if commit else ""
        yield f"{repo or report.cache}{at}:"
        yield from _finding_lines(sorted(some, key=_rank))
    for folder in report.others:
        if folder.exit_code:
            from hfpeer.cache.verify.findings import repair_command

            faults = counted(folder.wrong + folder.broken, "fault")
            yield f"{folder.cache}: {faults}, and only read. To repair: {repair_command(folder.cache)}"


def _rank(one: RepairedFinding) -> tuple[int, str, str, str, str]:
    order = ["repaired", "planned", "failed", "left"]
    return order.index(one.outcome), one.finding.kind, one.action, one.detail, one.finding.path


def _finding_lines(found: Sequence[RepairedFinding]) -> Iterator[str]:
    for _, some in groupby(found, key=lambda one: _rank(one)[:3]):
        alike = list(some)
        for detail, shown in groupby(alike[:MAX_ALIKE], key=lambda one: one.detail):
            yield from (f"  {_line(one)}" for one in shown)
            if detail:
                yield f"    {detail}"
        if rest := alike[MAX_ALIKE:]:
            size_bytes = sum(one.finding.size_bytes for one in rest)
            yield f"  {_outcome(rest[0])}  {rest[0].finding.kind}  and {len(rest):,} more ({human_size(size_bytes)})."


def _line(one: RepairedFinding) -> str:
    finding = one.finding
    size = f" ({human_size(finding.size_bytes)})" if finding.size_bytes else ""
    return f"{_outcome(one)}  {finding.kind}  {finding.path or 'the folder'}{size}: {finding.meaning}."


def _outcome(one: RepairedFinding) -> str:
    from hfpeer.cache.repair.results import ACTIONS, FAILED, LEFT, PLANNED

    done, wanted = ACTIONS[one.action]
    return {FAILED: "FAILED", LEFT: "left alone", PLANNED: f"would {wanted}"}.get(one.outcome, done)


def _summary(report: RepairReport) -> list[str]:
    faults = [one for one in report.findings if one.finding.severity != "noted" or one.outcome != "left"]
    done = [one for one in faults if one.outcome in ("repaired", "planned")]
    if report.is_dry_run:
        wanted = sum(one.fetch_bytes for one in done)
        most = f"at most {human_size(wanted)} would come over a network"
        return [f"{counted(len(done), 'finding')} would be repaired; {most}.", "Dry run: nothing was changed."]
    if not faults:
        return ["Nothing was to be repaired."] if report.findings else []
    lines = [f"Repaired {len(done):,} of {counted(len(faults), 'finding')} in {human_time(report.seconds)}."]
    if done:
        names = {"peer": "peers", "mirror": "mirrors", "origin": "the origin"}
        sizes = sorted(report.bytes_by_kind.items())
        parts = [f"{human_size(size)} from {names[kind]}" for kind, size in sizes if size]
        if report.local_bytes:
            parts.append(f"{human_size(report.local_bytes)} from files of this machine")
        lines.append(f"Bytes: {', '.join(parts) or 'none were needed'}.")
    if report.held_back_bytes:
        lines.append(
            f"Not fetched: {human_size(report.held_back_bytes)} from the WAN. `--yes` agrees to that; with a peer that "
            "has the files, or a copy on a disk, they need not come from there."
        )
    return [*lines, _verdict(report)]


def _verdict(report: RepairReport) -> str:
    bad = sum(finding.severity != "noted" for finding in report.after.findings)
    if not bad:
        return "All is right now."
    why = " No source gave the bytes; a later run goes on." if report.is_unreachable else ""
    return f"{counted(bad, 'fault')} left: see FAILED above.{why}"


def looked_at(folders: Sequence[CheckedFolder]) -> list[str]:
    """Says which cache folders were verified, and which were passed over."""
    seen = [folder.cache for folder in folders if not folder.away]
    lines = [f"Looked at {', '.join(seen)}."] if seen else []
    return lines + [f"Passed over {folder.cache}: {folder.away}." for folder in folders if folder.away]


def _document(report: RepairReport) -> dict[str, Any]:
    """The report as JSON. The verification at its end is without the findings, which are listed once."""
    after = asdict(report.after)
    del after["findings"]
    return {
        **{name: value for name, value in asdict(report).items() if name not in ("findings", "after")},
        "findings": [one.to_json() for one in report.findings],
        "after": after,
        "exit_code": report.exit_code,
    }
