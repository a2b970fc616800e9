"""The daemon process: settings, lock, sockets, node, doors, and an orderly stop.

`main` is the entry point of `hfpeerd`. It runs in the foreground unless told to detach. SIGTERM and SIGINT stop it;
SIGHUP makes it read its settings again.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from hfpeer.budgets import CONTROL_STALL_SECONDS, MAX_BATCHES, MAX_DIGESTED_BLOBS
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.codec import CONTROL_VERSION, VERSION_HEADER
from hfpeer.control.environment import digests_of
from hfpeer.control.holder import DaemonLock
from hfpeer.control.operations import Operations
from hfpeer.control.ports import listen_tcp
from hfpeer.control.process import Reporter
from hfpeer.errors import HfpeerError
from hfpeer.net.address import Address
from hfpeer.net.limiter import make_limiter
from hfpeer.peers.provider import AddTaker, Provider
from hfpeer_daemon.app import control_app, endpoint_app, lan_app
from hfpeer_daemon.control.adds import Adds, Calls
from hfpeer_daemon.http.connections import DoorBudgets
from hfpeer_daemon.http.door import INERT, Door
from hfpeer_daemon.http.listeners import bound_address, listen_unix, send_after_others
from hfpeer_daemon.http.zero_copy import Times, zero_copy_protocol
from hfpeer_daemon.lan.upload_slots import UploadSlots
from hfpeer_daemon.logs import start_logging
from hfpeer_daemon.notify import Notifier
from hfpeer_daemon.page.routes import page_routes
from hfpeer_daemon.page.views import Views

if TYPE_CHECKING:
    from hfpeer.endpoint.endpoint import Endpoint
    from hfpeer_daemon.endpoint.app import HubApp

SPARE_THREADS = 8
"""Threads in addition to those that send: for opening files, for HEAD, and for reading batches."""

LOCAL_THREADS = 64
"""Bodies sent to local tools at once; further ones wait."""

LAST_RESORT_SECONDS = 3.5
"""Seconds after which a stop ends the process whatever its threads do. `daemon stop` takes less than 5 s."""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Parameters of `mallopt`. Source: glibc `malloc.h`."""
_log = logging.getLogger(__name__)


class RunningNode(Operations, Protocol):
    """A node that can be started and stopped. `listeners` are the doors' addresses, for its status."""

    listeners: dict[str, str]

    @property
    def provider(self) -> Provider: ...

    @property
    def adds_of_others(self) -> AddTaker | None:
        """Takes requests of other nodes, after the start; None if the node takes none at all."""
        ...

    @property
    def endpoint(self) -> Endpoint | None:
        """The Hub for local tools, after the start; None if the node has none."""
        ...

    async def start(self, lan_address: Address | None) -> None: ...

    async def stop(self) -> None: ...


MakeNode = Callable[[Settings], RunningNode]


def main(arguments: Sequence[str] | None = None, make_node: MakeNode | None = None) -> int:
    """Runs the daemon to its end and returns the exit code."""
    options = _parse(arguments)
    if options.detach and os.fork():
        os._exit(0)
    reporter = Reporter(options.report_fd)
    _give_memory_back()
    try:
        _run(options.detach, reporter, make_node or _real_node)
    except HfpeerError as error:
        _log.error("%s %s", error.message, error.hint or "")
        reporter.failed(error)
        return error.exit_code
    except KeyboardInterrupt:  # before the event loop handles the signal
        return 128 + signal.SIGINT
    except Exception:
        # Python prints it for the process that started the daemon; the log is where the user looks later.
        if options.detach:
            _log.critical("The daemon failed and ends", exc_info=True)
        raise
    return 0


def _give_memory_back() -> None:
    """Has glibc return freed memory to the system. By default each of many threads has a heap of its own, and after a
    large text, such as the manifest of many files, others of its size stay in a heap, too."""
    with suppress(OSError, AttributeError):  # another C library
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_ARENA_MAX, 2)
        c_library.mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "hfpeerd", description="The hfpeer daemon. `hfpeer daemon start` starts it for you."
    )
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground and log to stderr (default)")
    parser.add_argument("--detach", action="store_true", help="go to the background and log to the home's logs")
    parser.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _real_node(settings: Settings) -> RunningNode:
    from hfpeer.node.node import Node

    return Node(settings)


def _run(is_detached: bool, reporter: Reporter, make_node: MakeNode) -> None:
    """Holds the home's lock and runs the daemon, again after each SIGHUP."""
    settings = read_settings(os.environ)
    lock = DaemonLock(settings.places, is_detached=is_detached)
    lock.acquire()
    _raise_file_limit()
    try:
        notifier = Notifier(os.environ)
        wants_restart = True
        while wants_restart:
            start_logging(settings.log_level, settings.places.log_file if is_detached else None)
            wants_restart = Daemon(settings, make_node, reporter, notifier).run()
            settings = read_settings(os.environ) if wants_restart else settings
    finally:
        lock.release()


