"""Where strangers may send this node: a hub by its redirects, anybody by an announcement."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.hub import ZOO_FILES, Fault, HubSimulator, faults, put_zoo
from hfpeer.budgets import MAX_REDIRECTS
from hfpeer.errors import HubUnreachable
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import SourceFault
from hfpeer.peers.gossip import is_peer_address
from hfpeer.peers.interfaces import LanInterfaces
from hfpeer.upstream.connection.destinations import is_allowed_destination
from hfpeer.upstream.upstream import Upstream

ZOO = RepoId.parse("acme/zoo")
SIZE = len(bytes(ZOO_FILES["config.json"]))  # type: ignore[arg-type]
PUBLIC, PRIVATE, LOOPBACK = "93.184.216.34", "10.0.0.5", "127.0.0.1"


def ips(*texts: str) -> list[Any]:
    return [ipaddress.ip_address(text) for text in texts]


@pytest.mark.parametrize(
    ("target", "from_public", "from_private", "from_loopback"),
    [
        (PUBLIC, True, True, True),
        ("2606:4700::1", True, True, True),
        ("64:ff9b::5db8:d822", True, True, True),
        ("10.1.2.3", False, True, True),
        ("192.168.1.1", False, True, True),
        ("100.64.0.1", False, True, True),
        ("fd00::1", False, True, True),
        ("::ffff:10.1.2.3", False, True, True),
        ("64:ff9b::a01:203", False, True, True),
        ("127.0.0.1", False, False, True),
        ("::1", False, False, True),
        ("::ffff:127.0.0.1", False, False, True),
        ("169.254.169.254", False, False, False),
        ("fd00:ec2::254", False, False, False),
        ("fe80::1", False, False, False),
        ("0.0.0.0", False, False, False),
        ("::", False, False, False),
        ("224.0.0.1", False, False, False),
        ("255.255.255.255", False, False, False),
    ],
)
def test_a_public_hub_leads_to_public_places_alone(
    target: str, from_public: bool, from_private: bool, from_loopback: bool
) -> None:
    (ip,) = ips(target)
    assert is_allowed_destination(ip, ips(PUBLIC)) is from_public
    assert is_allowed_destination(ip, ips(PRIVATE, PUBLIC)) is from_public
    assert is_allowed_destination(ip, ips(PRIVATE)) is from_private
    assert is_allowed_destination(ip, ips(LOOPBACK)) is from_loopback
    assert is_allowed_destination(ip, ()) is from_public


def redirect(target: str) -> Fault:
    return faults.status(302, headers={"Location": target})


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


Names = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names mean, one answer after another (the last one stays); all else is looked up as ever."""
    known: Names = {}
    really: Callable[..., Any] = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        answers = known.get(text)
        if answers is None:
            return really(host, port, *arguments, **options)
        return really(answers.pop(0) if len(answers) > 1 else answers[0], port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


async def test_neither_api_requests_nor_ranges_follow_a_hub_into_private_networks(
    hub: HubSimulator, names: Names
) -> None:
    """The hub is public by its name; the test reaches it by an answer that comes once to whoever connects."""
    commit = Commit(put_zoo(hub.storage))
    port = hub.endpoint.rpartition(":")[2]
    with HubSimulator() as victim:
        hub.inject(redirect(f"{victim.endpoint}/secret"), path="*")
        upstream = Upstream("hub", "origin", f"http://hub.example:{port}")
        try:
            names["hub.example"] = [LOOPBACK, PUBLIC]
            with pytest.raises(HubUnreachable, match="private networks"):
                await upstream.auth_check(ZOO)
            names["hub.example"] = [LOOPBACK, PUBLIC]
            with pytest.raises(SourceFault, match="private networks"):
                upstream.open_range(ZOO, commit, FilePath("config.json"), 0, 1, size_bytes=SIZE)
        finally:
            await upstream.aclose()
        assert victim.requests == []


async def test_a_name_counts_for_what_it_means_when_it_is_connected_to(hub: HubSimulator, names: Names) -> None:
    """A name that is public when it is looked at and private afterwards leads nowhere private."""
    port = hub.endpoint.rpartition(":")[2]
    with HubSimulator() as victim:
        hub.inject(redirect(f"http://rebinding.example:{victim.endpoint.rpartition(':')[2]}/x"), path="*")
        upstream = Upstream("hub", "origin", f"http://hub.example:{port}")
        try:
            names |= {"hub.example": [LOOPBACK, PUBLIC], "rebinding.example": [LOOPBACK]}
            with pytest.raises(HubUnreachable, match="private networks"):
                await upstream.auth_check(ZOO)
        finally:
            await upstream.aclose()
        assert victim.requests == []


async def test_a_hub_on_loopback_may_have_its_files_there_too(hub: HubSimulator, names: Names) -> None:
    commit, port = Commit(put_zoo(hub.storage)), hub.endpoint.rpartition(":")[2]
    names |= {"hub.test": [LOOPBACK], "files.test": [LOOPBACK]}
    hub.inject(redirect(f"http://files.test:{port}/acme/zoo/resolve/{commit}/config.json"), path="*", times=1)
    upstream = Upstream("hub", "origin", f"http://hub.test:{port}")
    try:
        body = upstream.open_range(ZOO, commit, FilePath("config.json"), 0, 1, size_bytes=SIZE)
        assert body.readinto(memoryview(bytearray(1))) == 1
        body.close()
    finally:
        await upstream.aclose()


async def test_redirects_have_an_end(hub: HubSimulator) -> None:
    hub.inject(redirect(f"{hub.endpoint}/again"), path="*")
    upstream = Upstream("hub", "origin", hub.endpoint)
    try:
        with pytest.raises(HubUnreachable, match=f"more than {MAX_REDIRECTS} times"):
            await upstream.auth_check(ZOO)
    finally:
        await upstream.aclose()
    assert len(hub.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        ("10.0.0.7", True),
        ("192.168.3.4", True),
        ("fd00::7", True),
        ("fe80::7%eth0", True),
        ("93.184.216.40", True),
        ("8.8.8.8", False),
        ("2606:4700::1", False),
        ("169.254.169.254", False),
        ("169.254.3.4", False),
        ("255.255.255.255", False),
        ("224.0.0.251", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("127.0.0.1", False),
        ("::", False),
        ("ff02::1", False),
    ],
)
def test_an_announcement_leads_to_the_lan_alone(host: str, is_taken: bool) -> None:
    own = tuple(map(ipaddress.ip_interface, ("10.0.0.1/24", "93.184.216.34/24", "fe80::1/64")))
    assert bool(LanInterfaces((), (), own).nearest_first([host], 9437)) is is_taken


def test_the_address_of_credentials_is_no_peers_even_in_an_own_network() -> None:
    own = [ipaddress.ip_network("169.254.0.0/16")]
    (link_local,), (credentials,) = ips("169.254.3.4"), ips("169.254.169.254")
    assert is_peer_address(link_local, own) and not is_peer_address(credentials, own)
