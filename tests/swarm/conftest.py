"""Two real daemons, pegasus and cygnus, below one hub and its mirror. They live as long as the module; each test
brings repos of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from fakes.hub import Content, HubSimulator, Lfs
from fakes.machine import Machine, Machines


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


@pytest.fixture(scope="module")
def mirror(hub: HubSimulator) -> Iterator[HubSimulator]:
    with HubSimulator(mirror_of=hub) as mirror:
        yield mirror


@pytest.fixture(scope="module")
def upstreams(hub: HubSimulator, mirror: HubSimulator) -> str:
    return f"mirror={mirror.endpoint},origin={hub.endpoint}"


@pytest.fixture(scope="module")
def pegasus(machines: Machines, upstreams: str) -> Machine:
    pegasus = machines.make("pegasus", upstreams=upstreams)
    pegasus.start()
    return pegasus


@pytest.fixture(scope="module")
def cygnus(machines: Machines, upstreams: str, pegasus: Machine) -> Machine:
    """Has pegasus as a static peer, and knows it."""
    cygnus = machines.make("cygnus", upstreams=upstreams, peers=[pegasus.address])
    cygnus.start()
    cygnus.wait_until_it_knows(pegasus)
    return cygnus


@pytest.fixture
def put(hub: HubSimulator, mirror: HubSimulator) -> Callable[..., str]:
    """`put("acme/new", size_bytes)`: a new repo of two small files and a large one; its commit. The hubs' logs begin
    anew."""

    def put(name: str, size_bytes: int = 300_000, kind: str = "model", **options: object) -> str:
        files: dict[str, Content] = {
            "config.json": f'{{"name": "{name}"}}'.encode(),
            "nested/tokenizer.json": f'["{name}"]'.encode(),
            "model.safetensors": Lfs(os.urandom(size_bytes)),
        }
        commit = hub.put_repo(kind, name, files, **options)
        for simulator in (hub, mirror):
            simulator.wait_until_quiet()
            simulator.clear()
        return commit

    return put
