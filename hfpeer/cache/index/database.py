"""The SQLite database of the catalog: opening it, replacing a broken one, reading and writing it.

SQLite runs in WAL mode behind SQLAlchemy: one writer at a time with short transactions, and readers never wait. The
database is only an index. One of the version before gets what it lacks; one of any other version, or one that SQLite
cannot read, is deleted and made anew. Where the home has no locks, it lies on this machine's own disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection, Engine

from hfpeer.cache.disk.locks import NO_FLOCK
from hfpeer.cache.disk.os_errors import MOVES_HOME, storage_error, translated
from hfpeer.cache.index.schema import FILLING, META, SCHEMA, SCHEMA_VERSION, UPGRADES
from hfpeer.config.paths import folder_without_locks
from hfpeer.errors import BrokenCache, Locked, StorageError
from hfpeer.system.ownership import foreign, make_own_folder, open_own

BATCH_ROWS = 2000
"""Rows of one transaction of a long write. It keeps other writers waiting for some hundredths of a second at most. With
fewer rows each page of an index is written more often."""
BATCH_KEYS = 500
"""Values that one query looks for."""
WRITER_CACHE_KIB = 16 * 1024
"""Memory for pages of the database, of the connection that writes."""
BUSY_SECONDS = 15
"""Seconds to wait for a writer in another process before Locked is raised."""
_SUFFIXES = ("", "-wal", "-shm")
"""The files of one database."""


class Database:
    """The database at `path`. Thread-safe.

    Every method raises NoSpace, BrokenCache, or Locked when another process writes for longer than BUSY_SECONDS.
    """

    def __init__(self, path: Path, cache: Path) -> None:
        """`cache` is the folder that a catalog of an older version describes."""
        self._path, self._cache = path, cache
        self._write_lock = threading.Lock()
        with translated("make the catalog's folder", path.parent, elsewhere=MOVES_HOME):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._drop_foreign()
        try:
            self._reader, self._writer = self._open()
        except BrokenCache:
            if self._path.exists() and not os.access(self._path, os.R_OK | os.W_OK):
                raise
            if _has_locks(path.parent):
                self._delete()
            else:
                folder = folder_without_locks(path.parent)
                make_own_folder(folder.parent)
                make_own_folder(folder)
                self._path = folder / path.name
                self._drop_foreign()
            self._reader, self._writer = self._open()
        self._watch_lock = threading.Lock()
        self._watcher = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Closes all connections."""
        self._watcher.close()
        self._reader.dispose()
        self._writer.dispose()

    @property
    def data_version(self) -> int:
        """A number that changes with every commit of this or another process. Reading it costs a hundredth of a
        query."""
        with self._watch_lock, self._translated():
            # Fetches all rows: an open statement would keep the view of the database that it began with.
            ((version,),) = self._watcher.execute("PRAGMA data_version").fetchall()
        return int(version)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction that only reads."""
        with self._translated(), self._reader.begin() as connection:
            yield connection

    def raw(self, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query as SQLite gives them, for very many of them: those of SQLAlchemy take twice as long. No
        type is converted."""
        compiled = query.compile(dialect=sqlite_dialect(), compile_kwargs={"render_postcompile": True})
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        with self.reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            yield from driver.execute(str(compiled), values)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that writes. It is committed at the end of the block."""
        with self._write_lock, self._translated(), self._writer.begin() as connection:
            yield connection

    def execute(self, query: sa.Executable) -> int:
        """Runs one query that writes, in a transaction of its own. Returns the number of rows that it changed."""
        with self.writing() as connection:
            return int(connection.execute(query).rowcount)

    def put(
        self, table: sa.Table, rows: Iterable[tuple[Any, ...]], where: sa.ColumnElement[bool] | None = None
    ) -> None:
        """Writes rows, which have the values of the table's columns in order, in batches over those with the same key;
        with `where` only over those for which it holds."""
        statement = _upsert(table, where)
        for batch in batches(rows, BATCH_ROWS):
            with self.writing() as connection:
                connection.exec_driver_sql(statement, batch)

    def counter(self, key: str) -> int:
        """The counter of that name, 0 before it was first counted."""
        with self.reading() as connection:
            return int(connection.scalar(sa.select(META.c.value).where(META.c.key == key)) or 0)

    def counters(self, prefix: str) -> dict[str, int]:
        """The counters whose names begin so, by the rest of the name."""
        query = sa.select(META.c.key, META.c.value).where(META.c.key.startswith(prefix, autoescape=True))
        with self.reading() as connection:
            return {key.removeprefix(prefix): int(value) for key, value in connection.execute(query)}

    def count(self, key: str, by: int) -> None:
        """Adds `by` to a counter."""
        with self.writing() as connection:
            count_in(connection, key, by)

    def shrink(self) -> None:
        """Gives the pages of dropped rows back to the file system, if they are more than a quarter of the file."""
        with self._write_lock, self._translated(), self._writer.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            (free,), (pages,) = (raw.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
            if free * 4 > pages:
                raw.execute("VACUUM")

    # Errors

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
            return Locked(f"Another process keeps the catalog locked ({self._path}).", hint="Try again.")
        if "full" in reason:
            return storage_error(OSError(errno.ENOSPC, reason), "write the catalog", self._path, elsewhere=MOVES_HOME)
        if "readonly" in reason or "unable to open" in reason:
            return self._forbidden(reason)
        return BrokenCache(
            f"The catalog is not usable: {reason} ({self._path}).",
            hint="Run `hfpeer daemon stop` and delete this file: it is only an index, and hfpeer makes a new one.",
            path=str(self._path),
        )

    def _forbidden(self, reason: str) -> BrokenCache:
        with contextlib.suppress(OSError):
            owner = self._path.parent.stat().st_uid
            if owner != os.geteuid():
                return foreign(self._path, owner, "The catalog cannot be written")
        return BrokenCache(
            f"The catalog cannot be written: {reason} ({self._path}).",
            hint="Give this user write access to the file and its folder, or set HFPEER_HOME to another folder.",
            path=str(self._path),
        )

    # Opening

    def _open(self) -> tuple[Engine, Engine]:
        """The engines for readers and for the writer, once the database has the schema of this version."""
        reader, writer = self._engine("BEGIN"), self._engine("BEGIN IMMEDIATE", WRITER_CACHE_KIB)
        try:
            with self._translated(), writer.begin() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar()
                if version in UPGRADES:
                    _upgrade(connection, UPGRADES[version], self._cache)
                elif version != SCHEMA_VERSION:
                    _make_anew(connection)
        except StorageError:
            reader.dispose()
            writer.dispose()
            raise
        return reader, writer

    def _engine(self, begin: str, cache_kib: int = 0) -> Engine:
        """`cache_kib` is the memory for pages, 0 for SQLite's own bound."""
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self._path)), connect_args={"timeout": BUSY_SECONDS}
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: object) -> None:
            connection.isolation_level = None
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            if cache_kib:
                connection.execute(f"PRAGMA cache_size=-{cache_kib}")

        @sa.event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _drop_foreign(self) -> None:
        """Removes links, and files of other users, from the places of the database's files."""
        for suffix in _SUFFIXES:
            path = self._path.with_name(self._path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                facts = path.lstat()
                if facts.st_uid != os.geteuid() or not stat.S_ISREG(facts.st_mode):
                    path.unlink()

    def _delete(self) -> None:
        with translated("delete a broken catalog", self._path, elsewhere=MOVES_HOME):
            for suffix in _SUFFIXES:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _has_locks(folder: Path) -> bool:
    """Whether the volume of a folder has the locks of POSIX. It is tried; True where no file can be made."""
    place = folder / f"trial-{os.getpid()}-{threading.get_ident()}"
    try:
        with open(open_own(place, os.O_RDWR | os.O_CREAT), "rb") as file:
            place.unlink()
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_FLOCK
    return True


def count_in(connection: Connection, key: str, by: int) -> None:
    """Adds `by` to a counter, in a transaction that writes."""
    query = insert(META).values(key=key, value=by)
    connection.execute(query.on_conflict_do_update(index_elements=["key"], set_={"value": META.c.value + by}))


@lru_cache
def _upsert(table: sa.Table, where: sa.ColumnElement[bool] | None) -> str:
    """The statement that writes a row over that with the same key. SQLAlchemy takes longer to make it than SQLite takes
    for a hundred rows."""
    keys = [column.name for column in table.primary_key]
    query = insert(table)
    rest = {column.name: query.excluded[column.name] for column in table.columns if column.name not in keys}
    query = query.on_conflict_do_update(index_elements=keys, set_=rest, where=where)
    compiled = query.compile(dialect=sqlite_dialect())
    assert compiled.positiontup == [column.name for column in table.columns]
    return str(compiled)


def values_of(row: object) -> tuple[Any, ...]:
    """The values of a row that is a dataclass, for `Database.put`."""
    return tuple(vars(row).values())


def batches(items: Iterable[Any], count: int = BATCH_KEYS) -> Iterator[list[Any]]:
    """The items in lists of `count`, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, count)):
        yield batch


def _upgrade(connection: Connection, statements: Sequence[str], cache: Path) -> None:
    """Gives the tables of an older version the columns and tables of this one."""
    for statement in statements:
        connection.execute(sa.text(statement), {"cache": str(cache)} if ":cache" in statement else {})
    SCHEMA.create_all(connection)
    for statement in FILLING:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _make_anew(connection: Connection) -> None:
    """Drops every table, and makes those of this version. The new generation is larger than that of every older
    catalog, because it begins at the time in milliseconds."""
    names = sa.inspect(connection).get_table_names()
    for name in names:
        connection.exec_driver_sql(f'DROP TABLE "{name}"')
    SCHEMA.create_all(connection)
    connection.execute(insert(META).values(key="generation", value=int(time.time() * 1000)))
    connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turns WAL mode on. Tries again while other processes do the same: SQLite's own timeout does not cover this
    statement."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
