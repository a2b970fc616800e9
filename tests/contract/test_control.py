"""The control door and its client: a node behind a Unix socket is the same node."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from blockbuster import blockbuster_ctx

from fakes.doors import eventually, open_door
from fakes.node import COMMIT, TRANSFER, MemoryNode, cached_revision
from fakes.program import unmeasured
from hfpeer.cache.cleaning.facts import CleanReport, Kept, PruneRules, Step
from hfpeer.cache.cleaning.planning.requests import Target
from hfpeer.config.settings import read_settings
from hfpeer.control.asker import Asker
from hfpeer.control.client import ControlClient
from hfpeer.control.codec import CALLS, CONTROL_VERSION, FOLLOWED, VERSION_HEADER, decode, encode
from hfpeer.control.operations import AddRequest, CleanRequest, HistoryEntry, Holding, Operations, PublishRequest
from hfpeer.control.results import PeerStatus
from hfpeer.errors import CODES, HfpeerError, InvalidName, NotFound, NotRunning, VersionMismatch, from_problem
from hfpeer.names import FilePath, RepoId, Revision
from hfpeer.net.http1_blocking import run_blocking
from hfpeer.node.session import find_daemon, open_session
from hfpeer.transfer.events import (
    Event,
    FileProgress,
    Planned,
    Progressed,
    Resolved,
    SourceFailed,
    TransferJoined,
    TransferLeft,
)
from hfpeer_daemon.app import control_app
from hfpeer_daemon.control.adds import AddFollower, Adds, Calls
from hfpeer_daemon.http.listeners import listen_unix
from hfpeer_daemon.http.problems import problem_bytes

REPO = RepoId.parse("org/name", "dataset")
REQUEST = AddRequest(REPO, Revision("v1.0"), (FilePath("a/b.json"),), ("*.json",), (), token="hf_secret")
PROGRESS = Progressed(1, 2, 0.5, {"pegasus": 1}, {"pegasus": 0.5}, (FileProgress("a", 1, 2),), 0, 1)
STORY: list[Event] = [
    Resolved("org/name", "v1.0", COMMIT, "origin"),
    Planned("org/name", COMMIT, 1, 2, 1, 2, "peer", True),
    PROGRESS,
    SourceFailed("pegasus", "a", "was silent", was_lying=False),
]
ADD_AND_LIST_MODULES = """
import atexit, sys
from hfpeer_cli.main import main
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
main()
"""
NOT_FOR_AN_ADD = {
    *("asyncio", "concurrent.futures", "email", "http.client", "httpx", "logging", "rich", "sqlite3", "ssl"),
    *("subprocess", "tempfile", "traceback", *(["tomlkit"] if sys.version_info >= (3, 11) else [])),
}
HFPEER_FOR_AN_ADD = {
    "hfpeer.budgets",
    "hfpeer.config",
    "hfpeer.config.amounts",
    "hfpeer.config.file",
    "hfpeer.config.keys",
    "hfpeer.config.paths",
    "hfpeer.config.peer_names",
    "hfpeer.config.settings",
    "hfpeer.control",
    "hfpeer.control.asker",
    "hfpeer.control.client",
    "hfpeer.control.codec",
    "hfpeer.control.operations",
    "hfpeer.errors",
    "hfpeer.language",
    "hfpeer.language.amounts",
    "hfpeer.language.cells",
    "hfpeer.language.tags",
    "hfpeer.names",
    "hfpeer.net",
    "hfpeer.net.address",
    "hfpeer.net.http1",
    "hfpeer.net.http1_blocking",
    "hfpeer.net.networks",
    "hfpeer.net.rates",
    "hfpeer.node",
    "hfpeer.node.session",
    "hfpeer.repo_words",
    "hfpeer.system",
    "hfpeer.system.ownership",
    "hfpeer.system.printable",
    "hfpeer.transfer",
    "hfpeer.transfer.events",
    "hfpeer.upstream",
    "hfpeer.upstream.auth",
    "hfpeer.version",
}
"""A command is to send its request at once: a module more is a reason to think."""


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["hfpeer", "hfpeer_daemon"]):
        yield


@pytest.fixture
def node() -> MemoryNode:
    return MemoryNode()


class Control:
    """A control door, how many times it was asked to stop, and a client's way to it."""

    def __init__(self, path: Path, node: MemoryNode) -> None:
        self.path = path
        self.adds = Adds(node)
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1

    def client(self) -> ControlClient:
        return ControlClient(self.path)

    async def raw(self, method: str, path: str, **keywords: object) -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        async with httpx.AsyncClient(transport=transport, base_url="http://hfpeer") as client:
            return await client.request(method, path, **keywords)  # type: ignore[arg-type]


