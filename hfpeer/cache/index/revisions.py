"""The cached revisions as users and peers see them. Only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.publications import Publications
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.scan.counting import listing
from hfpeer.cache.index.schema import RevisionRow
from hfpeer.cache.index.shared_blobs import SharedBlobs
from hfpeer.cache.records import CachedFile, CachedRevision
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId


class CachedRevisions:
    """The revisions of all `caches`, each once. Thread-safe.

    A revision in several cache folders is shown as it is in the best of them: a complete one, else the first.
    """

    def __init__(
        self, caches: Caches, catalog: Catalog, manifests: Manifests, shared: SharedBlobs, publications: Publications
    ) -> None:
        self._caches = caches
        self._catalog = catalog
        self._manifests = manifests
        self._shared = shared
        self._publications = publications

    def all(self) -> list[CachedRevision]:
        """The revisions of all repos, most recently used first, without their listings."""
        return self._read(None)

    def in_first(self) -> list[CachedRevision]:
        """The revisions in the first cache folder, as they are there."""
        return self.in_folder(self._caches.first)

    def in_folder(self, cache: Path) -> list[CachedRevision]:
        """The revisions in one cache folder, as they are there."""
        return self._read(None, str(cache))

    def listing_in(self, cache: Path, repo: RepoId, commit: Commit) -> tuple[CachedFile, ...]:
        """The files of a revision, as they are in one cache folder."""
        return self._listing(repo, commit, cache)

    def of(self, repo: RepoId) -> list[CachedRevision]:
        """The revisions of a repo, most recently used first, without their listings."""
        return self._read(repo.folder)

    def _read(self, folder: str | None, cache: str | None = None) -> list[CachedRevision]:
        refs: dict[tuple[str, str], list[str]] = defaultdict(list)
        told: dict[str, set[str]] = defaultdict(set)
        for ref in self._catalog.refs(folder):
            refs[ref.repo, ref.commit].append(ref.name)
            told[ref.repo].add(ref.name)
        rows: dict[tuple[str, str], list[RevisionRow]] = defaultdict(list)
        for row in self._catalog.revisions(folder, cache=cache):
            rows[row.repo, row.commit].append(row)
        return [self._to_revision(self._ranked(found), refs[place], told[place[0]]) for place, found in rows.items()]

    def _ranked(self, rows: Sequence[RevisionRow]) -> list[RevisionRow]:
        """The rows of one revision, the best first."""
        first = str(self._caches.first)
        return sorted(rows, key=lambda row: (row.is_complete is not True, row.cache != first, -row.files, row.cache))

    def find(self, repo: RepoId, commit: Commit) -> CachedRevision | None:
        """A revision with its listing: all files of the commit if they are known, else those that are here."""
        found = next((one for one in self.of(repo) if one.commit == commit), None)
        return None if found is None else replace(found, listing=self._listing(repo, commit, Path(found.cache)))

    def empty(self, manifest: Manifest, used_at: float) -> CachedRevision:
        """A revision of which no file is in the first cache folder."""
        place = manifest.repo.folder, manifest.commit
        row = RevisionRow(*place, 0, 0, False, not manifest.is_attested, used_at, str(self._caches.first))
        refs = [ref.name for ref in self._catalog.refs(manifest.repo.folder) if ref.commit == manifest.commit]
        return self._to_revision([row], refs, ())

    def _listing(self, repo: RepoId, commit: Commit, cache: Path) -> tuple[CachedFile, ...]:
        here = {row.path: row for row in self._catalog.files(repo.folder, commit, str(cache))}
        known, _, _ = listing(cache, self._manifests, repo, commit)
        files = {row.path: CachedFile(row.path, row.size_bytes, row.digest or "", True) for row in here.values()}
        for path, (digest, size_bytes) in (known or {}).items():
            if path not in here or here[path].size_bytes != size_bytes:
                files[path] = CachedFile(path, size_bytes, str(digest), False)
        return tuple(sorted(files.values(), key=lambda file: file.path))

    def _to_revision(self, rows: Sequence[RevisionRow], refs: Sequence[str], told: Collection[str]) -> CachedRevision:
        """`rows` are those of one revision, the best first. `told` are the refs of the repo that hubs answered. Such a
        name is not shown for a published commit."""
        row = rows[0]
        repo, commit = RepoId.from_folder(row.repo), Commit(row.commit)
        published = self._publications.of(repo).get(commit)
        if published is not None and refs and not published.is_own:
            published = None  # a hub has the commit, whatever a peer says
        said = self._shared.verdict(repo, commit)
        return CachedRevision(
            repo=repo.full_name,
            type=repo.type.value,
            commit=row.commit,
            refs=(*refs, *(name for name in (published.refs if published else ()) if name not in told)),
            files=row.files,
            size_bytes=row.size_bytes,
            is_complete=row.is_complete,
            is_proved=row.is_proved,
            visibility=self._shared.word_on(repo, commit, said),
            is_shared=self._shared.is_commit_shared(repo, commit),
            used_at=row.used_at,
            snapshot=str(layout.snapshot_path(Path(row.cache), repo, commit)),
            cache=row.cache,
            also_in=tuple(other.cache for other in rows[1:]),
            published_by=published.by if published else "",
            is_published_here=published is not None and published.is_own,
            said_by=said.said_by,
            asked_at=said.asked_at,
        )
