"""What the volume of a folder can do, and what follows from it for a cache there.

It is tried, not predicted, in a new folder that is removed again. The largest file is asked of the system, which writes
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.cache.disk.linking import Way, place_file
from hfpeer.cache.disk.locks import keeps_others_out
from hfpeer.cache.disk.mounts import FAT, mount_of
from hfpeer.cache.disk.same_names import composed, look_alikes
from hfpeer.errors import NotThisVolume

FAT_MAX_BYTES = (1 << 32) - 1
"""The largest file on FAT."""
USUAL_BYTES = (1 << 31) - 1
"""Every volume holds a file of this size."""
LIMITED_BYTES = 1 << 40
"""A limit of the largest file counts if it is below: no file of a hub has as many bytes."""
_OUT_OF_CACHES = "Leave them out with --exclude, or keep the cache on another volume: `hfpeer conf cache set DIR`."
REFUSED = ':?*"<>|\\'
"""Characters that some file systems hold in no name."""
_ODD = re.compile(f"[{re.escape(REFUSED)}]|[ .](/|$)")
_MOMENT_NS = 1_700_000_001_123_456_789
"""A time with an odd second and odd nanoseconds: what is left of it tells in which steps a volume keeps times."""
_STEPS_NS = (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Volume:
    """A volume as it was tried. None: that was not tried, because the folder cannot be written, or is full.

    `refused_characters` cannot be in a name; a space and a full stop cannot end one. `max_file_bytes` is None if no
    limit below LIMITED_BYTES is known. `time_step_seconds` is the step in which the times of files are kept.
    `tells_accents` is false where a composed letter and the same with a combining mark are one name.
    """

    mount: str
    file_system: str
    is_network: bool
    is_writable: bool
    free_bytes: int
    size_bytes: int
    has_links: bool | None = None
    has_hard_links: bool | None = None
    shares_blocks: bool | None = None
    has_locks: bool | None = None
    tells_case: bool | None = None
    tells_accents: bool | None = None
    keeps_modes: bool | None = None
    refused_characters: str | None = None
    max_file_bytes: int | None = None
    time_step_seconds: float | None = None

    @property
    def consequences(self) -> tuple[str, ...]:
        """What follows for a cache there, a sentence each; none for a volume that can do everything."""
        saves_twins = self.has_hard_links or self.shares_blocks
        refused = " ".join(self.refused_characters or "")
        said = {
            "This volume has no links: every revision takes its full size.": self.has_links is False,
            "A blob that two repos need lies there twice: it has neither hard links nor shared blocks.": (
                self.has_links is True and saves_twins is False
            ),
            f"This volume holds no file of {_beyond(self.max_file_bytes or 0)}.": self.max_file_bytes is not None,
            f"It holds no file with one of these in its name: {refused}": bool(refused),
            "It does not tell upper from lower case: two files that differ only in that cannot both be there.": (
                self.tells_case is False
            ),
            "It takes names for the same whose accents are composed otherwise: two such files cannot both be there.": (
                self.tells_accents is False
            ),
            "It has no locks: two programs may fetch the same file at once. The bytes stay right.": (
                self.has_locks is False
            ),
            "It keeps times in whole seconds: a file that was just written is hashed again before it is shared.": (
                (self.time_step_seconds or 0) >= 1
            ),
            "It is a network volume: a file is known by its size and time, not by its number.": self.is_network,
            "This user cannot write there: it is read only.": not self.is_writable,
        }
        return tuple(sentence for sentence, is_so in said.items() if is_so)


def look_at_volume(folder: Path) -> Volume:
    """What can be known of the volume of a folder without a trial. Raises OSError if the folder is gone."""
    mount, room = mount_of(folder), os.statvfs(folder)
    return Volume(
        mount=mount.point,
        file_system=mount.file_system,
        is_network=mount.is_network,
        is_writable=os.access(folder, os.W_OK | os.X_OK),
        free_bytes=room.f_bavail * room.f_frsize,
        size_bytes=room.f_blocks * room.f_frsize,
        max_file_bytes=FAT_MAX_BYTES if mount.file_system in FAT else None,
    )


def try_volume(folder: Path) -> Volume:
    """Tries what the volume of a folder can do. Changes nothing that stays. Raises OSError if the folder is gone."""
    known = look_at_volume(folder)
    place = folder / f".hfpeer-trial-{secrets.token_hex(6)}"
    try:
        place.mkdir(mode=0o700)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return replace(known, is_writable=False)
        raise
    try:
        return _tried(place, replace(known, is_writable=True))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def max_file_bytes(folder: Path) -> int | None:
    """The bytes of the largest file that the volume of a folder holds; None if no limit below LIMITED_BYTES is known.

    lseek in an empty file tells it: Linux refuses an offset behind the limit of the file system, and of the server of
    a network volume. FUSE tells no limit, so FAT counts by its name too. The folder need not exist.
    """
    if mount_of(folder).file_system in FAT:
        return FAT_MAX_BYTES
    place = nearest_folder(folder) / f".hfpeer-trial-{secrets.token_hex(6)}"
    try:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return _max_offset(fd)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            place.unlink()


def _max_offset(fd: int) -> int | None:
    """The largest offset below LIMITED_BYTES that a file may have; None if LIMITED_BYTES is one."""

    def is_allowed(offset: int) -> bool:
        return _can(lambda: os.lseek(fd, offset, os.SEEK_SET))

    low, high = 0, LIMITED_BYTES
    if is_allowed(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_allowed(middle) else (low, middle)
    return low or None


def refuse_unfit(
    folder: Path,
    files: Iterable[tuple[str, int]],
    *,
    hint: str = _OUT_OF_CACHES,
    there: Callable[[str], bool] = lambda path: False,
    all_paths: Iterable[str] = (),
) -> None:
    """Raises NotThisVolume if the volume of a folder cannot hold some of these files, given by path and bytes: before
    the first byte is written. Usual names and sizes cost no trial. `hint` is for a folder that is no cache. Of
    `all_paths`, which may come to lie beside the files, those count that are `there` already."""
    files = list(files)
    limit = max_file_bytes(folder) if any(size > USUAL_BYTES for _, size in files) else None
    unfit = [] if limit is None else [(path, _beyond(limit)) for path, size in files if size > limit]
    paths = {path for path, _ in files}
    alike = look_alikes({*paths, *all_paths})
    beside = {path for path in alike if path not in paths and there(path)}
    unfit += _unfit_names(folder, paths, look_alikes({*paths, *beside}) if alike else alike)
    if unfit:
        mount = mount_of(folder)
        named = "; ".join(f"{path!r} ({why})" for path, why in unfit[:3]) + ("; …" if len(unfit) > 3 else "")
        raise NotThisVolume(
            f"{len(unfit)} of {len(files)} files cannot be on the volume of {folder} ({mount.file_system}): {named}.",
            hint=hint,
            paths=[path for path, _ in unfit[:100]],
            volume=mount.point,
        )


def refuse_unfit_repos(cache: Path, folders: Iterable[str]) -> None:
    """Raises NotThisVolume if the volume of a cache would take the folders of some of these repos for one, or for that
    of a repo which is there."""
    present = os.listdir(cache) if cache.is_dir() else []  # noqa: PTH208
    refuse_unfit(cache, [(name, 0) for name in set(folders)], there=lambda path: True, all_paths=present)


def _beyond(limit: int) -> str:
    """What is too large for a volume with this limit."""
    return "4 GiB or more" if limit == FAT_MAX_BYTES else f"more than {limit:,} bytes"


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest one around it that exists."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), folder)


def _unfit_names(folder: Path, paths: Collection[str], alike: Collection[str]) -> list[tuple[str, str]]:
    """The paths that the volume cannot hold, and why; tried only for names with odd characters, and for those `alike`,
    which a volume may take for one another."""
    odd = sorted(path for path in paths if path in alike or _ODD.search(path))
    place = nearest_folder(folder) / f".hfpeer-trial-{secrets.token_hex(6)}"
    if not odd or not _can(lambda: place.mkdir(mode=0o700)):
        return []
    try:
        holds = {name: _holds_name(place, f"a{name}b") for name in REFUSED}
        holds.update({end: _holds_name(place, f"a{end}") for end in " ."})
        tells_case, tells_accents = _tells_case(place), _tells_accents(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    by_case = set() if tells_case else look_alikes(alike, str.casefold)
    by_accents = set() if tells_accents else look_alikes(alike, composed)
    taken_for_one = alike if not (tells_case or tells_accents) else by_case | by_accents
    found = []
    for path in odd:
        refused = [character for character in REFUSED if character in path and not holds[character]]
        ends = [part[-1] for part in path.split("/") if part.endswith((" ", ".")) and not holds[part[-1]]]
        if refused:
            found.append((path, f"{refused[0]} in its name"))
        elif ends:
            found.append((path, "a space or full stop at the end of a name"))
        elif path in by_case:
            found.append((path, "another differs only in upper and lower case"))
        elif path in taken_for_one:
            found.append((path, "another differs only in its accents"))
    return found


def _tried(place: Path, known: Volume) -> Volume:
    file = place / "file"
    try:
        file.write_bytes(b"hfpeer" * 1000)
    except OSError:  # the volume is full: a folder fitted, a file does not
        return known
    return replace(
        known,
        has_links=_can(lambda: (place / "link").symlink_to("file")),
        has_hard_links=_can(lambda: os.link(file, place / "second")),
        shares_blocks=_shares_blocks(file, place / "twin"),
        has_locks=keeps_others_out(file),
        tells_case=_tells_case(place),
        tells_accents=_tells_accents(place),
        keeps_modes=_keeps_modes(file),
        refused_characters="".join(one for one in REFUSED if not _holds_name(place, f"a{one}b")),
        max_file_bytes=max_file_bytes(place),
        time_step_seconds=_time_step_seconds(file),
    )


def _tells_case(place: Path) -> bool:
    return _can((place / "case").touch) and not (place / "CASE").exists()


def _tells_accents(place: Path) -> bool:
    return _can((place / "caf\u00e9").touch) and not (place / "cafe\u0301").exists()


def _can(work: Callable[[], object]) -> bool:
    try:
        work()
    except OSError:
        return False
    return True


def _shares_blocks(file: Path, twin: Path) -> bool:
    with contextlib.suppress(OSError):
        return place_file(file, twin) is Way.CLONE
    return False


def _keeps_modes(file: Path) -> bool:
    if not _can(lambda: file.chmod(0o640)):
        return False
    return file.stat().st_mode & 0o777 == 0o640


def _holds_name(place: Path, name: str) -> bool:
    """Whether a file can have this name, and then has it: some volumes change a name."""
    if not _can((place / name).touch):
        return False
    return name in os.listdir(place)  # noqa: PTH208


def _time_step_seconds(file: Path) -> float:
    if not _can(lambda: os.utime(file, ns=(_MOMENT_NS, _MOMENT_NS))):
        return 1.0
    kept_ns = file.stat().st_mtime_ns
    if abs(kept_ns - _MOMENT_NS) >= 1_000_000_000:
        return 2.0
    return max(step for step in _STEPS_NS if kept_ns % step == 0) / 1e9
