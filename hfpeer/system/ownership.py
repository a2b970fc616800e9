"""Checks that folders, files and sockets belong to this user.

hfpeer's home, the socket folder, and the files in them are checked here before they are read, written or connected to.
No link of another user is followed, and no file is truncated before its owner is checked. The rule holds for root too:
a file that root wrote into a user's home, that user could not change any more.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import time
from pathlib import Path

from hfpeer.errors import BrokenCache

_WIDER_THAN_OWN = 0o077
_OWN_FOLDERS = {"answers", "caches", "logs", "manifests", "packs"}
"""The folders of hfpeer in its home. A home with any other folder is used by other programs too."""
_XUCRED_PREFIX = struct.Struct("II")
"""The start of BSD's `struct xucred`: version and user id."""
_LOCAL_PEERCRED = 1
"""The option of a Unix socket that gives an xucred. Source: macOS and FreeBSD `sys/un.h`."""


def check_own_folder(folder: Path) -> None:
    """Checks that a folder belongs to this user, lies in a folder of this user or root, and is not reached through a
    link of another user. Gives it the mode 0700 if other users may enter it and no other program uses it. Of a folder
    that does not exist yet, the folder around it is checked.

    Raises BrokenCache that names the owner.
    """
    try:
        _check_links(folder)
        around = _nearest(folder.parent)
        owner = around.stat().st_uid
        if not _is_trusted(owner):
            raise foreign(around, owner, f"{folder} lies in a folder of another user")
        _check_folder_itself(folder)
    except OSError as error:
        raise BrokenCache(
            f"The folder {folder} cannot be checked: {error.strerror or error}.",
            hint="Check HFPEER_HOME, or set it to a folder of your own.",
            path=str(folder),
        ) from error


def make_own_folder(folder: Path) -> None:
    """Checks a folder as `check_own_folder` does, and makes it with the mode 0700 if it does not exist.

    Raises BrokenCache.
    """
    check_own_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BrokenCache(
            f"The folder {folder} cannot be created: {error.strerror or error}.",
            hint="Check HFPEER_HOME, or set it to a folder of your own.",
            path=str(folder),
        ) from error


def is_own_folder(folder: Path) -> bool:
    """Whether a folder exists, is no link, belongs to this user, and is writable for this user only."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Opens a regular file of this user and returns its descriptor. O_TRUNC takes effect after the checks.

    Raises OSError: ELOOP for a link, EPERM for a file of another user, for a special file, and for writing a file that
    has a second name.
    """
    fd = os.open(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise PermissionError(errno.EPERM, "It is no regular file", str(path))
        if facts.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"It belongs to user {user_name(facts.st_uid)}", str(path))
        if flags & (os.O_WRONLY | os.O_RDWR) and facts.st_nlink > 1:
            raise PermissionError(errno.EPERM, "It is a hard link to a file elsewhere", str(path))
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_own(path: Path) -> bytes:
    """All bytes of a regular file that belongs to this user or root. A link is followed if this user or root made it.

    Raises OSError, among them FileNotFoundError.
    """
    link = path.lstat()
    if not _is_trusted(link.st_uid):
        raise PermissionError(errno.EPERM, f"It belongs to user {user_name(link.st_uid)}", str(path))
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise PermissionError(errno.EPERM, "It is no regular file", str(path))
        if not _is_trusted(facts.st_uid):
            raise PermissionError(errno.EPERM, f"It belongs to user {user_name(facts.st_uid)}", str(path))
        return file.read()


