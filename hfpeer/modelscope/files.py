"""Files on both sides of a push: as a commit of the Hub has them, and as ModelScope lists them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hfpeer.budgets import MIB

MAX_PLAIN_BYTES = MIB
"""A plain file of the Hub of more bytes becomes an LFS file at ModelScope."""
MAX_PARSED_BYTES = 5 * MIB
"""The same for a file that the site reads itself, which cannot read it from LFS."""
PARSED_NAMES = frozenset(
    (
        "readme.md",
        ".gitattributes",
        ".gitignore",
        "configuration.json",
        "configuration.yaml",
        "configuration.yml",
        "config.json",
        "dataset_infos.json",
        ".msc",
        ".mdl",
    )
)
"""Files that the site reads. As an LFS file, it would read the pointer. Source: modelscope_hub `constants`."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class SourceFile:
    """A file to be at ModelScope: its sha256, whatever the Hub knows it by; `is_lfs` at the Hub."""

    path: str
    size_bytes: int
    sha256: str
    is_lfs: bool

    @property
    def is_plain_there(self) -> bool:
        """Whether its bytes travel in the commit itself."""
        if self.size_bytes == 0:
            return True
        if self.path.rpartition("/")[2].lower() in PARSED_NAMES:
            return self.size_bytes <= MAX_PARSED_BYTES
        return not self.is_lfs and self.size_bytes <= MAX_PLAIN_BYTES


@dataclass(frozen=True)
class SiteFile:
    """A file at ModelScope. `sha256` is of its content, also for a plain file; None if the site does not tell it."""

    path: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class SiteFolder:
    """A folder in a listing."""

    path: str


def read_entries(data: Any) -> list[SiteFile | SiteFolder]:
    """The entries of one listing. Raises ValueError for a payload that the site would not send."""
    listed = data.get("Files") if isinstance(data, dict) else data
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise ValueError("a listing is no array")
    return [_entry(each) for each in listed]


def _entry(each: Any) -> SiteFile | SiteFolder:
    path = each.get("Path") if isinstance(each, dict) else None
    if not isinstance(path, str) or not path:
        raise ValueError("an entry of a listing has no path")
    if each.get("Type") == "tree":
        return SiteFolder(path)
    size, sha256 = each.get("Size"), each.get("Sha256")
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ValueError(f"{path[:200]!r} has no size")
    return SiteFile(path, size, sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None)
