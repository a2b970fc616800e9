"""Two nodes with one id, because one machine's home is a copy of the other's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import HFPEER, Machine, Machines
from fakes.network.lan import Lan, why_not
from fakes.waiting import wait_until


def test_nodes_with_one_id_say_so_and_are_peers_after_a_restart(tmp_path: Path) -> None:
    with Machines(tmp_path) as machines:
        first = machines.make("first")
        first.start()
        second = machines.make("second", peers=[first.address])
        second.home.mkdir(mode=0o700, parents=True)
        shutil.copy(first.home / "node-id", second.home / "node-id")
        second.start()
        added = second.do("peer", "add", str(first.address))
        assert "has the id of this node" in added["note"]
        notes = second.do("status")["notes"]
        assert len(notes) == 1 and str(first.address) in notes[0] and "hfpeer daemon restart" in notes[0]
        assert "has the id of this node" in second.run(*HFPEER, "daemon", "logs").out
        assert "has the id of this node" in second.run(*HFPEER, "status").out
        listed = second.run(*HFPEER, "peer", "ls")
        assert f"{first.address}: has the id of this node" in listed.err and notes[0] in listed.err
        before = second.do("status")["node_id"]
        second.do("daemon", "restart")
        second.wait_until_it_knows(first)
        after = second.do("status")
        assert after["node_id"] != before and after["notes"] == []
        assert first.do("status")["notes"] == [] and first.do("status")["node_id"] == before


def test_a_node_that_is_given_its_own_address_is_no_twin(tmp_path: Path) -> None:
    with Machines(tmp_path) as machines:
        only = machines.make("only")
        only.start()
        assert only.hfpeer("peer", "add", str(only.address)).problem["message"].endswith("is this node itself.")
        assert only.do("status")["notes"] == []


@pytest.mark.root
@pytest.mark.skipif(bool(why_not()), reason=f"no LAN can be built here: {why_not()}")
@pytest.mark.parametrize("second_name", ["box", "other"], ids=["with one name too", "with another name"])
def test_clones_that_find_each_other_by_multicast_say_so_and_a_third_node_sees_both(
    tmp_path: Path, second_name: str
) -> None:
    """A machine's image was copied, with its home; the name of the host may be the same."""
    with Lan(3) as lan, Machines(tmp_path) as machines:
        first = machines.make("first", mdns=True, host=lan.hosts[0], HFPEER_NAME="box")
        second = machines.make("second", mdns=True, host=lan.hosts[1], HFPEER_NAME=second_name)
        third = machines.make("third", mdns=True, host=lan.hosts[2])
        first.start()
        second.home.mkdir(mode=0o700, parents=True)
        shutil.copy(first.home / "node-id", second.home / "node-id")
        second.start()
        third.start()
        wait_until(lambda: bool(first.status().notes or second.status().notes), "one of the clones says so", 30)
        told = [one for one in (first, second) if one.status().notes]
        for one in told:
            one.do("daemon", "restart")
        assert first.status().node_id != second.status().node_id
        both = {first.status().node_id, second.status().node_id}

        def alive_ids(machine: Machine) -> set[str]:
            return {peer.node_id for peer in machine.peers() if peer.state == "alive"}

        wait_until(lambda: both <= alive_ids(third), "the third node sees both", 30)
        wait_until(lambda: second.status().node_id in alive_ids(first), "they are peers", 30)


def test_without_a_daemon_a_named_clone_is_a_peer_from_the_next_command_on(tmp_path: Path) -> None:
    with HubSimulator() as hub, Machines(tmp_path) as machines:
        commit = hub.put_repo("model", "acme/m", {"big.bin": Lfs(b"x" * 2_000_000)})
        first = machines.make("first", upstreams=f"origin={hub.endpoint}")
        first.start()
        first.do("model", "add", "-r", "acme/m")
        second = machines.make("second")
        second.home.mkdir(mode=0o700, parents=True)
        shutil.copy(first.home / "node-id", second.home / "node-id")
        words = ("model", "add", "-r", "acme/m", "-v", commit, "--from", first.address)
        ran = second.run(*HFPEER, *words)
        assert ran.code != 0 and "has the id of this node" in ran.err
        assert second.do(*words)["bytes_by_source"] == {"first": 2_000_000}
