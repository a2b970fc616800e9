"""The owner's overrides on what peers may have: `shares.json` in the home.

The file is the only copy. It is read again after another process has changed it.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.os_errors import MOVES_HOME, translated
from hfpeer.cache.snapshots import write_file
from hfpeer.errors import BrokenCache
from hfpeer.names import RepoId
from hfpeer.system.ownership import read_own

AUTHOR = "hfpeer <hfpeer@localhost>"
MESSAGE = "Published by hfpeer"
"""Author and message of every commit that a node publishes."""


class Overrides:
    """The overrides by repo. Thread-safe. Raises BrokenCache if the file cannot be read: then nothing is shared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._words: dict[str, dict[str, bool]] = {}
        self._stamp: tuple[int, int] | None = None

    def of(self, repo: RepoId) -> bool | None:
        """Whether the owner lets peers have the repo; None without an override.

        An older version wrote an override for the whole repo when it published a commit. That one does not count.
        """
        said = self._read().get(repo.folder, {})
        is_of_publish = said.get("is_shared") is True and said.get("is_published") is True
        return None if is_of_publish else said.get("is_shared")

    def is_published(self, repo: RepoId) -> bool:
        """Whether an older version recorded here that this node published the repo. Since then `publications` does."""
        return self._read().get(repo.folder, {}).get("is_published", False)

    def set(self, repo: RepoId, is_shared: bool | None) -> None:
        """Sets the override of a repo; None removes it. The record of an older version is dropped in both cases."""
        with self._lock:
            words = {folder: dict(said) for folder, said in self._load().items()}
            words[repo.folder] = {} if is_shared is None else {"is_shared": is_shared}
            words = {folder: said for folder, said in words.items() if said}
            write_file(self._path, json.dumps(words, indent=1, sort_keys=True), 0o600, is_synced=True)
            self._words, self._stamp = words, None

    def _read(self) -> dict[str, dict[str, bool]]:
        with self._lock:
            return self._load()

    def _load(self) -> dict[str, dict[str, bool]]:
        with translated("read the owner's overrides on sharing", self._path, elsewhere=MOVES_HOME):
            try:
                facts = self._path.stat()
            except FileNotFoundError:
                self._words, self._stamp = {}, None
                return self._words
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._words, self._stamp = self._parse(read_own(self._path)), stamp
        return self._words

    def _parse(self, text: bytes) -> dict[str, dict[str, bool]]:
        try:
            document: dict[str, Any] = json.loads(text)
            if not all(isinstance(said.get("is_shared", False), bool) for said in document.values()):
                raise ValueError("an override is neither true nor false")
            return {
                folder: {word: value for word, value in said.items() if isinstance(value, bool)}
                for folder, said in document.items()
            }
        except (ValueError, AttributeError, RecursionError) as error:
            raise BrokenCache(
                f"{self._path} is not readable, so hfpeer does not know what peers may have.",
                hint="Repair the file, or delete it and set the overrides again (`hfpeer model share`, "
                "`hfpeer model unshare`).",
                path=str(self._path),
            ) from error
