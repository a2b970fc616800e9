"""The output of the commands on ModelScope: of a push, of a list of pushes, of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hfpeer.names import RepoId
from hfpeer_cli.output import Output, counted, human_size, human_time
from hfpeer_cli.screen.tables import name, number, words

if TYPE_CHECKING:
    from hfpeer.node.operations.modelscope.results import CopyReport, PushOutcome, PushReport

COLUMNS = (
    name("REPO"),
    name("AT MODELSCOPE"),
    words("STATE"),
    number("FILES"),
    number("SENT"),
    words("", least=12),
)
MAX_NAMES = 10
"""At most this many paths of one kind are printed; JSON has all."""


def document_of(report: PushReport) -> dict[str, Any]:
    """The report of one push as JSON."""
    return {**asdict(report), "state": report.state}


def report_lines(report: PushReport) -> Iterator[str]:
    """The report of one push; its first line alone says what is there now."""
    files = f"{counted(report.files, 'file')}, {human_size(report.size_bytes)}"
    new = "; new, " if report.is_created else "; "
    place = f"{report.target} at {report.site}"
    yield f"{_name(report)} at {report.commit[:12]} -> {place}: {files}{new}{report.visibility}"
    would = "would be " if report.is_dry_run else ""
    rows = [
        ("there already", counted(report.same_files, "file"), report.same_bytes, report.same_files),
        ("stored there, of any repo", counted(report.stored_blobs, "blob"), report.stored_bytes, report.stored_blobs),
        (f"{would}sent", counted(report.sent_blobs, "blob"), report.sent_bytes, report.sent_blobs),
        (f"{would}in the commit", counted(report.plain_files, "small file"), report.plain_bytes, report.plain_files),
    ]
    yield from (f"  {label}: {count}, {human_size(size)}" for label, count, size, number in rows if number)
    if not report.is_stored_known:
        yield "  The repo is not there yet, so which blobs are stored there shows at the push."
    if report.wire_bytes > report.sent_bytes:
        yield f"  sent again after failures: {human_size(report.wire_bytes - report.sent_bytes)}"
    yield from _named("would be replaced" if report.is_dry_run else "replaced, other bytes were there", report.replaced)
    yield from _named(f"{would}removed there", report.pruned)
    yield from _extra_lines(report.extra)
    for path, reason in report.skipped[:MAX_NAMES]:
        yield f"  not pushed: {path}, {reason}"
    yield from (f"  {note}" for note in report.notes)
    if report.commits:
        ids = ", ".join(commit[:12] or "made" for commit in report.commits)
        noun = "commit" if len(report.commits) == 1 else "commits"
        speed = f"in {human_time(report.seconds)}"
        yield f"  {noun} on {report.branch}: {ids}; {speed}"
    elif not report.is_dry_run:
        yield "  nothing to send, no commit"


def _name(report: PushReport | CopyReport) -> str:
    return str(RepoId.parse(report.repo, report.type))


def _named(label: str, paths: Sequence[str]) -> Iterator[str]:
    if paths:
        more = f" and {len(paths) - MAX_NAMES:,} more" if len(paths) > MAX_NAMES else ""
        yield f"  {label}: {', '.join(paths[:MAX_NAMES])}{more}"


def _extra_lines(extra: Sequence[str]) -> Iterator[str]:
    from hfpeer.modelscope.plan import OWN_PATHS

    yield from _named("only there, ModelScope's own", [path for path in extra if path in OWN_PATHS])
    yield from _named("only there, --prune removes it", [path for path in extra if path not in OWN_PATHS])


def copy_lines(report: CopyReport) -> Iterator[str]:
    """The report of a comparison."""
    state = {0: "the same", 4: "NOT WHOLE", 7: "OTHER BYTES"}[report.exit_code]
    files = f"{report.same_files:,} of {counted(report.files, 'file')} the same, {human_size(report.size_bytes)}"
    yield f"{_name(report)} at {report.commit[:12]} and {report.target} at {report.site}: {state}; {files}"
    yield from _named("other bytes there", report.different)
    yield from _named("of these, the site tells no sha256", report.untold)
    yield from _named("not there", report.absent)
    yield from _extra_lines(report.extra)


def print_outcomes(output: Output, outcomes: Sequence[PushOutcome]) -> None:
    """Prints a row for each line of a list, and how many there are of each state."""
    document = [{**asdict(one), "report": None if one.report is None else document_of(one.report)} for one in outcomes]
    output.table(COLUMNS, map(_row, outcomes), document)
    counts = [
        (state, sum(one.state == state for one in outcomes)) for state in dict.fromkeys(o.state for o in outcomes)
    ]
    output.note("; ".join(f"{count:,} {state}" for state, count in counts) + ".")


def _row(one: PushOutcome) -> tuple[str, ...]:
    if one.report is None:
        return one.repo, one.target, one.state, "", "", one.reason
    sent = human_size(one.report.sent_bytes + one.report.plain_bytes)
    only_there = f"only there: {len(one.report.extra)}" if one.report.extra else ""
    return one.repo, one.target, one.state, f"{one.report.files:,}", sent, only_there
