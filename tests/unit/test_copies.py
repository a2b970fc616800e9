"""Nodes that remove the same blob at once, in every order in which their questions and answers may cross."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hfpeer.errors import InvalidName, PeerUnreachable
from hfpeer.names import Digest
from hfpeer.net.address import Address
from hfpeer.peers import copies
from hfpeer.peers.copies import CopyQuestions
from hfpeer.peers.notices import Notices
from hfpeer.peers.protocol.copies import MAX_ASKED_BLOBS, CopiesMessage, copies_path, parse_asked_digests
from hfpeer.peers.table.table import Peer, State

DIGESTS = [Digest("sha256", f"{number:064x}") for number in range(3)]
SEEDS = 150


class Node:
    """A node with some blobs, and a neighbourhood of the others whose answers take as long as the dice say."""

    def __init__(self, number: int, dice: random.Random, digests: Sequence[Digest] = DIGESTS) -> None:
        self.node_id = f"{number:016x}"
        self.blobs = set(digests)
        self.notices = Notices()
        self.others_: list[Node] = []
        self.is_silent = False
        self.lies = 0
        self._dice = dice

    async def pause(self) -> None:
        for _ in range(self._dice.randrange(6)):
            await asyncio.sleep(0)

    async def copies(self, asked: Sequence[Digest]) -> CopiesMessage:
        await self.pause()
        if self.is_silent:
            raise PeerUnreachable("is silent")
        held = frozenset(self.blobs.intersection(asked))
        answer = CopiesMessage(held, frozenset(self.notices.among(held)))
        await self.pause()
        return answer

    async def remove(self, gives_up: float = 0.0) -> None:
        """Removes what a peer has, as `hfpeer cache rm` does. Sometimes it keeps all, for another blob's sake."""
        await self.pause()
        mine = set(self.blobs)
        questions = CopyQuestions(self.node_id, self.notices)
        async with questions.asked(self, mine, removes=True) as answer:  # type: ignore[arg-type]
            if self._dice.random() < gives_up:
                return
            for digest in mine & answer.held:
                await self.pause()
                self.blobs.discard(digest)

    # Its neighbourhood

    def others(self) -> list[Peer]:
        return [Peer((Address("10.0.0.1", 1),), 0.0, node_id=one.node_id, lies=one.lies) for one in self.others_]

    def state(self, peer: Peer) -> State:
        return State.ALIVE

    def client(self, peer: Peer) -> Any:
        return next(one for one in self.others_ if one.node_id == peer.node_id)


def make(number: int, seed: int) -> list[Node]:
    dice = random.Random(seed)
    nodes = [Node(one, dice) for one in range(number)]
    for node in nodes:
        node.others_ = [other for other in nodes if other is not node]
    return nodes


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "ASK_AGAIN_SECONDS", 0.0)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_nodes_that_remove_at_once_leave_exactly_one_copy(number: int) -> None:
    for seed in range(SEEDS):
        nodes = make(number, seed)

        async def race(nodes: list[Node] = nodes) -> None:
            await asyncio.gather(*(node.remove() for node in nodes))

        asyncio.run(race())
        for digest in DIGESTS:
            assert sum(digest in node.blobs for node in nodes) == 1, f"seed {seed}"


def test_nodes_that_remove_again_and_again_never_lose_the_last_copy() -> None:
    for seed in range(SEEDS):
        nodes = make(3, seed)

        async def race(nodes: list[Node] = nodes) -> None:
            await asyncio.gather(*(node.remove() for _ in range(3) for node in nodes))

        asyncio.run(race())
        assert all(any(digest in node.blobs for node in nodes) for digest in DIGESTS), f"seed {seed}"


def test_nodes_with_some_blobs_in_common_never_lose_the_last_copy() -> None:
    """A node may be the one to keep the first blob and not the second: what it keeps, it keeps while it waits."""
    for seed in range(SEEDS):
        nodes = make(4, seed)
        dice = random.Random(-seed)
        for node in nodes:
            node.blobs = {digest for digest in DIGESTS if dice.random() < 0.7}
        before = set().union(*(node.blobs for node in nodes))

        async def race(nodes: list[Node] = nodes, dice: random.Random = dice) -> None:
            async def later(node: Node) -> None:
                for _ in range(dice.randrange(40)):
                    await asyncio.sleep(0)
                await node.remove(gives_up=0.4)

            await asyncio.gather(*(later(node) for _ in range(4) for node in nodes))

        asyncio.run(race())
        assert set().union(*(node.blobs for node in nodes)) == before, f"seed {seed}"


