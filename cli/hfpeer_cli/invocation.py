"""One run of the command line: what was said about output, and the node it works on.

The settings are read here, once, and only by commands that need them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hfpeer_cli.output import Output

if TYPE_CHECKING:
    from hfpeer.operations import Operations
    from hfpeer.settings import Settings

T = TypeVar("T")
SessionOpener: TypeAlias = "Callable[[Settings], AbstractAsyncContextManager[Operations]]"


@dataclass
class Invocation:
    """What one run of `hfpeer` knows. `environ` and `open_session` are handed in by tests, the latter to take the
    place of the daemon, or of the node in this process.

    `when_interrupted` is the one line that Ctrl-C leaves behind.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    open_session: SessionOpener | None = None
    is_json: bool = False
    log_level: str | None = None
    when_interrupted: str = "Interrupted."

    @cached_property
    def settings(self) -> Settings:
        """The settings in force. Raises InvalidName for a malformed file or environment."""
        from hfpeer.settings import read_settings

        return read_settings(self.environ)

    @property
    def home(self) -> Path:
        """The node's home, known even when its settings cannot be read."""
        from hfpeer.paths import default_home

        return default_home(self.environ)

    @property
    def output(self) -> Output:
        return Output(is_json=self.is_json)

    def run(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """Does `work` on the daemon if it answers, else on a node in this process, and gives its result.

        Ctrl-C ends it and raises KeyboardInterrupt.
        """
        if self.log_level:
            self._log()
        if self.open_session is None:
            from hfpeer.blocking import run_blocking
            from hfpeer.session import find_daemon

            daemon = find_daemon(self.settings)
            if daemon is not None:
                return run_blocking(work(daemon))
        return self._run_here(work)

    def _run_here(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        import asyncio

        from hfpeer.session import open_node

        self._log()
        opened = (self.open_session or open_node)(self.settings)

        async def within_a_session() -> T:
            async with opened as node:
                return await work(node)

        return asyncio.run(within_a_session())

    def _log(self) -> None:
        import logging

        logging.basicConfig(level=(self.log_level or "warning").upper(), format="%(levelname)s %(name)s: %(message)s")
