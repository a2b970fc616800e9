"""Reports of work on one file after another, such as an export or import, as events of a transfer."""

from __future__ import annotations

import time
from typing import Protocol

from hfpeer.transfer.events import FileProgress, OnEvent, Progressed

REPORT_SECONDS = 0.1
"""Seconds between two reports of progress."""


class Report(Protocol):
    """Called with the file under way, the bytes done and those of all files, and the same counts of files if known."""

    def __call__(self, path: str, done_bytes: int, size_bytes: int, done_files: int = 0, files: int = 0, /) -> None: ...


def telling(on_event: OnEvent) -> Report:
    """Turns reports of progress into events, at most one in REPORT_SECONDS."""
    began = last = time.monotonic()

    def on_progress(path: str, done_bytes: int, size_bytes: int, done_files: int = 0, files: int = 0) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            last = now
            rate = done_bytes / max(now - began, 1e-3)
            under_way = (FileProgress(path, done_bytes, size_bytes),)
            on_event(Progressed(done_bytes, size_bytes, rate, {}, {}, under_way, done_files, files))

    return on_progress
