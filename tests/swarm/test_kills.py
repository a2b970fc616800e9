"""The short version of `bench/kills.py`: a node that is killed at any moment leaves nothing wrong and loses little."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent.parent.parent / "bench" / "kills.py"


@pytest.fixture
def bench() -> Iterator[ModuleType]:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("kills", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["kills"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kills"]
    sys.path[:] = before


@pytest.mark.slow
def test_ten_kills_leave_only_verified_blobs_and_cost_no_more_than_what_was_in_flight(bench: ModuleType) -> None:
    figures = bench.run(10, seed=2, bytes_per_second=24 * bench.MIB)
    assert figures.faults == []
    assert figures.kills == 10
    assert max(figures.costs) <= bench.BOUND_BYTES
    assert 0 < figures.payload_bytes <= figures.sent_bytes
