"""The requests that threads carry out now: which ones wait for an answer, the open bodies, and which are to end."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from hfpeer.net.body import Body, SourceFault
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.picker.source_state import RangeRequest


@dataclass
class _Running:
    """One request. While `is_opening` its thread waits for the source to answer and does not touch the partial."""

    thread: threading.Thread
    is_opening: bool = True
    body: Body | None = None
    overdue_reason: str | None = None
    """Why it is to end although its source might go on."""
    is_withdrawn: bool = False
    """Its source is to be asked at another address."""


class RunningRequests:
    """Carries out the picker's requests, by number. Not thread-safe: `FetchState` guards it and the picker."""

    def __init__(self, picker: Picker, silence_seconds: float) -> None:
        self._picker = picker
        self._silence_seconds = silence_seconds
        self._running: dict[int, _Running] = {}
        self._unanswered: set[str] = set()
        """The sources that gave nothing when they were asked last."""

    def next_request(self, now: float) -> RangeRequest | None:
        """The picker's next request, which the current thread opens now."""
        request = self._picker.next_request(now)
        if request is not None:
            self._running[request.number] = _Running(threading.current_thread())
        return request

    def answered(self, request: RangeRequest, body: Body | None, *, is_over: bool) -> bool:
        """The source has answered, or failed to. Whether the request still stands; otherwise it is forgotten."""
        running = self._running[request.number]
        running.is_opening, running.body = False, body
        is_wanted = not is_over and request.number in self._picker.requests
        if not is_wanted:
            del self._running[request.number]
        return is_wanted

    def received(self, request: RangeRequest, size_bytes: int, now: float) -> None:
        """The next bytes of a request are on disk."""
        self._picker.received(request, size_bytes, now)
        self._unanswered.discard(request.source)

    def settle(self, request: RangeRequest, fault: SourceFault | None, now: float) -> bool:
        """The thread of a request is done with it. Whether it failed, rather than being done or ended on purpose."""
        running = self._running.pop(request.number)
        if fault is not None and fault.is_unreachable:
            self._unanswered.add(request.source)
        if request.position >= request.stop:
            self._picker.finished(request)
        elif running.is_withdrawn or (fault is not None and fault.is_no_failure):
            self._picker.withdrawn(request)
        elif running.overdue_reason is not None:
            self._picker.overtaken(request, running.overdue_reason, now)
        else:
            self._picker.failed(
                request,
                fault.reason if fault is not None else "ended early",
                now,
                is_permanent=fault is not None and fault.is_permanent,
                retry_after_seconds=fault.retry_after_seconds if fault is not None else None,
                ignores_ranges=fault is not None and fault.ignores_ranges,
            )
            return fault is None or not fault.ignores_ranges
        return False

    def end_overdue(self, now: float) -> list[tuple[str, str]]:
        """Makes stalled requests end: a blocked read fails, and an answer that comes later is not read. The source and
        the reason of each that was not to end before."""
        ended = []
        for request, reason in self._picker.overdue(now):
            running = self._running[request.number]
            if now - request.progressed_at >= self._silence_seconds:
                self._unanswered.add(request.source)
            if running.overdue_reason is None:
                ended.append((request.source, reason))
            running.overdue_reason = reason
            if running.is_opening:
                self._picker.overtaken(request, reason, now)
            elif running.body is not None:
                running.body.abort()
        return ended

    def withdraw(self, source: str) -> None:
        """Makes the requests of a source end for no fault of it, because it is asked in another way from now on."""
        self._unanswered.discard(source)
        for request in [one for one in self._picker.requests.values() if one.source == source]:
            running = self._running[request.number]
            if running.body is not None:
                running.is_withdrawn = True
                running.body.abort()
            elif running.is_opening:
                self._picker.withdrawn(request)

    def abort(self) -> None:
        """Makes every blocked read fail."""
        for running in self._running.values():
            if running.body is not None:
                running.body.abort()

    def unanswered(self, now: float) -> set[str]:
        """The names of the sources that give nothing where they are asked."""
        requests = self._picker.requests.values()
        silent_since = now - self._silence_seconds
        return self._unanswered.union(
            one.source for one in requests if not one.is_paused and one.progressed_at <= silent_since
        )

    @property
    def are_any_paused(self) -> bool:
        """Whether a request waits for this node rather than for its source."""
        return any(request.is_paused for request in self._picker.requests.values())

    def opening_threads(self) -> set[threading.Thread]:
        return {running.thread for running in self._running.values() if running.is_opening}

    def lost_threads(self) -> int:
        """The number of threads whose source does not answer and whose request others carry out."""
        requests = self._picker.requests
        return sum(number not in requests for number, running in self._running.items() if running.is_opening)
