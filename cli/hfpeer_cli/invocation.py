"""One run of the command line: what was said about output, and the node it works on.

The settings are read here, once, and only by commands that need them.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from hfpeer_cli.output import Output

if TYPE_CHECKING:
    from hfpeer.operations import Operations
    from hfpeer.settings import Settings

T = TypeVar("T")
SessionOpener: TypeAlias = "Callable[[Settings], AbstractAsyncContextManager[Operations]]"


def open_real_session(settings: Settings) -> AbstractAsyncContextManager[Operations]:
    """The daemon if it answers, else a node in this process."""
    from hfpeer.session import open_session

    return open_session(settings)


@dataclass
class Invocation:
    """What one run of `hfpeer` knows. `environ` and `open_session` are handed in by tests.

    `when_interrupted` is the one line that Ctrl-C leaves behind.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    open_session: SessionOpener = open_real_session
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

    def run(self, work: Callable[[Operations], Awaitable[T]]) -> T:
        """Does `work` on the node and gives its result. Ctrl-C cancels it and raises KeyboardInterrupt."""

        import asyncio
        import logging

        logging.basicConfig(level=(self.log_level or "warning").upper(), format="%(levelname)s %(name)s: %(message)s")

        async def within_a_session() -> T:
            async with self.open_session(self.settings) as node:
                return await work(node)

        return asyncio.run(within_a_session())
