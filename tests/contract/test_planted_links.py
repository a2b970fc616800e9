"""In a cache that others may write to, no link leads a write or a removal out of it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from fakes.hub_cache import COMMIT, REPO, digest_of, manifest_of, sha256_of
from fakes.other_user import NOBODY, common_folder, run_as_nobody, why_not
from hfpeer.cache.cleaning.leftovers import sweep
from hfpeer.cache.disk.layout import blob_path, lock_path, partial_folder, partials_folder
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache
from hfpeer.names import Commit, Revision

BODY = b"weights" * 1000
BODIES = {"config.json": b"{}", "sub/model.bin": BODY}
COMMIT_2 = Commit("d" * 40)
MAIN = Revision("main")
OTHER_USER = why_not()
needs_other_user = pytest.mark.skipif(OTHER_USER is not None, reason=OTHER_USER or "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's own beside the cache, with a file to lose."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def fill(store: Store, bodies: dict[str, bytes] = BODIES, commit: Commit = COMMIT) -> None:
    """The steps of an `add` after verifying: large files by partials, small ones together."""
    manifest = manifest_of(bodies, commit)
    store.save_manifest(manifest)
    for file in store.inventory.missing(manifest.files):
        body = bodies[file.path]
        if file.path.endswith(".bin"):
            partial = store.open_partial(file.digest, len(body))
            partial.write(0, memoryview(body))
            partial.record(0, len(body), "origin:hub")
            store.ingester.ingest_blob(partial, REPO)
        else:
            store.ingester.ingest_many(REPO, {file.digest: body})
    store.ingester.install(REPO, commit, manifest.files)
    store.refs.write(REPO, MAIN, commit, "origin")


def is_untouched(outside: Path) -> bool:
    return [(path.name, path.read_text()) for path in outside.iterdir()] == [("precious", "precious")]


def assert_all_is_here(store: Store, bodies: dict[str, bytes] = BODIES) -> None:
    folder = store.cache / REPO.folder
    for path, body in bodies.items():
        place = folder / "snapshots" / COMMIT / path
        assert place.read_bytes() == body
        assert place.resolve().is_relative_to(folder / "blobs")
        assert not blob_path(store.cache, REPO, digest_of(path, body)).is_symlink()
    assert (folder / "refs/main").read_text() == COMMIT


@pytest.mark.parametrize("name", ["data", "journal"])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "dangling"])
def test_a_link_in_the_place_of_a_partial_is_replaced_and_not_written_to(
    store: Store, outside: Path, name: str, kind: str
) -> None:
    place = partial_folder(store.cache, sha256_of(BODY)) / name
    place.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "hard link":
        place.hardlink_to(outside / "precious")
    else:
        place.symlink_to(outside / ("precious" if kind == "link" else "new"))
    fill(store)
    assert is_untouched(outside)
    assert_all_is_here(store)


@pytest.mark.parametrize("kind", ["link", "fifo", "dangling"])
def test_a_link_in_the_place_of_a_lock_is_replaced(store: Store, outside: Path, kind: str) -> None:
    place = lock_path(store.cache, REPO, sha256_of(BODY))
    place.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(outside / ("precious" if kind == "link" else "new"))
    fill(store)
    assert is_untouched(outside) and stat.S_ISREG(place.lstat().st_mode)
    assert_all_is_here(store)


@pytest.mark.parametrize("inner", ["sub", "sub/deeper"])
def test_a_link_inside_a_snapshot_gives_way_to_the_folder_that_belongs_there(
    store: Store, outside: Path, inner: str
) -> None:
    bodies = {"config.json": b"{}", f"{inner}/model.bin": BODY, f"{inner}/small.json": b"[]"}
    place = store.snapshot_path(REPO, COMMIT) / inner
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    fill(store, bodies)
    assert is_untouched(outside)
    assert_all_is_here(store, bodies)
    store.remove(REPO)
    assert is_untouched(outside)


@pytest.mark.parametrize("part", ["blobs", "refs", "snapshots", "trees", f"snapshots/{COMMIT}"])
def test_a_link_in_the_place_of_a_part_of_a_repo_is_refused_by_name_and_followed_by_no_removal(
    store: Store, outside: Path, part: str
) -> None:
    place = store.cache / REPO.folder / part
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    with pytest.raises(BrokenCache, match="is a link") as caught:
        fill(store)
    assert str(place) in caught.value.message and caught.value.hint
    assert is_untouched(outside)
    store.remove(REPO)
    assert is_untouched(outside) and not place.is_symlink()
    fill(store)
    assert_all_is_here(store)


@pytest.mark.parametrize("part", [".locks", ".locks/.hfpeer", f".locks/{REPO.folder}"])
def test_a_link_in_the_place_of_the_folder_of_locks_is_refused(store: Store, outside: Path, part: str) -> None:
    place = store.cache / part
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside)
    with pytest.raises(BrokenCache, match="is a link"):
        fill(store)
    sweep(store.cache)
    assert is_untouched(outside)


def test_a_partial_that_another_process_replaced_is_not_ingested(store: Store, outside: Path) -> None:
    partial = store.open_partial(sha256_of(BODY), len(BODY))
    partial.write(0, memoryview(BODY))
    partial.path.unlink()
    partial.path.symlink_to(outside / "precious")
    with pytest.raises(BrokenCache, match="replaced"):
        store.ingester.ingest_blob(partial, REPO)
    assert not os.path.lexists(blob_path(store.cache, REPO, sha256_of(BODY)))
    partial.close()


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_file_in_the_place_of_a_partial_is_not_read(store: Store, outside: Path, kind: str) -> None:
    partial = store.open_partial(sha256_of(BODY), len(BODY))
    partial.write(0, memoryview(BODY))
    fd = partial.open_again()
    assert os.pread(fd, 7, 0) == BODY[:7]
    os.close(fd)
    partial.path.unlink()
    (partial.path.symlink_to if kind == "link" else partial.path.hardlink_to)(outside / "precious")
    with pytest.raises(OSError):
        partial.open_again()
    partial.close()
    with pytest.raises(OSError):
        partial.open_again()


def test_a_sweep_follows_no_link(store: Store, outside: Path) -> None:
    partials_folder(store.cache).mkdir(parents=True)
    (outside / "data").write_text("mine")
    (partials_folder(store.cache) / ("a" * 64)).symlink_to(outside)
    assert sweep(store.cache) == 0
    assert (outside / "data").read_text() == "mine"


# Removals


def test_a_removal_leaves_foreign_files_and_names_them(store: Store) -> None:
    fill(store)
    folder = store.cache / REPO.folder
    (folder / "thesis.txt").write_text("years")
    (folder / "notes").mkdir()
    (folder / "notes" / "today").write_text("hours")
    removed = store.remove(REPO)
    assert removed.left == (str(folder / "notes/today"), str(folder / "thesis.txt"))
    assert sorted(path.name for path in folder.rglob("*")) == ["notes", "thesis.txt", "today"]
    assert store.revisions.all() == []


def test_a_removal_through_ones_own_link_leaves_files_that_are_no_part_of_a_cache(store: Store, outside: Path) -> None:
    store.cache.mkdir(parents=True)
    (store.cache / REPO.folder).symlink_to(outside)
    fill(store)
    removed = store.remove(REPO)
    assert removed.left == (str(outside / "precious"),) and removed.commits == (COMMIT,)
    assert is_untouched(outside) and not (store.cache / REPO.folder).is_symlink()


@needs_other_user
def test_a_repo_folder_that_is_a_link_of_another_user_is_not_written_and_only_the_link_is_removed(
    tmp_path: Path, outside: Path
) -> None:
    (outside / "snapshots" / COMMIT).mkdir(parents=True)
    (outside / "snapshots" / COMMIT / "chapter").write_text("years")
    outside.chmod(0o755)
    with common_folder() as cache:
        cache.chmod(0o777)
        run_as_nobody("import os, sys; os.symlink(*sys.argv[1:])", outside, cache / REPO.folder)
        store = Store(cache, tmp_path / "home")
        with pytest.raises(BrokenCache, match="link of user nobody"):
            fill(store)
        removed = store.remove(REPO)
        assert removed.left == (str(outside),) and removed.files == 1
        store.close()
    assert (outside / "snapshots" / COMMIT / "chapter").read_text() == "years"
    assert (outside / "precious").read_text() == "precious"


# Modes


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_listing_for_the_hub_client_is_as_readable_as_the_other_files(store: Store, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        fill(store)
    finally:
        os.umask(before)
    folder = store.cache / REPO.folder
    places = [folder / "trees" / f"{COMMIT}.json", folder / "refs/main", *(folder / "blobs").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in places} == {mode}


def test_new_folders_of_a_cache_for_a_group_are_the_groups_too(store: Store) -> None:
    store.cache.mkdir(parents=True)
    store.cache.chmod(0o2775)
    before = os.umask(0o022)
    try:
        fill(store)
    finally:
        os.umask(before)
    folders = [path for path in store.cache.rglob("*") if path.is_dir()]
    assert {oct(path.stat().st_mode & 0o2070) for path in folders} == {oct(0o2070)}


@needs_other_user
def test_a_scan_logs_and_skips_a_folder_that_it_may_not_enter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with common_folder() as cache:
        store = Store(cache, tmp_path / "home")
        fill(store)
        store.scan()
        hidden = cache / "models--other--private"
        (hidden / "snapshots").mkdir(parents=True)
        hidden.chmod(0o700)
        os.seteuid(NOBODY)
        try:
            result = store.scan()
            store.scan()
        finally:
            os.seteuid(0)
        assert result.repos == 1 and result.skipped == ("models--other--private: Permission denied",)
        assert [revision.files for revision in store.revisions.all()] == [2]
        (cache / REPO.folder).chmod(0o700)
        os.seteuid(NOBODY)
        try:
            store.scan()
        finally:
            os.seteuid(0)
        assert [revision.files for revision in store.revisions.all()] == [2]
        store.close()
    assert caplog.text.count("models--other--private") == 1


def test_a_failed_write_leaves_no_empty_folder_that_keeps_others_from_the_repo(store: Store, outside: Path) -> None:
    (store.cache / ".locks").mkdir(parents=True)
    (store.cache / ".locks" / REPO.folder).symlink_to(outside)
    with pytest.raises(BrokenCache):
        store.ingester.ingest_many(REPO, {digest_of("a.json", b"{}"): b"{}"})
    assert not (store.cache / REPO.folder).exists()


@pytest.mark.parametrize("part", ["locks", "snapshot"])
@pytest.mark.parametrize("is_planted", [False, True])
def test_a_folder_that_goes_while_many_files_are_installed_is_reached_anew(
    store: Store, outside: Path, part: str, is_planted: bool
) -> None:
    bodies = {f"sub/{number}.json": b"%d" % number for number in range(4)}
    manifest = manifest_of(bodies)
    place = store.snapshot_path(REPO, COMMIT) / "sub"
    folder = place if part == "snapshot" else store.cache / ".locks" / REPO.folder
    plain, has_struck = os.symlink, False

    def strike(target: str, name: str, *, dir_fd: int | None = None) -> None:
        nonlocal has_struck
        plain(target, name, dir_fd=dir_fd)
        if not has_struck and name == "1.json":
            has_struck = True
            shutil.rmtree(folder)
            if is_planted:
                plain(str(outside), folder)

    with mock.patch("os.symlink", strike):
        try:
            small = {file.digest: bodies[file.path] for file in manifest.files}
            store.ingester.ingest_files(REPO, COMMIT, manifest.files, small)
        except BrokenCache as error:
            assert is_planted and part == "locks" and "is a link" in error.message
            folder.unlink()
    assert has_struck and is_untouched(outside)
    fill(store, bodies)
    assert is_untouched(outside)
    assert {path: (place.parent / path).read_bytes() for path in bodies} == bodies
