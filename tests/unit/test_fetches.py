"""The registry of a node's fetches: what one fetch has brought, no other requests again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.transfer.events import Event
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.snapshot import SnapshotTransfer
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.swarm.finder import PeerFinder

SMALL, LARGE = b"small" * 100, bytes(3_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


class Hub(FakeSource):
    """A hub with one file."""

    def __init__(self, data: bytes) -> None:
        super().__init__("hub", data, "origin")


def commit_with(data: bytes, repo: str) -> Manifest:
    """A commit of one file."""
    file = ManifestFile(FilePath("w.bin"), len(data), digest_of(data))
    return Manifest(RepoId.from_api_path(f"models/acme/{repo}"), Commit("0" * 40), (file,))


def an_add(store: Store, fetches: Fetches, hub: Hub, manifest: Manifest) -> SnapshotTransfer:
    finder = PeerFinder(None, ())
    finder.upstreams = (hub,)  # type: ignore[assignment]
    return SnapshotTransfer(store, fetches, finder, manifest, manifest.files, lambda event: None)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_file_that_an_add_brought_since_another_looked_for_it_is_not_requested_again(
    store: Store, data: bytes
) -> None:
    fetches, hub = Fetches(store, "me", StallLimits.with_patience(1.0)), Hub(data)
    manifests = [commit_with(data, repo) for repo in ("one", "two")]
    adds = [an_add(store, fetches, hub, manifest) for manifest in manifests]
    missing = [store.inventory.missing(manifest.files) for manifest in manifests]
    for add, files in zip(adds, missing, strict=True):
        await add.run(files)
    assert hub.given_bytes == len(data)
    for manifest in manifests:
        file = store.snapshot_path(manifest.repo, manifest.commit) / "w.bin"
        assert await asyncio.to_thread(file.read_bytes) == data
    assert adds[1].totals.bytes_by_source == {}


async def test_a_blob_that_is_here_with_another_size_is_fetched(store: Store) -> None:
    """Its listing lied about the size: the bytes will show it."""
    fetches, hub = Fetches(store, "me", StallLimits.with_patience(1.0)), Hub(LARGE)
    manifest = commit_with(LARGE, "one")
    await an_add(store, fetches, hub, manifest).run(manifest.files)
    file = manifest.files[0]
    assert not fetches._is_here(WantedBlob(file.digest, 7, manifest.repo, manifest.commit, file.path))


async def test_an_add_whose_files_another_command_removes_meanwhile_says_so(store: Store) -> None:
    fetches, hub = Fetches(store, "me", StallLimits.with_patience(1.0)), Hub(SMALL)
    manifest = commit_with(SMALL, "one")
    place = store.snapshot_path(manifest.repo, manifest.commit) / "w.bin"
    finder = PeerFinder(None, ())
    finder.upstreams = (hub,)  # type: ignore[assignment]

    def remove(event: Event) -> None:
        place.unlink(missing_ok=True)

    add = SnapshotTransfer(store, fetches, finder, manifest, manifest.files, remove)
    with pytest.raises(BrokenCache, match=r"removed 1 of 1 file of acme/one during this add: w\.bin"):
        await add.run(manifest.files)
