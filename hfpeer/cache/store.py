"""The cache as the node and its transfers see it: its parts, and what changes several of them at once.

Callers use the part that they need: `inventory` finds and verifies blobs, `ingester` puts verified bytes in, `refs`
knows their commits, `revisions` lists the cached ones, `shared` decides what peers may have, `adopted` knows files of
other tools. A change of manifests, overrides or publications goes through the methods of Store, because peers must hear
of it.

Every method blocks and may be called from any thread. Only bytes that the caller or `inventory.verify` has verified
become visible or are given to peers. Where the disk and the catalog differ, the disk is right.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.cache.adopted import AdoptedFiles
from hfpeer.cache.cleaning import removal
from hfpeer.cache.cleaning.cleaner import Cleaner
from hfpeer.cache.cleaning.leftovers import Leftovers
from hfpeer.cache.cleaning.readers import Readers
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.commits.publications import Publications
from hfpeer.cache.disk import layout, mounts
from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.disk.kinds import repos_in
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.adopted import AdoptedTable
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.history import History
from hfpeer.cache.index.inventory import Inventory
from hfpeer.cache.index.refs import Refs
from hfpeer.cache.index.revisions import CachedRevisions
from hfpeer.cache.index.scan.counting import listing, sum_up
from hfpeer.cache.index.scan.scanner import Scanner, ScanResult, added
from hfpeer.cache.index.shared_blobs import SharedBlobs
from hfpeer.cache.index.traffic import Traffic
from hfpeer.cache.ingest import Ingester
from hfpeer.cache.owner.overrides import Overrides
from hfpeer.cache.owner.pins import Pins
from hfpeer.cache.partial import blob as partial_blob
from hfpeer.cache.partial.files import partials_bytes
from hfpeer.cache.records import Provenance, Removed
from hfpeer.errors import BrokenCache, StorageError
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.trust.visibility import Fact, after

if TYPE_CHECKING:
    from hfpeer.cache.verify.checking import Progress
    from hfpeer.cache.verify.findings import VerifyReport
    from hfpeer.cache.verify.verification import Examined

AN_OLDER_ONE = "an older version"
"""The publisher's name of a commit that an older version of this node published: it did not record its name."""


