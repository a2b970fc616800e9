"""The grants of admitted callers, and which tokens a hub accepted for which commits."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from hfpeer.cache.snapshots import write_file
from hfpeer.errors import StorageError
from hfpeer.names import Commit, RepoId
from hfpeer.system.ownership import read_own

GRANT_SECONDS = 300.0
"""Seconds for which a hub's answer about a token, or about a repo that is not public, holds."""
MAX_GRANTS = 10_000
"""Number of accepted tokens, by repo and commit, that are remembered; the latest stay."""


class Grant(Enum):
    """The part of a commit that an admitted caller may have."""

    ALL = "all"
    LISTED = "listed"
    """The metadata that is here, and files here that were given openly."""
    GIVEN = "given"
    """Files that peers or mirrors give openly now, and files here that were given openly. No metadata."""
    PUBLISHED_THERE = "published there"
    """As GIVEN, of a commit that a peer says was published on the LAN, whatever the hubs say of the repo."""
    PUBLISHED = "published"
    """As PUBLISHED_THERE if all of the commit's files that are here were given openly; with metadata."""

    @property
    def has_metadata(self) -> bool:
        """Whether the caller may have the listing and info that are here."""
        return self not in (Grant.GIVEN, Grant.PUBLISHED_THERE)

    @property
    def is_published(self) -> bool:
        """Whether the commit was published on the LAN, so that no hub can close it."""
        return self in (Grant.PUBLISHED_THERE, Grant.PUBLISHED)


class Grants:
    """When a hub last accepted a token for a repo and commit. Thread-safe.

    Stored with the tokens' hashes in one file that only its owner can read.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted_at: dict[str, float] | None = None

    def accepted(self, fingerprint: str, repo: RepoId, commit: Commit | None) -> None:
        """A hub accepts the token now."""
        with self._lock:
            accepted_at = self._load()
            accepted_at[_key(fingerprint, repo, commit)] = self._clock()
            self._save(accepted_at)

    def refused(self, fingerprint: str, repo: RepoId, commit: Commit | None) -> None:
        """A hub refuses the token."""
        with self._lock:
            accepted_at = self._load()
            if accepted_at.pop(_key(fingerprint, repo, commit), None) is not None:
                self._save(accepted_at)

    def age_seconds(self, fingerprint: str, repo: RepoId, commit: Commit | None) -> float | None:
        """Seconds since the token was accepted; None if it never was, or at a time in the future."""
        with self._lock:
            accepted_at = self._load().get(_key(fingerprint, repo, commit))
        age_seconds = None if accepted_at is None else self._clock() - accepted_at
        return None if age_seconds is None or age_seconds < 0 else age_seconds

    def _load(self) -> dict[str, float]:
        if self._accepted_at is None:
            self._accepted_at = {}
            with contextlib.suppress(OSError, ValueError, AttributeError):
                document = json.loads(read_own(self._path))
                self._accepted_at = {str(key): float(at) for key, at in document.items()}
        return self._accepted_at

    def _save(self, accepted_at: dict[str, float]) -> None:
        for key in sorted(accepted_at, key=lambda key: accepted_at[key])[:-MAX_GRANTS]:
            del accepted_at[key]
        with contextlib.suppress(StorageError):
            write_file(self._path, json.dumps(accepted_at, indent=1), 0o600)


def _key(fingerprint: str, repo: RepoId, commit: Commit | None) -> str:
    return f"{fingerprint} {repo.api_path}" + (f"@{commit}" if commit else "")
