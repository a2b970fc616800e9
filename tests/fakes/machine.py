"""A machine of the LAN: a home, a cache and an environment of its own, driven through the real `hfpeer` command.

    with Machines(tmp_path) as machines:
        first = machines.make("first", upstreams=f"origin={hub.endpoint}")
        first.start()
        second = machines.make("second", peers=[first.address])
        snapshot = first.do("model", "add", "-r", "acme/tiny")["snapshot"]
        first.kill()

Every command is a process of its own, as a user's is. Whatever still runs when the block ends is ended, by its id,
even if it ends because the test run was killed. Nothing of the user's own settings, token or cache is seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.network.host import Host
from fakes.network.program import kill_session
from fakes.waiting import wait_until
from hfpeer.config.paths import Places
from hfpeer.control.client import ControlClient
from hfpeer.control.results import NodeStatus, PeerStatus
from hfpeer.errors import NotFound, from_problem

HFPEER = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
COMMAND_SECONDS = 90.0
STOP_SECONDS = 30.0
UNDERTAKER = """
cat >/dev/null
for file in "$0"/*/home/daemon.pid; do
  read -r pid <"$file" && tr '\\0' '\\n' <"/proc/$pid/environ" | grep -qxF "HFPEER_HOME=${file%/*}" && kill -9 "$pid"
done 2>/dev/null
"""
"""Waits until its parent is gone, then kills the daemons of the homes below a folder, and no other process."""
OWN_VARIABLES = ("HFPEER_", "HF_", "HUGGING", "TRANSFORMERS_", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables of the developer that a machine does not inherit. With the last one, every command would
compile all modules again."""


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of one command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """The error, as `--json` tells it: the last line of stderr."""
        return json.loads(self.err.splitlines()[-1])


class Machine:
    """One machine. `environ` is what its commands see, and may be changed between them."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str], host: Host | None = None) -> None:
        self.name = name
        self.home = folder / "home"
        self.cache = folder / "hf" / "hub"
        self._host = host
        self._processes: list[subprocess.Popen[str]] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        self.environ = {
            **inherited,
            "HFPEER_HOME": str(self.home),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HFPEER_NAME": name,
            **environ,
        }

    # Commands

    def begin(self, *argv: str | Path, **environ: str) -> subprocess.Popen[str]:
        """Starts any program on this machine; its output is to be read by `finish`."""
        options: dict[str, Any] = {
            "env": {**self.environ, **environ},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        if self._host is None:
            process = subprocess.Popen(list(map(str, argv)), start_new_session=True, **options)
        else:
            process = self._host.popen(argv, **options)
        self._processes.append(process)
        return process

    def begin_hfpeer(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Starts `hfpeer --json WORDS`."""
        return self.begin(*HFPEER, "--json", *words, **environ)

    def run(self, *argv: str | Path, timeout_seconds: float = COMMAND_SECONDS, **environ: str) -> Ran:
        """Runs any program on this machine to its end."""
        return self.finish(self.begin(*argv, **environ), timeout_seconds)

    def hfpeer(self, *words: str, timeout_seconds: float = COMMAND_SECONDS, **environ: str) -> Ran:
        """Runs `hfpeer --json WORDS` to its end, whatever it is."""
        return self.finish(self.begin_hfpeer(*words, **environ), timeout_seconds)

    def do(self, *words: str, **environ: str) -> Any:
        """Runs `hfpeer --json WORDS` and gives its result. Raises the error it ended with."""
        ran = self.hfpeer(*words, timeout_seconds=COMMAND_SECONDS, **environ)
        if ran.code:
            raise from_problem(ran.problem)
        return json.loads(ran.out) if ran.out.strip() else None

    def found(self, *words: str, **environ: str) -> list[Any]:
        """The result of `ls` or `search`; empty if what it names is not there (exit code 4). Raises other errors."""
        try:
            return list(self.do(*words, **environ))
        except NotFound:
            return []

    def python(self, script: str, *arguments: str, **environ: str) -> Any:
        """Runs a Python script that prints JSON, and gives that. Raises AssertionError with its stderr."""
        ran = self.run(sys.executable, "-c", script, *arguments, timeout_seconds=COMMAND_SECONDS, **environ)
        assert ran.code == 0, ran.err
        return ran.document

    def finish(self, process: subprocess.Popen[str], timeout_seconds: float = COMMAND_SECONDS) -> Ran:
        """Waits for a program that `begin` started. Kills it and raises TimeoutExpired when it takes too long."""
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except BaseException:
            kill_session(process)
            raise
        return Ran(process.returncode, out, err)

    # The daemon

    @property
    def pid(self) -> int | None:
        """The process of its daemon, as its home tells; None when none runs."""
        try:
            pid = int((self.home / "daemon.pid").read_text().split("\n")[0])
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"HFPEER_HOME={self.home}".encode() in variables else None

    @property
    def address(self) -> str:
        """`HOST:PORT` of the LAN door. The daemon must run."""
        return self.status().listeners["lan"]

    def start(self) -> Any:
        """Starts the daemon; its status."""
        return self.do("daemon", "start")

    def start_changed(self, change: str) -> None:
        """Starts the daemon in a process that first runs `change`, Python code: the product has no switch for it."""
        code = f"{change}\nfrom hfpeer_daemon.server import main\nraise SystemExit(main())"
        process = self.begin(sys.executable, "-c", code, PYTHONPATH=str(Path(__file__).parents[1]))
        control_socket = Places(self.home, self.cache).control_socket
        wait_until(lambda: control_socket.exists() or process.poll() is not None, f"{self.name}'s daemon listens")
        assert process.poll() is None, self.finish(process)

    def stop(self) -> None:
        self.do("daemon", "stop")

    def kill(self) -> None:
        """Kills the daemon with SIGKILL and waits until it is gone."""
        pid = self.pid
        assert pid is not None, f"no daemon of {self.name} runs"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.pid is None, f"{self.name}'s daemon is gone")

    @property
    def log(self) -> str:
        """The daemon's log."""
        path = self.home / "logs" / "hfpeerd.log"
        return path.read_text() if path.exists() else ""

    # What it knows and has: its daemon is asked over the control socket, without the time that a command takes to start

    def status(self) -> NodeStatus:
        return asyncio.run(self._daemon().status())

    def peers(self) -> list[PeerStatus]:
        return asyncio.run(self._daemon().list_peers())

    def knows(self, other: Machine, state: str = "alive") -> bool:
        """Whether it lists the other as a peer in that state."""
        return any(peer.name == other.name and peer.state == state for peer in self.peers())

    def wait_until_it_knows(self, other: Machine, state: str = "alive", seconds: float = 30.0) -> None:
        wait_until(lambda: self.knows(other, state), f"{self.name} finds {other.name} {state}", seconds)

    def received_bytes(self) -> dict[str, int]:
        """Bytes by kind of source, without those that gave none."""
        return {kind: size for kind, size in self.status().received_bytes.items() if size}

    def blobs(self) -> dict[str, int]:
        """Sizes of the visible blobs by their names. A file may vanish meanwhile."""
        sizes = {}
        for path in self.cache.glob("*s--*/blobs/*"):
            with suppress(FileNotFoundError):
                sizes[path.name] = path.stat().st_size
        return sizes

    def present_bytes(self) -> int:
        """Bytes on its disk: whole blobs, and the journalled pieces of partial ones."""
        from hfpeer.cache.partial.files import partial_bytes

        return sum(self.blobs().values()) + partial_bytes(self.cache)

    def _daemon(self) -> ControlClient:
        return ControlClient(Places(self.home, self.cache).control_socket)

    def close(self) -> None:
        """Ends what still runs here, all of it, also where something cannot be ended."""
        with ExitStack() as left:
            left.callback(self._end_daemon)
            for process in self._processes:
                left.callback(kill_session, process)

    def _end_daemon(self) -> None:
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.pid is None, f"{self.name}'s daemon is gone")


class Machines:
    """Makes machines below one folder, and ends and removes them all when the `with` ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Machine] = []

    def __enter__(self) -> Machines:
        self._undertaker = subprocess.Popen(
            ["/bin/sh", "-c", UNDERTAKER, str(self._folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as left:
            for machine in self._made:
                left.callback(shutil.rmtree, self._folder / machine.name, ignore_errors=True)
            left.callback(self._undertaker.communicate, timeout=STOP_SECONDS)
            for machine in self._made:
                left.callback(machine.close)

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._made)

    def make(
        self,
        name: str,
        *,
        upstreams: str = "",
        peers: Sequence[str] = (),
        mdns: bool = False,
        host: Host | None = None,
        **environ: str,
    ) -> Machine:
        """A machine on loopback, or on a host of a LAN; its daemon is not started. `environ` is added to its own."""
        listeners = {"HFPEER_ENDPOINT_LISTEN": "127.0.0.1:0"} | ({} if host else {"HFPEER_LAN_LISTEN": "127.0.0.1:0"})
        known = ",".join(peers)
        node = {"HFPEER_UPSTREAMS": upstreams, "HFPEER_MDNS": str(int(mdns)), "HFPEER_PEERS": known}
        machine = Machine(name, self._folder / name, {**listeners, **node, **environ}, host)
        self._made.append(machine)
        return machine
