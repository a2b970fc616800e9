"""One run of the command line: its output options, its settings, and the node it works on.

Settings are read here, once, and only by commands that need them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hfpeer_cli.output import Output

if TYPE_CHECKING:
    from hfpeer.config.settings import Settings
    from hfpeer.control.client import ControlClient
    from hfpeer.control.operations import Operations
    from hfpeer.errors import HfpeerError

NO_PEERS_ASKED = "No daemon runs here, so only peers that are configured could be asked: `hfpeer daemon start`."
T = TypeVar("T")
SessionOpener: TypeAlias = "Callable[[Settings], AbstractAsyncContextManager[Operations]]"


@dataclass
class Invocation:
    """One run of `hfpeer`. Tests hand in `environ`, and `open_session` in place of the daemon or the node in this
    process. `when_interrupted` is the line printed after Ctrl-C. `documents` collects the results of work on
    several repos. `words` are those before the cursor when a shell asks what can follow. `has_no_daemon`: work was
    done in this process, because no daemon answered. `daemon` did the work of the last `run`.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    open_session: SessionOpener | None = None
    is_json: bool = False
    is_lines: bool = False
    is_quiet: bool = False
    log_level: str | None = None
    when_interrupted: str = "Interrupted."
    documents: list[object] | None = None
    words: tuple[str, ...] = ()
    has_no_daemon: bool = False
    daemon: ControlClient | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings in force. Raises InvalidName for a malformed file or environment."""
        from hfpeer.config.settings import read_settings

        return read_settings(self.environ)

    @property
    def home(self) -> Path:
        """The node's home, known even when its settings cannot be read."""
        from hfpeer.config.paths import default_home

        return default_home(self.environ)

    @property
    def output(self) -> Output:
        return Output(self.is_json, self.is_lines, self.is_quiet, self.documents)

    @contextmanager
    def output_of_several(self) -> Iterator[None]:
        """Inside, results as JSON are collected; at the end they are printed as one array."""
        if self.is_json and not self.is_lines:
            self.documents = []
        yield
        documents, self.documents = self.documents, None
        if documents is not None:
            self.output.result("", documents)

    def run(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """Runs `work` on the daemon if it answers, else on a node in this process, and returns its result.

        Ctrl-C ends it and raises KeyboardInterrupt.
        """
        if self.log_level:
            self._log()
        if self.open_session is None:
            from hfpeer.net.http1_blocking import run_blocking
            from hfpeer.node.session import explaining, find_daemon

            self.daemon = daemon = find_daemon(self.settings)
            if daemon is not None:
                with explaining(daemon, self.settings, self.environ):
                    return run_blocking(work(daemon))
            self.has_no_daemon = True
        return self._run_here(work)

    def run_in_loop(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """The same for work that does more than call operations: always in an event loop of this process."""
        import asyncio

        from hfpeer.node.session import open_session

        self._log()
        opened = self.open_session(self.settings) if self.open_session else open_session(self.settings, self.environ)

        async def within_a_session() -> T:
            async with opened as node:
                return await work(node)

        return asyncio.run(within_a_session())

    def complain(self, error: HfpeerError, **facts: str) -> None:
        """Prints an error with its hint; if something belongs to another user, also where that user's daemon answers.
        If no source answered, it says that without a daemon hardly any peer was asked. Among the results of several
        repos it stands as `problem` beside `facts`."""
        from hfpeer.errors import Unreachable

        hint, owner = error.hint, error.facts.get("owner_uid")
        if owner is not None:
            from hfpeer.control.other_daemons import daemon_of

            daemon = daemon_of(owner)
            hint = hint if daemon is None else f"{daemon.sentence} {hint}"
        if self.has_no_daemon and error.exit_code == Unreachable.exit_code:
            hint = " ".join(filter(None, [hint, NO_PEERS_ASKED]))
        problem = {**error.to_problem(), "hint": hint}
        self.output.problem(problem)
        if self.documents is not None:
            self.documents.append({**facts, "problem": problem})

    def note_environment(self) -> None:
        """Prints, once for each difference, in which variables the daemon that did the work has another environment,
        and that HF_ENDPOINT names another hub than the ones that are asked."""
        if self.is_json or self.is_quiet or self.open_session is not None:
            return
        from hfpeer.node.session import differences

        for difference in differences(
            self.daemon, self.settings, self.environ, without=("token", "cache"), is_for_work=True
        ):
            from hfpeer.control.environment import is_first_time

            if is_first_time(self.home, difference):
                self.output.note(str(difference))

    def note_passed_over(self) -> None:
        """Prints a note for each cache folder that is not there, and for each repo that this user may not read."""
        from hfpeer.cache.disk.access import closed_repos
        from hfpeer.cache.disk.caches import why_away

        for folder in self.settings.read_caches:
            reason = why_away(folder)
            if reason:
                self.output.note(f"{folder} is passed over: {reason}.")
        for cache in (self.settings.cache, *self.settings.read_caches):
            for folder, reason in closed_repos(cache):
                self.output.note(f"{folder} is passed over: {reason}.")

    def _run_here(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        import asyncio

        from hfpeer.node.session import explaining, open_node

        self._log()
        opened = (self.open_session or open_node)(self.settings)

        async def within_a_session() -> T:
            with explaining(None, self.settings, self.environ):
                async with opened as node:
                    return await work(node)

        return asyncio.run(within_a_session())

    def _log(self) -> None:
        import logging

        logging.basicConfig(level=(self.log_level or "warning").upper(), format="%(levelname)s %(name)s: %(message)s")
