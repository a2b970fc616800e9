"""`hfpeer daemon`: the node that runs in the background."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from hfpeer.control.operations import NodeStatus
from hfpeer_cli.commands.node.status import print_status
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation

FOLLOW_SECONDS = 0.2


@click.group(
    "daemon",
    cls=Noun,
    no_args_is_help=True,
    examples=["hfpeer daemon start", "hfpeer daemon logs -f", "hfpeer daemon stop"],
)
def daemon() -> None:
    """The node that runs in the background.

    It finds the other nodes on the LAN, serves them what is public in this cache, and fetches from them.
    """


@daemon.command("start", examples=["hfpeer daemon start", "hfpeer daemon start --foreground"])
@click.option("--foreground", is_flag=True, help="Stay in this terminal and log to it; for service managers too.")
@pass_invocation
def start(invocation: Invocation, foreground: bool) -> None:
    """Start the daemon, and say where it listens."""
    from hfpeer.control.process import COMMAND, find_daemon, start_daemon

    settings = invocation.settings
    if foreground:
        sys.stdout.flush()
        os.execve(COMMAND[0], COMMAND, {**invocation.environ, "HFPEER_HOME": str(settings.places.home)})
    running = asyncio.run(find_daemon(settings))
    _print_started(invocation, running or asyncio.run(start_daemon(settings)), "runs already" if running else "runs")


@daemon.command("stop", examples=["hfpeer daemon stop"])
@pass_invocation
def stop(invocation: Invocation) -> None:
    """Stop the daemon.

    The pieces of an unfinished `add` are kept; the same `add` continues from there.
    """
    from hfpeer.control.process import stop_daemon

    was_running = asyncio.run(stop_daemon(invocation.settings))
    text = "The daemon has stopped." if was_running else "No daemon was running."
    invocation.output.result(text, {"was_running": was_running})


@daemon.command("restart", examples=["hfpeer daemon restart"])
@pass_invocation
def restart(invocation: Invocation) -> None:
    """Stop the daemon and start it again.

    It reads its settings anew. If none runs, one is started. A service stays with its manager: the same process reads
    its settings anew.
    """
    from hfpeer.control.process import restart_daemon

    _print_started(invocation, asyncio.run(restart_daemon(invocation.settings)), "runs")


@daemon.command("status", examples=["hfpeer daemon status && echo it runs"])
@pass_invocation
def status(invocation: Invocation) -> None:
    """Say whether the daemon runs; exits 9 if it does not."""
    from hfpeer.control.process import require_daemon

    print_status(invocation, asyncio.run(require_daemon(invocation.settings)))


@daemon.command("logs", examples=["hfpeer daemon logs -n 200", "hfpeer daemon logs -f"])
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many lines.")
@pass_invocation
def logs(invocation: Invocation, follow: bool, lines: int) -> None:
    """Print the end of the daemon's log."""
    invocation.when_interrupted = "No longer following the log."
    log_file = invocation.settings.places.log_file
    if not log_file.exists() and not follow:
        invocation.output.note(f"There is no log yet at {log_file}.")
        return
    for text in _follow(log_file, lines) if follow else _last_lines(log_file, lines):
        invocation.output.log(text)


def _print_started(invocation: Invocation, node: NodeStatus, verb: str) -> None:
    where = [f"  {door:<10}{address}" for door, address in node.listeners.items()]
    invocation.output.result([f"The daemon {verb} (process {node.pid}) and listens at", *where], node)


def _last_lines(log_file: Path, count: int) -> Iterator[str]:
    if log_file.exists():
        with log_file.open(encoding="utf-8", errors="replace") as log:
            yield from deque(log, maxlen=count)


def _follow(log_file: Path, count: int) -> Iterator[str]:
    """The last lines of the log, then each new line, also after a rotation of the log. Never ends by itself."""
    while not log_file.exists():
        time.sleep(FOLLOW_SECONDS)
    log = log_file.open(encoding="utf-8", errors="replace")
    try:
        yield from deque(log, maxlen=count)
        while True:
            text = log.read()
            if text:
                yield text
            elif _was_rotated(log_file, log.fileno()):
                log.close()
                log = log_file.open(encoding="utf-8", errors="replace")
            else:
                time.sleep(FOLLOW_SECONDS)
    finally:
        log.close()


def _was_rotated(log_file: Path, fd: int) -> bool:
    return log_file.exists() and not os.path.samestat(log_file.stat(), os.fstat(fd))