def _raise_file_limit() -> None:
    """Each peer needs descriptors. The usual soft limit of 1,024 is for programs that call select()."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    except (OSError, ValueError):
        _log.debug("Cannot raise the limit of open files")


class Daemon:
    """One run of the daemon, from bound sockets to closed ones."""

    def __init__(self, settings: Settings, make_node: MakeNode, reporter: Reporter, notifier: Notifier) -> None:
        self._settings = settings
        self._make_node = make_node
        self._reporter = reporter
        self._notifier = notifier
        self._wants_reload = False

    def run(self) -> bool:
        """Returns at the end; True if it should run again with fresh settings."""
        with ExitStack() as bound:
            lan = bound.enter_context(listen_tcp(self._settings.lan_listen, "lan.listen"))
            endpoint = bound.enter_context(listen_tcp(self._settings.endpoint_listen, "endpoint.listen"))
            control = bound.enter_context(listen_unix(self._settings.places.control_socket))
            bound.callback(self._settings.places.control_socket.unlink, missing_ok=True)
            asyncio.run(self._serve(lan, endpoint, control))
        return self._wants_reload

    async def _serve(self, lan: socket.socket, endpoint: socket.socket, control: socket.socket) -> None:
        self._stopping = asyncio.Event()
        self._take_signals()
        address = bound_address(lan)
        node = self._make_node(self._settings)
        try:
            if await self._is_started(node.start(address)):
                await self._serve_doors(node, lan, endpoint, control)
        finally:
            await node.stop()

    async def _is_started(self, start: Coroutine[Any, Any, None]) -> bool:
        """Whether the start has finished; a signal may end it earlier."""
        starting = asyncio.ensure_future(start)
        await _first_of(starting, self._stopping.wait())
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return not self._stopping.is_set()

    async def _serve_doors(
        self, node: RunningNode, lan: socket.socket, endpoint: socket.socket, control: socket.socket
    ) -> None:
        slots, adds, calls = UploadSlots(), Adds(node), Calls()
        limiter = make_limiter(self._settings.lan_up_limit)
        send_after_others(lan)
        threads = ThreadPoolExecutor(slots.max_active + MAX_BATCHES + MAX_DIGESTED_BLOBS + SPARE_THREADS, "hfpeer-send")
        local_threads = ThreadPoolExecutor(LOCAL_THREADS, "hfpeer-local")
        protocol, local_protocol = zero_copy_protocol(threads), zero_copy_protocol(local_threads)
        hub = None if node.endpoint is None else _make_hub_door(node.endpoint, local_threads)
        page = page_routes(Views(node, self._settings), self._stopping)
        node.listeners = {
            "lan": str(bound_address(lan)),
            "endpoint": str(bound_address(endpoint)),
            "control": str(self._settings.places.control_socket),
        }
        budgets, allowed = DoorBudgets.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), self._settings.lan_allow
        doors = [
            Door(
                lan_app(node.provider, threads, slots, self._stopping, limiter, adds=node.adds_of_others),
                lan,
                protocol,
                limits=[budgets.lan_local, budgets.lan],
                allowed=allowed,
            ),
            Door(
                endpoint_app(node, bound_address(endpoint), _own_names(self._settings), hub, page),
                endpoint,
                local_protocol,
                INERT,
                limits=[budgets.local, budgets.guests],
                allowed=allowed,
            ),
            Door(
                control_app(node, adds, calls, self._stop, digests_of(self._settings, os.environ, token_hex(16))),
                control,
                zero_copy_protocol(threads, Times(stall_seconds=CONTROL_STALL_SECONDS)),
                ((VERSION_HEADER, str(CONTROL_VERSION)),),
                limits=[budgets.control],
            ),
        ]
        serving = [asyncio.ensure_future(door.serve_door()) for door in doors]
        await _first_of(*serving, asyncio.gather(*(door.is_open.wait() for door in doors)))
        # Objects alive now stay alive: the garbage collector need not scan them again and again.
        gc.freeze()
        self._report_ready(node.listeners)
        await _first_of(*serving, self._stopping.wait())
        self._report_stopping()
        gc.unfreeze()
        slots.close()
        for door in doors:
            door.close()
        await asyncio.gather(adds.stop(), calls.stop())
        await asyncio.gather(*serving)
        await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(local_threads.shutdown)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        # With a terminal SIGHUP means that the terminal is gone, so the daemon stops; without one it comes from a
        # service manager.
        hangup = self._stop if sys.stderr.isatty() else self._reload
        loop.add_signal_handler(signal.SIGHUP, hangup)

    def _stop(self) -> None:
        """Begins the stop. A thread that hangs in a system call cannot keep the process alive; no installed bytes are
        lost with it."""
        if not self._stopping.is_set():
            self._stopping.set()
            last_resort = threading.Timer(LAST_RESORT_SECONDS, self._end_now)
            last_resort.daemon = True
            last_resort.start()

    def _end_now(self) -> None:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate() if thread.daemon is False))
        _log.warning("The daemon ends without waiting for these threads: %s", names)
        self._settings.places.control_socket.unlink(missing_ok=True)
        logging.shutdown()
        os._exit(0)

    def _reload(self) -> None:
        self._wants_reload = True
        self._stopping.set()

    def _report_ready(self, listeners: dict[str, str]) -> None:
        where = ", ".join(f"{door} {address}" for door, address in listeners.items())
        _log.info("Ready: %s", where)
        self._reporter.ready()
        self._notifier.ready(f"Listening: {where}")

    def _report_stopping(self) -> None:
        _log.info("Restarting with new settings" if self._wants_reload else "Stopping")
        if self._wants_reload:
            self._notifier.reloading()
        else:
            self._notifier.stopping()
        # From here on a second signal kills the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


def _make_hub_door(endpoint: Endpoint, threads: ThreadPoolExecutor) -> HubApp:
    from hfpeer_daemon.endpoint.app import HubApp

    return HubApp(endpoint, threads)


def _own_names(settings: Settings) -> tuple[str, ...]:
    """Names by which other machines may reach this one."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return (name, short, f"{short}.local", *settings.endpoint_names)


async def _first_of(*works: Awaitable[object]) -> None:
    """Waits until one of them ends; raises its exception."""
    doing = [asyncio.ensure_future(work) for work in works]
    done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
    for work in done:
        work.result()
    doing[-1].cancel()


if __name__ == "__main__":
    sys.exit(main())
