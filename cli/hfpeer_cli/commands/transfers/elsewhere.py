"""Adds that other nodes are asked to do: begun in the daemon, and shown in one view, a line a node."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hfpeer.control.transfers import CANCELLED, DONE, FAILED, PAUSED, QUEUED, WAITING, TransferStatus
from hfpeer.errors import PeerUnreachable, TransferCancelled
from hfpeer.transfer.events import NodeTold
from hfpeer_cli.commands.transfers.listing import done_words, drawn, node_words, problem_lines
from hfpeer_cli.output import human_size
from hfpeer_cli.screen.bars import clock_time
from hfpeer_cli.screen.tables import name, number, words
from hfpeer_cli.screen.terminal import draws

if TYPE_CHECKING:
    from hfpeer.control.operations import AddRequest, Operations
    from hfpeer_cli.invocation import Invocation

COLUMNS = (name("NODE"), name("REPO"), words("STATE"), words("DONE"), number("RATE"), number("LEFT"))
LOOK_SECONDS = 0.25
"""Seconds between two looks at the transfers."""
AWAY = "away"
GOES_ON = "No longer watching: the nodes go on. `hfpeer transfers` shows them."


def add_on(
    invocation: Invocation, on: str, requests: Sequence[AddRequest], priority: str = "normal", *, detach: bool
) -> int:
    """Has nodes do adds, each at its commit, and returns the exit code: 0 if all of them have all of it, or, with
    `detach`, if the daemon has taken it over."""
    begun = invocation.run(lambda node: _begin(node, on, requests, priority, invocation.settings.name))
    if detach:
        invocation.output.table((number("ID"), *COLUMNS[:2]), ((str(one.id), *_where(one)) for one in begun), begun)
        return 0
    return watch_to_end(invocation, begun)


def watch_to_end(invocation: Invocation, begun: Sequence[TransferStatus]) -> int:
    """Shows adds of other nodes until each has ended, or its node is away, and returns the exit code."""
    invocation.when_interrupted = GOES_ON
    ended = _watch(invocation, begun)
    output = invocation.output
    output.table(COLUMNS, map(_row, ended), ended)
    output.note(problem_lines(ended))
    away = [one for one in ended if node_words(one) == AWAY]
    if away:
        names = ", ".join(one.node for one in away)
        output.note(f"Away: {names}. Each is asked when it returns within a day; `hfpeer transfers` shows it.")
    return next((_exit_code(one) for one in ended if one.state != DONE), 0)


async def _begin(
    node: Operations, on: str, requests: Sequence[AddRequest], priority: str, own_name: str
) -> list[TransferStatus]:
    from hfpeer.control.nodes import chosen_nodes

    chosen = chosen_nodes(on, await node.list_peers(), own_name)
    # The nodes of one repo begin together, so that each takes its part of the bytes.
    return [
        await node.begin_transfer(replace(request, node=one, token=None if one else request.token), priority)
        for request in requests
        for one in chosen
    ]


def _watch(invocation: Invocation, begun: Sequence[TransferStatus]) -> list[TransferStatus]:
    """Follows the transfers until each has ended, or its node is away."""
    output = invocation.output
    if not draws(sys.stderr) or output.is_json or output.is_quiet:
        said: dict[int, str] = {}
        while True:
            found = _latest(invocation, begun)
            for one in found:
                _say(invocation, one, said)
            if all(map(_is_settled, found)):
                return found
            time.sleep(LOOK_SECONDS)
    from rich.console import Console
    from rich.live import Live

    stream = sys.stderr  # inside the block sys.stderr is a proxy of it
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while True:
            found = _latest(invocation, begun)
            if all(map(_is_settled, found)):
                return found
            live.update(drawn(COLUMNS, map(_row, found), stream), refresh=True)
            time.sleep(LOOK_SECONDS)


def _say(invocation: Invocation, one: TransferStatus, said: dict[int, str]) -> None:
    """Tells a change: with `--json-lines` every one as an event, else a line for each new state."""
    words, output = node_words(one), invocation.output
    rate = int(one.rate_bytes_per_second)
    event = NodeTold(one.node, words, one.present_bytes, one.size_bytes, one.files, rate)
    key = repr(event) if output.is_lines else words
    if said.get(one.id) == key:
        return
    said[one.id] = key
    output.event(event)
    if not output.is_lines:
        output.note(f"{', '.join(_where(one))}: {words}")


def _latest(invocation: Invocation, begun: Sequence[TransferStatus]) -> list[TransferStatus]:
    """What the transfers are now. One that has left the list was cancelled by another command."""
    listed = {one.id: one for one in invocation.run(lambda node: node.list_transfers())}
    return [listed.get(one.id) or replace(one, state=CANCELLED) for one in begun]


def _is_settled(one: TransferStatus) -> bool:
    return one.state in (DONE, FAILED, CANCELLED, PAUSED) or node_words(one) == AWAY


def _where(one: TransferStatus) -> tuple[str, str]:
    return one.node or "this node", one.repo


def _row(one: TransferStatus) -> tuple[str, ...]:
    rate = one.rate_bytes_per_second if one.state not in (DONE, FAILED) else 0.0
    return (
        *_where(one),
        node_words(one),
        done_words(one),
        f"{human_size(rate)}/s" if rate >= 1 else "",
        "" if one.left_seconds is None or not rate else clock_time(one.left_seconds),
    )


def _exit_code(one: TransferStatus) -> int:
    if one.problem is not None and one.state in (FAILED, WAITING):
        return one.problem.exit_code
    return PeerUnreachable.exit_code if one.state in (WAITING, QUEUED) else TransferCancelled.exit_code
