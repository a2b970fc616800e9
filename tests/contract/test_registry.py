"""Entries of nodes in a registry, a real Redis server: those of strangers, and the rights that a node needs there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.redis_server import RedisServer, why_not
from hfpeer.budgets import MAX_ADDRESSES, MAX_REGISTERED_NODES, MAX_REGISTRATION_BYTES
from hfpeer.config.settings import Settings, read_settings
from hfpeer.errors import MissingExtra
from hfpeer.net.address import Address
from hfpeer.peers.discovery.registry import KEYS, Registry
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.peers.protocol.registration import Registration
from hfpeer.peers.table.table import Origin

needs_server = pytest.mark.skipif(bool(why_not()), reason=f"there is no registry here: {why_not()}")
HERE = Address("127.0.0.1", 9437)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def settings_of(tmp_path: Path, url: str, **more: str) -> Settings:
    return read_settings({"HFPEER_HOME": str(tmp_path / "home"), "HFPEER_REGISTRY": url, **more})


class Heard:
    """Remembers the callbacks of a registry."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.left: list[str] = []

    def on_found(
        self, node_id: str, name: str, addresses: Sequence[Address], generation: int | None, hints: object, by: Origin
    ) -> None:
        assert (name, generation, hints, by) == ("", None, frozenset(), Origin.REGISTRY)
        self.found[node_id] = list(map(str, addresses))


async def hear(settings: Settings, count: int, node_id: str = "me") -> Heard:
    """Runs one node until it has found `count` others."""
    heard, node = Heard(), Registry(settings, node_id, HERE)
    await node.start(heard.on_found, heard.left.append)
    try:
        while len(heard.found) < count:
            assert node.problem is None, node.problem
            await asyncio.sleep(0.01)
    finally:
        await node.stop()
    return heard


def entry(node_id: str, *addresses: str, **changes: object) -> str:
    return json.dumps({"protovers": PROTOCOL_VERSION, "id": node_id, "addresses": addresses, **changes})


def write(server: RedisServer, node_id: str, text: str) -> None:
    server.ask("SET", f"{KEYS}:{node_id}", text)
    server.ask("SADD", KEYS, node_id)


def test_an_entry_has_an_id_and_addresses_and_is_read_as_it_was_written() -> None:
    here = Registration("n1", (Address("10.0.0.1", 9437), Address("fd00::1", 9500)))
    assert Registration.from_text(here.to_text().encode()) == here
    assert set(json.loads(here.to_text())) == {"protovers", "id", "addresses"}
    many = Registration.of("n1", [Address(f"10.0.0.{n}") for n in range(1, 50)])
    assert len(many.addresses) == MAX_ADDRESSES
    assert len(Registration.of("n" * 64, [Address("fd00:" * 7 + "1111")] * 9).to_text()) < MAX_REGISTRATION_BYTES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "[" * 3000,
        entry("n1", "10.0.0.1:1", protovers=PROTOCOL_VERSION + 1),
        entry("", "10.0.0.1:1"),
        entry("n" * 65, "10.0.0.1:1"),
        entry("n1", "10.0.0.1:1", addresses=7),
        entry("n1", "10.0.0.1:1", addresses=[7]),
        entry("n1", "10.0.0.1:1", more="x" * MAX_REGISTRATION_BYTES),
    ],
)
def test_what_is_no_entry_of_a_node_is_passed_over(text: str) -> None:
    assert Registration.from_text(text.encode()) is None


@needs_server
async def test_names_and_addresses_elsewhere_are_not_taken_from_an_entry(server: RedisServer, tmp_path: Path) -> None:
    write(server, "a", entry("a", "gpu-3.lab:9437", "169.254.169.254:80", "10.0.0.1:1", "203.0.113.7:1", "8.8.8.8:53"))
    write(server, "b", entry("b", "127.0.0.1:7"))  # this node listens on loopback, so it looks for others there
    write(server, "bad", "{")
    assert (await hear(settings_of(tmp_path, server.url), 1)).found == {"b": ["127.0.0.1:7"]}
    wider = settings_of(tmp_path, server.url, HFPEER_LAN_ALLOW="8.8.8.0/24")
    assert (await hear(wider, 2)).found == {"a": ["8.8.8.8:53"], "b": ["127.0.0.1:7"]}


@needs_server
async def test_of_very_many_nodes_some_are_read(server: RedisServer, tmp_path: Path) -> None:
    count = MAX_REGISTERED_NODES + 100
    script = """
    for i = 1, tonumber(ARGV[1]) do
      redis.call('SET', KEYS[1] .. ':n' .. i, (string.gsub(ARGV[2], 'ID', 'n' .. i)))
      redis.call('SADD', KEYS[1], 'n' .. i)
    end"""
    server.ask("EVAL", script, "1", KEYS, str(count), entry("ID", "127.0.0.1:7"))
    heard = await hear(settings_of(tmp_path, server.url), MAX_REGISTERED_NODES - 10)
    assert MAX_REGISTERED_NODES - 10 <= len(heard.found) <= MAX_REGISTERED_NODES


@needs_server
async def test_ids_without_an_entry_are_swept_out(server: RedisServer, tmp_path: Path) -> None:
    server.ask("SADD", KEYS, "gone", "there")
    write(server, "there", entry("there", "127.0.0.1:7"))
    await hear(settings_of(tmp_path, server.url), 1)
    assert server.ask("SMEMBERS", KEYS).split() == ["there"]


@needs_server
async def test_a_user_of_the_server_with_few_rights_is_enough(server: RedisServer, tmp_path: Path) -> None:
    rights = ("on", ">secret", "~hfpeer:*", "-@all", "+@read", "+@write", "+@connection")
    server.ask("ACL", "SETUSER", "hfpeer", *rights)
    write(server, "there", entry("there", "127.0.0.1:7"))
    url = server.url.replace("redis://", "redis://hfpeer@")
    await hear(settings_of(tmp_path, url, HFPEER_REGISTRY_PASSWORD="secret"), 1)
    assert server.ask("EXISTS", f"{KEYS}:me").strip() == "0"


@needs_server
async def test_own_addresses_are_those_that_the_owner_says(server: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, server.url, HFPEER_LAN_ADVERTISE="192.168.1.20,192.168.1.21:9500")
    node = Registry(settings, "me", HERE)
    await node.start(lambda *_: None, lambda _: None)
    try:
        while not (text := (await asyncio.to_thread(server.ask, "GET", f"{KEYS}:me")).strip()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        await node.stop()
    assert json.loads(text)["addresses"] == ["192.168.1.20:9437", "192.168.1.21:9500"]


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as missing:
        Registry(settings_of(tmp_path, "redis://127.0.0.1"), "me", HERE)
    assert "hfpeer[registry]" in (missing.value.hint or "")
