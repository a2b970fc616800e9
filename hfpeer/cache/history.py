"""How blobs came into the cache, and what can be said of that afterwards.

It is an index like the rest of the catalogue: lost with it, and of no weight when it is decided what is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfpeer.cache.catalog import BlobRow, Catalog
from hfpeer.cache.records import CachedRevision, FetchRecord, Giver, Provenance, Trouble
from hfpeer.names import Digest, FilePath

MAX_TROUBLES = 100
SLACK_SECONDS = 2.0
"""A file that is younger than the end of its fetch by more than this is not what was fetched."""


class History:
    """What is kept about fetches. Thread-safe."""

    def __init__(self, cache: Path, catalog: Catalog) -> None:
        self._cache = cache
        self._catalog = catalog

    def note(self, records: Sequence[FetchRecord]) -> None:
        """Keeps records. What came in earlier tries at a blob that was not whole yet is added to its new record."""
        before = self._find(record.digest for record in records)
        fresh = [_continued(before.get(record.digest), record) for record in records]
        rows = [
            (record.digest, record.ended_at, json.dumps(record, default=vars, separators=(",", ":")))
            for record in fresh
        ]
        self._catalog.put_fetches(rows)

    def find(self, digest: Digest) -> FetchRecord | None:
        """How a blob came, if that is known."""
        return self._find([str(digest)]).get(str(digest))

    def of(
        self, revision: CachedRevision, paths: Iterable[FilePath], is_published: Callable[[], bool]
    ) -> list[Provenance]:
        """Where the files of a revision come from; with `paths` only those."""
        wanted = frozenset(paths)
        files = [file for file in revision.listing if not wanted or file.path in wanted]
        digests = {file.digest for file in files}
        records = self._find(digests)
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
                )
            )
        return found

    def _find(self, digests: Iterable[str]) -> dict[str, FetchRecord]:
        return {digest: _parse(json.loads(text)) for digest, text in self._catalog.fetches(set(digests)).items()}


def _is_what_came(record: FetchRecord, rows: Sequence[BlobRow]) -> bool:
    """Whether one of the files can be the one that was fetched: none of them is known to be younger."""
    latest = (record.ended_at + SLACK_SECONDS) * 1e9
    return not rows or any(row.mtime_ns <= latest for row in rows)


def _continued(before: FetchRecord | None, record: FetchRecord) -> FetchRecord:
    """A record with what is known from an earlier try: who the sources were that gave bytes then, and what failed."""
    if before is None or before.verified_at is not None:
        return record
    known = {giver.name: giver for giver in before.givers}
    return replace(
        record,
        began_at=before.began_at,
        givers=tuple(_known(giver, known.get(giver.name)) for giver in record.givers),
        troubles=(*before.troubles, *record.troubles)[-MAX_TROUBLES:],
        wrong_ranges=(*before.wrong_ranges, *record.wrong_ranges),
        refetched_bytes=before.refetched_bytes + record.refetched_bytes,
    )


def _known(giver: Giver, before: Giver | None) -> Giver:
    if before is None or giver.road:
        return giver
    return replace(giver, kind=before.kind, address=before.address, road=before.road, interface=before.interface)


def _parse(document: dict[str, Any]) -> FetchRecord:
    givers = (Giver(**{**giver, "ranges": _ranges(giver["ranges"])}) for giver in document["givers"])
    return FetchRecord(
        **{
            **document,
            "givers": tuple(givers),
            "troubles": tuple(Trouble(**trouble) for trouble in document["troubles"]),
            "wrong_ranges": _ranges(document["wrong_ranges"]),
        }
    )


def _ranges(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((start, stop) for start, stop in pairs)