@asynccontextmanager
async def control(tmp_path: Path, node: MemoryNode, version: int = CONTROL_VERSION) -> AsyncIterator[Control]:
    door = Control(tmp_path / "control.sock", node)
    listener = await asyncio.to_thread(listen_unix, door.path)
    headers = ((VERSION_HEADER, str(version)),)
    app = control_app(node, door.adds, Calls(), door.stop)
    async with open_door(lambda _threads: app, listener=listener, headers=headers):
        yield door
        await door.adds.stop()


# Calls


@pytest.mark.parametrize("is_blocking", [False, True], ids=["in an event loop", "without one"])
async def test_every_operation_crosses_the_socket_unchanged(
    tmp_path: Path, node: MemoryNode, is_blocking: bool
) -> None:
    node.cached = [cached_revision("org/name", "dataset"), cached_revision()]
    node.cleaned = CleanReport(
        False, (Step("i", "revision", "n", 5, "w", ("note",), 2),), (Kept("k", "file", "n", 1, "young", "s"),), 5, "lan"
    )
    node.transfers = [TRANSFER]
    node.entries = [HistoryEntry(7, "a/b", "main", COMMIT, "done", Asker("cli"), 1.0, 2.0, 0.5, 1, 2, {}, {}, 0)]
    node.found = [Holding("pegasus", "10.0.0.7:9437", "org/name", COMMIT, ("main",), True, size_bytes=None)]
    files, revision = (FilePath("a b/ü"),), Revision("refs/pr/1")

    async def use(operations: Operations) -> list[object]:
        answers = [
            await operations.list_revisions(),
            await operations.list_revisions(REPO, revision),
            await operations.cache_report(),
            await operations.clean(
                CleanRequest((Target("w", (REPO,), revision, files),), PruneRules(1.5, 2, True), only=("a", "b"))
            ),
            await operations.search(REPO),
            await operations.publish(PublishRequest("/some folder/ü", REPO), lambda event: None),
            await operations.add_peer("10.0.0.7"),
            await operations.list_peers(),
            await operations.status(),
            await operations.share(REPO, None),
            await operations.share(REPO, is_shared=False),
            await operations.begin_transfer(REQUEST, "high"),
            await operations.list_transfers(),
            await operations.change_transfers((7,), "pause"),
            await operations.leave_transfer(7, 2),
            await operations.history(1.5),
        ]
        await operations.remove_peer("10.0.0.7")
        return answers

    expected = await use(node)
    direct_calls, node.calls = node.calls, []
    async with control(tmp_path, node) as door:
        client = ControlClient(door.path, is_blocking=is_blocking)
        using = asyncio.to_thread(run_blocking, use(client)) if is_blocking else use(client)
        assert await using == expected
    assert node.calls == direct_calls


def test_the_client_has_every_operation_with_the_same_signature() -> None:
    for name in (*CALLS, *FOLLOWED):
        assert inspect.signature(getattr(ControlClient, name)) == inspect.signature(getattr(Operations, name))


def test_every_operation_is_one_call_or_sends_events() -> None:
    assert {*CALLS, *FOLLOWED} == {name for name in vars(Operations) if not name.startswith("_")}


@pytest.mark.parametrize("code", sorted(CODES))
async def test_an_error_is_the_same_class_at_the_other_end(code: str) -> None:
    error = CODES[code]("What happened.", hint="What to do.", repo="org/name", count=3)
    again = from_problem(json.loads(problem_bytes(error)))
    assert (type(again), again.message, again.hint, again.facts) == (
        type(error),
        error.message,
        error.hint,
        error.facts,
    )


async def test_errors_of_calls_and_adds_are_raised_as_they_were(tmp_path: Path, node: MemoryNode) -> None:
    node.failure = CODES["gated_repo"]("It is gated.", hint="Ask for access.", repo="org/name")
    async with control(tmp_path, node) as door:
        client = door.client()
        with pytest.raises(NotFound) as missing:
            await client.remove_peer("10.9.9.9")
        assert missing.value.facts == {"address": "10.9.9.9"}
        with pytest.raises(CODES["gated_repo"], match="It is gated"):
            await client.add(REQUEST, lambda _event: None)


