"""A file gets a second place by the first way that works: shared blocks, a hard link where allowed, a copy."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpeer.cache.disk.linking import LINK_MIN_BYTES, HardLinks, Way, place_file
from hfpeer.system.cancellation import Stop, Stopped

SMALL = os.urandom(3_000_017)
FALLS_THROUGH = ["ENOSYS", "EPERM", "EOPNOTSUPP", "EXDEV", "EINVAL", "EMLINK", "EACCES"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(SMALL)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that is large enough for a hard link."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LINK_MIN_BYTES)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def failing(name: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", failing("EOPNOTSUPP"))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing("EXDEV"))


def copy_by_hand(old: int, new: int) -> None:
    os.write(new, os.read(old, len(SMALL) + 1))


def test_shared_blocks_are_tried_first(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda new, request, old: copy_by_hand(old, new))
    monkeypatch.setattr(os, "link", failing("EIO"))
    assert place_file(source, target, HardLinks.READ_ONLY) is Way.CLONE
    assert target.read_bytes() == SMALL


@pytest.mark.parametrize("name", [*FALLS_THROUGH, "ENOTTY"])
def test_the_next_way_follows_on_each_error_of_an_unsupported_way(
    source: Path, large: Path, target: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", failing(name))
    assert place_file(source, target) is Way.KERNEL_COPY
    assert target.read_bytes() == SMALL
    monkeypatch.setattr(os, "link", failing(name))
    assert place_file(large, target.with_name("b"), HardLinks.READ_ONLY) is Way.KERNEL_COPY
    assert place_file(large, target.with_name("c"), HardLinks.BLOBS) is Way.KERNEL_COPY
    monkeypatch.setattr(os, "copy_file_range", failing(name))
    assert place_file(source, target.with_name("d")) is Way.COPY
    assert target.with_name("d").read_bytes() == SMALL


@pytest.mark.parametrize("way", ["ioctl", "link", "copy_file_range"])
@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
@pytest.mark.usefixtures("no_clone")
def test_other_errors_are_raised(
    large: Path, target: Path, monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    monkeypatch.setattr(fcntl if way == "ioctl" else os, way, failing(name))
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        place_file(large, target, HardLinks.READ_ONLY if way != "copy_file_range" else HardLinks.NEVER)
    assert caught.value.errno == getattr(errno, name)


@pytest.mark.usefixtures("no_clone")
def test_a_copy_that_the_kernel_begins_is_finished_here(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, calls = os.copy_file_range, iter([1_000_003])

    def copies_once(old: int, new: int, count: int, *offsets: int | None) -> int:
        for size in calls:
            return kernel(old, new, size, *offsets)
        return failing("EINVAL")()  # type: ignore[no-any-return]

    steps: list[int] = []
    monkeypatch.setattr(os, "copy_file_range", copies_once)
    assert place_file(source, target, on_chunk=steps.append) is Way.COPY
    assert target.read_bytes() == SMALL
    assert (steps[0], sum(steps)) == (1_000_003, len(SMALL))


@pytest.mark.usefixtures("no_clone")
def test_a_kernel_that_copies_nothing_is_no_end_of_the_file(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda old, new, count, *offsets: 0)
    assert place_file(source, target) is Way.COPY
    assert target.read_bytes() == SMALL


@pytest.mark.usefixtures("no_clone")
def test_a_hard_link_out_of_the_cache_is_read_only_under_both_names(large: Path, target: Path) -> None:
    large.chmod(0o664)
    assert place_file(large, target, HardLinks.READ_ONLY) is Way.HARD_LINK
    assert target.samefile(large)
    assert stat.S_IMODE(large.stat().st_mode) == 0o444


@pytest.mark.usefixtures("no_clone")
def test_a_small_file_is_never_linked_out_of_the_cache(source: Path, target: Path) -> None:
    assert place_file(source, target, HardLinks.READ_ONLY) is Way.KERNEL_COPY
    assert not target.samefile(source)
    assert source.stat().st_mode & stat.S_IWUSR


@pytest.mark.usefixtures("no_clone")
@pytest.mark.parametrize("chmod", ["refused", "without effect"])
def test_a_file_that_stays_writable_is_copied(
    large: Path, target: Path, monkeypatch: pytest.MonkeyPatch, chmod: str
) -> None:
    monkeypatch.setattr(Path, "chmod", failing("EPERM") if chmod == "refused" else lambda *_: None)
    assert place_file(large, target, HardLinks.READ_ONLY) is Way.KERNEL_COPY
    assert not target.samefile(large)


@pytest.mark.usefixtures("no_clone")
def test_a_file_of_another_user_is_copied(large: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large.chmod(0o444)
    monkeypatch.setattr(os, "geteuid", lambda: large.stat().st_uid + 1)
    assert place_file(large, target, HardLinks.READ_ONLY) is Way.KERNEL_COPY
    assert not target.samefile(large)


def test_a_blob_is_linked_inside_the_cache_whatever_its_size(source: Path, target: Path) -> None:
    assert place_file(source, target, HardLinks.BLOBS) is Way.HARD_LINK
    assert target.samefile(source)
    assert source.stat().st_mode & stat.S_IWUSR


@pytest.mark.usefixtures("no_clone")
def test_a_link_as_source_is_followed(large: Path, target: Path) -> None:
    link = large.with_name("link")
    link.symlink_to(large)
    assert place_file(link, target, HardLinks.READ_ONLY) is Way.HARD_LINK
    assert not target.is_symlink()


def test_an_existing_target_is_never_written(source: Path, target: Path) -> None:
    target.write_bytes(b"mine")
    for hard_links in HardLinks:
        with pytest.raises(FileExistsError):
            place_file(source, target, hard_links)
    assert target.read_bytes() == b"mine"


@pytest.mark.usefixtures("no_clone")
def test_a_copy_can_be_stopped(source: Path, target: Path) -> None:
    stop = Stop()
    with pytest.raises(Stopped):
        stop.run(lambda: place_file(source, target, on_chunk=lambda count: stop.set()))
