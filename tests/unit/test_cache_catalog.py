"""The catalog is only an index: it can be lost, broken or old, and readers never wait for its writer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.index import database, facts
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.schema import BlobRow, FileRow, RefRow, RevisionRow
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import Visibility
from hfpeer.trust.visibility import Fact

REPO = "models--acme--tiny"
HUB = Path("/hub")
BLOB = BlobRow(f"/hub/{REPO}/blobs/x", REPO, "git-sha1:" + "a" * 40, 3, 5, 7, cache="/hub")

FACT = Fact("c" * 40, "https://hub", True, Visibility.PUBLIC, 3.5)


def opened(folder: Path) -> Catalog:
    return Catalog(folder / "catalog.sqlite", Caches(HUB))


def test_rows_are_there_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.put_blobs([BLOB])
    first.put_files(REPO, "c" * 40, [FileRow("a", BLOB.digest, 3)])
    first.put_revision(RevisionRow(REPO, "c" * 40, 1, 3, None, False, 1.5, str(HUB)))
    first.put_refs([RefRow(REPO, "main", "c" * 40, 2.5, "origin")])
    first.set_folders(REPO, "{}")
    first.facts.change(REPO, lambda known: [*known, FACT])
    generation = first.generation
    first.close()
    again = opened(tmp_path)
    assert again.blobs([BLOB.digest]) == again.blobs_of_repo(REPO) == [BLOB]
    assert again.files(REPO, "c" * 40) == [FileRow("a", BLOB.digest, 3)]
    assert again.revisions() == [RevisionRow(REPO, "c" * 40, 1, 3, None, False, 1.5, str(HUB))]
    assert again.refs(REPO, "main") == [RefRow(REPO, "main", "c" * 40, 2.5, "origin")]
    assert again.repos() == {REPO: "{}"}
    assert again.facts.by_repo(REPO) == again.facts.by_repo() == {REPO: [FACT]}
    assert again.generation == generation
    again.close()


@pytest.mark.parametrize("rubbish", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_catalog_is_made_anew(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(rubbish)
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    assert catalog.blobs([BLOB.digest]) == [BLOB]
    catalog.close()


@pytest.mark.parametrize("version", [0, 999])
def test_a_catalog_of_another_version_is_made_anew(tmp_path: Path, version: int) -> None:
    with sqlite3.connect(tmp_path / "catalog.sqlite") as file:
        file.execute("CREATE TABLE blobs (something INTEGER)")
        file.execute(f"PRAGMA user_version={version}")
    file.close()
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    catalog.close()


def test_the_visibility_column_of_an_older_version_is_dropped(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "catalog.sqlite") as file:
        file.execute("CREATE TABLE repos (repo TEXT PRIMARY KEY, visibility TEXT, asked_at FLOAT, folders TEXT)")
        file.execute("INSERT INTO repos VALUES (?, 'public', 1.0, NULL)", (REPO,))
        file.execute("PRAGMA user_version=2")
    file.close()
    catalog = opened(tmp_path)
    assert catalog.facts.by_repo() == {}
    assert catalog.repos() == {}
    catalog.close()


def test_questions_about_ever_new_names_do_not_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MAX_FACTS", 40)
    catalog = opened(tmp_path)
    catalog.put_revision(RevisionRow(REPO, FACT.commit, 1, 3, None, False, 1.5, str(HUB)))
    catalog.facts.change(REPO, lambda known: [FACT])
    for number in range(100):
        private = Fact("", "https://hub", True, Visibility.PRIVATE, 10.0 + number)
        catalog.facts.change(f"models--acme--{number}", lambda known, fact=private: [fact])  # type: ignore[misc]
        odd = Fact(f"{number:040x}", "https://hub", True, Visibility.PRIVATE, 10.0 + number)
        catalog.facts.change(REPO, lambda known, fact=odd: [*known, fact])  # type: ignore[misc]
    kept = catalog.facts.by_repo()
    assert sum(map(len, kept.values())) <= 42
    assert FACT in kept[REPO], "what is said of what is here stays"
    catalog.close()


def test_the_generation_grows_even_when_the_catalog_is_lost(tmp_path: Path) -> None:
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
        lambda: catalog.set_folders(REPO, "{}"),
        lambda: subprocess.run([sys.executable, "-c", write, tmp_path / "catalog.sqlite"], check=True, timeout=60),
    ):
        change()
        assert catalog.data_version != before
        before = catalog.data_version
    assert catalog.repos() == {}
    catalog.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    read: list[list[BlobRow]] = []
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM blobs")
        reader = threading.Thread(target=lambda: read.append(catalog.blobs([BLOB.digest])))
        reader.start()
        reader.join(20.0)
        assert read == [[BLOB]]
    assert catalog.blobs([BLOB.digest]) == []
    catalog.close()


def test_a_writer_in_another_process_is_waited_for_and_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
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
    assert "delete this file" in (caught.value.hint or "")
    catalog.close()


def test_the_hash_of_a_blob_that_changed_meanwhile_is_dropped(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.put_blobs([BLOB])
    assert not catalog.judge_blob(BLOB._replace(mtime_ns=6), 1.0, is_corrupt=False)
    assert catalog.unverified(5) == [BLOB]
    assert catalog.judge_blob(BLOB, 1.0, is_corrupt=False)
    assert catalog.unverified(5) == []
    catalog.close()


def test_many_rows_go_in_and_out(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    rows = [BLOB._replace(path=f"{REPO}/blobs/{number}", digest=f"d{number % 700}") for number in range(2000)]
    catalog.put_blobs(rows)
    assert len(catalog.blobs(f"d{number}" for number in range(700))) == 2000
    catalog.drop_blobs(row.path for row in rows[:1500])
    assert len(catalog.blobs_of_repo(REPO)) == 500
    assert catalog.totals() == (0, 0, 3 * 500, 500)
    catalog.close()


def test_a_row_by_a_scan_does_not_replace_that_of_the_writer(tmp_path: Path) -> None:
    """A file lies in the cache a moment before its row is written; a scan or a reader may see it in between."""
    catalog = opened(tmp_path)
    verified = BLOB._replace(verified_at=9.0, is_given=True)
    catalog.put_blobs([verified])
    catalog.put_found_blobs([BLOB])
    assert catalog.blobs([BLOB.digest]) == [verified]
    changed = BLOB._replace(mtime_ns=BLOB.mtime_ns + 1)
    catalog.put_found_blobs([changed])
    assert catalog.blobs([BLOB.digest]) == [changed]
    catalog.close()


def test_is_all_given_takes_few_steps_a_file_whichever_index_was_made_first(tmp_path: Path) -> None:
    """Without statistics SQLite takes the index that was made last. To look through the whole repo for each file took a
    hundred times as many steps."""
    indexes = {"ix_blobs_repo": "blobs (repo)", "ix_blobs_digest": "blobs (digest)"}
    digests = [f"sha256:{number:064x}" for number in range(3000)]
    catalog = opened(tmp_path)
    catalog.put_blobs(
        BlobRow(f"/hub/{REPO}/blobs/{digest[7:]}", REPO, digest, 3, 5, 7, 1.0, is_given=True, cache=str(HUB))
        for digest in digests
    )
    catalog.put_files(REPO, "c" * 40, [FileRow(digest, digest, 3) for digest in digests])
    catalog.facts.note_given_listing(REPO, "c" * 40)
    for names in (list(indexes), list(reversed(indexes))):
        with sqlite3.connect(tmp_path / "catalog.sqlite") as file:
            for name in names:
                file.execute(f"DROP INDEX {name}")
            for name in names:
                file.execute(f"CREATE INDEX {name} ON {indexes[name]}")
        file.close()
        with counted_steps() as steps:
            assert catalog.is_all_given(REPO, "c" * 40)
        assert 0 < sum(steps) < 200 * len(digests), names
    catalog.close()


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """The steps of SQLite's machine in the block, for all queries, in hundreds."""
    steps: list[int] = []

    def watch(_connection: object, cursor: sqlite3.Cursor, *_others: object) -> None:
        cursor.connection.set_progress_handler(lambda: steps.append(100), 100)

    def unwatch(_connection: object, cursor: sqlite3.Cursor, *_others: object) -> None:
        cursor.connection.set_progress_handler(None, 0)

    sa.event.listen(sa.Engine, "before_cursor_execute", watch)
    sa.event.listen(sa.Engine, "after_cursor_execute", unwatch)
    try:
        yield steps
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", watch)
        sa.event.remove(sa.Engine, "after_cursor_execute", unwatch)
