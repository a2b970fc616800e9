"""What the node and its transfers may rely on when they talk to the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from fakes.hub_cache import COMMIT, REPO, digest_of, download, git_sha1_of, listed, manifest_of, sha256_of
from hfpeer.cache import shared as shared_module
from hfpeer.cache import snapshots
from hfpeer.cache.catalog import Catalog
from hfpeer.cache.layout import blob_path, lock_path, partial_folder, partials_folder
from hfpeer.cache.locks import etag_lock
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, CorruptData, Locked
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, Visibility

BODIES = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000, "empty": b""}
OTHER = RepoId.parse("acme/other", "dataset")
COMMIT_2 = Commit("d" * 40)
MAIN = Revision("main")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def publish(store: Store, body: bytes, digest: Digest, repo: RepoId = REPO) -> Path:
    partial = store.open_partial(digest, len(body))
    partial.write(0, memoryview(body))
    partial.record(0, len(body), "origin:hub")
    return store.publish_blob(partial, repo)


def fill(store: Store, bodies: dict[str, bytes] = BODIES, commit: Commit = COMMIT, repo: RepoId = REPO) -> Path:
    """What an `add` does once every byte is verified."""
    manifest = manifest_of(bodies, commit, repo)
    store.save_manifest(manifest)
    for file in store.missing(manifest.files):
        publish(store, bodies[file.path], file.digest, repo)
    snapshot = store.install(repo, commit, manifest.files)
    store.write_ref(repo, MAIN, commit, "origin")
    return snapshot


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


# Publish and install


def test_what_is_installed_can_be_read_and_is_listed(store: Store) -> None:
    snapshot = fill(store)
    assert {name: (snapshot / name).read_bytes() for name in BODIES} == BODIES
    assert (snapshot / "sub/model.bin").readlink() == Path(f"../../../blobs/{sha256_of(BODIES['sub/model.bin']).hex}")
    [revision] = store.revisions()
    assert (revision.repo, revision.type, revision.commit, revision.refs) == ("acme/tiny", "model", COMMIT, ("main",))
    assert (revision.files, revision.size_bytes, revision.is_complete) == (3, 7002, True)
    assert not revision.is_proved
    assert revision.snapshot == str(snapshot)
    assert store.missing(listed(BODIES)) == []


def test_nothing_is_visible_before_it_is_published(store: Store) -> None:
    digest = sha256_of(b"abc")
    partial = store.open_partial(digest, 3)
    partial.write(0, memoryview(b"abc"))
    partial.record(0, 3, "peer:x")
    assert store.find_blob(digest) is None
    assert [path.name for path in store.cache.iterdir()] == [".locks"]
    assert store.find_partial(digest) == (partial.path, 3, partial.present)
    partial.close()
    assert store.find_partial(digest) is None


def test_a_published_blob_is_found_verified_and_its_partial_is_gone(store: Store) -> None:
    digest = sha256_of(b"abc")
    path = publish(store, b"abc", digest)
    found = store.find_blob(digest)
    assert found is not None
    assert (found.path, found.size_bytes, found.is_verified) == (path, 3, True)
    assert not partial_folder(store.cache, digest).exists()
    assert store.find_partial(digest) is None


def test_a_partly_fetched_revision_is_not_complete_and_says_what_lacks(store: Store) -> None:
    manifest = manifest_of(BODIES)
    store.save_manifest(manifest)
    publish(store, b"{}", git_sha1_of(b"{}"))
    store.install(REPO, COMMIT, [file for file in manifest.files if file.path == "config.json"])
    revision = store.revision(REPO, COMMIT)
    assert revision is not None
    assert revision.is_complete is False
    assert {file.path: file.is_present for file in revision.listing} == {
        "config.json": True,
        "empty": False,
        "sub/model.bin": False,
    }
    assert store.revision(REPO, COMMIT_2) is None


def test_missing_names_each_blob_once_and_finds_it_in_any_repo(store: Store) -> None:
    fill(store, {"a.json": b"{}"}, repo=OTHER)
    wanted = listed({"x.json": b"{}", "first": b"new", "second": b"new"})
    assert [file.path for file in store.missing(wanted)] == ["first"]


def test_a_blob_of_another_repo_is_taken_over_without_a_copy(store: Store) -> None:
    fill(store, repo=OTHER)
    snapshot = store.install(REPO, COMMIT_2, listed(BODIES))
    assert (snapshot / "sub/model.bin").read_bytes() == BODIES["sub/model.bin"]
    digest = sha256_of(BODIES["sub/model.bin"])
    assert blob_path(store.cache, REPO, digest).samefile(blob_path(store.cache, OTHER, digest))


def test_installing_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(BrokenCache):
        store.install(REPO, COMMIT, listed({"a": b"never came"}))
    assert not store.snapshot_path(REPO, COMMIT).exists()


def test_installing_twice_changes_nothing(store: Store) -> None:
    snapshot = fill(store)
    before = {path: path.lstat().st_mtime_ns for path in snapshot.rglob("*")}
    fill(store)
    assert {path: path.lstat().st_mtime_ns for path in snapshot.rglob("*")} == before


def test_a_wrong_link_is_replaced(store: Store) -> None:
    place = store.snapshot_path(REPO, COMMIT) / "config.json"
    place.parent.mkdir(parents=True)
    place.symlink_to("/etc/hostname")
    fill(store)
    assert place.read_bytes() == b"{}"
    assert names_below(store.cache / REPO.folder / "snapshots" / COMMIT) == sorted(BODIES)


def test_small_blobs_are_published_together(store: Store) -> None:
    bodies = [b"%d" % number for number in range(40)]
    store.publish_small(REPO, [(git_sha1_of(body), body) for body in bodies])
    assert all(blob_path(store.cache, REPO, git_sha1_of(body)).read_bytes() == body for body in bodies)
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 40
    found = store.find_blob(git_sha1_of(b"7"))
    assert found is not None
    assert found.is_verified
    store.publish_small(REPO, [])


def fill_at_once(store: Store, bodies: dict[str, bytes], commit: Commit = COMMIT) -> Path:
    """What an `add` does with small files."""
    manifest = manifest_of(bodies, commit)
    store.save_manifest(manifest)
    store.publish_files(REPO, commit, manifest.files, {file.digest: bodies[file.path] for file in manifest.files})
    return store.snapshot_path(REPO, commit)


def test_small_files_are_published_and_installed_in_one_go(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    for commit in (COMMIT, COMMIT, COMMIT_2):
        there = fill_at_once(store, bodies, commit)
        assert {name: (there / name).read_bytes() for name in bodies} == bodies
        assert all((there / name).is_symlink() for name in bodies)
    assert store.missing(listed(bodies)) == []
    assert all(revision.is_complete and revision.files == 4 for revision in store.revisions(REPO))
    assert all(found.is_verified for file in listed(bodies) if (found := store.find_blob(file.digest)))
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 3


def test_without_links_small_files_are_moved_too(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    with (
        mock.patch.object(Path, "symlink_to", side_effect=PermissionError(1, "Operation not permitted")),
        mock.patch("os.link", side_effect=PermissionError(1, "Operation not permitted")),
    ):
        there = fill_at_once(store, bodies)
    assert {name: (there / name).read_bytes() for name in bodies} == bodies
    assert names_below(store.cache / REPO.folder / "blobs") == []
    assert store.missing(listed(bodies)) == []
    found = store.find_blob(sha256_of(BODIES["sub/model.bin"]))
    assert found is not None and found.is_verified


def test_a_blob_that_another_process_published_first_stays(store: Store) -> None:
    digest = sha256_of(b"abc")
    blob = blob_path(store.cache, REPO, digest)
    partial = store.open_partial(digest, 3)
    partial.write(0, memoryview(b"abc"))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"abc")
    inode = blob.stat().st_ino
    assert store.publish_blob(partial, REPO) == blob
    assert blob.stat().st_ino == inode
    assert not partial_folder(store.cache, digest).exists()
    found = store.find_blob(digest)
    assert found is not None
    assert not found.is_verified


def test_a_blob_of_the_wrong_size_or_known_to_be_wrong_is_replaced(store: Store) -> None:
    for body, there in ((b"abc", b"abcd"), (b"def", b"xyz")):
        digest = sha256_of(body)
        blob = blob_path(store.cache, REPO, digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(there)
        found = store.find_blob(digest, REPO)
        assert found is not None
        assert not store.verify(found)
        publish(store, body, digest)
        assert blob.read_bytes() == body


PUBLISH = """
import sys
from pathlib import Path
from hfpeer.cache.store import Store
from hfpeer.names import Digest, RepoId
store = Store(Path(sys.argv[1]), Path(sys.argv[2]))
partial = store.open_partial(Digest.parse(sys.argv[3]), 3)
partial.write(0, memoryview(b"abc"))
print("ready", flush=True)
sys.stdin.readline()
print(store.publish_blob(partial, RepoId.parse(sys.argv[4])), flush=True)
store.close()
"""


def test_two_processes_publish_one_blob_and_one_wins(store: Store, tmp_path: Path) -> None:
    digest = sha256_of(b"abc")
    command = [sys.executable, "-c", PUBLISH, store.cache, tmp_path / "home 2", str(digest), "acme/tiny"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(Locked):
            store.open_partial(digest, 3)
        store.publish_small(REPO, [(digest, b"abc")])
        inode = blob_path(store.cache, REPO, digest).stat().st_ino
        said, _ = other.communicate("go\n", timeout=30)
        assert said.strip() == str(blob_path(store.cache, REPO, digest))
        assert blob_path(store.cache, REPO, digest).stat().st_ino == inode
    finally:
        other.kill()
        other.communicate()
    assert names_below(store.cache / REPO.folder) == [f"blobs/{digest.hex}"]


def test_a_published_folder_is_copied_and_checked(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"mine")
    blob = store.adopt_blob(path, git_sha1_of(b"mine"), REPO)
    assert blob.read_bytes() == b"mine"
    assert not blob.samefile(path)
    path.write_bytes(b"changed since it was hashed")
    with pytest.raises(CorruptData):
        store.adopt_blob(path, git_sha1_of(b"as it was"), REPO)
    assert len(names_below(store.cache / REPO.folder / "blobs")) == 1
    with pytest.raises(BrokenCache):
        store.adopt_blob(tmp_path / "none", git_sha1_of(b"x"), REPO)


def test_a_published_ref_is_written_last_and_bare(store: Store) -> None:
    fill(store)
    ref = store.cache / REPO.folder / "refs" / "main"
    assert ref.read_bytes() == COMMIT.encode()
    pull = Revision("refs/pr/1")
    store.write_ref(REPO, pull, COMMIT, "mirror")
    assert (store.cache / REPO.folder / "refs/refs/pr/1").read_text() == COMMIT
    known = store.read_ref(REPO, pull)
    assert known is not None
    assert (known[0], known[2]) == (COMMIT, "mirror")
    assert time.time() - 60 < known[1] <= time.time()


def test_a_ref_to_a_commit_without_a_snapshot_is_known_but_not_written(store: Store) -> None:
    store.write_ref(REPO, MAIN, COMMIT, "origin")
    known = store.read_ref(REPO, MAIN)
    assert known is not None
    assert known[0] == COMMIT
    assert not (store.cache / REPO.folder).exists()


def test_a_ref_another_tool_moved_since_is_believed(store: Store) -> None:
    fill(store)
    ref = store.cache / REPO.folder / "refs" / "main"
    ref.write_text(COMMIT_2)
    os.utime(ref, (time.time() + 5, time.time() + 5))
    known = store.read_ref(REPO, MAIN)
    assert known is not None
    assert (known[0], known[2]) == (COMMIT_2, "cache")


def test_without_links_files_are_moved_as_the_hub_client_does(store: Store) -> None:
    bodies = {**BODIES, "same.json": b"{}"}
    with (
        mock.patch.object(Path, "symlink_to", side_effect=PermissionError(1, "Operation not permitted")),
        mock.patch("os.link", side_effect=PermissionError(1, "Operation not permitted")),
    ):
        snapshot = fill(store, bodies)
        fill(store, bodies)
        fill(store, bodies, COMMIT_2)
    for commit in (COMMIT, COMMIT_2):
        there = store.snapshot_path(REPO, commit)
        assert {name: (there / name).read_bytes() for name in bodies} == bodies
        assert not any(path.is_symlink() for path in there.rglob("*"))
    assert names_below(store.cache / REPO.folder / "blobs") == []
    assert store.missing(listed(bodies)) == []
    found = store.find_blob(sha256_of(BODIES["sub/model.bin"]))
    assert found is not None
    assert found.is_verified
    assert found.path.is_relative_to(snapshot.parent)


def test_files_meet_in_a_snapshot_with_links_again(store: Store) -> None:
    download(store.cache, BODIES, links=False, tree=True)
    store.scan()
    assert store.missing(listed(BODIES)) == []
    store.install(REPO, COMMIT, listed(BODIES))
    store.install(REPO, COMMIT_2, listed(BODIES))
    assert {name: (store.snapshot_path(REPO, COMMIT_2) / name).read_bytes() for name in BODIES} == BODIES


def test_a_client_that_downloads_for_long_does_not_keep_us_from_publishing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfpeer.cache.inventory.LOCK_SECONDS", 0.05)
    path = lock_path(store.cache, REPO, git_sha1_of(b"{}"))
    path.parent.mkdir(parents=True)
    with FileLock(path):
        snapshot = fill(store, {"config.json": b"{}"})
    assert (snapshot / "config.json").read_bytes() == b"{}"


def test_a_client_that_waited_for_us_finds_the_blob(store: Store) -> None:
    """Hub protocol: a client blocked on the lock looks again once it has it."""
    digest = sha256_of(b"abc")
    blob = blob_path(store.cache, REPO, digest)
    seen: list[bool] = []

    def client() -> None:
        with FileLock(lock_path(store.cache, REPO, digest)):
            seen.append(blob.exists())

    with etag_lock(store.cache, REPO, digest):
        waiting = threading.Thread(target=client)
        waiting.start()
        snapshots.write_file(blob, "abc")
    waiting.join()
    assert seen == [True]


def test_a_blob_deleted_between_finding_and_linking_leaves_no_dangling_link(store: Store) -> None:
    publish(store, b"{}", git_sha1_of(b"{}"), OTHER)
    store.install(REPO, COMMIT, listed({"config.json": b"{}"}))
    blob = blob_path(store.cache, REPO, git_sha1_of(b"{}"))
    blob.unlink()
    snapshot = store.install(REPO, COMMIT, listed({"config.json": b"{}"}))
    assert (snapshot / "config.json").read_bytes() == b"{}"


def test_what_nobody_hashed_is_named_before_it_is_installed_elsewhere(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    publish(store, b"new", git_sha1_of(b"new"))
    files = listed({**BODIES, "new": b"new"})
    assert store.missing(files) == []
    unverified = store.unverified_of(files)
    assert {blob.digest for blob in unverified} == {file.digest for file in listed(BODIES)}
    assert all(store.verify(blob) for blob in unverified)
    assert store.unverified_of(files) == []


def test_many_installs_at_once_add_up(store: Store) -> None:
    bodies = {f"{number}": b"%d" % number for number in range(64)}
    manifest = manifest_of(bodies)
    store.save_manifest(manifest)

    def work(part: int) -> None:
        files = manifest.files[part::4]
        for file in files:
            store.publish_small(REPO, [(file.digest, bodies[file.path])])
            store.install(REPO, COMMIT, [file])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [revision] = store.revisions()
    assert (revision.files, revision.is_complete) == (64, True)
    assert revision.size_bytes == sum(map(len, bodies.values()))


# Trust and sharing


def test_a_blob_somebody_changed_is_not_believed_any_more(store: Store) -> None:
    digest = sha256_of(b"abc")
    path = publish(store, b"abc", digest)
    store.set_share(REPO, True)
    assert store.shared_blob(digest) is not None
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert store.shared_blob(digest) is None
    found = store.find_blob(digest)
    assert found is not None
    assert not found.is_verified
    assert not store.verify(found)
    assert store.find_blob(digest) is None
    assert path.exists()
    assert [file.path for file in store.missing(listed({"x.bin": b"abc"}))] == ["x.bin"]


def test_a_blob_somebody_deleted_is_missing(store: Store) -> None:
    publish(store, b"abc", sha256_of(b"abc")).unlink()
    assert store.find_blob(sha256_of(b"abc")) is None
    assert len(store.missing(listed({"x.bin": b"abc"}))) == 1


def test_a_blob_that_cannot_be_read_does_not_come_up_again_and_again(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    store.scan()
    [blob] = store.unverified(5)
    with mock.patch("os.preadv", side_effect=OSError(5, "Input/output error")):
        assert not store.verify(blob)
    assert store.unverified(5) == []


def test_a_blob_known_to_be_wrong_is_not_found_again_by_looking_into_its_repo(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    blob = blob_path(store.cache, REPO, git_sha1_of(b"abc"))
    blob.write_bytes(b"xyz")
    found = store.find_blob(git_sha1_of(b"abc"), REPO)
    assert found is not None
    assert not store.verify(found)
    assert store.find_blob(git_sha1_of(b"abc"), REPO) is None
    assert store.unverified(5) == []


@pytest.mark.parametrize("visibility", list(Visibility))
def test_only_public_repos_are_shared_unless_the_owner_says_otherwise(store: Store, visibility: Visibility) -> None:
    digest = sha256_of(b"abc")
    publish(store, b"abc", digest)
    assert store.visibility(REPO) is Visibility.UNKNOWN
    store.set_visibility(REPO, visibility)
    is_public = visibility is Visibility.PUBLIC
    assert store.is_shared(REPO) is is_public
    assert (store.shared_blob(digest) is not None) is is_public
    for word in (True, False):
        store.set_share(REPO, word)
        assert store.is_shared(REPO) is store.is_blob_shared(digest) is (store.shared_blob(digest) is not None) is word
    store.set_share(REPO, None)
    assert store.is_shared(REPO) is is_public


def test_a_blob_in_a_private_and_a_public_repo_is_shared(store: Store) -> None:
    digest = sha256_of(b"abc")
    publish(store, b"abc", digest)
    store.set_visibility(OTHER, Visibility.PUBLIC)
    assert store.shared_blob(digest) is None
    publish(store, b"abc", digest, OTHER)
    shared = store.shared_blob(digest)
    assert shared is not None
    assert shared.path == blob_path(store.cache, OTHER, digest)


def test_a_blob_that_was_only_found_is_not_shared_until_it_is_verified(store: Store) -> None:
    download(store.cache, {"a": b"abc"})
    store.scan()
    store.set_share(REPO, True)
    digest = git_sha1_of(b"abc")
    assert store.is_blob_shared(digest)
    assert store.shared_blob(digest) is None
    [blob] = store.unverified(5)
    assert store.verify(blob)
    assert store.shared_blob(digest) is not None
    assert store.unverified(5) == []


def test_whoever_asks_for_range_after_range_does_not_make_the_catalogue_look_again(store: Store) -> None:
    digest, other = sha256_of(b"abc"), sha256_of(b"not here")
    publish(store, b"abc", digest)
    store.set_visibility(REPO, Visibility.PUBLIC)
    first = (store.shared_blobs([digest, other]), store.is_shared(REPO), store.is_shared(OTHER))
    assert first[0].keys() == {digest} and first[1:] == (True, False)
    with mock.patch.object(Catalog, "_reading", side_effect=AssertionError("it was asked")):
        assert (store.shared_blobs([digest, other]), store.is_shared(REPO), store.is_shared(OTHER)) == first


WITHDRAWALS: dict[str, Callable[[Store], object]] = {
    "the owner": lambda store: store.set_share(REPO, False),
    "its hub": lambda store: store.set_visibility(REPO, Visibility.GATED),
    "a removal": lambda store: store.remove(REPO),
}


@pytest.fixture
def beside(store: Store) -> Iterator[Store]:
    """The same cache as a command without a daemon opens it: another process, as far as SQLite can tell."""
    beside = Store(store.cache, store.home)
    yield beside
    beside.close()


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("by", WITHDRAWALS)
def test_what_is_not_shared_any_more_is_refused_to_the_very_next_who_asks(
    store: Store, beside: Store, by: str, is_elsewhere: bool
) -> None:
    fill(store)
    store.set_visibility(REPO, Visibility.PUBLIC)
    digest = sha256_of(BODIES["sub/model.bin"])
    for _ in range(3):
        assert store.shared_blob(digest) is not None
    WITHDRAWALS[by](beside if is_elsewhere else store)
    assert store.shared_blob(digest) is None
    assert not store.is_shared(REPO)


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_what_has_just_come_is_given_to_the_very_next_who_asks(store: Store, beside: Store, is_elsewhere: bool) -> None:
    writing = beside if is_elsewhere else store
    digest = sha256_of(b"abc")
    assert store.shared_blob(digest) is None
    publish(writing, b"abc", digest)
    assert store.shared_blob(digest) is None
    writing.set_visibility(REPO, Visibility.PUBLIC)
    assert store.shared_blob(digest) is not None


def test_what_others_did_is_known_with_the_scan_that_found_it(store: Store) -> None:
    digest = git_sha1_of(b"abc")
    store.set_share(REPO, True)
    assert store.shared_blob(digest) is None
    download(store.cache, {"a": b"abc"})
    store.scan()
    assert store.verify_all(store.unverified(5)) == []
    blob = store.shared_blob(digest)
    assert blob is not None
    blob.path.unlink()
    assert store.shared_blob(digest) is None


def test_the_owners_word_counts_at_once_whoever_wrote_it_down(store: Store, tmp_path: Path) -> None:
    store.set_visibility(REPO, Visibility.PUBLIC)
    assert store.is_shared(REPO)
    (tmp_path / "home" / "shares.json").write_text(json.dumps({REPO.folder: {"is_shared": False}}))
    assert not store.is_shared(REPO)


def test_who_asks_for_ever_new_digests_does_not_fill_the_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module, "MAX_REMEMBERED", 10)
    for number in range(100):
        store.shared_blob(sha256_of(b"%d" % number))
    assert len(store._shared._said.places) <= 11


def test_the_owners_word_outlives_the_catalogue(store: Store, tmp_path: Path) -> None:
    store.set_share(REPO, True)
    store.note_published(REPO)
    store.close()
    (tmp_path / "home" / "catalog.sqlite").unlink()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.is_shared(REPO)
    assert again.is_published(REPO)
    assert not again.is_published(OTHER)
    again.close()


def test_an_unreadable_word_of_the_owner_shares_nothing(store: Store, tmp_path: Path) -> None:
    store.set_visibility(REPO, Visibility.PUBLIC)
    (tmp_path / "home" / "shares.json").write_text("{broken")
    with pytest.raises(BrokenCache):
        store.is_shared(REPO)


# The catalogue can go


def test_a_lost_catalogue_is_rebuilt_from_the_disk(store: Store, tmp_path: Path) -> None:
    fill(store)
    before = store.revision(REPO, COMMIT)
    store.close()
    (tmp_path / "home" / "catalog.sqlite").unlink()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.revisions() == []
    again.scan()
    after = again.revision(REPO, COMMIT)
    assert before is not None
    assert after is not None
    assert (after.listing, after.refs, after.is_complete) == (before.listing, before.refs, True)
    assert again.missing(listed(BODIES)) == []
    again.close()


def test_statistics_add_up_over_restarts(store: Store, tmp_path: Path) -> None:
    store.note_received("peer", "node1", 10)
    store.note_received("peer", "node2", 5)
    store.note_received("origin", "hub", 1)
    store.note_sent(7)
    store.close()
    again = Store(tmp_path / "hub", tmp_path / "home")
    again.note_received("peer", "node1", 1)
    totals = again.totals()
    assert totals["received_bytes"] == {"peer": 16, "origin": 1}
    assert totals["received_by_source"] == {"node1": 11, "node2": 5, "hub": 1}
    assert totals["sent_bytes"] == 7
    again.close()


def test_statistics_that_cannot_be_written_now_are_written_later(store: Store) -> None:
    store.note_sent(3)
    with mock.patch.object(store._catalog, "add_traffic", side_effect=Locked("busy")):
        assert store.totals()["sent_bytes"] == 0
    assert store.totals()["sent_bytes"] == 3


def test_the_generation_grows_with_what_peers_should_hear_of(store: Store) -> None:
    seen = [store.generation]

    def grew() -> bool:
        seen.append(store.generation)
        return seen[-1] > seen[-2]

    fill(store)
    assert grew()
    store.set_visibility(REPO, Visibility.PUBLIC)
    assert grew()
    store.set_share(REPO, False)
    assert grew()
    store.scan()
    assert not grew()
    store.note_received("peer", "x", 1)
    assert not grew()
    store.remove(REPO)
    assert grew()


def test_a_manifest_is_kept_and_an_attested_one_never_replaces_a_proved_one(store: Store) -> None:
    from dataclasses import replace

    attested = manifest_of(BODIES)
    proved = replace(attested, commit_object=b"tree ...")
    assert store.load_manifest(REPO, COMMIT) is None
    fill(store)
    assert store.load_manifest(REPO, COMMIT) == attested
    store.save_manifest(proved)
    store.save_manifest(attested)
    assert store.load_manifest(REPO, COMMIT) == proved
    assert store.revisions()[0].is_proved
    path = store.home / "manifests" / REPO.folder / f"{COMMIT}.json"
    path.write_text("{")
    assert store.load_manifest(REPO, COMMIT) is None


# Removing


def test_removing_a_repo_leaves_nothing_of_it(store: Store) -> None:
    fill(store)
    fill(store, {"a.json": b"{}", "new": b"new"}, COMMIT_2)
    removed = store.remove(REPO)
    assert set(removed.commits) == {COMMIT, COMMIT_2}
    assert (removed.files, removed.freed_bytes) == (5, 7005)
    assert not (store.cache / REPO.folder).exists()
    assert store.revisions() == []
    assert store.read_ref(REPO, MAIN) is None
    assert store.load_manifest(REPO, COMMIT) is None
    assert store.totals()["size_bytes"] == 0


def test_removing_a_revision_keeps_what_another_needs(store: Store) -> None:
    fill(store)
    fill(store, {"config.json": b"{}", "new": b"new"}, COMMIT_2)
    removed = store.remove(REPO, COMMIT)
    assert removed.commits == (COMMIT,)
    assert removed.freed_bytes == 7000
    assert (store.snapshot_path(REPO, COMMIT_2) / "config.json").read_bytes() == b"{}"
    assert [revision.commit for revision in store.revisions()] == [COMMIT_2]
    assert store.find_blob(sha256_of(BODIES["sub/model.bin"])) is None
    assert store.find_blob(git_sha1_of(b"{}")) is not None
    assert (store.cache / REPO.folder / "refs/main").read_text() == COMMIT_2


def test_refs_to_a_removed_commit_go_with_it(store: Store) -> None:
    fill(store)
    store.write_ref(REPO, Revision("refs/pr/1"), COMMIT, "origin")
    fill(store, {"new": b"new"}, COMMIT_2)
    store.remove(REPO, COMMIT)
    assert names_below(store.cache / REPO.folder / "refs") == ["main"]
    assert store.read_ref(REPO, Revision("refs/pr/1")) is None
    assert not (store.cache / REPO.folder / "trees" / f"{COMMIT}.json").exists()


def test_removing_files_keeps_the_rest_of_the_revision(store: Store) -> None:
    fill(store)
    removed = store.remove(REPO, COMMIT, iter([FilePath("sub/model.bin"), FilePath("never/there")]))
    assert (removed.commits, removed.files, removed.freed_bytes) == ((), 1, 7000)
    revision = store.revision(REPO, COMMIT)
    assert revision is not None
    assert (revision.is_complete, revision.files) == (False, 2)
    assert not (store.snapshot_path(REPO, COMMIT) / "sub").exists()
    assert store.load_manifest(REPO, COMMIT) is not None
    assert store.remove(REPO, COMMIT, [FilePath("config.json"), FilePath("empty")]).commits == (COMMIT,)
    assert not (store.cache / REPO.folder).exists()


def test_removing_what_is_not_there_removes_nothing(store: Store) -> None:
    fill(store)
    assert store.remove(OTHER).files == 0
    assert store.remove(REPO, COMMIT_2).files == 0
    assert len(store.revisions()) == 1


def test_a_blob_two_repos_share_on_disk_frees_nothing_until_the_second_goes(store: Store) -> None:
    fill(store, repo=OTHER)
    fill(store)
    assert store.remove(REPO).freed_bytes == 0
    assert (store.snapshot_path(OTHER, COMMIT) / "sub/model.bin").read_bytes() == BODIES["sub/model.bin"]
    assert store.remove(OTHER).freed_bytes == 7002


def test_a_blob_that_somebody_is_working_on_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.cache.evict.LOCK_SECONDS", 0.1)
    fill(store)
    fill(store, {"new": b"new"}, COMMIT_2)
    digest = sha256_of(BODIES["sub/model.bin"])
    with etag_lock(store.cache, REPO, digest):
        store.remove(REPO, COMMIT)
    assert blob_path(store.cache, REPO, digest).exists()
    assert store.find_blob(digest) is not None


def test_a_link_made_while_blobs_are_removed_keeps_its_blob(store: Store) -> None:
    """The Hub client takes the lock, links, and lets go: what it linked meanwhile stays."""
    fill(store)
    fill(store, {"new": b"new"}, COMMIT_2)
    digest = sha256_of(BODIES["sub/model.bin"])
    place = store.snapshot_path(REPO, COMMIT_2) / "late.bin"
    gone = threading.Event()
    with etag_lock(store.cache, REPO, digest):
        remover = threading.Thread(target=lambda: (store.remove(REPO, COMMIT), gone.set()))
        remover.start()
        while store.snapshot_path(REPO, COMMIT).exists():
            assert remover.is_alive()
        time.sleep(0.05)
        place.symlink_to(f"../../blobs/{digest.hex}")
    assert gone.wait(10)
    remover.join()
    assert place.read_bytes() == BODIES["sub/model.bin"]


def test_the_shared_store_of_the_hub_client_is_left_alone(store: Store) -> None:
    payload = share_payload(store.cache, b"payload")
    store.scan()
    assert store.remove(REPO).freed_bytes == 0
    assert payload.read_bytes() == b"payload"
    assert not (store.cache / REPO.folder).exists()


def share_payload(cache: Path, body: bytes) -> Path:
    """A repo whose blob is a link into the store that the Hub client shares between repos."""
    payload = cache / "blobs" / "ab" / ("ab" + "0" * 62)
    payload.parent.mkdir(parents=True)
    payload.write_bytes(body)
    payload.chmod(0o444)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob = blob_path(cache, REPO, sha256_of(body))
    blob.parent.mkdir(parents=True)
    blob.symlink_to(f"../../blobs/ab/{payload.name}")
    place = cache / REPO.folder / "snapshots" / COMMIT / "model.bin"
    place.parent.mkdir(parents=True)
    place.symlink_to(f"../../blobs/{blob.name}")
    return payload


def test_a_blob_in_the_shared_store_is_found_verified_and_taken_over(store: Store) -> None:
    payload = share_payload(store.cache, b"payload")
    store.scan()
    digest = sha256_of(b"payload")
    found = store.find_blob(digest)
    assert found is not None
    assert store.verify(found)
    store.install(OTHER, COMMIT_2, listed({"x.bin": b"payload"}))
    assert (store.snapshot_path(OTHER, COMMIT_2) / "x.bin").read_bytes() == b"payload"
    payload.unlink()
    assert (store.snapshot_path(OTHER, COMMIT_2) / "x.bin").read_bytes() == b"payload"


def test_old_partials_are_swept(store: Store) -> None:
    partial = store.open_partial(sha256_of(b"abc"), 3)
    partial.close()
    assert store.sweep_partials(3600) == 0
    assert partials_folder(store.cache).is_dir()
    for path in partial_folder(store.cache, sha256_of(b"abc")).iterdir():
        os.utime(path, (1, 1))
    store.sweep_partials(3600)
    assert list(partials_folder(store.cache).iterdir()) == []


def test_no_temporary_file_is_left_when_the_disk_is_full(store: Store) -> None:
    from hfpeer.errors import NoSpace

    fill(store)
    before = names_below(store.cache)
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")), pytest.raises(NoSpace):
        store.publish_small(REPO, [(digest_of("x", b"new"), b"new")])
    with mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left")), pytest.raises(NoSpace):
        snapshots.write_ref(store.cache, REPO, Revision("dev"), COMMIT)
    assert names_below(store.cache) == before
