"""Requests of one node to another to add something: who may, what becomes of them, and what strangers cannot do."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from fakes.doors import Answer, OpenDoor, eventually, open_door, wire
from fakes.node import MemoryNode
from hfpeer.budgets import (
    MAX_ASKED_PATTERN_CHARACTERS,
    MAX_ASKED_PATTERNS,
    MAX_REFUSED_NODES,
    MAX_REQUEST_BYTES,
    MAX_REQUESTED_TRANSFERS,
    MAX_TICKETS,
)
from hfpeer.control.operations import AddRequest, OtherNode
from hfpeer.control.transfers import DONE, FAILED, PAUSED, RUNNING
from hfpeer.errors import (
    AccessDenied,
    HfpeerError,
    InvalidName,
    NoSpace,
    PeerUnreachable,
    RepoNotFound,
    RequestRefused,
    StorageError,
    TransferCancelled,
    Unreachable,
)
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.node.operations.fleet import taking
from hfpeer.node.operations.fleet.asking import AskedNodes, AskingParts
from hfpeer.node.operations.fleet.request_key import read_request_key
from hfpeer.node.operations.fleet.taking import AddsOfOthers, TakingParts
from hfpeer.node.operations.transfers.operations import TransferOperations
from hfpeer.peers.asking.address_client import AddressClient
from hfpeer.peers.protocol.paths import ADDS_PATH
from hfpeer.peers.protocol.remote_adds import LAN, NO, SIGNED, AddTerms, RemoteAdd
from hfpeer.peers.table.table import State
from hfpeer.transfer.events import Event, Finished, NodeTold, OnEvent, Progressed
from hfpeer.trust.signatures import signature
from hfpeer_daemon.app import lan_app
from hfpeer_daemon.http.responses import App
from hfpeer_daemon.lan.upload_slots import UploadSlots

COMMIT = Commit("ab" * 20)
HEAD, GPU, STRANGER = "a" * 32, "b" * 32, "c" * 32
KEY, OTHER_KEY = b"a key of both nodes", b"a key of other nodes"
REPO = RepoId.parse("acme/fleet")
REQUEST = AddRequest(REPO, Revision(COMMIT), node=OtherNode("gpu", GPU), told_as=Revision("main"))


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["hfpeer", "hfpeer_daemon"]):
        yield


@dataclass
class Gpu:
    """The node that is asked: its adds end when `is_open` is set, or fail with `failure`."""

    home: Path
    accepts: str = LAN
    key: bytes = KEY
    failure: HfpeerError | None = None
    requests: list[AddRequest] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    knows: tuple[str, ...] = (HEAD,)

    def __post_init__(self) -> None:
        self.transfers = TransferOperations(self.home, self._run, 3)
        self.adds = AddsOfOthers(
            TakingParts(self.accepts, lambda: self.key, GPU, self, self.transfers)  # type: ignore[arg-type]
        )

    def get(self, key: str) -> Any:
        """As `Neighbourhood.get`."""
        return SimpleNamespace(node_id=key, name="head", lies=0) if key in self.knows else None

    async def _run(self, request: AddRequest, on_event: OnEvent) -> Finished:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        on_event(Progressed(40, 100, 8.0, {"h": 40}, {}, (), 0, 1, {"peer": 40}))
        await self.is_open.wait()
        return Finished(str(request.repo), COMMIT, "/cache", 1, 100, 0, {"h": 100}, {"peer": 100})


@asynccontextmanager
async def listening(gpu: Gpu) -> AsyncIterator[OpenDoor]:
    def app(threads: Any) -> App:
        return lan_app(MemoryNode(), threads, UploadSlots(), asyncio.Event(), adds=gpu.adds)

    await gpu.transfers.start()
    try:
        async with open_door(app, threads=6) as door:
            yield door
    finally:
        await gpu.transfers.stop()


def client_of(address: Address, sender: str = HEAD) -> AbstractAsyncContextManager[AddressClient]:
    return aclosing(AddressClient(address, sender))


async def ask(
    address: Address, request: AddRequest = REQUEST, events: list[Event] | None = None, *, key: bytes | None = KEY
) -> Finished:
    """Asks as a node does in a transfer."""

    def read_key() -> bytes:
        if key is None:
            raise InvalidName("No key.", hint="Make one.")
        return key

    async with client_of(address) as client:
        head = SimpleNamespace(
            get=lambda key: SimpleNamespace(node_id=GPU),
            state=lambda peer: State.ALIVE,
            client=lambda peer: client,
            failed=print,
        )
        parts = AskingParts(HEAD, head, read_key)  # type: ignore[arg-type]
        return await AskedNodes().add(parts, request, (events if events is not None else []).append)


async def states(gpu: Gpu) -> list[str]:
    return [one.state for one in await gpu.transfers.listed()]


@pytest.mark.parametrize("accepts", [LAN, SIGNED])
async def test_a_request_becomes_a_transfer_of_the_other_node_and_its_end_is_told(tmp_path: Path, accepts: str) -> None:
    gpu, events = Gpu(tmp_path, accepts), list[Event]()
    async with listening(gpu) as door:
        asking = asyncio.ensure_future(ask(door.address, events=events))
        await eventually(lambda: any(isinstance(one, NodeTold) and one.present_bytes == 40 for one in events))
        gpu.is_open.set()
        finished = await asking
        (one,) = await gpu.transfers.listed()
    assert (finished.size_bytes, finished.files, finished.bytes_by_source) == (100, 1, {})
    assert (one.state, one.asked_by.via, one.asked_by.user, one.asked_by.host) == (DONE, "peer", "head", "127.0.0.1")
    (request,) = gpu.requests
    assert (request.repo, str(request.revision), str(request.told_as), request.token) == (REPO, COMMIT, "main", None)


async def test_the_same_commit_asked_for_twice_is_one_transfer_now_and_later(tmp_path: Path) -> None:
    gpu = Gpu(tmp_path)
    async with listening(gpu) as door:
        asking = [asyncio.ensure_future(ask(door.address)) for _ in range(2)]
        await eventually(lambda: bool(gpu.requests))
        gpu.is_open.set()
        await asyncio.gather(*asking)
        await ask(door.address)
        assert [one.id for one in await gpu.transfers.listed()] == [1]


async def test_what_the_owner_has_paused_stays_paused_and_what_he_cancels_is_over_for_the_asker(tmp_path: Path) -> None:
    gpu, events = Gpu(tmp_path), list[Event]()
    async with listening(gpu) as door:
        asking = asyncio.ensure_future(ask(door.address, events=events))
        await eventually(lambda: bool(gpu.requests))
        await gpu.transfers.change([1], "pause")
        async with client_of(door.address) as client:
            assert (await client.ask_add(body(told_as="main"))).state == PAUSED
        assert await states(gpu) == [PAUSED]
        await gpu.transfers.change([1], "cancel")
        with pytest.raises(TransferCancelled):
            await asking
        assert await states(gpu) == []


REFUSED: dict[str, dict[str, Any]] = {
    "no": {"accepts": NO},
    "not a peer": {"knows": ()},
    "another key": {"accepts": SIGNED, "key": OTHER_KEY},
}
SAYS = {"no": "`accept_requests` is no", "not a peer": "its peer", "another key": "another key"}


@pytest.mark.parametrize("case", SAYS)
async def test_a_node_that_refuses_says_why_and_does_nothing(tmp_path: Path, case: str) -> None:
    gpu = Gpu(tmp_path, **REFUSED[case])
    async with listening(gpu) as door:
        with pytest.raises(RequestRefused) as caught:
            await ask(door.address)
        assert (SAYS[case] in caught.value.message, await states(gpu), gpu.requests) == (True, [], [])


async def test_a_node_without_a_key_and_one_of_an_older_version_are_told_apart(tmp_path: Path) -> None:
    async with listening(Gpu(tmp_path, SIGNED)) as door:
        with pytest.raises(RequestRefused, match="only signed requests"):
            await ask(door.address, key=None)

    def older(threads: Any) -> App:
        return lan_app(MemoryNode(), threads, UploadSlots(), asyncio.Event())

    async with open_door(older, threads=6) as door:
        with pytest.raises(RequestRefused, match="older"):
            await ask(door.address)


async def test_the_owner_is_told_once_of_each_node_that_was_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Gpu(tmp_path, NO)
    async with listening(gpu) as door:
        for _ in range(3):
            with pytest.raises(RequestRefused):
                await ask(door.address)
    assert sum("asked this node to add something" in record.message for record in caplog.records) == 1
    assert "head" in gpu.adds.notes[0] and "accept_requests" in gpu.adds.notes[0]
    for number in range(MAX_REFUSED_NODES + 5):
        with pytest.raises(RequestRefused):
            await gpu.adds.take(b"{}", sender="", host=f"10.0.0.{number}", signed="")
    assert len(gpu.adds._refused) == MAX_REFUSED_NODES


FAILURES: dict[str, tuple[HfpeerError, type[HfpeerError]]] = {
    "access": (AccessDenied("The token of bob is refused."), AccessDenied),
    "a repo that is not there, as one that is closed": (RepoNotFound("No /home/bob."), AccessDenied),
    "disk": (NoSpace("/home/bob is full."), StorageError),
    "a bug": (HfpeerError("bob"), HfpeerError),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_is_told_in_one_word_without_names_of_the_other_machine(tmp_path: Path, case: str) -> None:
    failure, kind = FAILURES[case]
    gpu = Gpu(tmp_path, failure=failure)
    async with listening(gpu) as door:
        with pytest.raises(kind) as caught:
            await ask(door.address)
        assert type(caught.value) is kind and "bob" not in caught.value.message
        async with wire(door.address) as connection:
            ticket = next(iter(gpu.adds._tickets))
            answer = await connection.ask(f"{ADDS_PATH}/{ticket}")
        assert b"bob" not in answer.body and json.loads(answer.body)["state"] == FAILED


async def test_a_node_that_has_gone_or_was_restarted_counts_as_away(tmp_path: Path) -> None:
    gpu = Gpu(tmp_path)
    async with listening(gpu) as door:
        asking = asyncio.ensure_future(ask(door.address))
        await eventually(lambda: bool(gpu.requests))
        gpu.adds._tickets.clear()
        with pytest.raises(PeerUnreachable, match="restarted"):
            await asking
    with pytest.raises(PeerUnreachable):
        await ask(door.address)
    nobody = SimpleNamespace(get=lambda key: None, failed=lambda key, reason: None)
    with pytest.raises(PeerUnreachable, match="away"):
        await AskedNodes().add(AskingParts(HEAD, nobody, lambda: KEY), REQUEST, lambda event: None)  # type: ignore[arg-type]


# Signatures


def body(**changed: Any) -> bytes:
    return json.dumps(RemoteAdd(secrets.token_hex(16), REPO, COMMIT).to_json() | changed).encode()


def signed(terms: AddTerms, text: bytes, key: bytes = KEY, sender: str = STRANGER, receiver: str = GPU) -> str:
    nonce = terms.nonce
    right = signature(key, nonce=nonce, sender=sender, receiver=receiver, method="POST", path=ADDS_PATH, body=text)
    return f"{nonce} {right}"


async def test_a_signed_request_counts_once_and_for_its_own_body_and_receiver(tmp_path: Path) -> None:
    gpu, text = Gpu(tmp_path, SIGNED), body()
    async with listening(gpu) as door, client_of(door.address, STRANGER) as client:
        terms = await client.add_terms()
        assert terms is not None
        for_others = signed(terms, body()), signed(terms, text, receiver=HEAD), signed(terms, text, OTHER_KEY)
        for wrong in ("", "x", *for_others):
            with pytest.raises(RequestRefused):
                await client.ask_add(text, wrong)
        assert await states(gpu) == []
        # A wrong signature has not used up the nonce, and the peer need not be a known one.
        right = signed(terms, text)
        assert (await client.ask_add(text, right)).state in ("queued", RUNNING)
        with pytest.raises(RequestRefused):
            await client.ask_add(text, right)
        assert len(await states(gpu)) == 1


def test_a_key_is_a_file_of_the_owner_of_some_length(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for problem, text in {"no key": None, "cannot be read": "", "shorter": "short\n"}.items():
        if text:
            path.write_text(text)
        with pytest.raises(InvalidName, match=problem):
            read_request_key(None if text is None else path)
    path.write_text("a key that is long enough\n")
    assert read_request_key(path) == b"a key that is long enough"


# Bounds


async def test_requests_that_are_not_over_have_a_bound_and_the_same_one_is_still_found(tmp_path: Path) -> None:
    gpu = Gpu(tmp_path)
    async with listening(gpu) as door, client_of(door.address) as client:
        for number in range(MAX_REQUESTED_TRANSFERS):
            await gpu.adds.take(body(repo=f"models/acme/r{number}"), sender=HEAD, host="h", signed="")
        with pytest.raises(Unreachable, match="as many transfers"):
            await client.ask_add(body(repo="models/acme/more"))
        await client.ask_add(body(repo="models/acme/r0"))
        assert len(await states(gpu)) == MAX_REQUESTED_TRANSFERS


async def test_tickets_have_a_bound(tmp_path: Path) -> None:
    gpu = Gpu(tmp_path)
    async with listening(gpu):
        for _ in range(MAX_TICKETS + 10):
            await gpu.adds.take(body(), sender=HEAD, host="h", signed="")
    assert len(gpu.adds._tickets) == MAX_TICKETS


async def test_questions_beyond_a_bound_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(tmp_path)
    monkeypatch.setattr(taking, "MAX_REQUEST_WAITS", 1)
    async with listening(gpu) as door, client_of(door.address) as client:
        text = body()
        await client.ask_add(text)
        ticket = json.loads(text)["ticket"]
        waiting = asyncio.ensure_future(gpu.adds.progress(ticket, 60.0))
        await eventually(lambda: gpu.adds._waits == 1)
        found = await asyncio.wait_for(gpu.adds.progress(ticket, 60.0), 10)
        assert found is not None and not waiting.done()
        gpu.is_open.set()
        assert (await waiting).state == DONE  # type: ignore[union-attr]


async def posted(door: OpenDoor, text: bytes, *lines: str, method: str = "POST", announced: int = 0) -> Answer:
    """The answer to a request of a raw client, whose body may be shorter than it announces."""
    async with wire(door.address) as connection:
        length = f"Content-Length: {announced or len(text)}"
        await connection.say(ADDS_PATH, f"Hfpeer-Node: {HEAD}", length, *lines, method=method)
        connection.writer.write(text)
        return await connection.answer()


MALFORMED: dict[str, bytes] = {
    "no JSON": b"{",
    "deep": b"[" * 50_000,
    "an array": b"[]",
    "a branch": body(commit="main"),
    "a path that leads out": body(files=["../x"]),
    "another ticket": body(ticket="1"),
    "a repo of sets": body(repo="sets/acme/fleet"),
    "too many patterns": body(include=["*"] * (MAX_ASKED_PATTERNS + 1)),
    "a long pattern": body(exclude=["*" * (MAX_ASKED_PATTERN_CHARACTERS + 1)]),
    "a name that leads out": body(told_as="../x"),
    "large": b" " * (MAX_REQUEST_BYTES + 1),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_refused(tmp_path: Path, case: str) -> None:
    gpu, text = Gpu(tmp_path), MALFORMED[case]
    async with listening(gpu) as door:
        assert (await posted(door, text)).status == 400
        assert await states(gpu) == []


async def test_a_request_that_comes_too_slowly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hfpeer_daemon.lan import remote_adds

    monkeypatch.setattr(remote_adds, "REQUEST_SECONDS", 0.05)
    async with listening(Gpu(tmp_path)) as door:
        assert (await posted(door, b"{", announced=100)).status == 400


async def test_web_pages_and_other_methods_get_nothing(tmp_path: Path) -> None:
    gpu, text = Gpu(tmp_path), body()
    async with listening(gpu) as door:
        for line, method, status in (("Origin: http://e", "POST", 403), ("X: y", "PUT", 405), ("X: y", "DELETE", 405)):
            assert (await posted(door, text, line, method=method)).status == status
        async with wire(door.address) as connection:
            assert (await connection.ask(f"{ADDS_PATH}/{'0' * 32}")).status == 404
        assert await states(gpu) == []


def test_another_node_is_part_of_what_a_request_asks_for() -> None:
    from hfpeer.node.operations.transfers.transfer import is_same_add

    assert not is_same_add(REQUEST, replace(REQUEST, node=None))
    assert not is_same_add(REQUEST, replace(REQUEST, node=OtherNode("gpu2", STRANGER)))
