"""An archive carries revisions from one cache to another: whole, resumed, cut, in parts, through `tar`, without the
blobs that the target has."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from fakes.archives import (
    AT,
    DATA,
    FILES,
    MAIN,
    MODEL,
    ROWS,
    SHARED,
    Opener,
    check_nothing_wrong,
    contents,
    export,
    fill,
    revisions,
    take,
)
from fakes.hub.zoo import noise
from fakes.hub_cache import proved_manifest_of
from hfpeer.archive import parts
from hfpeer.archive.export import plan_export, read_have, write_archive
from hfpeer.archive.have import Have, parse_have
from hfpeer.archive.headers import header
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.parts import PartFiles, Stream, archives_of
from hfpeer.archive.sources import ArchiveSource, FolderSource, read_index
from hfpeer.archive.store_target import import_into
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.errors import BadArchive, CorruptData, InvalidName, NoSpace, NotThisVolume
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, FilePath, Visibility
from hfpeer.trust.visibility import Fact

# What an archive is


def test_plain_tar_makes_a_working_cache(here: Store, tmp_path: Path) -> None:
    archive = export(here, tmp_path / "both.tar")
    cache = tmp_path / "there"
    cache.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", cache], check=True)
    for repo, bodies in ((MODEL, FILES), (DATA, ROWS)):
        snapshot = Path(
            snapshot_download(repo.full_name, repo_type=repo.type.value, cache_dir=cache, local_files_only=True)
        )
        assert {str(p.relative_to(snapshot)): p.read_bytes() for p in snapshot.rglob("*") if p.is_file()} == bodies
    found = scan_cache_dir(cache)
    assert not found.warnings and len(found.repos) == 2
    twins = [path.stat() for path in cache.glob(f"*/blobs/{Digest.parse(_digest(SHARED)).hex}")]
    assert len(twins) == 2 and len({facts.st_ino for facts in twins}) == 1
    listed = next(cache.glob(".locks/.hfpeer-archive/*/SHA256SUMS"))
    subprocess.run(["sha256sum", "-c", "--quiet", listed], cwd=cache, check=True)


def _digest(body: bytes) -> str:
    return str(proved_manifest_of({"a.bin": body}).files[0].digest)


def test_the_order_leaves_no_link_to_nothing_and_refs_last(here: Store, tmp_path: Path) -> None:
    with tarfile.open(export(here, tmp_path / "both.tar")) as tar:
        names = [member.name for member in tar]
        tar_members = tar.getmembers()
    assert names[0].endswith("index.json")
    assert all("/refs/" in name for name in names[-2:]) and not any("/refs/" in name for name in names[:-2])
    seen: set[str] = set()
    for member in tar_members:
        if member.issym():
            assert os.path.normpath(Path(member.name).parent / member.linkname) in seen
        seen.add(member.name)
    sizes = [member.size for member in tar_members if "/blobs/" in member.name and member.isreg()]
    assert sizes == sorted(sizes)


def test_a_header_is_that_of_the_standard_library() -> None:
    for size in (0, 5, 8**11 - 1, 8**11, 1 << 40):
        for path in ("a", "b" * 100, "c" * 101, "d/" * 200 + "e", "ü", "ünï" * 60):
            info = tarfile.TarInfo(path)
            info.size, info.mtime = size, int(AT)
            with tarfile.open(fileobj=io.BytesIO(header(path, 0, int(AT)))) as tar:
                (read,) = tar.getmembers()
            assert (read.name, read.mtime, read.uid, read.mode) == (path, int(AT), 0, 0o644)
            parsed = tarfile.TarInfo.frombuf(header(path, size, int(AT))[-512:], "utf-8", "surrogateescape")
            assert parsed.size == (size if size < 8**11 else 0)
            if size >= 8**11:
                assert f" size={size}\n".encode() in header(path, size, int(AT))


def test_equal_caches_give_equal_archives(here: Store, opened: Opener, tmp_path: Path) -> None:
    other = opened("other")
    fill(other, DATA, ROWS)
    fill(other, MODEL, FILES)
    assert export(here, tmp_path / "a.tar").read_bytes() == export(other, tmp_path / "b.tar").read_bytes()


def test_parts_are_cuts_of_the_whole(here: Store, tmp_path: Path) -> None:
    whole = export(here, tmp_path / "whole.tar").read_bytes()
    export(here, tmp_path / "parts.tar", 1_000_000)
    found = sorted(tmp_path.glob("parts.tar.*"))
    assert len(found) == -(-len(whole) // 1_000_000) > 3
    assert b"".join(path.read_bytes() for path in found) == whole
    found[2].unlink()
    export(here, tmp_path / "parts.tar", 1_000_000)
    assert b"".join(path.read_bytes() for path in found) == whole


def test_another_file_of_the_name_stays(here: Store, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"precious" * 1000)
    with pytest.raises(InvalidName, match="exists"):
        export(here, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == b"precious" * 1000


def test_a_blob_with_wrong_bytes_ends_the_export_and_is_named(here: Store, tmp_path: Path) -> None:
    digest = Digest.parse(_digest(FILES["weights.bin"]))
    blob = layout.blob_path(here.cache, MODEL, digest)
    with blob.open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"X")
    with pytest.raises(CorruptData, match=str(digest)) as caught:
        export(here, tmp_path / "a.tar")
    assert caught.value.exit_code == 7 and not (tmp_path / "a.tar").exists()
    blob.write_bytes(FILES["weights.bin"])
    export(here, tmp_path / "a.tar")
    export_of_a_pipe = io.BytesIO()
    write_archive(plan_export(here, revisions(here)), export_of_a_pipe)
    assert (tmp_path / "a.tar").read_bytes() == export_of_a_pipe.getvalue()


# Import


def test_an_import_brings_all_and_nothing_twice(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "both.tar"), opened("there")
    report = take(there, archive)
    assert not report.damage
    assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS
    assert [(one.refs, one.kept_refs, one.is_proved) for one in report.revisions] == [(("main",), (), True)] * 2
    there.scan()
    assert all(one.is_complete and one.is_proved for one in there.revisions.all())
    again = take(there, archive)
    assert again.taken_blobs == 0 and again.present_bytes == report.taken_bytes
    assert not scan_cache_dir(there.cache).warnings


def test_parts_in_any_order_and_a_pipe(here: Store, opened: Opener, tmp_path: Path) -> None:
    export(here, tmp_path / "parts.tar", 1_000_000)
    files = sorted(tmp_path.glob("parts.tar.*"), reverse=True)
    there = opened("there")
    assert not take(there, *files).damage
    assert contents(there, MODEL) == FILES
    piped = opened("piped")
    stream = io.BytesIO(b"".join(path.read_bytes() for path in sorted(files)))
    assert not import_into(piped, ArchiveSource(Stream(stream)), ImportOptions()).run().damage
    assert contents(piped, MODEL) == FILES and contents(piped, DATA) == ROWS


def test_a_lost_part_costs_the_blobs_that_it_touches(here: Store, opened: Opener, tmp_path: Path) -> None:
    export(here, tmp_path / "parts.tar", 1_000_000)
    files = sorted(tmp_path.glob("parts.tar.*"))
    there = opened("there")
    report = take(there, *[path for path in files if path != files[2]])
    assert {one.part for one in report.damage} == {str(files[2])}
    check_nothing_wrong(there)
    assert contents(there, MODEL) == {} and contents(there, DATA) == ROWS
    assert not take(there, *files).damage
    assert contents(there, MODEL) == FILES


def test_an_archive_cut_anywhere_gives_what_is_whole(here: Store, opened: Opener, tmp_path: Path) -> None:
    whole = export(here, tmp_path / "both.tar").read_bytes()
    index, _ = read_index(PartFiles({0: tmp_path / "both.tar"}, "whole"))
    dice, cut = random.Random(4), tmp_path / "cut.tar"
    for number in range(50):
        there, length = opened(f"there{number}"), dice.randrange(len(whole))
        cut.write_bytes(whole[:length])
        try:
            report = take(there, cut)
        except BadArchive:
            assert length < 40_000  # in the index or a manifest: nothing was written
            assert not there.cache.exists()
            continue
        assert report.damage and all(one.part == str(cut) for one in report.damage)
        check_nothing_wrong(there)
        behind = 512 + -(-len(index.to_json()) // 512) * 512
        for blob in index.blobs:
            is_whole = behind + blob.offset + blob.size_bytes <= length
            assert (there.inventory.find(blob.digest) is not None) == is_whole
        if number % 5 == 0:
            plain = tmp_path / f"plain{number}"
            plain.mkdir()
            subprocess.run(["tar", "xf", cut, "-C", plain], check=False, capture_output=True)
            assert not list(plain.glob("*/refs/*")) or length > len(whole) - 8000
    assert len(index.blobs) == 7


def test_a_flipped_byte_costs_one_blob_and_is_named_with_its_part(here: Store, opened: Opener, tmp_path: Path) -> None:
    export(here, tmp_path / "parts.tar", 1_000_000)
    files = sorted(tmp_path.glob("parts.tar.*"))
    for number, path in enumerate(files):
        right = path.read_bytes()
        at = len(right) // 2
        path.write_bytes(right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
        there = opened(f"there{number}")
        report = take(there, *files)
        (damage,) = report.damage
        assert str(path) in damage.part
        lost = [] if not damage.digest else [Digest.parse(damage.digest)]
        assert len(lost) == 1 or number == len(files) - 1
        here_blobs = {blob.digest for blob in read_index(archives_of(files)[0])[0].blobs}
        assert {digest for digest in here_blobs if there.inventory.find(digest) is None} == set(lost)
        check_nothing_wrong(there)
        path.write_bytes(right)
        assert not take(there, *files).damage
        assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS


def test_a_dry_run_writes_nothing(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "both.tar"), opened("there")
    report = take(there, archive, options=ImportOptions(is_dry_run=True))
    assert report.taken_blobs == 7 and report.is_dry_run and not there.cache.exists()


def test_the_commit_that_was_named_and_no_other(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "both.tar"), opened("there")
    with pytest.raises(BadArchive, match="not " + "a" * 40):
        take(there, archive, options=ImportOptions(commit=Commit("a" * 40)))
    assert not there.cache.exists()


def test_no_space_is_said_before_the_first_byte(
    here: Store, opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, there = export(here, tmp_path / "both.tar"), opened("there")
    full = os.statvfs_result((4096, 4096, 10, 10, 10, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(NoSpace, match="40,960 are free"):
        take(there, archive)
    assert not there.cache.exists()


def test_an_unproved_list_is_taken_only_when_trusted(opened: Opener, tmp_path: Path) -> None:
    here, there = opened("here"), opened("there")
    manifest = proved_manifest_of(FILES, MODEL)
    listed = Manifest(MODEL, manifest.commit, manifest.files)
    here.save_manifest(listed)
    here.ingester.ingest_many(MODEL, {file.digest: FILES[file.path] for file in listed.files})
    here.ingester.install(MODEL, listed.commit, listed.files)
    archive = export(here, tmp_path / "listed.tar")
    with pytest.raises(BadArchive, match=r"Nothing in .* proves"):
        take(there, archive)
    assert not there.cache.exists()
    report = take(there, archive, options=ImportOptions(trusts_attested=True))
    assert not report.damage and not report.revisions[0].is_proved
    # Without a ref of its own the commit gets one, so that `hf cache prune` keeps it.
    assert report.revisions[0].refs == (f"hfpeer/{manifest.commit.short}",)


# Refs and visibility


def test_a_ref_of_a_hub_stays_and_an_older_one_of_an_archive_gives_way(
    here: Store, opened: Opener, tmp_path: Path
) -> None:
    old = export(here, tmp_path / "old.tar")
    there, asked = opened("there"), opened("asked")
    take(there, old)
    newer = {**FILES, "config.json": b'{"new": 1}'}
    manifest = fill(here, MODEL, newer)
    here.refs.write(MODEL, MAIN, manifest.commit, "huggingface", AT + 10)
    new = export(here, tmp_path / "new.tar")
    take(there, new)
    assert contents(there, MODEL) == newer
    take(there, old)
    assert contents(there, MODEL) == newer
    fill(asked, MODEL, {"config.json": b"asked"})
    asked.refs.write(MODEL, MAIN, proved_manifest_of({"config.json": b"asked"}, MODEL).commit, "huggingface", AT - 10)
    report = take(asked, new)
    kept = [one.kept_refs for one in report.revisions if one.repo == "acme/tiny" and one.kept_refs]
    assert len(kept) == 1 and contents(asked, MODEL) == {"config.json": b"asked"}


@pytest.mark.parametrize("visibility", [Visibility.PUBLIC, Visibility.GATED])
def test_visibility_travels_unless_it_is_declined(
    here: Store, opened: Opener, tmp_path: Path, visibility: Visibility
) -> None:
    commit = proved_manifest_of(FILES, MODEL).commit
    here.learn(MODEL, [Fact(commit, "https://hub.example", True, visibility, AT)], ["https://hub.example"])
    report = write_archive(plan_export(here, [(MODEL, commit)]), tmp_path / "a.tar")
    assert bool(report.notes) == (visibility is Visibility.GATED)
    there, silent = opened("there"), opened("silent")
    take(there, tmp_path / "a.tar")
    take(silent, tmp_path / "a.tar", options=ImportOptions(learns_visibility=False))
    assert there.shared.is_commit_shared(MODEL, commit) == (visibility is Visibility.PUBLIC)
    assert there.shared.verdict(MODEL, commit).visibility is visibility
    assert not silent.shared.is_commit_shared(MODEL, commit)
    asked = opened("asked")
    asked.learn(MODEL, [Fact(commit, "https://hub.example", True, Visibility.PRIVATE, AT)], ["https://hub.example"])
    take(asked, tmp_path / "a.tar")
    assert asked.shared.verdict(MODEL, commit).visibility is Visibility.PRIVATE


# Only what is missing


def test_a_have_file_leaves_out_what_the_target_has(here: Store, opened: Opener, tmp_path: Path) -> None:
    there, empty = opened("there"), opened("empty")
    take(there, export(here, tmp_path / "first.tar"))
    newer = {**FILES, "config.json": b'{"new": 1}', "more.bin": noise(1_100_000, "more")}
    manifest = fill(here, MODEL, newer)
    here.refs.write(MODEL, MAIN, manifest.commit, "huggingface", AT + 10)
    have = parse_have(Have(frozenset(there.inventory.whole())).to_text())
    export(here, tmp_path / "second.tar", have=have)
    index, _ = read_index(archives_of([tmp_path / "second.tar"])[0])
    assert {blob.digest for blob in index.blobs} == {
        file.digest for file in manifest.files if file.path in ("config.json", "more.bin")
    }
    assert read_have(tmp_path / "first.tar") == have
    with pytest.raises(BadArchive, match="leaves out 7 blobs") as caught:
        take(empty, tmp_path / "second.tar")
    assert str(index.omitted[0]) in caught.value.message and not empty.cache.exists()
    assert not take(there, tmp_path / "second.tar").damage
    assert contents(there, MODEL) == newer


# A folder that is a cache


def test_a_copy_of_a_cache_is_imported_also_without_links(here: Store, opened: Opener, tmp_path: Path) -> None:
    copy, there = tmp_path / "stick", opened("there")
    shutil.copytree(here.cache, copy, symlinks=True)
    for snapshots in copy.glob("*/snapshots"):
        shutil.rmtree(snapshots)
    blob = layout.blob_path(copy, MODEL, Digest.parse(_digest(FILES["weights.bin"])))
    right = blob.read_bytes()
    blob.write_bytes(right[:-1] + b"X")
    report = import_into(there, FolderSource(copy, there.manifests), ImportOptions()).run()
    (damage,) = report.damage
    assert damage.digest == _digest(FILES["weights.bin"])
    assert contents(there, DATA) == ROWS and contents(there, MODEL) == {}
    blob.write_bytes(right)
    assert not import_into(there, FolderSource(copy, there.manifests), ImportOptions()).run().damage
    assert contents(there, MODEL) == FILES
    check_nothing_wrong(there)


# Killed

EXPORT = """
import sys, time
from pathlib import Path
from hfpeer.archive import parts
from hfpeer.archive.export import plan_export, write_archive
from hfpeer.cache.store import Store
from hfpeer.names import Commit, RepoId
root, target = Path(sys.argv[1]), Path(sys.argv[2])
parts.SYNC_BYTES = 200_000
store = Store(root / "hub", root / "home")
store.scan()
found = [(RepoId.parse(one.repo, one.type), Commit(one.commit)) for one in store.revisions.all()]
plan = plan_export(store, found)
print("begun", flush=True)
write_archive(plan, target, 1_500_000, lambda *facts: time.sleep(0.02))
"""
IMPORT = """
import sys, time
from pathlib import Path
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.store_target import import_into
from hfpeer.archive.parts import archives_of
from hfpeer.archive.sources import ArchiveSource
from hfpeer.cache.store import Store
root, source = Path(sys.argv[1]), Path(sys.argv[2])
store = Store(root / "hub", root / "home")
work = import_into(store, ArchiveSource(archives_of([source])[0]), ImportOptions(), lambda *facts: time.sleep(0.02))
print("begun", flush=True)
work.run()
"""


KILLS = 8
"""Kills at random moments; on a busy machine the work may have ended before some of them."""


def run_and_kill(program: str, root: Path, target: Path, after_seconds: float) -> bool:
    """Runs a program and kills it that long after it began its work. Returns whether it ended by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root), str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(after_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode == 0


def test_an_export_that_is_killed_goes_on_and_gives_the_same_bytes(here: Store, tmp_path: Path) -> None:
    undisturbed = export(here, tmp_path / "whole.tar").read_bytes()
    dice, target = random.Random(3), tmp_path / "killed.tar"
    for _ in range(KILLS):
        run_and_kill(EXPORT, tmp_path / "here", target, dice.uniform(0.0, 0.1))
    assert run_and_kill(EXPORT, tmp_path / "here", target, 100.0), "it ends by itself"
    found = sorted(tmp_path.glob("killed.tar*"))
    assert not any(path.name.endswith(parts.INCOMPLETE) for path in found)
    assert b"".join(path.read_bytes() for path in found) == undisturbed


def test_an_import_that_is_killed_shows_nothing_wrong_and_goes_on(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive = export(here, tmp_path / "whole.tar")
    dice = random.Random(5)
    for _ in range(KILLS):
        run_and_kill(IMPORT, tmp_path / "there", archive, dice.uniform(0.0, 0.12))
        there = opened("there")
        check_nothing_wrong(there)
        there.close()
    there = opened("there")
    assert not take(there, archive).damage
    assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS


def test_a_resumed_import_reads_only_what_is_missing(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "whole.tar"), opened("there")
    digest = Digest.parse(_digest(FILES["weights.bin"]))
    body = FILES["weights.bin"]
    partial = there.open_partial(digest, len(body))
    partial.write(0, memoryview(body)[:2_097_152])
    partial.record(0, 2_097_152, "before")
    partial.close()
    source = ArchiveSource(archives_of([archive])[0])
    read: list[int] = []
    chunks = source.chunks
    source.chunks = lambda blob, start: (read.append(len(c)) or c for c in chunks(blob, start))  # type: ignore[method-assign, func-returns-value]
    assert not import_into(there, source, ImportOptions()).run().damage
    assert sum(read) == sum(blob.size_bytes for blob in source.index.blobs) - 2_097_152
    assert contents(there, MODEL) == FILES


def test_wrong_bytes_in_a_partial_are_taken_again(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "whole.tar"), opened("there")
    body = FILES["weights.bin"]
    partial = there.open_partial(Digest.parse(_digest(body)), len(body))
    partial.write(0, memoryview(b"\1" * 2_097_152))
    partial.record(0, 2_097_152, "a liar")
    partial.close()
    assert not take(there, archive).damage
    assert contents(there, MODEL) == FILES


# What lies in real caches


def test_bytes_in_the_shared_store_of_the_hub_client_are_packed(here: Store, opened: Opener, tmp_path: Path) -> None:
    digest = Digest.parse(_digest(FILES["weights.bin"]))
    blob, there = layout.blob_path(here.cache, MODEL, digest), opened("there")
    shared = here.cache / "blobs" / "ab" / ("c" * 64)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(f"../../blobs/ab/{shared.name}")
    assert not take(there, export(here, tmp_path / "a.tar")).damage
    assert contents(there, MODEL) == FILES
    assert not layout.blob_path(there.cache, MODEL, digest).is_symlink()


def test_a_wrong_blob_of_the_target_is_replaced_never_written_into(here: Store, opened: Opener, tmp_path: Path) -> None:
    archive, there = export(here, tmp_path / "a.tar"), opened("there")
    wrong = {}
    for name in ("weights.bin", "config.json"):
        file = proved_manifest_of(FILES, MODEL).file(FilePath(name))
        blob = layout.blob_path(there.cache, MODEL, file.digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"\1" * file.size_bytes)
        wrong[blob] = tmp_path / f"second name of {name}"
        wrong[blob].hardlink_to(blob)
    there.scan()
    assert not take(there, archive).damage
    assert contents(there, MODEL) == FILES
    assert all(set(second.read_bytes()) == {1} for second in wrong.values())


def test_only_the_files_that_are_here_are_packed(opened: Opener, tmp_path: Path) -> None:
    here, there = opened("here"), opened("there")
    manifest = proved_manifest_of(FILES, MODEL)
    few = [file for file in manifest.files if file.path != "weights.bin"]
    here.save_manifest(manifest)
    here.ingester.ingest_many(MODEL, {file.digest: FILES[file.path] for file in few})
    here.ingester.install(MODEL, manifest.commit, few)
    here.refs.write(MODEL, MAIN, manifest.commit, "huggingface", AT)
    report = write_archive(plan_export(here, [(MODEL, manifest.commit)]), tmp_path / "few.tar")
    assert (report.revisions[0].files, report.revisions[0].listed_files) == (5, 6)
    assert not take(there, tmp_path / "few.tar").damage
    assert contents(there, MODEL) == {path: body for path, body in FILES.items() if path != "weights.bin"}
    there.scan()
    assert [one.is_complete for one in there.revisions.all()] == [False]


def test_a_changed_link_or_ref_is_damage_and_is_made_right(here: Store, opened: Opener, tmp_path: Path) -> None:
    right = export(here, tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        link = next(one for one in tar if one.issym() and one.name.endswith("config.json"))
        ref = next(one for one in tar if one.name == f"{MODEL.folder}/refs/main")
    for number, (at, name) in enumerate(((link.offset + 157, link.name), (ref.offset_data, ref.name))):
        (tmp_path / "a.tar").write_bytes(right[:at] + b"x" + right[at + 1 :])
        there = opened(f"there{number}")
        (damage,) = take(there, tmp_path / "a.tar").damage
        assert (damage.path, damage.digest) == (name, "")
        assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS


def test_a_volume_that_takes_no_large_file_is_told_and_parts_are_the_way(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > 2_000_000:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NotThisVolume, match="takes no file of") as caught:
        export(here, tmp_path / "a.tar")
    assert caught.value.exit_code == 8 and "--part-size" in str(caught.value.hint)
    export(here, tmp_path / "a.tar", 1_500_000)
    assert (tmp_path / "a.tar.002").is_file()


def test_a_blob_with_wrong_bytes_in_several_parts_is_made_again(here: Store, tmp_path: Path) -> None:
    """The first parts of the blob were whole, and are wrong, when its last byte told so."""
    blob = layout.blob_path(here.cache, MODEL, Digest.parse(_digest(FILES["weights.bin"])))
    blob.write_bytes(b"X" + FILES["weights.bin"][1:])
    with pytest.raises(CorruptData):
        export(here, tmp_path / "parts.tar", 1_000_000)
    blob.write_bytes(FILES["weights.bin"])
    export(here, tmp_path / "parts.tar", 1_000_000)
    whole = export(here, tmp_path / "whole.tar").read_bytes()
    assert b"".join(path.read_bytes() for path in sorted(tmp_path.glob("parts.tar.*"))) == whole


def test_what_an_interrupted_export_has_of_a_wrong_blob_is_made_again(here: Store, tmp_path: Path) -> None:
    blob = layout.blob_path(here.cache, MODEL, Digest.parse(_digest(FILES["weights.bin"])))
    blob.write_bytes(b"X" + FILES["weights.bin"][1:])

    def interrupt(path: str, done: int, total: int) -> None:
        if (tmp_path / "parts.tar.002").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(plan_export(here, revisions(here)), tmp_path / "parts.tar", 1_000_000, interrupt)
    blob.write_bytes(FILES["weights.bin"])
    export(here, tmp_path / "parts.tar", 1_000_000)
    whole = export(here, tmp_path / "whole.tar").read_bytes()
    assert b"".join(path.read_bytes() for path in sorted(tmp_path.glob("parts.tar.*"))) == whole
