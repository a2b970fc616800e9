"""The index of the cache: which repos, revisions, files, blobs and refs it holds.

It is only an index: it may be deleted at any time, and a scan makes it anew. Nothing here reads the cache's files.
SQLAlchemy is imported in this folder only.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from hfpeer.cache.disk.caches import Caches
from hfpeer.cache.index.database import Database, batches, values_of
from hfpeer.cache.index.facts import FactTables
from hfpeer.cache.index.schema import (
    BLOBS,
    DOUBT_NS,
    FACTS,
    FETCH_DOCUMENTS,
    FETCHES,
    FILES,
    GIVEN_LISTINGS,
    LISTED,
    REFS,
    REPOS,
    REVISIONS,
    BlobRow,
    FileRow,
    RefRow,
    RevisionRow,
)

_STAMP = ("size_bytes", "mtime_ns", "inode", "ctime_ns")
"""The columns of `BlobRow.stamp`."""
WHOLE_REPO_DIGESTS = 2000
"""If more blobs of one repo are looked for, all rows of the repo are read: that takes a fifth of the time for each."""
_IS_ANOTHER = sa.or_(*(BLOBS.c[name] != insert(BLOBS).excluded[name] for name in _STAMP))
"""Whether a row of a blob that is put over another row is of another file."""


class Catalog:
    """The index in the database at `path`. It shows what is in those of `caches` that are there. Thread-safe.

    Raises NoSpace, BrokenCache, or Locked when another process writes for too long.
    """

    def __init__(self, path: Path, caches: Caches) -> None:
        self.database = Database(path, caches.first)
        self._caches = caches
        self.facts = FactTables(self.database)
        self._summing = threading.Lock()
        self._generation = (-1, 0)
        """A `data_version`, and the generation then."""

    def close(self) -> None:
        self.database.close()

    @property
    def data_version(self) -> int:
        """A number that changes with every change, also of another process. Cheap to read."""
        return self.database.data_version

    @property
    def generation(self) -> int:
        """Grows with every change that peers should hear of. A new catalog begins above every older one. Cheap to read
        while nothing changes."""
        version, (known, generation) = self.data_version, self._generation
        if version != known:
            generation = self.database.counter("generation")
            self._generation = (version, generation)
        return generation

    def bump(self) -> None:
        """Raises the generation: peers will ask for the catalog again."""
        self.database.count("generation", 1)

    @property
    def _first(self) -> str:
        return str(self._caches.first)

    def _is_here(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Whether a row is of a cache folder that is there."""
        return table.c.cache.in_([str(cache) for cache in self._caches.present])

    # Blobs

    def blobs(self, digests: Iterable[str]) -> list[BlobRow]:
        """The rows of all blobs that have one of these digests."""
        is_here = self._is_here(BLOBS)
        with self.database.reading() as connection:
            return [
                BlobRow(*row)
                for batch in batches(digests)
                for row in connection.execute(sa.select(BLOBS).where(BLOBS.c.digest.in_(batch), is_here))
            ]

    def digests(self) -> list[str]:
        """The digests of all blobs that are not known to be corrupt."""
        query = sa.select(BLOBS.c.digest).where(~BLOBS.c.is_corrupt, self._is_here(BLOBS)).distinct()
        with self.database.reading() as connection:
            return list(connection.scalars(query))

    def blobs_of_repo(self, repo: str, cache: str | None = None) -> list[BlobRow]:
        """The blobs of a repo in one cache folder, by default the first."""
        query = sa.select(BLOBS).where(BLOBS.c.repo == repo, BLOBS.c.cache == (cache or self._first))
        with self.database.reading() as connection:
            return [BlobRow(*row) for row in connection.execute(query)]

    def corrupt_paths(self, repo: str) -> set[str]:
        """The paths of the blobs of a repo in the first cache folder that are known to be corrupt."""
        is_one = sa.and_(BLOBS.c.repo == repo, BLOBS.c.cache == self._first, BLOBS.c.is_corrupt)
        with self.database.reading() as connection:
            return set(connection.scalars(sa.select(BLOBS.c.path).where(is_one)))

    def verified(self, repo: str, digests: Collection[str]) -> Iterator[tuple[str, str, tuple[int, int, int, int]]]:
        """The digest, the path and the `BlobRow.stamp` of those of these blobs in one repo of the first cache folder
        that were hashed and are right, without those whose verdict may be in doubt."""
        columns = (BLOBS.c.digest, BLOBS.c.path, BLOBS.c.size_bytes, BLOBS.c.mtime_ns, BLOBS.c.inode, BLOBS.c.ctime_ns)
        is_right = sa.and_(BLOBS.c.verified_at.is_not(None), ~BLOBS.c.is_corrupt, BLOBS.c.inode != 0)
        query = sa.select(*columns).where(BLOBS.c.repo == repo, BLOBS.c.cache == self._first, is_right)
        is_few = len(digests) <= WHOLE_REPO_DIGESTS
        queries = [query.where(BLOBS.c.digest.in_(batch)) for batch in batches(digests)] if is_few else [query]
        for one in queries:
            for digest, path, *stamp in self.database.raw(one):
                yield digest, path, tuple(stamp)

    def stamps_of_repo(self, repo: str, cache: str) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        """The path and the `BlobRow.stamp` of each blob of a repo in one cache folder. Cheaper than the rows."""
        columns = (BLOBS.c.path, *(BLOBS.c[name] for name in _STAMP))
        query = sa.select(*columns).where(BLOBS.c.repo == repo, BLOBS.c.cache == cache)
        with self.database.reading() as connection:
            for path, *stamp in connection.execute(query):
                yield path, tuple(stamp)

    def stamps_at(self, paths: Iterable[str]) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
        """By path: the digest and the `BlobRow.stamp` of those blobs that are known at these paths."""
        return self._stamps_at(paths)

    def right_at(self, paths: Iterable[str]) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
        """The same of those that were hashed and are right."""
        return self._stamps_at(paths, BLOBS.c.verified_at.is_not(None), ~BLOBS.c.is_corrupt)

    def _stamps_at(
        self, paths: Iterable[str], *conditions: sa.ColumnElement[bool]
    ) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
        query = sa.select(BLOBS.c.path, BLOBS.c.digest, *(BLOBS.c[name] for name in _STAMP)).where(*conditions)
        with self.database.reading() as connection:
            return {
                path: (digest, tuple(stamp))
                for batch in batches(paths)
                for path, digest, *stamp in connection.execute(query.where(BLOBS.c.path.in_(batch)))
            }

    def count_blobs(self, repo: str, cache: str) -> int:
        """How many blobs of a repo are known in one cache folder."""
        query = sa.select(sa.func.count()).where(BLOBS.c.repo == repo, BLOBS.c.cache == cache)
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def digests_elsewhere(self) -> set[str]:
        """The digests of all blobs in other cache folders than the first that are not known to be corrupt."""
        is_elsewhere = sa.and_(BLOBS.c.cache != self._first, self._is_here(BLOBS), ~BLOBS.c.is_corrupt)
        with self.database.reading() as connection:
            return set(connection.scalars(sa.select(BLOBS.c.digest).where(is_elsewhere).distinct()))

    def digests_in_snapshots(self) -> dict[str, str]:
        """By path below the first cache folder: the digests of regular files in snapshots, as far as a list tells
        them."""
        above, first = len(self._first) + 1, BLOBS.c.cache == self._first
        place = sa.func.substr(BLOBS.c.path, above + 1).label("place")
        query = sa.select(place, BLOBS.c.digest).where(first, place.like("%/snapshots/%"))
        with self.database.reading() as connection:
            return {str(path): str(digest) for path, digest in connection.execute(query)}

    def unverified(self, limit: int, offset: int = 0) -> list[BlobRow]:
        """Blobs that were never hashed, or whose verdict is in doubt, small ones first, without the first `offset` of
        them."""
        is_coarse = sa.and_(BLOBS.c.inode == 0, BLOBS.c.mtime_ns % 1_000_000_000 == 0)
        is_old = BLOBS.c.mtime_ns <= time.time_ns() - DOUBT_NS  # a verdict of now will not be in doubt
        is_near = sa.func.abs(BLOBS.c.verified_at * 1e9 - BLOBS.c.mtime_ns) < DOUBT_NS
        is_in_doubt = sa.and_(is_coarse, is_near, is_old)
        is_open = sa.and_(BLOBS.c.verified_at.is_(None) | is_in_doubt, BLOBS.c.is_corrupt.is_(False))
        query = sa.select(BLOBS).where(is_open, self._is_here(BLOBS)).order_by(BLOBS.c.size_bytes, BLOBS.c.path)
        with self.database.reading() as connection:
            return [
                BlobRow(*row)
                for row in connection.execute(
                    query.order_by(BLOBS.c.size_bytes, BLOBS.c.path).limit(limit).offset(offset)
                )
            ]

    def put_blobs(self, rows: Iterable[BlobRow]) -> None:
        self.database.put(BLOBS, _in_order(rows))

    def put_found_blobs(self, rows: Iterable[BlobRow]) -> None:
        """Records blobs as a scan saw them. A row of the same file is kept, because the writer of the file may have
        recorded it since, with its hash."""
        self.database.put(BLOBS, _in_order(rows), where=_IS_ANOTHER)

    def drop_blobs(self, paths: Iterable[str]) -> None:
        for batch in batches(paths):
            is_one = BLOBS.c.path.in_(batch)
            with self.database.writing() as connection:
                digests = connection.scalars(sa.select(BLOBS.c.digest).where(is_one)).all()
                connection.execute(sa.delete(BLOBS).where(is_one))
                _forget_fetches(connection, digests)

    def judge_blob(self, seen: BlobRow, verified_at: float | None, *, is_corrupt: bool) -> bool:
        """Records the result of hashing a blob. False if another file lies there by now, and nothing was recorded."""
        is_same = sa.and_(*(BLOBS.c[name] == getattr(seen, name) for name in ("path", *_STAMP)))
        query = sa.update(BLOBS).where(is_same).values(verified_at=verified_at, is_corrupt=is_corrupt)
        return self.database.execute(query) > 0

    # Revisions and their files

    def sum_up(
        self,
        repo: str,
        commit: str,
        cache: str,
        to_row: Callable[[int, int, RevisionRow | None], RevisionRow],
    ) -> None:
        """Derives the row of a revision in one cache folder from its files. `to_row` gets the number of files, the
        bytes of their distinct blobs, and the row before; it is not called for a revision without files, which is
        dropped.

        One call at a time, so that an older sum never replaces a newer one.
        """
        with self._summing:
            files, size_bytes = self._sum_of_files(repo, commit, cache)
            if files:
                before = self.revisions(repo, commit, cache)
                self.put_revision(to_row(files, size_bytes, before[0] if before else None))
            else:
                self.drop_revision(repo, commit, cache)

    def _sum_of_files(self, repo: str, commit: str, cache: str) -> tuple[int, int]:
        name = sa.func.coalesce(FILES.c.digest, FILES.c.path)
        is_one = _is_of(FILES, repo, commit, cache)
        distinct = sa.select(name, FILES.c.size_bytes).distinct().where(is_one).subquery()
        with self.database.reading() as connection:
            count = connection.scalar(sa.select(sa.func.count()).where(is_one))
            size_bytes = connection.scalar(sa.select(sa.func.sum(distinct.c.size_bytes)))
        return int(count or 0), int(size_bytes or 0)

    def files(self, repo: str, commit: str, cache: str | None = None) -> list[FileRow]:
        """The files of a snapshot in one cache folder, by default the first, sorted by path."""
        columns = (FILES.c.path, FILES.c.digest, FILES.c.size_bytes)
        is_one = _is_of(FILES, repo, commit, cache or self._first)
        query = sa.select(*columns).where(is_one).order_by(FILES.c.path)
        with self.database.reading() as connection:
            return [FileRow(*row) for row in connection.execute(query)]

    def files_at(self, repo: str, commit: str, cache: str, paths: Iterable[str]) -> dict[str, FileRow]:
        """By path: the rows of those of these files of a snapshot in one cache folder that are known."""
        columns = (FILES.c.path, FILES.c.digest, FILES.c.size_bytes)
        is_one = _is_of(FILES, repo, commit, cache)
        with self.database.reading() as connection:
            return {
                row[0]: FileRow(*row)
                for batch in batches(paths)
                for row in connection.execute(sa.select(*columns).where(is_one, FILES.c.path.in_(batch)))
            }

    def count_files(self, repo: str, commit: str, cache: str) -> int:
        """How many files of a snapshot are known in one cache folder."""
        query = sa.select(sa.func.count()).where(_is_of(FILES, repo, commit, cache))
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def sizes(self, repo: str, commit: str, cache: str) -> dict[str, int]:
        """By path: the bytes of the files of a snapshot in one cache folder. Cheaper than the rows."""
        query = sa.select(FILES.c.path, FILES.c.size_bytes).where(_is_of(FILES, repo, commit, cache))
        with self.database.reading() as connection:
            return {path: size_bytes for path, size_bytes in connection.execute(query)}  # noqa: C416

    def in_other_revisions(self, repo: str, commit: str, digests: Iterable[str]) -> set[str]:
        """Those of these digests that a file of another revision has."""
        found: set[str] = set()
        for batch in batches(digests):
            is_other = sa.or_(FILES.c.repo != repo, FILES.c.commit != commit)
            query = sa.select(FILES.c.digest).distinct().where(FILES.c.digest.in_(batch), is_other)
            with self.database.reading() as connection:
                found.update(connection.scalars(query))
        return found

    def put_files(self, repo: str, commit: str, rows: Iterable[FileRow], cache: str | None = None) -> None:
        place = (repo, commit, cache or self._first)
        self.database.put(FILES, ((*place, *row) for row in rows))

    def drop_files(self, repo: str, commit: str, paths: Iterable[str], cache: str | None = None) -> None:
        is_one = _is_of(FILES, repo, commit, cache or self._first)
        for batch in batches(paths):
            self.database.execute(sa.delete(FILES).where(is_one, FILES.c.path.in_(batch)))

    def commits_with(self, digests: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """By digest: the snapshots, as (repo, commit), that have a file with it."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        columns = (FILES.c.digest, FILES.c.repo, FILES.c.commit)
        for batch in batches(digests):
            query = sa.select(*columns).where(FILES.c.digest.in_(batch), self._is_here(FILES)).distinct()
            with self.database.reading() as connection:
                for digest, repo, commit in connection.execute(query):
                    found[digest].append((repo, commit))
        return found

    def is_all_given(self, repo: str, commit: str) -> bool:
        """Whether a snapshot has files, and the blob of each, and their list, were given openly."""
        # The unary plus hides the index by repo from SQLite. With it, each file would cost a search of the whole repo.
        is_of_repo = sa.literal_column("+blobs.repo", sa.Text) == repo
        given = sa.select(BLOBS.c.path).where(BLOBS.c.digest == FILES.c.digest, is_of_repo, BLOBS.c.is_given.is_(True))
        is_one = sa.and_(FILES.c.repo == repo, FILES.c.commit == commit, self._is_here(FILES))
        listed = sa.select(GIVEN_LISTINGS.c.repo).where(
            GIVEN_LISTINGS.c.repo == repo, GIVEN_LISTINGS.c.commit == commit
        )
        any_given = sa.select(BLOBS.c.path).where(BLOBS.c.repo == repo, BLOBS.c.is_given.is_(True)).limit(1)
        others = sa.select(FILES.c.path).where(is_one, sa.not_(given.exists())).limit(1)
        with self.database.reading() as connection:
            if connection.execute(any_given).first() is None or connection.execute(listed).first() is None:
                return False
            is_any = connection.execute(sa.select(FILES.c.path).where(is_one).limit(1)).first() is not None
            return is_any and connection.execute(others).first() is None

    def put_revision(self, row: RevisionRow) -> None:
        self.database.put(REVISIONS, [values_of(row)])

    def drop_revision(self, repo: str, commit: str, cache: str | None = None) -> None:
        """Removes a revision and its files from one cache folder, by default the first."""
        with self.database.writing() as connection:
            for table in (FILES, REVISIONS):
                connection.execute(sa.delete(table).where(_is_of(table, repo, commit, cache or self._first)))

    def revisions(
        self, repo: str | None = None, commit: str | None = None, cache: str | None = None
    ) -> list[RevisionRow]:
        """The revisions in one cache folder, by default in all that are there, most recently used first."""
        query = sa.select(REVISIONS).order_by(REVISIONS.c.used_at.desc(), REVISIONS.c.repo, REVISIONS.c.commit)
        query = query.where(self._is_here(REVISIONS) if cache is None else REVISIONS.c.cache == cache)
        if repo is not None:
            query = query.where(REVISIONS.c.repo == repo)
        if commit is not None:
            query = query.where(REVISIONS.c.commit == commit)
        with self.database.reading() as connection:
            return [RevisionRow(*row) for row in connection.execute(query)]

    def note_use(self, digests: Iterable[str], used_at: float) -> None:
        """Notes the use of the revisions that have files with these digests, in seconds since the epoch."""
        place = sa.tuple_(REVISIONS.c.repo, REVISIONS.c.commit, REVISIONS.c.cache)
        for batch in batches(digests):
            used = sa.select(FILES.c.repo, FILES.c.commit, FILES.c.cache).where(FILES.c.digest.in_(batch))
            is_older = REVISIONS.c.used_at < used_at
            self.database.execute(sa.update(REVISIONS).where(place.in_(used), is_older).values(used_at=used_at))

    # Refs

    def refs(self, repo: str | None = None, name: str | None = None) -> list[RefRow]:
        query = sa.select(REFS).order_by(REFS.c.repo, REFS.c.name)
        if repo is not None:
            query = query.where(REFS.c.repo == repo)
        if name is not None:
            query = query.where(REFS.c.name == name)
        with self.database.reading() as connection:
            return [RefRow(*row) for row in connection.execute(query)]

    def put_refs(self, rows: Iterable[RefRow]) -> None:
        self.database.put(REFS, map(values_of, rows))

    def drop_refs(self, repo: str, refs: Iterable[str]) -> None:
        for batch in batches(refs):
            self.database.execute(sa.delete(REFS).where(REFS.c.repo == repo, REFS.c.name.in_(batch)))

    # Repos

    def repos(self, cache: str | None = None) -> dict[str, str | None]:
        """By repo of one cache folder, by default the first: the mtimes of its folders at the last scan, as JSON; None
        after it was removed."""
        query = sa.select(REPOS.c.repo, REPOS.c.folders).where(REPOS.c.cache == (cache or self._first))
        with self.database.reading() as connection:
            return {str(repo): folders for repo, folders in connection.execute(query)}

    def set_folders(self, repo: str, folders: str | None, cache: str | None = None) -> None:
        """Keeps the mtimes of a repo's folders, as JSON."""
        self.database.put(REPOS, [(cache or self._first, repo, folders)])

    def drop_repo(self, repo: str) -> None:
        """Removes every row of a repo in the first cache folder. If no other folder has the repo, its own facts go
        too."""
        with self.database.writing() as connection:
            is_one = sa.and_(BLOBS.c.repo == repo, BLOBS.c.cache == self._first)
            digests = connection.scalars(sa.select(BLOBS.c.digest).where(is_one)).all()
            for table in (FILES, REVISIONS, BLOBS, REPOS):
                connection.execute(sa.delete(table).where(table.c.repo == repo, table.c.cache == self._first))
            if connection.execute(sa.select(REVISIONS.c.repo).where(REVISIONS.c.repo == repo).limit(1)).first() is None:
                for table in (REFS, FACTS, LISTED, GIVEN_LISTINGS):
                    connection.execute(sa.delete(table).where(table.c.repo == repo))
            for batch in batches(digests):
                _forget_fetches(connection, batch)

    def forget_lost_caches(self) -> None:
        """Removes every row of cache folders that are none of this node's and do not exist any more."""
        known = {str(one) for one in (self._caches.first, *self._caches.others)}
        with self.database.reading() as connection:
            found = connection.scalars(sa.select(REPOS.c.cache).distinct()).all()
        for cache in found:
            if cache not in known and not Path(cache).is_dir():
                for table in (FILES, REVISIONS, BLOBS, REPOS):
                    self.database.execute(sa.delete(table).where(table.c.cache == cache))

    def collect(self, keep: Sequence[str] = (), *, is_dry_run: bool = False) -> int:
        """Drops the records of fetches of blobs that are in no repo, except of `keep`, and gives the space of dropped
        rows back. Returns the number of records. With `is_dry_run` it only counts them."""
        is_gone = sa.and_(FETCHES.c.digest.not_in(sa.select(BLOBS.c.digest)), FETCHES.c.digest.not_in(keep))
        if is_dry_run:
            with self.database.reading() as connection:
                return int(connection.scalar(sa.select(sa.func.count()).select_from(FETCHES).where(is_gone)) or 0)
        dropped = self.database.execute(sa.delete(FETCHES).where(is_gone))
        self.drop_unused_documents()
        self.database.shrink()
        return dropped

    def drop_unused_documents(self) -> None:
        """Drops the documents that no record of a fetch names any more."""
        is_used = FETCH_DOCUMENTS.c.id.in_(sa.select(FETCHES.c.document_id))
        self.database.execute(sa.delete(FETCH_DOCUMENTS).where(~is_used))

    # Statistics

    def size_bytes(self, cache: str) -> int:
        """The bytes of all blobs of one cache folder."""
        query = sa.select(sa.func.coalesce(sa.func.sum(BLOBS.c.size_bytes), 0)).where(BLOBS.c.cache == cache)
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def totals(self) -> tuple[int, int, int, int]:
        """Counts: revisions, files, bytes of distinct blobs, and blobs that were never hashed."""
        is_here = self._is_here(BLOBS)
        distinct = sa.select(BLOBS.c.digest, BLOBS.c.size_bytes).where(is_here).distinct().subquery()
        revisions = sa.select(REVISIONS.c.repo, REVISIONS.c.commit).where(self._is_here(REVISIONS))
        files = sa.select(FILES.c.repo, FILES.c.commit, FILES.c.path).where(self._is_here(FILES))
        if len(self._caches.present) > 1:
            revisions, files = revisions.distinct(), files.distinct()
        is_open = sa.and_(BLOBS.c.verified_at.is_(None), BLOBS.c.is_corrupt.is_(False))
        queries = (
            sa.select(sa.func.count()).select_from(revisions.subquery()),
            sa.select(sa.func.count()).select_from(files.subquery()),
            sa.select(sa.func.coalesce(sa.func.sum(distinct.c.size_bytes), 0)),
            sa.select(sa.func.count()).where(is_open, is_here),
        )
        with self.database.reading() as connection:
            counts = [int(connection.scalar(query) or 0) for query in queries]
        return counts[0], counts[1], counts[2], counts[3]


def _in_order(rows: Iterable[BlobRow]) -> list[BlobRow]:
    """The rows in the order of their digests, in which an index takes many of them with fewer writes."""
    return sorted(rows, key=lambda row: row.digest)


def _is_of(table: sa.Table, repo: str, commit: str, cache: str) -> sa.ColumnElement[bool]:
    """Whether a row is of this revision in this cache folder."""
    return sa.and_(table.c.repo == repo, table.c.commit == commit, table.c.cache == cache)


def _forget_fetches(connection: Connection, digests: Sequence[str]) -> None:
    """Drops the fetch records of blobs that are in no repo any more."""
    is_gone = FETCHES.c.digest.not_in(sa.select(BLOBS.c.digest).where(BLOBS.c.digest.in_(digests)))
    connection.execute(sa.delete(FETCHES).where(FETCHES.c.digest.in_(digests), is_gone))
