"""Names that a volume may take for one: they differ only in upper and lower case, or in how accents are composed.

Such a volume gives the file `README.md` to a program that opens `readme.md`. So a name is looked up among the entries
of its folder before it is written or believed, if the volume is seen to take another spelling for it.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from hfpeer.errors import NotThisVolume


def folded(name: str) -> str:
    """The same text for all names that any volume takes for one. Source: Unicode, 3.13 D145, canonical caseless."""
    if name.isascii():
        return name.lower()
    return composed(unicodedata.normalize("NFD", name).casefold())


def composed(name: str) -> str:
    """The same text for names that differ only in how accents are composed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def look_alikes(paths: Collection[str], fold: Callable[[str], str] = folded) -> set[str]:
    """The paths that, or a folder of which, another path spells otherwise, where `fold` makes both the same. Pure."""
    names = set(paths)
    folders = {path.rpartition("/")[0] for path in names}
    for folder in folders:
        names.update(_prefixes(folder))
    # Of most repos all names are plain and different: that is seen at the least cost for each.
    if all(map(str.isascii, names)) and len(set(map(str.lower, names))) == len(names):
        return set()
    clashing = {key for key, spellings in Counter(map(fold, names)).items() if spellings > 1}
    return {path for path in paths if any(fold(part) in clashing for part in _prefixes(path))} if clashing else set()


def _prefixes(path: str) -> Iterable[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def reaches_another(folder: int | Path, name: str) -> bool:
    """Whether this name leads to an entry of the folder that is spelled otherwise. `folder` is a path, or the
    descriptor of a folder. Where the volume tells names apart, it takes one or two requests."""
    others = {name.swapcase(), unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", name)} - {name}
    if not any(_exists(folder, other) for other in others) or not _exists(folder, name):
        return False
    with contextlib.suppress(OSError):
        place = f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder
        return name not in os.listdir(place)  # noqa: PTH208
    return False


def leads_elsewhere(top: Path, path: Path) -> bool:
    """Whether the volume takes a name between `top` and a path below it for that of another entry."""
    places = [path, *path.parents]
    return any(reaches_another(place.parent, place.name) for place in places[: places.index(top)])


def is_spelled_so(folder: Path, path: str) -> bool:
    """Whether there is a file at this path below the folder, in exactly this spelling. Lists each folder on the way."""
    place = folder
    for name in path.split("/"):
        try:
            if name not in os.listdir(place):  # noqa: PTH208
                return False
        except OSError:
            return False
        place = place / name
    return True


def refuse_another(folder: int | Path, name: str, place: Path) -> None:
    """Raises NotThisVolume if the name leads to an entry that is spelled otherwise. `place` is its path, for people."""
    if reaches_another(folder, name):
        raise taken_for_another(place)


def taken_for_another(place: Path) -> NotThisVolume:
    """The error for a file or folder whose name the volume takes for another one that is there."""
    return NotThisVolume(
        f"{place} cannot be made: its volume takes the name for another one that is there, which differs only in "
        "upper and lower case or in its accents.",
        hint="Choose a folder on another volume (for the cache: `hfpeer conf cache set DIR`), or remove the other one.",
        path=str(place),
    )


def _exists(folder: int | Path, name: str) -> bool:
    try:
        if isinstance(folder, int):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        else:
            os.lstat(folder / name)
    except OSError:
        return False
    return True
