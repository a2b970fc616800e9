"""The news for the leechers that follow a fetch: its pieces, its claims, and the members of the swarm."""

from __future__ import annotations

from dataclasses import replace

from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.picker.membership import Membership
from hfpeer.transfer.picker.picker import Picker
from hfpeer.transfer.swarm.have_log import HaveLog


class Announcements:
    """Not thread-safe: `FetchState` guards it and the picker."""

    def __init__(self, picker: Picker, have_log: HaveLog, membership: Membership) -> None:
        self._picker = picker
        self.have_log = have_log
        self.membership = membership

    def piece_map(self) -> PieceMap:
        return self.have_log.piece_map()

    def since(self, version: int, now: float, *, has_begun: bool) -> tuple[int, PieceNews | None]:
        """The version now, and what is new since the given one; None when the whole map has to be told again. The
        news name all members that are known. This node is a candidate for envoy if it can ask a seed, or has not begun.
        """
        self.membership.set_candidate(not has_begun or self._picker.has_seed(now))
        news = self.have_log.since(version, self._picker.swarm.claims())
        return self.have_log.version, news and replace(news, members=self.membership.heartbeats(now))
