"""The short version of `python -m bench.kills`: a node that is killed at any moment leaves nothing wrong."""

from __future__ import annotations

import pytest

from bench import kills
from hfpeer.ranges import MIB


@pytest.mark.slow
def test_ten_kills_leave_only_verified_blobs_and_cost_no_more_than_what_was_in_flight() -> None:
    figures = kills.run(10, seed=2, bytes_per_second=24 * MIB)
    assert figures.faults == []
    assert figures.kills == 10
    assert max(figures.costs) <= kills.BOUND_BYTES
    assert 0 < figures.payload_bytes <= figures.sent_bytes
