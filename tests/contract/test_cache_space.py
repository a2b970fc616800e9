"""All that lies in a cache: its space adds up to what `du` says, and each thing is named for what it is.

The cache is made by the Hub client from the hub simulator; leftovers are those that its downloads leave.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.utils import _shared_blobs

from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.hub_cache import git_sha1_of, manifest_of, sha256_of
from fakes.shared_store import share
from hfpeer.cache.cleaning.facts import CacheReport, Leftover, StoredRevision
from hfpeer.cache.disk.layout import partial_folder
from hfpeer.cache.store import Store
from hfpeer.names import Commit, RepoId
from hfpeer.ranges import MIB

TINY, ROWS = RepoId.parse("acme/tiny"), RepoId.parse("acme/rows", "dataset")
WEIGHTS, ADAPTER, PARQUET = noise(1_200_000, "weights"), noise(300_000, "adapter"), noise(500_000, "rows")
OLD: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Lfs(WEIGHTS), "old.bin": Lfs(ADAPTER)}
NEW: dict[str, Content] = {"config.json": b'{"v":2}', "model.safetensors": Lfs(WEIGHTS)}


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A cache as the Hub client left it: two revisions of a model, of which one has no ref any more, and a dataset.
    The commits of the model, the older one first. Not to be changed."""
    cache = tmp_path_factory.mktemp("downloaded") / "hub"
    with HubSimulator() as hub:
        old = hub.put_repo("model", str(TINY), OLD)
        snapshot_download(str(TINY), cache_dir=cache, endpoint=hub.endpoint)
        new = hub.repo("model", str(TINY)).commit(NEW, replaces_all=True)
        snapshot_download(str(TINY), cache_dir=cache, endpoint=hub.endpoint)
        hub.put_repo("dataset", ROWS.full_name, {"train.parquet": Lfs(PARQUET), "README.md": b"# rows"})
        snapshot_download(ROWS.full_name, repo_type="dataset", cache_dir=cache, endpoint=hub.endpoint)
    return cache, old, new


