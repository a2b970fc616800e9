"""A LAN on this machine, and the Internet behind it: hosts on one switch, a router, and a hub beyond a narrow link.

      h1   h2  …  hN        hosts, 10.78.0.1 … N; each NIC shaped both ways (tbf)
       └────┴──┬───┘
              br0           one bridge; multicast passes, as on a real switch
               gw           router, 10.78.0.254
               │            narrow link: one rate shared by all, and latency
              hub           198.51.100.2, not on the LAN, hears no multicast

Everything is in network namespaces that this module makes and removes, also those a killed run left behind. Latency
comes from netem if the kernel has it, else from `tapdelay`. Bytes on the wire are counted by the shapers, header by
header. Must never touch the machine's own network. Needs root and Linux.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .program import Program, wait_until

PREFIX = "hfswarm"
NAMESPACES = Path("/run/netns")
SUBNET, WAN_SUBNET = "10.78.0", "198.51.100"
GATEWAY, HUB_IP = f"{SUBNET}.254", f"{WAN_SUBNET}.2"
BURST_BYTES = 128 * 1024
LAN_QUEUE_SECONDS, WAN_QUEUE_SECONDS = 0.02, 0.06
CONGESTION_CONTROL = "cubic"
MBIT = 1_000_000


class CannotBuild(Exception):
    """This machine has not what the LAN needs."""


class Host:
    """One machine: its address, its namespace, and what runs on it."""

    def __init__(self, name: str, namespace: str, ip: str) -> None:
        self.name = name
        self.namespace = namespace
        self.ip = ip
        self.programs: list[Program] = []

    def start(
        self,
        argv: Sequence[str | Path],
        output: Path,
        environ: Mapping[str, str] = os.environ,
        done_marker: Path | None = None,
    ) -> Program:
        """Starts a program in this host's network; see Program."""
        program = Program(["ip", "netns", "exec", self.namespace, *argv], output, environ, done_marker)
        self.programs.append(program)
        return program

    def run(self, argv: Sequence[str | Path], output: Path, environ: Mapping[str, str], seconds: float) -> str:
        """Runs one to its end and gives its standard output. Raises CannotBuild if it fails, TimedOut."""
        program = self.start(argv, output, environ)
        wait_until(program.is_done, seconds, f"the end of {argv[0]}")
        if program.exit_code != 0:
            raise CannotBuild(f"{' '.join(map(str, argv))} on {self.name}: {program.said()}")
        return output.read_text()

    def kill_all(self) -> None:
        for program in reversed(self.programs):
            program.kill()


