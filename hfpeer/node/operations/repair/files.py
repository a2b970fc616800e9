"""Mends the files of a revision: takes the missing bytes, from files of this machine first, and makes the links."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from hfpeer.cache.disk import layout
from hfpeer.cache.repair import structure
from hfpeer.cache.repair.local_copies import LocalCopies
from hfpeer.cache.repair.planning import Step
from hfpeer.cache.repair.results import FETCH, TAKE
from hfpeer.errors import HfpeerError
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.node.operations.adding.adopted import take_adopted
from hfpeer.node.operations.repair.parts import RepairParts
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.snapshot import FetchTotals, SnapshotTransfer
from hfpeer.transfer.sources.local_files import LocalFile
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.swarm.finder import PeerFinder


class FileMender:
    """The files of one repair. `totals` are what they cost until now, `failures` say why large blobs could not be
    had."""

    def __init__(self, parts: RepairParts) -> None:
        self._parts = parts
        self._store = parts.store
        self.totals = FetchTotals()
        self.failures: dict[Digest, HfpeerError] = {}

    async def mend(
        self, repo: RepoId, commit: Commit, manifest: Manifest | None, steps: Sequence[Step], copies: LocalCopies
    ) -> None:
        """Mends the files of steps of one revision. Without a commit they are blobs that no snapshot needs.

        A blob that was to be linked may turn out wrong: then nothing is fetched for it, and the next look at the cache
        finds it. Raises what stopped it; files that are whole by then are mended.
        """
        files = list({step.file.path: step.file for step in steps if step.file is not None}.values())
        if not commit:
            await in_thread(self._bring, repo, files)
            self._count_taken(steps, ())
            return
        kept = await in_thread(self._clear_way, repo, commit, steps)
        missing = await in_thread(self._missing, repo, commit, files)
        planned = {step.file.digest for step in steps if step.file is not None and step.action == FETCH}
        wrong = {file.digest for file in missing} - planned
        files = [file for file in files if file.digest not in wrong]
        missing = [file for file in missing if file.digest not in wrong]
        if missing:
            await self._parts.lan.wait_for_peers(commit)
        try:
            await self._fetch(manifest or Manifest(repo, commit, tuple(files)), files, missing, copies)
        finally:
            await in_thread(self._install, repo, commit, files, kept)
            self._count_taken(steps, wrong)

    async def _fetch(
        self,
        manifest: Manifest,
        files: Sequence[ManifestFile],
        missing: Sequence[ManifestFile],
        copies: LocalCopies,
    ) -> None:
        def find_local(blob: WantedBlob) -> list[LocalFile]:
            return [LocalFile(path, is_wrong) for path, is_wrong in copies.of(blob.digest, blob.repo)]

        lan = self._parts.lan if self._parts.trust.asks_peers else None
        finder = PeerFinder(lan, self._parts.upstreams.giving, find_local)
        transfer = SnapshotTransfer(self._store, self._parts.fetches, finder, manifest, files, self._parts.on_event)
        try:
            await transfer.run(missing)
        finally:
            self._add(transfer.totals)
            self.failures |= transfer.failures
            for name in transfer.totals.liars:
                self._parts.lan.report_liar(name)

    def _clear_way(self, repo: RepoId, commit: Commit, steps: Iterable[Step]) -> dict[Path, Digest]:
        """Blocking. The files that were kept because they may be edits, each with the digest of its right bytes."""
        cache = self._store.cache
        structure.clear_way(cache, repo, commit, [step.file for step in steps if step.file is not None])
        kept = {}
        for step in steps:
            if step.file is not None and step.finding.kind in ("wrong_bytes", "wrong_size") and step.finding.commit:
                place = layout.snapshot_file(cache, repo, commit, step.file.path)
                copy = structure.keep_edited(cache, repo, place)
                if copy is not None:
                    kept[copy] = step.file.digest
        return kept

    def _missing(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile]) -> list[ManifestFile]:
        """Blocking: the files whose bytes are not in the cache. What no verification has hashed is hashed now."""
        inventory = self._store.inventory
        inventory.verify_all(inventory.unverified_at(repo, commit, files))
        inventory.verify_all(inventory.unverified_of(files))
        missing = inventory.missing(files)
        if missing and take_adopted(self._store, repo, missing, self._parts.on_event):
            missing = inventory.missing(files)
        return missing

    def _bring(self, repo: RepoId, files: Sequence[ManifestFile]) -> None:
        """Blocking: replaces wrong blobs by right copies that are in the cache."""
        self._store.inventory.verify_all(self._store.inventory.unverified_of(files))
        for file in files:
            self._store.inventory.bring(file, repo)

    def _install(self, repo: RepoId, commit: Commit, files: Sequence[ManifestFile], kept: dict[Path, Digest]) -> None:
        """Blocking: makes the links of the files whose bytes are here."""
        absent = {file.digest for file in self._store.inventory.missing(files)}
        here = [file for file in files if file.digest not in absent]
        if here:
            self._store.ingester.install(repo, commit, here, replaces_copies=True)
        for copy, digest in kept.items():
            found = self._store.inventory.find(digest, repo)
            if found is not None:
                structure.drop_if_damaged(self._store.cache, copy, found.path)

    def _count_taken(self, steps: Iterable[Step], wrong: Collection[Digest]) -> None:
        """Counts the bytes of blobs that were elsewhere in the cache folders, without those that turned out wrong."""
        taken = {step.file.digest: step.file.size_bytes for step in steps if step.action == TAKE and step.file}
        self.totals.local_bytes += sum(size for digest, size in taken.items() if digest not in wrong)

    def _add(self, totals: FetchTotals) -> None:
        for name, size_bytes in totals.bytes_by_source.items():
            self.totals.bytes_by_source[name] = self.totals.bytes_by_source.get(name, 0) + size_bytes
        self.totals.kinds.update(totals.kinds)
        self.totals.local_bytes += totals.local_bytes
