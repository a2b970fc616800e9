"""The manifests that this node knows, as JSON files in its home: `manifests/<repo folder>/<commit>.json`.

They are kept with their proof, so that peers can check them. A file that cannot be read counts as missing; then the
proof in the repo's own folder is read, and kept here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from hfpeer.cache.commits.proofs import read_proof, remove_proof
from hfpeer.cache.disk import layout
from hfpeer.cache.snapshots import parse_tree, write_file
from hfpeer.errors import CorruptData, InvalidName, StorageError
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.system.ownership import read_own

RECENT = 4
"""Manifests kept in memory, the last ones used."""


class Manifests:
    """Manifests on disk. Thread-safe."""

    def __init__(self, folder: Path, cache: Path, others: Sequence[Path] = ()) -> None:
        """`folder` is in the home. Proofs and lists are also read from `cache`, and from `others`, which are not
        written."""
        self._folder = folder
        self._cache = cache
        self._caches = (cache, *others)
        self._lock = threading.Lock()
        self._recent: LruCache[Path, tuple[tuple[int, int], Manifest]] = LruCache(RECENT)

    def path(self, repo: RepoId, commit: Commit) -> Path:
        """The file of a manifest, whether it exists or not."""
        return self._folder / repo.folder / f"{commit}.json"

    def repos(self) -> list[RepoId]:
        """The repos that have manifests here, in the order of their folders."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                with contextlib.suppress(InvalidName):
                    found.append(RepoId.from_folder(path.name))
        return found

    def commits(self, repo: RepoId) -> list[Commit]:
        """The commits of a repo that have a manifest here, the latest first."""
        found: list[tuple[int, Commit]] = []
        with contextlib.suppress(OSError):
            for path in (self._folder / repo.folder).glob("*.json"):
                with contextlib.suppress(InvalidName):
                    found.append((path.stat().st_mtime_ns, Commit.parse(path.stem)))
        return [commit for _, commit in sorted(found, reverse=True)]

    def repos_of(self, commit: Commit) -> list[RepoId]:
        """The repos that have a manifest of this commit here."""
        found = []
        for path in sorted(self._folder.glob(f"*/{commit}.json")):
            with contextlib.suppress(InvalidName):
                found.append(RepoId.from_folder(path.parent.name))
        return found

    def save(self, manifest: Manifest) -> None:
        """Keeps a manifest. One without a proof never replaces one with a proof."""
        if manifest.is_attested:
            known = self.load(manifest.repo, manifest.commit)
            if known is not None and not known.is_attested:
                return
        self._write(manifest)

    def load(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The manifest, or None if there is none that can be read."""
        path = self.path(repo, commit)
        try:
            facts = path.stat()
            stamp = _stamp(facts)
            with self._lock:
                recent = self._recent.get(path)
            if recent is not None and recent[0] == stamp:
                return recent[1]
            manifest = Manifest.from_json(read_own(path))
        except (OSError, CorruptData):
            return self._load_proof(repo, commit)
        if (manifest.repo, manifest.commit) != (repo, commit):
            return self._load_proof(repo, commit)
        self._keep(path, stamp, manifest)
        return manifest

    def listed(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """A manifest made of the list that the Hub client keeps in `trees/`; None without one of this user or root.

        It has no proof, no git modes and no pointers. It is for adds on this machine: it is not kept, and no peer gets
        it.
        """
        for cache in self._caches:
            try:
                tree = parse_tree(read_own(layout.tree_path(cache, repo, commit)))
            except OSError:
                continue
            if tree is not None:
                files = (ManifestFile(path, size, digest) for path, (digest, size) in sorted(tree.items()))
                return Manifest(repo, commit, tuple(files))
        return None

    def _load_proof(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The manifest that the repo's folder in a cache proves. It is kept in the home, so that it is proved once.

        A copy of the cache, made on another machine, may have brought it.
        """
        for cache in self._caches:
            with contextlib.suppress(CorruptData):
                manifest = read_proof(cache, repo, commit)
                if manifest is not None:
                    with contextlib.suppress(StorageError):
                        self._write(manifest)
                    return manifest
        return None

    def _write(self, manifest: Manifest) -> None:
        path = self.path(manifest.repo, manifest.commit)
        facts = write_file(path, manifest.json_parts())
        self._keep(path, _stamp(facts), manifest)

    def _keep(self, path: Path, stamp: tuple[int, int], manifest: Manifest) -> None:
        with self._lock:
            self._recent.put(path, (stamp, manifest))

    def remove(self, repo: RepoId, commit: Commit) -> None:
        """Removes a manifest from the home, and its proof from the repo's folder."""
        remove_proof(self._cache, repo, commit)
        path = self.path(repo, commit)
        with self._lock:
            self._recent.drop(path)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _stamp(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_mtime_ns, facts.st_ino
