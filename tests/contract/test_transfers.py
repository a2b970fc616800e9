"""The transfers of a daemon: their followers, their queue, and their journal over restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from fakes.doors import eventually
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest, AttachRequest
from hfpeer.control.transfers import DONE, FAILED, PAUSED, QUEUED, RUNNING, WAITING, HistoryEntry
from hfpeer.errors import (
    AccessDenied,
    HubUnreachable,
    NotFound,
    NotRunning,
    RepoNotFound,
    StorageError,
    TransferCancelled,
)
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.transfers.history import FILE as HISTORY_FILE
from hfpeer.node.operations.transfers.history import History
from hfpeer.node.operations.transfers.journal import FILE, MIN_LINES, Journal
from hfpeer.node.operations.transfers.operations import TransferOperations
from hfpeer.node.operations.transfers.transfer import entry_of, new_transfer
from hfpeer.node.operations.transfers.transfers import Transfers
from hfpeer.transfer.events import (
    Event,
    Finished,
    OnEvent,
    Planned,
    Progressed,
    Resolved,
    TransferJoined,
    WaitBegan,
)

COMMIT = Commit("ab" * 20)
BIG, SMALL, PRIVATE = (AddRequest(RepoId.parse(name)) for name in ("acme/big", "acme/small", "acme/private"))


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["hfpeer"]):
        yield


class Adds:
    """Runs adds that end when a test says so. `failure` is raised by those of a repo; `requests` are those begun."""

    def __init__(self) -> None:
        self.requests: list[AddRequest] = []
        self.failures: dict[str, Exception] = {}
        self.is_open = asyncio.Event()
        self.running = 0
        self.gives_bytes = True

    async def run(self, request: AddRequest, on_event: OnEvent) -> Finished:
        self.requests.append(request)
        self.running += 1
        repo, missing = str(request.repo), 100 if self.gives_bytes else 0
        try:
            if str(request.repo) in self.failures:
                raise self.failures[repo]
            on_event(request.resolved or Resolved(repo, request.revision, COMMIT, "hub"))
            on_event(Planned(repo, COMMIT, 1, 100, 1, missing, "hub", True))
            if missing:
                on_event(Progressed(40, 100, 8.0, {"h2": 40}, {}, (), 0, 1, {"peer": 40}))
            await self.is_open.wait()
            came = {"h2": missing} if missing else {}
            return Finished(repo, COMMIT, f"/cache/{repo}", 1, 100, 0, came, {"peer": missing} if missing else {})
        finally:
            self.running -= 1

    def repos(self) -> list[str]:
        return [request.repo.name for request in self.requests]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def adds() -> Adds:
    return Adds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(tmp_path: Path, adds: Adds, clock: Clock) -> Callable[..., AbstractAsyncContextManager[Transfers]]:
    """`async with start() as transfers`: a daemon's transfers over one home. Without an orderly end it is a kill."""

    @asynccontextmanager
    async def start(at_once: int = 3, *, is_killed: bool = False) -> AsyncIterator[Transfers]:
        transfers = Transfers(adds.run, Journal(tmp_path), History(tmp_path), at_once, clock)
        await transfers.start()
        try:
            yield transfers
        finally:
            if is_killed:
                await settle(transfers)
                saved = await asyncio.to_thread((tmp_path / FILE).read_bytes)
            await transfers.stop()
            if is_killed:
                await asyncio.to_thread((tmp_path / FILE).write_bytes, saved)

    return start


async def settle(transfers: Transfers) -> None:
    """What was noted is on the disk."""
    await transfers._notes.written()


async def history_of(home: Path) -> list[HistoryEntry]:
    return await asyncio.to_thread(History(home).since, 0.0)


def states(transfers: Transfers) -> dict[str, str]:
    return {one.repo.partition("/")[2]: one.state for one in transfers.listed()}


def nothing(event: Event) -> None:
    pass


