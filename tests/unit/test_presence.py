"""Which peers have come and gone, for the log."""

from __future__ import annotations

from dataclasses import replace

from hfpeer.net.address import Address
from hfpeer.peers.table.presence import Presence
from hfpeer.peers.table.table import ALIVE_SECONDS, GONE_AFTER_FAILURES, Peer

HERE = Peer((Address("10.0.0.7", 9437),), 0.0, node_id="ab" * 16, name="h7", answered_at=100.0)


def test_a_peer_comes_once_and_goes_once_with_the_reason() -> None:
    presence = Presence()
    assert presence.changes([HERE], 100.0) == ([HERE], [])
    assert presence.changes([HERE], 101.0) == ([], [])
    silent = replace(HERE, failures=GONE_AFTER_FAILURES, last_failure="it timed out")
    assert presence.changes([silent], 200.0) == ([], [("h7 (10.0.0.7:9437)", "it timed out")])
    assert presence.changes([silent], 201.0) == ([], [])
    back = replace(HERE, answered_at=300.0)
    assert presence.changes([back], 300.0) == ([back], [])
    assert presence.changes([replace(back, has_left=True)], 301.0) == ([], [("h7 (10.0.0.7:9437)", "it has left")])


def test_a_peer_that_is_quiet_for_a_while_has_not_gone() -> None:
    presence = Presence()
    presence.changes([HERE], 100.0)
    assert presence.changes([HERE], 100.0 + ALIVE_SECONDS + 1) == ([], [])


def test_a_peer_that_never_answered_neither_comes_nor_goes() -> None:
    presence = Presence()
    unknown = replace(HERE, answered_at=None, failures=GONE_AFTER_FAILURES)
    assert presence.changes([unknown], 100.0) == ([], [])


def test_a_peer_that_was_removed_has_gone() -> None:
    presence = Presence()
    presence.changes([HERE], 100.0)
    assert presence.changes([], 101.0) == ([], [("h7 (10.0.0.7:9437)", "")])
