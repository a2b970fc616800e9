"""Which nodes `--on` means."""

from __future__ import annotations

import pytest

from hfpeer.control.nodes import chosen_nodes
from hfpeer.control.operations import OtherNode, PeerStatus
from hfpeer.errors import InvalidName, NotFound

GPU1 = PeerStatus("1a2b" * 8, "gpu1", "10.0.0.1:9437", "alive", "mdns")
GPU2 = PeerStatus("2c3d" * 8, "gpu2", "10.0.0.2:9437", "gone", "mdns")
TWIN = PeerStatus("9999" * 8, "gpu1", "10.0.0.9:9437", "alive", "mdns")
NEW = PeerStatus("", "", "[fd00::3]:9437", "known", "static")
NAME = PeerStatus("", "", "dns:gpus", "unresolved", "dns", note="It has no address.")
PEERS = [GPU1, GPU2, NEW, NAME]


def keys(text: str, peers: list[PeerStatus] = PEERS) -> list[str]:
    return [one.key if one else "" for one in chosen_nodes(text, peers, "head")]


def test_all_is_every_other_node_also_one_that_is_away() -> None:
    assert keys("all") == [GPU1.node_id, GPU2.node_id, NEW.address]


@pytest.mark.parametrize("word", ["gpu2", "10.0.0.2:9437", "10.0.0.2", "2c3d2c"])
def test_a_node_has_a_name_an_address_a_host_and_an_id(word: str) -> None:
    assert chosen_nodes(word, PEERS, "head") == [OtherNode("gpu2", GPU2.node_id)]


def test_each_node_is_meant_once_and_this_one_only_by_its_name() -> None:
    assert keys("gpu1, all,gpu1,head") == [GPU1.node_id, GPU2.node_id, NEW.address, ""]
    assert keys("fd00::3") == [NEW.address]


def test_a_name_of_two_nodes_and_one_of_none_are_errors_that_say_what_to_write() -> None:
    with pytest.raises(InvalidName) as caught:
        keys("gpu1", [GPU1, TWIN])
    assert "10.0.0.9:9437" in (caught.value.hint or "")
    with pytest.raises(NotFound) as missing:
        keys("gpu7")
    assert "gpu1" in (missing.value.hint or "")
    for text, peers in (("all", [NAME]), ("", PEERS), (" , ", PEERS)):
        with pytest.raises(NotFound):
            keys(text, peers)
