"""Caches with a model and a dataset that share a blob, and archives of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fakes.hub.zoo import noise
from fakes.hub_cache import proved_manifest_of
from hfpeer.archive.export import plan_export, write_archive
from hfpeer.archive.have import Have
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.parts import archives_of
from hfpeer.archive.results import ImportReport
from hfpeer.archive.sources import ArchiveSource
from hfpeer.archive.store_target import import_into
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision

MODEL, DATA = RepoId.parse("acme/tiny"), RepoId.parse("acme/rows", "dataset")
SHARED = noise(1_300_000, "shared")
FILES = {
    "config.json": b"{}",
    "sub/folder/ünïcode name.txt": b"text",
    "sub/" + "long" * 30 + ".json": b"[]",
    "shared.bin": SHARED,
    "weights.bin": noise(2_500_000, "weights"),
    "again.bin": SHARED,
}
ROWS = {"README.md": b"# rows", "train.bin": SHARED, "empty.txt": b""}
AT = 1_700_000_000.0
MAIN = Revision("main")
Opener = Callable[[str], Store]


def fill(store: Store, repo: RepoId, bodies: Mapping[str, bytes], ref: str = "main") -> Manifest:
    manifest = proved_manifest_of(bodies, repo)
    store.save_manifest(manifest)
    store.ingester.ingest_many(repo, {file.digest: bodies[file.path] for file in manifest.files})
    store.ingester.install(repo, manifest.commit, manifest.files)
    store.refs.write(repo, Revision(ref), manifest.commit, "huggingface", AT)
    store.scan()
    return manifest


def revisions(store: Store) -> list[tuple[RepoId, Commit]]:
    store.scan()
    return [(RepoId.parse(one.repo, one.type), Commit(one.commit)) for one in store.revisions.all()]


def export(store: Store, path: Path, part_bytes: int | None = None, have: Have | None = None) -> Path:
    write_archive(plan_export(store, revisions(store), have), path, part_bytes)
    return path


def take(store: Store, *paths: Path, options: ImportOptions | None = None) -> ImportReport:
    (data,) = archives_of(paths)
    return import_into(store, ArchiveSource(data), options or ImportOptions()).run()


def contents(store: Store, repo: RepoId) -> dict[str, bytes]:
    """Path and bytes of the files that `main` of a repo shows to tools; empty without a ref."""
    answer = layout.ref_path(store.cache, repo, MAIN)
    if not answer.is_file():
        return {}
    snapshot = layout.snapshot_path(store.cache, repo, Commit.parse(answer.read_text()))
    return {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}


def check_nothing_wrong(store: Store) -> None:
    """Every visible file has its bytes, and a repo with a ref is whole."""
    for repo, bodies in ((MODEL, FILES), (DATA, ROWS)):
        assert contents(store, repo) in ({}, bodies)
        manifest = proved_manifest_of(bodies, repo)
        for file in manifest.files:
            blob = layout.blob_path(store.cache, repo, file.digest)
            assert not blob.exists() or blob.read_bytes() == bodies[file.path]
            link = layout.snapshot_file(store.cache, repo, manifest.commit, file.path)
            assert not link.is_symlink() or link.exists()
