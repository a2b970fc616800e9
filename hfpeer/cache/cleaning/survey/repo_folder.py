"""Reads the folder of one repo: which revisions use which bytes, and what in it belongs to no revision.

Reads names, links and facts, never the bytes of a blob, and changes nothing. A blob counts as used if any link of any
snapshot names it, whatever else is wrong with the link: so does the removal.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hfpeer.cache.cleaning.facts import (
    DANGLING_REF,
    EMPTY,
    STALE_LIST,
    TEMPORARY,
    UNFINISHED,
    Leftover,
    RevisionKey,
)
from hfpeer.cache.cleaning.survey.counting import BLOCK_BYTES, Counter, with_facts
from hfpeer.cache.disk import layout
from hfpeer.cache.snapshots import ASIDE_SUFFIX
from hfpeer.names import RepoId
from hfpeer.system.ownership import user_name

UNFINISHED_SUFFIXES = (".incomplete", ".downloadInProgress", ".part")
"""Ends of the names of unfinished downloads. Source: huggingface_hub, llama.cpp."""
LISTS, FOREIGN = "lists", "foreign"
"""Kinds of space: links, refs, lists, locks and folders; and what hfpeer does not know."""
MAX_REF_BYTES = 256
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARED_LINK = re.compile(r"\..+\.[0-9a-f]{8}\.shared")
"""The name of a link that the Hub client makes before it renames it. Source: huggingface_hub `_shared_blobs`."""


Users = frozenset[RevisionKey]
"""The revisions that use the same bytes. Most blobs of a repo have the same users, so those share one set."""
NOBODY: Users = frozenset()


@dataclass(slots=True)
class FoundBlob:
    """A file with bytes, and the revisions that use it. `etag` is its name in `blobs/`, empty in a snapshot."""

    path: str
    facts: os.stat_result
    users: Users = NOBODY
    etag: str = ""


@dataclass
class RepoOnDisk:
    """One repo as it lies there, without the bytes that its revisions use."""

    repo: RepoId
    has_blobs: bool = False
    """Whether there is a regular file in `blobs/`."""
    unused: dict[str, FoundBlob] = field(default_factory=dict)
    """By name: the regular files in `blobs/` to which no revision links."""
    links: dict[str, str] = field(default_factory=dict)
    """By name: the target of each link in `blobs/`, without `..` in it."""
    link_facts: dict[str, os.stat_result] = field(default_factory=dict)
    """By name: the facts of these links themselves."""
    users: dict[str, Users] = field(default_factory=dict)
    """By name of a link in `blobs/`, or of a blob that is missing: the revisions with a link to it."""
    commits: set[str] = field(default_factory=set)
    """The snapshots with at least one file."""
    empty: set[str] = field(default_factory=set)
    """The snapshots without one."""
    listed: set[str] = field(default_factory=set)
    """The commits with a list in `trees/`."""
    leftovers: list[Leftover] = field(default_factory=list)


def read_repo_folder(cache: Path, repo: RepoId, counter: Counter, on_use: Callable[[FoundBlob], None]) -> RepoOnDisk:
    """Reads one repo. `on_use` is called with each file whose bytes a revision uses: there may be very many, so none of
    them is kept. `counter` counts all of the repo except unused blobs."""
    return _Reader(cache, repo, counter, on_use).run()


class _Reader:
    def __init__(self, cache: Path, repo: RepoId, counter: Counter, on_use: Callable[[FoundBlob], None]) -> None:
        self._root = str(layout.repo_folder(cache, repo))
        self._kind = repo.type.plural
        self._counter = counter
        self._on_use = on_use
        self._found = RepoOnDisk(repo)

    def run(self) -> RepoOnDisk:
        readers: dict[str, Callable[[str], None]] = {
            # The others are judged by the snapshots that are there.
            "snapshots": self._read_snapshots,
            "blobs": self._read_blobs,
            "refs": self._read_refs,
            "trees": self._read_lists,
            layout.PROOFS: self._read_lists,
            ".no_exist": self._read_absences,
        }
        known = {}
        for entry, facts in with_facts(self._counter.entries(self._root, LISTS)):
            is_folder = stat.S_ISDIR(facts.st_mode)
            if is_folder and entry.name in readers:
                known[entry.name] = entry.path
            elif is_folder:
                self._counter.add_tree(entry.path, FOREIGN)
            elif entry.name.endswith(ASIDE_SUFFIX):
                self._leave(TEMPORARY, entry.path, facts)
            else:
                self._counter.add(FOREIGN, facts)
        for name, read in readers.items():
            if name in known:
                read(known[name])
        return self._found

    def _read_blobs(self, folder: str) -> None:
        for entry, facts in self._entries_or_empty(folder):
            if stat.S_ISLNK(facts.st_mode):
                self._read_blob_link(entry, facts)
            elif stat.S_ISREG(facts.st_mode) and entry.name.endswith(UNFINISHED_SUFFIXES):
                self._leave(UNFINISHED, entry.path, facts)
            elif stat.S_ISREG(facts.st_mode) and _HEX.fullmatch(entry.name):
                self._read_blob(entry, facts)
            elif stat.S_ISDIR(facts.st_mode):
                self._counter.add_tree(entry.path, FOREIGN)
            else:
                self._counter.add(FOREIGN, facts)

    def _entries_or_empty(self, folder: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        """The entries of a folder with their facts. An empty folder is a leftover."""
        is_empty = True
        for entry in self._counter.entries(folder, LISTS):
            is_empty = False
            yield from with_facts([entry])
        if is_empty:
            self._leave_empty(folder)

    def _read_blob(self, entry: os.DirEntry[str], facts: os.stat_result) -> None:
        self._found.has_blobs = True
        blob = FoundBlob(entry.path, facts, self._found.users.pop(entry.name, NOBODY), entry.name)
        if blob.users:
            self._counter.add(self._kind, facts)
            self._on_use(blob)
        else:
            self._found.unused[entry.name] = blob

    def _read_blob_link(self, entry: os.DirEntry[str], facts: os.stat_result) -> None:
        if _SHARED_LINK.fullmatch(entry.name):
            self._leave(TEMPORARY, entry.path, facts)
            return
        self._counter.add(LISTS, facts)
        self._found.link_facts[entry.name] = facts
        target = os.path.join(os.path.dirname(entry.path), os.readlink(entry.path))  # noqa: PTH115, PTH118, PTH120
        self._found.links[entry.name] = os.path.normpath(target)

    def _read_snapshots(self, folder: str) -> None:
        for entry, facts in self._entries_or_empty(folder):
            if not stat.S_ISDIR(facts.st_mode):
                self._counter.add(FOREIGN, facts)
            elif _COMMIT.fullmatch(entry.name):
                self._read_snapshot(entry)
            else:
                self._counter.add_tree(entry.path, FOREIGN)

    def _read_snapshot(self, snapshot: os.DirEntry[str]) -> None:
        key = (self._found.repo.folder, snapshot.name)
        joined: dict[Users, Users] = {}
        users, is_empty = self._found.users, True
        for _, entry, facts in self._counter.files_below(snapshot.path, LISTS):
            if stat.S_ISLNK(facts.st_mode):
                self._counter.add(LISTS, facts)
                name = os.readlink(entry.path).rpartition("/")[2]  # noqa: PTH115 - thousands of these
                others = users.get(name, NOBODY)
                users[name] = joined.get(others) or joined.setdefault(others, others | {key})
                is_empty = False
            elif stat.S_ISREG(facts.st_mode) and entry.name.endswith(UNFINISHED_SUFFIXES):
                self._leave(UNFINISHED, entry.path, facts)
            elif stat.S_ISREG(facts.st_mode):
                self._counter.add(self._kind, facts)
                self._on_use(FoundBlob(entry.path, facts, frozenset({key})))
                is_empty = False
            else:
                self._counter.add(FOREIGN, facts)
        (self._found.empty if is_empty else self._found.commits).add(snapshot.name)
        if is_empty:
            self._leave_empty(snapshot.path)

    # What depends on the snapshots

    def _read_refs(self, folder: str) -> None:
        for name, entry, facts in self._counter.files_below(folder, LISTS):
            commit = _read_commit(entry.path) if stat.S_ISREG(facts.st_mode) else None
            if commit is None or commit in self._found.commits:
                self._counter.add(LISTS, facts)
            else:
                self._leave(DANGLING_REF, entry.path, facts, file=name, wanted_by=commit)

    def _read_lists(self, folder: str) -> None:
        """`trees/COMMIT.json` and `.hfpeer/COMMIT.json`."""
        for name, entry, facts in self._counter.files_below(folder, LISTS):
            commit = name.removesuffix(".json")
            if not _COMMIT.fullmatch(commit):
                self._counter.add(FOREIGN, facts)
                continue
            self._found.listed.add(commit)
            self._add_list(commit, entry.path, facts)

    def _read_absences(self, folder: str) -> None:
        for name, entry, facts in self._counter.files_below(folder, LISTS):
            self._add_list(name.partition("/")[0], entry.path, facts)

    def _add_list(self, commit: str, path: str, facts: os.stat_result) -> None:
        if commit in self._found.commits:
            self._counter.add(LISTS, facts)
        else:
            self._leave(STALE_LIST, path, facts, wanted_by=commit)

    # Leftovers

    def _leave(self, kind: str, path: str, facts: os.stat_result, file: str = "", wanted_by: str = "") -> None:
        self._counter.add(kind, facts)
        one = leftover(kind, path, facts, repo=str(self._found.repo), file=file, wanted_by=wanted_by)
        self._found.leftovers.append(one)

    def _leave_empty(self, folder: str) -> None:
        try:
            facts = os.lstat(folder)
        except OSError:
            return
        self._found.leftovers.append(leftover(EMPTY, folder, facts, repo=str(self._found.repo)))


def leftover(
    kind: str,
    path: str,
    facts: os.stat_result,
    *,
    repo: str = "",
    digest: str = "",
    file: str = "",
    wanted_by: str = "",
) -> Leftover:
    """A leftover with the facts of its file. A change of its name or its rights counts as a change too."""
    return Leftover(
        kind,
        path,
        facts.st_size if stat.S_ISREG(facts.st_mode) else 0,
        facts.st_blocks * BLOCK_BYTES if facts.st_nlink == 1 or stat.S_ISDIR(facts.st_mode) else 0,
        max(facts.st_mtime, facts.st_ctime),
        stamp_of(facts),
        digest,
        repo,
        file,
        wanted_by,
        owner=foreign_owner(facts),
    )


def stamp_of(facts: os.stat_result) -> str:
    """A text that every write changes."""
    return f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_size}"


def foreign_owner(facts: os.stat_result) -> str:
    """The name of the owner of a file; empty for a file of this user, and if this user is root."""
    return "" if os.geteuid() in (0, facts.st_uid) else user_name(facts.st_uid)


def etag_of(path: str) -> str:
    """The etag in the name of an unfinished download; empty if there is none."""
    etag = os.path.basename(path).partition(".")[0]  # noqa: PTH119
    return etag if _HEX.fullmatch(etag) else ""


def _read_commit(path: str) -> str | None:
    """The commit in a ref file; None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(fd, MAX_REF_BYTES).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
    except OSError:
        return None
    return text if _COMMIT.fullmatch(text) else None
