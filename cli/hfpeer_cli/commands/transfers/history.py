"""`hfpeer history`: past fetches, with their time, asker and sources."""

from __future__ import annotations

import time

import click

from hfpeer.config.amounts import time_seconds
from hfpeer.control.transfers import HistoryEntry
from hfpeer.errors import InvalidName
from hfpeer_cli.grammar import Verb, Word, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size, human_time
from hfpeer_cli.screen.tables import age, exact, name, number, words

COLUMNS = (
    exact("WHEN"),
    name("REPO"),
    exact("COMMIT", rank=4),
    name("FOR", rank=3, least=6),
    words("OUTCOME"),
    age("TOOK", rank=2),
    number("PEERS"),
    number("MIRRORS", rank=1),
    number("HUB"),
)
DEFAULT_COUNT = 50


def _seconds(text: str) -> float:
    found = time_seconds(text)
    if found is None:
        raise InvalidName(f"{text!r} is not a time.", hint="Write 7d, 12h or 2 weeks.", value=text)
    return found


@click.command(
    "history", cls=Verb, examples=["hfpeer history", "hfpeer history --since 7d", "hfpeer history --json -n 0"]
)
@click.option("--since", type=Word("time", _seconds), metavar="TIME", help="Only what ended in that time: 7d, 12h.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=DEFAULT_COUNT,
    show_default=True,
    help="At most the last N; 0 is all.",
)
@pass_invocation
def history(invocation: Invocation, since: float | None, lines: int) -> None:
    """List what was fetched, for whom and from where.

    Adds, and files that tools read through the endpoint. The oldest entries are dropped when there are thousands.
    """
    at = 0.0 if since is None else time.time() - since
    found = invocation.run(lambda node: node.history(at))
    shown = found[-lines:] if lines else found
    output = invocation.output
    output.table(COLUMNS, map(entry_row, shown), shown)
    output.note(total_line(shown, len(found) - len(shown)))


def entry_row(entry: HistoryEntry) -> tuple[str, ...]:
    """One line of the table, under COLUMNS."""
    kinds = entry.bytes_by_kind
    mirrors = kinds.get("mirror", 0) + kinds.get("modelscope", 0)
    outcome = entry.outcome if entry.problem is None else f"{entry.outcome} ({entry.problem.exit_code})"
    return (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.ended_at)),
        f"{entry.repo} on {entry.node}" if entry.node else entry.repo,
        entry.commit[:12] or entry.revision,
        str(entry.asked_by),
        outcome,
        human_time(entry.seconds),
        *(human_size(size) if size else "" for size in (kinds.get("peer", 0), mirrors, kinds.get("origin", 0))),
    )


def total_line(shown: list[HistoryEntry], more: int) -> str:
    """What all of it came to."""
    if not shown:
        return "Nothing was fetched."
    came = sum(sum(entry.bytes_by_kind.values()) for entry in shown)
    saved = sum(entry.saved_bytes for entry in shown)
    earlier = f" {more:,} earlier ones are not shown: -n 0 shows all." if more else ""
    entries = "1 entry" if len(shown) == 1 else f"{len(shown):,} entries"
    return f"{entries}: {human_size(came)} came, {human_size(saved)} of it from peers.{earlier}"
