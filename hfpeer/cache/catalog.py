"""The index of the cache: which repos, revisions, files, blobs and refs there are, and how many bytes have moved.

SQLite in WAL mode behind SQLAlchemy: one writer at a time with short transactions, readers never wait. It is an
index and nothing more: it may be deleted at any time, and one that is older or broken is made anew. Nothing here looks
at the cache's files, and SQLAlchemy is imported nowhere else.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection, Engine

from hfpeer.cache.failures import storage_error, translated
from hfpeer.errors import BrokenCache, Locked, StorageError

SCHEMA_VERSION = 2
BATCH_ROWS = 500
"""Rows per transaction of a long write, so that others wait for milliseconds at most."""
MAX_FETCHES = 50_000
"""Of so many blobs it is known how they came."""
_BUSY_SECONDS = 15

_schema = sa.MetaData()
_meta = sa.Table(
    "meta",
    _schema,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)
_repos = sa.Table(
    "repos",
    _schema,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("visibility", sa.Text),
    sa.Column("asked_at", sa.Float),
    sa.Column("folders", sa.Text),
)
_revisions = sa.Table(
    "revisions",
    _schema,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("is_complete", sa.Boolean),
    sa.Column("is_proved", sa.Boolean, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False),
)
_files = sa.Table(
    "files",
    _schema,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
_blobs = sa.Table(
    "blobs",
    _schema,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("repo", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False),
    sa.Column("verified_at", sa.Float),
    sa.Column("is_corrupt", sa.Boolean, nullable=False),
)
_refs = sa.Table(
    "refs",
    _schema,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("resolved_at", sa.Float, nullable=False),
    sa.Column("answered_by", sa.Text, nullable=False),
)
_received = sa.Table(
    "received",
    _schema,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("size_bytes", sa.Integer, nullable=False),
)
_fetches = sa.Table(
    "fetches",
    _schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("ended_at", sa.Float, nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class BlobRow:
    """A blob as it lies in the cache. `path` is relative to the cache; size, mtime and inode are those it was seen
    with, and what is known about its bytes holds as long as they do."""

    path: str
    repo: str
    digest: str
    size_bytes: int
    mtime_ns: int
    inode: int
    verified_at: float | None = None
    is_corrupt: bool = False


@dataclass(frozen=True)
class FileRow:
    """A file of a snapshot that is there. `digest` is None when its name does not tell and no listing does."""

    path: str
    digest: str | None
    size_bytes: int


@dataclass(frozen=True)
class RevisionRow:
    """A snapshot: how many files of it are there, the size of its distinct blobs, and whether that is all of it."""

    repo: str
    commit: str
    files: int
    size_bytes: int
    is_complete: bool | None
    is_proved: bool
    used_at: float


@dataclass(frozen=True)
class RefRow:
    """What a mutable revision was when somebody was last asked."""

    repo: str
    name: str
    commit: str
    resolved_at: float
    answered_by: str


class Catalog:
    """The index. Thread-safe. Raises NoSpace, BrokenCache, or Locked when another process writes for too long.

    Whoever derives a revision's row from its files holds `summing`, so that an older sum never follows a newer one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self.summing = threading.Lock()
        with translated("make the catalogue's folder", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._reader, self._writer = self._open()
        except BrokenCache:
            self._set_aside()
            self._reader, self._writer = self._open()
        self._watch_lock = threading.Lock()
        self._watcher = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        self._watcher.close()
        self._reader.dispose()
        self._writer.dispose()

    @property
    def data_version(self) -> int:
        """Another number after every change, whoever made it, also another process. A hundred times cheaper to ask than
        anything else here."""
        with self._watch_lock, self._translated():
            # All of it is fetched, because an open statement would hold the view of the database that it began with.
            ((version,),) = self._watcher.execute("PRAGMA data_version").fetchall()
        return int(version)

    # Blobs

    def blobs(self, digests: Iterable[str]) -> list[BlobRow]:
        """Every place where one of these digests lies."""
        with self._reading() as connection:
            return [
                BlobRow(*row)
                for batch in _batches(digests)
                for row in connection.execute(sa.select(_blobs).where(_blobs.c.digest.in_(batch)))
            ]

    def blobs_of_repo(self, repo: str) -> list[BlobRow]:
        with self._reading() as connection:
            return [BlobRow(*row) for row in connection.execute(sa.select(_blobs).where(_blobs.c.repo == repo))]

    def unverified(self, limit: int) -> list[BlobRow]:
        """Blobs whose bytes nobody has hashed yet, small ones first."""
        query = sa.select(_blobs).where(_blobs.c.verified_at.is_(None), _blobs.c.is_corrupt.is_(False))
        with self._reading() as connection:
            return [BlobRow(*row) for row in connection.execute(query.order_by(_blobs.c.size_bytes).limit(limit))]

    def put_blobs(self, rows: Iterable[BlobRow]) -> None:
        self._put(_blobs, [vars(row) for row in rows])

    def drop_blobs(self, paths: Iterable[str]) -> None:
        for batch in _batches(paths):
            is_one = _blobs.c.path.in_(batch)
            with self._writing() as connection:
                digests = connection.scalars(sa.select(_blobs.c.digest).where(is_one)).all()
                connection.execute(sa.delete(_blobs).where(is_one))
                _forget_fetches(connection, digests)

    def judge_blob(self, seen: BlobRow, verified_at: float | None, *, is_corrupt: bool) -> bool:
        """Writes down what a hash said about the bytes; False if the blob is another one by now."""
        is_same = sa.and_(*(_blobs.c[name] == vars(seen)[name] for name in ("path", "size_bytes", "mtime_ns", "inode")))
        query = sa.update(_blobs).where(is_same).values(verified_at=verified_at, is_corrupt=is_corrupt)
        return self._execute(query) > 0

    # Revisions and their files

    def sum_of_files(self, repo: str, commit: str) -> tuple[int, int]:
        """How many files of a snapshot are there, and the size of their distinct blobs."""
        name = sa.func.coalesce(_files.c.digest, _files.c.path)
        is_one = sa.and_(_files.c.repo == repo, _files.c.commit == commit)
        distinct = sa.select(name, _files.c.size_bytes).distinct().where(is_one).subquery()
        with self._reading() as connection:
            count = connection.scalar(sa.select(sa.func.count()).where(is_one))
            size_bytes = connection.scalar(sa.select(sa.func.sum(distinct.c.size_bytes)))
        return int(count or 0), int(size_bytes or 0)

    def files(self, repo: str, commit: str) -> list[FileRow]:
        """The files of a snapshot that are there, by path."""
        columns = (_files.c.path, _files.c.digest, _files.c.size_bytes)
        query = sa.select(*columns).where(_files.c.repo == repo, _files.c.commit == commit).order_by(_files.c.path)
        with self._reading() as connection:
            return [FileRow(*row) for row in connection.execute(query)]

    def put_files(self, repo: str, commit: str, rows: Iterable[FileRow]) -> None:
        self._put(_files, [{"repo": repo, "commit": commit, **vars(row)} for row in rows])

    def drop_files(self, repo: str, commit: str, paths: Iterable[str]) -> None:
        for batch in _batches(paths):
            is_one = sa.and_(_files.c.repo == repo, _files.c.commit == commit, _files.c.path.in_(batch))
            self._execute(sa.delete(_files).where(is_one))

    def put_revision(self, row: RevisionRow) -> None:
        self._put(_revisions, [vars(row)])

    def drop_revision(self, repo: str, commit: str) -> None:
        """Forgets a revision and its files."""
        with self._writing() as connection:
            for table in (_files, _revisions):
                connection.execute(sa.delete(table).where(table.c.repo == repo, table.c.commit == commit))

    def revisions(self, repo: str | None = None, commit: str | None = None) -> list[RevisionRow]:
        """The revisions, most recently used first."""
        query = sa.select(_revisions).order_by(_revisions.c.used_at.desc(), _revisions.c.repo, _revisions.c.commit)
        if repo is not None:
            query = query.where(_revisions.c.repo == repo)
        if commit is not None:
            query = query.where(_revisions.c.commit == commit)
        with self._reading() as connection:
            return [RevisionRow(*row) for row in connection.execute(query)]

    # Refs

    def refs(self, repo: str | None = None, name: str | None = None) -> list[RefRow]:
        query = sa.select(_refs).order_by(_refs.c.repo, _refs.c.name)
        if repo is not None:
            query = query.where(_refs.c.repo == repo)
        if name is not None:
            query = query.where(_refs.c.name == name)
        with self._reading() as connection:
            return [RefRow(*row) for row in connection.execute(query)]

    def put_refs(self, rows: Iterable[RefRow]) -> None:
        self._put(_refs, [vars(row) for row in rows])

    def drop_refs(self, repo: str, refs: Iterable[str]) -> None:
        for batch in _batches(refs):
            self._execute(sa.delete(_refs).where(_refs.c.repo == repo, _refs.c.name.in_(batch)))

    # Repos

    def repos(self) -> dict[str, tuple[str | None, str | None]]:
        """Visibility and the times of the folders when they were last scanned, by repo."""
        with self._reading() as connection:
            found = connection.execute(sa.select(_repos.c.repo, _repos.c.visibility, _repos.c.folders))
            return {repo: (visibility, folders) for repo, visibility, folders in found}

    def visibility(self, repo: str) -> tuple[str, float] | None:
        """What an upstream said about a repo, and when; None if it was never asked."""
        query = sa.select(_repos.c.visibility, _repos.c.asked_at).where(_repos.c.repo == repo)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None or row[0] is None else (row[0], row[1])

    def set_repo(self, repo: str, **values: Any) -> None:
        """Sets `visibility`, `asked_at` or `folders` of a repo."""
        query = insert(_repos).values(repo=repo, **values)
        self._execute(query.on_conflict_do_update(index_elements=["repo"], set_=values))

    def drop_repo(self, repo: str) -> None:
        """Forgets everything about a repo."""
        with self._writing() as connection:
            digests = connection.scalars(sa.select(_blobs.c.digest).where(_blobs.c.repo == repo)).all()
            for table in (_files, _revisions, _blobs, _refs, _repos):
                connection.execute(sa.delete(table).where(table.c.repo == repo))
            for batch in _batches(digests):
                _forget_fetches(connection, batch)

    # How blobs came

    def fetches(self, digests: Iterable[str]) -> dict[str, str]:
        """The document that was put for each of these digests, if there is one."""
        found: dict[str, str] = {}
        for batch in _batches(digests):
            with self._reading() as connection:
                query = sa.select(_fetches.c.digest, _fetches.c.document).where(_fetches.c.digest.in_(batch))
                found.update((digest, document) for digest, document in connection.execute(query))
        return found

    def put_fetches(self, rows: Iterable[tuple[str, float, str]]) -> None:
        """Keeps (digest, when it ended, document), the newest `MAX_FETCHES` of all."""
        self._put(_fetches, [dict(zip(("digest", "ended_at", "document"), row, strict=True)) for row in rows])
        oldest_first = sa.select(_fetches.c.digest).order_by(_fetches.c.ended_at.desc()).limit(-1).offset(MAX_FETCHES)
        self._execute(sa.delete(_fetches).where(_fetches.c.digest.in_(oldest_first)))

    # Statistics

    @property
    def generation(self) -> int:
        """Grows with every change peers should hear of; a new catalogue begins above every older one."""
        return self._counter("generation")

    def bump(self) -> None:
        self._count("generation", 1)

    def add_traffic(self, received: Mapping[tuple[str, str], int], sent_bytes: int) -> None:
        """Counts bytes received by (kind, source), and bytes sent."""
        rows = [{"kind": kind, "source": source, "size_bytes": size} for (kind, source), size in received.items()]
        query = insert(_received)
        total = _received.c.size_bytes + query.excluded.size_bytes
        query = query.on_conflict_do_update(index_elements=["kind", "source"], set_={"size_bytes": total})
        if rows:
            with self._writing() as connection:
                connection.execute(query, rows)
        if sent_bytes:
            self._count("sent", sent_bytes)

    def received(self) -> dict[tuple[str, str], int]:
        """Bytes by (kind, source) since this catalogue was made."""
        with self._reading() as connection:
            return {(kind, source): size for kind, source, size in connection.execute(sa.select(_received))}

    @property
    def sent_bytes(self) -> int:
        return self._counter("sent")

    def totals(self) -> tuple[int, int, int, int]:
        """How many revisions, files, bytes of distinct blobs, and blobs nobody has hashed."""
        distinct = sa.select(_blobs.c.digest, _blobs.c.size_bytes).distinct().subquery()
        queries = (
            sa.select(sa.func.count()).select_from(_revisions),
            sa.select(sa.func.count()).select_from(_files),
            sa.select(sa.func.coalesce(sa.func.sum(distinct.c.size_bytes), 0)),
            sa.select(sa.func.count()).where(_blobs.c.verified_at.is_(None), _blobs.c.is_corrupt.is_(False)),
        )
        with self._reading() as connection:
            revisions, files, size_bytes, unverified = (int(connection.scalar(query) or 0) for query in queries)
        return revisions, files, size_bytes, unverified

    # The database itself

    def _counter(self, key: str) -> int:
        with self._reading() as connection:
            return int(connection.scalar(sa.select(_meta.c.value).where(_meta.c.key == key)) or 0)

    def _count(self, key: str, by: int) -> None:
        query = insert(_meta).values(key=key, value=by)
        self._execute(query.on_conflict_do_update(index_elements=["key"], set_={"value": _meta.c.value + by}))

    def _put(self, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        keys = [column.name for column in table.primary_key]
        query = insert(table)
        rest = {column.name: query.excluded[column.name] for column in table.columns if column.name not in keys}
        query = query.on_conflict_do_update(index_elements=keys, set_=rest)
        for batch in _batches(rows):
            with self._writing() as connection:
                connection.execute(query, batch)

    def _execute(self, query: sa.Executable) -> int:
        with self._writing() as connection:
            return int(connection.execute(query).rowcount)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._write_lock, self._translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DatabaseError as error:
            raise self._storage_error(str(error.orig)) from error
        except sqlite3.DatabaseError as error:
            raise self._storage_error(str(error)) from error

    def _storage_error(self, reason: str) -> StorageError:
        if "locked" in reason or "busy" in reason:
            return Locked(f"Another process keeps the catalogue locked ({self._path}).", hint="Try again.")
        if "full" in reason:
            return storage_error(OSError(errno.ENOSPC, reason), "write the catalogue", self._path)
        return BrokenCache(
            f"The catalogue is not usable: {reason} ({self._path}).",
            hint="Stop hfpeer and delete the file: it is an index and is made anew. Nothing of the cache is lost.",
            path=str(self._path),
        )

    def _open(self) -> tuple[Engine, Engine]:
        """Engines for readers and for the one writer, over a database that has our schema."""
        reader, writer = (self._engine(begin) for begin in ("BEGIN", "BEGIN IMMEDIATE"))
        try:
            with self._translated(), writer.begin() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar()
                if version != SCHEMA_VERSION:
                    _make_anew(connection)
        except StorageError:
            reader.dispose()
            writer.dispose()
            raise
        return reader, writer

    def _engine(self, begin: str) -> Engine:
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self._path)), connect_args={"timeout": _BUSY_SECONDS}
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: object) -> None:
            connection.isolation_level = None
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")

        @sa.event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _set_aside(self) -> None:
        with translated("delete a broken catalogue", self._path):
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _make_anew(connection: Connection) -> None:
    """Drops whatever is there, whoever made it, and makes our tables."""
    names = sa.inspect(connection).get_table_names()
    for name in names:
        connection.exec_driver_sql(f'DROP TABLE "{name}"')
    _schema.create_all(connection)
    connection.execute(insert(_meta).values(key="generation", value=int(time.time() * 1000)))
    connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Waits for others who open a new catalogue at the same time: for this one change SQLite itself does not wait."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _forget_fetches(connection: Connection, digests: Sequence[str]) -> None:
    """Drops what is known of the coming of blobs that lie nowhere any more."""
    is_gone = _fetches.c.digest.not_in(sa.select(_blobs.c.digest).where(_blobs.c.digest.in_(digests)))
    connection.execute(sa.delete(_fetches).where(_fetches.c.digest.in_(digests), is_gone))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch
