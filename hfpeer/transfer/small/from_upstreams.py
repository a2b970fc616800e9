"""Small files from an upstream: one request for each.

An upstream may have one wrong or forbidden file among many right ones: it is still asked for the others, unless that
happens again and again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from hfpeer.errors import AccessDenied
from hfpeer.names import Digest
from hfpeer.net.backoff import backoff_seconds
from hfpeer.net.body import SourceFault
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.transfer.small.keeper import Keeper
from hfpeer.transfer.small.state import BundleState
from hfpeer.transfer.small.verified import is_right
from hfpeer.transfer.sources.sources import UpstreamSource, WantedBlob

UPSTREAM_TRIES = 6
"""Requests for one file that an upstream may break off."""


@dataclass
class _Tries:
    """How often one upstream broke off one file, since `began_at`."""

    began_at: float
    faults: int = 0


class FromUpstreams:
    """Asks upstreams, each in threads of its own. `last` is the name of the one that is asked after all others."""

    def __init__(self, state: BundleState, keeper: Keeper, on_event: OnEvent, last: str | None) -> None:
        self._state = state
        self._keeper = keeper
        self._on_event = on_event
        self._last = last
        self._tries: dict[tuple[str, Digest], _Tries] = {}
        """By the name of the upstream and the file."""

    def drain(self, upstream: UpstreamSource) -> None:
        """Asks for file after file, until the upstream was asked for all that is missing. After a fault it rests, and
        other sources may give the file meanwhile."""
        while claimed := self._state.claim(upstream, 1):
            rest_seconds = None
            try:
                rest_seconds = self._ask(upstream, claimed[0])
            finally:
                self._state.unclaim(upstream, claimed[0], may_be_asked_again=rest_seconds is not None)
            if rest_seconds is None:
                self._keeper.pass_on(claimed)
            else:
                self._state.rest_source(upstream, rest_seconds)

    def _ask(self, upstream: UpstreamSource, blob: WantedBlob) -> float | None:
        """Asks for one file. If it may be asked for again: the seconds for which the upstream rests before."""
        tries = self._tries.setdefault((upstream.name, blob.digest), _Tries(time.monotonic()))
        try:
            data = self._read_whole(upstream, blob)
        except SourceFault as fault:
            return self._rest_after(fault, upstream, blob, tries)
        if is_right(blob, data):
            self._keeper.take(upstream, [(blob, data)])
        elif self._state.note_liar(upstream, blob):
            reason = "gave bytes that are not the file's"
            self._on_event(SourceFailed(upstream.name, str(blob.path), reason, was_lying=True))
        return None

    def _rest_after(
        self, fault: SourceFault, upstream: UpstreamSource, blob: WantedBlob, tries: _Tries
    ) -> float | None:
        """The seconds of the rest after a fault; None if the upstream is not asked for the file again."""
        limit_seconds = fault.retry_after_seconds
        if limit_seconds is not None and self._state.may_rest(limit_seconds):
            return limit_seconds
        tries.faults += 1
        rest_seconds = backoff_seconds(tries.faults, limit_seconds)
        is_useless = self._is_useless(upstream, fault, tries.began_at, rest_seconds)
        if not (is_useless or tries.faults == UPSTREAM_TRIES or self._is_final(fault)):
            return rest_seconds
        self._state.give_up(upstream, blob, fault, is_useless=is_useless)
        if not self._state.is_over:
            self._on_event(SourceFailed(upstream.name, str(blob.path), fault.reason))
        return None

    def _is_final(self, fault: SourceFault) -> bool:
        """Whether the upstream is not asked for this file again."""
        return fault.is_permanent or isinstance(fault.__cause__, AccessDenied) or self._state.is_over

    def _is_useless(self, upstream: UpstreamSource, fault: SourceFault, asked_at: float, rest_seconds: float) -> bool:
        """Whether an upstream is not asked for any other file: patience is over, or it cannot be reached and another
        follows it."""
        is_passed_over = fault.is_unreachable and upstream.name != self._last
        is_limited = fault.retry_after_seconds is not None
        return is_passed_over or is_limited or self._state.is_patience_over(asked_at, rest_seconds)

    def _read_whole(self, upstream: UpstreamSource, blob: WantedBlob) -> bytes:
        found = bytearray(blob.size_bytes)
        if not found:
            return b""
        body = upstream.open_range(blob, 0, blob.size_bytes)
        try:
            with self._state.reading(upstream, body):
                filled = 0
                while filled < len(found):
                    received = body.readinto(memoryview(found)[filled:])
                    if received == 0:
                        raise SourceFault(f"broke off after {filled} bytes")
                    filled += received
        finally:
            body.close()
        return bytes(found)
