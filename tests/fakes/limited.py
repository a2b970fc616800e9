"""Volumes that a test mounts, which needs root: some whose files have a largest size (FAT, and ext2 with blocks of
1 KiB, as loop images), and one in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGE_BYTES = 64 * 1024 * 1024


def why_not(*programs: str) -> str | None:
    """Why this machine mounts no such volume; None if it may."""
    if os.geteuid() == 0 and all(map(shutil.which, programs)):
        return None
    return f"mounting needs root, {' and '.join(programs)}"


NO_FAT, NO_EXT2 = why_not("mkfs.vfat"), why_not("mkfs.ext2")


@contextmanager
def fat_volume(folder: Path) -> Iterator[Path]:
    """A FAT32 volume, empty, until the end of the block. Yields its top folder. Skips the test where root may not mount
    it, or the kernel has no FAT."""
    with _mounted(folder, "vfat", ("mkfs.vfat", "-F", "32")) as place:
        yield place


@contextmanager
def ext2_volume(folder: Path) -> Iterator[Path]:
    """The same of ext2. Its files have 16 GiB at most."""
    with _mounted(folder, "ext2", ("mkfs.ext2", "-q", "-b", "1024")) as place:
        yield place


@contextmanager
def memory_volume(place: Path) -> Iterator[Path]:
    """A tmpfs at a folder, which is made, until the end of the block."""
    place.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    try:
        yield place
    finally:
        _run("umount", "--lazy", place)


@contextmanager
def _mounted(folder: Path, kind: str, make: Sequence[str]) -> Iterator[Path]:
    """Makes an image with a file system and mounts it."""
    image, place = folder / "image", folder / "stick"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    place.mkdir()
    try:
        _run(*make, image)
        _run("mount", "-t", kind, "-o", "loop", image, place)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine mounts no {kind} volume: {error.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: a test that failed may still have files open, and no mount may be left behind.
        _run("umount", "--lazy", place)


def _run(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, timeout=30)
