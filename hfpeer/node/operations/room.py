"""The space that adds will take on the volume of the cache: compared with what is free before the first byte."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from hfpeer.cache.disk.os_errors import free_bytes
from hfpeer.cache.partial.files import begun_bytes
from hfpeer.cache.store import Store
from hfpeer.errors import NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import RepoId

SPARE_BYTES = 64 * 1024**2
SPARE_PART = 100
"""A hundredth of what is needed, and at most SPARE_BYTES, stays free: folders and links take space too."""


@dataclass(frozen=True, eq=False)
class Claim:
    """The files that one add will fetch."""

    files: tuple[ManifestFile, ...]


class Room:
    """The claims of the adds under way in this process. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._claims: list[Claim] = []

    def claim(self, repo: RepoId, files: Sequence[ManifestFile]) -> Claim:
        """Claims space for files until `release`. Raises NoSpace if they and the files of other claims need more than
        is free. Blocking."""
        claim = Claim(tuple(files))
        with self._lock:
            others = [file for one in self._claims for file in one.files]
            self._check(repo, claim.files, others)
            self._claims.append(claim)
        return claim

    def release(self, claim: Claim) -> None:
        with self._lock:
            self._claims.remove(claim)

    def _check(self, repo: RepoId, files: Sequence[ManifestFile], others: Sequence[ManifestFile]) -> None:
        cache = self._store.cache
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


def _fits(needed_bytes: int, free: int) -> bool:
    return needed_bytes + min(SPARE_BYTES, needed_bytes // SPARE_PART) <= free
