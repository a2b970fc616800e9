"""The daemon as a process: started, found, stopped, killed, and told apart from its remains."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.doors import eventually
from hfpeer.control import ControlClient
from hfpeer.errors import AddressInUse, BrokenCache, DaemonError, InvalidName, Locked
from hfpeer.lifecycle import (
    DaemonLock,
    find_daemon,
    holder_pid,
    is_locked,
    restart_daemon,
    start_daemon,
    stop_daemon,
)
from hfpeer.settings import Settings, read_settings
from hfpeer_daemon.notify import Notifier

FAKE = Path(__file__).parents[1] / "fakes" / "daemon.py"
COMMAND = (sys.executable, str(FAKE))


@pytest_asyncio.fixture
async def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    """Settings of a home of its own; whatever daemon a test leaves there is ended."""
    monkeypatch.setenv("HFPEER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HFPEER_LAN_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("HFPEER_ENDPOINT_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("HFPEER_MDNS", "0")
    read = read_settings(os.environ)
    yield read
    pid = holder_pid(read.places.pid_file)
    if pid is not None and pid != os.getpid():
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not is_locked(read.places.pid_file))


async def test_a_daemon_starts_is_found_and_stops_without_remains(settings: Settings) -> None:
    started = await start_daemon(settings, command=COMMAND)
    assert started.pid == holder_pid(settings.places.pid_file)
    assert started.pid != os.getpid()
    assert os.getsid(started.pid) != os.getsid(0)
    assert set(started.listeners) == {"lan", "endpoint", "control"}
    assert await find_daemon(settings) == started
    assert "Ready" in settings.places.log_file.read_text()
    assert await stop_daemon(settings)
    assert await find_daemon(settings) is None
    assert not settings.places.control_socket.exists()
    assert "Stopping" in settings.places.log_file.read_text()
    assert not await stop_daemon(settings)


async def test_a_second_start_finds_the_first(settings: Settings) -> None:
    first = await start_daemon(settings, command=COMMAND)
    assert (await start_daemon(settings, command=COMMAND)).pid == first.pid


async def test_a_killed_daemon_leaves_nothing_that_stops_the_next(settings: Settings) -> None:
    first = await start_daemon(settings, command=COMMAND)
    os.kill(first.pid, signal.SIGKILL)
    await eventually(lambda: not is_locked(settings.places.pid_file))
    assert settings.places.control_socket.exists()
    assert await find_daemon(settings) is None
    assert not await stop_daemon(settings)
    second = await start_daemon(settings, command=COMMAND)
    assert second.pid != first.pid


async def test_a_restart_makes_a_new_process_with_fresh_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await restart_daemon(settings, command=COMMAND)
    monkeypatch.setenv("HFPEER_NAME", "renamed")
    second = await restart_daemon(settings, command=COMMAND)
    assert second.pid != first.pid
    assert second.name == "renamed"


async def test_a_taken_port_is_told_with_its_taker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HFPEER_LAN_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(AddressInUse, match=f"process {os.getpid()}"):
            await start_daemon(settings, command=COMMAND)
    assert not is_locked(settings.places.pid_file)


async def test_why_a_daemon_did_not_start_is_told_as_it_was_raised(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DAEMON", "problem")
    with pytest.raises(BrokenCache, match="a mess") as caught:
        await start_daemon(settings, command=COMMAND)
    assert (caught.value.hint, caught.value.facts) == ("Tidy up.", {"cache": "/c"})
    assert "a mess" in settings.places.log_file.read_text()
    monkeypatch.setenv("HFPEER_LOG_LEVEL", "loud")
    with pytest.raises(InvalidName, match="loud"):
        await start_daemon(settings, command=COMMAND)


async def test_a_daemon_that_crashes_at_its_start_shows_the_end_of_its_output(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DAEMON", "crash")
    with pytest.raises(DaemonError, match="crashed on purpose"):
        await start_daemon(settings, command=COMMAND)


async def test_a_start_does_not_wait_for_ever(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DAEMON", "stuck")
    with pytest.raises(DaemonError, match="within 1 s"):
        await start_daemon(settings, 1.0, COMMAND)


async def test_nor_when_not_even_the_process_that_starts_it_gets_on(settings: Settings) -> None:
    with pytest.raises(DaemonError, match=r"within 0\.3 s"):
        await start_daemon(settings, 0.3, [sys.executable, "-c", "import time; time.sleep(30)"])


async def test_a_daemon_that_does_not_answer_is_ended_by_its_pid(settings: Settings) -> None:
    await start_daemon(settings, command=COMMAND)
    settings.places.control_socket.unlink()
    assert await stop_daemon(settings)


async def test_a_stale_pid_is_never_killed(settings: Settings) -> None:
    pid_file = settings.places.pid_file
    pid_file.parent.mkdir(parents=True)
    innocent = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    pid_file.write_text(f"{innocent.pid}\n")
    assert not await stop_daemon(settings)
    lock = DaemonLock(settings.places)
    lock.acquire()
    pid_file.write_text(f"{innocent.pid}\n")
    assert holder_pid(pid_file) is None
    lock.release()
    await innocent.communicate(b"\n")
    assert innocent.returncode == 0


def test_a_home_has_one_daemon(settings: Settings) -> None:
    first, second = DaemonLock(settings.places), DaemonLock(settings.places)
    first.acquire()
    with pytest.raises(Locked, match=str(os.getpid())):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


async def test_a_home_with_a_very_long_path_works(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.places.home / ("long" * 30)
    deep = replace(settings, places=replace(settings.places, home=home))
    started = await start_daemon(deep, command=COMMAND)
    assert started.listeners["control"] == str(deep.places.control_socket)
    assert await stop_daemon(deep)


async def test_the_foreground_logs_to_stderr_and_tells_the_service_manager(settings: Settings, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        daemon = await asyncio.create_subprocess_exec(*COMMAND, env=environ, stderr=-1)
        assert b"READY=1" in await asyncio.to_thread(manager.recv, 1000)
        daemon.send_signal(signal.SIGHUP)
        assert b"RELOADING=1\nMONOTONIC_USEC=" in await asyncio.to_thread(manager.recv, 1000)
        assert b"READY=1" in await asyncio.to_thread(manager.recv, 1000)
        client = ControlClient(settings.places.control_socket)
        assert (await client.status()).pid == daemon.pid
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(manager.recv, 1000) == b"STOPPING=1"
        _out, log = await daemon.communicate()
    assert daemon.returncode == 0
    assert b"Ready" in log
    assert not settings.places.log_file.exists()


async def test_a_second_daemon_in_the_foreground_says_who_is_there(settings: Settings) -> None:
    first = await start_daemon(settings, command=COMMAND)
    second = await asyncio.create_subprocess_exec(*COMMAND, stderr=-1)
    _out, log = await second.communicate()
    assert second.returncode == Locked.exit_code
    assert str(first.pid).encode() in log


def test_without_a_service_manager_nothing_is_told() -> None:
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).stopping()
