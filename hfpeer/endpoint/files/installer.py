"""Makes files that came into the cache visible in the snapshots of their commits, several at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, RepoId
from hfpeer.net.tasks import end_tasks
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.sources.sources import WantedBlob

GATHER_SECONDS = 0.1
"""Seconds in which new files of a commit are gathered before they are installed together."""
STOP_SECONDS = 0.5
"""Seconds that installing may still take when the node stops."""

_log = logging.getLogger(__name__)


class Installer:
    """Belongs to one event loop. `on_installed` is called with each commit of which files were installed."""

    def __init__(self, store: Store, on_installed: Callable[[RepoId, Commit], Awaitable[None]]) -> None:
        self._store = store
        self._on_installed = on_installed
        self._waiting: dict[tuple[RepoId, Commit], list[ManifestFile]] = {}
        self._installing: asyncio.Task[None] | None = None

    def add(self, blob: WantedBlob, file: ManifestFile) -> None:
        """Installs a file soon, together with others of its commit."""
        self._waiting.setdefault((blob.repo, blob.commit), []).append(file)
        if self._installing is None or self._installing.done():
            self._installing = asyncio.create_task(self._install_all())

    async def stop(self) -> None:
        """Ends installing. Files that were not installed are when they are read again."""
        if self._installing is not None:
            await asyncio.wait([self._installing], timeout=STOP_SECONDS)
            await end_tasks([self._installing])

    async def _install_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            waiting, self._waiting = self._waiting, {}
            for (repo, commit), files in waiting.items():
                try:
                    await in_thread(self._store.ingester.install, repo, commit, files)
                    await self._on_installed(repo, commit)
                except HfpeerError as error:
                    _log.warning("Files of %s at %s cannot be installed: %s", repo, commit.short, error.message)
