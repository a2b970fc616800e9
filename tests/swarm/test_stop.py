"""A daemon ends within five seconds, whatever runs, and what a command began ends with the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fakes.hub import HubSimulator, faults
from fakes.machine import Machine, Machines
from fakes.waiting import wait_until
from hfpeer.cache.store import Store
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId

Put = Callable[..., str]
STOP_SECONDS = 5.0
HUGE_BYTES = 200 << 30
"""Of holes: it takes no room, and minutes to hash."""
COMMIT = Commit("c" * 40)
GONE_SECONDS = 10.0
"""So long after its command the daemon may go on with the work, which takes minutes, on a busy machine."""


@pytest.fixture
def machine(machines: Machines, tmp_path: Path) -> Iterator[Machine]:
    """A machine of the test's own, without a hub."""
    machine = machines.make(f"stops-{tmp_path.name[-8:]}")
    yield machine
    machine.close()


def put_huge(machine: Machine, name: str) -> Path:
    """What another tool would leave of a repo with one huge file; the blob. The daemon may not run yet."""
    digest = Digest("sha256", name.encode().hex().ljust(64, "0")[:64])
    repo = RepoId.parse(f"acme/{name}")
    folder = machine.cache / repo.folder
    blob = folder / "blobs" / digest.hex
    place = folder / "snapshots" / COMMIT / "w.bin"
    for path in (blob, place):
        path.parent.mkdir(parents=True)
    blob.touch()
    os.truncate(blob, HUGE_BYTES)
    place.symlink_to(f"../../blobs/{digest.hex}")
    machine.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(machine.cache, machine.home)
    store.save_manifest(
        Manifest(repo, COMMIT, (ManifestFile(FilePath("w.bin"), HUGE_BYTES, digest, pointer_id="b" * 40),))
    )
    store.set_share(repo, True)
    store.close()
    return blob


def make_folder(place: Path) -> Path:
    """A folder to publish that takes long to read; its file."""
    place.mkdir()
    file = place / "huge.bin"
    file.touch()
    os.truncate(file, HUGE_BYTES)
    return file


def times_open(machine: Machine, file: Path) -> int:
    """How often the daemon has the file open."""
    found = 0
    for link in Path(f"/proc/{machine.pid}/fd").iterdir():
        try:
            found += link.samefile(file)
        except OSError:
            continue
    return found


def wait_until_it_reads(machine: Machine, file: Path, times: int = 1) -> None:
    wait_until(lambda: times_open(machine, file) >= times, f"the daemon reads {file}")


@contextmanager
def verifying(machine: Machine, folder: Path, name: str) -> Iterator[None]:
    """The daemon verifies what another tool put there."""
    blob = put_huge(machine, name)
    machine.start()
    wait_until_it_reads(machine, blob)
    yield


@contextmanager
def adding(machine: Machine, folder: Path, name: str) -> Iterator[None]:
    """An add checks what another tool put there."""
    blob = put_huge(machine, name)
    machine.start()
    command = machine.begin_hfpeer("model", "add", "-r", f"acme/{name}", "-v", COMMIT, "--local-only")
    wait_until_it_reads(machine, blob, 2)
    yield
    ran = machine.finish(command)
    assert (ran.code, ran.problem["code"]) == (9, "not_running"), ran


@contextmanager
def reading(machine: Machine, folder: Path, name: str) -> Iterator[None]:
    """A tool reads at the endpoint what another tool put there."""
    blob = put_huge(machine, name)
    machine.start()
    endpoint = machine.status().listeners["endpoint"]
    url = f"http://{endpoint}/acme/{name}/resolve/{COMMIT}/w.bin"
    command = machine.begin("curl", "-sS", "--limit-rate", "1M", "-o", "/dev/null", url)
    wait_until_it_reads(machine, blob, 3)
    yield
    machine.finish(command)


