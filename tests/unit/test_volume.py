"""What a volume can do is tried, on volumes of several kinds, and told in plain words."""

from __future__ import annotations

import errno
import fcntl
import grp  # noqa: F401  loaded for the fork that is nobody's
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import exfat, limited, other_user
from fakes.exfat import exfat_volume
from hfpeer.cache.disk import mounts
from hfpeer.cache.disk.directories import make_folders
from hfpeer.cache.disk.mounts import mount_of
from hfpeer.cache.disk.volume import refuse_unfit, try_volume
from hfpeer.errors import BrokenCache, NotThisVolume
from hfpeer.node.operations.cache.folders import choose_first

NO_EXFAT = exfat.why_not()
NO_OTHER_USER = other_user.why_not()


def test_a_usual_volume_can_do_everything(tmp_path: Path) -> None:
    volume = try_volume(tmp_path)
    assert volume.has_links and volume.has_hard_links and volume.has_locks and volume.tells_case
    assert (volume.refused_characters, volume.max_file_bytes) == ("", None)
    assert volume.time_step_seconds is not None and volume.time_step_seconds < 0.02
    assert 0 < volume.free_bytes < volume.size_bytes
    assert volume.consequences == ()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    with exfat_volume(tmp_path) as place:
        yield place


@pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")
def test_a_stick_is_told_in_plain_words(stick: Path) -> None:
    chosen = choose_first(stick / "hub", [])
    volume = chosen.volume
    assert volume is not None
    assert (volume.has_links, volume.has_hard_links, volume.tells_case) == (False, False, False)
    assert (volume.refused_characters, volume.time_step_seconds) == (':?*"<>|\\', 1.0)
    assert "This volume has no links: every revision takes its full size." in volume.consequences
    assert list((stick / "hub").iterdir()) == []


@pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")
def test_a_mount_point_itself_is_advised_against(stick: Path) -> None:
    assert f"such as {stick / 'hub'}" in choose_first(stick, []).consequences[-1]
    assert "mount point" not in " ".join(choose_first(stick / "hub", []).consequences)


def test_a_volume_whose_locks_lock_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
    assert try_volume(tmp_path).has_locks is False


def test_fat_is_known_without_writing_four_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "mounts"
    listed.write_text(
        "21 1 8:1 / / rw - ext4 /dev/root rw\n"
        f"42 21 8:17 / {str(tmp_path / 'my stick').replace(' ', chr(92) + '040')} rw shared:2 - vfat /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(mounts, "LIST", listed)
    (tmp_path / "my stick").mkdir()
    assert mount_of(tmp_path / "my stick" / "not yet").file_system == "vfat"
    assert mount_of(tmp_path).file_system == "ext4"
    assert try_volume(tmp_path / "my stick").max_file_bytes == 4 * 1024**3 - 1


@pytest.mark.skipif(limited.NO_FAT is not None, reason=limited.NO_FAT or "")
def test_a_real_fat_is_told_in_plain_words(tmp_path: Path) -> None:
    with limited.fat_volume(tmp_path) as place:
        volume = try_volume(place)
        assert (volume.has_links, volume.max_file_bytes) == (False, 4 * 1024**3 - 1)
        assert "This volume holds no file of 4 GiB or more." in volume.consequences
        assert list(place.iterdir()) == []


@pytest.mark.skipif(limited.NO_EXT2 is not None, reason=limited.NO_EXT2 or "")
def test_a_limit_of_the_largest_file_is_found_without_writing_one(tmp_path: Path) -> None:
    with limited.ext2_volume(tmp_path) as place:
        limit = try_volume(place).max_file_bytes
        assert limit is not None and 16 * 1024**3 < limit < 17 * 1024**3
        assert f"holds no file of more than {limit:,} bytes" in " ".join(try_volume(place).consequences)
        with pytest.raises(NotThisVolume, match=r"1 of 2 files .*'large.bin' \(more than"):
            refuse_unfit(place / "hub", [("large.bin", limit + 1), ("fits.bin", limit)])
        with pytest.raises(OSError, match="too large"), (place / "large").open("wb") as file:
            file.truncate(limit + 1)


def test_a_full_volume_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, body: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    volume = try_volume(tmp_path)
    assert volume.is_writable and volume.has_links is None and volume.consequences == ()


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_folder_in_one_of_a_group_is_open_to_the_group(tmp_path: Path, umask: int) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o2775)
    before = os.umask(umask)
    try:
        make_folders(tmp_path / "ours" / "a" / "b")
    finally:
        os.umask(before)
    around = (tmp_path / "ours").stat()
    for place in ("a", "a/b"):
        facts = (tmp_path / "ours" / place).stat()
        assert facts.st_gid == around.st_gid
        assert facts.st_mode & 0o2070 == 0o2070


def test_a_folder_in_one_of_a_single_user_follows_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o077)
    try:
        make_folders(tmp_path / "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=NO_OTHER_USER or "")
def test_a_folder_of_another_user_is_refused_with_the_command_that_opens_it() -> None:
    with other_user.common_folder() as common:
        place = common / "roots"
        place.mkdir(mode=0o755)

        def choose(folder: Path) -> str:
            try:
                choose_first(folder, [])
            except BrokenCache as error:
                return f"{error.exit_code}|{error.message}|{error.hint}"
            return "chosen"

        said = other_user.forked_as_nobody(lambda: choose(place))
        assert said.startswith("8|") and "owner root" in said
        assert f"root can open it to nobody: setfacl -R -m u:nobody:rwX -m d:u:nobody:rwX {place}" in said
        assert f"hfpeer conf cache add {place}" in said
        closed = common / "closed"
        closed.mkdir(mode=0o700)
        said = other_user.forked_as_nobody(lambda: choose(closed / "a" / "b"))
        assert said.startswith("8|") and f"cannot enter {closed}" in said and f"chmod o+x {closed}" in said
        said = other_user.forked_as_nobody(lambda: choose(place / "below"))
        assert said.startswith("8|") and "cannot be made" in said and "setfacl" in said
