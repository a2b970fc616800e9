"""A repo of another type than was asked for is recognised: by the hub, by a mirror alone, and by the cache offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import HubSimulator
from fakes.machine import HFPEER, Machine, Machines

DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("dataset", "acme/rows", {"a.txt": b"1"})
        hub.put_repo("dataset", "acme/gated", {"a.txt": b"1"}, visibility="gated")
        yield hub


@pytest.fixture
def machine(hub: HubSimulator, tmp_path: Path) -> Iterator[Machine]:
    with Machines(tmp_path) as machines:
        yield machines.make("one", upstreams=f"origin={hub.endpoint}")


@pytest.mark.parametrize("repo", ["acme/rows", "acme/gated"])
def test_a_dataset_that_is_asked_for_as_a_model_is_named(machine: Machine, repo: str) -> None:
    ran = machine.run(*HFPEER, "add", repo)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.endswith(f"Error: {repo} is no model: it is a dataset.\nHint: `hfpeer dataset add {repo}`\n")


def test_a_mirror_tells_it_too_while_the_origin_is_away(machine: Machine, hub: HubSimulator) -> None:
    ran = machine.hfpeer("model", "add", "acme/rows", HFPEER_UPSTREAMS=f"mirror={hub.endpoint},origin={DEAD}")
    assert (ran.code, ran.problem["facts"]["is_of_type"]) == (4, "dataset")


def test_the_cache_tells_it_without_a_hub(machine: Machine, hub: HubSimulator) -> None:
    machine.do("dataset", "add", "acme/rows")
    for words in (("--local-only",), ()):
        ran = machine.hfpeer("model", "add", "acme/rows", *words, HFPEER_UPSTREAMS="")
        assert (ran.code, ran.problem["hint"]) == (4, "`hfpeer dataset add acme/rows`")


def test_a_repo_that_is_nowhere_is_only_not_found(machine: Machine) -> None:
    ran = machine.hfpeer("model", "add", "acme/nowhere")
    assert (ran.code, ran.problem["code"]) == (4, "repo_not_found")
    assert "is_of_type" not in ran.problem["facts"]
