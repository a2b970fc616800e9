"""Sticks: an archive comes in parts where its volume holds no file of its size, what a volume cannot hold is refused
before the first byte, and a cache on a stick without links is one that the Hub client loads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from fakes import exfat, limited
from fakes.archives import DATA, FILES, MODEL, ROWS, Opener, export, revisions, take
from hfpeer.archive import parts
from hfpeer.archive.export import plan_export, write_archive
from hfpeer.archive.results import ExportReport
from hfpeer.cache.disk import mounts, volume
from hfpeer.cache.store import Store
from hfpeer.errors import NoSpace, NotThisVolume

NO_EXFAT = exfat.why_not()
needs_exfat = pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")
needs_fat = pytest.mark.skipif(limited.NO_FAT is not None, reason=limited.NO_FAT or "")
PART_BYTES = 1_500_000


@pytest.fixture
def exfat_stick(tmp_path: Path) -> Iterator[Path]:
    with exfat.exfat_volume(tmp_path) as stick:
        yield stick


@pytest.fixture
def fat_stick(tmp_path: Path) -> Iterator[Path]:
    with limited.fat_volume(tmp_path) as stick:
        yield stick


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT holds files of 2 MB here, and parts are smaller: nobody has to write four gigabytes."""
    monkeypatch.setattr(volume, "FAT_MAX_BYTES", 2_000_000)
    monkeypatch.setattr(volume, "USUAL_BYTES", 1_000_000)
    monkeypatch.setattr(parts, "PART_SIZES", (PART_BYTES, 1_000_000))


def write(here: Store, path: Path, part_bytes: int | None = None) -> ExportReport:
    return write_archive(plan_export(here, revisions(here)), path, part_bytes)


def check_parts(report: ExportReport, whole: Path) -> None:
    """The archive is in parts of PART_BYTES, byte for byte those of the whole, and the report says why."""
    names = [Path(path) for path in report.paths]
    assert b"".join(path.read_bytes() for path in names) == whole.read_bytes()
    assert {path.stat().st_size for path in names[:-1]} == {PART_BYTES}
    folder, count = names[0].parent, len(names)
    (note,) = report.notes
    assert note.startswith(f"The volume of {folder} (") and f"holds no file of {report.size_bytes:,} bytes" in note
    assert note.endswith(f"the archive is in {count} parts.")
    assert {path for path in folder.iterdir() if path.name.startswith("a.tar")} == {*names}


# Parts


@needs_fat
@pytest.mark.usefixtures("small_sizes")
def test_fat_gets_parts_without_being_asked(here: Store, opened: Opener, fat_stick: Path, tmp_path: Path) -> None:
    report = write(here, fat_stick / "a.tar")
    check_parts(report, export(here, tmp_path / "whole.tar"))
    again = write(here, fat_stick / "a.tar")
    assert (again.written_bytes, again.paths) == (0, report.paths)
    assert not take(opened("there"), *map(Path, report.paths)).damage


