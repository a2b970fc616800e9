"""Walks a place and lists its files, within bounds. It reads names and facts, and small texts when a reader asks.

Links to folders are followed once, however they loop. Of git's own folders only what an adoption needs is listed. What
cannot be read is told with its owner and mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from hfpeer.adoption.listing import ListedFile, Listing
from hfpeer.adoption.results import Trouble
from hfpeer.budgets import MAX_PLACE_DEPTH, MAX_PLACE_FILES, MAX_PLACE_TEXT_BYTES, MAX_PLACE_TEXTS_BYTES
from hfpeer.cache.disk.access import why_unreadable
from hfpeer.system.cancellation import check_stop

_GIT_FOLDER = frozenset({"HEAD", "config", "objects", "refs"})
"""What a folder has that git keeps a repository in. Source: gitrepository-layout."""


@dataclass
class Walk:
    """A walked place, or the folder `inside` it. `troubles` name what was left out."""

    top: Path
    listing: Listing
    inside: str = ""
    troubles: list[Trouble] = field(default_factory=list)


def walk(top: Path, inside: str = "", *, leaves_out: Iterable[Path] = ()) -> Walk:
    """Lists the files of a place, or of the folder `inside` it, without those of the folders `leaves_out`.

    A place that is a file is listed as the only one of its folder. Raises Stopped.
    """
    if not inside and top.is_file():
        top, inside = top.parent, top.name
    walker = _Walker(top, leaves_out)
    walker.run(inside)
    texts = _Texts(top)
    return Walk(top, Listing(walker.files, texts.read), inside, walker.troubles)


class _Walker:
    """One walk. Folders wait on a stack, links behind the others, so that a folder is listed under its own name."""

    def __init__(self, top: Path, leaves_out: Iterable[Path]) -> None:
        self.files: dict[str, ListedFile] = {}
        self.troubles: list[Trouble] = []
        self._top = top
        self._met = {identity for identity in map(_identity_of, leaves_out) if identity is not None}
        self._links: list[tuple[str, int]] = []

    def run(self, inside: str) -> None:
        start = self._top / inside
        if start.is_file():
            self._add_file(inside, start.stat(), is_link=start.is_symlink())
            return
        waiting = [(inside, 0)]
        while waiting or self._links:
            check_stop()
            folder, depth = waiting.pop() if waiting else self._links.pop(0)
            if len(self.files) >= MAX_PLACE_FILES:
                text = f"it has more than {MAX_PLACE_FILES:,} files: the others were not looked at"
                self.troubles.append(Trouble(str(start), text, "Name folders inside it."))
                return
            waiting += [(name, depth + 1) for name in reversed(self._list(folder, depth))]

    def _list(self, folder: str, depth: int) -> list[str]:
        """Lists the files of a folder, and returns the folders in it that are to be listed."""
        path = self._top / folder
        try:
            with os.scandir(path) as entries:
                facts = path.stat()
                most = MAX_PLACE_FILES - len(self.files) + 1
                found = sorted(islice(entries, most), key=lambda entry: entry.name)
        except OSError as error:
            self._leave_out(path, error)
            return []
        identity = (facts.st_dev, facts.st_ino)
        if identity in self._met:
            return []
        self._met.add(identity)
        if depth > MAX_PLACE_DEPTH:
            self.troubles.append(Trouble(str(path), f"it is more than {MAX_PLACE_DEPTH} folders deep"))
            return []
        names = {entry.name for entry in found}
        if names >= _GIT_FOLDER:
            found = [entry for entry in found if entry.name in ("HEAD", "config", "lfs")]
        prefix = f"{folder}/" if folder else ""
        folders: list[str] = []
        for entry in found:
            self._look_at(entry, f"{prefix}{entry.name}", depth, folders)
        return folders

    def _look_at(self, entry: os.DirEntry[str], path: str, depth: int, folders: list[str]) -> None:
        if not _is_utf8(entry.name):
            self.troubles.append(Trouble(entry.path, "its name is no UTF-8"))
            return
        try:
            facts = entry.stat()
            is_link = entry.is_symlink()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):  # a link that leads nowhere is nothing
                self._leave_out(Path(entry.path), error)
            return
        if stat.S_ISDIR(facts.st_mode):
            if is_link:
                self._links.append((path, depth + 1))
            else:
                folders.append(path)
        elif stat.S_ISREG(facts.st_mode):
            self._add_file(path, facts, is_link=is_link)

    def _add_file(self, path: str, facts: os.stat_result, *, is_link: bool) -> None:
        self.files[path] = ListedFile(facts.st_size, facts.st_mtime_ns, (facts.st_dev, facts.st_ino), is_link)

    def _leave_out(self, path: Path, error: OSError) -> None:
        self.troubles.append(Trouble(str(path), *why_unreadable(path, error)))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        facts = folder.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


class _Texts:
    """Reads small files of a place: each at most MAX_PLACE_TEXT_BYTES, all together MAX_PLACE_TEXTS_BYTES."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._left_bytes = MAX_PLACE_TEXTS_BYTES

    def read(self, path: str) -> bytes | None:
        most = min(MAX_PLACE_TEXT_BYTES, self._left_bytes)
        text = read_small(self._top / path, most)
        self._left_bytes -= len(text or b"")
        return text


def read_small(path: Path, max_bytes: int) -> bytes | None:
    """All bytes of a regular file; None for one that has more than `max_bytes`, is none, or cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > max_bytes:
                return None
            text = bytearray()
            while chunk := file.read(max_bytes + 1 - len(text)):
                text += chunk
            return bytes(text) if len(text) <= max_bytes else None
    except (OSError, ValueError):
        return None
