"""The background duties of a daemon leave a fetch alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from fakes.waiting import wait_until
from hfpeer.cache.index.scan.scanner import ScanResult
from hfpeer.cache.store import Store
from hfpeer.node import upkeep as upkeep_module
from hfpeer.node.upkeep import BUSY_SCAN_SECONDS, Upkeep
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.upstream.upstreams import Upstreams


async def test_the_next_scan_waits_while_a_fetch_runs_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "SCAN_SECONDS", 0.005)
    now, scans, looks = 0.0, 0, 0

    def scan() -> ScanResult:
        nonlocal scans
        scans += 1
        return ScanResult()

    def is_fetching() -> bool:
        nonlocal looks
        looks += 1
        return True

    async def announce(generation: int) -> None: ...

    hubs = cast(Upstreams, None)
    store = Store(tmp_path / "cache", tmp_path / "home")
    monkeypatch.setattr(store, "scan", scan)
    checks = VisibilityChecker(store, hubs)
    upkeep = Upkeep(store, hubs, checks, announce, partial_days=0, is_fetching=is_fetching, clock=lambda: now)
    try:
        upkeep.start()
        await asyncio.to_thread(wait_until, lambda: looks >= 5, "it has looked several times")
        assert scans == 1, "the first scan waits for nothing"
        now += BUSY_SCAN_SECONDS
        await asyncio.to_thread(wait_until, lambda: scans == 2, "the cache is scanned again")
    finally:
        await upkeep.stop()
        store.close()
