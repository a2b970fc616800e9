"""The space of a volume is compared with what adds need, before the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import FILES, MODEL, fill
from hfpeer.cache.store import Store
from hfpeer.errors import NoSpace
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, FilePath, RepoId
from hfpeer.node.operations import room as room_module
from hfpeer.node.operations.room import Room

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


def test_both_numbers_are_said_before_the_first_byte(store: Store, free: int) -> None:
    with pytest.raises(NoSpace, match=r"acme/big needs 1,200,000 bytes in .*, and 1,000,000 are free there") as caught:
        Room(store).claim(REPO, files(700_000, 500_000))
    assert (caught.value.facts["needed_bytes"], caught.value.facts["free_bytes"]) == (1_200_000, free)


def test_a_little_stays_free(store: Store, free: int) -> None:
    room = Room(store)
    room.release(room.claim(REPO, files(free - free // 100)))
    with pytest.raises(NoSpace):
        room.claim(REPO, files(free - 1))


def test_what_other_adds_will_take_counts_until_they_end(store: Store, free: int) -> None:
    room = Room(store)
    first = room.claim(REPO, files(600_000))
    with pytest.raises(NoSpace, match=r"needs 500,000 bytes in .*, other adds under way 600,000 more"):
        room.claim(REPO, files(500_000))
    room.claim(REPO, files(600_000))  # the same blob is fetched once
    room.release(first)
    with pytest.raises(NoSpace):
        room.claim(REPO, files(500_000))


def test_what_is_here_needs_nothing(store: Store, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = fill(store, MODEL, FILES)
    monkeypatch.setattr(room_module, "free_bytes", lambda folder: 0)
    Room(store).claim(MODEL, manifest.files)


def test_a_partial_has_its_space_already(store: Store, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "begun_bytes", lambda cache, digests: 900_000)
    Room(store).claim(REPO, files(1_800_000))
