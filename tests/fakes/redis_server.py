"""A real Redis server on loopback, as Debian's package brings it. It can be killed and started again, without memory.

with RedisServer(tmp_path, password="secret") as server:
    registry = server.url
    server.kill()
    server.start()
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fakes.network.host import Host
from fakes.network.ports import free_ports
from fakes.network.program import kill_session
from fakes.waiting import wait_until

PROGRAM = "redis-server"
COMMAND = "redis-cli"


def why_not() -> str | None:
    """Why there is no server here; None if there is one."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the extra `registry` is not installed"
    missing = [name for name in (PROGRAM, COMMAND) if shutil.which(name) is None]
    return f"{', '.join(missing)} must be installed" if missing else None


class RedisServer:
    """At `url`, on this machine or on a host of a LAN. It writes nothing to disk."""

    def __init__(self, folder: Path, password: str = "", host: Host | None = None) -> None:
        self._folder = folder
        self._password = password
        self._host = host
        self._ip = host.ip if host else "127.0.0.1"
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self._ip}:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        rules = ["--save", "", "--appendonly", "no", "--dir", str(self._folder), "--protected-mode", "no"]
        secret = ["--requirepass", self._password] if self._password else []
        argv = [PROGRAM, "--bind", self._ip, "--port", str(self.port), *rules, *secret]
        command = argv if self._host is None else self._host.command(argv)
        self._process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: "PONG" in self.ask("PING"), "the Redis server answers")

    def ask(self, *words: str) -> str:
        """Its answer to a command; "" while it does not run."""
        secret = ["--no-auth-warning", "-a", self._password] if self._password else []
        argv = [COMMAND, "-h", self._ip, "-p", str(self.port), *secret, *words]
        argv = argv if self._host is None else self._host.command(argv)
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10.0).stdout

    def kill(self) -> None:
        if self._process is not None:
            kill_session(self._process)
            self._process = None
