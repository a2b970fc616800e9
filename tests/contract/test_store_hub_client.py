"""The Hub client and hfpeer on one cache: each understands the files of the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from fakes.hub_cache import COMMIT, REPO, download, git_sha1_of, listed, manifest_of, sha256_of
from hfpeer.cache.index.scan import reading
from hfpeer.cache.store import Store
from hfpeer.names import Commit, RepoId, Revision

BODIES = {"config.json": b"{}", "sub/deep/model.bin": b"weights" * 1000, "empty": b""}
COMMIT_2 = Commit("d" * 40)
LEGACY = RepoId.parse("gpt2")
DATASET = RepoId.parse("acme/data", "dataset")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def fill(
    store: Store, bodies: dict[str, bytes], commit: Commit = COMMIT, repo: RepoId = REPO, only: str | None = None
) -> None:
    manifest = manifest_of(bodies, commit, repo)
    store.save_manifest(manifest)
    files = [file for file in manifest.files if only in (None, file.path)]
    store.ingester.ingest_many(repo, {file.digest: bodies[file.path] for file in files})
    store.ingester.install(repo, commit, files)
    store.refs.write(repo, Revision("main"), commit, "origin")


# Files of hfpeer, read by the client


def test_the_clients_scan_finds_the_installed_files_without_a_warning(store: Store) -> None:
    for repo in (REPO, LEGACY, DATASET):
        fill(store, BODIES, repo=repo)
    fill(store, {"config.json": b"{}"}, COMMIT_2)
    store.open_partial(sha256_of(b"under way"), 9).close()
    seen = scan_cache_dir(store.cache)
    assert seen.warnings == []
    assert {(repo.repo_id, repo.repo_type) for repo in seen.repos} == {
        ("acme/tiny", "model"),
        ("gpt2", "model"),
        ("acme/data", "dataset"),
    }
    tiny = next(repo for repo in seen.repos if repo.repo_id == "acme/tiny")
    assert {revision.commit_hash: revision.nb_files for revision in tiny.revisions} == {COMMIT: 3, COMMIT_2: 1}
    assert {ref: revision.commit_hash for ref, revision in tiny.refs.items()} == {"main": COMMIT_2}
    assert tiny.size_on_disk == 7002


def test_the_client_loads_the_snapshot_without_a_network(store: Store) -> None:
    fill(store, BODIES)
    for revision in ("main", str(COMMIT)):
        folder = snapshot_download("acme/tiny", revision=revision, cache_dir=store.cache, local_files_only=True)
        assert {name: Path(folder, name).read_bytes() for name in BODIES} == BODIES
    found = try_to_load_from_cache("acme/tiny", "sub/deep/model.bin", cache_dir=store.cache)
    assert found == str(store.snapshot_path(REPO, COMMIT) / "sub/deep/model.bin")


def test_the_client_knows_that_a_partly_fetched_snapshot_is_not_whole(store: Store) -> None:
    fill(store, BODIES, only="config.json")
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("acme/tiny", cache_dir=store.cache, local_files_only=True)
    folder = snapshot_download(
        "acme/tiny", cache_dir=store.cache, local_files_only=True, allow_patterns=["config.json"]
    )
    assert Path(folder, "config.json").read_bytes() == b"{}"


def test_the_clients_command_lists_and_removes_what_was_installed(store: Store, tmp_path: Path) -> None:
    fill(store, BODIES)
    said = hf(tmp_path, "cache", "ls", "--cache-dir", str(store.cache))
    assert "acme/tiny" in said
    hf(tmp_path, "cache", "rm", "model/acme/tiny", "--yes", "--cache-dir", str(store.cache))
    assert not (store.cache / REPO.folder).exists()
    assert store.scan().changed_repos == 1
    assert store.revisions.all() == []
    assert store.inventory.find(git_sha1_of(b"{}")) is None


def test_the_clients_prune_leaves_partials_and_named_revisions_alone(store: Store, tmp_path: Path) -> None:
    fill(store, BODIES)
    partial = store.open_partial(sha256_of(b"under way"), 9)
    hf(tmp_path, "cache", "prune", "--yes", "--cache-dir", str(store.cache))
    assert partial.path.exists()
    assert store.inventory.missing(listed(BODIES)) == []
    partial.remove()


def hf(home: Path, *arguments: str) -> str:
    environment = {**os.environ, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Files of the client, read by hfpeer


@pytest.mark.parametrize("repo", [REPO, LEGACY, DATASET])
@pytest.mark.parametrize("links", [True, False])
def test_a_download_by_the_client_is_catalogued(store: Store, repo: RepoId, links: bool) -> None:
    download(store.cache, BODIES, repo=repo, links=links, tree=True)
    result = store.scan()
    assert (result.repos, result.changed_repos, result.revisions, result.files) == (1, 1, 1, 3)
    revision = store.revisions.find(repo, COMMIT)
    assert revision is not None
    assert (revision.repo, revision.type) == (repo.full_name, repo.type.value)
    assert (revision.is_complete, revision.refs, revision.size_bytes) == (True, ("main",), 7002)
    assert {(file.path, file.digest) for file in revision.listing} == {
        (file.path, str(file.digest)) for file in listed(BODIES)
    }
    assert store.inventory.missing(listed(BODIES)) == []
    found = store.inventory.find(sha256_of(BODIES["sub/deep/model.bin"]))
    assert found is not None
    assert not found.is_verified
    assert store.inventory.verify(found)


def test_without_a_listing_completeness_is_unknown(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    assert store.revisions.all()[0].is_complete is None
    store.save_manifest(manifest_of({**BODIES, "more": b"x"}))
    assert store.revisions.all()[0].is_complete is False
    store.save_manifest(manifest_of(BODIES))
    assert store.revisions.all()[0].is_complete is True


def test_a_listing_that_appears_later_counts(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    download(store.cache, BODIES, tree=True)
    store.scan()
    assert store.revisions.all()[0].is_complete is True


def test_nested_refs_are_read(store: Store) -> None:
    download(store.cache, BODIES, ref="refs/pr/1")
    download(store.cache, BODIES, ref="dev/exp")
    (store.cache / REPO.folder / "refs" / "half").write_text("cccc")
    (store.cache / REPO.folder / "refs" / "binary").write_bytes(b"\xff\xfe")
    store.scan()
    assert set(store.revisions.all()[0].refs) == {"refs/pr/1", "dev/exp"}
    known = store.refs.read(REPO, Revision("dev/exp"))
    assert known is not None
    assert (known[0], known[2]) == (COMMIT, "cache")


def test_unfinished_foreign_and_broken_files_are_ignored(store: Store) -> None:
    snapshot = download(store.cache, BODIES)
    blobs = store.cache / REPO.folder / "blobs"
    names = (
        f"{'a' * 64}.0123abcd.incomplete",
        f"{'a' * 64}.incomplete",
        f"{'a' * 64}.lock",
        f"{'a' * 64}.part",
        f"{'a' * 64}.downloadInProgress",
        "notes.txt",
        "a" * 63,
        "A" * 64,
    )
    for name in names:
        (blobs / name).write_text("not a blob")
    (blobs / ("e" * 64)).mkdir()
    (blobs / ("f" * 64)).symlink_to("../../nowhere")
    (snapshot / "dangling").symlink_to("../../blobs/" + "9" * 64)
    (snapshot / "loop").symlink_to("loop")
    (snapshot / "md5etag").symlink_to("../../blobs/notes.txt")
    (snapshot.parent / "not-a-commit").mkdir()
    (snapshot.parent / ("e" * 40)).write_text("a file where a snapshot should be")
    (store.cache / "models--acme--no-snapshots" / "refs").mkdir(parents=True)
    (store.cache / "models--acme--file-snapshots").mkdir()
    (store.cache / "models--acme--file-snapshots" / "snapshots").write_text("x")
    (store.cache / "models--a--b--c" / "snapshots").mkdir(parents=True)
    (store.cache / "kernels--a--b" / "snapshots").mkdir(parents=True)
    (store.cache / "datasets--file").write_text("x")
    (store.cache / "CACHEDIR.TAG").write_text("x")
    (store.cache / ".DS_Store").write_text("x")
    result = store.scan()
    assert result.repos == 1
    assert len(result.skipped) == 3
    revision = store.revisions.find(REPO, COMMIT)
    assert revision is not None
    assert {(file.path, file.digest) for file in revision.listing} == {
        *((file.path, str(file.digest)) for file in listed(BODIES)),
        ("md5etag", ""),
    }
    assert len(store.inventory.unverified(100)) == 3


def test_a_link_that_leaves_the_cache_gives_no_blob_away(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    snapshot = download(store.cache, BODIES, tree=True)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(secret)
    store.scan()
    store.set_share(REPO, True)
    for blob in store.inventory.unverified(10):
        store.inventory.verify(blob)
    digests = [git_sha1_of(b"secret"), *(file.digest for file in listed(BODIES))]
    shared = [found for digest in digests if (found := store.shared.blob(digest)) is not None]
    assert all(found.path.resolve().is_relative_to(store.cache) for found in shared)


def test_a_scan_finds_new_and_removed_files(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    download(store.cache, {"new.json": b"new"}, COMMIT_2)
    (store.snapshot_path(REPO, COMMIT) / "config.json").unlink()
    assert store.scan().changed_repos == 1
    assert {revision.commit: revision.files for revision in store.revisions.all()} == {COMMIT: 2, COMMIT_2: 1}
    assert store.refs.read(REPO, Revision("main")) is not None
    assert store.scan_repo(REPO).changed_repos == 0


def test_files_removed_during_a_scan_do_not_come_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    download(store.cache, BODIES)
    download(store.cache, {"new.json": b"new"}, COMMIT_2)
    read = reading.read_repo
    reads: list[reading.RepoOnDisk] = []

    def read_and_remove(*arguments: Any) -> reading.RepoOnDisk:
        reads.append(read(*arguments))
        if len(reads) == 1:
            store.remove(REPO, COMMIT)
        return reads[-1]

    monkeypatch.setattr(reading, "read_repo", read_and_remove)
    store.scan()
    assert len(reads) == 2
    assert [revision.commit for revision in store.revisions.all()] == [COMMIT_2]


def test_an_unchanged_cache_is_not_read_again(store: Store) -> None:
    snapshot = download(store.cache, BODIES)
    for folder in [path for path in store.cache.rglob("*") if path.is_dir()]:
        os.utime(folder, (1_000_000, 1_000_000))
    store.scan()
    rows = store._catalog.files(REPO.folder, COMMIT)
    store._catalog.drop_files(REPO.folder, COMMIT, ["config.json"])
    store.scan()
    assert len(store._catalog.files(REPO.folder, COMMIT)) == len(rows) - 1
    os.utime(snapshot, (2_000_000, 2_000_000))
    store.scan()
    assert store._catalog.files(REPO.folder, COMMIT) == rows


def test_verified_stays_verified_over_a_scan(store: Store) -> None:
    download(store.cache, BODIES)
    store.scan()
    for blob in store.inventory.unverified(10):
        assert store.inventory.verify(blob)
    download(store.cache, {"more": b"more"}, COMMIT_2)
    store.scan()
    assert [blob.digest for blob in store.inventory.unverified(10)] == [git_sha1_of(b"more")]


def test_a_blob_the_client_fetched_since_the_last_scan_is_found_in_its_repo(store: Store) -> None:
    download(store.cache, BODIES)
    assert store.inventory.find(git_sha1_of(b"{}")) is None
    assert store.inventory.find(git_sha1_of(b"{}"), REPO) is not None
    assert store.scan_repo(REPO).changed_repos == 1
    assert store.inventory.missing(listed(BODIES)) == []


def test_a_repo_folder_that_is_a_link_to_another_place_works_and_is_removed(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.cache.mkdir(parents=True)
    (store.cache / REPO.folder).symlink_to(elsewhere)
    fill(store, BODIES)
    assert store.scan().repos == 1
    store.remove(REPO)
    assert not (store.cache / REPO.folder).is_symlink()
    assert not elsewhere.exists()


def test_a_scan_of_a_cache_that_is_not_there_finds_nothing(store: Store) -> None:
    assert store.scan().repos == 0
