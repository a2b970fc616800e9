"""The list of transfers, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from hfpeer.control.transfers import DONE, FAILED, PAUSED, QUEUED, RUNNING, WAITING, TransferStatus
from hfpeer.errors import PeerUnreachable, RequestRefused, TransferCancelled
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size, human_time
from hfpeer_cli.screen.bars import clock_time
from hfpeer_cli.screen.tables import Column, exact, name, number, table_lines, words
from hfpeer_cli.screen.terminal import draws, in_symbols, width_cells

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = (
    number("ID"),
    name("REPO", least=16),
    exact("COMMIT", rank=2),
    words("STATE"),
    words("DONE"),
    number("RATE"),
    number("LEFT"),
    name("FROM", rank=1, least=8),
)
MAX_SOURCES = 2
"""At most this many sources of a transfer are named."""
ENDS_THERE = {
    RequestRefused.code: "refused",
    PeerUnreachable.code: "away",
    TransferCancelled.code: "cancelled there",
}
"""Words for the errors with which an add at another node ends; all others are failures."""
WATCH_SECONDS = 1.0
PIPE_SECONDS = 10.0
"""Seconds between two lists where stdout is no terminal."""


def print_list(invocation: Invocation, *, shows_all: bool) -> None:
    """Prints the transfers, and below them why some do not run."""
    found = _listed(invocation, shows_all=shows_all)
    output = invocation.output
    output.table(COLUMNS, map(transfer_row, found), found)
    output.note(problem_lines(found))
    if not found:
        output.note("No transfer is under way. `hfpeer history` lists those that are over.")


def watch_list(invocation: Invocation, *, shows_all: bool) -> None:
    """Prints them again and again. Never ends by itself."""
    invocation.when_interrupted = "No longer watching: the transfers go on."
    if invocation.is_json or not draws(sys.stdout):
        while True:
            print_list(invocation, shows_all=shows_all)
            sys.stdout.flush()
            time.sleep(PIPE_SECONDS)
    from rich.live import Live

    stream = sys.stdout  # inside the block sys.stdout is a proxy of it
    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            found = _listed(invocation, shows_all=shows_all)
            live.update(drawn(COLUMNS, map(transfer_row, found), stream), refresh=True)
            time.sleep(WATCH_SECONDS)


def drawn(columns: Sequence[Column], rows: Iterable[Sequence[str]], stream: TextIO) -> Text:
    """A table for rich, as wide as the terminal."""
    from rich.text import Text

    return Text(in_symbols("\n".join(table_lines(columns, rows, width_cells()).lines), stream), no_wrap=True)


def _listed(invocation: Invocation, *, shows_all: bool) -> list[TransferStatus]:
    found = invocation.run(lambda node: node.list_transfers())
    return [one for one in found if shows_all or one.state != DONE]


def transfer_row(one: TransferStatus) -> tuple[str, ...]:
    """One line of the list, under COLUMNS."""
    rate = one.rate_bytes_per_second
    return (
        str(one.id),
        f"{one.repo} on {one.node}" if one.node else one.repo,
        one.commit[:12] or one.revision,
        state_words(one, time.time()),
        done_words(one),
        f"{human_size(rate)}/s" if rate >= 1 else "",
        "" if one.left_seconds is None else clock_time(one.left_seconds),
        ", ".join(_sources(one)),
    )


def state_words(one: TransferStatus, now: float) -> str:
    """The state, with what people ask next: the priority in the queue, the time of the next try, the exit code, the
    node that it waits for, or that asked for it."""
    if one.asked_by.via == "peer":
        return f"{_state_words(one, now)}, asked for by {one.asked_by.user}"
    if one.node:
        return f"waiting for {one.node}" if node_words(one) == "away" else node_words(one)
    return _state_words(one, now)


def node_words(one: TransferStatus) -> str:
    """The state of an add that another node is asked to do: done, refused, away, failed, or its state there."""
    code = one.problem.code if one.problem is not None else ""
    if one.state == FAILED:
        return ENDS_THERE.get(code) or _state_words(one, 0.0)
    if one.state == WAITING:
        return "away" if code == PeerUnreachable.code else "waiting"
    if one.state != RUNNING or not one.node:
        return one.state
    if one.state_there in ("", RUNNING, DONE):
        return one.state if one.state_there else "asking"
    return f"{one.state_there} there"


def _state_words(one: TransferStatus, now: float) -> str:
    if one.state == QUEUED and one.priority != "normal":
        return f"{one.state}, {one.priority}"
    if one.state == WAITING and one.next_try_at is not None:
        return f"again in {human_time(max(0.0, one.next_try_at - now))}"
    if one.state == FAILED and one.problem is not None:
        return f"{one.state} ({one.problem.exit_code})"
    return one.state


def done_words(one: TransferStatus) -> str:
    """`45% of 1.0 GB`; empty while the size is not known."""
    if one.size_bytes is None:
        return ""
    share = one.present_bytes / one.size_bytes if one.size_bytes else 1.0
    return f"{int(share * 100)}% of {human_size(one.size_bytes)}"


def _sources(one: TransferStatus) -> Iterator[str]:
    """The sources that gave most."""
    given = sorted(((size, name) for name, size in one.bytes_by_source.items() if size), reverse=True)
    yield from (name for _, name in islice(given, MAX_SOURCES))
    if len(given) > MAX_SOURCES:
        yield f"{len(given) - MAX_SOURCES} more"


def problem_lines(found: Iterable[TransferStatus]) -> Sequence[str]:
    """Why transfers have failed, or wait."""
    lines = []
    for one in found:
        if one.problem is not None and one.state in (FAILED, WAITING, PAUSED):
            lines.append(f"{one.id}: {one.problem.message}")
            if one.problem.hint and one.state != WAITING:
                lines.append(f"   {one.problem.hint}")
    return lines
