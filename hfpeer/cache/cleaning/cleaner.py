"""The cleaning of a cache: its report, the facts for a plan, and a plan carried out.

The order of removal is that of `removal`: after a kill at any moment no repo looks complete that is not, and the same
command goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.cache.cleaning.facts import (
    MANIFEST,
    PACK,
    TEMPORARY,
    CacheReport,
    Kept,
    Leftover,
    RevisionKey,
    Step,
)
from hfpeer.cache.cleaning.garbage import Garbage
from hfpeer.cache.cleaning.planning.plan import Facts, FileStep, Plan, file_id, key_of, repo_of, revision_id, steps_of
from hfpeer.cache.cleaning.report import make_report
from hfpeer.cache.cleaning.survey.known_lists import KnownLists
from hfpeer.cache.cleaning.survey.repo_folder import leftover
from hfpeer.cache.cleaning.survey.survey import Survey, look_at
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import opened
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.revisions import CachedRevisions
from hfpeer.cache.owner.pins import Pin
from hfpeer.cache.partial.files import partial_folders
from hfpeer.cache.records import Removed
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.system.cancellation import check_stop

Remove = Callable[[RepoId, "Sequence[Commit] | None", Iterable[FilePath]], Removed]


@dataclass(frozen=True)
class Cleaned:
    """The steps that were done, and the things that stayed although they were to go. `left` are paths that no Hub
    client made."""

    steps: tuple[Step, ...]
    kept: tuple[Kept, ...]
    freed_bytes: int
    left: tuple[str, ...]


class Cleaner:
    """Works on `cache` and on hfpeer's `home`. Blocking; `remove` removes a repo, revisions or files."""

    def __init__(
        self,
        cache: Path,
        home: Path,
        catalog: Catalog,
        manifests: Manifests,
        revisions: CachedRevisions,
        remove: Remove,
    ) -> None:
        self._cache = cache
        self._home = home
        self._catalog = catalog
        self._manifests = manifests
        self._revisions = revisions
        self._remove = remove

    def report(self, beside: Sequence[tuple[str, Path]] = ()) -> CacheReport:
        """All that lies in the cache, and its space; `beside` are other folders to count, with names. Raises
        Stopped."""
        return make_report(self._cache, self._home, beside, self._survey(), self._revisions.in_first())

    def facts(self, in_use: Collection[str] = (), busy: Collection[str] = (), pins: Collection[Pin] = ()) -> Facts:
        """The facts that a plan is made from. Raises Stopped."""
        survey = self._survey()
        report = make_report(self._cache, self._home, (), survey, self._revisions.in_first())
        own = self._own_leftovers({key_of(one) for one in report.revisions}, survey)
        elsewhere = self._catalog.digests_elsewhere()
        leftovers = (*survey.leftovers, *own)
        pinned = {
            key_of(one)
            for one in report.revisions
            if any(pin.fits(repo_of(one), one.revision.commit, one.revision.refs) for pin in pins)
        }
        return Facts(report.revisions, survey.blobs, leftovers, time.time(), in_use, busy, elsewhere, pinned)

    def only_elsewhere(self, repo: RepoId) -> list[str]:
        """The cache folders that are only read and have a repo that the first one does not have."""
        caches = {row.cache for row in self._catalog.revisions(repo.folder)}
        return [] if str(self._cache) in caches else sorted(caches)

    def files(self, key: RevisionKey, paths: Iterable[FilePath]) -> list[FileStep]:
        """Those of these files that a revision has here."""
        here = {row.path: row for row in self._catalog.files(*key, str(self._cache))}
        return [
            FileStep(key, path, here[path].digest or "", here[path].size_bytes)
            for path in dict.fromkeys(paths)
            if path in here
        ]

    def carry_out(self, plan: Plan, facts: Facts) -> Cleaned:
        """Removes what a plan says, revisions first. Raises BrokenCache; Stopped ends it between two steps."""
        freed: dict[str, int] = {}
        kept: list[Kept] = []
        left: list[str] = []
        for removed, ids in self._removals(plan):
            left += removed.left
            kept += [
                Kept(path, "blob", Path(path).name[:12], _size(path), "locked", "a process works on it")
                for path in removed.busy
            ]
            freed.update(dict.fromkeys(ids, 0))
            freed[ids[0]] = removed.freed_bytes
        garbage = Garbage(self._cache, self._home, self._catalog)
        garbage.remove([one for one in plan.leftovers if os.path.lexists(one.path)])
        for folder, commit in sorted(plan.remnants):
            left += self._remove(RepoId.from_folder(folder), [Commit(commit)], ()).left
        # What a whole repo took along went too.
        gone = {one.path for one in plan.leftovers if not os.path.lexists(one.path)}
        freed.update(dict.fromkeys(gone, 0))
        freed.update(garbage.freed)
        steps = [step for step in steps_of(plan, facts) if step.id in freed]
        return Cleaned(tuple(steps), (*kept, *garbage.kept), sum(freed.values()), tuple(left))

    def collect_catalog(self, *, is_dry_run: bool) -> Step | None:
        """Drops entries of the catalog on blobs that are not here; None if there are none."""
        etags = {path.name.partition(".")[0] for path in partial_folders(self._cache)}
        keep = [str(Digest.from_etag(etag)) for etag in etags if len(etag) in (40, 64)]
        entries = self._catalog.collect(keep, is_dry_run=is_dry_run)
        if not entries:
            return None
        return Step("catalog", "catalog", f"{entries:,} records of fetches", 0, "their blobs are not here")

    def _survey(self) -> Survey:
        with translated("look at the cache", self._cache):
            lists = KnownLists(self._cache, self._manifests)
            return look_at(self._cache, self._catalog.digests_in_snapshots(), lists)

    def _removals(self, plan: Plan) -> Iterable[tuple[Removed, list[str]]]:
        """Carries out the steps on revisions and files, those of a repo together; each with its ids."""
        commits: dict[str, list[Commit]] = {folder: [] for folder in sorted(plan.whole_repos)}
        for folder, commit in plan.revisions:
            commits.setdefault(folder, []).append(Commit(commit))
        for folder, found in commits.items():
            check_stop()
            repo = RepoId.from_folder(folder)
            ids = [revision_id((folder, commit)) for commit in found]
            if found:
                yield self._remove(repo, found, ()), ids
            if folder in plan.whole_repos and not self._has_snapshots(repo):
                yield self._remove(repo, None, ()), [folder]
        files: dict[RevisionKey, list[FileStep]] = {}
        for one in plan.files:
            files.setdefault(one.key, []).append(one)
        for (folder, commit), steps in files.items():
            check_stop()
            paths = [FilePath(one.path) for one in steps]
            yield self._remove(RepoId.from_folder(folder), [Commit(commit)], paths), list(map(file_id, steps))

    def _has_snapshots(self, repo: RepoId) -> bool:
        """Whether a revision has come since the plan was made, in a folder that this user may enter. Empty folders are
        what an interrupted removal has left."""
        try:
            with opened(self._cache, layout.snapshots_folder(self._cache, repo)) as folder:
                return any(names for _, _, names in os.walk(folder))
        except (OSError, BrokenCache):
            return False

    def _own_leftovers(self, here: Collection[RevisionKey], survey: Survey) -> list[Leftover]:
        """Lists of commits that are not in the cache and that nothing there is of, recorded clones, and temporary files
        in hfpeer's home."""
        wanted = {one.wanted_by for one in survey.leftovers} | {""}
        partial = {one.repo for one in survey.leftovers if one.kind == "partial"}
        found = []
        for path in self._home.glob("manifests/*--*/*.json"):
            repo = _repo(path.parent.name)
            if repo is None or (path.parent.name, path.stem) in here or path.stem in wanted or str(repo) in partial:
                continue
            found += self._own(MANIFEST, path, str(repo))
        for path in (*self._home.glob("packs/*--*/*.pack"), *self._home.glob("packs/*--*/*.json")):
            found += self._own(PACK, path, str(_repo(path.parent.name) or ""))
        for path in (*self._home.glob("*/*--*/*.incomplete"), *self._home.glob("*.incomplete")):
            found += self._own(TEMPORARY, path, "")
        return found

    def _own(self, kind: str, path: Path, repo: str) -> list[Leftover]:
        with contextlib.suppress(OSError):
            facts = path.lstat()
            # A clone that is sent again gets a new mtime; its ctime says when it was moved.
            return [replace(leftover(kind, str(path), facts, repo=repo), changed_at=facts.st_mtime)]
        return []


def _repo(folder: str) -> RepoId | None:
    try:
        return RepoId.from_folder(folder)
    except InvalidName:
        return None


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
