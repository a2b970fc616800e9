"""The owner's word on what peers may have, and which repos were published from here: `shares.json` in the home.

It is the only copy and outlives the catalogue, which may be deleted. Another process may change it: it is read again
when it has changed.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hfpeer.cache.failures import translated
from hfpeer.cache.snapshots import write_file
from hfpeer.errors import BrokenCache
from hfpeer.names import RepoId


class Sharing:
    """The owner's words, by repo. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._words: dict[str, dict[str, bool]] = {}
        self._stamp: tuple[int, int] | None = None

    def override(self, repo: RepoId) -> bool | None:
        """Whether the owner said that peers may have it; None if nothing was said."""
        return self._read().get(repo.folder, {}).get("is_shared")

    def is_published(self, repo: RepoId) -> bool:
        return self._read().get(repo.folder, {}).get("is_published", False)

    def set_override(self, repo: RepoId, is_shared: bool | None) -> None:
        """Keeps the owner's word; None takes it back."""
        self._set(repo, "is_shared", is_shared)

    def set_published(self, repo: RepoId) -> None:
        self._set(repo, "is_published", True)

    def _set(self, repo: RepoId, word: str, value: bool | None) -> None:
        with self._lock:
            words = {folder: dict(said) for folder, said in self._load().items()}
            said = words.setdefault(repo.folder, {})
            if value is None:
                said.pop(word, None)
            else:
                said[word] = value
            words = {folder: said for folder, said in words.items() if said}
            write_file(self._path, json.dumps(words, indent=1, sort_keys=True), 0o600, is_synced=True)
            self._words, self._stamp = words, None

    def _read(self) -> dict[str, dict[str, bool]]:
        with self._lock:
            return self._load()

    def _load(self) -> dict[str, dict[str, bool]]:
        with translated("read what the owner said about sharing", self._path):
            try:
                facts = self._path.stat()
            except FileNotFoundError:
                self._words, self._stamp = {}, None
                return self._words
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._words, self._stamp = self._parse(self._path.read_bytes()), stamp
        return self._words

    def _parse(self, text: bytes) -> dict[str, dict[str, bool]]:
        try:
            document: dict[str, Any] = json.loads(text)
            return {
                folder: {word: value for word, value in said.items() if isinstance(value, bool)}
                for folder, said in document.items()
            }
        except (ValueError, AttributeError) as error:
            raise BrokenCache(
                f"{self._path} is not readable, so hfpeer does not know what may be shared.",
                hint="Mend the file, or delete it and say again what to share (`hfpeer share`).",
                path=str(self._path),
            ) from error
