"""What is remembered of how a blob came: as long as the blob is there, and not of more than can be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.peers import digest_of
from hfpeer.cache import catalog
from hfpeer.cache.catalog import Catalog
from hfpeer.cache.records import FetchRecord, Giver, Trouble
from hfpeer.cache.store import Store
from hfpeer.errors import Locked
from hfpeer.names import Digest, RepoId

ONE, OTHER = RepoId.parse("acme/one"), RepoId.parse("acme/other")
DATA = b"bytes of a blob"
DIGEST = digest_of(DATA)
PEGASUS = Giver("pegasus", "peer", "10.0.0.1:9437", "lan", "eth0", 10, ((0, 10),))
BROKE = Trouble("pegasus", "the connection broke", False, 5.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def record(digest: Digest = DIGEST, verified_at: float | None = 6.0) -> FetchRecord:
    return FetchRecord(str(digest), len(DATA), 1.0, 6.0, verified_at, (PEGASUS,), (BROKE,), ((0, 4),), 4)


def test_a_record_outlives_a_restart(store: Store, tmp_path: Path) -> None:
    store.publish_bytes(DIGEST, DATA, ONE)
    store.note_fetches([record()])
    store.close()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.fetch_record(DIGEST) == record()
    again.close()


def test_a_record_goes_with_the_last_place_where_the_blob_lies(store: Store) -> None:
    for repo in (ONE, OTHER):
        store.publish_bytes(DIGEST, DATA, repo)
    store.note_fetches([record()])
    store.remove(ONE)
    assert store.fetch_record(DIGEST) == record()
    store.remove(OTHER)
    assert store.fetch_record(DIGEST) is None


def test_a_blob_that_came_in_two_tries_has_the_story_of_both(store: Store) -> None:
    store.note_fetches([record(verified_at=None)])
    now_unknown = Giver("pegasus", "", "", "", "", 10, ((0, 10),))
    hub = Giver("huggingface.co", "origin", "https://huggingface.co", "wan", "", 5, ((10, 15),))
    store.note_fetches([replace(record(), began_at=50.0, givers=(now_unknown, hub), refetched_bytes=1)])
    found = store.fetch_record(DIGEST)
    assert found is not None
    assert (found.began_at, found.refetched_bytes, found.troubles) == (1.0, 5, (BROKE, BROKE))
    assert found.givers == (PEGASUS, hub)


def test_a_blob_that_is_fetched_anew_has_the_new_story_only(store: Store) -> None:
    store.note_fetches([record()])
    store.note_fetches([replace(record(), began_at=50.0, troubles=())])
    assert store.fetch_record(DIGEST) == replace(record(), began_at=50.0, troubles=())


def test_only_the_newest_records_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_FETCHES", 3)
    index = Catalog(tmp_path / "catalog.sqlite")
    index.put_fetches((f"d{n}", float(n), "{}") for n in (4, 1, 3, 5, 2))
    assert set(index.fetches(f"d{n}" for n in range(6))) == {"d3", "d4", "d5"}
    index.close()


def test_a_catalogue_that_cannot_be_written_stops_no_fetch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Locked("Another process keeps the catalogue locked.")

    monkeypatch.setattr(Catalog, "put_fetches", refuse)
    store.note_fetches([record()])
    assert store.fetch_record(DIGEST) is None