class Lan:
    """`count` hosts; `rate_bits` a second of each NIC each way; `wan_bits` of the link to the hub, None for no hub.

    A context manager; `delay` says what makes the latency.
    """

    def __init__(self, count: int, rate_bits: float, wan_bits: float | None, wan_rtt_seconds: float = 0.03) -> None:
        self.rate_bits, self.wan_bits, self._rtt_seconds = rate_bits, wan_bits, wan_rtt_seconds
        self.delay = "none"
        self._prefix = f"{PREFIX}-{os.getpid()}"
        self._switch, self._gateway = f"{self._prefix}-sw", f"{self._prefix}-gw"
        self.hosts = [Host(f"h{n}", f"{self._prefix}-h{n}", f"{SUBNET}.{n}") for n in range(1, count + 1)]
        self.hub = Host("hub", f"{self._prefix}-hub", HUB_IP)
        self._wires: list[subprocess.Popen[str]] = []

    @property
    def everybody(self) -> list[Host]:
        return [*self.hosts, self.hub]

    def __enter__(self) -> Lan:
        sweep()
        try:
            self._build()
        except BaseException:
            self.tear_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.tear_down()

    def tear_down(self) -> None:
        """Kills what runs in it and removes it. Harmless when repeated."""
        for host in self.everybody:
            host.kill_all()
        for wire in self._wires:
            wire.kill()
            wire.communicate()
        self._wires.clear()
        for entry in NAMESPACES.glob(f"{self._prefix}-*"):
            _remove(entry.name)

    # --- faults and counters ------------------------------------------------------------------------------------

    def set_rate(self, host: Host, rate_bits: float) -> None:
        """Shapes a host's NIC, both ways."""
        _shape(host.namespace, "eth0", rate_bits, LAN_QUEUE_SECONDS)
        _shape(self._switch, _port(host), rate_bits, LAN_QUEUE_SECONDS)

    def congestion_control(self) -> str:
        return _sysctl(self.hosts[0].namespace, "net.ipv4.tcp_congestion_control").strip()

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes (sent, received) by each host so far. Cheap, but without the headers of segments split late."""
        counted = {}
        for line in Path(f"/proc/{self._wires[0].pid}/net/dev").read_text().splitlines()[2:]:
            device, _, numbers = line.partition(":")
            fields = numbers.split()
            counted[device.strip()] = int(fields[0]), int(fields[8])
        return {host.name: counted.get(_port(host), (0, 0)) for host in self.hosts}

    def wire_bytes(self) -> dict[str, int]:
        """What each host, and the hub, has sent so far, every header counted."""
        return {host.name: _shaped_bytes(host.namespace) for host in (self.everybody if self.wan_bits else self.hosts)}

    # --- building -----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._make_namespace(self._switch)
        # Its /proc/PID/net shows the switch's counters without starting a program each time.
        self._wires.append(_spawn(self._switch, ["sleep", "infinity"]))
        _ip(self._switch, "link add br0 type bridge forward_delay 0", "link set br0 up")
        for host in self.hosts:
            self._make_namespace(host.namespace)
            self._plug_in(host.namespace, _port(host), host.ip)
            _ip(host.namespace, f"route add default via {GATEWAY}")
            self.set_rate(host, self.rate_bits)
        if self.wan_bits:
            self._build_wan(self.wan_bits)

    def _make_namespace(self, namespace: str) -> None:
        _run("ip", "netns", "add", namespace)
        _ip(namespace, "link set lo up")
        _sysctl(namespace, "net.ipv6.conf.all.disable_ipv6=1")
        with suppress(CannotBuild):  # some machines allow only their own; `congestion_control` says which it became
            _sysctl(namespace, f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}")

    def _plug_in(self, namespace: str, port: str, ip: str) -> None:
        _ip("", f"link add {port} netns {self._switch} type veth peer name eth0 netns {namespace}")
        _ip(self._switch, f"link set {port} master br0 up")
        _ip(namespace, f"addr add {ip}/24 brd + dev eth0", "link set eth0 up")

    def _build_wan(self, wan_bits: float) -> None:
        self._make_namespace(self._gateway)
        self._plug_in(self._gateway, "pgw", GATEWAY)
        _sysctl(self._gateway, "net.ipv4.ip_forward=1")
        self._make_namespace(self.hub.namespace)
        has_netem = _has_netem(self._gateway)
        self.delay = "netem" if has_netem else "a TAP wire that holds every frame"
        (self._veth_wire if has_netem else self._tap_wire)()
        for namespace, device, ip in self._wan_ends(self.hub.ip):
            _ip(namespace, f"addr add {ip}/24 dev {device}", f"link set {device} up")
            _shape(namespace, device, wan_bits, WAN_QUEUE_SECONDS, self._rtt_seconds / 2 if has_netem else None)
        _ip(self.hub.namespace, f"route add default via {WAN_SUBNET}.1")

    def _wan_ends(self, hub_ip: str) -> list[tuple[str, str, str]]:
        return [(self._gateway, "wan0", f"{WAN_SUBNET}.1"), (self.hub.namespace, "eth0", hub_ip)]

    def _veth_wire(self) -> None:
        _ip("", f"link add wan0 netns {self._gateway} type veth peer name eth0 netns {self.hub.namespace}")

    def _tap_wire(self) -> None:
        program = Path(__file__).with_name("tapdelay.py")
        wire = _spawn(self._gateway, [sys.executable, str(program), str(self._rtt_seconds * 500), "wan0", "wan1"])
        self._wires.append(wire)
        assert wire.stdout is not None
        if wire.stdout.readline().strip() != "ready":
            raise CannotBuild("this kernel has neither netem nor TAP devices; there is no way to delay the WAN")
        _ip(self._gateway, f"link set wan1 netns {self.hub.namespace}")
        _ip(self.hub.namespace, "link set wan1 name eth0")


def why_not() -> str | None:
    """Why no LAN can be built here; None if one can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc", "sysctl") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} must be installed"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None if made.returncode == 0 else f"no namespace can be made: {made.stderr.strip()}"


def sweep() -> None:
    """Removes what earlier processes were killed before they could."""
    for entry in NAMESPACES.glob(f"{PREFIX}-*") if NAMESPACES.is_dir() else ():
        owner = entry.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(entry.name)


def _port(host: Host) -> str:
    return f"p{host.name[1:]}"


def _run(*argv: str, given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise CannotBuild(f"{' '.join(argv)} {given}: {done.stderr.strip()}")
    return done.stdout


def _sysctl(namespace: str, setting: str) -> str:
    return _run("ip", "netns", "exec", namespace, "sysctl", "-n", *(("-w",) if "=" in setting else ()), setting)


def _ip(namespace: str, *commands: str) -> None:
    _run("ip", *(("-n", namespace) if namespace else ()), "-batch", "-", given="\n".join(commands) + "\n")


def _spawn(namespace: str, argv: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _shape(namespace: str, device: str, bits: float, queue_seconds: float, delay_seconds: float | None = None) -> None:
    on = ("tc", "-n", namespace, "qdisc", "replace", "dev", device)
    place = ["root", "handle", "1:"]
    if delay_seconds is not None:
        _run(*on, *place, "netem", "delay", f"{delay_seconds * 1000}ms", "limit", "10000")
        place = ["parent", "1:1", "handle", "10:"]
    limit = BURST_BYTES + int(bits / 8 * queue_seconds)
    _run(*on, *place, "tbf", "rate", f"{int(bits)}bit", "burst", str(BURST_BYTES), "limit", str(limit))


def _shaped_bytes(namespace: str) -> int:
    shapers = json.loads(_run("tc", "-n", namespace, "-s", "-j", "qdisc", "show", "dev", "eth0"))
    return next((int(shaper["bytes"]) for shaper in shapers if shaper["kind"] == "tbf"), 0)


def _has_netem(namespace: str) -> bool:
    trying = ["tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    undoing = ["tc", "-n", namespace, "qdisc", "del", "dev", "lo", "root"]
    found = subprocess.run(trying, capture_output=True, check=False, timeout=30).returncode == 0
    if found:
        subprocess.run(undoing, capture_output=True, check=False, timeout=30)
    return found


def _remove(namespace: str) -> None:
    """Ends what still runs in a namespace of ours, and deletes it."""
    inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in inside.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=30)
