"""Nodes that find each other by a registry: a real Redis server, also while it is away, and after it has come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.machine import HFPEER, Machine, Machines
from fakes.network.lan import Lan
from fakes.network.lan import why_not as why_no_lan
from fakes.redis_server import RedisServer, why_not
from fakes.waiting import wait_until
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"there is no registry here: {why_not()}")
PASSWORD = "correct-horse-battery"
QUICK = (
    "from hfpeer.peers.discovery import registry; "
    "registry.HEARTBEAT_SECONDS, registry.LEASE_SECONDS, registry.ANSWER_SECONDS = 0.3, 2, 1.0"
)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Each test has its own: a machine of the same name has the same home."""
    with Machines(tmp_path / "machines") as machines:
        yield machines


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, PASSWORD) as server:
        yield server


def make(machines: Machines, name: str, server: RedisServer, password: str = PASSWORD) -> Machine:
    return machines.make(name, HFPEER_REGISTRY=server.url, HFPEER_REGISTRY_PASSWORD=password)


def entries(server: RedisServer) -> dict[str, dict[str, object]]:
    keys = server.ask("KEYS", "hfpeer:{nodes}:*").split()
    texts = {key: server.ask("GET", key).strip() for key in keys}
    return {key: json.loads(text) for key, text in texts.items() if text}  # without those that ended meanwhile


def states(machine: Machine) -> dict[str, tuple[str, str]]:
    """Of the peers that have answered; a peer may tell a node of itself."""
    return {peer.name: (peer.state, peer.found_by) for peer in machine.peers() if peer.name}


def start_quickly(machine: Machine) -> None:
    """Starts its daemon with a short heartbeat and a short lease."""
    machine.start_changed(QUICK)
    wait_until(lambda: machine.hfpeer("daemon", "status").code == 0, f"{machine.name}'s daemon answers")


def test_nodes_find_each_other_and_the_registry_has_their_addresses_and_nothing_else(
    machines: Machines, server: RedisServer, tmp_path: Path
) -> None:
    pegasus = make(machines, "pegasus", server)
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    cygnus = machines.make("cygnus", HFPEER_REGISTRY=server.url, HFPEER_REGISTRY_PASSWORD_FILE=str(secret))
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("{}")
    pegasus.do("model", "publish", str(folder), "--as", "team/secret-model")
    pegasus.start()
    cygnus.start()
    cygnus.wait_until_it_knows(pegasus)
    wait_until(lambda: states(pegasus) == {"cygnus": ("alive", "registry")}, "the registry tells of it")
    assert "registry" in pegasus.run(*HFPEER, "peer", "ls").out

    status = pegasus.status()
    written = entries(server)
    assert written[f"hfpeer:{{nodes}}:{status.node_id}"] == {
        "protovers": PROTOCOL_VERSION,
        "id": status.node_id,
        "addresses": [status.listeners["lan"]],
    }
    assert len(written) == 2 and not any(word in str(written) for word in ("pegasus", "team", "model"))
    assert 0 < int(server.ask("TTL", f"hfpeer:{{nodes}}:{status.node_id}")) <= 30

    for machine in (pegasus, cygnus):
        shown = json.dumps(machine.do("conf", "ls")) + machine.log + json.dumps(machine.do("status"))
        assert PASSWORD not in shown

    cygnus.stop()
    assert list(entries(server)) == [f"hfpeer:{{nodes}}:{status.node_id}"]


def test_a_registry_that_is_killed_takes_no_peer_away_and_has_all_nodes_again_when_it_is_back(
    machines: Machines, server: RedisServer
) -> None:
    pegasus, cygnus, draco = (make(machines, name, server) for name in ("pegasus", "cygnus", "draco"))
    for machine in (pegasus, cygnus):
        start_quickly(machine)
    wait_until(lambda: states(pegasus) == {"cygnus": ("alive", "registry")}, "the registry tells of it")
    server.kill()
    wait_until(lambda: any("Peers found before stay" in note for note in pegasus.status().notes), "that is told")
    assert states(pegasus) == {"cygnus": ("alive", "registry")}

    server.start()  # without its memory
    wait_until(lambda: len(entries(server)) == 2, "both are there again")
    wait_until(lambda: not pegasus.status().notes, "and nothing is wrong any more")
    assert states(pegasus) == {"cygnus": ("alive", "registry")}
    start_quickly(draco)
    draco.wait_until_it_knows(pegasus)
    draco.wait_until_it_knows(cygnus)

    cygnus.kill()
    wait_until(lambda: len(entries(server)) == 2, "the lease of the killed node ends")
    pegasus.wait_until_it_knows(cygnus, "gone")


def test_a_clone_of_a_node_is_noticed(machines: Machines, server: RedisServer) -> None:
    pegasus, clone = make(machines, "pegasus", server), make(machines, "clone", server)
    pegasus.do("status")
    clone.home.mkdir(parents=True, mode=0o700)
    (clone.home / "node-id").write_bytes((pegasus.home / "node-id").read_bytes())
    pegasus.start()
    clone.start()
    wait_until(lambda: pegasus.status().notes or clone.status().notes, "one of them notices")
    assert "has the id of this node" in str((*pegasus.status().notes, *clone.status().notes))


def test_a_wrong_password_is_said_and_the_node_runs(machines: Machines, server: RedisServer) -> None:
    pegasus = make(machines, "pegasus", server, password="wrong")
    pegasus.start()
    wait_until(lambda: pegasus.status().notes, "the registry refuses")
    (note,) = pegasus.status().notes
    assert "HFPEER_REGISTRY_PASSWORD" in note and "wrong" not in note.replace("WRONGPASS", "")


@pytest.mark.root
@pytest.mark.skipif(bool(why_no_lan()), reason=f"no LAN can be built here: {why_no_lan()}")
def test_on_a_lan_without_multicast_each_finds_the_address_of_the_other(machines: Machines, tmp_path: Path) -> None:
    with Lan(3) as lan:
        for host in lan.hosts:
            host.block_multicast()
        with RedisServer(tmp_path, host=lan.hosts[2]) as server:
            pegasus, cygnus = (
                machines.make(name, mdns=True, host=host, HFPEER_REGISTRY=server.url)
                for name, host in (("pegasus", lan.hosts[0]), ("cygnus", lan.hosts[1]))
            )
            pegasus.start()
            cygnus.start()
            found = [(f"{lan.hosts[1].ip}:9437", "registry")]
            wait_until(
                lambda: [(peer.address, peer.origin) for peer in pegasus.peers()] == found, "the registry tells of it"
            )
