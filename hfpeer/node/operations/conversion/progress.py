"""Tells the progress of a conversion as events: the bytes of the sources that are converted, the parts under way, and
what the fetches ahead of it do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hfpeer.conversion.plan import Part
from hfpeer.transfer.events import Event, FileProgress, Finished, OnEvent, Planned, Progressed

EVENT_SECONDS = 0.2
"""Seconds between two events."""


@dataclass
class _UnderWay:
    part: Part
    rows: int = 0
    done: float = 0.0


class ConversionProgress:
    """The progress of one run. Thread-safe enough for what it is: a lost update is made up by the next."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._total_bytes = self._done_bytes = self._rows = 0
        self._parts = self._parts_done = 0
        self._under_way: dict[int, _UnderWay] = {}
        self._fetch: Progressed | None = None
        self._began = self._told = time.monotonic()
        self.fetched_bytes = 0

    def begin(self, parts: list[Part]) -> None:
        """The parts that are to be made."""
        self._parts, self._total_bytes = len(parts), sum(part.size_bytes for part in parts)
        self._began = time.monotonic()

    def of_add(self, event: Event) -> None:
        """Takes an event of an add: progress is merged, and the rest passed on."""
        if isinstance(event, Progressed):
            self._fetch = event
            self._tell()
        elif isinstance(event, Finished):
            self._fetch = None
            self.fetched_bytes += sum(event.bytes_by_source.values())
        elif not isinstance(event, Planned):
            self._on_event(event)

    def reached(self, part: Part, rows: int, done: float) -> None:
        """Notes the rows of a part, and the share of its files that has been read."""
        self._under_way[part.number] = _UnderWay(part, rows, done)
        self._tell()

    def part_done(self, part: Part, rows: int) -> None:
        """Notes that a part is made."""
        self._under_way.pop(part.number, None)
        self._done_bytes += part.size_bytes
        self._rows += rows
        self._parts_done += 1
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < EVENT_SECONDS:
            return
        self._told = now
        parts = list(self._under_way.values())
        done = self._done_bytes + sum(int(one.done * one.part.size_bytes) for one in parts)
        files = [
            FileProgress(
                f"{one.part.output} {one.part.index + 1}/{one.part.of}, {one.rows:,} rows",
                int(one.done * one.part.size_bytes),
                one.part.size_bytes,
            )
            for one in parts
        ]
        fetch = self._fetch
        self._on_event(
            Progressed(
                done,
                max(1, self._total_bytes),
                done / max(now - self._began, 1e-3),
                fetch.bytes_by_source if fetch else {},
                fetch.rate_by_source if fetch else {},
                (*files, *(fetch.files if fetch else ())),
                self._parts_done,
                self._parts,
            )
        )
