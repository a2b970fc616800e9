"""How blobs came into the cache: the records of their fetches, and the provenance of files.

The records are lost with the catalog. No decision about what is right depends on them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.database import batches
from hfpeer.cache.index.schema import FETCH_DOCUMENTS, FETCHES, BlobRow
from hfpeer.cache.records import CachedRevision, Contribution, Failure, FetchRecord, Provenance
from hfpeer.errors import StorageError
from hfpeer.names import FilePath

MAX_FAILURES = 100
"""At most this many failures of sources in one record, the last ones."""
MAX_FETCHES = 50_000
"""At most this many records, the newest ones."""
SLACK_SECONDS = 2.0
"""A file whose mtime is later than the end of its fetch by more than this is not the fetched file."""


class History:
    """The fetch records in the catalog. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._database = catalog.database

    def note(self, records: Sequence[FetchRecord]) -> None:
        """Keeps records. The record of an earlier try at the same blob, if the blob was not whole then, is merged into
        the new one. Records that cannot be written are dropped: a fetch must not fail for them."""
        with contextlib.suppress(StorageError):
            self._note(records)

    def _note(self, records: Sequence[FetchRecord]) -> None:
        before = self.find(record.digest for record in records)
        fresh = [_continued(before.get(record.digest), record) for record in records]
        self._put((record, [(record.digest, None)]) for record in fresh)

    def note_whole(self, record: FetchRecord, blobs: Sequence[tuple[str, int]]) -> None:
        """Keeps one record for many blobs, as (digest, size in bytes), that one source gave whole: `record` has its one
        contribution, without bytes and ranges. Dropped like those of `note`."""
        with contextlib.suppress(StorageError):
            self._put([(record, [(digest, size_bytes) for digest, size_bytes in blobs[-MAX_FETCHES:]])])

    def of(
        self, revision: CachedRevision, paths: Iterable[FilePath], is_published: Callable[[], bool]
    ) -> list[Provenance]:
        """The provenance of the files of a revision; with `paths` only of those."""
        wanted = frozenset(paths)
        files = [file for file in revision.listing if not wanted or file.path in wanted]
        digests = {file.digest for file in files}
        records = self.find(digests)
        places: dict[str, list[BlobRow]] = {}
        for row in self._catalog.blobs(digests):
            places.setdefault(row.digest, []).append(row)
        elsewhere = "published" if is_published() else "found"
        found = []
        for file in files:
            rows, record = places.get(file.digest, []), records.get(file.digest)
            verified_at = max((row.verified_at for row in rows if row.verified_at is not None), default=None)
            if not file.is_present:
                how = "missing"
            elif record is not None and record.verified_at is not None and _is_what_came(record, rows):
                how = "fetched"
            else:
                how, record = elsewhere, None
            found.append(
                Provenance(
                    repo=revision.repo,
                    commit=revision.commit,
                    path=file.path,
                    digest=file.digest,
                    size_bytes=file.size_bytes,
                    how=how,
                    verified_at=record.verified_at if record and verified_at is None else verified_at,
                    fetch=record,
                    cache=revision.cache,
                )
            )
        return found

    def find(self, digests: Iterable[str]) -> dict[str, FetchRecord]:
        """The record of each of these digests that has one."""
        columns = (FETCHES.c.digest, FETCHES.c.size_bytes, FETCH_DOCUMENTS.c.document)
        query = sa.select(*columns).where(FETCHES.c.document_id == FETCH_DOCUMENTS.c.id)
        found: dict[str, FetchRecord] = {}
        for batch in batches(set(digests)):
            with self._database.reading() as connection:
                for digest, size_bytes, text in connection.execute(query.where(FETCHES.c.digest.in_(batch))):
                    record = _parse(json.loads(text))
                    found[digest] = record if size_bytes is None else _of_whole(record, digest, size_bytes)
        return found

    def _put(self, records: Iterable[tuple[FetchRecord, Sequence[tuple[str, int | None]]]]) -> None:
        """Keeps records, each with the digests of its blobs, and their sizes if they share it."""
        rows: list[tuple[str, float, int | None, int]] = []
        with self._database.writing() as connection:
            for record, blobs in records:
                text = json.dumps(record, default=vars, separators=(",", ":"))
                number = connection.execute(sa.insert(FETCH_DOCUMENTS).values(document=text)).lastrowid
                rows += ((digest, record.ended_at, size_bytes, number) for digest, size_bytes in blobs)
        self._database.put(FETCHES, rows)
        oldest = sa.select(FETCHES.c.digest).order_by(FETCHES.c.ended_at.desc()).limit(-1).offset(MAX_FETCHES)
        self._database.execute(sa.delete(FETCHES).where(FETCHES.c.digest.in_(oldest)))
        with self._database.reading() as connection:
            documents = connection.scalar(sa.select(sa.func.count()).select_from(FETCH_DOCUMENTS)) or 0
        if documents > MAX_FETCHES:
            self._catalog.drop_unused_documents()


def _is_what_came(record: FetchRecord, rows: Sequence[BlobRow]) -> bool:
    """Whether one of the files can be the fetched one: it is not younger than the fetch, or no file is known."""
    latest = (record.ended_at + SLACK_SECONDS) * 1e9
    return not rows or any(row.mtime_ns <= latest for row in rows)


def _continued(before: FetchRecord | None, record: FetchRecord) -> FetchRecord:
    """A record merged with that of an earlier try at the same blob: its sources, failures and wrong ranges."""
    if before is None or before.verified_at is not None:
        return record
    known = {contribution.name: contribution for contribution in before.contributions}
    return replace(
        record,
        began_at=before.began_at,
        contributions=tuple(
            _known(contribution, known.get(contribution.name)) for contribution in record.contributions
        ),
        failures=(*before.failures, *record.failures)[-MAX_FAILURES:],
        wrong_ranges=(*before.wrong_ranges, *record.wrong_ranges),
        refetched_bytes=before.refetched_bytes + record.refetched_bytes,
    )


def _known(contribution: Contribution, before: Contribution | None) -> Contribution:
    if before is None or contribution.network:
        return contribution
    return replace(
        contribution, kind=before.kind, address=before.address, network=before.network, interface=before.interface
    )


def _of_whole(record: FetchRecord, digest: str, size_bytes: int) -> FetchRecord:
    """The record of one of many blobs that a source gave whole."""
    given = tuple(replace(one, size_bytes=size_bytes, ranges=((0, size_bytes),)) for one in record.contributions)
    return replace(record, digest=digest, size_bytes=size_bytes, contributions=given)


def _parse(document: dict[str, Any]) -> FetchRecord:
    contributions = (
        Contribution(**{**contribution, "ranges": _ranges(contribution["ranges"])})
        for contribution in document["contributions"]
    )
    return FetchRecord(
        **{
            **document,
            "contributions": tuple(contributions),
            "failures": tuple(Failure(**failure) for failure in document["failures"]),
            "wrong_ranges": _ranges(document["wrong_ranges"]),
        }
    )


def _ranges(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, stop) for start, stop in pairs)