@contextmanager
def publishing(machine: Machine, folder: Path, name: str) -> Iterator[None]:
    """A folder is read, to be published."""
    file = make_folder(folder / name)
    machine.start()
    command = machine.begin_hfpeer("model", "publish", str(file.parent), "--as", f"acme/{name}")
    wait_until_it_reads(machine, file)
    yield
    ran = machine.finish(command)
    assert (ran.code, ran.problem["code"]) == (9, "not_running"), ran


WORKS = (verifying, adding, reading, publishing)


def assert_ends(machine: Machine, end: Callable[[], None]) -> float:
    """Ends the daemon, which takes no longer than it may and leaves nothing; how many seconds."""
    pid = machine.pid
    began_at = time.monotonic()
    end()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the daemon is gone")
    seconds = time.monotonic() - began_at
    assert seconds < 2 * STOP_SECONDS, "on a busy machine it may take longer; one that waits for the work takes minutes"
    assert not (machine.home / "control.sock").exists()
    said = machine.log + (machine.home / "logs" / "startup.log").read_text()
    for words in (
        "Traceback",
        "without waiting for these threads",
        "was destroyed",
        "never retrieved",
        "never awaited",
    ):
        assert words not in said
    return seconds


def is_zombie(pid: int | None) -> bool:
    return re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_daemon_stops_within_five_seconds(machine: Machine, tmp_path: Path, work: Callable[..., object]) -> None:
    with work(machine, tmp_path, "huge"):  # type: ignore[attr-defined]
        print(f"{work.__name__}: {assert_ends(machine, machine.stop):.1f} s")
    assert "Stopping" in machine.log


def test_a_daemon_ends_at_sigterm_whatever_runs_at_once(machine: Machine, tmp_path: Path) -> None:
    def terminate() -> None:
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGTERM)

    files = [make_folder(tmp_path / name) for name in ("one", "two")]
    with adding(machine, tmp_path, "huge"):
        commands = [
            machine.begin_hfpeer("model", "publish", str(file.parent), "--as", f"acme/{file.parent.name}")
            for file in files
        ]
        for file in files:
            wait_until_it_reads(machine, file)
        print(f"all at once: {assert_ends(machine, terminate):.1f} s")
    for command in commands:
        assert machine.finish(command).code == 9


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_publish_ends_with_its_command(machine: Machine, tmp_path: Path, number: signal.Signals) -> None:
    machine.start()
    file = make_folder(tmp_path / "folder")
    command = machine.begin_hfpeer("model", "publish", str(file.parent), "--as", "acme/left")
    wait_until_it_reads(machine, file)
    os.kill(command.pid, number)
    wait_until(lambda: not times_open(machine, file), "the daemon leaves the folder alone", GONE_SECONDS)
    machine.finish(command)
    assert "Traceback" not in machine.log


def test_an_add_that_checks_ends_with_its_command(machine: Machine) -> None:
    blob = put_huge(machine, "huge")
    machine.start()
    command = machine.begin_hfpeer("model", "add", "-r", "acme/huge", "-v", COMMIT, "--local-only")
    wait_until_it_reads(machine, blob, 2)
    os.kill(command.pid, signal.SIGKILL)
    wait_until(lambda: times_open(machine, blob) == 1, "only the daemon's own check goes on", GONE_SECONDS)
    machine.finish(command)


def test_ctrl_c_ends_a_publish_without_a_daemon(machine: Machine, tmp_path: Path) -> None:
    file = make_folder(tmp_path / "folder")
    command = machine.begin_hfpeer("model", "publish", str(file.parent), "--as", "acme/alone")
    wait_until(lambda: reads(command, file), "the command reads the folder")
    began_at = time.monotonic()
    os.kill(command.pid, signal.SIGINT)
    ran = machine.finish(command)
    assert ran.code == 130
    assert "Traceback" not in ran.err
    assert time.monotonic() - began_at < GONE_SECONDS