def test_what_a_node_has_decided_to_keep_it_keeps_whatever_it_hears_later() -> None:
    """Another node may count on it by then."""
    low, own, high = make(3, 0)
    both, mine = DIGESTS[0], DIGESTS[1]
    asked = 0

    def answers_of(number: int, is_leaving: bool) -> None:
        node = (low, own, high)[number]

        async def copies(_: object) -> CopiesMessage:
            nonlocal asked
            asked += 1
            held = frozenset({both} if number == 0 else {mine})
            # At first both are about to remove; later both keep theirs.
            return CopiesMessage(held, held if is_leaving and asked <= 2 else frozenset())

        node.copies = copies  # type: ignore[assignment,method-assign]

    answers_of(0, is_leaving=True)
    answers_of(2, is_leaving=True)

    async def ask() -> frozenset[Digest]:
        async with CopyQuestions(own.node_id, own.notices).asked(own, [both, mine], removes=True) as answer:  # type: ignore[arg-type]
            assert own.notices.among([both, mine]) == {both}
            return answer.held

    assert asyncio.run(ask()) == {both}


def test_a_forced_removal_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "CONTEST_SECONDS", 0.05)
    first, second = make(2, 0)

    async def remove() -> None:
        with first.notices.given(set(DIGESTS)):  # it asks no peer, and withdraws nothing
            await second.remove()

    asyncio.run(remove())
    assert second.blobs == set(DIGESTS)


@dataclass
class Answered:
    peers: int
    answered: int
    held: int


def test_silent_peers_are_known_and_count_as_no_copy() -> None:
    first, second, third = make(3, 0)
    second.is_silent = True
    third.blobs.discard(DIGESTS[0])

    async def ask() -> Answered:
        async with CopyQuestions(first.node_id, first.notices).asked(first, DIGESTS, removes=False) as answer:  # type: ignore[arg-type]
            assert first.notices.among(DIGESTS) == set(), "a dry run gives no notice"
            return Answered(answer.peers, answer.answered, len(answer.held))

    assert asyncio.run(ask()) == Answered(2, 1, 2)


def test_a_liar_is_not_asked() -> None:
    first, second = make(2, 0)
    second.lies = 1

    async def ask() -> Answered:
        async with CopyQuestions(first.node_id, first.notices).asked(first, DIGESTS, removes=True) as answer:  # type: ignore[arg-type]
            return Answered(answer.peers, answer.answered, len(answer.held))

    assert asyncio.run(ask()) == Answered(0, 0, 0)


def test_a_node_without_peers_asks_nobody() -> None:
    async def ask() -> Answered:
        async with CopyQuestions("00", Notices()).asked(None, DIGESTS, removes=True) as answer:
            return Answered(answer.peers, answer.answered, len(answer.held))

    assert asyncio.run(ask()) == Answered(0, 0, 0)


def test_a_notice_of_two_removals_ends_with_the_last() -> None:
    notices = Notices()
    with notices.given(DIGESTS) as one:
        with notices.given(DIGESTS[:1]):
            one.withdraw(DIGESTS[:2])
            assert notices.among(DIGESTS) == {DIGESTS[0], DIGESTS[2]}
        assert notices.among(DIGESTS) == {DIGESTS[2]}
    assert notices.among(DIGESTS) == set()


def test_a_question_has_a_bound_and_crosses_the_wire() -> None:
    many = [Digest("sha256", f"{number:064x}") for number in range(MAX_ASKED_BLOBS + 1)]
    query = copies_path(many[:-1]).partition("digests=")[2]
    assert len(copies_path(many[:-1])) < 60_000 and parse_asked_digests(query) == tuple(many[:-1])
    message = CopiesMessage(frozenset(many[:-1]), frozenset(many[:2]))
    assert CopiesMessage.from_json(message.to_json()) == message
    for text in ("", copies_path(many).partition("digests=")[2]):
        with pytest.raises(InvalidName):
            parse_asked_digests(text)
