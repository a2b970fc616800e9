"""Whose the daemon of a home is: a process here, another host's, a container's, or a service manager's."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.doors import eventually
from fakes.machine import Machines
from fakes.program import program
from hfpeer.config.paths import Places
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.client import ControlClient
from hfpeer.control.holder import DaemonLock, Holder, Service, find_holder, service_of
from hfpeer.control.process import find_daemon, require_daemon, restart_daemon, start_daemon, stop_daemon
from hfpeer.errors import DaemonError, Locked

FAKE = Path(__file__).parents[1] / "fakes" / "daemon.py"
COMMAND = (sys.executable, str(FAKE))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HFPEER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HFPEER_LAN_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("HFPEER_ENDPOINT_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("HFPEER_MDNS", "0")
    for name in ("NOTIFY_SOCKET", "INVOCATION_ID"):
        monkeypatch.delenv(name, raising=False)
    return read_settings(os.environ)


# Another host


@pytest.fixture
def elsewhere(settings: Settings) -> Iterator[Settings]:
    """The home of a daemon on the host gpu-3, whose process id is one of this host too."""
    pid_file = settings.places.pid_file
    pid_file.parent.mkdir(parents=True, mode=0o700)
    with pid_file.open("w") as file, program([sys.executable, "-c", "input()"], stdin=-1) as innocent:
        facts = {"host": "gpu-3", "is_in_place": False, "service": None}
        file.write(f"{innocent.pid}\n{json.dumps(facts)}\n{settings.places.control_socket}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield settings
        assert innocent.poll() is None, "a process of this host is left alone"


async def test_the_host_that_holds_a_home_is_named_at_once(elsewhere: Settings) -> None:
    began_at = time.monotonic()
    for work in (
        require_daemon(elsewhere),
        start_daemon(elsewhere, command=COMMAND),
        stop_daemon(elsewhere),
        restart_daemon(elsewhere, command=COMMAND),
    ):
        with pytest.raises(DaemonError) as caught:
            await work
        assert "on the host gpu-3" in caught.value.message and "cannot be reached" in caught.value.message
        assert "on gpu-3 (`hfpeer daemon stop`)" in (caught.value.hint or "")
        assert "None" not in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(Locked, match="on the host gpu-3") as locked:
        DaemonLock(elsewhere.places).acquire()
    assert locked.value.facts["pid"] is None
    assert time.monotonic() - began_at < 15


def test_the_file_of_an_older_version_names_no_host_and_nothing_false(settings: Settings) -> None:
    pid_file = settings.places.pid_file
    pid_file.parent.mkdir(parents=True, mode=0o700)
    for text in ("1\n/run/a.sock\n", "", "1", "x\n[]\n", '1\n{"host": 3}\n', "\x00\xff"):
        with pid_file.open("w") as file:
            file.write(text)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            found = find_holder(pid_file)
            assert found is not None and found.is_elsewhere and "None" not in str(found)
            assert "another machine" in str(found)


async def test_a_daemon_without_its_socket_is_named_and_restarted(settings: Settings) -> None:
    first = await start_daemon(settings, command=COMMAND)
    settings.places.control_socket.unlink()
    os.utime(settings.places.pid_file, (1, 1))
    assert await find_daemon(settings) is None
    with pytest.raises(DaemonError, match=f"process {first.pid}.*does not answer") as caught:
        await require_daemon(settings)
    assert "`hfpeer daemon restart`" in (caught.value.hint or "")
    with pytest.raises(DaemonError, match=f"process {first.pid}.*does not answer"):
        await start_daemon(settings, command=COMMAND)
    second = await restart_daemon(settings, command=COMMAND)
    assert second.pid != first.pid
    assert await stop_daemon(settings)


def why_no_namespaces() -> str | None:
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return "other namespaces need root and unshare"
    tried = subprocess.run([unshare, "-puf", "--mount-proc", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "no namespaces here"


NO_NAMESPACES = why_no_namespaces()


@pytest.mark.skipif(NO_NAMESPACES is not None, reason=NO_NAMESPACES or "")
def test_from_another_container_the_commands_name_the_host(tmp_path: Path) -> None:
    with Machines(tmp_path) as machines:
        machine = machines.make("pegasus")
        machine.start()
        Places(machine.home, machine.cache).control_socket.unlink()

        def inside(*words: str) -> Any:
            command = f"hostname elsewhere && exec {sys.executable} -c 'from hfpeer_cli.main import main; main()' $@"
            words = ("unshare", "-puf", "--mount-proc", "sh", "-c", command, "sh", "--json", *words)
            return machine.run(*words, timeout_seconds=30)

        for words in (("start",), ("stop",), ("restart",), ("status",)):
            ran = inside("daemon", *words)
            assert ran.code == DaemonError.exit_code, ran
            assert f"on the host {socket.gethostname()}" in ran.problem["message"]
        status = inside("status")
        assert status.document["holder"] == f"on the host {socket.gethostname()}"
        assert status.document["is_daemon"] is False
        assert machine.pid is not None, "the daemon goes on"


def test_where_no_volume_has_locks_a_home_still_has_one_daemon(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    assert find_holder(settings.places.pid_file) is None
    first = DaemonLock(settings.places)
    first.acquire()
    script = (
        "import fcntl, os, sys; from hfpeer.control import holder; from pathlib import Path\n"
        "def fail(*_): raise OSError(37, 'no locks')\n"
        "fcntl.flock = fail; print(holder.find_holder(Path(sys.argv[1])))"
    )
    pid_file = str(settings.places.pid_file)
    asked = subprocess.run([sys.executable, "-c", script, pid_file], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == f"process {os.getpid()}"
    first.release()
    asked = subprocess.run([sys.executable, "-c", script, pid_file], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "None"


# A service


@pytest.mark.parametrize(
    ("groups", "command"),
    [
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/hfpeerd.service\n",
            "systemctl --user stop hfpeerd",
        ),
        ("0::/system.slice/hfpeerd.service\n", "systemctl stop hfpeerd"),
        ("1:name=systemd:/system.slice/my-node.service\n0::/\n", "systemctl stop my-node"),
    ],
)
def test_the_unit_is_that_of_the_process(groups: str, command: str) -> None:
    for name in ("NOTIFY_SOCKET", "INVOCATION_ID"):
        service = service_of({name: "x"}, groups)
        assert service is not None and service.command("stop") == command
    assert service_of({}, groups) is None


async def test_a_service_reads_its_settings_anew_and_stays_with_its_manager(settings: Settings, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "INVOCATION_ID": "0" * 32}
        daemon = await asyncio.create_subprocess_exec(*COMMAND, env=environ, stderr=-1)
        assert b"READY=1" in await asyncio.to_thread(manager.recv, 1000)
        (settings.home / "settings.toml").write_text('name = "renamed"\n')
        status = await restart_daemon(settings, command=COMMAND)
        assert (status.pid, status.name) == (daemon.pid, "renamed")
        assert b"RELOADING=1" in await asyncio.to_thread(manager.recv, 1000)
        assert b"READY=1" in await asyncio.to_thread(manager.recv, 1000)
        with pytest.raises(DaemonError, match="service") as caught:
            await stop_daemon(settings)
        assert "systemctl" in (caught.value.hint or "") and "stop" in (caught.value.hint or "")
        assert (await ControlClient(settings.places.control_socket).status()).pid == daemon.pid
        daemon.send_signal(signal.SIGTERM)
        await daemon.communicate()
    assert await stop_daemon(settings) is False


async def test_a_daemon_of_a_container_stays_its_process(settings: Settings) -> None:
    daemon = await asyncio.create_subprocess_exec(*COMMAND, stderr=-1)
    await eventually(settings.places.control_socket.exists)
    assert (await restart_daemon(settings, command=COMMAND)).pid == daemon.pid
    assert await stop_daemon(settings) is True
    await daemon.communicate()
    assert daemon.returncode == 0


def test_a_detached_daemon_is_no_service_whatever_its_terminal_was_started_by(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    lock = DaemonLock(settings.places, is_detached=True)
    lock.acquire()
    assert find_holder(settings.places.pid_file) == Holder(os.getpid(), socket.gethostname())
    lock.release()
    lock = DaemonLock(settings.places, is_detached=False)
    lock.acquire()
    found = find_holder(settings.places.pid_file)
    assert found is not None and isinstance(found.service, Service) and found.is_in_place
    lock.release()
