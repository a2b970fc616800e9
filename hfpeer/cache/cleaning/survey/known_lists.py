"""The lists of commits that this node knows, asked for blobs: manifests in the home, and the lists in a repo's folder.

Only reads. A list is read only while something is asked for that no list before it had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.disk import layout
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, RepoId
from hfpeer.system.cancellation import check_stop


class KnownLists:
    """The lists of the commits of `cache`."""

    def __init__(self, cache: Path, manifests: Manifests) -> None:
        self._cache = cache
        self._manifests = manifests

    def wanting(self, repo: RepoId, etags: set[str]) -> Mapping[str, str]:
        """By etag of a blob of the repo: a commit with it in its list. Those in no list are left out."""
        found: dict[str, str] = {}
        for commit in self._commits(repo):
            if len(found) == len(etags):
                break
            check_stop()
            found.update((etag, commit) for etag in self._etags(repo, commit) & etags if etag not in found)
        return found

    def files_of(self, digests: set[str]) -> Mapping[str, tuple[str, str]]:
        """By digest: a repo with it in a manifest, and the path of the file. Those in no manifest are left out."""
        found: dict[str, tuple[str, str]] = {}
        for repo in self._manifests.repos():
            for commit in self._manifests.commits(repo):
                if len(found) == len(digests):
                    return found
                check_stop()
                manifest = self._manifests.load(repo, commit)
                for file in manifest.files if manifest else ():
                    digest = str(file.digest)
                    if digest in digests:
                        found.setdefault(digest, (str(repo), file.path))
        return found

    def _commits(self, repo: RepoId) -> Iterable[Commit]:
        """The commits of a repo with a list, the latest manifests first."""
        known = dict.fromkeys(self._manifests.commits(repo))
        folder = layout.repo_folder(self._cache, repo)
        with contextlib.suppress(OSError):
            for path in (*folder.glob("trees/*.json"), *folder.glob(f"{layout.PROOFS}/*.json")):
                with contextlib.suppress(InvalidName):
                    known.setdefault(Commit.parse(path.stem))
        return known

    def _etags(self, repo: RepoId, commit: Commit) -> set[str]:
        manifest = self._manifests.load(repo, commit)
        if manifest is not None:
            return {file.digest.hex for file in manifest.files}
        tree = snapshots.read_tree(layout.tree_path(self._cache, repo, commit))
        return {digest.hex for digest, _ in (tree or {}).values()}
