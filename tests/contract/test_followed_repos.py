"""Repos that a node follows: one question a period, a new commit within the limit, and all of it over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from fakes.doors import eventually
from fakes.node import TRANSFER
from hfpeer.control.followed import FollowedRepo
from hfpeer.control.operations import AddRequest, ListedCommit, TransferStatus
from hfpeer.control.results import ListedFile
from hfpeer.errors import HubUnreachable, InvalidName, NotFound
from hfpeer.names import RepoId, Revision
from hfpeer.node.operations.fleet import following
from hfpeer.node.operations.fleet.following import FILE, Following, FollowingParts
from hfpeer.transfer.events import Resolved

REPO = RepoId.parse("acme/model")
ONE, TWO = "1" * 40, "2" * 40
EVERY = 3600.0
WANTED = FollowedRepo(REPO, include=("*.bin",), every_seconds=EVERY)


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["hfpeer"]):
        yield


@dataclass
class World:
    """The hub, the queue and the clock of one node. `now` is moved by a test."""

    home: Path
    commit: str = ONE
    now: float = 1e9
    asked: list[AddRequest] = field(default_factory=list)
    begun: list[AddRequest] = field(default_factory=list)
    silent: bool = False
    missing_bytes: int = 1000
    queued_commit: str = ""
    gate: asyncio.Event | None = None

    async def resolve(self, request: AddRequest) -> Resolved:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.silent:
            raise HubUnreachable("The hub is silent.")
        return Resolved(str(request.repo), request.revision, self.commit, "hub")

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        digest = "git-sha1:" + "0" * 40
        files = (
            ListedFile("a.bin", self.missing_bytes, digest, False, True),
            ListedFile("same.bin", self.missing_bytes, digest, False, True),
            ListedFile("here.bin", 10**9, "git-sha1:" + "1" * 40, True, True),
            ListedFile("other.txt", 10**9, "git-sha1:" + "2" * 40, False, False),
        )
        return ListedCommit(str(request.repo), "model", request.revision, "/c", "public", True, files)

    async def begin(self, request: AddRequest) -> TransferStatus:
        self.begun.append(request)
        assert request.resolved is not None
        return replace(TRANSFER, id=5, state="paused", commit=self.queued_commit or request.resolved.commit)

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Following]:
        """A run of the daemon."""
        parts = FollowingParts(self.resolve, self.list_commit, self.begin)
        node = Following(self.home, parts, lambda: self.now, lambda: 0.5)
        node.start()
        try:
            yield node
        finally:
            await node.stop()

    async def pass_time(self, node: Following, seconds: float) -> None:
        """Moves the clock, and makes the node look at it."""
        self.now += seconds
        node._changed.set()


async def looked(world: World, node: Following, times: int) -> FollowedRepo:
    """The followed repo after so many looks."""
    await eventually(lambda: len(world.asked) >= times)
    for _ in range(1000):
        (one,) = await node.listed()
        if one.checked_at == world.now:
            assert len(world.asked) == times
            return one
        await asyncio.sleep(0.01)
    raise AssertionError("the look was not noted")


async def test_a_new_commit_is_fetched_when_it_appears_and_one_question_is_asked_a_period(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.node() as node:
        await node.follow(WANTED)
        first = await looked(world, node, 1)
        assert (first.commit, first.next_at - world.now, first.problem) == (ONE, EVERY, "")
        await world.pass_time(node, EVERY - 1)
        await world.pass_time(node, 1)
        assert (await looked(world, node, 2)).commit == ONE
        assert len(world.begun) == 1
        world.commit = TWO
        await world.pass_time(node, EVERY)
        assert (await looked(world, node, 3)).commit == TWO
    request = world.begun[-1]
    assert request.resolved is not None and request.resolved.commit == TWO
    assert (str(request.revision), request.include, request.asked_by.via) == ("main", ("*.bin",), "follow")
    assert len(world.begun) == 2


async def test_what_is_larger_than_the_limit_is_told_and_not_fetched(tmp_path: Path) -> None:
    world = World(tmp_path, missing_bytes=1001)
    async with world.node() as node:
        await node.follow(replace(WANTED, limit_bytes=1000))
        one = await looked(world, node, 1)
        assert (one.commit, one.seen_commit, world.begun) == ("", ONE, [])
        assert "1,001 bytes" in one.problem and "limit" in one.problem
        world.missing_bytes = 1000  # most of it has come with an add
        await world.pass_time(node, EVERY)
        one = await looked(world, node, 2)
        assert (one.commit, one.problem, len(world.begun)) == (ONE, "", 1)


async def test_a_silent_hub_is_asked_again_soon_and_told(tmp_path: Path) -> None:
    world = World(tmp_path, silent=True)
    async with world.node() as node:
        await node.follow(WANTED)
        one = await looked(world, node, 1)
        assert (one.problem, one.next_at - world.now) == ("The hub is silent.", 900.0)
        world.silent = False
        await world.pass_time(node, 900.0)
        assert (await looked(world, node, 2)).commit == ONE


async def test_the_schedule_survives_a_restart_and_a_missed_look_is_made_soon(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.node() as node:
        await node.follow(WANTED)
        before = await looked(world, node, 1)
    world.now += EVERY / 2
    async with world.node() as node:
        await asyncio.sleep(0)
        assert await node.listed() == [before]
        await node.follow(replace(WANTED, repo=RepoId.parse("acme/another")))
        await eventually(lambda: len(world.asked) == 2)
        assert str(world.asked[-1].repo) == "acme/another"
        await node.unfollow(RepoId.parse("acme/another"), None)
    world.now += 10 * EVERY  # the machine was off
    async with world.node() as node:
        assert (await looked(world, node, 3)).commit == ONE


async def test_what_the_user_changes_during_a_look_stays(tmp_path: Path) -> None:
    world = World(tmp_path, gate=asyncio.Event())
    async with world.node() as node:
        await node.follow(WANTED)
        await eventually(lambda: bool(world.asked))
        await node.unfollow(REPO, None)
        assert world.gate is not None
        world.gate.set()
        await eventually(lambda: bool(world.begun))
    assert await Following(tmp_path, FollowingParts(world.resolve, world.list_commit, world.begin)).listed() == []


async def test_a_transfer_of_an_older_commit_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    world = World(tmp_path, queued_commit=TWO)
    async with world.node() as node:
        await node.follow(WANTED)
        one = await looked(world, node, 1)
        assert (one.commit, one.problem) == ("", "Transfer 5 of an older commit is paused.")


async def test_following_again_changes_how_and_unfollowing_what_is_not_followed_is_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    kept = Following(tmp_path, FollowingParts(world.resolve, world.list_commit, world.begin))
    await kept.follow(WANTED)
    await kept.follow(replace(WANTED, every_seconds=300.0))
    await kept.follow(replace(WANTED, revision=Revision("dev")))
    assert [(str(one.revision), one.every_seconds) for one in await kept.listed()] == [("dev", EVERY), ("main", 300.0)]
    with pytest.raises(NotFound):
        await kept.unfollow(REPO, Revision("other"))
    assert len(await kept.unfollow(REPO, None)) == 2
    with pytest.raises(InvalidName, match="a commit"):
        await kept.follow(replace(WANTED, revision=Revision(ONE)))


async def test_a_torn_list_and_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    kept = Following(tmp_path, FollowingParts(world.resolve, world.list_commit, world.begin))
    await kept.follow(WANTED)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"repo": 3}\n{"repo": "models/ac')
    assert [str(one.repo) for one in await kept.listed()] == ["acme/model"]
    monkeypatch.setattr(following, "MAX_FOLLOWED", 1)
    with pytest.raises(InvalidName):
        await kept.follow(replace(WANTED, revision=Revision("dev")))