@pytest.mark.usefixtures("small_sizes")
def test_a_volume_that_the_system_calls_fat(here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(here, tmp_path / "whole.tar", 100_000_000)
    listed = tmp_path / "mounts"
    listed.write_text(f"21 1 8:1 / / rw - ext4 /dev/root rw\n42 21 8:17 / {tmp_path} rw - vfat /dev/sdb1 rw\n")
    monkeypatch.setattr(mounts, "LIST", listed)
    check_parts(write(here, tmp_path / "a.tar"), whole.with_name("whole.tar.000"))


@needs_fat
@pytest.mark.usefixtures("small_sizes")
def test_on_fat_too_the_size_of_parts_is_the_one_that_was_named(here: Store, fat_stick: Path, tmp_path: Path) -> None:
    report = write(here, fat_stick / "a.tar", 1_000_000)
    assert report.notes == () and len(report.paths) == -(-report.size_bytes // 1_000_000)
    with pytest.raises(NotThisVolume, match="takes no file of 3,000,000 bytes") as caught:
        write(here, fat_stick / "b.tar", 3_000_000)
    assert caught.value.exit_code == 8 and "--part-size" in str(caught.value.hint)
    assert not list(fat_stick.glob("b.tar*"))


@needs_exfat
@pytest.mark.usefixtures("small_sizes")
def test_exfat_holds_a_large_archive_in_one_file(here: Store, exfat_stick: Path) -> None:
    report = write(here, exfat_stick / "a.tar")
    assert (report.paths, report.notes) == ((str(exfat_stick / "a.tar"),), ())


@pytest.fixture
def takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that does not tell its limit: the write of a byte behind 2 MB fails."""
    pwrite = os.pwrite

    def limited_pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 2_000_000:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return pwrite(fd, data[: 2_000_000 - offset], offset)

    monkeypatch.setattr(os, "pwrite", limited_pwrite)


@pytest.mark.usefixtures("small_sizes")
def test_a_limit_that_is_found_only_when_it_is_reached(
    here: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = export(here, tmp_path / "whole.tar")
    request.getfixturevalue("takes_little")
    check_parts(write(here, tmp_path / "a.tar"), whole)


@pytest.mark.usefixtures("small_sizes")
def test_what_was_split_goes_on_in_parts(here: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = export(here, tmp_path / "whole.tar")
    request.getfixturevalue("takes_little")
    plan = plan_export(here, revisions(here))

    def interrupt(path: str, done: int, total: int) -> None:
        if (tmp_path / "a.tar.000").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(plan, tmp_path / "a.tar", None, interrupt)
    report = write(here, tmp_path / "a.tar")
    check_parts(report, whole)
    assert report.written_bytes <= report.size_bytes - PART_BYTES


# Refused before the first byte


@needs_exfat
def test_a_name_that_the_stick_cannot_hold(here: Store, exfat_stick: Path) -> None:
    with pytest.raises(NotThisVolume, match=r"'a:b.tar' \(: in its name\)") as caught:
        write(here, exfat_stick / "a:b.tar")
    assert caught.value.hint == "Give `-o` another name." and list(exfat_stick.iterdir()) == []


def test_a_full_stick(here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size_bytes = write(here, tmp_path / "a.tar").size_bytes
    statvfs: Callable[..., Any] = os.statvfs
    block = statvfs(tmp_path).f_frsize
    free = os.statvfs_result((block, block, *[10] * 8, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    with pytest.raises(NoSpace, match=f"needs {size_bytes:,} bytes, and {10 * block:,} are free"):
        write(here, tmp_path / "b.tar")
    assert not list(tmp_path.glob("b.tar*"))
    assert write(here, tmp_path / "a.tar").written_bytes == 0, "what is there needs no room"


# A cache on a stick


@needs_exfat
def test_an_import_onto_a_stick_makes_a_cache_that_the_hub_client_loads(
    here: Store, exfat_stick: Path, tmp_path: Path
) -> None:
    archive, there = export(here, tmp_path / "both.tar"), Store(exfat_stick / "hub", tmp_path / "there")
    assert not take(there, archive).damage
    there.scan()
    for repo, bodies in ((MODEL, FILES), (DATA, ROWS)):
        found = snapshot_download(
            repo.full_name, repo_type=repo.type.value, cache_dir=there.cache, local_files_only=True
        )
        snapshot = Path(found)
        files = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
        assert {name: path.read_bytes() for name, path in files.items()} == bodies
        assert not any(path.is_symlink() for path in files.values())
    assert not scan_cache_dir(there.cache).warnings
    assert all(one.is_complete and one.is_proved for one in there.revisions.all())
    report = there.verify()
    assert (report.exit_code, report.findings) == (0, ())
    again = take(there, archive)
    assert (again.taken_blobs, again.damage) == (0, ())
    there.close()
