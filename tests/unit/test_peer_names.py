"""How peers, registries and own addresses are written in the settings and on the command line."""

from __future__ import annotations

import pytest

from hfpeer.config import keys
from hfpeer.config.peer_names import DnsName, parse_peer, parse_peers, with_port
from hfpeer.config.settings import read_settings
from hfpeer.errors import InvalidName
from hfpeer.net.address import Address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("gpu-3.local", Address("gpu-3.local", 9437)),
        ("10.0.0.2:9500", Address("10.0.0.2", 9500)),
        ("dns:hfpeer.models.svc.cluster.local", DnsName("hfpeer.models.svc.cluster.local", 9437)),
        ("DNS:Peers.Lab.:9500", DnsName("peers.lab.", 9500)),
        ("srv:_hfpeer._tcp.lab.example", DnsName("_hfpeer._tcp.lab.example", None)),
        (
            "srv:_peers._tcp.hfpeer.models.svc",
            DnsName("_peers._tcp.hfpeer.models.svc", None),
        ),
        ("dns:9437", Address("dns", 9437)),
        ("srv:80", Address("srv", 80)),
        ("dns", Address("dns", 9437)),
    ],
)
def test_a_peer_is_an_address_or_a_name_to_look_up(text: str, meant: Address | DnsName) -> None:
    assert parse_peer(text) == meant
    assert parse_peer(str(meant)) == meant


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dns:", "dns:NAME"),
        ("dns:no name", "dns:NAME"),
        ("dns:peers.lab:99999", "dns:NAME"),
        ("dns:10.0.0.1", "without `dns:`: 10.0.0.1"),
        ("dns:[fd00::1]:9437", "without `dns:`: [fd00::1]:9437"),
        ("srv:lab.example", "srv:_hfpeer._tcp.lab.example"),
        ("srv:_hfpeer._tcp.lab.example:9437", "srv:_hfpeer._tcp.lab.example"),
        ("srv:10.0.0.1", "srv:_hfpeer._tcp.lab.example"),
        ("srv:", "srv:_hfpeer._tcp.DOMAIN"),
        ("dns://peers.lab", "dns:NAME"),
        ("http://gpu-3", "Leave out http://: `gpu-3`"),
        ("gpu 3", "HOST:PORT"),
    ],
)
def test_what_names_no_peer_is_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(InvalidName) as refused:
        parse_peer(text)
    assert hint in (refused.value.hint or "")


def test_peers_of_all_kinds_stand_in_one_list() -> None:
    assert parse_peers("10.0.0.2, dns:a.lab,,srv:_x._tcp.lab ") == (
        Address("10.0.0.2", 9437),
        DnsName("a.lab", 9437),
        DnsName("_x._tcp.lab", None),
    )


def test_a_port_is_given_to_an_address_and_a_name_but_not_to_srv_records() -> None:
    assert with_port(parse_peer("dns:a.lab"), 9500) == DnsName("a.lab", 9500)
    assert with_port(parse_peer("gpu-3"), 9500) == Address("gpu-3", 9500)
    with pytest.raises(InvalidName):
        with_port(parse_peer("srv:_x._tcp.lab"), 9500)


@pytest.mark.parametrize("text", ["redis://box", "redis://box:6380/3", "rediss://user@box/0", "redis://[fd00::1]:6379"])
def test_a_registry_is_the_url_of_a_redis_server(text: str) -> None:
    assert keys.registry(text) == text


@pytest.mark.parametrize(
    "text", ["box:6379", "http://box", "redis://", "redis://box:99999", "redis://box/name", "redis://b?db=1"]
)
def test_another_url_is_no_registry(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        keys.registry(text)
    assert "redis://HOST" in (refused.value.hint or "")


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidName) as refused:
        keys.registry("redis://user:hunter2@box")
    assert "HFPEER_REGISTRY_PASSWORD" in (refused.value.hint or "")
    assert "hunter2" not in f"{refused.value.message}{refused.value.hint}{refused.value.facts}"


def test_the_password_is_shown_by_no_settings(tmp_path: object) -> None:
    settings = read_settings(
        {"HFPEER_HOME": f"{tmp_path}/home", "HFPEER_REGISTRY": "redis://box", "HFPEER_REGISTRY_PASSWORD": "hunter2"}
    )
    assert settings.registry_password == "hunter2"
    assert "hunter2" not in repr(settings)


def test_own_addresses_are_ip_addresses_with_a_port_if_it_is_another() -> None:
    assert list(map(str, keys.advertised("192.168.1.20, [fd00::2]:9500"))) == ["192.168.1.20", "[fd00::2]:9500"]
    for wrong in ("gpu-3", "0.0.0.0", "224.0.0.1", "10.0.0.1:99999"):
        with pytest.raises(InvalidName):
            keys.advertised(wrong)
