"""The rights on a cache: may this user read and write, may the group; and the command that gives the right.

Nothing is executed: the owner of a folder pastes the command.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shlex import quote

from hfpeer.cache.disk import layout
from hfpeer.cache.disk.kinds import is_repo_folder, repos_in
from hfpeer.cache.disk.layout import LOCKS, PARTIALS
from hfpeer.system.ownership import user_name

_SHARED = stat.S_ISGID | stat.S_IWGRP


def why_unreadable(path: Path, error: OSError | None) -> tuple[str, str]:
    """Why this user cannot read a file or folder, naming owner and mode; and the command that opens it, if there is
    one."""
    try:
        facts = path.lstat()
    except OSError as now:
        return f"it cannot be read: {now.strerror or now}", "Check the disk and the folder."
    owner = user_name(facts.st_uid)
    reason = f"this user cannot read it ({stat.filemode(facts.st_mode)}, owner {owner})"
    if error is not None and not isinstance(error, PermissionError):
        return f"it cannot be read: {error.strerror or error}", "Check the disk: the system's log says more."
    mode = "o+rX" if facts.st_uid != os.geteuid() else "u+rX"
    return reason, f"{owner} can open it: chmod -R {mode} {quote(str(path))}"


def nearest_folder(path: Path) -> Path:
    """The folder, or the nearest one above it that exists, as far as this user can see."""
    return next((place for place in (path, *path.parents) if os.path.isdir(place)), path)  # noqa: PTH112 - never raises


def closed_repos(cache: Path) -> list[tuple[Path, str]]:
    """The folders of repos in a cache that this user cannot read, each with the reason."""
    folders = (layout.repo_folder(cache, repo) for repo in repos_in(cache))
    closed = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
    return [(folder, why_unreadable(folder, None)[0]) for folder in closed]


def owner_and_mode(path: Path) -> str:
    """The owner and the mode of a file or folder, for people: `drwxr-xr-x, owner ann, group staff`."""
    facts = path.stat()
    group = _group_name(facts.st_gid)
    return f"{stat.filemode(facts.st_mode)}, owner {user_name(facts.st_uid)}, group {group}"


def how_to_open(path: Path) -> str:
    """The one command that lets this user write to a place, and its owner, who can run it. Nothing is executed.

    In a cache it is for the topmost folder of that owner that is closed, so that the next folder below is no second
    error, and for nothing outside of it: that may be all that the owner has. In a cache of a group it is for all that
    the owner has there: the locks of a repo lie in another folder than its files.
    """
    folder = nearest_folder(path)
    facts = folder.stat()
    cache = _cache_around(path)
    for above in folder.parents if cache is not None and cache != folder else ():
        if os.access(above, os.W_OK) or above.stat().st_uid != facts.st_uid:
            break
        folder = above
        if folder == cache:
            break
    name = quote(str(folder))
    if facts.st_uid == os.geteuid():
        return f"chmod -R u+rwX {name}"
    owner = user_name(facts.st_uid)
    if facts.st_gid in (os.getegid(), *os.getgroups()):
        command = f"chmod -R g+rwX {name}"
        if folder.name == LOCKS or is_repo_folder(folder.name):
            command = f"find {quote(str(folder.parent))} -user {owner} ! -type l -exec chmod g+rwX {{}} +"
        return f"{owner} can open it to the group {_group_name(facts.st_gid)}: {command}"
    me = user_name(os.geteuid())
    return f"{owner} can open it to {me}: setfacl -R -m u:{me}:rwX -m d:u:{me}:rwX {name}"


def _cache_around(path: Path) -> Path | None:
    """The cache of a path in a repo's folder or among the locks; None for any other path."""
    inner = (part.parent for part in (*reversed(path.parents), path) if part.name == LOCKS or is_repo_folder(part.name))
    return next(inner, None)


def group_advice(cache: Path, folder: Path) -> str:
    """The command that lets the group of a shared cache write to a repo and read its lists, or write to the folder of
    locks; empty if it may, or if the cache is not shared.

    A cache is shared by a group if it is set-group-id and writable for its group. Nothing is executed.
    """
    try:
        around = cache.stat()
        if around.st_mode & _SHARED != _SHARED:
            return ""
        places = [folder, *(folder / name for name in ("blobs", "snapshots", "refs", PARTIALS))]
        closed = [place for place in places if _is_closed(place, around.st_gid, stat.S_IWGRP)]
        closed += [tree for tree in (folder / "trees").glob("*.json") if _is_closed(tree, around.st_gid, stat.S_IRGRP)]
    except OSError:
        return ""
    if not closed:
        return ""
    group, name = _group_name(around.st_gid), quote(str(folder))
    owner = user_name(closed[0].stat().st_uid)
    return f"as {owner}: chgrp -R {group} {name} && chmod -R g+rwX {name} && setfacl -R -d -m g:{group}:rwX {name}"


def _is_closed(place: Path, group: int, bit: int) -> bool:
    try:
        facts = place.stat()
    except FileNotFoundError:
        return False
    return facts.st_gid != group or not facts.st_mode & bit


def _group_name(gid: int) -> str:
    import grp  # only this advice needs it

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
