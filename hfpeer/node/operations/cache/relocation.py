"""Copies a cache into another folder, for a node that moves there: every blob is hashed on its way, refs come last.

The old folder stays as it is. Interrupted, the same copy goes on: a blob that is there is not copied again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache import snapshots
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.linking import HardLinks
from hfpeer.cache.disk.os_errors import free_of, translated
from hfpeer.cache.disk.volume import refuse_unfit, refuse_unfit_repos
from hfpeer.cache.store import Store
from hfpeer.config.settings import Settings
from hfpeer.errors import InvalidName, NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.node.operations.adding.adopted import take_from_other_caches
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent


@dataclass(frozen=True)
class CopiedCache:
    """A copy of the cache `old` in `new`. `left` are sentences on what was not copied."""

    old: str
    new: str
    revisions: int
    files: int
    size_bytes: int
    left: tuple[str, ...]


async def copy_cache(settings: Settings, new: Path, on_event: OnEvent) -> CopiedCache:
    """Copies the cache of a node to the folder `new`, which exists. Raises NotThisVolume and NoSpace before the first
    byte, and BrokenCache."""
    store = Store(new, settings.home, [settings.cache, *settings.read_caches], makes_links=settings.makes_links)
    try:
        return await in_thread(_Copy(store, settings.cache, on_event).run)
    finally:
        store.close()


class _Copy:
    def __init__(self, store: Store, old: Path, on_event: OnEvent) -> None:
        self._store, self._old, self._on_event = store, old, on_event
        self._left: list[str] = []
        self._digests: dict[Digest, int] = {}
        self._revisions = self._files = 0

    def run(self) -> CopiedCache:
        self._store.scan()
        wanted = [
            (repo, commit, self._listed(repo, commit))
            for one in self._store.revisions.in_folder(self._old)
            for repo, commit in [(RepoId.parse(one.repo, one.type), Commit.parse(one.commit))]
        ]
        refuse_unfit_repos(self._store.cache, [repo.folder for repo, _, _ in wanted])
        for _, _, files in wanted:
            refuse_unfit(self._store.cache, [(file.path, file.size_bytes) for file in files])
        self._check([file for _, _, files in wanted for file in files])
        for repo, commit, files in wanted:
            self._copy(repo, commit, files)
        for repo in dict.fromkeys(repo for repo, _, _ in wanted):
            self._copy_refs(repo)
        size_bytes = sum(self._digests.values())
        return CopiedCache(
            str(self._old), str(self._store.cache), self._revisions, self._files, size_bytes, tuple(self._left)
        )

    def _listed(self, repo: RepoId, commit: Commit) -> list[ManifestFile]:
        """The files of a snapshot whose bytes are named by a digest."""
        files = []
        for file in self._store.revisions.listing_in(self._old, repo, commit):
            if file.is_present and file.digest:
                files.append(ManifestFile(FilePath(file.path), file.size_bytes, Digest.parse(file.digest)))
            elif file.is_present:
                self._left.append(f"{file.path} of {repo} at {commit.short}: nothing tells its digest.")
        return files

    def _check(self, files: list[ManifestFile]) -> None:
        """Raises NoSpace."""
        needed = sum({file.digest: file.size_bytes for file in self._store.inventory.elsewhere(files)}.values())
        with translated("look at the folder", self._store.cache):
            is_same = _is_same_volume(self._store.cache, self._old)
            free_bytes = free_of(os.statvfs(self._store.cache))
        if free_bytes is not None and needed > free_bytes and not is_same:
            raise NoSpace(
                f"The cache needs {needed:,} bytes in {self._store.cache}, and {free_bytes:,} are free there.",
                hint="Take a larger volume, or remove what you do not need: `hfpeer cache ls` shows it.",
                needed_bytes=needed,
                free_bytes=free_bytes,
            )

    def _copy(self, repo: RepoId, commit: Commit, files: list[ManifestFile]) -> None:
        take_from_other_caches(self._store, repo, files, self._on_event, HardLinks.BLOBS)
        missing = {file.digest for file in self._store.inventory.missing(files)}
        for file in files:
            if file.digest in missing:
                self._left.append(f"{file.path} of {repo} at {commit.short}: its bytes are wrong, or cannot be read.")
        here = [file for file in files if file.digest not in missing]
        if not here:
            return
        self._store.ingester.install(repo, commit, here)
        listed = self._store.manifests.load(repo, commit) or self._store.manifests.listed(repo, commit)
        if listed is not None:
            snapshots.write_tree(self._store.cache, repo, commit, listed.files)
        self._revisions += 1
        self._files += len(here)
        self._digests.update((file.digest, file.size_bytes) for file in here)

    def _copy_refs(self, repo: RepoId) -> None:
        for name in _refs_of(self._old, repo):
            known = snapshots.read_ref(self._old, repo, name)
            if known is None or not layout.snapshot_path(self._store.cache, repo, known[0]).is_dir():
                continue
            if known[1] == snapshots.TOLD_REF_AT:
                self._store.refs.show_told(repo, name, known[0])
            else:
                self._store.refs.show(repo, name, known[0])


def _refs_of(cache: Path, repo: RepoId) -> Iterator[Revision]:
    top = layout.refs_folder(cache, repo)
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                yield Revision.parse(str((Path(folder) / name).relative_to(top)))
            except InvalidName:
                continue


def _is_same_volume(one: Path, other: Path) -> bool:
    """Whether a blob of this user can get a second name there, which takes no space."""
    return one.stat().st_dev == other.stat().st_dev
