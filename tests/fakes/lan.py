"""A LAN of network namespaces on this machine: hosts on one switch, each with its own network, no way out.

    with Lan(3, rate="200mbit") as lan:
        server = lan.hosts[0].popen(["python3", "-m", "http.server"])
        lan.hosts[1].run(["curl", "-sf", f"http://{lan.hosts[0].ip}:8000/"])
        lan.hosts[0].unplug()

Needs root and Linux: `why_not()` says what is missing. Multicast passes as on a real switch. Everything is torn down
when the `with` ends, also what a killed run of an earlier process left behind. Must never touch the machine's own
network or a namespace that it did not make.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PREFIX = "hflan"
NAMESPACES = Path("/run/netns")
SUBNET, SUBNET6 = "10.77.0", "fd77::"
STOP_SECONDS = 5.0


def why_not() -> str | None:
    """Why no LAN can be built here; None if one can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` is not installed"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None if made.returncode == 0 else f"no namespace can be made: {made.stderr.decode().strip()}"


class Host:
    """One machine of the LAN: `ip` (and `ip6`) on its only interface, `eth0`."""

    def __init__(self, namespace: str, port: str, switch: str, number: int) -> None:
        self.name = f"h{number}"
        self.namespace = namespace
        self.ip = f"{SUBNET}.{number}"
        self.ip6 = f"{SUBNET6}{number:x}"
        self._port = port
        self._switch = switch
        self._processes: list[subprocess.Popen[Any]] = []

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in this host's network; takes the options of subprocess.Popen. Killed at the end."""
        command = ["ip", "netns", "exec", self.namespace, *map(str, argv)]
        process = subprocess.Popen(command, start_new_session=True, **options)
        self._processes.append(process)
        return process

    def run(
        self, argv: Sequence[str | Path], timeout_seconds: float = 60.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this host's network to its end. Raises CalledProcessError, TimeoutExpired."""
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        with process:
            try:
                out, err = process.communicate(timeout=timeout_seconds)
            except BaseException:
                _kill(process)
                raise
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, list(argv), out, err)
        return subprocess.CompletedProcess(list(argv), 0, out, err)

    def set_rate(self, up: str, down: str | None = None) -> None:
        """Shape its link, such as `200mbit`, each way."""
        _shape(self.namespace, "eth0", up)
        _shape(self._switch, self._port, down or up)

    def unplug(self) -> None:
        """Pull its cable."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def plug(self) -> None:
        _ip("-n", self._switch, "link", "set", self._port, "up")

    def counters(self) -> tuple[int, int]:
        """Bytes (sent, received) by this host since the LAN was built, headers included."""
        folder = "/sys/class/net/eth0/statistics"
        shown = self.run(["cat", f"{folder}/tx_bytes", f"{folder}/rx_bytes"]).stdout.split()
        return int(shown[0]), int(shown[1])

    def stop_all(self) -> None:
        """Kill everything that was started here."""
        for process in self._processes:
            _kill(process)
        self._processes.clear()


class Lan:
    """`count` hosts on a switch; `rate` shapes each link both ways. A context manager."""

    def __init__(self, count: int, *, rate: str | None = None, has_ipv6: bool = True) -> None:
        if not 1 <= count <= 200:
            raise ValueError("1 to 200 hosts")
        self._rate = rate
        self._has_ipv6 = has_ipv6
        # Two LANs of one process must not share names.
        self._prefix = f"{PREFIX}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}"
        self._switch = f"{self._prefix}-sw"
        self.hosts = [Host(f"{self._prefix}-h{n}", f"p{n}", self._switch, n) for n in range(1, count + 1)]

    def __enter__(self) -> Lan:
        _sweep()
        try:
            self._build()
        except BaseException:
            self.tear_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_down()

    def tear_down(self) -> None:
        """Kill what runs in the hosts and remove them. Harmless when repeated."""
        for host in self.hosts:
            host.stop_all()
        for namespace in (*(host.namespace for host in self.hosts), self._switch):
            _remove(namespace)

    def _build(self) -> None:
        self._make_namespace(self._switch)
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        _ip("-n", self._switch, "link", "set", "br0", "up")
        for host in self.hosts:
            self._make_namespace(host.namespace)
            self._plug_in(host)
            if self._rate is not None:
                host.set_rate(self._rate)

    def _make_namespace(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        if not self._has_ipv6:
            off = "net.ipv6.conf.all.disable_ipv6=1"
            subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-qw", off], check=True, capture_output=True)

    def _plug_in(self, host: Host) -> None:
        switch, namespace, port = host._switch, host.namespace, host._port
        _ip("link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", switch, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{host.ip}/24", "brd", "+", "dev", "eth0")
        if self._has_ipv6:
            _ip("-n", namespace, "addr", "add", f"{host.ip6}/64", "dev", "eth0", "nodad")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "route", "add", "default", "dev", "eth0")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


def _shape(namespace: str, device: str, rate: str) -> None:
    shaping = ["root", "tbf", "rate", rate, "burst", "128kb", "latency", "20ms"]
    subprocess.run(
        ["tc", "-n", namespace, "qdisc", "replace", "dev", device, *shaping],
        check=True,
        capture_output=True,
        timeout=30,
    )


def _kill(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _remove(namespace: str) -> None:
    """Ends what still runs in a namespace of ours, such as a daemon that left its session, and deletes it."""
    if not (NAMESPACES / namespace).exists():
        return
    inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in inside.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=30)


def _sweep() -> None:
    """Removes the namespaces of earlier processes that were killed before they could."""
    for entry in NAMESPACES.glob(f"{PREFIX}-*") if NAMESPACES.is_dir() else ():
        owner = entry.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(entry.name)
