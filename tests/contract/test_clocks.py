"""The clock of another node decides nothing: one that is ten years wrong changes no outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.peers import GoodPeer
from hfpeer.cache.store import Store
from hfpeer.errors import ContestedName, HubUnreachable
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.messages import RefMessage
from hfpeer.resolver.commits import CommitResolver
from hfpeer.resolver.peer_queries import PeerQueries, PeerTrust

OWN = "f" * 32
REPO, MAIN = RepoId.parse("acme/m"), Revision("main")
ONE, TWO = Commit("1" * 40), Commit("2" * 40)
TEN_YEARS = 10 * 365.25 * 86400
SKEWS = [-TEN_YEARS, 0.0, TEN_YEARS]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub", tmp_path / "home")
    yield store
    store.close()


async def outcome(store: Store, commits: list[Commit], skew: float, trust: PeerTrust) -> Commit | None:
    """The commit of main where no hub answers and the first of these peers has a wrong clock; None for a contest."""
    now = time.time()
    peers = []
    for number, commit in enumerate(commits):
        ref = RefMessage(commit, now - 60 + (0 if number else skew), "origin")
        peers.append(GoodPeer(refs={(REPO, MAIN): ref}, node_id=f"{number:032x}"))
    for peer in peers:
        peer.start()
    neighbourhood = Neighbourhood(OWN, [peer.address for peer in peers])
    try:
        await neighbourhood.refresh()
        resolver = CommitResolver(store, PeerQueries(neighbourhood))
        silent = HubUnreachable("No hub answers.")
        return (await resolver.without_upstreams(REPO, MAIN, silent, trust=trust)).commit
    except ContestedName:
        return None
    finally:
        await neighbourhood.stop()
        for peer in peers:
            peer.stop()


@pytest.mark.parametrize("skew", SKEWS)
async def test_the_age_that_a_peer_tells_decides_no_name(store: Store, skew: float) -> None:
    assert await outcome(store, [ONE], skew, PeerTrust.PROOF) == ONE
    assert await outcome(store, [ONE, ONE], skew, PeerTrust.PROOF) == ONE
    assert await outcome(store, [ONE, TWO], skew, PeerTrust.PROOF) is None
    assert await outcome(store, [ONE, TWO], skew, PeerTrust.WORD) is None
    assert await outcome(store, [ONE, TWO, TWO], skew, PeerTrust.WORD) == TWO
    assert await outcome(store, [ONE, ONE, TWO], skew, PeerTrust.WORD) == ONE
