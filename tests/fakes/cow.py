"""A Btrfs volume, whose files can share blocks. It is a loop image, so it needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_BYTES = 128 * 1024 * 1024
PROGRAMS = ("mkfs.btrfs", "losetup")


def why_not() -> str | None:
    """Why this machine mounts no such volume; None if it may."""
    if os.geteuid() == 0 and all(map(shutil.which, PROGRAMS)):
        return None
    return "mounting Btrfs needs root and btrfs-progs"


class NoVolume(Exception):
    """This machine refuses the mount."""


@contextmanager
def cow_volume(folder: Path) -> Iterator[Path]:
    """Mounts an empty volume in `folder` until the end of the block. Yields its top folder. Raises NoVolume."""
    image, place = folder / "image", folder / "volume"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    place.mkdir()
    device, is_mounted = "", False
    try:
        try:
            _run("mkfs.btrfs", "-q", image)
            device = _run("losetup", "--find", "--show", image).strip()
            _run("mount", "-t", "btrfs", device, place)
            is_mounted = True
        except subprocess.CalledProcessError as error:
            raise NoVolume(error.stderr) from error
        yield place
    finally:
        if is_mounted:  # lazily: a test that failed may still have files open, and no mount may be left behind
            _run("umount", "--lazy", place)
        if device:
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


def _run(*words: str | Path) -> str:
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, timeout=30).stdout
