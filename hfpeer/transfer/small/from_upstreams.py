"""Small files from an upstream: one request for each.

An upstream may have one wrong or forbidden file among many right ones: it is still asked for the others, unless that
happens again and again.
"""

from __future__ import annotations

import time

from hfpeer.errors import AccessDenied
from hfpeer.net.backoff import backoff_seconds
from hfpeer.net.body import SourceFault
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.transfer.small.keeper import Keeper
from hfpeer.transfer.small.state import BundleState
from hfpeer.transfer.small.verified import is_right
from hfpeer.transfer.sources import UpstreamSource, WantedBlob

UPSTREAM_TRIES = 6
"""Requests for one file that an upstream may break off."""


class FromUpstreams:
    """Asks upstreams, each in threads of its own. `last` is the name of the one that is asked after all others."""

    def __init__(self, state: BundleState, keeper: Keeper, on_event: OnEvent, last: str | None) -> None:
        self._state = state
        self._keeper = keeper
        self._on_event = on_event
        self._last = last

    def drain(self, upstream: UpstreamSource) -> None:
        """Asks for file after file, until the upstream was asked for all that is missing."""
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
        """One file, with a few tries. If the upstream limits requests: the seconds for which it rests."""
        asked_at = time.monotonic()
        for attempt in range(1, UPSTREAM_TRIES + 1):
            try:
                data = self._read_whole(upstream, blob)
            except SourceFault as fault:
                limit_seconds = fault.retry_after_seconds
                if limit_seconds is not None and self._state.may_rest(limit_seconds):
                    return limit_seconds
                rest_seconds = backoff_seconds(attempt, fault.retry_after_seconds)
                is_useless = self._is_useless(upstream, fault, asked_at, rest_seconds)
                if is_useless or attempt == UPSTREAM_TRIES or self._is_final(fault):
                    self._state.give_up(upstream, blob, fault, is_useless=is_useless)
                    if not self._state.is_over:
                        self._on_event(SourceFailed(upstream.name, str(blob.path), fault.reason))
                    return None
                self._state.rest(rest_seconds)
                continue
            if is_right(blob, data):
                self._keeper.take(upstream, [(blob, data)])
            elif self._state.note_liar(upstream, blob):
                reason = "gave bytes that are not the file's"
                self._on_event(SourceFailed(upstream.name, str(blob.path), reason, was_lying=True))
            return None
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
