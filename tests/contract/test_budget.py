"""A cache with `cache.max_size` stays below it, whatever is added, and keeps what may not go."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.hub import HubSimulator, Lfs
from hfpeer.cache.cleaning.planning.requests import CleanRequest
from hfpeer.cache.owner.pins import Pin, Pins
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.errors import BrokenCache, NoSpace
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.node.node import Node
from hfpeer.node.session import open_node

MODELS, MODEL_BYTES = 40, 60_000
BUDGET_BYTES = 10 * MODEL_BYTES + 20_000


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        for number in range(MODELS):
            hub.put_repo("model", name(number), {"model.bin": Lfs(weights(number)), "config.json": b"{}"})
        yield hub


@pytest.fixture
def environ(hub: HubSimulator, tmp_path: Path) -> dict[str, str]:
    return {
        "HFPEER_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        "HFPEER_CACHE_MAX_SIZE": f"{BUDGET_BYTES}B",
    }


def name(number: int) -> str:
    return f"acme/m{number}"


def weights(number: int) -> bytes:
    return random.Random(number).randbytes(MODEL_BYTES - 100)


def disk_bytes(environ: dict[str, str]) -> int:
    """The blobs and partials in the cache, as they are on the disk."""
    found = 0
    for folder, _, files in os.walk(environ["HF_HUB_CACHE"]):
        if Path(folder).name in ("blobs", "data") or ".hfpeer" in folder:
            found += sum((Path(folder) / one).lstat().st_size for one in files if one != "journal")
    return found


@asynccontextmanager
async def node_of(environ: dict[str, str]) -> AsyncIterator[Node]:
    async with open_node(read_settings(environ)) as node:
        assert isinstance(node, Node)
        yield node


async def add(node: Node, number: int) -> None:
    await node.add(AddRequest(RepoId.parse(name(number))), lambda event: None)


async def here(node: Node) -> set[str]:
    return {one.repo for one in await node.list_revisions()}


async def test_an_add_fetches_what_its_room_took_from_it(environ: dict[str, str]) -> None:
    """Both have the same config.json: the second add counts on the blob of the first, which goes to make room."""
    environ["HFPEER_CACHE_MAX_SIZE"] = str(MODEL_BYTES + MODEL_BYTES // 2)
    async with node_of(environ) as node:
        await add(node, 0)
        await add(node, 1)
        assert await here(node) == {name(1)}
        commit = Commit((await node.list_revisions())[0].commit)
        snapshot = node.store.snapshot_path(RepoId.parse(name(1)), commit)
        assert (snapshot / "config.json").read_bytes() == b"{}"


@pytest.mark.slow
async def test_random_adds_stay_within_the_budget(environ: dict[str, str]) -> None:
    dice = random.Random(1)
    async with node_of(environ) as node:
        last: list[int] = []
        for _ in range(100):
            number = min(MODELS - 1, int(dice.expovariate(1 / 10)))
            await add(node, number)
            assert disk_bytes(environ) <= BUDGET_BYTES
            last = [*[one for one in last if one != number][-4:], number]
        assert await here(node) >= set(map(name, last)), "what was used last is here"
        assert len(await here(node)) >= 8, "and the budget is used"


async def test_what_was_used_longest_ago_goes_first(environ: dict[str, str]) -> None:
    async with node_of(environ) as node:
        for number in range(10):
            await add(node, number)
        await add(node, 0)
        await add(node, 20)
        assert name(0) in await here(node)
        assert name(1) not in await here(node)


async def test_what_a_tool_or_a_peer_has_read_was_used(environ: dict[str, str]) -> None:
    async with node_of(environ) as node:
        for number in range(10):
            await add(node, number)
        digest = Digest("sha256", hashlib.sha256(weights(0)).hexdigest())
        node.store.readers.begin(digest)
        node.store.readers.end(digest)
        node.store.note_uses()
    async with node_of(environ) as node:
        await add(node, 20)
        assert name(0) in await here(node)
        assert name(1) not in await here(node)


async def test_a_pinned_model_stays_and_an_add_that_cannot_fit_says_why(environ: dict[str, str]) -> None:
    Pins(Path(environ["HFPEER_HOME"])).add([Pin.parse("acme/*")])
    async with node_of(environ) as node:
        for number in range(10):
            await add(node, number)
        with pytest.raises(NoSpace, match=r"more than the budget .* Revisions that stay: 10 pinned\.") as caught:
            await add(node, 20)
        assert "hfpeer model unpin" in str(caught.value.hint)
        assert len(await here(node)) == 10
        assert disk_bytes(environ) <= BUDGET_BYTES


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"a b c\n"])
async def test_nothing_goes_while_the_pins_cannot_be_read(environ: dict[str, str], damage: bytes) -> None:
    pins = Pins(Path(environ["HFPEER_HOME"]))
    pins.add([Pin.parse("acme/*")])
    file = Path(environ["HFPEER_HOME"]) / "pins.txt"
    file.write_bytes(file.read_bytes() + damage)
    with pytest.raises(BrokenCache, match=r"The pins cannot be read: .*pins\.txt"):
        pins.all()
    with pytest.raises(BrokenCache):
        pins.add([Pin.parse("acme/x")])
    assert file.read_bytes().endswith(damage)


async def test_a_model_larger_than_the_budget_is_refused_and_nothing_goes(environ: dict[str, str]) -> None:
    environ["HFPEER_CACHE_MAX_SIZE"] = f"{MODEL_BYTES // 2}B"
    async with node_of(environ) as node:
        with pytest.raises(NoSpace):
            await add(node, 1)
        assert disk_bytes(environ) == 0


async def test_gc_shows_what_the_budget_would_take_and_takes_it(environ: dict[str, str]) -> None:
    unbounded = {key: value for key, value in environ.items() if key != "HFPEER_CACHE_MAX_SIZE"}
    async with node_of(unbounded) as node:
        for number in range(12):
            await add(node, number)
    async with node_of(environ) as node:
        shown = await node.clean(CleanRequest(collects_garbage=True, is_dry_run=True))
        assert [step.why for step in shown.steps] == ["least recently used"] * len(shown.steps)
        assert len(await here(node)) == 12
        done = await node.clean(CleanRequest(collects_garbage=True))
        assert [step.id for step in done.steps] == [step.id for step in shown.steps]
        assert disk_bytes(environ) <= BUDGET_BYTES
        assert name(0) not in await here(node)
