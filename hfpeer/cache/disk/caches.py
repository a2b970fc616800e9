"""The cache folders of a node: the first is written, the others are only read.

It says which of them are there. It skips an unplugged folder until that is back. The catalog keeps its
rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hfpeer.cache.disk.kinds import repos_in
from hfpeer.cache.disk.mounts import mount_of
from hfpeer.errors import BrokenCache


class Caches:
    """The cache folders of one node. Thread-safe."""

    def __init__(self, first: Path, others: Sequence[Path] = ()) -> None:
        self.first = first
        real = os.path.realpath(first)
        self.others = tuple(one for one in dict.fromkeys(others) if os.path.realpath(one) != real)
        self._away: dict[Path, str] = {}
        self.present: tuple[Path, ...] = (first,)
        """Those that were there at the last look, the first before all."""
        self._told: frozenset[Path] = frozenset()
        self._mount_point = mount_of(first).point
        self.look()

    @property
    def away(self) -> dict[Path, str]:
        """The folders that are passed over, each with the reason."""
        return dict(self._away)

    def look(self) -> None:
        """Looks which folders are there."""
        away = {one: reason for one in self.others if (reason := why_away(one))}
        self._away, self.present = away, (self.first, *(one for one in self.others if one not in away))

    def require_first(self) -> None:
        """Raises BrokenCache if the volume of the first folder was unmounted since it was last seen: what is written
        there would fill the disk below the mount point."""
        point, last = mount_of(self.first).point, self._mount_point
        if len(point) < len(last) and last.startswith(point):
            raise BrokenCache(
                f"The disk of the cache folder {self.first} is unmounted: nothing is mounted at {last} now.",
                hint="Mount it again. Or keep the cache elsewhere: `hfpeer conf cache set DIR`.",
                path=str(self.first),
            )
        self._mount_point = point

    def has_news(self) -> bool:
        """Whether other folders are away than at the last call."""
        before, self._told = self._told, frozenset(self._away)
        return before != self._told

    def pass_over(self, cache: Path, reason: str) -> None:
        """Passes a folder over that could not be read, until the next look."""
        self._away = {**self._away, cache: reason}
        self.present = tuple(one for one in self.present if one != cache)

    def of(self, path: Path) -> Path | None:
        """The cache folder in which a path lies."""
        text = str(path)
        return next((one for one in (self.first, *self.others) if text.startswith(f"{one}{os.sep}")), None)


def why_away(cache: Path) -> str:
    """Why a folder that is only read is not there; empty if it is.

    A mount point without its volume is an empty folder, so a folder without a repo counts as one.
    """
    try:
        names = os.listdir(cache)  # noqa: PTH208
    except FileNotFoundError:
        return "it is not there; plug its disk in"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if not names:
        return "it is empty; mount its disk"
    return "" if repos_in(cache) else "it has no repo"
