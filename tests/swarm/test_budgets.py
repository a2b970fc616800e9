"""Nodes with budgets evict on their own, and the LAN as a whole loses nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import Machine, Machines
from fakes.waiting import wait_until

pytestmark = pytest.mark.slow
NODES, MODELS, MODEL_BYTES = 6, 12, 60_000
BUDGET_BYTES = 4 * MODEL_BYTES + 20_000


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        for number in range(MODELS):
            weights = random.Random(number).randbytes(MODEL_BYTES - 100)
            hub.put_repo("model", name(number), {"model.bin": Lfs(weights), "config.json": b"{}"})
        yield hub


@pytest.fixture(scope="module")
def lan(hub: HubSimulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Machine]]:
    """Six nodes; each knows the others."""
    with Machines(tmp_path_factory.mktemp("lan")) as machines:
        nodes: list[Machine] = []
        for number in range(NODES):
            node = machines.make(
                f"node{number}",
                upstreams=f"origin={hub.endpoint}",
                peers=[other.address for other in nodes],
                HFPEER_CACHE_MAX_SIZE=str(BUDGET_BYTES),
            )
            node.start()
            nodes.append(node)
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.do("peer", "add", other.address)
        yield nodes


def name(number: int) -> str:
    return f"acme/m{number}"


def here(node: Machine) -> set[str]:
    return {str(one["repo"]) for one in node.do("model", "ls") if one["is_complete"]}


def test_six_nodes_that_evict_lose_nothing(lan: list[Machine]) -> None:
    dice = random.Random(4)
    wanted = [*range(MODELS), *(dice.randrange(MODELS) for _ in range(24))]
    ever = set[str]()
    for number in wanted:
        node = dice.choice(lan)
        added = node.hfpeer("model", "add", "-r", name(number))
        if added.code == 0:
            ever.add(name(number))
        else:
            assert (added.code, "budget" in added.err) == (8, True), added.err
    assert len(ever) > MODELS // 2
    caches = [here(node) for node in lan]
    assert set().union(*caches) == ever
    assert max(map(len, caches)) <= 4


def test_the_daemon_evicts_what_another_tool_has_brought_in(lan: list[Machine], hub: HubSimulator) -> None:
    from huggingface_hub import snapshot_download

    node = lan[0]
    for number in range(6):
        snapshot_download(name(number), cache_dir=node.cache, endpoint=hub.endpoint)
    node.stop()
    node.start()
    wait_until(lambda: len(here(node)) <= 4, "the duty has kept the budget", seconds=120)
