"""The space of a volume is compared with what adds need, before the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import FILES, MODEL, fill
from fakes.limited import memory_volume, why_not
from hfpeer.cache.store import Store
from hfpeer.errors import BrokenCache, NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, FilePath, RepoId
from hfpeer.node.operations.adding import room as room_module
from hfpeer.node.operations.adding.room import Evicted, Room

REPO = RepoId.parse("acme/big")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "cache", tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(room_module, "free_bytes", lambda folder: 1_000_000)
    return 1_000_000


def files(*sizes: int) -> list[ManifestFile]:
    return [
        ManifestFile(FilePath(f"{number}.bin"), size, Digest("sha256", f"{size:064x}"))
        for number, size in enumerate(sizes)
    ]


async def test_both_numbers_are_said_before_the_first_byte(store: Store, free: int) -> None:
    with pytest.raises(NoSpace, match=r"acme/big needs 1,200,000 bytes in .*, and 1,000,000 are free there") as caught:
        async with Room(store).take(REPO, files(700_000, 500_000)):
            pass
    assert (caught.value.facts["needed_bytes"], caught.value.facts["free_bytes"]) == (1_200_000, free)


async def test_a_little_stays_free(store: Store, free: int) -> None:
    room = Room(store)
    async with room.take(REPO, files(free - free // 100)):
        pass
    with pytest.raises(NoSpace):
        async with room.take(REPO, files(free - 1)):
            pass


async def test_what_other_adds_will_take_counts_until_they_end(store: Store, free: int) -> None:
    room = Room(store)
    async with room.take(REPO, files(600_000)):
        with pytest.raises(NoSpace, match=r"needs 500,000 bytes in .*, other adds under way 600,000 more"):
            async with room.take(REPO, files(500_000)):
                pass
        async with room.take(REPO, files(600_000)):  # the same blob is fetched once
            pass
    async with room.take(REPO, files(500_000)):
        pass


async def test_what_is_here_needs_nothing(store: Store, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = fill(store, MODEL, FILES)
    monkeypatch.setattr(room_module, "free_bytes", lambda folder: 0)
    async with Room(store).take(MODEL, manifest.files):
        pass


async def test_a_partial_has_its_space_already(store: Store, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "begun_bytes", lambda cache, digests: 900_000)
    async with Room(store).take(REPO, files(1_800_000)):
        pass


async def test_a_cache_with_a_budget_makes_room_for_all_that_is_coming(store: Store) -> None:
    asked: list[int] = []

    async def make_room(coming_bytes: int) -> Evicted:
        asked.append(coming_bytes)
        return Evicted(500, lacking_bytes=max(0, coming_bytes - 1000), sentence="Revisions that stay: 1 pinned.")

    room = Room(store, make_room)
    async with room.take(REPO, files(600)):
        with pytest.raises(NoSpace, match=r"needs 500 bytes, 100 more than the budget .* has 500\. .* 1 pinned\.$"):
            async with room.take(REPO, files(500)):
                pass
    async with room.take(REPO, files(500)):
        pass
    async with room.take(REPO, []):
        pass
    assert asked == [600, 1100, 500]


@pytest.mark.root
@pytest.mark.skipif(bool(why_not("mount")), reason="mounting needs root")
async def test_nothing_is_written_below_the_mount_point_of_a_cache_that_was_unmounted(tmp_path: Path) -> None:
    with memory_volume(tmp_path / "disk") as disk:
        (disk / "hub").mkdir()
        store = Store(disk / "hub", tmp_path / "home")
        async with Room(store).take(REPO, files(1)):
            pass
    with pytest.raises(BrokenCache, match="is unmounted"):
        async with Room(store).take(REPO, files(1)):
            pass
    with memory_volume(tmp_path / "disk"):
        async with Room(store).take(REPO, files(1)):
            pass
    store.close()