def write_own(path: Path, text: bytes) -> None:
    """Writes a file of mode 0600 by renaming a new file over it. A link in its place is replaced. Raises OSError."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}{time.monotonic_ns()}")
    try:
        with open(open_own(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(text)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def check_socket(path: Path) -> None:
    """Checks the folder of a Unix socket, and the socket itself if it exists. Raises BrokenCache."""
    check_own_folder(path.parent)
    try:
        owner = path.lstat().st_uid
    except OSError:
        return  # the attempt to connect reports the fault
    if owner != os.geteuid():
        raise foreign(path, owner, f"The control socket {path} is of another user")


def check_peer(connection: socket.socket, path: Path) -> None:
    """Checks that the process at the other end of a connected Unix socket runs as this user. Raises BrokenCache."""
    owner = _peer_uid(connection)
    if owner != os.geteuid():
        raise foreign(path, owner, f"The process that listens at {path} runs as another user")


def foreign(path: Path, owner: int, what: str) -> BrokenCache:
    """The error for a file of another user. `what` begins the message, without a full stop."""
    me, other = user_name(os.geteuid()), user_name(owner)
    hint = f"Set HFPEER_HOME to a folder of your own, or ask {other}."
    if os.geteuid() == 0:
        hint = f"Run it as that user (`sudo -u {other} hfpeer …`), or set HFPEER_HOME to a folder of root's."
    return BrokenCache(
        f"{what}: {path} belongs to user {other}, and this is user {me}. hfpeer does not use it.",
        hint=hint,
        path=str(path),
        owner=other,
        owner_uid=owner,
    )


def not_writable(path: Path, error: OSError) -> BrokenCache:
    """The error for a file in hfpeer's home that cannot be opened or written."""
    reason = (
        "it is a link, which hfpeer does not follow" if error.errno == errno.ELOOP else error.strerror or str(error)
    )
    return BrokenCache(
        f"{path} cannot be written: {reason}.",
        hint="Remove the file if it is not yours, or set HFPEER_HOME to another folder.",
        path=str(path),
    )


def user_name(uid: int) -> str:
    """The name of a user, or the number if there is no name."""
    import pwd  # only errors need it

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_trusted(owner: int) -> bool:
    """Whether a link or a folder around ours may belong to that user: this user, root, or one outside of this user
    namespace."""
    return owner in (os.geteuid(), 0) or _is_unmapped(owner)


def _is_unmapped(owner: int) -> bool:
    """Whether the id stands for all users outside of this user namespace, such as the root of the machine."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        mapped = Path("/proc/self/uid_map").read_text().split()
    except (OSError, ValueError):
        return False
    return owner == overflow and mapped[:3] != ["0", "0", "4294967295"]


def _check_links(path: Path) -> None:
    """Raises BrokenCache if `path`, or a folder above it, is a link of another user."""
    for part in (*reversed(path.parents), path):
        try:
            facts = part.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(facts.st_mode) and not _is_trusted(facts.st_uid):
            raise foreign(part, facts.st_uid, f"{part} is a link that another user made")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists() or one == one.parent)


def _check_folder_itself(folder: Path) -> None:
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return
    if facts.st_uid != os.geteuid():
        raise foreign(folder, facts.st_uid, f"{folder} is of another user")
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if facts.st_mode & _WIDER_THAN_OWN:
        _narrow(folder, facts)


def _narrow(folder: Path, facts: os.stat_result) -> None:
    """Gives a folder the mode 0700, unless it contains folders of other programs, such as a shared cache."""
    if facts.st_mode & stat.S_ISVTX:
        raise BrokenCache(
            f"All users may write to {folder}, so it cannot be hfpeer's home.",
            hint=f"Set HFPEER_HOME to a folder below it: {folder / 'hfpeer'}.",
            path=str(folder),
        )
    try:
        if not any(one.is_dir() and one.name not in _OWN_FOLDERS for one in folder.iterdir()):
            folder.chmod(0o700)
    except OSError:
        if facts.st_mode & 0o022:
            raise


def _peer_uid(connection: socket.socket) -> int:
    if hasattr(socket, "SO_PEERCRED"):
        facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", facts)[1])
    facts = connection.getsockopt(0, _LOCAL_PEERCRED, 256)
    return int(_XUCRED_PREFIX.unpack_from(facts)[1])
