"""Two users of a group and a folder that the group shares: as root sets one up, with and without a default ACL."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

GROUP = 70_000
ANN, BOB = 70_001, 70_002
_USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF


@contextmanager
def shared_folder(*, has_default_acl: bool) -> Iterator[Path]:
    """A set-group-id folder of root that the group may write to."""
    place = Path(tempfile.mkdtemp(prefix="hfpeer-group-", dir="/tmp"))
    try:
        os.chown(place, 0, GROUP)
        place.chmod(0o2775)
        if has_default_acl:  # setfacl -d -m g:GROUP:rwx
            entries = [(_USER, 7, _NOBODY), (_GROUP, 5, _NOBODY), (_NAMED_GROUP, 7, GROUP), (_MASK, 7, _NOBODY)]
            entries.append((_OTHER, 5, _NOBODY))
            body = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
            os.setxattr(place, "system.posix_acl_default", body)
        yield place
    finally:
        shutil.rmtree(place)


def forked_as(uid: int, umask: int, work: Callable[[], str]) -> str:
    """The result of `work` in a fork of this process that is a user of the group; or its error. Modules that `work`
    imports must be loaded already."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([GROUP])
            os.setgid(uid)
            os.setuid(uid)
            os.umask(umask)
            os.write(writes, work().encode())
        except BaseException as error:  # noqa: BLE001 - the parent process must hear of it
            hint = getattr(error, "hint", None)
            os.write(writes, f"{type(error).__name__}|{error}|{hint}".encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result