async def test_an_unexpected_error_of_an_add_is_sent_without_details(tmp_path: Path, node: MemoryNode) -> None:
    node.failure = ZeroDivisionError("inside")
    async with control(tmp_path, node) as door:
        client = door.client()
        with pytest.raises(HfpeerError, match="Something went wrong") as caught:
            await client.add(REQUEST, lambda _event: None)
    assert type(caught.value) is HfpeerError


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("why", {"repo": "models/../../etc"}),
        ("why", {"repo": "models/a/b", "files": ["../x"]}),
        ("why", {"repo": 7}),
        ("why", {}),
        ("why", {"repo": "models/a/b", "what": 1}),
        ("why", []),
        ("clean", {"request": {"targets": [{"word": "w", "repos": ["models/../../etc"]}]}}),
        ("share", {"repo": "models/a/b", "is_shared": "yes"}),
        ("add", {"request": {"repo": "models/a/b", "include": "x"}}),
        ("add", {}),
    ],
)
async def test_a_malformed_request_is_refused_as_invalid(
    tmp_path: Path, node: MemoryNode, path: str, document: object
) -> None:
    async with control(tmp_path, node) as door:
        answer = await door.raw("POST", f"/v1/{path}", json=document)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_name")
    assert node.calls == []


def test_an_encoded_value_is_decoded_to_the_same() -> None:
    for value in (REQUEST, cached_revision(), AddRequest(RepoId.parse("gpt2"))):
        assert decode(type(value), json.loads(json.dumps(encode(value)))) == value
    with pytest.raises(InvalidName):
        decode(AddRequest, {"repo": "models/a", "is_local_only": 1})
    with pytest.raises(InvalidName):
        decode(AddRequest, "x")


# Adds


async def test_an_add_sends_its_events_in_order_and_then_its_result(tmp_path: Path, node: MemoryNode) -> None:
    node.events = STORY
    heard: list[Event] = []
    async with control(tmp_path, node) as door:
        client = door.client()
        finished = await client.add(REQUEST, heard.append)
    assert heard == STORY
    assert finished.bytes_by_source == {"peer": 2}
    assert node.calls == [("add", {"request": REQUEST})]


async def test_an_add_without_an_event_loop_sends_the_same_events(tmp_path: Path, node: MemoryNode) -> None:
    node.events = STORY
    heard: list[Event] = []
    async with control(tmp_path, node) as door:
        client = ControlClient(door.path, is_blocking=True)
        finished = await asyncio.to_thread(run_blocking, client.add(REQUEST, heard.append))
        node.failure = CODES["gated_repo"]("It is gated.")
        with pytest.raises(CODES["gated_repo"], match="It is gated"):
            await asyncio.to_thread(run_blocking, client.add(REQUEST, heard.append))
    assert heard == STORY * 2
    assert finished.bytes_by_source == {"peer": 2}


async def test_a_blocking_client_that_leaves_ends_the_add(tmp_path: Path, node: MemoryNode) -> None:
    def leave(_event: Event) -> None:
        raise KeyboardInterrupt

    node.events, node.gate = STORY[:1], asyncio.Event()
    async with control(tmp_path, node) as door:
        client = ControlClient(door.path, is_blocking=True)

        def add() -> bool:
            try:
                run_blocking(client.add(REQUEST, leave))
            except KeyboardInterrupt:
                return True
            return False

        assert await asyncio.to_thread(add)
        await asyncio.wait_for(node.add_ended.wait(), 20.0)
        assert node.running_adds == 0


async def test_the_end_of_the_daemon_ends_the_adds_of_blocking_clients(tmp_path: Path, node: MemoryNode) -> None:
    node.gate = asyncio.Event()
    async with control(tmp_path, node) as door:
        client = ControlClient(door.path, is_blocking=True)
        adding = asyncio.ensure_future(
            asyncio.to_thread(run_blocking, client.add(REQUEST, lambda _event: None)),
        )
        await eventually(lambda: node.running_adds == 1)
        await door.adds.stop()
        with pytest.raises(NotRunning, match="stopped"):
            await asyncio.wait_for(adding, 20.0)


