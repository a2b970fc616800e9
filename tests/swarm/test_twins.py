"""Two nodes with one id, because one machine's home is a copy of the other's."""

from __future__ import annotations

import shutil
from pathlib import Path

from fakes.machine import HFPEER, Machines


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
        only.do("peer", "add", str(only.address))
        assert only.do("status")["notes"] == []
