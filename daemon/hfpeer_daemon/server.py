"""The daemon process: settings, lock, sockets, node, doors, and an orderly end.

`main` is the entry of `hfpeerd`. It runs in the foreground unless it is told to detach; SIGTERM and SIGINT stop it,
SIGHUP makes it read its settings again. Decides nothing that concerns models.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from hfpeer.control import CONTROL_VERSION, VERSION_HEADER
from hfpeer.errors import HfpeerError
from hfpeer.lifecycle import DaemonLock, Reporter
from hfpeer.limits import make_limiter
from hfpeer.names import Address
from hfpeer.operations import Holdings, Operations
from hfpeer.settings import Settings, read_settings
from hfpeer_daemon.app import control_app, endpoint_app, lan_app
from hfpeer_daemon.background import Adds
from hfpeer_daemon.doors import Door
from hfpeer_daemon.listeners import bound_address, listen_tcp, listen_unix, send_after_others
from hfpeer_daemon.logs import start_logging
from hfpeer_daemon.notify import Notifier
from hfpeer_daemon.uploads import UploadLine
from hfpeer_daemon.zero_copy import zero_copy_protocol

if TYPE_CHECKING:
    from hfpeer.endpoint.endpoint import Endpoint
    from hfpeer_daemon.hub.door import HubDoor

SPARE_THREADS = 8
"""Threads beside those that send: for opening files, for HEAD, and for batches."""

LOCAL_THREADS = 64
"""How many local tools can be sent to at once; the others wait for one of them."""

_log = logging.getLogger(__name__)


class RunningNode(Operations, Protocol):
    """A node with a life. `listeners` are told to it, for its status."""

    listeners: dict[str, str]

    @property
    def holdings(self) -> Holdings: ...

    @property
    def endpoint(self) -> Endpoint | None:
        """What local tools are given once it is started; None when it is no Hub for them."""
        ...

    async def start(self, lan_address: Address | None) -> None: ...

    async def stop(self) -> None: ...


MakeNode = Callable[[Settings], RunningNode]


def main(arguments: Sequence[str] | None = None, make_node: MakeNode | None = None) -> int:
    """Runs the daemon to its end and gives the exit code."""
    options = _parse(arguments)
    if options.detach and os.fork():
        os._exit(0)
    reporter = Reporter(options.report_fd)
    try:
        _run(options.detach, reporter, make_node or _real_node)
    except HfpeerError as error:
        _log.error("%s %s", error.message, error.hint or "")
        reporter.failed(error)
        return error.exit_code
    except Exception:
        # Python prints it to where the starter looks; the log is where a user looks later.
        if options.detach:
            _log.critical("The daemon ends, for it has failed", exc_info=True)
        raise
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "hfpeerd", description="The hfpeer daemon. `hfpeer daemon start` starts it for you."
    )
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground and log to stderr (default)")
    parser.add_argument("--detach", action="store_true", help="go to the background and log to the home's logs")
    parser.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _real_node(settings: Settings) -> RunningNode:
    from hfpeer.node import Node  # heavy: a taken address or a second daemon is told before it

    return Node(settings)


def _run(is_detached: bool, reporter: Reporter, make_node: MakeNode) -> None:
    """Holds the home's lock and runs the daemon, again after each SIGHUP."""
    settings = read_settings(os.environ)
    lock = DaemonLock(settings.places)
    lock.acquire()
    _raise_file_limit()
    try:
        notifier = Notifier(os.environ)
        wants_another_life = True
        while wants_another_life:
            start_logging(settings.log_level, settings.places.log_file if is_detached else None)
            wants_another_life = Daemon(settings, make_node, reporter, notifier).run()
            settings = read_settings(os.environ) if wants_another_life else settings
    finally:
        lock.release()


