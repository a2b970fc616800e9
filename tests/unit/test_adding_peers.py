"""Which peers `hfpeer peer add` refuses: this node itself, and names without an address."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hfpeer.config.settings import Settings
from hfpeer.errors import HubUnreachable, InvalidName
from hfpeer.names import RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.node.operations.peers import PeerOperations
from hfpeer.peers import interfaces
from hfpeer.upstream.upstreams import OFFLINE_HINT, Upstreams

HOME = "192.168.7.20"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"gpu-3.local": "192.168.7.30", "self.local": HOME}

    async def getaddrinfo(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        if host == "slow.example":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.endswith((".local", ".example")) and host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known.get(host, host), port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    ips = {Address(host).ip for host in (HOME, "127.0.0.1", "fd00::20")}
    monkeypatch.setattr(interfaces, "own_ips", lambda: ips)


def _kept(home: Path) -> list[Path]:
    return list(home.iterdir())


def operations(home: Path, listen: str = "0.0.0.0:9437") -> PeerOperations:
    settings = SimpleNamespace(home=home, lan_listen=Address.parse(listen), added_peers=(), peers=())
    return PeerOperations(cast(Settings, settings), cast(Any, None), None, None)


@pytest.mark.parametrize("address", [f"{HOME}:9437", HOME, "127.0.0.1", "127.8.8.8", "[fd00::20]", "self.local"])
async def test_an_address_of_this_node_is_refused_and_not_remembered(tmp_path: Path, address: str) -> None:
    peers = operations(tmp_path)
    with pytest.raises(InvalidName, match="this node itself"):
        await peers.add_peer(address)
    assert peers.added == () and not _kept(tmp_path)


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.251:9437", "255.255.255.255", "[::]", "[ff02::fb]"])
async def test_an_address_of_no_machine_is_refused_and_not_remembered(tmp_path: Path, address: str) -> None:
    peers = operations(tmp_path)
    with pytest.raises(InvalidName, match="of no machine"):
        await peers.add_peer(address)
    assert peers.added == () and not _kept(tmp_path)


@pytest.mark.parametrize("name", ["nobody.example", "slow.example"])
async def test_a_name_without_an_address_is_refused_and_not_remembered(tmp_path: Path, name: str) -> None:
    peers = operations(tmp_path)
    with pytest.raises(InvalidName, match="no address that this machine can look up"):
        await peers.add_peer(name)
    assert peers.added == () and not _kept(tmp_path)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:9437", f"{HOME}:9500"),
        ("0.0.0.0:9437", "gpu-3.local"),
        ("127.0.0.2:9437", "127.0.0.3:9437"),
        (f"{HOME}:9437", "127.0.0.1:9437"),
    ],
)
async def test_others_are_remembered(tmp_path: Path, listen: str, address: str) -> None:
    peers = operations(tmp_path, listen)
    await peers.add_peer(address)
    assert list(map(str, peers.added)) == [str(Address.parse(address))]


async def test_a_node_that_is_offline_on_purpose_names_the_setting() -> None:
    hubs = Upstreams([], none_hint=OFFLINE_HINT)
    for some in (hubs, hubs.with_token(None), hubs.as_last_resort(), hubs.origins):
        with pytest.raises(HubUnreachable) as raised:
            await some.resolve(RepoId.parse("acme/m"), Revision("main"))
        assert "`hfpeer conf set offline false`" in (raised.value.hint or "")
