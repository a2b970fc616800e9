"""The paths by which Arrow files name pictures and sounds: on this machine, and in a form that is the same everywhere.

Inside a set that moves, a path is `hf://datasets/ORG/NAME@COMMIT/PATH`, which `datasets` understands too; a file of an
archive is `zip://INSIDE::` before it. Here it becomes the path in the snapshot of that commit. Any other path is
foreign: the program that reads a row would open it, whatever it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfpeer.errors import InvalidName
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.prepared.info import source_of

ARCHIVES = frozenset({"zip", "tar", "gzip", "bz2", "lz4", "xz", "zstd"})
"""The schemes of a file inside another file. Source: datasets `filesystems.compression`, fsspec."""
_LINK = re.compile(r"([a-z0-9]{2,8})://([^\0]*?)::")
_SNAPSHOT = re.compile(r".*?/(datasets--[^/]+)/snapshots/([0-9a-f]{40})/(.+)", re.DOTALL)
_DOWNLOAD = re.compile(r".*/downloads/([0-9a-f]{64})", re.DOTALL)
_EXTRACTED = re.compile(r".*/downloads/extracted/([0-9a-f]{64})/(.+)", re.DOTALL)
_FOREIGN_TEXT = re.compile(r"(/(home|root|Users|mnt|data|scratch|workspace|tmp)/[^\s/]+|[A-Za-z]:\\)")


@dataclass(frozen=True)
class Downloads:
    """The files that `datasets` 2 keeps under `downloads/`: by name the address of each, and by the name of a folder
    with an unpacked archive the address of that archive."""

    urls: Mapping[str, str]
    archives: Mapping[str, str]


NO_DOWNLOADS = Downloads({}, {})


@dataclass(frozen=True)
class Snapshot:
    """The files that the paths of one set may name: those of a commit. `folder` is where the snapshot lies here, and
    `paths` are the files of the commit, None where no list is known."""

    repo: RepoId
    commit: Commit
    folder: Path
    paths: Container[str] | None = None

    def everywhere(self, text: str, downloads: Downloads = NO_DOWNLOADS) -> str | None:
        """A path of any machine, in the form that is the same everywhere; None for a foreign one."""
        chain, end = split_chain(text)
        extracted = _EXTRACTED.fullmatch(end)
        if extracted and extracted[1] in downloads.archives:
            chain, end = f"{chain}zip://{extracted[2]}::", downloads.archives[extracted[1]]
        download = _DOWNLOAD.fullmatch(end)
        if download and download[1] in downloads.urls:
            end = downloads.urls[download[1]]
        path = self._path(end)
        return None if path is None else f"{chain}hf://datasets/{self.repo.full_name}@{self.commit}/{path}"

    def here(self, text: str) -> str | None:
        """A path in the form that is the same everywhere, as the path on this machine; None for a foreign one."""
        chain, end = split_chain(text)
        path = self._path(end)
        return None if path is None else f"{chain}{self.folder}/{path}"

    def is_here(self, text: str) -> bool:
        """Whether a path leads to the snapshot on this machine."""
        _, end = split_chain(text)
        return end.startswith(f"{self.folder}/") and self._path(end) is not None

    def _path(self, end: str) -> str | None:
        """The path of a file of the commit that the end of a chain names; None for anything else."""
        source = source_of(end)
        found = _SNAPSHOT.fullmatch(end)
        if source is not None:
            repo, commit, path = source
            is_ours = (repo, commit) == (self.repo, self.commit)
        elif found is not None and end.startswith("/"):
            path = found[3]
            is_ours = (found[1], found[2]) == (self.repo.folder, self.commit)
        else:
            return None
        try:
            path = FilePath.parse(path)
        except InvalidName:
            return None
        return path if is_ours and (self.paths is None or path in self.paths) else None


def split_chain(text: str) -> tuple[str, str]:
    """The archives that a path goes through, and the path of the outermost file: `zip://a.png::/x/y.zip` is
    `zip://a.png::` and `/x/y.zip`. A scheme that is no archive stays in the path, which is foreign then."""
    chain = ""
    while (found := _LINK.match(text)) is not None and found[1] in ARCHIVES:
        chain, text = chain + found[0], text[found.end() :]
    return chain, text


def looks_foreign(text: str) -> bool:
    """Whether a text in an ordinary column looks like a path of some machine."""
    return _FOREIGN_TEXT.match(text) is not None