def _raise_file_limit() -> None:
    """Each peer costs descriptors; the usual soft limit of 1,024 is for programs that call select()."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    except (OSError, ValueError):
        _log.debug("The limit of open files stays as it is")


class Daemon:
    """One life of the daemon, from bound sockets to closed ones."""

    def __init__(self, settings: Settings, make_node: MakeNode, reporter: Reporter, notifier: Notifier) -> None:
        self._settings = settings
        self._make_node = make_node
        self._reporter = reporter
        self._notifier = notifier
        self._wants_reload = False

    def run(self) -> bool:
        """Returns at the end; True when it should begin anew with fresh settings."""
        with ExitStack() as bound:
            lan = bound.enter_context(listen_tcp(self._settings.lan_listen, "lan.listen"))
            endpoint = bound.enter_context(listen_tcp(self._settings.endpoint_listen, "endpoint.listen"))
            control = bound.enter_context(listen_unix(self._settings.places.control_socket))
            bound.callback(self._settings.places.control_socket.unlink, missing_ok=True)
            asyncio.run(self._live(lan, endpoint, control))
        return self._wants_reload

    async def _live(self, lan: socket.socket, endpoint: socket.socket, control: socket.socket) -> None:
        self._stopping = asyncio.Event()
        self._take_signals()
        address = bound_address(lan)
        node = self._make_node(self._settings)
        try:
            if await self._is_started(node.start(address)):
                await self._answer(node, lan, endpoint, control)
        finally:
            await node.stop()

    async def _is_started(self, start: Coroutine[Any, Any, None]) -> bool:
        """Whether the start came to its end; a signal may end it earlier."""
        starting = asyncio.ensure_future(start)
        await _first_of(starting, self._stopping.wait())
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return not self._stopping.is_set()

    async def _answer(
        self, node: RunningNode, lan: socket.socket, endpoint: socket.socket, control: socket.socket
    ) -> None:
        line, adds = UploadLine(), Adds(node)
        limiter = make_limiter(self._settings.lan_up_limit)
        send_after_others(lan)
        threads = ThreadPoolExecutor(line.max_active + SPARE_THREADS, "hfpeer-send")
        local_threads = ThreadPoolExecutor(LOCAL_THREADS, "hfpeer-local")
        protocol, local_protocol = zero_copy_protocol(threads), zero_copy_protocol(local_threads)
        hub = None if node.endpoint is None else _make_hub_door(node.endpoint, local_threads)
        node.listeners = {
            "lan": str(bound_address(lan)),
            "endpoint": str(bound_address(endpoint)),
            "control": str(self._settings.places.control_socket),
        }
        doors = [
            Door(lan_app(node.holdings, threads, line, self._stopping, limiter), lan, protocol),
            Door(
                endpoint_app(node, bound_address(endpoint), _own_names(self._settings), hub), endpoint, local_protocol
            ),
            Door(
                control_app(node, adds, self._stopping.set),
                control,
                protocol,
                ((VERSION_HEADER, str(CONTROL_VERSION)),),
            ),
        ]
        serving = [asyncio.ensure_future(door.serve_door()) for door in doors]
        await _first_of(*serving, asyncio.gather(*(door.is_open.wait() for door in doors)))
        # What is alive now stays so: the collector need not go through it again and again while much comes and goes.
        gc.freeze()
        self._say_ready(node.listeners)
        await _first_of(*serving, self._stopping.wait())
        self._say_stopping()
        gc.unfreeze()
        line.close()
        for door in doors:
            door.close()
        await adds.stop()
        await asyncio.gather(*serving)
        await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(local_threads.shutdown)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # A terminal that goes away means the end; without one the signal is a service manager's.
        hangup = self._stopping.set if sys.stderr.isatty() else self._reload
        loop.add_signal_handler(signal.SIGHUP, hangup)

    def _reload(self) -> None:
        self._wants_reload = True
        self._stopping.set()

    def _say_ready(self, listeners: dict[str, str]) -> None:
        where = ", ".join(f"{door} {address}" for door, address in listeners.items())
        _log.info("Ready: %s", where)
        self._reporter.ready()
        self._notifier.ready(f"Listening: {where}")

    def _say_stopping(self) -> None:
        _log.info("Reading the settings again" if self._wants_reload else "Stopping")
        if self._wants_reload:
            self._notifier.reloading()
        else:
            self._notifier.stopping()
        # From here on a second signal ends the process the hard way.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


def _make_hub_door(endpoint: Endpoint, threads: ThreadPoolExecutor) -> HubDoor:
    from hfpeer_daemon.hub.door import HubDoor  # as heavy as the node

    return HubDoor(endpoint, threads)


def _own_names(settings: Settings) -> tuple[str, ...]:
    """What other machines call this one."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return (name, short, f"{short}.local", *settings.endpoint_names)


async def _first_of(*works: Awaitable[object]) -> None:
    """Waits until one of them ends; raises what it raised."""
    doing = [asyncio.ensure_future(work) for work in works]
    done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
    for work in done:
        work.result()
    doing[-1].cancel()


if __name__ == "__main__":
    sys.exit(main())
