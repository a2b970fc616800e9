"""The commits of revisions: the answers of hubs, and the files in `refs/` that other tools read.

An answer of a hub is a row of the catalog. A ref file may also have an answer of peers (its mtime is TOLD_REF_AT) or a
commit that this node published; neither counts as an answer of a hub.
"""

from __future__ import annotations

import time

from hfpeer.cache import snapshots
from hfpeer.cache.commits.publications import Publications
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.scan.scanner import is_overwritten
from hfpeer.cache.index.schema import RefRow
from hfpeer.names import Commit, RepoId, Revision


class Refs:
    """The refs of all repos of all `caches`; it writes into the first only. Thread-safe. Times are seconds since the
    epoch."""

    def __init__(self, caches: Caches, catalog: Catalog, publications: Publications) -> None:
        self._caches = caches
        self._cache = caches.first
        self._catalog = catalog
        self._publications = publications

    def write(
        self, repo: RepoId, revision: Revision, commit: Commit, answered_by: str, answered_at: float | None = None
    ) -> None:
        """Keeps the answer of the hub `answered_by`, of now or of `answered_at`, and shows it to other tools. A full
        commit id needs no ref.

        Not for the answers of peers, which are not kept, and not for commits of this node, which `Publications` names.
        """
        if revision.is_commit:
            return
        self.show(repo, revision, commit)
        at = time.time() if answered_at is None else answered_at
        self._catalog.put_refs([RefRow(repo.folder, revision, commit, at, answered_by)])
        self._catalog.bump()

    def show(self, repo: RepoId, revision: Revision, commit: Commit) -> None:
        """Writes the file `refs/<revision>` for other tools, if the snapshot is there.

        Without a snapshot it writes nothing: the Hub client reports a repo with a ref to nothing as corrupt.
        """
        known = snapshots.read_ref(self._cache, repo, revision)
        is_new = known is None or known[0] != commit or known[1] == snapshots.TOLD_REF_AT
        with translated("write a ref", layout.ref_path(self._cache, repo, revision)):
            if is_new and self._has_snapshot(repo, commit):
                snapshots.write_ref(self._cache, repo, revision, commit)

    def show_answer(self, repo: RepoId, revision: Revision, commit: Commit) -> None:
        """Shows a hub's answer at the end of an add, unless a newer one has come meanwhile: an add may take days."""
        known = self.read(repo, revision)
        if known is None or known[0] == commit:
            self.show(repo, revision, commit)

    def show_told(self, repo: RepoId, revision: Revision, commit: Commit) -> None:
        """Writes the file `refs/<revision>` for the answer of peers, unless a hub or another tool has written one.

        With it an offline tool finds by its name what an add has fetched. Peers are not told of it.
        """
        known = snapshots.read_ref(self._cache, repo, revision)
        is_free = known is None or known[1] == snapshots.TOLD_REF_AT
        with translated("write a ref", layout.ref_path(self._cache, repo, revision)):
            if is_free and self._has_snapshot(repo, commit):
                snapshots.write_told_ref(self._cache, repo, revision, commit)

    def read_told(self, repo: RepoId, revision: Revision) -> Commit | None:
        """The commit that peers once told for a revision, unless a hub or another tool has written the ref since."""
        for cache in self._caches.present:
            written = snapshots.read_ref(cache, repo, revision)
            if written is not None:
                return written[0] if written[1] == snapshots.TOLD_REF_AT else None
        return None

    def read(self, repo: RepoId, revision: Revision) -> tuple[Commit, float, str] | None:
        """The last answer of a hub for a revision: commit, time, hub.

        A ref file that another tool has written since is newer and wins, as an answer of "cache"; among several cache
        folders the newest.
        """
        rows = self._catalog.refs(repo.folder, revision)
        files = [snapshots.read_ref(cache, repo, revision) for cache in self._caches.present]
        written = [
            file
            for file in files
            if file is not None and file[1] != snapshots.TOLD_REF_AT and not self._publications.is_own(repo, file[0])
        ]
        newest = max(written, key=lambda file: file[1], default=None)
        if newest is not None and (not rows or is_overwritten(rows[0], *newest)):
            return (*newest, "cache")
        return (Commit(rows[0].commit), rows[0].resolved_at, rows[0].answered_by) if rows else None

    def read_published(self, repo: RepoId, revision: Revision) -> tuple[Commit, float, str] | None:
        """The commit that this node published under a name, if its snapshot is there: commit, time, this node's
        name."""
        found = self._publications.ref(repo, revision)
        if found is None or not self._has_snapshot(repo, found[0]):
            return None
        return found[0], found[1].at, found[1].by

    def known(self, repo: RepoId) -> dict[str, Commit]:
        """By name: the commits that hubs or archives told this node, and those that it published."""
        published = {name: commit for commit, found in self._publications.of(repo).items() for name in found.refs}
        return {**published, **{row.name: Commit(row.commit) for row in self._catalog.refs(repo.folder)}}

    def _has_snapshot(self, repo: RepoId, commit: Commit) -> bool:
        return layout.snapshot_path(self._cache, repo, commit).is_dir()
