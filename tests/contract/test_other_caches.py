"""A node with several cache folders: it reads and shares from all of them, and writes to the first only."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from fakes.hub.zoo import noise
from fakes.hub_cache import download, proved_manifest_of
from hfpeer.cache.cleaning.planning.requests import CleanRequest, parse_target
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk import linking
from hfpeer.cache.store import Store
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.operations import AddRequest, VerifyRequest
from hfpeer.errors import NotFound, StorageError
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.node.node import Node
from hfpeer.node.operations.cache.cleaning import CleaningOperations, CleaningParts
from hfpeer.peers.copies import CopyQuestions
from hfpeer.peers.notices import Notices
from hfpeer.resolver.resolver import Resolver
from hfpeer.transfer.events import CheckBegan, Event, Finished

MODEL = RepoId.parse("acme/tiny")
FILES = {"config.json": b"{}", "sub/notes.txt": b"notes", "weights.bin": noise(11_000_000, "weights")}
MAIN = Revision("main")


def fill(cache: Path, repo: RepoId = MODEL, bodies: Mapping[str, bytes] = FILES) -> Manifest:
    """A repo in a cache folder, as another node of ours has left it there: with its proof."""
    manifest = proved_manifest_of(bodies, repo)
    download(cache, bodies, manifest.commit, repo)
    write_proof(cache, manifest)
    return manifest


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A cache folder that a node only reads."""
    return tmp_path / "share" / "hub"


@pytest.fixture
def opened(tmp_path: Path, share: Path) -> Iterator[Callable[[], Store]]:
    stores: list[Store] = []

    def open_store() -> Store:
        stores.append(Store(tmp_path / "hub", tmp_path / "home", [share]))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def picture(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything below a folder with what a write would change."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path.relative_to(folder)): (facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_nlink)
        for path in paths
        for facts in [path.lstat()]
    }


def settings_of(tmp_path: Path, *others: Path) -> Settings:
    return read_settings(
        {
            "HFPEER_HOME": str(tmp_path / "home"),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HFPEER_READ_CACHES": ",".join(map(str, others)),
            "HFPEER_UPSTREAMS": "",
        }
    )


def with_node(settings: Settings, work: Callable[[Node], object]) -> object:
    async def run() -> object:
        node = Node(settings)
        await node.start(None)
        try:
            return await work(node)  # type: ignore[misc]
        finally:
            await node.stop()

    return asyncio.run(run())


def test_what_lies_in_another_folder_is_listed_with_it(opened: Callable[[], Store], share: Path) -> None:
    manifest = fill(share)
    store = opened()
    store.scan()
    (found,) = store.revisions.all()
    assert (found.commit, found.is_complete, found.cache) == (manifest.commit, True, str(share))
    assert found.snapshot.startswith(str(share)) and found.also_in == ()
    assert store.revisions.find(MODEL, manifest.commit) is not None
    assert store.refs.read(MODEL, MAIN) is not None
    assert store.totals()["files"] == 3
    assert store.inventory.missing(manifest.files) == []


def test_its_blobs_are_shared_once_they_are_verified(opened: Callable[[], Store], share: Path) -> None:
    manifest = fill(share)
    store = opened()
    store.scan()
    store.set_share(MODEL, True)
    digest = manifest.by_path[FilePath("weights.bin")].digest
    assert store.shared.blob(digest) is None
    assert store.inventory.verify_all(store.inventory.unverified(100)) == []
    blob = store.shared.blob(digest)
    assert blob is not None and blob.path.is_relative_to(share)
    assert store.shared.is_commit_shared(MODEL, manifest.commit)


def test_a_revision_in_two_folders_is_shown_once_as_it_is_in_the_complete_one(
    opened: Callable[[], Store], share: Path, tmp_path: Path
) -> None:
    manifest = fill(share)
    download(tmp_path / "hub", {"config.json": b"{}"}, manifest.commit, MODEL)
    store = opened()
    store.scan()
    (found,) = store.revisions.all()
    assert (found.cache, found.also_in, found.files) == (str(share), (str(tmp_path / "hub"),), 3)
    assert store.totals()["revisions"] == 1 and store.totals()["files"] == 3


