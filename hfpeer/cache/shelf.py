"""The cached revisions as people and peers see them. It only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hfpeer.cache import layout
from hfpeer.cache.catalog import Catalog, RevisionRow
from hfpeer.cache.manifests import Manifests
from hfpeer.cache.records import CachedFile, CachedRevision
from hfpeer.cache.scan import listing
from hfpeer.cache.sharing import Sharing
from hfpeer.names import Commit, RepoId, Visibility


class Shelf:
    """The revisions of `cache`. Thread-safe."""

    def __init__(self, cache: Path, catalog: Catalog, manifests: Manifests, sharing: Sharing) -> None:
        self._cache = cache
        self._catalog = catalog
        self._manifests = manifests
        self._sharing = sharing

    def revisions(self, repo: RepoId | None = None) -> list[CachedRevision]:
        """The revisions of a repo or of all, most recently used first, without their listings."""
        folder = None if repo is None else repo.folder
        refs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for ref in self._catalog.refs(folder):
            refs[ref.repo, ref.commit].append(ref.name)
        visibilities = {folder: visibility for folder, (visibility, _) in self._catalog.repos().items()}
        return [
            self._to_revision(row, refs[row.repo, row.commit], Visibility(visibilities.get(row.repo) or "unknown"))
            for row in self._catalog.revisions(folder)
        ]

    def revision(self, repo: RepoId, commit: Commit) -> CachedRevision | None:
        """One revision with its listing: all files of the commit if that is known, else those that are here."""
        found = next((one for one in self.revisions(repo) if one.commit == commit), None)
        return None if found is None else replace(found, listing=self._listing(repo, commit))

    def visibility(self, repo: RepoId) -> Visibility:
        """Who may see the repo at its hub, as far as anybody was asked."""
        known = self._catalog.visibility(repo.folder)
        return Visibility.UNKNOWN if known is None else Visibility(known[0])

    def _listing(self, repo: RepoId, commit: Commit) -> tuple[CachedFile, ...]:
        here = {row.path: row for row in self._catalog.files(repo.folder, commit)}
        files = [CachedFile(row.path, row.size_bytes, row.digest or "", True) for row in here.values()]
        known, _ = listing(self._cache, self._manifests, repo, commit)
        for path, (digest, size_bytes) in (known or {}).items():
            if path not in here:
                files.append(CachedFile(path, size_bytes, str(digest), False))
        return tuple(sorted(files, key=lambda file: file.path))

    def _to_revision(self, row: RevisionRow, refs: Sequence[str], visibility: Visibility) -> CachedRevision:
        repo = RepoId.from_folder(row.repo)
        override = self._sharing.override(repo)
        return CachedRevision(
            repo=repo.full_name,
            type=repo.type.value,
            commit=row.commit,
            refs=tuple(refs),
            files=row.files,
            size_bytes=row.size_bytes,
            is_complete=row.is_complete,
            is_proved=row.is_proved,
            visibility=visibility.value,
            is_shared=visibility is Visibility.PUBLIC if override is None else override,
            used_at=row.used_at,
            snapshot=str(layout.snapshot_path(self._cache, repo, Commit(row.commit))),
        )
