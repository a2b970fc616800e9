"""Verifies the cache of a node, or another folder that is a cache, and tells the progress as events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.store import Store
from hfpeer.cache.verify.checking import Progress
from hfpeer.cache.verify.findings import VerifyReport, elsewhere
from hfpeer.cache.verify.verification import examine
from hfpeer.control.operations import VerifyRequest
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import FileProgress, OnEvent, Progressed


async def verify_store(store: Store, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
    """See `Operations.verify`."""

    def work() -> VerifyReport:
        return store.verify(
            request.repos,
            is_quick=request.is_quick,
            trusts_verdicts=not request.is_again,
            on_progress=telling(on_event),
        )

    return await in_thread(work)


async def verify_folder(folder: Path, home: Path, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
    """Verifies a cache that is not this node's: a stick, a copy, another user's. Changes nothing in it.

    The manifests in `home` help where the copy has no proof. Raises NotFound, BrokenCache.
    """

    def work() -> VerifyReport:
        manifests = Manifests(home / "manifests", folder)
        on_progress = telling(on_event)
        examined = examine(folder, manifests, None, request.repos, is_quick=request.is_quick, on_progress=on_progress)
        return elsewhere(examined.report)

    return await in_thread(work)


def telling(on_event: OnEvent) -> Callable[[Progress], None]:
    """Turns reports of progress into events."""
    began = time.monotonic()

    def on_progress(progress: Progress) -> None:
        rate = progress.done_bytes / max(time.monotonic() - began, 1e-3)
        files = tuple(FileProgress(*one) for one in progress.under_way)
        on_event(
            Progressed(
                progress.done_bytes, progress.size_bytes, rate, {}, {}, files, progress.files_done, progress.files
            )
        )

    return on_progress
