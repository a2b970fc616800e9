"""The catalogue is only an index: it can be lost, broken or old, and nobody waits for its writer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hfpeer.cache import catalog as catalog_module
from hfpeer.cache.catalog import BlobRow, Catalog, FileRow, RefRow, RevisionRow
from hfpeer.errors import BrokenCache, Locked

REPO = "models--acme--tiny"
BLOB = BlobRow(f"{REPO}/blobs/x", REPO, "git-sha1:" + "a" * 40, 3, 5, 7)


def opened(folder: Path) -> Catalog:
    return Catalog(folder / "catalog.sqlite")


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.put_blobs([BLOB])
    first.put_files(REPO, "c" * 40, [FileRow("a", BLOB.digest, 3)])
    first.put_revision(RevisionRow(REPO, "c" * 40, 1, 3, None, False, 1.5))
    first.put_refs([RefRow(REPO, "main", "c" * 40, 2.5, "origin")])
    first.set_repo(REPO, visibility="public", asked_at=3.5)
    first.add_traffic({("peer", "node1"): 10, ("origin", "hub"): 5}, 3)
    first.add_traffic({("peer", "node1"): 1}, 1)
    generation = first.generation
    first.close()
    again = opened(tmp_path)
    assert again.blobs([BLOB.digest]) == again.blobs_of_repo(REPO) == [BLOB]
    assert again.files(REPO, "c" * 40) == [FileRow("a", BLOB.digest, 3)]
    assert again.revisions() == [RevisionRow(REPO, "c" * 40, 1, 3, None, False, 1.5)]
    assert again.refs(REPO, "main") == [RefRow(REPO, "main", "c" * 40, 2.5, "origin")]
    assert again.visibility(REPO) == ("public", 3.5)
    assert again.received() == {("peer", "node1"): 11, ("origin", "hub"): 5}
    assert again.sent_bytes == 4
    assert again.generation == generation
    again.close()


@pytest.mark.parametrize("rubbish", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_catalogue_is_made_anew(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(rubbish)
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    assert catalog.blobs([BLOB.digest]) == [BLOB]
    catalog.close()


@pytest.mark.parametrize("version", [0, 999])
def test_a_catalogue_of_another_version_is_made_anew(tmp_path: Path, version: int) -> None:
    with sqlite3.connect(tmp_path / "catalog.sqlite") as database:
        database.execute("CREATE TABLE blobs (something INTEGER)")
        database.execute(f"PRAGMA user_version={version}")
    database.close()
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    catalog.close()


def test_the_generation_grows_even_when_the_catalogue_is_lost(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for _ in range(5):
        first.bump()
    generation = first.generation
    first.close()
    (tmp_path / "catalog.sqlite").unlink()
    again = opened(tmp_path)
    assert again.generation > generation
    again.close()


def test_its_data_version_says_that_another_process_wrote(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    before = catalog.data_version
    assert catalog.data_version == before
    write = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM repos'); c.commit()"
    for change in (
        lambda: catalog.set_repo(REPO, visibility="public", asked_at=1.0),
        lambda: subprocess.run([sys.executable, "-c", write, tmp_path / "catalog.sqlite"], check=True, timeout=60),
    ):
        change()
        assert catalog.data_version != before
        before = catalog.data_version
    assert catalog.visibility(REPO) is None
    catalog.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    read: list[list[BlobRow]] = []
    with catalog._writing() as connection:
        connection.exec_driver_sql("DELETE FROM blobs")
        reader = threading.Thread(target=lambda: read.append(catalog.blobs([BLOB.digest])))
        reader.start()
        reader.join(5)
        assert read == [[BLOB]]
    assert catalog.blobs([BLOB.digest]) == []
    catalog.close()


def test_a_writer_in_another_process_is_waited_for_and_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "_BUSY_SECONDS", 0.1)
    catalog = opened(tmp_path)
    other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Locked):
        catalog.bump()
    other.execute("ROLLBACK")
    other.close()
    catalog.bump()
    catalog.close()


def test_a_table_that_vanishes_under_way_is_a_broken_cache(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    with sqlite3.connect(tmp_path / "catalog.sqlite") as other:
        other.execute("DROP TABLE blobs")
    other.close()
    with pytest.raises(BrokenCache) as caught:
        catalog.blobs([BLOB.digest])
    assert "delete the file" in (caught.value.hint or "")
    catalog.close()


def test_a_verdict_on_a_blob_that_changed_meanwhile_is_dropped(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    assert not catalog.judge_blob(replace(BLOB, mtime_ns=6), 1.0, is_corrupt=False)
    assert catalog.unverified(5) == [BLOB]
    assert catalog.judge_blob(BLOB, 1.0, is_corrupt=False)
    assert catalog.unverified(5) == []
    catalog.close()


def test_many_rows_go_in_and_out(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    rows = [replace(BLOB, path=f"{REPO}/blobs/{number}", digest=f"d{number % 700}") for number in range(2000)]
    catalog.put_blobs(rows)
    assert len(catalog.blobs(f"d{number}" for number in range(700))) == 2000
    catalog.drop_blobs(row.path for row in rows[:1500])
    assert len(catalog.blobs_of_repo(REPO)) == 500
    assert catalog.totals() == (0, 0, 3 * 500, 500)
    catalog.close()
