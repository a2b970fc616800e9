"""Looks at all that lies in a cache, once: which revisions use which bytes, what belongs to none, and what it takes.

One walk of the folder, which follows no link but that in the place of a repo's folder. Reads no bytes of a blob and
changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfpeer.cache.cleaning.facts import (
    DANGLING_REF,
    EMPTY,
    LOCK,
    LOST,
    ORPHAN,
    PARTIAL,
    SHARED_BLOB,
    STALE_LIST,
    UNFINISHED,
    Leftover,
    Place,
    RepoUsage,
    RevisionKey,
    StoredBlob,
)
from hfpeer.cache.cleaning.survey.counting import BLOCK_BYTES, Counter, facts_of, with_facts
from hfpeer.cache.cleaning.survey.known_lists import KnownLists
from hfpeer.cache.cleaning.survey.repo_folder import (
    FOREIGN,
    LISTS,
    NOBODY,
    FoundBlob,
    RepoOnDisk,
    Users,
    etag_of,
    foreign_owner,
    leftover,
    read_repo_folder,
    stamp_of,
)
from hfpeer.cache.cleaning.survey.shared_store import FOLDER, SharedStore, is_shared_store, read_shared_store, unused
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.locks import is_held
from hfpeer.cache.partial import journal
from hfpeer.cache.partial.claims import is_in_use
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId

ROOT_FILES = {"CACHEDIR.TAG", "version.txt", "version_diffusers_cache.txt"}
"""Files that Hub clients write into the cache itself."""
BEHIND_LINKS = "behind links"
"""The name of the place of repos whose folder is a link, to another volume as a rule."""
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass
class Survey:
    """All that lies in a cache. `duplicate_bytes` are those of further copies of blobs of one digest."""

    places: list[Place] = field(default_factory=list)
    repos: list[RepoUsage] = field(default_factory=list)
    blobs: list[StoredBlob] = field(default_factory=list)
    read_at: dict[RevisionKey, float] = field(default_factory=dict)
    """By revision: the time at which one of its blobs was last read, as far as the volume notes it."""
    leftovers: list[Leftover] = field(default_factory=list)
    duplicates: int = 0
    duplicate_bytes: int = 0
    unreadable: list[str] = field(default_factory=list)


def look_at(cache: Path, digests: Mapping[str, str], lists: KnownLists) -> Survey:
    """Looks at a cache. `digests` are those of regular files in snapshots, by path below the cache. Raises Stopped."""
    return _Surveyor(cache, digests, lists).run()


class _Surveyor:
    def __init__(self, cache: Path, digests: Mapping[str, str], lists: KnownLists) -> None:
        self._cache = cache
        self._digests = digests
        self._lists = lists
        self._counter = Counter("cache", cache)
        self._outside = Counter(BEHIND_LINKS, cache)
        self._found = Survey()
        self._several: dict[tuple[int, int], _Named] = {}
        """By device and inode: the bytes that revisions use and that have several names, or may have."""
        self._read_at: dict[Users, float] = {}
        self._repos: dict[str, RepoUsage] = {}
        self._shared = SharedStore()
        self._unfinished: dict[str, set[str]] = defaultdict(set)
        """By folder of a repo: the etags of its unfinished downloads."""

    def run(self) -> Survey:
        later = []
        for entry, facts in with_facts(self._counter.entries(str(self._cache), LISTS)):
            is_folder = stat.S_ISDIR(facts.st_mode)
            repo = _repo(entry.name)
            if is_folder and entry.name == layout.LOCKS:
                later.append(entry.path)
            elif is_folder and entry.name == FOLDER and is_shared_store(entry.path):
                self._shared = read_shared_store(entry.path, self._counter)
            elif repo is not None and (is_folder or entry.is_dir()):
                self._read_repo(repo, facts)
            elif is_folder:
                self._counter.add_tree(entry.path, FOREIGN)
            else:
                self._counter.add(LISTS if entry.name in ROOT_FILES else FOREIGN, facts)
        self._judge_shared()
        for path in later:
            self._read_locks(path)
        self._sum_up()
        return self._found

    # Repos

    def _read_repo(self, repo: RepoId, facts: os.stat_result) -> None:
        counter = self._counter
        if stat.S_ISLNK(facts.st_mode):
            counter.add(LISTS, facts)
            counter = self._outside
        files, disk_bytes = counter.files, counter.disk_bytes
        found = read_repo_folder(self._cache, repo, counter, self._use)
        self._judge_blobs(found, counter)
        self._repos[repo.folder] = RepoUsage(str(repo), 0, counter.files - files, counter.disk_bytes - disk_bytes)

    def _judge_blobs(self, found: RepoOnDisk, counter: Counter) -> None:
        orphans = dict(found.unused)
        for name, target in found.links.items():
            entry, users = self._shared.blobs.get(target), found.users.get(name, NOBODY)
            if entry is not None and users:
                entry.users |= users
                self._use(replace(entry, etag=name), is_shared=True)
            elif not users:
                path = layout.blobs_folder(self._cache, found.repo) / name
                orphans[name] = FoundBlob(str(path), found.link_facts[name])
        unfinished = (etag_of(one.path) for one in found.leftovers if one.kind == UNFINISHED)
        self._unfinished[found.repo.folder].update(unfinished)
        self._judge_orphans(found, orphans, counter)

    def _judge_orphans(self, found: RepoOnDisk, orphans: Mapping[str, FoundBlob], counter: Counter) -> None:
        """A blob without a link belongs to an interrupted add, or to a revision whose links are lost, or to none."""
        wanting = self._lists.wanting(found.repo, set(orphans)) if orphans else {}
        is_lost = bool(found.has_blobs or found.links) and (not found.commits or bool(found.empty))
        for name, blob in orphans.items():
            kind = ORPHAN if not is_lost else LOST
            if not stat.S_ISLNK(blob.facts.st_mode):
                counter.add(kind, blob.facts)
            one = leftover(kind, blob.path, blob.facts, repo=str(found.repo), digest=_digest(name))
            self._found.leftovers.append(replace(one, wanted_by=wanting.get(name, "")))
        # Refs and lists say what such blobs are.
        kept = {STALE_LIST, DANGLING_REF, EMPTY} if orphans else set()
        for one in found.leftovers:
            if one.kind == UNFINISHED:
                lock = self._cache / layout.LOCKS / found.repo.folder / f"{etag_of(one.path)}.lock"
                one = replace(one, digest=_digest(etag_of(one.path)), is_in_use=is_held(lock))
            if one.kind not in kept:
                self._found.leftovers.append(one)

    def _use(self, blob: FoundBlob, *, is_shared: bool = False) -> None:
        """Notes bytes that revisions use, once for all their names. `is_shared`: several repos link to them."""
        facts = blob.facts
        place = "" if blob.etag else os.path.relpath(blob.path, self._cache)
        digest = _digest(blob.etag) if blob.etag else self._digests.get(place, "")
        self._read_at[blob.users] = max(self._read_at.get(blob.users, 0.0), facts.st_atime)
        if facts.st_nlink == 1 and not is_shared:
            disk_bytes = facts.st_blocks * BLOCK_BYTES
            self._found.blobs.append(StoredBlob(digest, facts.st_size, disk_bytes, blob.users))
            return
        known = self._several.setdefault((facts.st_dev, facts.st_ino), _Named(facts, digest))
        known.users |= blob.users
        known.names.add(blob.path)

    def _judge_shared(self) -> None:
        """An entry that is linked, but used by no revision, goes with the orphan that is its link."""
        without_links = unused(self._cache, self._shared)
        for path, blob in self._shared.blobs.items():
            if path in without_links:
                self._counter.add(SHARED_BLOB, blob.facts)
                self._found.leftovers.append(leftover(SHARED_BLOB, path, blob.facts))
            else:
                first = min((folder for folder, _ in blob.users), default="")
                self._counter.add(first.partition("--")[0] or ORPHAN, blob.facts)

    # Locks and partials

    def _read_locks(self, folder: str) -> None:
        for entry, facts in with_facts(self._counter.entries(folder, LISTS)):
            if not stat.S_ISDIR(facts.st_mode):
                self._counter.add(LISTS, facts)
            elif entry.name == layout.PARTIALS:
                self._read_partials(entry.path)
            else:
                self._read_locks_of(entry)

    def _read_locks_of(self, folder: os.DirEntry[str]) -> None:
        repo = _repo(folder.name)
        is_empty = True
        for name, entry, facts in self._counter.files_below(folder.path, LISTS):
            is_empty = False
            etag = name.removesuffix(".lock")
            is_lock = repo is not None and _ETAG.fullmatch(etag) and stat.S_ISREG(facts.st_mode)
            is_stale = is_lock and not self._is_wanted(folder.name, etag)
            self._counter.add(LOCK if is_stale else LISTS, facts)
            if is_stale:
                self._found.leftovers.append(leftover(LOCK, entry.path, facts, repo=str(repo)))
        own = facts_of(folder)
        if is_empty and own is not None:
            self._found.leftovers.append(leftover(EMPTY, folder.path, own, repo=str(repo or "")))

    def _is_wanted(self, repo_folder: str, etag: str) -> bool:
        """Whether a repo has a blob, or an unfinished download, of this name."""
        blob = f"{self._cache}{os.sep}{repo_folder}{os.sep}blobs{os.sep}{etag}"
        return etag in self._unfinished[repo_folder] or os.path.lexists(blob)

    def _read_partials(self, folder: str) -> None:
        found: list[Leftover] = []
        for entry in self._counter.entries(folder, LISTS):
            if _ETAG.fullmatch(entry.name.partition(".")[0]) and entry.is_dir(follow_symlinks=False):
                found += self._read_partial(entry)
            elif entry.is_dir(follow_symlinks=False):
                self._counter.add_tree(entry.path, FOREIGN)
            elif (facts := facts_of(entry)) is not None:
                self._counter.add(LISTS, facts)
        files = self._lists.files_of({one.digest for one in found}) if found else {}
        for one in found:
            repo, file = files.get(one.digest, ("", ""))
            self._found.leftovers.append(replace(one, repo=repo, file=file))

    def _read_partial(self, folder: os.DirEntry[str]) -> list[Leftover]:
        here: dict[str, os.stat_result] = {}
        for name, _, facts in self._counter.files_below(folder.path, LISTS):
            here[name] = facts
            self._counter.add(PARTIAL if name in ("data", "journal") else FOREIGN, facts)
        data, notes = here.get("data"), here.get("journal")
        if data is None:
            return []
        present_bytes = 0
        with contextlib.suppress(OSError), open(f"{folder.path}/journal", "rb") as file:
            present_bytes = journal.recorded_bytes(file.read())
        both = [facts for facts in (data, notes) if facts is not None]
        return [
            Leftover(
                PARTIAL,
                folder.path,
                present_bytes,
                sum(facts.st_blocks for facts in both) * BLOCK_BYTES,
                max(facts.st_mtime for facts in both),
                " ".join(map(stamp_of, both)),
                _digest(folder.name.partition(".")[0]),
                whole_bytes=data.st_size,
                owner=foreign_owner(data),
                is_in_use=_is_open(Path(folder.path)),
            )
        ]

    # The whole

    def _sum_up(self) -> None:
        self._found.blobs += [one.stored() for one in self._several.values()]
        sizes: Tally[Users] = Tally()
        digests: set[str] = set()
        for blob in self._found.blobs:
            sizes[blob.users] += blob.size_bytes
            if blob.digest in digests:
                self._found.duplicates += 1
                self._found.duplicate_bytes += blob.size_bytes
            elif blob.digest:
                digests.add(blob.digest)
        of_repos: Tally[str] = Tally()
        for users, size_bytes in sizes.items():
            for folder in {folder for folder, _ in users}:
                of_repos[folder] += size_bytes
        for users, read_at in self._read_at.items():
            for user in users:
                self._found.read_at[user] = max(self._found.read_at.get(user, 0.0), read_at)
        self._found.repos = [replace(one, size_bytes=of_repos[folder]) for folder, one in self._repos.items()]
        self._found.places = [self._counter.place(), *([self._outside.place()] if self._outside.files else [])]
        self._found.unreadable = [*self._counter.unreadable, *self._outside.unreadable]


@dataclass(slots=True)
class _Named:
    """Bytes with several names: their facts, digest, users, and those of their names that were seen."""

    facts: os.stat_result
    digest: str
    users: Users = NOBODY
    names: set[str] = field(default_factory=set)

    def stored(self) -> StoredBlob:
        disk_bytes = self.facts.st_blocks * BLOCK_BYTES
        has_other_names = self.facts.st_nlink > len(self.names)
        return StoredBlob(self.digest, self.facts.st_size, disk_bytes, self.users, has_other_names)


def _repo(folder: str) -> RepoId | None:
    try:
        return RepoId.from_folder(folder)
    except InvalidName:
        return None


def _is_open(folder: Path) -> bool:
    """Whether a process has a partial open. A partial that this user cannot open counts as open."""
    try:
        fd = os.open(folder / "data", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return is_in_use(folder, fd)
    except OSError:
        return True
    finally:
        os.close(fd)


def _digest(etag: str) -> str:
    """The digest in the name of a blob; empty for another name."""
    if _ETAG.fullmatch(etag) is None:
        return ""
    return f"sha256:{etag}" if len(etag) == 64 else f"git-sha1:{etag}"
