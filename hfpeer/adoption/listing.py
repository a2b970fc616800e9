"""The files of a place as plain values: what a walk has found, and what a reader of the place works on. Pure.

All paths are relative to the place, with `/`. The texts of small files are read by a function that is handed in.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ListedFile:
    """A regular file, or a link to one. `identity` is device and inode: two names of one file have the same."""

    size_bytes: int
    mtime_ns: int
    identity: tuple[int, int]
    is_link: bool = False


ReadText = Callable[[str], "bytes | None"]
"""Gives all bytes of a small file by its path in the place; None for one that is missing, too long or unreadable."""


class Listing:
    """The files of a place, or of a folder in it, in the order of their paths."""

    def __init__(
        self, files: Mapping[str, ListedFile], read: ReadText, paths: Sequence[str] | None = None, folder: str = ""
    ) -> None:
        """`paths` are those of `files` that count, sorted; all of them begin with `folder`."""
        self._files = files
        self._read = read
        self._paths = sorted(files) if paths is None else paths
        self._folder = folder

    def __iter__(self) -> Iterator[str]:
        """The paths, relative to the folder."""
        start = len(self._folder)
        return (path[start:] for path in self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def get(self, path: str) -> ListedFile | None:
        """The file of a path; None if it is not listed."""
        whole = self._folder + path
        at = bisect_left(self._paths, whole)
        return self._files[whole] if at < len(self._paths) and self._paths[at] == whole else None

    def __getitem__(self, path: str) -> ListedFile:
        return self._files[self._folder + path]

    def below(self, folder: str) -> Listing:
        """The files below a folder; all of them for an empty one."""
        if not folder:
            return self
        prefix = f"{self._folder}{folder}/"
        return Listing(self._files, self._read, self._paths[self._range(folder)], prefix)

    def without(self, folders: Sequence[str]) -> Listing:
        """The files that are below none of these folders."""
        if "" in folders:
            return Listing(self._files, self._read, [], self._folder)
        kept: list[str] = []
        position = 0
        for taken in sorted(map(self._range, folders), key=lambda part: part.start):
            kept += self._paths[position : taken.start]
            position = max(position, taken.stop)
        return Listing(self._files, self._read, [*kept, *self._paths[position:]], self._folder)

    def _range(self, folder: str) -> slice:
        """The places of all paths below a folder, which follow one another in the order of paths."""
        prefix = f"{self._folder}{folder}"
        return slice(bisect_left(self._paths, f"{prefix}/"), bisect_left(self._paths, f"{prefix}0"))

    def text(self, path: str) -> str | None:
        """The text of a small file; bytes that are no UTF-8 are replaced."""
        found = self._read(self._folder + path)
        return None if found is None else found.decode("utf-8", "replace")

    def document(self, path: str) -> dict[str, Any]:
        """The JSON object in a small file; empty if there is none."""
        try:
            found = json.loads(self.text(path) or "")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def folder_of(path: str) -> str:
    """The folder of a path; empty for one at the top."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    return path.rpartition("/")[2]
