"""The volume on which a folder lies, as the system lists it: its mount point and its file system.

It only reads the list of the system, and asks no volume: a network volume whose server is gone would not answer. Where
there is no list, nothing is known of a volume.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LIST = Path("/proc/self/mountinfo")
WITHOUT_LINKS = {"exfat", "vfat", "msdos", "fuse.exfat", "fuseblk"}
"""File systems without links. `fuseblk` may be exFAT or NTFS, so it counts only for a repo in which no link is seen."""
FAT = {"vfat", "msdos"}
"""File systems that hold no file of 4 GiB or more, by their specification."""
NETWORKS = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "orangefs",
    "smb3",
    "smbfs",
    "virtiofs",
}
LOCAL_FUSE = {"fuse.bindfs", "fuse.encfs", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.ntfs-3g"}
"""Programs over FUSE that serve this machine alone. Any other may be a network."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """The volume of a folder. Both are empty where the system does not tell."""

    point: str = ""
    file_system: str = ""

    @property
    def is_network(self) -> bool:
        """Whether other machines may see the same files."""
        is_unknown_fuse = self.file_system.startswith("fuse.") and self.file_system not in LOCAL_FUSE
        return self.file_system in NETWORKS or is_unknown_fuse

    @property
    def has_no_links(self) -> bool:
        return self.file_system in WITHOUT_LINKS

    @property
    def has_stable_inodes(self) -> bool:
        """Whether a file keeps its inode number. FAT, FUSE and networks may number the same file anew at any time."""
        return not (self.is_network or self.has_no_links or self.file_system.startswith("fuse"))


def mount_of(folder: Path) -> Mount:
    """The volume of a folder, which need not exist."""
    try:
        text = LIST.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return Mount()
    mounts = _parse(text)
    place = os.path.realpath(folder)
    while True:
        if place in mounts:
            return Mount(place, mounts[place])
        above = os.path.dirname(place)  # noqa: PTH120
        if above == place:
            return Mount()
        place = above


def inode_of(facts: os.stat_result) -> int:
    """The inode number of a file; 0 on a volume that may number the same file anew at any time."""
    return facts.st_ino if _has_stable_inodes(facts.st_dev) else 0


def forget() -> None:
    """Reads the list of the system anew: volumes come and go."""
    _has_stable_inodes.cache_clear()


@lru_cache(maxsize=64)
def _has_stable_inodes(device: int) -> bool:
    """The same for a device; true for one that the list does not name, such as a subvolume."""
    try:
        text = LIST.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return True
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = {kind for point, number, kind in _lines(text) if number == wanted}
    return all(Mount("", kind).has_stable_inodes for kind in kinds)


@lru_cache(maxsize=2)
def _parse(text: str) -> dict[str, str]:
    """By mount point: the file system. The last mount at a point hides the others."""
    return {point: kind for point, _, kind in _lines(text)}


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Of each mount: its point, its device as `major:minor`, its file system. Source: proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        yield _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4]), fields[2], after.split(" ")[0]
