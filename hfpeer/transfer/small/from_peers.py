"""Small files from a peer: many in one request.

A repo of thousands of small files is bound by requests, not by bytes. Each file is verified before it is handed on, so
a wrong one costs no more than itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from hfpeer.net.backoff import backoff_seconds
from hfpeer.net.body import SourceFault
from hfpeer.transfer.events import OnEvent, SourceFailed
from hfpeer.transfer.small.keeper import Keeper
from hfpeer.transfer.small.promises import Hold
from hfpeer.transfer.small.state import BundleState
from hfpeer.transfer.small.verified import is_right
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob

SAY_SECONDS = 0.02
"""Seconds between two notes of what came of a peer's promise: there may be thousands of files in a second."""
PEER_TRIES = 3
"""Requests in a row that a peer may break off without giving a file."""


class FromPeers:
    """Asks peers, each in threads of its own."""

    def __init__(self, state: BundleState, keeper: Keeper, on_event: OnEvent) -> None:
        self._state = state
        self._keeper = keeper
        self._on_event = on_event

    def drain(self, peer: PeerSource) -> None:
        """Asks for batch after batch, until the peer was asked for all that is missing.

        A peer that breaks off is asked again if it gave a file, or said when to come back. A peer that promises files
        and gives too few is asked after all others.
        """
        hold, tries = self._state.promise(peer), 1
        while batch := self._state.claim(peer, peer.batch_blobs, hold):
            fault = self._ask(hold, batch)
            end = self._state.end_batch(hold, batch, fault)
            self._keeper.pass_on(batch)
            if not end.is_in_place:
                break
            if end.is_lost:
                self._state.release(hold)
                hold, tries = self._state.promise(peer), 1
            elif fault is None:
                tries = 1
            elif self._is_worth_it(fault, tries, has_given=end.has_given):
                self._state.rest(backoff_seconds(tries, fault.retry_after_seconds))
                tries = 1 if end.has_given else tries + 1
            else:
                self._state.give_up(peer, batch[0], fault)
                if not self._state.is_over:
                    self._on_event(SourceFailed(peer.name, str(batch[0].path), fault.reason))
                break
        self._state.release(hold)

    @staticmethod
    def _is_worth_it(fault: SourceFault, tries: int, *, has_given: bool) -> bool:
        """Whether a peer that broke off is asked again."""
        if fault.is_permanent or tries == PEER_TRIES:
            return False
        return has_given or fault.retry_after_seconds is not None

    def _ask(self, hold: Hold, batch: Sequence[WantedBlob]) -> SourceFault | None:
        """Takes what is right of a batch. A peer that gives wrong bytes is not asked again. The fault that broke it
        off."""
        by_digest = {blob.digest: blob for blob in batch}
        right: list[tuple[WantedBlob, bytes]] = []
        said, unsaid_bytes, said_at = 0, 0, 0.0
        try:
            response = hold.peer.open_batch(list(by_digest))
        except SourceFault as fault:
            return fault
        try:
            with self._state.reading(hold.peer, response, hold):
                for digest, data in response:
                    if data is None:
                        continue
                    blob = by_digest[digest]
                    if not is_right(blob, data):
                        self._note_liar(hold.peer, blob)
                        break
                    right.append((blob, data))
                    unsaid_bytes += len(data)
                    now = time.monotonic()
                    if now - said_at >= SAY_SECONDS:
                        self._state.fulfil(hold, len(right) - said, unsaid_bytes)
                        said, unsaid_bytes, said_at = len(right), 0, now
        except SourceFault as fault:
            return fault
        finally:
            response.close()
            self._keeper.take(hold.peer, right)
        return None

    def _note_liar(self, peer: PeerSource, blob: WantedBlob) -> None:
        if self._state.note_liar(peer, blob):
            reason = "gave bytes that are not the file's"
            self._on_event(SourceFailed(peer.name, str(blob.path), reason, was_lying=True))
