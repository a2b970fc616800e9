"""The Hub client's shared store: `blobs/ab/XETHASH` in the cache itself, to which repos link.

Each entry has a list of the links to it, `XETHASH.refs`, and a lock, `XETHASH.lock`. An entry goes only by the rules of
the client: under its lock, if its list is there and no link in it leads to the entry. A store without the client's
marker, or of another version, is left alone. Source: huggingface_hub `_shared_blobs`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hfpeer.cache.cleaning.survey.counting import Counter, with_facts
from hfpeer.cache.cleaning.survey.repo_folder import FOREIGN, LISTS, FoundBlob
from hfpeer.cache.disk.directories import open_file, opened
from hfpeer.cache.disk.locks import take_flock
from hfpeer.errors import BrokenCache

FOLDER = "blobs"
MARKER = ".huggingface-shared-blobs"
VERSION = "1\n"
MAX_REFS_BYTES = 16 * 1024 * 1024
_ENTRY = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{2}")
_NOTES = re.compile(r"[0-9a-f]{64}\.(refs|lock|lock\.soft)")
_REFERENCE = re.compile(r"(?:models|datasets|spaces)--[^/]+/blobs/[0-9A-Za-z][^/]*")


@dataclass
class SharedStore:
    """The entries of a store, by their path."""

    blobs: dict[str, FoundBlob] = field(default_factory=dict)


def is_shared_store(folder: str) -> bool:
    """Whether a folder is a shared store of the known version."""
    try:
        fd = open_file(f"{folder}/{MARKER}", os.O_RDONLY, is_written=False)
        try:
            return os.read(fd, len(VERSION) + 1) == VERSION.encode()
        finally:
            os.close(fd)
    except OSError:
        return False


def read_shared_store(folder: str, counter: Counter) -> SharedStore:
    """The entries of a store. `counter` counts the rest of it: whether an entry is used shows later."""
    found = SharedStore()
    for prefix, facts in with_facts(counter.entries(folder, LISTS)):
        if not stat.S_ISDIR(facts.st_mode):
            counter.add(LISTS if prefix.name == MARKER else FOREIGN, facts)
        elif _PREFIX.fullmatch(prefix.name):
            _read_prefix(prefix, counter, found)
        else:
            counter.add_tree(prefix.path, FOREIGN)
    return found


def _read_prefix(prefix: os.DirEntry[str], counter: Counter, found: SharedStore) -> None:
    for entry, facts in with_facts(counter.entries(prefix.path, LISTS)):
        is_file = stat.S_ISREG(facts.st_mode)
        if is_file and _ENTRY.fullmatch(entry.name) and entry.name.startswith(prefix.name):
            found.blobs[entry.path] = FoundBlob(entry.path, facts)
        elif is_file and _NOTES.fullmatch(entry.name):
            counter.add(LISTS, facts)
        elif stat.S_ISDIR(facts.st_mode):
            counter.add_tree(entry.path, FOREIGN)
        else:
            counter.add(FOREIGN, facts)


def sweep(cache: Path, path: Path) -> int | None:
    """Removes an entry of the store if no repo uses it. Returns the bytes freed; None if it stays, because a process
    holds its lock, a link leads to it, or it has no list of its links."""
    folder, store = path.parent, cache / FOLDER
    if folder.parent != store or not _ENTRY.fullmatch(path.name) or not is_shared_store(str(store)):
        return None
    try:
        with opened(cache, folder) as inside:
            lock = open_file(inside / f"{path.name}.lock", os.O_WRONLY | os.O_CREAT, is_written=False)
            try:
                # The client gives its locks this mode: each user of the cache has to open them.
                _open_to_all(lock)
                if not take_flock(lock) or (inside / f"{path.name}.lock.soft").exists():
                    return None
                return _sweep_locked(cache, inside, path)
            finally:
                os.close(lock)
    except (OSError, BrokenCache):
        return None


def _sweep_locked(cache: Path, inside: Path, path: Path) -> int | None:
    facts = (inside / path.name).lstat()
    references = _references(inside / f"{path.name}.refs")
    if not stat.S_ISREG(facts.st_mode) or references is None:
        return None
    if any(_leads_to(cache / reference, path) for reference in references):
        return None
    (inside / path.name).unlink()
    (inside / f"{path.name}.refs").unlink(missing_ok=True)
    return facts.st_size if facts.st_nlink == 1 else 0


def has_references(cache: Path, path: Path) -> bool:
    """Whether an entry has to stay by its list of links: one leads to it, or the list cannot be read."""
    references = _references(path.with_name(f"{path.name}.refs"))
    return references is None or any(_leads_to(cache / reference, path) for reference in references)


def _references(path: Path) -> list[str] | None:
    """The lines of an entry's list that are paths of blobs; None if it cannot be read."""
    try:
        with open(open_file(path, os.O_RDONLY, is_written=False), "rb") as file:
            text = file.read(MAX_REFS_BYTES + 1)
        if len(text) > MAX_REFS_BYTES:
            return None
        return [line for line in text.decode().splitlines() if _REFERENCE.fullmatch(line)]
    except (OSError, UnicodeDecodeError):
        return None


def _leads_to(blob: Path, entry: Path) -> bool:
    """Whether a blob of a repo is a link to an entry. A link that cannot be read counts."""
    try:
        target = blob.readlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENOTDIR)
    return os.path.normpath(blob.parent / target) == str(entry)


def entry_behind(blob: Path) -> Path:
    """The entry to which a blob of a repo links, by its text."""
    return Path(os.path.normpath(blob.parent / blob.readlink()))


def _open_to_all(lock: int) -> None:
    with contextlib.suppress(OSError):
        os.fchmod(lock, 0o666)


def unused(cache: Path, store: SharedStore) -> set[str]:
    """The paths of the entries that no repo uses, neither by a link that was seen nor by their own lists."""
    return {path for path, blob in store.blobs.items() if not blob.users and not has_references(cache, Path(path))}