def reads(command: subprocess.Popen[str], file: Path) -> bool:
    for link in Path(f"/proc/{command.pid}/fd").iterdir():
        try:
            if link.samefile(file):
                return True
        except OSError:
            continue
    return False


def test_a_mirror_that_answers_nothing_does_not_hold_a_daemon(machines: Machines, hub: HubSimulator) -> None:
    machine = machines.make("waits", upstreams=f"origin={hub.endpoint}")
    machine.start()
    hub.wait_until_quiet()
    hub.clear()
    fault = hub.inject(faults.delay(), listener="hub")
    try:
        command = machine.begin_hfpeer("model", "add", "-r", "acme/nowhere")
        hub.wait_for_request("*acme/nowhere*")
        assert_ends(machine, machine.stop)
        assert machine.finish(command).code == 9
    finally:
        fault.remove()


def test_those_who_are_connected_do_not_hold_a_daemon(machines: Machines, hub: HubSimulator, put: Put) -> None:
    """Readers that read nothing, at each door, requests without an end, and an add that waits for its hub."""
    commit = put("acme/held", 64 << 20)
    machine = machines.make("held", upstreams=f"origin={hub.endpoint}")
    machine.start()
    machine.do("model", "add", "-r", "acme/held")
    listeners = machine.status().listeners
    digest = next(name for name, size in machine.blobs().items() if size == 64 << 20)
    put("acme/slow", 64 << 20)
    questions = {
        "lan": [
            f"GET /blobs/sha256:{digest} HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /catalog HTTP/1.1\r\nHost: x\r\n",
        ],
        "endpoint": [
            f"GET /acme/held/resolve/{commit}/model.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /acme/slow/resolve/main/model.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "POST /acme/held/info/lfs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{",
        ],
        "control": [
            "POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{",
            "GET /v1/status HTTP/1.1\r\n",
        ],
    }
    fault = hub.inject(faults.stall_after(1 << 20), listener="cdn")
    try:
        with ExitStack() as held:
            for door, texts in questions.items():
                for text in texts:
                    held.enter_context(connection_to(listeners[door])).sendall(text.encode())
            command = machine.begin_hfpeer("model", "add", "-r", "acme/slow")
            hub.wait_for_body_bytes(1 << 20, "/repos/*")
            print(f"held: {assert_ends(machine, machine.stop):.1f} s")
        assert machine.finish(command).code == 9
    finally:
        fault.remove()


def connection_to(address: str) -> socket.socket:
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.7])
def test_a_signal_during_the_start_leaves_nothing(machine: Machine, seconds: float) -> None:
    daemon = machine.begin(sys.executable, "-m", "hfpeer_daemon.server", "--foreground")
    time.sleep(seconds)  # no event but the moment itself
    os.kill(daemon.pid, signal.SIGTERM)
    ran = machine.finish(daemon)
    assert ran.code in (0, -signal.SIGTERM)
    assert "Traceback" not in ran.err
    assert machine.start()["pid"] != daemon.pid


def test_two_starts_at_once_find_one_daemon(machine: Machine) -> None:
    starts = [machine.begin_hfpeer("daemon", "start") for _ in range(3)]
    started = [machine.finish(start) for start in starts]
    assert [ran.code for ran in started] == [0, 0, 0], started
    assert len({ran.document["pid"] for ran in started}) == 1


def test_restarts_under_load_leave_one_daemon(machine: Machine, tmp_path: Path) -> None:
    file = make_folder(tmp_path / "folder")
    machine.start()
    command = machine.begin_hfpeer("model", "publish", str(file.parent), "--as", "acme/load")
    wait_until_it_reads(machine, file)
    restarts = [machine.begin_hfpeer("daemon", "restart") for _ in range(2)]
    for ran in [machine.finish(restart) for restart in restarts]:
        assert ran.code == 0, ran
    assert machine.finish(command).code == 9
    assert machine.do("status")["pid"] == machine.pid
    assert "Traceback" not in machine.log
