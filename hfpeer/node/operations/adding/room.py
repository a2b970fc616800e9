"""The space that adds will take on the volume of the cache: compared with what is free before the first byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from hfpeer.cache.disk.os_errors import free_bytes
from hfpeer.cache.partial.files import begun_bytes
from hfpeer.cache.store import Store
from hfpeer.errors import NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import RepoId
from hfpeer.system.cancellation import in_thread

SPARE_BYTES = 64 * 1024**2
SPARE_PART = 100
"""A hundredth of what is needed, and at most SPARE_BYTES, stays free: folders and links take space too."""


@dataclass(frozen=True)
class Evicted:
    """The bytes that a cache with a budget holds after it has made room. `lacking_bytes` more would have to go;
    `sentence` says why they may not."""

    used_bytes: int = 0
    lacking_bytes: int = 0
    sentence: str = ""


class Room:
    """The space that adds, and files for callers of the endpoint, take in this process. Belongs to one event loop."""

    def __init__(self, store: Store, make_room: Callable[[int], Awaitable[Evicted]] | None = None) -> None:
        """`make_room` removes old revisions, until the cache keeps its budget with that number of bytes more."""
        self._store = store
        self._make_room = make_room
        self._making = asyncio.Lock()
        self._taken: dict[int, tuple[ManifestFile, ...]] = {}
        self._numbers = count()

    async def keep_budget(self) -> None:
        """Removes old revisions if the cache has outgrown its budget, as other tools may let it."""
        if self._make_room is not None:
            async with self._making:
                await self._make_room(0)

    @asynccontextmanager
    async def take(self, repo: RepoId, files: Sequence[ManifestFile]) -> AsyncIterator[bool]:
        """Takes the space of files for the block. Gives whether it may have removed revisions to make room: an add may
        have counted on their blobs. Raises NoSpace if they, and those that are being fetched, need more than is free,
        or more than the budget of the cache has even without what may go; BrokenCache if the disk of the cache is
        unmounted."""
        number, mine = next(self._numbers), tuple(files)
        self._taken[number] = mine
        try:
            others = [file for taken, some in self._taken.items() if taken != number for file in some]
            makes_room = self._make_room is not None and bool(mine)
            if self._make_room is not None and mine:
                async with self._making:
                    evicted = await self._make_room(await in_thread(self._left_bytes, [*mine, *others]))
                if evicted.lacking_bytes:
                    raise _over_budget(repo, evicted, await in_thread(self._left_bytes, mine))
            await in_thread(self._check, repo, mine, others)
            yield makes_room
        finally:
            del self._taken[number]

    def _check(self, repo: RepoId, files: Sequence[ManifestFile], others: Sequence[ManifestFile]) -> None:
        cache = self._store.cache
        self._store.caches.require_first()
        free = free_bytes(cache)
        # Mostly all fits, whatever is here already: then neither the catalog nor the partials are looked at.
        if free is None or _fits(sum(file.size_bytes for file in [*files, *others]), free):
            return
        own_bytes = self._left_bytes(files)
        needed_bytes = self._left_bytes([*files, *others]) if others else own_bytes
        if not own_bytes or _fits(needed_bytes, free):
            return
        of_others = f", other adds under way {needed_bytes - own_bytes:,} more" if needed_bytes > own_bytes else ""
        raise NoSpace(
            f"{repo} needs {own_bytes:,} bytes in {cache}{of_others}, and {free:,} are free there.",
            hint="`hfpeer cache du` shows what takes the space, `hfpeer cache prune` makes room. Or take fewer files "
            "with --include, or keep the cache on another volume: `hfpeer conf cache set DIR`.",
            path=str(cache),
            needed_bytes=needed_bytes,
            free_bytes=free,
        )

    def _left_bytes(self, files: Sequence[ManifestFile]) -> int:
        """The bytes that files still need: not those that are here, nor what their partials take already."""
        sizes = {file.digest: file.size_bytes for file in self._store.inventory.missing(files)}
        return max(0, sum(sizes.values()) - begun_bytes(self._store.cache, sizes)) if sizes else 0


def _over_budget(repo: RepoId, evicted: Evicted, needed_bytes: int) -> NoSpace:
    return NoSpace(
        f"{repo} needs {needed_bytes:,} bytes, {evicted.lacking_bytes:,} more than the budget of the cache leaves, "
        f"which has {evicted.used_bytes:,}. {evicted.sentence}".rstrip(),
        hint="`hfpeer cache gc --dry-run` says what may not go and why. Unpin it (`hfpeer model unpin`), remove it, or "
        "set a larger `hfpeer conf set cache.max_size`.",
        needed_bytes=needed_bytes,
        lacking_bytes=evicted.lacking_bytes,
    )


def _fits(needed_bytes: int, free: int) -> bool:
    return needed_bytes + min(SPARE_BYTES, needed_bytes // SPARE_PART) <= free