async def test_a_command_that_adds_through_the_daemon_loads_few_modules(tmp_path: Path, node: MemoryNode) -> None:
    (tmp_path / "settings.toml").write_text("mdns = false\n")
    async with control(tmp_path, node):
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ADD_AND_LIST_MODULES, "--json", "model", "add", "-r", "org/name", "-v", COMMIT),
            env={**unmeasured(), "HFPEER_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(command.communicate(), 30)
    assert (command.returncode, json.loads(out)["commit"]) == (0, COMMIT)
    loaded = set(err.decode().split())
    assert "hfpeer.control.client" in loaded and not NOT_FOR_AN_ADD & loaded
    assert {name for name in loaded if name.startswith("hfpeer.")} == HFPEER_FOR_AN_ADD


@pytest.mark.parametrize(
    ("line", "offered"),
    [("hfpeer transfers pause ", "7"), ("hfpeer peer rm 10", "10.0.0.7:9437"), ("hfpeer transfers move x", "")],
)
async def test_a_shell_completes_what_only_the_daemon_knows(
    tmp_path: Path, node: MemoryNode, line: str, offered: str
) -> None:
    node.transfers = [TRANSFER]
    node.peers = {"10.0.0.7:9437": PeerStatus("n1", "pegasus", "10.0.0.7:9437", "alive", "mdns")}
    environ = {"HFPEER_HOME": str(tmp_path), "_HFPEER_COMPLETE": "bash_complete", "_HFPEER_LINE": line}
    async with control(tmp_path, node):
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from hfpeer_cli.main import main; main()"),
            env={**unmeasured(), **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(command.communicate(), 30)
    assert (command.returncode, err) == (0, b"")
    assert out.decode().strip().partition(",")[2] == offered


async def test_a_client_that_leaves_ends_the_add(tmp_path: Path, node: MemoryNode) -> None:
    node.events, node.gate = STORY[:1], asyncio.Event()
    began = asyncio.Event()
    async with control(tmp_path, node) as door:
        client = door.client()
        adding = asyncio.ensure_future(client.add(REQUEST, lambda _event: began.set()))
        await asyncio.wait_for(began.wait(), 20.0)
        adding.cancel()
        await asyncio.wait_for(node.add_ended.wait(), 20.0)
        assert node.running_adds == 0


async def test_equal_adds_are_a_call_each_because_the_node_joins_them(tmp_path: Path, node: MemoryNode) -> None:
    node.gate = asyncio.Event()
    async with control(tmp_path, node) as door:
        first, second = (asyncio.ensure_future(door.client().add(REQUEST, lambda _event: None)) for _ in range(2))
        await eventually(lambda: node.running_adds == 2)
        first.cancel()
        await eventually(lambda: node.running_adds == 1)
        node.gate.set()
        assert (await asyncio.wait_for(second, 20.0)).commit == COMMIT


@pytest.mark.parametrize("is_blocking", [False, True], ids=["in an event loop", "without one"])
async def test_a_client_that_leaves_a_transfer_in_order_says_so(
    tmp_path: Path, node: MemoryNode, is_blocking: bool
) -> None:
    heard: list[Event] = []

    def leave(event: Event) -> None:
        heard.append(event)
        if isinstance(event, TransferJoined):
            raise KeyboardInterrupt

    node.events, node.gate = [TransferJoined(7, 3, "queued", is_new=True)], asyncio.Event()
    async with control(tmp_path, node) as door:
        client = ControlClient(door.path, is_blocking=is_blocking)

        def add() -> bool:
            try:
                adding = client.add(REQUEST, leave)
                run_blocking(adding) if is_blocking else asyncio.run(adding)
            except KeyboardInterrupt:
                return True
            return False

        assert await asyncio.to_thread(add)
        await asyncio.wait_for(node.add_ended.wait(), 20.0)
    assert node.calls[-1] == ("leave_transfer", {"id": 7, "follower": 3})
    assert heard[-1] == TransferLeft(7, "paused")


async def test_different_adds_run_at_the_same_time(tmp_path: Path, node: MemoryNode) -> None:
    node.gate = asyncio.Event()
    async with control(tmp_path, node) as door:
        client = door.client()
        adds = [client.add(AddRequest(REPO, token=token), lambda _event: None) for token in (None, "hf_other")]
        running = [asyncio.ensure_future(add) for add in adds]
        await eventually(lambda: node.running_adds == 2)
        node.gate.set()
        await asyncio.gather(*running)


async def test_the_end_of_the_daemon_ends_the_adds_of_its_clients(tmp_path: Path, node: MemoryNode) -> None:
    node.gate = asyncio.Event()
    async with control(tmp_path, node) as door:
        client = door.client()
        adding = asyncio.ensure_future(client.add(REQUEST, lambda _event: None))
        await eventually(lambda: node.running_adds == 1)
        await door.adds.stop()
        with pytest.raises(NotRunning, match="stopped") as caught:
            await asyncio.wait_for(adding, 20.0)
    assert "continues" in (caught.value.hint or "")


async def test_unread_progress_is_replaced_and_no_other_event_is_lost() -> None:
    watcher = AddFollower()
    newer = Progressed(2, 2, 0.5, {}, {}, (), 1, 1)
    for event in (STORY[0], PROGRESS, PROGRESS, newer, STORY[3], PROGRESS):
        watcher.put(event)
    watcher.end()
    assert [event async for event in watcher.events()] == [STORY[0], newer, STORY[3], PROGRESS]


# Who answers


async def test_without_a_daemon_the_client_says_how_to_start_one(tmp_path: Path) -> None:
    client = ControlClient(tmp_path / "control.sock")
    assert not await client.is_answering()
    with pytest.raises(NotRunning) as caught:
        await client.status()
    assert caught.value.hint == "hfpeer daemon start"


async def test_a_socket_left_by_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    (await asyncio.to_thread(listen_unix, path)).close()
    client = ControlClient(path)
    assert not await client.is_answering()


def test_a_silent_listener_is_no_daemon_for_a_blocking_client(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    client = ControlClient(path, is_blocking=True)
    assert not run_blocking(client.is_answering())
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        assert not run_blocking(client.is_answering())
        mute.listen()
        with pytest.raises(NotRunning, match="has not answered in time"):
            run_blocking(client._ask("GET", "/v1/hello", timeout_seconds=0.05))


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200", b"SSH-2.0-x\r\n", b"x" * 100_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100],
    ids=["nothing", "half a line", "another protocol", "no end of a line", "no end of headers"],
)
def test_a_listener_without_http_is_no_daemon_for_a_blocking_client(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()

        def say() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        saying = pool.submit(say)
        assert not run_blocking(ControlClient(path, is_blocking=True).is_answering())
        saying.exception()


def test_a_client_waits_while_the_queue_of_the_socket_is_full(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        asking = pool.submit(run_blocking, ControlClient(path, is_blocking=True).is_answering())
        time.sleep(0.1)
        assert not asking.done()
        listener.accept()[0].close()
        stack.enter_context(listener.accept()[0]).sendall(
            f"HTTP/1.1 200 OK\r\n{VERSION_HEADER}: {CONTROL_VERSION}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        assert asking.result(20.0)


async def test_a_daemon_of_another_version_is_not_used_but_can_be_stopped(tmp_path: Path, node: MemoryNode) -> None:
    async with control(tmp_path, node, version=CONTROL_VERSION + 1) as door:
        client = door.client()
        for attempt in (client.is_answering, client.list_peers):
            with pytest.raises(VersionMismatch) as caught:
                await attempt()
            assert caught.value.hint == "hfpeer daemon restart"
        await client.stop()
        assert door.stops == 1


async def test_a_command_of_another_version_is_refused_before_it_does_anything(
    tmp_path: Path, node: MemoryNode
) -> None:
    async with control(tmp_path, node) as door:
        for path in ("publish", "list_peers", "add"):
            answer = await door.raw("POST", f"/v1/{path}", json={}, headers={VERSION_HEADER: "99"})
            assert answer.json()["code"] == "version_mismatch"
    assert node.calls == []


async def test_the_status_can_be_got_by_hand(tmp_path: Path, node: MemoryNode) -> None:
    async with control(tmp_path, node) as door:
        assert (await door.raw("GET", "/v1/status")).json()["name"] == "memory"


async def test_web_pages_are_refused(tmp_path: Path, node: MemoryNode) -> None:
    async with control(tmp_path, node) as door:
        for name in ("Origin", "Referer"):
            answer = await door.raw("POST", "/v1/stop", headers={name: "http://evil"})
            assert answer.status_code == 403
        assert door.stops == 0


# Sessions


async def test_a_session_uses_the_daemon_if_one_answers(tmp_path: Path, node: MemoryNode) -> None:
    settings = await asyncio.to_thread(read_settings, {"HFPEER_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)})
    async with control(tmp_path, node), open_session(settings) as operations:
        assert (await operations.status()).name == "memory"


async def test_a_command_uses_the_daemon_if_one_answers(tmp_path: Path, node: MemoryNode) -> None:
    settings = await asyncio.to_thread(read_settings, {"HFPEER_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)})
    assert await asyncio.to_thread(find_daemon, settings) is None
    async with control(tmp_path, node):
        daemon = await asyncio.to_thread(find_daemon, settings)
        assert daemon is not None
        assert (await asyncio.to_thread(run_blocking, daemon.status())).name == "memory"