@pytest.fixture
def store(downloaded: tuple[Path, str, str], tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(downloaded[0], tmp_path / "hub", symlinks=True)
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def reported(store: Store, **beside: Path) -> CacheReport:
    store.scan_blobs(None)
    return store.cleaner.report(list(beside.items()))


def du(folder: Path) -> int:
    words = subprocess.run(["du", "-s", "--block-size=1", str(folder)], capture_output=True, text=True, check=True)
    return int(words.stdout.split()[0])


def space(report: CacheReport, place: str = "cache") -> dict[str, int]:
    return {usage.kind: usage.disk_bytes for one in report.places if one.name == place for usage in one.kinds}


def left(report: CacheReport, kind: str) -> list[Leftover]:
    return [one for one in report.leftovers if one.kind == kind]


def find(report: CacheReport, commit: str) -> StoredRevision:
    (found,) = (one for one in report.revisions if one.revision.commit == commit)
    return found


def test_the_kinds_and_the_repos_add_up_to_what_du_says(store: Store) -> None:
    os.link(next((store.cache / TINY.folder / "blobs").iterdir()), store.cache / TINY.folder / "blobs" / ("0" * 64))
    (store.cache / "tool.log").write_text("x" * 9000)
    (store.cache / ".locks" / "odd").mkdir()
    report = reported(store)
    (cache,) = (place for place in report.places if place.name == "cache")
    assert cache.disk_bytes == du(store.cache) == sum(space(report).values())
    assert {one.repo: one.disk_bytes for one in report.repos} == {
        str(repo): du(store.cache / repo.folder) for repo in (TINY, ROWS)
    }
    (home,) = (place for place in report.places if place.name == "home")
    assert home.disk_bytes == du(store.home)
    assert space(report)["foreign"] >= 9000
    assert 0 < report.free_bytes < report.volume_bytes


def test_a_revision_owns_the_bytes_that_no_other_one_uses(store: Store, downloaded: tuple[Path, str, str]) -> None:
    _, old, new = downloaded
    report = reported(store)
    assert find(report, old).own_bytes == len(ADAPTER) + 2
    assert find(report, new).own_bytes == 7
    assert find(report, old).revision.size_bytes == len(WEIGHTS) + len(ADAPTER) + 2
    assert (find(report, old).revision.refs, find(report, new).revision.refs) == ((), ("main",))
    before = du(store.cache)
    store.remove(TINY, Commit(old))
    assert before - du(store.cache) >= len(ADAPTER)


def test_bytes_with_a_name_outside_of_the_cache_are_no_ones_own(
    store: Store, downloaded: tuple[Path, str, str], tmp_path: Path
) -> None:
    blob = store.cache / TINY.folder / "blobs" / sha256_of(ADAPTER).hex
    (tmp_path / "old.bin").hardlink_to(blob)
    assert find(reported(store), downloaded[1]).own_bytes == 2


def test_a_cache_without_leftovers_has_none(store: Store) -> None:
    assert reported(store).leftovers == ()


def test_a_partial_says_what_it_is_of_and_how_much_is_there(store: Store) -> None:
    bodies = {"big.bin": noise(4_000_000, "big")}
    store.save_manifest(manifest_of(bodies, repo=TINY))
    digest = sha256_of(bodies["big.bin"])
    partial = store.open_partial(digest, 4_000_000)
    partial.write(0, memoryview(bodies["big.bin"])[:MIB])
    partial.record(0, MIB, "origin")
    (found,) = left(reported(store), "partial")
    assert (found.digest, found.repo, found.file) == (str(digest), "acme/tiny", "big.bin")
    assert (found.size_bytes, found.whole_bytes, found.is_in_use) == (MIB, 4_000_000, True)
    assert found.path == str(partial_folder(store.cache, digest)) and found.disk_bytes >= MIB
    partial.close()
    report = reported(store)
    assert not left(report, "partial")[0].is_in_use
    assert space(report)["partial"] == left(report, "partial")[0].disk_bytes


@pytest.mark.parametrize("suffix", ["incomplete", "1a2b3c4d.incomplete", "downloadInProgress"])
def test_a_download_that_another_tool_did_not_end(store: Store, suffix: str) -> None:
    blobs = store.cache / TINY.folder / "blobs"
    (blobs / f"{'e' * 64}.{suffix}").write_bytes(b"x" * 5000)
    (found,) = left(reported(store), "unfinished")
    assert (found.digest, found.repo, found.size_bytes) == (f"sha256:{'e' * 64}", "acme/tiny", 5000)
    assert {file.file_path.name for file in scan_cache_dir(store.cache).incomplete_files} <= {Path(found.path).name}


def test_a_blob_that_no_revision_uses_is_an_orphan_and_says_which_list_wants_it(store: Store) -> None:
    body, wanted = b"stray" * 1000, b"wanted" * 1000
    blobs = store.cache / TINY.folder / "blobs"
    (blobs / sha256_of(body).hex).write_bytes(body)
    (blobs / git_sha1_of(wanted).hex).write_bytes(wanted)
    store.save_manifest(manifest_of({"wanted.txt": wanted}, Commit("7" * 40), TINY))
    found = {one.digest: one for one in left(reported(store), "orphan")}
    assert found[str(sha256_of(body))].wanted_by == ""
    assert found[str(git_sha1_of(wanted))].wanted_by == "7" * 40


def test_blobs_of_a_copy_without_links_are_lost_and_no_garbage(store: Store) -> None:
    """`rsync -r` leaves every link behind: all bytes are here, and no name."""
    for path in (store.cache / TINY.folder / "snapshots").rglob("*"):
        if path.is_symlink():
            path.unlink()
    report = reported(store)
    assert Counter(one.kind for one in report.leftovers if one.repo == "acme/tiny") == {"lost": 4}


def test_the_shared_store_belongs_to_the_revisions_that_link_to_it(
    store: Store, downloaded: tuple[Path, str, str]
) -> None:
    blobs = store.cache / TINY.folder / "blobs"
    entry = share(blobs / sha256_of(ADAPTER).hex, store.cache)
    unused = share(blobs / sha256_of(WEIGHTS).hex, store.cache)
    report = reported(store)
    assert report.leftovers == ()
    assert find(report, downloaded[1]).own_bytes == len(ADAPTER) + 2
    assert space(report)["models"] >= len(ADAPTER) + len(WEIGHTS)
    shutil.rmtree(store.cache / TINY.folder)
    report = reported(store)
    found = {one.path for one in left(report, "shared_blob")}
    assert found == {str(entry), str(unused)} == set(map(str, _shared_blobs.unreferenced_shared_blobs(store.cache)))
    unused.with_name(f"{unused.name}.refs").unlink()
    assert [one.path for one in left(reported(store), "shared_blob")] == [str(entry)], "as the client: no list, no word"


def test_copies_of_one_blob_in_two_repos_are_counted(store: Store) -> None:
    shutil.copytree(store.cache / TINY.folder, store.cache / "models--acme--fork", symlinks=True)
    report = reported(store)
    assert (report.duplicates, report.duplicate_bytes) == (4, len(WEIGHTS) + len(ADAPTER) + 2 + 7)


def test_what_a_killed_process_left_is_named(store: Store) -> None:
    folder = store.cache / TINY.folder
    (folder / ".12345678.hfpeer").write_text("x")
    (folder / "blobs" / f".{'a' * 64}.1a2b3c4d.shared").symlink_to("../../blobs/aa")
    (folder / "refs" / "gone").write_text("9" * 40)
    (folder / "trees" / f"{'9' * 40}.json").write_text("{}")
    (folder / ".no_exist" / ("9" * 40)).mkdir(parents=True)
    (folder / ".no_exist" / ("9" * 40) / "adapter.json").touch()
    (folder / "snapshots" / ("9" * 40)).mkdir()
    (store.cache / ".locks" / TINY.folder / f"{'f' * 64}.lock").touch()
    report = reported(store)
    assert Counter(one.kind for one in report.leftovers) == {
        "temporary": 2,
        "dangling_ref": 1,
        "stale_list": 2,
        "empty": 1,
        "lock": 1,
    }
    (cache,) = (place for place in report.places if place.name == "cache")
    assert cache.disk_bytes == du(store.cache)


def test_a_repo_behind_a_link_is_counted_apart(store: Store, tmp_path: Path) -> None:
    folder = store.cache / ROWS.folder
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    report = reported(store)
    (cache,) = (place for place in report.places if place.name == "cache")
    (outside,) = (place for place in report.places if place.name == "behind links")
    assert cache.disk_bytes == du(store.cache)
    assert outside.disk_bytes == du(tmp_path / "elsewhere")
    assert {one.revision.repo for one in report.revisions} == {"acme/tiny", "acme/rows"}


def test_folders_beside_the_cache_are_counted(store: Store, tmp_path: Path) -> None:
    (tmp_path / "datasets" / "rows").mkdir(parents=True)
    (tmp_path / "datasets" / "rows" / "data.arrow").write_bytes(b"x" * 9000)
    report = reported(store, datasets=tmp_path / "datasets", xet=tmp_path / "xet")
    assert {place.name: place.disk_bytes for place in report.places if place.name in ("datasets", "xet")} == {
        "datasets": du(tmp_path / "datasets")
    }
