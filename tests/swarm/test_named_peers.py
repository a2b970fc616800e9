"""An add from peers that it names: `hfpeer model add --from HOST`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakes.hub import HubSimulator
from fakes.machine import HFPEER, Machine, Machines
from fakes.network.ports import free_ports
from hfpeer.errors import NotFound, PeerUnreachable


@pytest.fixture
def lone(machines: Machines, request: pytest.FixtureRequest) -> Machine:
    """A machine without a daemon, without upstreams and without peers."""
    return machines.make(request.node.name.replace("test_", "")[:30])


def test_a_node_in_the_commands_own_process_takes_all_from_the_named_peer(
    pegasus: Machine, lone: Machine, hub: HubSimulator, put: Callable[..., str]
) -> None:
    commit = put("acme/named", 2_000_000)
    pegasus.do("model", "add", "-r", "acme/named")
    hub.clear()
    added = lone.do("model", "add", "-r", "acme/named", "-v", commit, "--from", pegasus.address)
    assert added["bytes_by_source"] == {"pegasus": added["size_bytes"]}
    (listed,) = lone.found("model", "ls", "-r", "acme/named")
    assert listed["is_complete"] and listed["is_proved"]


def test_a_named_peer_comes_before_the_peers_of_a_daemon_and_no_hub_is_asked_for_a_commit(
    machines: Machines,
    pegasus: Machine,
    cygnus: Machine,
    hub: HubSimulator,
    mirror: HubSimulator,
    upstreams: str,
    put: Callable[..., str],
) -> None:
    commit = put("acme/before", 12_000_000)
    for machine in (pegasus, cygnus):
        machine.do("model", "add", "-r", "acme/before")
    lyra = machines.make("lyra", upstreams=upstreams, peers=[cygnus.address])
    lyra.start()
    lyra.wait_until_it_knows(cygnus)
    for simulator in (hub, mirror):
        simulator.wait_until_quiet()
        simulator.clear()
    added = lyra.do("model", "add", "-r", "acme/before", "-v", commit, "--from", pegasus.address)
    assert added["bytes_by_source"] == {"pegasus": added["size_bytes"]}
    assert not hub.requests and not mirror.requests


def test_a_named_peer_that_is_silent_is_told_and_the_others_give_the_files(
    pegasus: Machine, machines: Machines, upstreams: str, put: Callable[..., str]
) -> None:
    put("acme/silent")
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    vela = machines.make("vela", upstreams=upstreams)
    ran = vela.run(*HFPEER, "model", "add", "-r", "acme/silent", "--from", nobody)
    assert ran.code == 0 and f"The peer {nobody} does not answer" in ran.err and "Going on without it." in ran.err
    with pytest.raises(PeerUnreachable, match="does not answer"):
        vela.do("model", "add", "-r", "acme/silent", "--from", nobody, "--only-from")


def test_what_the_named_peer_does_not_share_is_told_in_a_sentence(
    pegasus: Machine, lone: Machine, put: Callable[..., str]
) -> None:
    commit = put("acme/unshared")
    pegasus.do("model", "add", "-r", "acme/unshared")
    pegasus.do("model", "unshare", "-r", "acme/unshared")
    with pytest.raises(NotFound, match="does not have it, or does not share it"):
        lone.do("model", "add", "-r", "acme/unshared", "-v", commit, "--from", pegasus.address, "--only-from")


def test_a_peer_may_be_named_for_all_types_and_many_times(
    pegasus: Machine, cygnus: Machine, lone: Machine, put: Callable[..., str]
) -> None:
    commit = put("acme/rows", 3_000_000, "dataset")
    pegasus.do("dataset", "add", "-r", "acme/rows")
    words = ("--from", cygnus.address, "--from", pegasus.address)
    added = lone.do("dataset", "add", "-r", "acme/rows", "-v", commit, *words)
    assert added["bytes_by_source"] == {"pegasus": added["size_bytes"]}
