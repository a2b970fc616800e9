"""Answers of a hub that no manifest could give, kept below the home by commit: info, histories, expanded listings.

Bounded and deletable: what is missing is asked again. Files are readable by their owner only, because a private
repo's description is private too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from hfpeer.cache.snapshots import write_file
from hfpeer.errors import StorageError
from hfpeer.names import Commit, RepoId

MAX_BYTES = 256 * 1024 * 1024
SWEEP_EVERY = 100
"""After so many new answers the oldest are removed if there are too many."""


class KeptAnswers:
    """Documents by repo, commit and what was asked. Blocking, for worker threads."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._until_sweep = 0

    def load(self, repo: RepoId, commit: Commit, asked: str) -> Any:
        """The document, or None."""
        try:
            return json.loads(self._path(repo, commit, asked).read_bytes())
        except (OSError, ValueError):
            return None

    def save(self, repo: RepoId, commit: Commit, asked: str, document: Any) -> None:
        """Keeps a document. A disk that does not take it is no error: then it is asked again."""
        with contextlib.suppress(StorageError):
            write_file(self._path(repo, commit, asked), json.dumps(document, separators=(",", ":")), 0o600)
        self._until_sweep -= 1
        if self._until_sweep < 0:
            self._until_sweep = SWEEP_EVERY
            self._sweep()

    def _path(self, repo: RepoId, commit: Commit, asked: str) -> Path:
        name = hashlib.sha256(asked.encode()).hexdigest()[:32]
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
