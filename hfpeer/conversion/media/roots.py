"""The places where a picture that a row only names may lie: the commit, and the image roots of the user.

An image root is a folder or a zip of this machine, or `repo:PATH`, a folder or a zip of the commit. A name never leads
out of these places: absolute paths and `..` of a dataset are looked for by their last part only.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpeer.conversion.media.zips import ZipIndex
from hfpeer.errors import EntryNotFound, InvalidName
from hfpeer.names import FilePath

IN_REPO = "repo:"
MAX_PATH_CHARACTERS = 1024
"""Characters of the longest path of a picture that is looked for."""
MAX_NAME_BYTES = 255
"""Bytes of the longest name that a file system takes."""
_ADDRESS = re.compile(r"(https?|s3|gs|ftp)://")


@dataclass(frozen=True)
class Found:
    """A picture that was found. `place` is its path in the commit, or empty; `inside` its path inside a zip there."""

    content: bytes
    place: str = ""
    inside: str = ""


def is_address(name: str) -> bool:
    """Whether a name is an address in the web, which no conversion fetches."""
    return _ADDRESS.match(name) is not None


def names_to_try(name: str) -> list[str]:
    """The relative paths that a name can mean, the most exact first."""
    clean = posixpath.normpath(name.replace("\\", "/"))
    names = [] if clean.startswith(("/", "..")) or clean == "." else [clean]
    last = posixpath.basename(clean)
    names += [last] if last not in ("", ".", "..") else []
    return list(filter(_can_be_a_path, dict.fromkeys(names)))


def _can_be_a_path(name: str) -> bool:
    """Whether a file can have this name; a text that is none, such as a picture in base64, is in many datasets."""
    parts = name.encode(errors="replace").split(b"/")
    return "\0" not in name and len(name) <= MAX_PATH_CHARACTERS and max(map(len, parts)) <= MAX_NAME_BYTES


def places_in_commit(name: str, source: str) -> Iterator[str]:
    """The paths of the commit that a name in the file `source` can mean."""
    folder = posixpath.dirname(source)
    for tried in names_to_try(name):
        if folder:
            yield f"{folder}/{tried}"
        yield tried


def files_of_root(root: str, paths: Container[str]) -> str | None:
    """The zip of the commit that a root names; None for folders and for places of this machine. Raises EntryNotFound
    for a zip that the commit does not have."""
    if not root.startswith(IN_REPO) or not root.endswith(".zip"):
        return None
    path = FilePath.parse(root.removeprefix(IN_REPO))
    if path not in paths:
        raise EntryNotFound(f"The commit has no file {path}.", hint="An image root in it is repo:PATH.", path=path)
    return path


class ImageRoots:
    """Finds pictures by name. Raises InvalidName for a root that is no folder and no zip."""

    def __init__(self, snapshot: Path, roots: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._roots = [self._opened(root) for root in roots]
        self._zips: dict[str, ZipIndex | None] = {}

    def find(self, name: str, source: str) -> Found | None:
        """The picture that a row of the file `source` names; None if it lies nowhere."""
        inside, chain, outer = name.rpartition("::")
        if chain and inside.startswith("zip://"):
            found = self._in_zip_of_commit(inside.removeprefix("zip://"), outer, source)
            if found is not None:
                return found
        for place in places_in_commit(name, source):
            file = self._snapshot / place
            if file.is_file():
                return Found(file.read_bytes(), place)
        for root, place in self._roots:
            for tried in names_to_try(name):
                found = self._in_root(root, place, tried)
                if found is not None:
                    return found
        return None

    def __enter__(self) -> ImageRoots:
        return self

    def __exit__(self, *error: object) -> None:
        for index in (*(root for root, _ in self._roots), *self._zips.values()):
            if isinstance(index, ZipIndex):
                index.close()

    def _opened(self, root: str) -> tuple[Path | ZipIndex, str]:
        place = root.removeprefix(IN_REPO) if root.startswith(IN_REPO) else ""
        path = self._snapshot / FilePath.parse(place) if place else Path(root).expanduser()
        if place and not place.endswith(".zip"):
            return path, place
        if path.is_dir():
            return path, place
        try:
            return ZipIndex(path), place
        except (OSError, zipfile.BadZipFile) as error:
            raise InvalidName(
                f"The image root {root} is neither a folder nor a zip.", hint="Name a folder, a zip, or repo:PATH."
            ) from error

    def _in_root(self, root: Path | ZipIndex, place: str, name: str) -> Found | None:
        if isinstance(root, ZipIndex):
            content = root.read(name)
            return None if content is None else Found(content, place, name)
        file = root / name
        if not file.is_file():
            return None
        return Found(file.read_bytes(), f"{place}/{name}" if place else "")

    def _in_zip_of_commit(self, inside: str, outer: str, source: str) -> Found | None:
        for place in places_in_commit(outer.rpartition("/snapshots/")[2].partition("/")[2] or outer, source):
            if place not in self._zips:
                file = self._snapshot / place
                self._zips[place] = ZipIndex(file) if file.is_file() and zipfile.is_zipfile(file) else None
            index = self._zips[place]
            content = None if index is None else index.read(inside)
            if content is not None:
                return Found(content, place, inside)
        return None
