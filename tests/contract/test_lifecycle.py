"""The daemon as a process: started, found, stopped, killed, and told apart from its remains."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.doors import eventually
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.client import ControlClient
from hfpeer.control.holder import DaemonLock, find_holder, is_locked
from hfpeer.control.process import find_daemon, restart_daemon, start_daemon, stop_daemon
from hfpeer.errors import AddressInUse, BrokenCache, DaemonError, InvalidName, Locked, NotRunning
from hfpeer_daemon.notify import Notifier

FAKE = Path(__file__).parents[1] / "fakes" / "daemon.py"
COMMAND = (sys.executable, str(FAKE))


def holder_pid(pid_file: Path) -> int | None:
    holder = find_holder(pid_file)
    return None if holder is None else holder.pid


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


async def test_a_daemon_starts_is_found_and_stops_without_a_trace(settings: Settings) -> None:
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


async def test_a_killed_daemon_does_not_prevent_the_next_start(settings: Settings) -> None:
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


async def test_a_port_in_use_is_reported_with_its_owner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HFPEER_LAN_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(AddressInUse, match=f"process {os.getpid()}"):
            await start_daemon(settings, command=COMMAND)
    assert not is_locked(settings.places.pid_file)


async def test_a_start_raises_the_error_of_the_daemon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_a_start_does_not_wait_for_ever_for_the_process_that_forks_it(settings: Settings) -> None:
    with pytest.raises(DaemonError, match=r"within 0\.3 s"):
        await start_daemon(settings, 0.3, [sys.executable, "-c", "import time; time.sleep(30)"])


async def test_a_daemon_that_does_not_answer_is_ended_by_its_pid(settings: Settings) -> None:
    await start_daemon(settings, command=COMMAND)
    settings.places.control_socket.unlink()
    assert await stop_daemon(settings)


async def test_a_daemon_with_a_thread_that_does_not_end_stops(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DAEMON", "hung")
    await start_daemon(settings, command=COMMAND)
    began_at = time.monotonic()
    assert await stop_daemon(settings)
    assert time.monotonic() - began_at < 20
    assert "without waiting for these threads" in settings.places.log_file.read_text()
    assert not settings.places.control_socket.exists()


@pytest.mark.slow
async def test_a_daemon_that_ignores_signals_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DAEMON", "deaf")
    await start_daemon(settings, command=COMMAND)
    asking = asyncio.ensure_future(ControlClient(settings.places.control_socket).list_peers())
    await eventually((settings.places.home / "deaf").exists)
    began_at = time.monotonic()
    assert await stop_daemon(settings)
    assert time.monotonic() - began_at < 20
    assert await find_daemon(settings) is None
    await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(asking.exception(), NotRunning)


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
    deep = replace(settings, home=home)
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


async def test_a_second_daemon_in_the_foreground_names_the_first(settings: Settings) -> None:
    first = await start_daemon(settings, command=COMMAND)
    second = await asyncio.create_subprocess_exec(*COMMAND, stderr=-1)
    _out, log = await second.communicate()
    assert second.returncode == Locked.exit_code
    assert str(first.pid).encode() in log


def test_without_a_service_manager_nothing_is_sent() -> None:
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).stopping()