Start = Callable[..., AbstractAsyncContextManager[Transfers]]


# Followers


async def test_an_add_is_a_transfer_and_its_command_gets_the_result(start: Start, adds: Adds) -> None:
    heard: list[Event] = []
    async with start() as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, heard.append))
        await eventually(lambda: states(transfers) == {"big": RUNNING})
        (one,) = transfers.listed()
        assert (one.id, one.commit, one.present_bytes, one.size_bytes) == (1, COMMIT, 40, 100)
        assert (one.bytes_by_source, one.rate_bytes_per_second, one.left_seconds) == ({"h2": 40}, 8.0, 7.5)
        adds.is_open.set()
        finished = await adding
        assert finished.snapshot == "/cache/acme/big"
        assert states(transfers) == {"big": DONE}
    assert heard[0] == TransferJoined(1, 1, QUEUED, is_new=True)
    assert [type(event) for event in heard[1:]] == [Resolved, Planned, Progressed]


async def test_a_command_that_vanishes_leaves_its_transfer_to_the_daemon(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        adds.is_open.set()
        await eventually(lambda: states(transfers) == {"big": DONE})


async def test_a_command_that_leaves_pauses_its_transfer_and_the_same_command_goes_on(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        joined: list[Event] = []
        adding = asyncio.ensure_future(transfers.add(BIG, joined.append))
        await eventually(lambda: adds.running == 1)
        assert await transfers.leave(1, joined[0].follower) == PAUSED  # type: ignore[attr-defined]
        adding.cancel()
        assert (states(transfers), adds.running) == ({"big": PAUSED}, 0)
        adds.is_open.set()
        assert (await transfers.add(BIG, nothing)).commit == COMMIT
        assert [one.id for one in transfers.listed()] == [1]


async def test_it_pauses_also_if_its_connection_was_lost_first(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        assert await transfers.leave(1, 1) == PAUSED
    assert adds.running == 0


async def test_a_transfer_goes_on_while_another_command_waits_for_it(start: Start, adds: Adds) -> None:
    heard: list[Event] = []
    async with start() as transfers:
        first = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        second = asyncio.ensure_future(transfers.add(BIG, heard.append))
        await eventually(lambda: len(heard) == 4)
        assert heard[0] == TransferJoined(1, 2, RUNNING, is_new=False)
        assert await transfers.leave(1, 1) == RUNNING
        first.cancel()
        adds.is_open.set()
        assert (await second).commit == COMMIT
    assert adds.repos() == ["big"]


async def test_one_who_only_looks_on_neither_keeps_nor_stops_it(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        looking = asyncio.ensure_future(transfers.attach(AttachRequest(1), nothing))
        again = asyncio.ensure_future(transfers.attach(AttachRequest(1), nothing))
        await asyncio.sleep(0)
        again.cancel()
        assert adds.running == 1
        assert await transfers.leave(1, 1) == PAUSED
        adding.cancel()
        await transfers.change([1], "resume")
        adds.is_open.set()
        assert (await looking).commit == COMMIT
        assert (await transfers.attach(AttachRequest(1), nothing)).commit == COMMIT
        with pytest.raises(NotFound, match="no transfer 9"):
            await transfers.attach(AttachRequest(9), nothing)


async def test_a_command_cannot_stop_what_was_begun_in_the_background(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        begun = await transfers.begin(BIG, "normal")
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        assert await transfers.leave(begun.id, 1) == RUNNING
        adding.cancel()
        adds.is_open.set()
        await eventually(lambda: states(transfers) == {"big": DONE})


async def test_adds_with_different_tokens_are_different_while_they_run(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        running = [asyncio.ensure_future(transfers.add(replace(BIG, token=one), nothing)) for one in (None, "hf_x")]
        await eventually(lambda: adds.running == 2)
        adds.is_open.set()
        await asyncio.gather(*running)
    assert [request.token for request in adds.requests] == [None, "hf_x"]


async def test_an_add_of_what_is_here_leaves_no_trace(start: Start, adds: Adds, tmp_path: Path) -> None:
    adds.gives_bytes = False
    adds.is_open.set()
    async with start() as transfers:
        await transfers.add(BIG, nothing)
        assert transfers.listed() == []
    assert not (tmp_path / HISTORY_FILE).exists()


@pytest.mark.parametrize("gives_bytes", [False, True], ids=["all was here", "bytes came"])
async def test_an_add_that_ended_as_the_daemon_stops_is_not_run_again(
    start: Start, adds: Adds, gives_bytes: bool
) -> None:
    adds.gives_bytes = gives_bytes
    adds.is_open.set()
    async with start() as transfers:
        await transfers.add(BIG, nothing)
    async with start() as transfers:
        assert [one.state for one in transfers.listed()] == ([DONE] if gives_bytes else [])
    assert adds.repos() == ["big"]


async def test_a_command_hears_the_error_and_the_transfer_stays_listed_with_it(start: Start, adds: Adds) -> None:
    adds.failures["acme/private"] = RepoNotFound("There is none.", hint="Check the name.")
    async with start() as transfers:
        with pytest.raises(RepoNotFound, match="There is none"):
            await transfers.add(PRIVATE, nothing)
        (one,) = transfers.listed()
        assert one.problem is not None
        assert (one.state, one.problem.message, one.problem.hint) == (FAILED, "There is none.", "Check the name.")
        assert (one.problem.code, one.problem.exit_code) == ("repo_not_found", 4)
        with pytest.raises(RepoNotFound, match="There is none"):
            await transfers.attach(AttachRequest(1), nothing)


# The queue


async def test_the_queue_keeps_its_bound_but_never_makes_a_command_wait(start: Start, adds: Adds) -> None:
    requests = [AddRequest(RepoId.parse(f"acme/m{number}")) for number in range(4)]
    async with start(at_once=2) as transfers:
        for request in requests:
            await transfers.begin(request, "normal")
        assert states(transfers) == {"m0": RUNNING, "m1": RUNNING, "m2": QUEUED, "m3": QUEUED}
        waited_for = asyncio.ensure_future(transfers.add(SMALL, nothing))
        joined = asyncio.ensure_future(transfers.add(requests[3], nothing))
        await eventually(lambda: adds.running == 4)
        assert states(transfers)["m2"] == QUEUED
        adds.is_open.set()
        await asyncio.gather(waited_for, joined)
        await eventually(lambda: set(states(transfers).values()) == {DONE})


async def test_the_queue_runs_by_priority_and_by_moves(start: Start, adds: Adds) -> None:
    async with start(at_once=1) as transfers:
        for name, priority in (("now", "normal"), ("low", "low"), ("mid", "normal"), ("top", "high"), ("next", "low")):
            await transfers.begin(AddRequest(RepoId.parse(f"acme/{name}")), priority)
        await transfers.change([5], "first")
        assert list(states(transfers)) == ["now", "next", "top", "mid", "low"]
        adds.is_open.set()
        await eventually(lambda: set(states(transfers).values()) == {DONE})
    assert adds.repos() == ["now", "next", "top", "mid", "low"]


async def test_begin_finds_what_is_there_already(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        assert (await transfers.begin(BIG, "normal")).id == 1
        assert await transfers.leave(1, 1) == RUNNING  # it goes on in the background now
        adding.cancel()
        assert (await transfers.begin(SMALL, "normal")).id == 2


async def test_transfers_are_paused_resumed_and_cancelled(start: Start, adds: Adds) -> None:
    heard: list[Event] = []
    async with start() as transfers:
        for request in (BIG, SMALL):
            await transfers.begin(request, "normal")
        following = asyncio.ensure_future(transfers.attach(AttachRequest(1), heard.append))
        await eventually(lambda: adds.running == 2)
        changed = await transfers.change([1, 2], "pause")
        assert [one.state for one in changed] == [PAUSED, PAUSED]
        assert adds.running == 0
        assert [event for event in heard if isinstance(event, WaitBegan)] != []
        await transfers.change([1], "resume")
        await eventually(lambda: states(transfers) == {"big": RUNNING, "small": PAUSED})
        await transfers.change([1, 2], "cancel")
        with pytest.raises(TransferCancelled, match="Transfer 1 was cancelled"):
            await following
        assert (transfers.listed(), adds.running) == ([], 0)


async def test_a_change_of_one_that_is_not_there_changes_none(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        await transfers.begin(BIG, "normal")
        with pytest.raises(NotFound, match="no transfer 5"):
            await transfers.change([1, 5], "pause")
        assert states(transfers) == {"big": RUNNING}
        adds.is_open.set()
        await eventually(lambda: states(transfers) == {"big": DONE})
        with pytest.raises(NotFound, match="over: it is done"):
            await transfers.change([1], "pause")


async def test_what_no_source_can_give_is_tried_again_later(start: Start, adds: Adds, clock: Clock) -> None:
    heard: list[Event] = []
    adds.failures["acme/big"] = HubUnreachable("The hub is silent.")
    async with start() as transfers:
        await transfers.begin(BIG, "normal")
        await eventually(lambda: states(transfers) == {"big": WAITING})
        following = asyncio.ensure_future(transfers.attach(AttachRequest(1), heard.append))
        (one,) = transfers.listed()
        assert one.problem is not None
        assert (one.tries, one.next_try_at, one.problem.message) == (1, clock.now + 15, "The hub is silent.")
        transfers.retry_soon()  # a peer that comes at once is no reason
        assert states(transfers) == {"big": WAITING}
        clock.now += 6
        transfers.retry_soon()
        await eventually(lambda: transfers.listed()[0].tries == 2)
        adds.failures.clear()
        adds.is_open.set()
        clock.now += 31
        transfers.retry_soon()
        assert (await following).commit == COMMIT
    assert "Trying again in 30 s" in next(event.reason for event in heard if isinstance(event, WaitBegan))


async def test_what_a_command_waits_for_is_not_tried_again_behind_its_back(start: Start, adds: Adds) -> None:
    adds.failures["acme/big"] = HubUnreachable("The hub is silent.")
    async with start() as transfers:
        with pytest.raises(HubUnreachable):
            await transfers.add(BIG, nothing)
        assert states(transfers) == {"big": FAILED}


# Restarts


@pytest.mark.parametrize("is_killed", [False, True], ids=["after a stop", "after a kill"])
async def test_the_queue_is_the_same_after_a_restart(start: Start, adds: Adds, is_killed: bool) -> None:
    async with start(at_once=1, is_killed=is_killed) as transfers:
        adding = asyncio.ensure_future(transfers.add(BIG, nothing))
        await eventually(lambda: adds.running == 1)
        for name, priority in (("low", "low"), ("paused", "normal"), ("top", "high")):
            await transfers.begin(AddRequest(RepoId.parse(f"acme/{name}")), priority)
        await transfers.change([3], "pause")
        adding.cancel()
        await eventually(lambda: transfers.listed()[0].commit == COMMIT)
    adds.is_open.set()
    async with start(at_once=1) as transfers:
        await eventually(lambda: set(states(transfers).values()) == {DONE, PAUSED})
        assert states(transfers)["paused"] == PAUSED
        assert (await transfers.begin(SMALL, "normal")).id == 5
    assert adds.repos()[1:4] == ["top", "big", "low"]


async def test_the_commit_is_pinned_over_a_restart(start: Start, adds: Adds) -> None:
    async with start(is_killed=True) as transfers:
        await transfers.begin(BIG, "normal")
        await eventually(lambda: transfers.listed()[0].commit == COMMIT)
    async with start() as transfers:
        await eventually(lambda: adds.running == 1)
    first, second = adds.requests
    assert first.resolved is None and second.resolved == Resolved("acme/big", "main", COMMIT, "hub")
    assert second.revision == "main"


async def test_a_fresh_add_asks_again_what_its_revision_means(start: Start, adds: Adds) -> None:
    async with start() as transfers:
        await transfers.begin(BIG, "normal")
        await eventually(lambda: transfers.listed()[0].commit == COMMIT)
        await transfers.change([1], "pause")
        adds.is_open.set()
        await transfers.add(BIG, nothing)
    assert [request.resolved for request in adds.requests] == [None, None]


async def test_no_token_comes_to_the_disk(start: Start, adds: Adds, tmp_path: Path) -> None:
    adds.is_open.set()
    async with start() as transfers:
        await transfers.begin(replace(PRIVATE, token="hf_verysecret"), "normal")
        await eventually(lambda: states(transfers) == {"private": DONE})
    assert adds.requests[0].token == "hf_verysecret"
    kept = await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.iterdir()])
    assert kept and not any(b"verysecret" in content for content in kept)


@pytest.mark.parametrize("token", ["hf_secret", "", None])
async def test_after_a_restart_the_login_of_the_node_is_used_but_an_anonymous_add_stays_so(
    start: Start, adds: Adds, token: str | None
) -> None:
    async with start(is_killed=True) as transfers:
        await transfers.begin(replace(PRIVATE, token=token), "normal")
        await eventually(lambda: adds.running == 1)
    async with start():
        await eventually(lambda: len(adds.requests) == 2)
    assert [request.token for request in adds.requests] == [token, "" if token == "" else None]


async def test_one_that_needs_the_callers_token_waits_for_it_and_says_so(start: Start, adds: Adds) -> None:
    async with start(is_killed=True) as transfers:
        await transfers.begin(replace(PRIVATE, token="hf_secret"), "normal")
        await eventually(lambda: adds.running == 1)
    adds.failures["acme/private"] = AccessDenied("The hub refuses.")
    async with start() as transfers:
        await eventually(lambda: states(transfers) == {"private": PAUSED})
        (one,) = transfers.listed()
        assert one.problem is not None and one.problem.hint is not None
        assert "token of a command, which is not written to the disk" in one.problem.message
        assert (one.problem.exit_code, "hfpeer transfers resume 1" in one.problem.hint) == (5, True)
        adds.failures.clear()
        adds.is_open.set()
        assert (await transfers.add(replace(PRIVATE, token="hf_again"), nothing)).commit == COMMIT
    assert adds.requests[-1].token == "hf_again"


async def test_a_torn_or_foreign_line_does_not_hide_the_others(start: Start, adds: Adds, tmp_path: Path) -> None:
    async with start(is_killed=True) as transfers:
        for request in (BIG, SMALL):
            await transfers.begin(request, "normal")
        await eventually(lambda: adds.running == 2)
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    foreign = json.dumps({"transfer": {"id": 7, "state": "of the future"}}).encode()
    (tmp_path / FILE).write_bytes(b"".join([*lines, foreign, b"\n[]\n\xff\n", lines[-1][:40]]))
    async with start() as transfers:
        assert [one.repo for one in transfers.listed()] == ["acme/big", "acme/small"]
        assert (await transfers.begin(PRIVATE, "normal")).id == 8


async def test_a_queue_that_cannot_be_kept_is_said_and_adds_go_on(start: Start, adds: Adds, tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    adds.is_open.set()
    async with start() as transfers:
        assert (await transfers.add(BIG, nothing)).commit == COMMIT
        with pytest.raises(StorageError):
            await transfers.begin(SMALL, "normal")
        assert "small" not in states(transfers)


def test_the_journal_stays_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one, other = (new_transfer(id, BIG, 0.0, is_detached=True) for id in (1, 2))
    journal.write(other, is_synced=False)
    for _ in range(MIN_LINES + 10):
        journal.write(one, is_synced=False)
    journal.drop(2)
    assert len((tmp_path / FILE).read_text().splitlines()) < 20
    assert Journal(tmp_path).open() == ([one], 2)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


# The history


async def test_what_is_over_is_in_the_history_once_with_the_bytes_of_each_part(
    start: Start, adds: Adds, tmp_path: Path
) -> None:
    async with start() as transfers:
        await transfers.begin(replace(BIG, asked_by=Asker("cli", "ann")), "normal")
        await transfers.begin(SMALL, "normal")
        await eventually(lambda: adds.running == 2)
        await transfers.change([2], "cancel")
        adds.is_open.set()
        await eventually(lambda: states(transfers) == {"big": DONE})
    gone, came = await history_of(tmp_path)
    assert (gone.id, gone.outcome, gone.bytes_by_kind) == (2, "cancelled", {"peer": 40})
    assert (came.id, came.repo, came.commit, came.outcome) == (1, "acme/big", COMMIT, "done")
    assert (came.asked_by, came.saved_bytes, came.bytes_by_source) == (Asker("cli", "ann"), 100, {"h2": 100})


async def test_a_failure_that_is_mended_is_two_entries_whose_bytes_add_up(
    start: Start, adds: Adds, tmp_path: Path
) -> None:
    adds.failures["acme/big"] = AccessDenied("No.")
    async with start() as transfers:
        with pytest.raises(AccessDenied):
            await transfers.add(BIG, nothing)
        adds.failures.clear()
        adds.is_open.set()
        await transfers.change([1], "resume")
        await eventually(lambda: states(transfers) == {"big": DONE})
    entries = await history_of(tmp_path)
    assert [(entry.outcome, sum(entry.bytes_by_kind.values())) for entry in entries] == [("failed", 0), ("done", 100)]
    assert entries[0].problem is not None and entries[0].problem.code == "access_denied"


def test_the_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most_bytes = 20_000
    monkeypatch.setattr("hfpeer.node.operations.transfers.history.MAX_FILE_BYTES", most_bytes)
    history = History(tmp_path)
    entry = entry_of(replace(new_transfer(1, BIG, 0.0, is_detached=True), state=DONE), 5.0)
    history.note(entry)
    line = (tmp_path / HISTORY_FILE).read_bytes()
    (tmp_path / HISTORY_FILE).write_bytes(line * (most_bytes // len(line)))
    history.note(replace(entry, id=2))
    assert (tmp_path / HISTORY_FILE).stat().st_size < most_bytes * 0.6
    assert history.since(0.0)[-1].id == 2 and history.since(5.0) == []


# Without a daemon


async def test_an_add_of_a_command_alone_is_in_the_history_too(adds: Adds, tmp_path: Path) -> None:
    operations = TransferOperations(tmp_path, adds.run, 3)
    adds.is_open.set()
    await operations.add(BIG, nothing)
    adds.failures["acme/private"] = AccessDenied("No.")
    with pytest.raises(AccessDenied):
        await operations.add(PRIVATE, nothing)
    done, failed = await operations.history(0.0)
    assert (done.id, done.outcome, done.saved_bytes) == (0, "done", 100)
    assert (failed.outcome, failed.problem and failed.problem.exit_code) == ("failed", 5)


async def test_without_a_daemon_the_queue_is_read_and_nothing_else(start: Start, adds: Adds, tmp_path: Path) -> None:
    async with start() as transfers:
        await transfers.begin(BIG, "normal")
    operations = TransferOperations(tmp_path, adds.run, 3)
    assert [(one.repo, one.state) for one in await operations.listed()] == [("acme/big", QUEUED)]
    with pytest.raises(NotRunning, match="no add can go on in the background"):
        await operations.begin(SMALL, "normal")
    with pytest.raises(NotRunning):
        await operations.change([1], "cancel")
