"""`http.response.zerocopysend` over real connections: what uvicorn's internals must keep doing for us."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fakes.doors import OpenDoor, eventually, open_door, wire
from hfpeer.budgets import MAX_HEAD_BYTES
from hfpeer_daemon.http.responses import App, Receive, Scope, Send
from hfpeer_daemon.http.zero_copy import EXTENSION, SendBroken, Times

CONTENT = os.urandom(3 * 1024 * 1024 + 17)
Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs a scenario on each of the loops."""
    if request.param == "asyncio":
        return asyncio.run
    return pytest.importorskip("uvloop").run  # type: ignore[no-any-return]


class FileApp:
    """Sends slices of one file, as messages say, behind a head that announces `length` bytes."""

    def __init__(self, path: Path, *slices: tuple[int, int], length: int | None = None) -> None:
        self._path = path
        self._slices = slices or ((0, path.stat().st_size),)
        self._length = sum(count for _, count in self._slices) if length is None else length
        self.broken: list[SendBroken] = []
        self.failures: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert EXTENSION in scope["extensions"]
        file = await asyncio.to_thread(self._path.open, "rb")
        try:
            headers = [(b"content-length", str(self._length).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for index, (offset, count) in enumerate(self._slices, 1):
                more_body = index < len(self._slices)
                await send({"type": EXTENSION, "file": file, "offset": offset, "count": count, "more_body": more_body})
        except SendBroken as error:
            self.broken.append(error)
        except RuntimeError as error:
            self.failures.append(error)
            raise
        finally:
            file.close()


@asynccontextmanager
async def door_to(app: App, **settings: Any) -> AsyncIterator[OpenDoor]:
    async with open_door(lambda _threads: app, **settings) as door:
        yield door


def test_a_file_arrives_whole_and_the_connection_can_be_used_again(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            for _ in range(3):
                answer = await connection.ask("/")
                assert answer.body == CONTENT

    run(scenario())


def test_several_messages_make_one_body_in_their_order(file: Path, run: Runner) -> None:
    slices = ((2_000_000, 500), (0, 1), (17, 1_000_000), (5, 0), (len(CONTENT) - 3, 3))

    async def scenario() -> None:
        async with door_to(FileApp(file, *slices)) as door, wire(door.address) as connection:
            answer = await connection.ask("/")
            assert answer.body == b"".join(CONTENT[offset : offset + count] for offset, count in slices)

    run(scenario())


def test_head_sends_no_body_and_the_next_answer_is_understood(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            answer = await connection.ask("/", method="HEAD")
            assert answer.headers["content-length"] == str(len(CONTENT))
            assert (await connection.ask("/")).body == CONTENT

    run(scenario())


def test_without_offset_and_count_the_rest_of_the_file_is_sent(file: Path, run: Runner) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with file.open("rb") as opened:
            opened.seek(len(CONTENT) - 10)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": EXTENSION, "file": opened.fileno()})

    async def scenario() -> None:
        async with door_to(app) as door, wire(door.address) as connection:
            assert (await connection.ask("/")).body == CONTENT[-10:]

    run(scenario())


def test_pipelined_requests_are_answered_one_after_the_other(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            for _ in range(3):
                await connection.say("/")
            for _ in range(3):
                assert (await connection.answer()).body == CONTENT

    run(scenario())


def test_more_than_was_announced_is_never_sent(file: Path, run: Runner) -> None:
    app = FileApp(file, (0, 100), length=99)

    async def scenario() -> None:
        async with door_to(app) as door, wire(door.address) as connection:
            await connection.say("/")
            assert (await connection.head()).headers["content-length"] == "99"
            assert await connection.rest() == b""

    run(scenario())
    assert app.failures


def test_a_file_that_ends_early_breaks_the_connection_instead_of_completing_it(file: Path, run: Runner) -> None:
    app = FileApp(file, (0, len(CONTENT) + 1))

    async def scenario() -> None:
        async with door_to(app) as door, wire(door.address) as connection:
            await connection.say("/")
            await connection.head()
            body = await connection.rest()
            assert len(body) <= len(CONTENT)
            assert CONTENT.startswith(body)

    run(scenario())
    assert app.broken[0].sent_bytes == len(CONTENT)


CLIENT_THAT_READS_A_LITTLE = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
sock.recv(1000)
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_client_killed_in_the_middle_frees_its_thread(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 * 1024 * 1024))
    app = FileApp(path)

    async def scenario() -> None:
        async with door_to(app, threads=2) as door:
            clients = [
                await asyncio.create_subprocess_exec(
                    sys.executable, "-c", CLIENT_THAT_READS_A_LITTLE, str(door.address.port), stdin=-1, stdout=-1
                )
                for _ in range(2)
            ]
            for client in clients:
                assert client.stdout is not None
                await client.stdout.readline()
            for client in clients:
                client.send_signal(signal.SIGKILL)
                await client.wait()
            await eventually(lambda: len(app.broken) == 2)
            assert await door.threads_are_free()

    run(scenario())
    assert all(0 < error.sent_bytes < 64 * 1024 * 1024 for error in app.broken)


def test_a_client_that_takes_nothing_loses_its_connection(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 * 1024 * 1024))
    app = FileApp(path)

    async def scenario() -> None:
        async with door_to(app, times=Times(stall_seconds=0.2)) as door:
            with socket.create_connection((door.address.host, door.address.port)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await eventually(lambda: bool(app.broken))
                assert await door.threads_are_free()

    run(scenario())


def test_the_end_of_the_daemon_cuts_an_upload_after_its_grace(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 * 1024 * 1024))
    app = FileApp(path)

    async def scenario() -> None:
        async with door_to(app, grace_seconds=0) as door:
            with socket.create_connection((door.address.host, door.address.port)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await asyncio.to_thread(sock.recv, 1000)
                door.close()
                await eventually(lambda: bool(app.broken))

    run(scenario())
    assert "cut off" in str(app.broken[0])


def test_garbage_sent_during_a_body_does_not_get_into_it(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            await connection.say("/")
            await connection.head()
            connection.writer.write(b"\x00\x01 this is no HTTP \r\n\r\n" * 100)
            await connection.writer.drain()
            assert await connection.reader.readexactly(len(CONTENT)) == CONTENT

    run(scenario())


def test_a_head_without_end_is_refused(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            connection.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * MAX_HEAD_BYTES)
            assert (await connection.head()).status == 431
            assert await connection.rest() == b""

    run(scenario())


def test_a_head_that_never_comes_costs_no_connection(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        opened = door_to(FileApp(file), times=Times(0.1, 0.1))
        async with opened as door, wire(door.address) as silent, wire(door.address) as slow:
            slow.writer.write(b"GET / HTTP/1.1\r\nHost:")
            assert await silent.rest() == b""
            assert await slow.rest() == b""

    run(scenario())


def test_a_pipelined_head_has_time_until_the_answer_before_it_is_out(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 * 1024 * 1024))

    async def scenario() -> None:
        async with door_to(FileApp(path), times=Times(0.1, 0.1)) as door, wire(door.address) as connection:
            connection.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n")
            await connection.head()
            await asyncio.sleep(0.4)
            connection.writer.write(b"Host: x\r\n\r\n")
            assert len(await connection.reader.readexactly(64 * 1024 * 1024)) == 64 * 1024 * 1024
            assert (await connection.head()).status == 200

    run(scenario())


def test_a_kept_connection_may_be_idle_longer_than_a_head_may_take(file: Path, run: Runner) -> None:
    async def scenario() -> None:
        async with door_to(FileApp(file), times=Times(0.1, 0.1)) as door, wire(door.address) as connection:
            await connection.ask("/")
            await asyncio.sleep(0.3)
            assert (await connection.ask("/")).body == CONTENT

    run(scenario())


def test_a_file_system_without_sendfile_is_read_instead(
    file: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "no sendfile here")

    monkeypatch.setattr(os, "sendfile", refuse)

    async def scenario() -> None:
        async with door_to(FileApp(file)) as door, wire(door.address) as connection:
            assert (await connection.ask("/")).body == CONTENT

    run(scenario())


def test_the_installed_uvicorn_is_in_the_range_that_was_tried() -> None:
    major, minor = (int(part) for part in uvicorn.__version__.split(".")[:2])
    assert (0, 34) <= (major, minor) < (0, 60)
