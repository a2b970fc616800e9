"""The commits that this node or a peer published on the LAN, and the refs that this node gave them: `published.json`
in the home.

The file is the only copy. Without it, a ref of this node would count as an answer of a hub. It is read again after
another process has changed it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.os_errors import MOVES_HOME, translated
from hfpeer.cache.snapshots import write_file
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.system.ownership import read_own


@dataclass(frozen=True)
class Publication:
    """A commit that the node named `by` made of a folder. `at` is when it was published here, or came from the peer, in
    seconds since the epoch; `refs` are the names that this node gave it. `source` are the commits whose files a
    prepared set or a conversion was made of, as `datasets/ORG/NAME@COMMIT` between blanks, with an empty COMMIT if it
    is not known; it is empty for any other folder."""

    by: str
    is_own: bool
    at: float
    refs: tuple[str, ...] = ()
    source: str = ""


class Publications:
    """The published commits, by repo. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Publication]] = {}
        self._stamp: tuple[int, int] | None = None

    def of(self, repo: RepoId) -> dict[Commit, Publication]:
        """The published commits of a repo."""
        with self._lock:
            return {Commit(commit): found for commit, found in self._load().get(repo.folder, {}).items()}

    def is_own(self, repo: RepoId, commit: Commit) -> bool:
        """Whether this node published a commit."""
        found = self.of(repo).get(commit)
        return found is not None and found.is_own

    def ref(self, repo: RepoId, revision: Revision) -> tuple[Commit, Publication] | None:
        """The commit that this node published under that name, or None."""
        named = [(commit, found) for commit, found in self.of(repo).items() if revision in found.refs]
        return named[0] if named else None

    def note(self, repo: RepoId, commit: Commit, by: str, *, is_own: bool, source: str = "") -> None:
        """Marks a commit as published by this node, or by the peer named `by`. The first mark of this node stays, but
        for its `source`."""
        with self._lock:
            known = {folder: dict(found) for folder, found in self._load().items()}
            commits = known.setdefault(repo.folder, {})
            if commit not in commits or (is_own and not commits[commit].is_own):
                commits[commit] = Publication(by, is_own, at=time.time(), source=source)
                self._write(known)
            elif is_own and source != commits[commit].source:
                commits[commit] = replace(commits[commit], source=source)
                self._write(known)

    def name(self, repo: RepoId, revision: Revision, commit: Commit) -> None:
        """Gives a commit of this node a name, which its commit before loses."""
        with self._lock:
            known = {folder: dict(found) for folder, found in self._load().items()}
            commits = known.setdefault(repo.folder, {})
            for other, found in commits.items():
                commits[other] = replace(found, refs=tuple(name for name in found.refs if name != revision))
            if commit in commits:
                commits[commit] = replace(commits[commit], at=time.time(), refs=(*commits[commit].refs, revision))
            self._write(known)

    def forget(self, repo: RepoId, commits: Iterable[str]) -> None:
        """Removes the marks of commits that were removed from the cache."""
        with self._lock:
            known = {folder: dict(found) for folder, found in self._load().items()}
            here = known.get(repo.folder, {})
            gone = [commit for commit in commits if here.pop(commit, None) is not None]
            if gone:
                self._write(known)

    def _write(self, known: dict[str, dict[str, Publication]]) -> None:
        document = {
            folder: {commit: asdict(found) for commit, found in commits.items()}
            for folder, commits in known.items()
            if commits
        }
        write_file(self._path, json.dumps(document, indent=1, sort_keys=True), 0o600, is_synced=True)
        self._known, self._stamp = known, None

    def _load(self) -> dict[str, dict[str, Publication]]:
        with translated("read the list of publications", self._path, elsewhere=MOVES_HOME):
            try:
                facts = self._path.stat()
            except FileNotFoundError:
                self._known, self._stamp = {}, None
                return self._known
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if stamp != self._stamp:
                self._known, self._stamp = _parse(read_own(self._path)), stamp
        return self._known


def _parse(text: bytes) -> dict[str, dict[str, Publication]]:
    """The publications in the file. Entries that cannot be read are left out, which shares nothing more."""
    known: dict[str, dict[str, Publication]] = {}
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        document: dict[str, dict[str, Any]] = json.loads(text)
        for folder, commits in document.items():
            for commit, said in commits.items():
                with contextlib.suppress(InvalidName, KeyError, TypeError, ValueError):
                    found = Publication(
                        str(said["by"]),
                        said["is_own"] is True,
                        float(said["at"]),
                        tuple(map(str, said["refs"])),
                        str(said.get("source", "")),
                    )
                    known.setdefault(folder, {})[Commit.parse(commit)] = found
    return known
