"""The addresses that a node tells of itself."""

from __future__ import annotations

import pytest

from hfpeer.net.address import Address
from hfpeer.peers.discovery import advertised
from hfpeer.peers.discovery.advertised import REREAD_SECONDS, OwnAddresses
from hfpeer.peers.interfaces import LanInterfaces


def test_an_address_that_the_machine_gets_later_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, now = ["10.0.0.1"], 100.0
    monkeypatch.setattr(advertised, "find_lan_interfaces", lambda listen: LanInterfaces((), tuple(hosts), ()))
    own = OwnAddresses(Address.parse("0.0.0.0:9437"), (), lambda: now)
    assert own.now() == ("10.0.0.1:9437",)
    hosts.append("10.1.0.1")
    assert own.now() == ("10.0.0.1:9437",), "the system is not asked at each request"
    now += REREAD_SECONDS
    assert own.now() == ("10.0.0.1:9437", "10.1.0.1:9437")
