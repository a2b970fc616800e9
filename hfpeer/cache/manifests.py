"""The manifests this node knows, as JSON files below its home: `manifests/<repo folder>/<commit>.json`.

They are kept with their proof so that the node can convince others. A file that cannot be read is as good as none.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from hfpeer.cache.snapshots import write_file
from hfpeer.errors import CorruptData, InvalidName
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId

RECENT = 4


class Manifests:
    """Manifests on disk. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._recent: dict[Path, tuple[tuple[int, int], Manifest]] = {}

    def path(self, repo: RepoId, commit: Commit) -> Path:
        return self._folder / repo.folder / f"{commit}.json"

    def commits(self, repo: RepoId) -> list[Commit]:
        """The commits of a repo of which there is one, the latest first."""
        found: list[tuple[int, Commit]] = []
        with contextlib.suppress(OSError):
            for path in (self._folder / repo.folder).glob("*.json"):
                with contextlib.suppress(InvalidName):
                    found.append((path.stat().st_mtime_ns, Commit.parse(path.stem)))
        return [commit for _, commit in sorted(found, reverse=True)]

    def save(self, manifest: Manifest) -> None:
        """Keeps a manifest; one that has no proof never replaces one that has."""
        if manifest.is_attested:
            known = self.load(manifest.repo, manifest.commit)
            if known is not None and not known.is_attested:
                return
        write_file(self.path(manifest.repo, manifest.commit), manifest.to_json())

    def load(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The manifest, or None if there is none that can be read. The last few are kept in memory."""
        path = self.path(repo, commit)
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            with self._lock:
                recent = self._recent.get(path)
            if recent is not None and recent[0] == stamp:
                return recent[1]
            manifest = Manifest.from_json(path.read_bytes())
        except (OSError, CorruptData):
            return None
        if (manifest.repo, manifest.commit) != (repo, commit):
            return None
        self._keep(path, stamp, manifest)
        return manifest

    def _keep(self, path: Path, stamp: tuple[int, int], manifest: Manifest) -> None:
        with self._lock:
            self._recent.pop(path, None)
            self._recent[path] = (stamp, manifest)
            while len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]

    def remove(self, repo: RepoId, commit: Commit) -> None:
        path = self.path(repo, commit)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
