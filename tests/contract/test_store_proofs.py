"""The proof in a repo's own folder: a copy of the folder carries it, and a node that knows nothing else reads it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from fakes.hub_cache import COMMIT as LISTED
from fakes.hub_cache import REPO, download, manifest_of, proved_manifest_of
from fakes.other_user import NOBODY
from hfpeer.cache.commits import proofs
from hfpeer.cache.disk.layout import blob_path, proof_path, proofs_folder, tree_path
from hfpeer.cache.store import Store
from hfpeer.manifest import Manifest
from hfpeer.names import FilePath, RepoId, Revision

BODIES = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000}
MANIFEST = proved_manifest_of(BODIES)
COMMIT = MANIFEST.commit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Store]:
    """A node on another machine, to which a cache is copied."""
    store = Store(tmp_path / "elsewhere" / "hub", tmp_path / "elsewhere" / "home")
    yield store
    store.close()


def fill(store: Store, manifest: Manifest = MANIFEST) -> None:
    store.save_manifest(manifest)
    store.ingester.ingest_many(REPO, {file.digest: BODIES[file.path] for file in manifest.files})
    store.ingester.install(REPO, manifest.commit, manifest.files)
    store.refs.write(REPO, Revision("main"), manifest.commit, "origin")


def carry(store: Store, elsewhere: Store) -> None:
    shutil.copytree(store.cache / REPO.folder, elsewhere.cache / REPO.folder, symlinks=True)


def test_a_copy_of_the_repos_folder_is_proved_elsewhere(store: Store, elsewhere: Store) -> None:
    fill(store)
    carry(store, elsewhere)
    elsewhere.scan()
    assert elsewhere.manifests.load(REPO, COMMIT) == MANIFEST
    (found,) = elsewhere.revisions.of(REPO)
    assert found.is_proved and found.is_complete


def test_the_proof_is_read_once_and_then_kept_in_the_home(store: Store, elsewhere: Store) -> None:
    fill(store)
    carry(store, elsewhere)
    assert elsewhere.manifests.load(REPO, COMMIT) == MANIFEST
    shutil.rmtree(proofs_folder(elsewhere.cache, REPO))
    assert elsewhere.manifests.load(REPO, COMMIT) == MANIFEST


def test_a_proof_that_comes_after_the_snapshot_is_written_too(store: Store) -> None:
    fill(store, replace(MANIFEST, commit_object=None))
    assert not proof_path(store.cache, REPO, COMMIT).exists()
    store.save_manifest(MANIFEST)
    assert proofs.read_proof(store.cache, REPO, COMMIT) == MANIFEST


def test_no_proof_is_written_for_a_listing_without_one(store: Store) -> None:
    fill(store, manifest_of(BODIES))
    assert not proofs_folder(store.cache, REPO).exists()


@pytest.mark.parametrize(
    "lie",
    [
        "no manifest",
        replace(MANIFEST, files=MANIFEST.files[:1]).to_json(),
        replace(MANIFEST, commit_object=None).to_json(),
        replace(MANIFEST, repo=RepoId.parse("acme/other")).to_json(),
    ],
    ids=["no manifest", "a file less", "without its commit object", "of another repo"],
)
def test_a_file_that_proves_nothing_counts_as_missing(store: Store, elsewhere: Store, lie: str) -> None:
    fill(store)
    proof_path(store.cache, REPO, COMMIT).write_text(lie)
    carry(store, elsewhere)
    assert elsewhere.manifests.load(REPO, COMMIT) is None


def test_a_file_that_is_too_large_is_not_read(store: Store, elsewhere: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MAX_LISTING_BYTES", 100)
    fill(store)
    assert not proof_path(store.cache, REPO, COMMIT).exists()
    proofs_folder(store.cache, REPO).mkdir()
    proof_path(store.cache, REPO, COMMIT).write_text(MANIFEST.to_json())
    carry(store, elsewhere)
    assert elsewhere.manifests.load(REPO, COMMIT) is None


def test_a_link_in_place_of_the_folder_is_neither_written_through_nor_read(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    proofs_folder(store.cache, REPO).parent.mkdir(parents=True)
    proofs_folder(store.cache, REPO).symlink_to(outside)
    fill(store)
    assert list(outside.iterdir()) == []
    (outside / f"{COMMIT}.json").write_text(MANIFEST.to_json())
    assert proofs.read_proof(store.cache, REPO, COMMIT) is None


def test_a_link_in_place_of_a_proof_is_not_read(store: Store, tmp_path: Path) -> None:
    fill(store)
    path = proof_path(store.cache, REPO, COMMIT)
    path.replace(tmp_path / "proof")
    path.symlink_to(tmp_path / "proof")
    assert proofs.read_proof(store.cache, REPO, COMMIT) is None


def test_other_users_may_read_a_proof_as_they_may_read_a_blob(store: Store) -> None:
    fill(store)
    blob = next((store.cache / REPO.folder / "blobs").iterdir())
    mode = stat.S_IMODE(proof_path(store.cache, REPO, COMMIT).stat().st_mode)
    assert mode == stat.S_IMODE(blob.stat().st_mode)
    assert mode == stat.S_IMODE((store.cache / REPO.folder / "trees" / f"{COMMIT}.json").stat().st_mode)


def test_the_hub_client_has_nothing_to_complain_of(store: Store) -> None:
    fill(store)
    assert scan_cache_dir(store.cache).warnings == []


def test_a_removal_takes_the_proof_along(store: Store) -> None:
    fill(store)
    assert store.remove(REPO, COMMIT).left == ()
    assert not (store.cache / REPO.folder).exists()
    assert store.manifests.load(REPO, COMMIT) is None


def test_a_wrong_manifest_is_forgotten_with_its_proof(store: Store) -> None:
    fill(store)
    store.forget_manifest(REPO, COMMIT)
    assert store.manifests.load(REPO, COMMIT) is None
    assert not proofs_folder(store.cache, REPO).exists()


def test_a_revision_with_a_blob_of_a_wrong_size_is_not_complete(store: Store) -> None:
    fill(store)
    store.scan()
    blob = (store.snapshot_path(REPO, COMMIT) / "sub/model.bin").resolve()
    with blob.open("r+b") as file:
        file.truncate(3000)
    store.scan_blobs(None)
    found = store.revisions.find(REPO, COMMIT)
    assert found is not None and found.is_complete is False
    assert [(file.path, file.size_bytes, file.is_present) for file in found.listing] == [
        ("config.json", 2, True),
        ("sub/model.bin", 7000, False),
    ]


def test_the_list_of_the_hub_client_makes_a_manifest_without_a_proof(store: Store) -> None:
    download(store.cache, BODIES, tree=True)
    listed = store.manifests.listed(REPO, LISTED)
    assert listed is not None
    assert listed.is_attested
    assert {file.path: (file.digest, file.size_bytes) for file in listed.files} == {
        file.path: (file.digest, file.size_bytes) for file in MANIFEST.files
    }
    assert store.manifests.load(REPO, LISTED) is None
    tree_path(store.cache, REPO, LISTED).write_text("[]")
    assert store.manifests.listed(REPO, LISTED) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_the_list_of_another_user_is_not_taken(store: Store, tmp_path: Path) -> None:
    download(store.cache, BODIES, tree=True)
    path = tree_path(store.cache, REPO, LISTED)
    os.chown(path, NOBODY, NOBODY)
    assert store.manifests.listed(REPO, LISTED) is None
    mine = tmp_path / "mine"
    path.rename(mine)
    os.chown(mine, 0, 0)
    path.symlink_to(mine)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    assert store.manifests.listed(REPO, LISTED) is None


@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_file_in_the_place_of_a_blob_is_hashed_before_it_counts(store: Store, path: str) -> None:
    file = MANIFEST.file(FilePath(path))
    blob = blob_path(store.cache, REPO, file.digest)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"X" * file.size_bytes)
    fill(store)
    assert blob.read_bytes() == BODIES[path]


def test_a_forged_proof_proves_nothing_though_the_home_has_the_same_text(store: Store) -> None:
    fill(store)
    place = proof_path(store.cache, REPO, COMMIT)
    assert store.verify(is_quick=True).revisions[0].grade == "proved"
    forged = place.read_text().replace("sub/model.bin", "sub/forged.bin")
    place.write_text(forged)
    store.manifests.path(REPO, COMMIT).write_text(forged)
    assert "bad_proof" in {finding.kind for finding in store.verify(is_quick=True).findings}
