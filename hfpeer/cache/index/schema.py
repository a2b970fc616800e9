"""The tables of the catalog and their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

SCHEMA_VERSION = 7
DOUBT_NS = 3_000_000_000
"""Nanoseconds around the mtime of a file in which another write may leave it the same: FAT keeps steps of two seconds.
"""

SCHEMA = sa.MetaData()
META = sa.Table(
    "meta",
    SCHEMA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)
REPOS = sa.Table(
    "repos",
    SCHEMA,
    sa.Column("cache", sa.Text, primary_key=True),
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("folders", sa.Text),
)
FACTS = sa.Table(
    "visibilities",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("hub", sa.Text, primary_key=True),
    sa.Column("is_origin", sa.Boolean, nullable=False),
    sa.Column("visibility", sa.Text, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
)
LISTED = sa.Table(
    "listed",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
)
GIVEN_LISTINGS = sa.Table(
    "given_listings",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
)
REVISIONS = sa.Table(
    "revisions",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("is_complete", sa.Boolean),
    sa.Column("is_proved", sa.Boolean, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False),
    sa.Column("cache", sa.Text, primary_key=True),
)
FILES = sa.Table(
    "files",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("cache", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Index("files_by_digest", "digest"),
    sqlite_with_rowid=False,
)
BLOBS = sa.Table(
    "blobs",
    SCHEMA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("repo", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False),
    sa.Column("verified_at", sa.Float),
    sa.Column("is_corrupt", sa.Boolean, nullable=False),
    sa.Column("is_given", sa.Boolean, nullable=False),
    sa.Column("ctime_ns", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cache", sa.Text, nullable=False, server_default=""),
)
ADOPTED = sa.Table(
    "adopted",
    SCHEMA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True, index=True),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("repo", sa.Text, nullable=False),
    sa.Column("way", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("ctime_ns", sa.Integer, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False),
)
REFS = sa.Table(
    "refs",
    SCHEMA,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("resolved_at", sa.Float, nullable=False),
    sa.Column("answered_by", sa.Text, nullable=False),
)
RECEIVED = sa.Table(
    "received",
    SCHEMA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("size_bytes", sa.Integer, nullable=False),
)
FETCHES = sa.Table(
    "fetches",
    SCHEMA,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("ended_at", sa.Float, nullable=False, index=True),
    sa.Column("size_bytes", sa.Integer),
    sa.Column("document_id", sa.Integer, nullable=False),
)
"""By digest: the last fetch of a blob. `size_bytes` is given if many blobs share the document."""
FETCH_DOCUMENTS = sa.Table(
    "fetch_documents",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)


_TO_6 = (
    "DROP TABLE files",
    "DROP TABLE revisions",
    "DROP TABLE repos",
    "ALTER TABLE blobs ADD COLUMN cache TEXT NOT NULL DEFAULT ''",
    "UPDATE blobs SET cache = :cache, path = :cache || '/' || path",
)
"""A scan makes the dropped tables anew. The blobs stay, with what is known of their bytes."""
_TO_7 = ("DROP INDEX IF EXISTS ix_fetches_ended_at", "ALTER TABLE fetches RENAME TO old_fetches")
UPGRADES: dict[int, tuple[str, ...]] = {
    4: ("ALTER TABLE blobs ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0", *_TO_6, *_TO_7),
    5: (*_TO_6, *_TO_7),
    6: _TO_7,
}
"""By older version: the statements that give existing tables the columns of this one, for a catalog of the cache
`:cache`. Then missing tables are made."""
FILLING = (
    "INSERT INTO fetch_documents SELECT rowid, document FROM old_fetches",
    "INSERT INTO fetches SELECT digest, ended_at, NULL, rowid FROM old_fetches",
    "DROP TABLE old_fetches",
)
"""The statements that fill the tables that were made in an upgrade."""


class BlobRow(NamedTuple):
    """A blob in a cache folder: its path, and that of the folder, both absolute.

    `verified_at`, `is_corrupt` and `is_given` hold for the file of this size, mtime, inode and ctime only. `is_given`:
    peers, or mirrors that saw no token, gave all its bytes openly. `ctime_ns` is 0 for a file that has no second name
    outside the cache; see `scan.ctime_of_link`. `inode` is 0 on a volume without lasting numbers.
    """

    path: str
    repo: str
    digest: str
    size_bytes: int
    mtime_ns: int
    inode: int
    verified_at: float | None = None
    is_corrupt: bool = False
    is_given: bool = False
    ctime_ns: int = 0
    cache: str = ""

    @property
    def is_in_doubt(self) -> bool:
        """Whether the file may have been changed after it was hashed, and would still have its stamp: it was written
        just before, the volume keeps times in whole seconds, and it has no lasting inode numbers."""
        is_coarse = self.inode == 0 and self.mtime_ns % 1_000_000_000 == 0
        return is_coarse and abs((self.verified_at or 0) * 1e9 - self.mtime_ns) < DOUBT_NS

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        """What a file with known bytes has to keep: size, mtime, inode and ctime."""
        return self.size_bytes, self.mtime_ns, self.inode, self.ctime_ns


@dataclass(frozen=True)
class AdoptedRow:
    """A file of another tool whose bytes have this digest, as long as it has this size, mtime, ctime and inode.

    `repo` is its repo as the tool names it, or empty. `way` is a value of `adopted.TakeBy`. A small file has two rows,
    one for each algorithm of digests.
    """

    path: str
    digest: str
    tool: str
    repo: str
    way: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class FileRow(NamedTuple):
    """A file in a snapshot. `digest` is None if neither a link nor a listing tells it."""

    path: str
    digest: str | None
    size_bytes: int


@dataclass(frozen=True)
class RevisionRow:
    """A snapshot: the number of its files here, the bytes of their distinct blobs, whether these are all files of the
    commit (None if the listing is unknown), and whether the listing is proved. `cache` is the path of its cache
    folder."""

    repo: str
    commit: str
    files: int
    size_bytes: int
    is_complete: bool | None
    is_proved: bool
    used_at: float
    cache: str = ""


@dataclass(frozen=True)
class RefRow:
    """The last answer for a mutable revision, by the hub `answered_by` or by a ref file of another tool ("cache")."""

    repo: str
    name: str
    commit: str
    resolved_at: float
    answered_by: str
