"""Counts the space of files by kind, as `du` does: each file once, however many names it has. Follows no link."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from hfpeer.cache.cleaning.facts import Place, Usage
from hfpeer.system.cancellation import check_stop

BLOCK_BYTES = 512
"""The unit of `st_blocks`. Source: POSIX `sys/stat.h` on Linux, the BSDs and macOS."""


class Counter:
    """The space of everything below one folder. For one thread."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._seen: set[tuple[int, int]] = set()
        self.unreadable: list[str] = []
        self.files = 0
        self.disk_bytes = 0

    def entries(self, folder: str, kind: str) -> Iterator[os.DirEntry[str]]:
        """The entries of a folder, which is counted itself as of `kind`, one at a time: entries with their facts take
        much memory. None if the folder cannot be read."""
        check_stop()
        try:
            self.add(kind, os.lstat(folder))
            with os.scandir(folder) as found:
                yield from found
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            self.unreadable.append(folder)

    def add(self, kind: str, facts: os.stat_result) -> int:
        """Counts one file, link or folder. Returns the bytes that it takes, 0 for a further name of a counted file."""
        count = self._kinds[kind]
        if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
            inode = (facts.st_dev, facts.st_ino)
            if inode in self._seen:
                return 0
            self._seen.add(inode)
        disk_bytes = facts.st_blocks * BLOCK_BYTES
        count[0] += 1
        count[1] += disk_bytes
        self.files += 1
        self.disk_bytes += disk_bytes
        return disk_bytes

    def files_below(self, folder: str, kind: str) -> Iterator[tuple[str, os.DirEntry[str], os.stat_result]]:
        """Everything below a folder that is no folder: its path below it, entry and facts. Counts the folders as of
        `kind`, and leaves the rest to the caller."""
        stack = [("", folder)]
        while stack:
            prefix, place = stack.pop()
            for entry, facts in with_facts(self.entries(place, kind)):
                if stat.S_ISDIR(facts.st_mode):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield f"{prefix}{entry.name}", entry, facts

    def add_tree(self, folder: str, kind: str) -> None:
        """Counts a folder and everything below it as of one kind."""
        for _, _, facts in self.files_below(folder, kind):
            self.add(kind, facts)

    def place(self) -> Place:
        """All that was counted."""
        kinds = tuple(Usage(kind, *count) for kind, count in sorted(self._kinds.items()) if count[0])
        return Place(self._name, str(self._folder), self.files, self.disk_bytes, kinds)


def with_facts(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Entries with their facts, without those that are gone."""
    for entry in entries:
        try:
            facts = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        yield entry, facts


def facts_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The facts of an entry itself, also of a link; None if it is gone."""
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
