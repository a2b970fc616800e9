"""Removes leftovers: each only if it is still what the survey saw, and only while no process uses it.

Every kind goes by its own rule. No link is followed, and a file of another tool goes only when its lock is free and no
process has it open for writing. Each step is one unlink, so a kill between two leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from hfpeer.cache.cleaning.facts import (
    DANGLING_REF,
    EMPTY,
    LOCK,
    LOST,
    ORPHAN,
    PARTIAL,
    SHARED_BLOB,
    UNFINISHED,
    Kept,
    Leftover,
)
from hfpeer.cache.cleaning.leftovers import remove_partial
from hfpeer.cache.cleaning.planning.plan import DAY_SECONDS, kept_leftover
from hfpeer.cache.cleaning.removal import is_being_written, remove_orphans
from hfpeer.cache.cleaning.survey import shared_store
from hfpeer.cache.cleaning.survey.repo_folder import stamp_of
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.directories import open_file, opened
from hfpeer.cache.disk.locks import names, take_flock
from hfpeer.cache.disk.writers import is_open_for_writing
from hfpeer.cache.index.catalog import Catalog
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import Commit, RepoId
from hfpeer.system.cancellation import check_stop

CHANGED = ("changed", "it is not what it was when it was listed")
LOCKED = ("locked", "a process holds its lock")
WRITTEN = ("locked", "a process writes it now")


class Garbage:
    """The leftovers of `cache` and of hfpeer's `home`. Blocking, for one thread at a time."""

    def __init__(self, cache: Path, home: Path, catalog: Catalog) -> None:
        self._cache = cache
        self._home = home
        self._catalog = catalog
        self.freed: dict[str, int] = {}
        """By path of each leftover that went: the bytes that it freed."""
        self.kept: list[Kept] = []

    def remove(self, leftovers: Sequence[Leftover]) -> None:
        """Removes leftovers, empty folders last. Raises Stopped; the rest then stays."""
        orphans: dict[str, list[Leftover]] = defaultdict(list)
        for one in sorted(leftovers, key=lambda one: one.kind == EMPTY):
            check_stop()
            if one.kind in (ORPHAN, LOST):
                orphans[Path(one.path).parent.parent.name].append(one)
            elif one.kind != EMPTY:
                self._remove(one)
        for folder, found in orphans.items():
            self._remove_orphans(RepoId.from_folder(folder), found)
        for one in leftovers:
            self._clear_folders(Path(one.path), is_itself=one.kind == EMPTY)

    def _remove(self, one: Leftover) -> None:
        rule: Callable[[Leftover], tuple[str, str] | None] = {
            PARTIAL: self._remove_partial,
            SHARED_BLOB: self._remove_shared,
            UNFINISHED: self._remove_unfinished,
            LOCK: self._remove_lock,
            DANGLING_REF: self._remove_ref,
        }.get(one.kind, self._remove_file)
        try:
            reason = rule(one)
        except (OSError, BrokenCache) as error:
            reason = ("locked", getattr(error, "strerror", None) or str(error))
        except Locked:
            reason = LOCKED
        if reason is None:
            self.freed.setdefault(one.path, one.disk_bytes)
        else:
            self.kept.append(kept_leftover(one, *reason))

    # By kind: None if it went, else why it stays

    def _remove_partial(self, one: Leftover) -> tuple[str, str] | None:
        self.freed[one.path] = remove_partial(self._cache, Path(one.path), one.stamp)
        return None if self.freed[one.path] or not Path(one.path).exists() else self._stays(one, CHANGED)

    def _stays(self, one: Leftover, reason: tuple[str, str]) -> tuple[str, str]:
        self.freed.pop(one.path, None)
        return reason

    def _remove_shared(self, one: Leftover) -> tuple[str, str] | None:
        freed_bytes = shared_store.sweep(self._cache, Path(one.path))
        if freed_bytes is None:
            return LOCKED
        self.freed[one.path] = freed_bytes
        return None

    def _remove_unfinished(self, one: Leftover) -> tuple[str, str] | None:
        path = Path(one.path)
        repo = RepoId.from_folder(path.relative_to(self._cache).parts[0])
        if is_being_written(self._cache, repo, path):
            return WRITTEN
        with opened(self._cache, path.parent) as folder:
            fd = open_file(folder / path.name, os.O_RDONLY, is_written=False)
            try:
                facts = os.fstat(fd)
                if stamp_of(facts) != one.stamp:
                    return CHANGED
                # Where the system cannot tell who writes, only time can.
                if is_open_for_writing(fd) is None and time.time() - facts.st_mtime < DAY_SECONDS:
                    return ("young", "it changed today, and this volume does not tell whether a process writes it")
                (folder / path.name).unlink()
            finally:
                os.close(fd)
        return None

    def _remove_lock(self, one: Leftover) -> tuple[str, str] | None:
        """A lock file goes while this process holds it, so that no other one does."""
        path = Path(one.path)
        with opened(self._cache, path.parent) as folder:
            fd = open_file(folder / path.name, os.O_RDWR, is_written=False)
            try:
                if not take_flock(fd):
                    return LOCKED
                if not names(folder / path.name, fd):
                    return CHANGED
                (folder / path.name).unlink()
            finally:
                os.close(fd)
        return None

    def _remove_ref(self, one: Leftover) -> tuple[str, str] | None:
        repo = RepoId.from_folder(Path(one.path).relative_to(self._cache).parts[0])
        snapshot = layout.snapshot_path(self._cache, repo, Commit.parse(one.wanted_by))
        with contextlib.suppress(OSError):
            if any(snapshot.iterdir()):
                return CHANGED
        return self._remove_file(one)

    def _remove_file(self, one: Leftover) -> tuple[str, str] | None:
        path = Path(one.path)
        root = self._cache if path.is_relative_to(self._cache) else self._home
        with opened(root, path.parent) as folder:
            facts = (folder / path.name).lstat()
            if stat.S_ISDIR(facts.st_mode) or stamp_of(facts) != one.stamp:
                return CHANGED
            (folder / path.name).unlink()
        return None

    def _remove_orphans(self, repo: RepoId, found: Sequence[Leftover]) -> None:
        """Under the Hub client's lock on each blob, and only while no link leads to it."""
        removed = remove_orphans(self._cache, self._catalog, repo, {Path(one.path).name for one in found})
        for one in found:
            if not os.path.lexists(one.path):
                self.freed[one.path] = one.disk_bytes
            else:
                self.kept.append(kept_leftover(one, *(LOCKED if one.path in removed.busy else CHANGED)))

    def _clear_folders(self, path: Path, *, is_itself: bool) -> None:
        """Removes the folder at `path`, if it is a leftover itself, and those around it that are empty now, but neither
        the cache nor the folder of its locks."""
        stays = {self._cache, self._home, self._cache / layout.LOCKS, self._cache / shared_store.FOLDER}
        for folder in (path, *path.parents) if is_itself else path.parents:
            if folder in stays or not folder.is_relative_to(self._cache):
                break
            try:
                with opened(self._cache, folder.parent) as around:
                    (around / folder.name).rmdir()
            except (OSError, BrokenCache):
                break
        if is_itself and not path.exists():
            self.freed[str(path)] = 0