@pytest.mark.parametrize("has_clones", [True, False])
def test_an_add_takes_no_byte_from_outside_and_leaves_the_other_folder_alone(
    tmp_path: Path, share: Path, has_clones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_clones:  # what a volume with shared blocks does, as far as bytes go
        monkeypatch.setattr(linking, "_clone", lambda old, new: bool(os.sendfile(new, old, 0, 1 << 30)) or True)
    manifest = fill(share)
    before, events = picture(share), list[Event]()

    async def work(node: Node) -> Finished:
        return await node.add(AddRequest(MODEL, MAIN), events.append)

    finished = with_node(settings_of(tmp_path, share), work)
    assert isinstance(finished, Finished)
    assert finished.bytes_by_source == {} and finished.copied_bytes == sum(map(len, FILES.values()))
    assert Path(finished.snapshot).is_relative_to(tmp_path / "hub")
    assert any(isinstance(event, CheckBegan) for event in events)
    offline = snapshot_download("acme/tiny", cache_dir=tmp_path / "hub", local_files_only=True)
    assert {
        str(path.relative_to(offline)): path.read_bytes() for path in Path(offline).rglob("*") if path.is_file()
    } == (dict(FILES))
    assert picture(share) == before
    assert manifest.commit == finished.commit


def test_wrong_bytes_in_another_folder_never_enter_the_first(tmp_path: Path, share: Path) -> None:
    manifest = fill(share)
    digest = manifest.by_path[FilePath("weights.bin")].digest
    (share / MODEL.folder / "blobs" / digest.hex).write_bytes(noise(11_000_000, "something else"))

    async def work(node: Node) -> None:
        with pytest.raises(NotFound, match=r"weights\.bin"):
            await node.add(AddRequest(MODEL, MAIN, is_local_only=True), lambda event: None)
        assert await asyncio.to_thread(node.store.inventory.find, digest) is None

    with_node(settings_of(tmp_path, share), work)
    assert not (tmp_path / "hub" / MODEL.folder / "blobs" / digest.hex).exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_while_it_is_copied_is_passed_over(
    tmp_path: Path, share: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    manifest = fill(share)

    def fails(old: int, new: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(linking, "_copy_range", fails)

    async def work(node: Node) -> None:
        with pytest.raises(NotFound, match="The cache lacks 3 files"):
            await node.add(AddRequest(MODEL, MAIN, is_local_only=True), lambda event: None)
        assert os.strerror(number) in node.store.caches.away[share]
        status = await node.status()
        assert os.strerror(number) in status.read_caches[str(share)]
        monkeypatch.undo()
        finished = await node.add(AddRequest(MODEL, MAIN, is_local_only=True), lambda event: None)
        assert finished.copied_bytes > 0, "the next command looks again"

    with_node(settings_of(tmp_path, share), work)
    assert manifest.files


def test_a_folder_that_is_unplugged_is_passed_over_and_comes_back_with_its_verdicts(
    opened: Callable[[], Store], share: Path, tmp_path: Path
) -> None:
    manifest = fill(share)
    store = opened()
    store.scan()
    store.inventory.verify_all(store.inventory.unverified(100))
    digest = manifest.by_path[FilePath("weights.bin")].digest
    generation = store.generation
    share.rename(tmp_path / "unplugged")
    assert store.inventory.find(digest) is None, "also before a scan has noticed it"
    store.scan()
    assert store.revisions.all() == [] and store.inventory.whole() == set() and store.totals()["files"] == 0
    assert store.generation > generation, "peers hear of it"
    assert "plug its disk in" in store.caches.away[share]
    share.mkdir()  # the mount point, without the disk
    store.scan()
    assert store.revisions.all() == [] and "mount its disk" in store.caches.away[share]
    share.rmdir()
    (tmp_path / "unplugged").rename(share)
    store.scan()
    assert store.caches.away == {} and len(store.revisions.all()) == 1
    found = store.inventory.find(digest)
    assert found is not None and found.is_verified, "its bytes are not hashed again"


def test_a_folder_that_gives_errors_is_passed_over(
    opened: Callable[[], Store], share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(share)
    fill(tmp_path / "hub", RepoId.parse("acme/mine"))
    store = opened()
    listdir = os.listdir

    def stale(path: str | Path) -> list[str]:
        if str(path) == str(share):
            raise OSError(116, "Stale file handle")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", stale)
    store.scan()
    assert [one.repo for one in store.revisions.all()] == ["acme/mine"]
    assert store.caches.away[share] == "it cannot be read: Stale file handle"


def test_what_is_in_another_folder_only_cannot_be_removed(tmp_path: Path, share: Path) -> None:
    fill(share)
    before = picture(share)
    store = Store(tmp_path / "hub", tmp_path / "home", [share])

    async def scanned() -> None:
        await asyncio.to_thread(store.scan)

    settings = read_settings({"HFPEER_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub")})
    questions = CopyQuestions("00" * 8, Notices())
    parts = CleaningParts(settings, store, Resolver(store, None), questions, None, "00" * 8, list, scanned)
    with pytest.raises(StorageError, match="does not write there") as caught:
        asyncio.run(CleaningOperations(parts).clean(CleanRequest((parse_target(str(MODEL)),))))
    assert caught.value.exit_code == 8 and "conf cache rm" in str(caught.value.hint)
    assert picture(share) == before
    store.close()


def test_a_removal_from_the_first_folder_keeps_what_is_known_of_the_other(
    opened: Callable[[], Store], share: Path, tmp_path: Path
) -> None:
    manifest = fill(share)
    fill(tmp_path / "hub")
    store = opened()
    store.scan()
    assert store.revisions.all()[0].also_in == (str(share),)
    removed = store.remove(MODEL)
    assert removed.kept_in == (str(share),) and removed.files == 3
    (left,) = store.revisions.all()
    assert (left.cache, left.is_complete, left.is_proved) == (str(share), True, True)
    assert store.manifests.load(MODEL, Commit(manifest.commit)) is not None


def test_a_session_with_another_first_folder_leaves_the_verdicts_on_the_usual_one(tmp_path: Path) -> None:
    """`HF_HUB_CACHE=… hfpeer …` shares the catalog with the usual cache."""
    manifest = fill(tmp_path / "hub")
    store = Store(tmp_path / "hub", tmp_path / "home")
    store.scan()
    store.inventory.verify_all(store.inventory.unverified(100))
    store.close()
    beside = Store(tmp_path / "session", tmp_path / "home")
    beside.scan()
    assert beside.revisions.all() == [] and beside.inventory.find(manifest.files[0].digest) is None
    beside.close()
    again = Store(tmp_path / "hub", tmp_path / "home")
    again.scan()
    assert again.inventory.unverified(100) == [] and len(again.revisions.all()) == 1
    again.close()


def test_a_folder_of_an_earlier_session_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    fill(tmp_path / "session")
    store = Store(tmp_path / "session", tmp_path / "home")
    store.scan()
    store.close()
    shutil.rmtree(tmp_path / "session")
    for _ in range(2):
        store = Store(tmp_path / "hub", tmp_path / "home")
        store.scan()
        with store.traffic._database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar() == 0
        store.close()


def test_verify_names_the_folder_of_each_finding(tmp_path: Path, share: Path) -> None:
    manifest = fill(share)
    fill(tmp_path / "hub")
    digest = manifest.by_path[FilePath("weights.bin")].digest
    (share / MODEL.folder / "blobs" / digest.hex).write_bytes(noise(11_000_000, "something else"))
    before = picture(share)

    async def work(node: Node) -> None:
        report = await node.verify(VerifyRequest(), lambda event: None)
        assert {one.cache for one in report.revisions} == {str(tmp_path / "hub"), str(share)}
        (wrong,) = [one for one in report.findings if one.severity == "wrong"]
        assert (wrong.kind, wrong.cache, report.exit_code) == ("wrong_bytes", str(share), 7)

    with_node(settings_of(tmp_path, share), work)
    assert picture(share) == before
