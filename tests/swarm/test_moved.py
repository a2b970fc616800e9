"""A peer that changes its address, or is known at several, in the middle of an add: the add goes on where it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.hostile import REPO, HostilePeer, NeverAnswers, Stage, StallsAtOnce, ordeal_hub
from fakes.peers import GoodPeer
from fakes.waiting import wait_until
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.names import Revision
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer.peers.protocol.paths import BATCH_PATH, BLOBS_PREFIX, MANIFESTS_PREFIX

SECONDS = 15.0


@asynccontextmanager
async def node_beside(peer: GoodPeer, folder: Path) -> AsyncIterator[Node]:
    """A node without a hub that knows one peer."""
    environ = {
        "HF_HUB_CACHE": str(folder / "hub"),
        "HFPEER_UPSTREAMS": "",
        "HFPEER_PEERS": str(peer.address),
        "HFPEER_MDNS": "0",
    }
    node = Node(read_settings(environ, home=folder / "home"))
    try:
        await node.start(Address("127.0.0.1", 1))
        yield node
    finally:
        await node.stop()


async def peers_of(stage: Stage, kind: type[HostilePeer]) -> tuple[GoodPeer, GoodPeer]:
    """The same node twice: one place where it has gone bad, and one where it is good."""
    manifest = await stage.manifest()
    blobs = {file.digest: stage.files[file.path] for file in manifest.files if file.path in stage.files}
    return (
        kind(blobs, manifests=[manifest], node_id="ab" * 16),
        HostilePeer(blobs, manifests=[manifest], node_id="ab" * 16),
    )


def is_asked_for_everything(peer: GoodPeer) -> bool:
    """Whether both small files and a large one are on order at a peer."""
    blobs = {path for path in peer.paths if path.startswith(BLOBS_PREFIX) and not path.endswith("/follow")}
    return BATCH_PATH in peer.paths and bool(blobs - {BATCH_PATH})


@pytest.mark.parametrize("dies", [False, True], ids=["swallowed", "refused"])
async def test_an_add_goes_on_at_the_address_that_is_announced_meanwhile(tmp_path: Path, dies: bool) -> None:
    with ordeal_hub(large=1, small=20) as stage:
        before, after = await peers_of(stage, StallsAtOnce)
        with before, after:
            async with node_beside(before, tmp_path) as node:
                adding = asyncio.create_task(node.add(AddRequest(REPO, Revision(stage.commit)), lambda event: None))
                assert await asyncio.to_thread(wait_until, lambda: is_asked_for_everything(before))
                if dies:
                    await asyncio.to_thread(before.stop)
                began_at = time.monotonic()
                assert node._neighbourhood is not None
                places = [before.address, after.address]
                node._neighbourhood.found("ab" * 16, "ara", places, 1, frozenset())
                await asyncio.wait_for(adding, SECONDS)
                assert time.monotonic() - began_at < SECONDS
            after.assert_anonymous()


async def test_a_peer_is_asked_for_a_listing_at_its_other_address_before_nobody_has_it(tmp_path: Path) -> None:
    with ordeal_hub(large=1, small=2) as stage:
        before, after = await peers_of(stage, NeverAnswers)
        with before, after:
            async with node_beside(before, tmp_path) as node:
                assert node._neighbourhood is not None
                await node._neighbourhood.refresh()
                node._neighbourhood.found("ab" * 16, "ara", [before.address, after.address], 1, frozenset())
                await asyncio.to_thread(before.stop)
                await asyncio.wait_for(node.add(AddRequest(REPO, Revision(stage.commit)), lambda event: None), SECONDS)
                assert any(MANIFESTS_PREFIX in path for path in after.paths)