class Store:
    """The cache at `cache`, and what hfpeer knows about it, below `home`. From the cache folders `others` it only
    reads."""

    def __init__(
        self,
        cache: Path,
        home: Path,
        others: Sequence[Path] = (),
        *,
        makes_cache: bool = True,
        makes_links: bool = True,
    ) -> None:
        """Without `makes_cache` a cache that is not there is an error of every operation that needs it. Without
        `makes_links` the files of snapshots are regular files."""
        self.cache = cache
        self.home = home
        self.caches = Caches(cache, others)
        self._makes_cache = makes_cache
        self.passed_over: tuple[str, ...] = ()
        """Sentences on the repos that this user may not read, as the last scan found them."""
        self._catalog = Catalog(home / "catalog.sqlite", self.caches)
        self.manifests = Manifests(home / "manifests", cache, self.caches.others)
        self.overrides = Overrides(home / "shares.json")
        self.publications = Publications(home / "published.json")
        self.pins = Pins(home)
        self.inventory = Inventory(self.caches, self._catalog)
        self.shared = SharedBlobs(self._catalog, self.inventory, self.manifests, self.overrides, self.publications)
        self.revisions = CachedRevisions(self.caches, self._catalog, self.manifests, self.shared, self.publications)
        self.refs = Refs(self.caches, self._catalog, self.publications)
        self.readers = Readers()
        self.traffic = Traffic(self._catalog.database)
        self.history = History(self._catalog)
        self.adopted = AdoptedFiles(AdoptedTable(self._catalog.database), self.inventory, self.history)
        self.leftovers = Leftovers(cache, home / "leftovers.json")
        self.ingester = Ingester(
            cache, self._catalog, self.manifests, self.inventory, self.traffic, makes_links=makes_links
        )
        self.cleaner = Cleaner(cache, home, self._catalog, self.manifests, self.revisions, self.remove_revisions)
        self._removals = _Removals()

    def close(self) -> None:
        """Writes the counts of bytes and closes the catalog. Open partials stay open."""
        self.traffic.flush()
        self.note_uses()
        self._catalog.close()

    @property
    def generation(self) -> int:
        """Grows with every change that peers should hear of, also over restarts."""
        return self._catalog.generation

    def open_partial(self, digest: Digest, size_bytes: int) -> partial_blob.PartialBlob:
        """Opens the partial of a blob for writing; see `partial.blob.open_partial`. Raises Locked, NoSpace,
        BrokenCache."""
        return partial_blob.open_partial(self.cache, digest, size_bytes)

    def snapshot_path(self, repo: RepoId, commit: Commit) -> Path:
        """The folder of a snapshot, whether it is there or not."""
        return layout.snapshot_path(self.cache, repo, commit)

    def snapshot_file(self, repo: RepoId, commit: Commit, path: FilePath) -> Path | None:
        """A file of a snapshot, if it is there, in any cache folder."""
        places = (layout.snapshot_file(cache, repo, commit, path) for cache in self.caches.present)
        return next((place for place in places if place.is_file()), None)

    def in_no_other(self, repo: RepoId, commit: Commit, digests: Collection[Digest]) -> set[Digest]:
        """Those of these blobs that no revision but this one has."""
        others = self._catalog.in_other_revisions(repo.folder, commit, map(str, digests))
        return {digest for digest in digests if str(digest) not in others}

    # Manifests

    def save_manifest(self, manifest: Manifest, *, is_of_origin: bool = False, is_given: bool = False) -> None:
        """Keeps a manifest. One without a proof never replaces one with a proof, nor one of an origin (`is_of_origin`).
        `is_given`: a peer, or a mirror that saw no token, gave it openly."""
        if is_given:
            self._catalog.facts.note_given_listing(manifest.repo.folder, manifest.commit)
        if manifest.is_attested:
            place = manifest.repo.folder, manifest.commit
            if is_of_origin:
                self._catalog.facts.note_listed(*place)
            elif self._catalog.facts.is_listed(*place) and self.manifests.load(manifest.repo, manifest.commit):
                return
        self.manifests.save(manifest)
        rows = self._catalog.revisions(manifest.repo.folder, manifest.commit)
        for row in rows:
            if row.cache == str(self.cache):
                write_proof(self.cache, manifest)
            sum_up(Path(row.cache), self._catalog, self.manifests, manifest.repo, manifest.commit)
        if rows:
            self._catalog.bump()

    def forget_manifest(self, repo: RepoId, commit: Commit) -> None:
        """Removes a manifest that turned out to be wrong."""
        self.manifests.remove(repo, commit)
        self._catalog.facts.drop_listed(repo.folder, commit)
        self._catalog.bump()

    def remove(self, repo: RepoId, commit: Commit | None = None, files: Iterable[FilePath] = ()) -> Removed:
        """Removes a repo, a revision or files of a revision from the first cache folder, and the blobs that nothing
        else in it needs.

        What is not there is no error: the result counts what was removed. Raises BrokenCache.
        """
        return self.remove_revisions(repo, None if commit is None else [commit], files)

    def remove_revisions(
        self, repo: RepoId, commits: Sequence[Commit] | None, files: Iterable[FilePath] = ()
    ) -> Removed:
        """The same for several revisions of a repo together, which is faster; all of it without any."""
        wanted = frozenset(files)
        self._removals.count()
        whole = [] if wanted else commits or []
        listed = frozenset(name for commit in whole for name in self._listed(repo, commit))
        removed = removal.remove(self.cache, self._catalog, repo, commits, wanted, listed)
        self._removals.count()
        gone = set(removed.commits)
        gone.update(str(one) for one in commits or () if not self.snapshot_path(repo, one).exists())
        others = [row for row in self._catalog.revisions(repo.folder) if commits is None or row.commit in commits]
        gone -= {row.commit for row in others}
        for one in gone:
            self.manifests.remove(repo, Commit(one))
        self.publications.forget(repo, gone)
        for commit in commits or () if wanted else ():
            self._sum_up(repo, commit)
        self._catalog.bump()
        return replace(removed, kept_in=tuple(sorted({row.cache for row in others if row.cache != str(self.cache)})))

    def _listed(self, repo: RepoId, commit: Commit) -> Iterator[str]:
        """The file names of the blobs of a commit, as far as a list tells them."""
        manifest = self.manifests.load(repo, commit)
        if manifest is not None:
            return (file.digest.hex for file in manifest.files)
        return (digest.hex for digest, _ in (listing(self.cache, self.manifests, repo, commit)[0] or {}).values())

    # Sharing

    def facts(self, repo: RepoId) -> list[Fact]:
        """The facts on the visibility of a repo and its commits, as hubs told them."""
        return self._catalog.facts.by_repo(repo.folder).get(repo.folder, [])

    def learn(self, repo: RepoId, said: Iterable[Fact], hubs: Collection[str]) -> bool:
        """Keeps new facts; `hubs` are the URLs of the hubs that are configured. Returns whether more than dates
        changed."""
        is_news = False
        for fact in said:
            is_news |= self._catalog.facts.change(repo.folder, lambda known, fact=fact: after(known, fact, hubs))  # type: ignore[misc]
        if is_news:
            self._catalog.bump()
        return is_news

    def set_share(self, repo: RepoId, is_shared: bool | None) -> None:
        """Keeps the owner's override on whether peers may have the repo; None removes it."""
        if self.overrides.is_published(repo):
            for commit in self.manifests.commits(repo):
                if self.shared.is_published(repo, commit):
                    self.publications.note(repo, commit, AN_OLDER_ONE, is_own=True)
        self.overrides.set(repo, is_shared)
        self._catalog.bump()

    def note_published(self, repo: RepoId, commit: Commit, by: str, source: str = "") -> None:
        """Marks a commit as published on the LAN, and on no hub, by this node, whose name is `by`. `source` is of
        prepared sets and conversions: the commits that they were made of, as `Publication` has it."""
        self.publications.note(repo, commit, by, is_own=True, source=source)
        self._catalog.bump()

    def note_published_there(self, repo: RepoId, commit: Commit, by: str) -> None:
        """Marks a commit as published by the peer named `by`, as that peer says.

        Does nothing for a commit that a hub lists, and for one of which a file here was not given openly: a hub may
        have it, whatever the peer says. A commit that is marked stays as it is.
        """
        if commit in self.publications.of(repo):
            return
        if not self.shared.verdict(repo, commit).is_public and self.shared.is_all_given(repo, commit):
            self.publications.note(repo, commit, by, is_own=False)
            self._catalog.bump()

    def name_published(self, repo: RepoId, revision: Revision, commit: Commit) -> None:
        """Makes `revision` the name of a commit that this node published, once its snapshot is there."""
        self.publications.name(repo, revision, commit)
        self._catalog.bump()

    # Changes by other tools

    def scan(self, on_batch: Callable[[int], None] | None = None) -> ScanResult:
        """Brings the catalog up to date with what other tools put into the cache or removed. Hashes nothing.

        Cheap where no folder has changed since the last scan. `on_batch` is called with the number of files scanned.
        """
        self.traffic.flush()
        self._catalog.forget_lost_caches()
        result = self._scan("read the cache", lambda scanner: scanner.scan_all(on_batch))
        self.passed_over = result.closed
        return result

    def scan_repo(self, repo: RepoId) -> ScanResult:
        """The same for one repo: cheap enough to do before every search for missing files."""
        return self._scan("read the cache", lambda scanner: scanner.scan_one(repo))

    def scan_revisions(self, repo: RepoId) -> ScanResult:
        """The same, only if a snapshot has come or gone: enough to know which commits of a repo are here."""
        return self._scan("read the cache", lambda scanner: scanner.scan_revisions(repo))

    def scan_blobs(self, repo: RepoId | None) -> ScanResult:
        """The same for one repo or all, and looks at the size and mtime of every blob. A blob that was cut short
        changes no folder, so another scan does not notice it."""

        def look(scanner: Scanner) -> ScanResult:
            return scanner.scan_all(checks_blobs=True) if repo is None else scanner.scan_one(repo, checks_blobs=True)

        return self._scan("look at the cache", look)

    def note_uses(self) -> None:
        """Writes down which revisions were read since the last call: a cache with a budget gives up others first."""
        used = self.readers.take_used()
        with contextlib.suppress(StorageError):  # statistics, like the counts of bytes
            self._catalog.note_use(map(str, used), time.time())

    # Reports

    def verify(
        self,
        repos: Sequence[RepoId] = (),
        *,
        is_quick: bool = False,
        trusts_verdicts: bool = True,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> VerifyReport:
        """Says what is wrong in all cache folders; see `verification.examine`."""
        from hfpeer.cache.verify.findings import VerifyReport, together  # an add does not need these

        how: dict[str, Any] = {
            "is_quick": is_quick,
            "trusts_verdicts": trusts_verdicts,
            "on_progress": on_progress,
        }
        in_first = self.not_elsewhere(repos)
        if repos and not in_first:
            first = VerifyReport(str(self.cache), is_quick, (), ())
        else:
            first = self.examine(in_first, **how).report
        return together(first, self.verify_others(repos, **how))

    def not_elsewhere(self, repos: Sequence[RepoId]) -> list[RepoId]:
        """These repos, without those that are in other cache folders only."""
        self.caches.look()
        in_others = {repo for cache in self.caches.present[1:] for repo in repos_in(cache)} if repos else set()
        in_first = repos_in(self.cache) if in_others else []
        return [repo for repo in repos if repo not in in_others or repo in in_first]

    def verify_others(
        self,
        repos: Sequence[RepoId] = (),
        *,
        is_quick: bool = False,
        trusts_verdicts: bool = True,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> list[VerifyReport]:
        """Says what is wrong in the cache folders that are only read: a report on each that has one of `repos`, and on
        each that is away."""
        from hfpeer.cache.verify.findings import CheckedFolder, VerifyReport, elsewhere  # an add does not need these
        from hfpeer.cache.verify.verification import examine

        self.caches.look()
        reports = []
        for cache in self.caches.present[1:]:
            wanted = [repo for repo in repos if repo in repos_in(cache)]
            if repos and not wanted:
                continue
            examined = examine(
                cache,
                self.manifests,
                self._catalog,
                wanted,
                is_only_read=True,
                is_quick=is_quick,
                trusts_verdicts=trusts_verdicts,
                on_progress=on_progress,
            )
            reports.append(elsewhere(examined.report))
        for away, reason in self.caches.away.items():
            passed_over = (CheckedFolder(str(away), away=reason),)
            reports.append(VerifyReport(str(away), is_quick, (), (), folders=passed_over))
        return reports

    def examine(
        self,
        repos: Sequence[RepoId] = (),
        *,
        is_quick: bool = False,
        trusts_verdicts: bool = True,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Examined:
        """Says what is wrong in the first cache folder; see `verification.examine`."""
        from hfpeer.cache.verify.verification import examine  # an add does not need it

        return examine(
            self.cache,
            self.manifests,
            self._catalog,
            repos,
            is_quick=is_quick,
            trusts_verdicts=trusts_verdicts,
            on_progress=on_progress,
        )

    def provenance(self, repo: RepoId, commit: Commit, paths: Iterable[FilePath] = ()) -> list[Provenance]:
        """Where the files of a revision come from, with `paths` only those; empty if the revision is not here."""
        revision = self.revisions.find(repo, commit)
        if revision is None:
            return []
        return self.history.of(revision, paths, lambda: self.shared.is_published(repo, commit))

    def known_bytes(self) -> int:
        """The size of the first cache folder as the catalog knows it, with the space of partials. Scans nothing."""
        return self._catalog.size_bytes(str(self.cache)) + partials_bytes(self.cache)

    def totals(self) -> dict[str, Any]:
        """`revisions`, `files`, `size_bytes`, `unverified_files`, and the keys of `Traffic.totals`."""
        names = ("revisions", "files", "size_bytes", "unverified_files")
        return {**dict(zip(names, self._catalog.totals(), strict=True)), **self.traffic.totals()}

    def _scan(self, doing: str, work: Callable[[Scanner], ScanResult]) -> ScanResult:
        """Scans every cache folder that is there. One that is only read, and fails, is passed over."""
        if not self._makes_cache and not self.cache.is_dir():
            raise BrokenCache(
                f"The cache folder {self.cache} is not there.",
                hint="Plug its disk in, or mount it; or `hfpeer conf cache set DIR` to keep the cache elsewhere.",
                path=str(self.cache),
            )
        mounts.forget()
        self.caches.look()
        with translated(doing, self.cache):
            result = work(self._scanner(self.cache))
        for cache in self.caches.present[1:]:
            try:
                result = added(result, work(self._scanner(cache)))
            except OSError as error:
                self.caches.pass_over(cache, f"it cannot be read: {error.strerror or error}")
        if self.caches.has_news():
            self._catalog.bump()
        return result

    def _scanner(self, cache: Path) -> Scanner:
        return Scanner(cache, self._catalog, self.manifests, lambda: self._removals.total, self.publications.is_own)

    def _sum_up(self, repo: RepoId, commit: Commit) -> None:
        sum_up(self.cache, self._catalog, self.manifests, repo, commit)


class _Removals:
    """Counts the removals of this process. A scan during which the count grows reads the repo again, so that it brings
    nothing back. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0

    def count(self) -> None:
        with self._lock:
            self.total += 1
