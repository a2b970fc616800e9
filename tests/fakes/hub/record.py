"""The log of a simulator: every request that reached it, what it was answered, and how many bytes left.

Owns counting and waiting. Must never change what is answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import unquote

from .wire import Request


@dataclass
class RecordedRequest:
    """One request. `status` is 0 until answered; `body_bytes_sent` grows while the body leaves."""

    request: Request
    status: int = 0
    body_bytes_sent: int = 0
    is_finished: bool = False
    was_cut: bool = False
    at: float = field(default_factory=time.monotonic)

    @property
    def listener(self) -> str:
        return self.request.listener

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        """Still percent-encoded, without the query."""
        return self.request.path

    @property
    def authorization(self) -> str | None:
        return self.request.headers.get("authorization")

    def matches(self, method: str | None = None, path: str = "*", listener: str | None = None) -> bool:
        """Whether it is of that method and listener, and its encoded or decoded path fits the glob."""
        return method in (None, self.method) and listener in (None, self.listener) and path_matches(self.request, path)

    def __str__(self) -> str:
        return f"{self.listener} {self.method} {self.request.target} -> {self.status}, {self.body_bytes_sent} B"


def path_matches(request: Request, pattern: str) -> bool:
    """Whether the encoded or decoded path fits the glob (`*` crosses slashes)."""
    return fnmatchcase(request.path, pattern) or fnmatchcase(unquote(request.path), pattern)


class RequestLog:
    """Thread-safe; everything a test asks is answered from a consistent snapshot."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: list[RecordedRequest] = []

    def open(self, request: Request) -> RecordedRequest:
        record = RecordedRequest(request)
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()
        return record

    def answered(self, record: RecordedRequest, status: int) -> None:
        with self._changed:
            record.status = status
            self._changed.notify_all()

    def sent(self, record: RecordedRequest, count: int) -> None:
        with self._changed:
            record.body_bytes_sent += count
            self._changed.notify_all()

    def finished(self, record: RecordedRequest, was_cut: bool) -> None:
        with self._changed:
            record.is_finished, record.was_cut = True, was_cut
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._records = []

    def select(self, method: str | None = None, path: str = "*", listener: str | None = None) -> list[RecordedRequest]:
        with self._changed:
            return [record for record in self._records if record.matches(method, path, listener)]

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = 30) -> None:
        """Return once the condition holds; it is asked again at every change. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout_seconds):
                seen = "\n".join(map(str, self._records))
                raise TimeoutError(f"not within {timeout_seconds} s; requests so far:\n{seen}")
