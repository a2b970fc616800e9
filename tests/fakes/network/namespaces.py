"""Network namespaces, and what is done in them with `ip`, `tc` and `sysctl`. All names begin with PREFIX.

Must never touch the machine's own network or a namespace that this project did not make.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "hflan"
PLACE = Path("/run/netns")
FILES = Path("/etc/netns")
"""`ip netns exec` shows the files of FILES/NAME in /etc."""
BURST_BYTES = 128 * 1024
COMMAND_SECONDS = 30.0


class CannotBuild(Exception):
    """This machine lacks what the LAN needs."""


class Network(ABC):
    """Namespaces with links between them. A context manager, which yields itself."""

    def __enter__(self) -> Self:
        sweep()
        try:
            self._build()
        except BaseException:
            self.tear_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_down()

    @abstractmethod
    def _build(self) -> None:
        """Raises CannotBuild."""

    @abstractmethod
    def tear_down(self) -> None:
        """Kills what runs in it and removes it. Harmless when repeated."""


def new_prefix() -> str:
    """The beginning of the names of one network: two of one process must not share names."""
    return f"{PREFIX}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}"


def why_not(*programs: str) -> str | None:
    """Why there can be no namespaces here, or these programs are not; None if all is well."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} must be installed"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None if made.returncode == 0 else f"no namespace can be made: {made.stderr.strip()}"


def make(namespace: str, *, has_ipv6: bool = True) -> None:
    """Raises CannotBuild."""
    _run("ip", "netns", "add", namespace)
    ip(namespace, "link set lo up")
    if not has_ipv6:
        sysctl(namespace, "net.ipv6.conf.all.disable_ipv6=1")


def remove(namespace: str) -> None:
    """Ends what still runs in a namespace of ours, such as a daemon that left its session, and deletes it."""
    if not (PLACE / namespace).exists():
        return
    inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in inside.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=COMMAND_SECONDS)
    shutil.rmtree(FILES / namespace, ignore_errors=True)


def use_dns(namespace: str, server_ip: str) -> None:
    """Has programs that start there from now on ask this DNS server, and no other. Source: ip-netns(8)."""
    folder = FILES / namespace
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolv.conf").write_text(f"nameserver {server_ip}\noptions timeout:1 attempts:1\n")


def sweep() -> None:
    """Removes the namespaces of earlier processes that were killed before they could."""
    for entry in PLACE.glob(f"{PREFIX}-*") if PLACE.is_dir() else ():
        owner = entry.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove(entry.name)


def ip(namespace: str, *commands: str) -> None:
    """Commands of `ip`, in one batch; in the machine's own namespace for an empty name. Raises CannotBuild."""
    _run("ip", *(("-n", namespace) if namespace else ()), "-batch", "-", given="\n".join(commands) + "\n")


def sysctl(namespace: str, setting: str) -> str:
    """Reads `NAME`, or sets `NAME=VALUE`. Raises CannotBuild."""
    return _run("ip", "netns", "exec", namespace, "sysctl", "-n", *(("-w",) if "=" in setting else ()), setting)


def spawn(namespace: str, argv: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a program of the LAN itself; its standard output is a pipe."""
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def shape(namespace: str, device: str, bits: float, queue_seconds: float, delay_seconds: float | None = None) -> None:
    """Shapes a device to `bits` a second, with a queue of `queue_seconds`; packets are delayed by `delay_seconds`.
    Raises CannotBuild."""
    on = ("tc", "-n", namespace, "qdisc", "replace", "dev", device)
    place = ["root", "handle", "1:"]
    if delay_seconds is not None:
        _run(*on, *place, "netem", "delay", f"{delay_seconds * 1000}ms", "limit", "10000")
        place = ["parent", "1:1", "handle", "10:"]
    limit = BURST_BYTES + int(bits / 8 * queue_seconds)
    _run(*on, *place, "tbf", "rate", f"{int(bits)}bit", "burst", str(BURST_BYTES), "limit", str(limit))


def swallow(namespace: str, device: str) -> None:
    """A device that swallows nearly all packets. Raises CannotBuild."""
    on = ("tc", "-n", namespace, "qdisc", "replace", "dev", device)
    _run(*on, "root", "tbf", "rate", "1kbit", "burst", "10", "limit", "10")


def shaped_bytes(namespace: str) -> int:
    """Bytes that have left `eth0`, headers included; 0 if it is not shaped."""
    shapers = json.loads(_run("tc", "-n", namespace, "-s", "-j", "qdisc", "show", "dev", "eth0"))
    return next((int(shaper["bytes"]) for shaper in shapers if shaper["kind"] == "tbf"), 0)


def has_netem(namespace: str) -> bool:
    """Whether the kernel can delay packets; tried on the namespace's own loopback."""
    trying = ["tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    undoing = ["tc", "-n", namespace, "qdisc", "del", "dev", "lo", "root"]
    found = subprocess.run(trying, capture_output=True, check=False, timeout=COMMAND_SECONDS).returncode == 0
    if found:
        subprocess.run(undoing, capture_output=True, check=False, timeout=COMMAND_SECONDS)
    return found


def _run(*argv: str, given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    if done.returncode:
        raise CannotBuild(f"{' '.join(argv)} {given}: {done.stderr.strip()}")
    return done.stdout
