"""A cache on disk of metadata that upstreams gave: info, histories, expanded listings; and of what `datasets` says of a
commit.

Bounded; may be deleted at any time. The files are readable by their owner only, because the description of a private
repo is private.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from hfpeer.cache.snapshots import write_file
from hfpeer.errors import StorageError
from hfpeer.names import Commit, RepoId
from hfpeer.system.ownership import read_own

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of all answers; the oldest are removed first."""
SWEEP_EVERY = 100
"""Number of new answers between two sweeps."""


class Giver(Protocol):
    """The upstream, or the library, that gave an answer."""

    @property
    def kind(self) -> str: ...

    @property
    def url(self) -> str: ...


class AnswerCache:
    """Documents by repo, commit, query, and the upstream or library that gave them. Blocking, for worker threads."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._until_sweep = 0

    def load(self, repo: RepoId, commit: Commit, query: str, by: Giver) -> Any:
        """The document, or None."""
        try:
            return json.loads(read_own(self._path(repo, commit, query, by)))
        except (OSError, ValueError):
            return None

    def save(self, repo: RepoId, commit: Commit, query: str, by: Giver, document: Any) -> None:
        """Writes a document, unless the disk refuses it: then it is asked for again."""
        with contextlib.suppress(StorageError):
            write_file(self._path(repo, commit, query, by), json.dumps(document, separators=(",", ":")), 0o600)
        self._until_sweep -= 1
        if self._until_sweep < 0:
            self._until_sweep = SWEEP_EVERY
            self._sweep()

    def _path(self, repo: RepoId, commit: Commit, query: str, by: Giver) -> Path:
        name = hashlib.sha256(f"{by.kind} {by.url}\n{query}".encode()).hexdigest()[:32]
        return self._folder / repo.folder / commit / f"{name}.json"

    def _sweep(self) -> None:
        """Removes the oldest answers until the rest fits."""
        with contextlib.suppress(OSError):
            found = [(path.stat(), path) for path in self._folder.glob("*/*/*.json")]
            total = sum(facts.st_size for facts, _ in found)
            for facts, path in sorted(found, key=lambda pair: pair[0].st_mtime):
                if total <= self._max_bytes:
                    return
                path.unlink(missing_ok=True)
                total -= facts.st_size
