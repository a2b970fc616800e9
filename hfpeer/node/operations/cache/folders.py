"""Chooses the cache folders of a node: what a folder is, what its volume can do, and whether this user may use it.

Makes a missing folder for writing; otherwise it changes nothing. The settings are written by the caller.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from hfpeer.cache.disk.access import how_to_open, owner_and_mode, why_unreadable
from hfpeer.cache.disk.caches import why_away
from hfpeer.cache.disk.directories import make_folders
from hfpeer.cache.disk.kinds import is_cache, is_repo_folder, other_kind, repos_in
from hfpeer.cache.disk.layout import LOCKS
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.disk.volume import Volume, look_at_volume, try_volume
from hfpeer.errors import BrokenCache, InvalidName, NotFound


@dataclass(frozen=True)
class ChosenFolder:
    """A folder that can be a cache. `repos` counts those in it, `others` the things beside them, which stay as they
    are. `away` is why a folder is passed over; then nothing else is known of it."""

    path: str
    is_new: bool = False
    repos: int = 0
    others: int = 0
    volume: Volume | None = None
    away: str = ""

    @property
    def consequences(self) -> tuple[str, ...]:
        """What follows for a cache there, a sentence each."""
        if self.volume is None:
            return ()
        is_mount = self.volume.mount == self.path != "/"
        at_mount = "This is the mount point itself: while its disk is unplugged, tools fill the disk below. "
        advice = f"{at_mount}Take a folder in it, such as {Path(self.path) / 'hub'}."
        return (*self.volume.consequences, *((advice,) if is_mount else ()))


def choose_first(folder: Path, caches: Sequence[Path]) -> ChosenFolder:
    """A folder to keep the cache in; it is made if it is missing. `caches` are the folders of the node now.

    Raises InvalidName for a folder that is something else, BrokenCache for one that this user cannot write or make.
    """
    _check_reachable(folder)
    _refuse_inside(folder, caches)
    is_new = not folder.exists()
    if is_new:
        if folder.is_symlink():
            raise InvalidName(f"{folder} is a link to nothing.", hint="Remove the link, or mount what it leads to.")
        with translated("make the folder", folder):
            _make(folder)
    _refuse_other_kind(folder)
    _check_readable(folder)
    chosen = _look_at(folder, is_new=is_new, is_tried=True)
    if chosen.volume is None or not chosen.volume.is_writable:
        raise _not_writable(folder, chosen.volume.mount if chosen.volume else "")
    return chosen


def choose_other(folder: Path, first: Path, others: Sequence[Path]) -> ChosenFolder:
    """A folder to read from, beside the `first`. Nothing is made or tried there.

    Raises InvalidName for a folder that is something else or is known already, NotFound for one that does not exist,
    BrokenCache for one that this user cannot read.
    """
    if "," in str(folder):
        raise InvalidName(
            f"The path {folder} has a comma in it, which separates folders in the settings.",
            hint="Make a link to it without a comma, and give that.",
        )
    _check_reachable(folder)
    for known in (first, *others):
        if folder.resolve() == known.resolve():
            what = "the folder that the cache is kept in" if known == first else "read already"
            raise InvalidName(f"{folder} is {what}.", hint="`hfpeer conf cache ls` lists the cache folders.")
    _refuse_inside(folder, [first, *others])
    if not folder.exists():
        raise NotFound(f"There is no folder {folder}.", hint="Plug the disk in, or mount the share, first.")
    _refuse_other_kind(folder)
    _check_readable(folder)
    return _look_at(folder)


def describe(first: Path, others: Sequence[Path]) -> list[tuple[bool, ChosenFolder]]:
    """Each cache folder, with whether it is the first. Nothing is tried: a command that lists must not write."""
    found = []
    for folder in dict.fromkeys((first, *others)):
        away = why_away(folder) if folder != first else "" if folder.is_dir() else "it is not there yet"
        try:
            found.append((folder == first, ChosenFolder(str(folder), away=away) if away else _look_at(folder)))
        except BrokenCache as error:
            found.append((folder == first, ChosenFolder(str(folder), away=error.message)))
    return found


def _check_reachable(folder: Path) -> None:
    """Raises BrokenCache if a folder above lets this user not in."""
    for around in reversed(folder.parents):
        if not os.path.isdir(around):  # noqa: PTH112
            return
        if not os.access(around, os.X_OK):
            raise BrokenCache(
                f"{folder} cannot be reached: this user cannot enter {around} ({owner_and_mode(around)}).",
                hint=f"Take another folder, or let the owner open it: chmod o+x {quote(str(around))}",
                path=str(folder),
            )


def _make(folder: Path) -> None:
    try:
        make_folders(folder)
    except PermissionError as error:
        around = next(place for place in folder.parents if place.is_dir())
        raise BrokenCache(
            f"{folder} cannot be made: this user cannot write to {around}.",
            hint=how_to_open(around),
            path=str(folder),
        ) from error


def _look_at(folder: Path, *, is_new: bool = False, is_tried: bool = False) -> ChosenFolder:
    with translated("look at the folder", folder):
        others = sum(name != LOCKS and not is_repo_folder(name) for name in os.listdir(folder))  # noqa: PTH208
        volume = try_volume(folder) if is_tried else look_at_volume(folder)
        return ChosenFolder(str(folder), is_new, len(repos_in(folder)), others, volume)


def _refuse_inside(folder: Path, caches: Sequence[Path]) -> None:
    """Refuses a folder inside a cache: the Hub client would take it for a part of that one."""
    real = folder.resolve()
    for around in real.parents:
        if is_repo_folder(around.name):
            cache = around.parent
        elif any(around == one.resolve() for one in caches) or (around == real.parent and is_cache(around)):
            cache = around
        else:
            continue
        raise _inside(folder, cache)
    if is_repo_folder(real.name):
        raise _inside(folder, real.parent)


def _inside(folder: Path, cache: Path) -> InvalidName:
    return InvalidName(
        f"{folder} is inside the cache {cache}.",
        hint=f"Take {cache} itself, or a folder beside it.",
        path=str(folder),
        cache=str(cache),
    )


def _refuse_other_kind(folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidName(f"{folder} is a file.", hint="Name a folder.", path=str(folder))
    what = "" if is_cache(folder) else other_kind(folder)
    if what:
        raise InvalidName(
            f"{folder} is no Hub cache, but {what}.",
            hint=f"For a cache of its own name a folder in it, such as {folder / 'hub'}.",
            path=str(folder),
        )


def _check_readable(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.X_OK):
        reason, hint = why_unreadable(folder, None)
        raise BrokenCache(f"{folder} cannot be a cache: {reason}.", hint=hint, path=str(folder))


def _not_writable(folder: Path, mount: str) -> BrokenCache:
    place = mount or str(folder)
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        reason, hint = f"its volume {place} is mounted read-only", f"mount -o remount,rw {quote(place)}"
    else:
        reason, hint = f"this user cannot write there ({owner_and_mode(folder)})", how_to_open(folder)
    return BrokenCache(
        f"{folder} cannot keep the cache: {reason}.",
        hint=f"{hint}. To read from it only: hfpeer conf cache add {quote(str(folder))}",
        path=str(folder),
    )
