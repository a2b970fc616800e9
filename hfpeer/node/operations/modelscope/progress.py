"""Turns what was sent into the progress events of an add, and merges those of pushes that run at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from hfpeer.transfer.events import Event, FileProgress, OnEvent, Progressed

REPORT_SECONDS = 0.2
"""Seconds between two events."""
RATE_SECONDS = 5.0
"""Seconds over which the rate is measured."""


class PushProgress:
    """Counts the blobs of one push."""

    def __init__(self, on_event: OnEvent, blobs: Mapping[str, tuple[str, int]]) -> None:
        """`blobs` are by sha256: a path, and the size in bytes."""
        self._on_event = on_event
        self._blobs = blobs
        self._size_bytes = sum(size for _, size in blobs.values())
        self._sent: dict[str, int] = {}
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._told_at = 0.0

    def sent(self, sha256: str, size_bytes: int) -> None:
        """So many bytes of a blob were sent by now; fewer than before when it begins anew."""
        self._sent[sha256] = size_bytes
        now = time.monotonic()
        is_whole = size_bytes == self._blobs[sha256][1]
        if is_whole or now - self._told_at >= REPORT_SECONDS:
            self._told_at = now
            self._on_event(self._event(now))

    def _event(self, now: float) -> Progressed:
        present = sum(self._sent.values())
        self._samples.append((now, present))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()
        began_at, began = self._samples[0]
        running = [(self._blobs[sha], sent) for sha, sent in self._sent.items() if sent < self._blobs[sha][1]]
        return Progressed(
            present_bytes=present,
            size_bytes=self._size_bytes,
            rate_bytes_per_second=max(0, present - began) / max(now - began_at, 1e-3),
            bytes_by_source={},
            rate_by_source={},
            files=tuple(FileProgress(path, sent, size) for (path, size), sent in running),
            files_done=len(self._sent) - len(running),
            files_total=len(self._blobs),
        )


class MergedProgress:
    """The progress of several pushes as one: sums, and the files of all with the name of their repo."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._latest: dict[str, Progressed] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> OnEvent:
        """The on_event function of the push with this name."""

        def on_event(event: Event) -> None:
            if not isinstance(event, Progressed):
                self._on_event(event)
                return
            with self._lock:
                files = tuple(replace(file, path=f"{name}: {file.path}") for file in event.files)
                self._latest[name] = replace(event, files=files)
                merged = self._merged()
            self._on_event(merged)

        return on_event

    def end(self, name: str) -> None:
        """The push with this name has ended: its bytes stay in the sum, its rate ends."""
        with self._lock:
            if name in self._latest:
                self._latest[name] = replace(self._latest[name], rate_bytes_per_second=0.0, files=())

    def _merged(self) -> Progressed:
        all_ = self._latest.values()
        return Progressed(
            present_bytes=sum(one.present_bytes for one in all_),
            size_bytes=sum(one.size_bytes for one in all_),
            rate_bytes_per_second=sum(one.rate_bytes_per_second for one in all_),
            bytes_by_source={},
            rate_by_source={},
            files=tuple(file for one in all_ for file in one.files),
            files_done=sum(one.files_done for one in all_),
            files_total=sum(one.files_total for one in all_),
        )
