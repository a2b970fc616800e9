"""Fetch records: kept as long as the blob, and at most MAX_FETCHES of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.peers import digest_of
from hfpeer.cache.index import history
from hfpeer.cache.index.database import Database
from hfpeer.cache.records import Contribution, Failure, FetchRecord
from hfpeer.cache.store import Store
from hfpeer.errors import Locked
from hfpeer.names import Digest, RepoId

ONE, OTHER = RepoId.parse("acme/one"), RepoId.parse("acme/other")
DATA = b"bytes of a blob"
DIGEST = digest_of(DATA)
PEGASUS = Contribution("pegasus", "peer", "10.0.0.1:9437", "lan", "eth0", 10, ((0, 10),))
BROKE = Failure("pegasus", "the connection broke", False, 5.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


def record(digest: Digest = DIGEST, verified_at: float | None = 6.0) -> FetchRecord:
    return FetchRecord(str(digest), len(DATA), 1.0, 6.0, verified_at, (PEGASUS,), (BROKE,), ((0, 4),), 4)


def documents_in(store: Store) -> int:
    with store._catalog.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM fetch_documents").scalar() or 0)


def test_a_record_outlives_a_restart(store: Store, tmp_path: Path) -> None:
    store.ingester.ingest_bytes(DIGEST, DATA, ONE)
    store.history.note([record()])
    store.close()
    again = Store(tmp_path / "hub", tmp_path / "home")
    assert again.history.find([str(DIGEST)]).get(str(DIGEST)) == record()
    again.close()


def test_a_record_goes_with_the_last_place_where_the_blob_lies(store: Store) -> None:
    for repo in (ONE, OTHER):
        store.ingester.ingest_bytes(DIGEST, DATA, repo)
    store.history.note([record()])
    store.remove(ONE)
    assert store.history.find([str(DIGEST)]).get(str(DIGEST)) == record()
    store.remove(OTHER)
    assert store.history.find([str(DIGEST)]).get(str(DIGEST)) is None


def test_the_records_of_two_tries_at_a_blob_are_merged(store: Store) -> None:
    store.history.note([record(verified_at=None)])
    now_unknown = Contribution("pegasus", "", "", "", "", 10, ((0, 10),))
    hub = Contribution("huggingface.co", "origin", "https://huggingface.co", "wan", "", 5, ((10, 15),))
    store.history.note([replace(record(), began_at=50.0, contributions=(now_unknown, hub), refetched_bytes=1)])
    found = store.history.find([str(DIGEST)]).get(str(DIGEST))
    assert found is not None
    assert (found.began_at, found.refetched_bytes, found.failures) == (1.0, 5, (BROKE, BROKE))
    assert found.contributions == (PEGASUS, hub)


def test_a_blob_that_is_fetched_anew_has_the_new_record_only(store: Store) -> None:
    store.history.note([record()])
    store.history.note([replace(record(), began_at=50.0, failures=())])
    assert store.history.find([str(DIGEST)]).get(str(DIGEST)) == replace(record(), began_at=50.0, failures=())


def test_only_the_newest_records_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_FETCHES", 3)
    digests = [Digest("sha256", f"{n:064x}") for n in range(6)]
    for n in (4, 1, 3, 5, 2):
        store.history.note([replace(record(digests[n]), ended_at=float(n))])
    assert set(store.history.find(map(str, digests))) == {str(digests[n]) for n in (3, 4, 5)}
    assert documents_in(store) == 3


def test_a_catalog_that_cannot_be_written_stops_no_fetch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Locked("Another process keeps the catalog locked.")

    monkeypatch.setattr(Database, "put", refuse)
    store.history.note([record()])
    assert store.history.find([str(DIGEST)]).get(str(DIGEST)) is None


def test_blobs_that_came_whole_share_one_record(store: Store) -> None:
    """A commit of a hundred thousand small files would have as many documents."""
    shared = replace(record(), digest="", size_bytes=0, contributions=(replace(PEGASUS, size_bytes=0, ranges=()),))
    other = digest_of(b"another")
    store.history.note_whole(shared, [(DIGEST, len(DATA)), (other, 7)])
    found = store.history.find([str(DIGEST), str(other)])
    for digest, size in ((DIGEST, len(DATA)), (other, 7)):
        given = (replace(PEGASUS, size_bytes=size, ranges=((0, size),)),)
        assert found[str(digest)] == replace(shared, digest=str(digest), size_bytes=size, contributions=given)


def test_gc_drops_documents_that_no_record_names(store: Store) -> None:
    store.history.note([record()])
    store._catalog.collect()
    assert documents_in(store) == 0


@pytest.mark.parametrize("version", [4, 5, 6])
def test_records_of_an_older_catalog_are_kept(tmp_path: Path, version: int) -> None:
    Store(tmp_path / "hub", tmp_path / "home").close()
    (catalog,) = (tmp_path / "home").glob("*.sqlite*")
    document = json.dumps(record(), default=vars)
    with contextlib.closing(sqlite3.connect(catalog)) as file:
        file.executescript(
            "DROP TABLE fetches; DROP TABLE fetch_documents;"
            "CREATE TABLE fetches (digest TEXT PRIMARY KEY, ended_at FLOAT NOT NULL, document TEXT NOT NULL);"
            "CREATE INDEX ix_fetches_ended_at ON fetches (ended_at);"
        )
        file.execute("INSERT INTO fetches VALUES (?, 6.0, ?)", (str(DIGEST), document))
        for column in ("ctime_ns", "cache")[version - 4 :]:
            file.execute(f"ALTER TABLE blobs DROP COLUMN {column}")
        file.execute(f"PRAGMA user_version={version}")
        file.commit()
    store = Store(tmp_path / "hub", tmp_path / "home")
    assert store.history.find([str(DIGEST)]) == {str(DIGEST): record()}
    store.close()
