"""An exFAT volume, as on a stick: no links, no modes, coarse times. It is a loop image, so it needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGE_BYTES = 64 * 1024 * 1024
PROGRAMS = ("mkfs.exfat", "mount.exfat-fuse", "losetup")


def why_not() -> str | None:
    """Why this machine mounts no exFAT volume; None if it does."""
    if os.geteuid() == 0 and all(map(shutil.which, PROGRAMS)):
        return None
    return "mounting exFAT needs root, exfatprogs and exfat-fuse"


@contextmanager
def exfat_volume(folder: Path) -> Iterator[Path]:
    """Mounts an empty volume in `folder` until the end of the block. Yields its top folder. Skips the test where root
    may not mount, as in most containers."""
    image, place = folder / "image", folder / "stick"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    place.mkdir()
    device = ""
    try:
        try:
            _run("mkfs.exfat", image)
            device = _run("losetup", "--find", "--show", image).strip()
            _run("mount.exfat-fuse", device, place)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine mounts no exFAT volume: {error.stderr.strip()}")
        yield place
    finally:
        subprocess.run(["umount", place], check=False, capture_output=True)
        if device:
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


def _run(*words: str | Path) -> str:
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, timeout=30).stdout
