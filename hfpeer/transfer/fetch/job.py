"""The blob, the partial and the limits of one fetch: the same for all its threads, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.ranges import PieceGrid
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob


@dataclass(frozen=True)
class FetchJob:
    """One blob, the partial that it is fetched into, and the report of how that went."""

    blob: WantedBlob
    partial: PartialBlob
    limits: StallLimits
    report: FetchReport
    on_event: OnEvent
    """Called from any thread."""
    clock: Callable[[], float]
    """Seconds, like `time.monotonic`."""

    @property
    def grid(self) -> PieceGrid:
        return PieceGrid(self.blob.size_bytes)

    def source_failed(self, source: str, reason: str, *, was_lying: bool = False) -> None:
        """Tells of it; never with a lock held."""
        self.on_event(SourceFailed(source, str(self.blob.path), reason, was_lying=was_lying))
