"""A LAN of network namespaces on this machine: hosts on one switch, each with its own network, no way out.

    with Lan(3, rate_bits=200 * MBIT) as lan:
        server = lan.hosts[0].popen(["python3", "-m", "http.server"])
        lan.hosts[1].run(["curl", "-sf", f"http://{lan.hosts[0].ip}:8000/"])
        lan.hosts[0].unplug()

Needs root and Linux: `why_not()` gives the reason. Multicast passes as on a real switch. With a `wan`, a hub stands
behind a router and a narrow link (see `wan`). Everything is torn down when the `with` ends, also what a killed run of
an earlier process left behind. Must never touch the machine's own network or a namespace that it did not make.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from fakes.network import namespaces
from fakes.network.host import Host
from fakes.network.namespaces import CannotBuild
from fakes.network.wan import Wan

SUBNET, SUBNET6 = "10.77.0", "fd77::"
CONGESTION_CONTROL = "cubic"
QUEUE_SECONDS = 0.02
MBIT = 1_000_000


class SwitchedHost(Host):
    """A host on the switch of a LAN."""

    def __init__(self, number: int, prefix: str, switch: str) -> None:
        super().__init__(f"h{number}", f"{prefix}-h{number}", f"{SUBNET}.{number}", f"{SUBNET6}{number:x}")
        self.port = f"p{number}"
        """The switch's end of its cable."""
        self._switch = switch

    def set_rate(self, bits: float) -> None:
        """Shapes its link to `bits` a second, both ways."""
        namespaces.shape(self.namespace, "eth0", bits, QUEUE_SECONDS)
        namespaces.shape(self._switch, self.port, bits, QUEUE_SECONDS)

    def unplug(self) -> None:
        """Pulls its cable."""
        namespaces.ip(self._switch, f"link set {self.port} down")

    def block_multicast(self) -> None:
        """Has the switch pass no multicast to it."""
        namespaces.ip(self._switch, f"link set {self.port} type bridge_slave mcast_flood off")

    def plug(self) -> None:
        namespaces.ip(self._switch, f"link set {self.port} up")


class Lan(namespaces.Network):
    """`count` hosts on a switch; `rate_bits` a second shape each link both ways. A context manager.

    `wan_bits` a second are the rate of the link to a hub beyond the LAN, shared by all; without them there is no hub.
    """

    def __init__(
        self,
        count: int,
        *,
        rate_bits: float | None = None,
        wan_bits: float | None = None,
        wan_rtt_seconds: float = 0.03,
        has_ipv6: bool = True,
    ) -> None:
        if not 1 <= count <= 200:
            raise ValueError("1 to 200 hosts")
        self._rate_bits = rate_bits
        self._has_ipv6 = has_ipv6
        prefix = namespaces.new_prefix()
        self._switch = f"{prefix}-sw"
        self.hosts = [SwitchedHost(number, prefix, self._switch) for number in range(1, count + 1)]
        self.wan = Wan(self, f"{SUBNET}.254", prefix, wan_bits, wan_rtt_seconds) if wan_bits else None
        self._wire: subprocess.Popen[str] | None = None

    @property
    def everybody(self) -> list[Host]:
        """All hosts, and the hub if there is one."""
        return [*self.hosts, self.wan.hub] if self.wan else [*self.hosts]

    def tear_down(self) -> None:
        """Kills what runs in it and removes it. Harmless when repeated."""
        for host in self.everybody:
            host.stop_all()
        if self._wire is not None:
            self._wire.kill()
            self._wire.communicate()
            self._wire = None
        if self.wan:
            self.wan.tear_down()
        for namespace in (*(host.namespace for host in self.everybody), self._switch):
            namespaces.remove(namespace)

    def congestion_control(self) -> str:
        """That of its hosts: some machines allow only their own."""
        return namespaces.sysctl(self.hosts[0].namespace, "net.ipv4.tcp_congestion_control").strip()

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes (sent, received) by each host since the start. Cheap, but without the headers of segments split
        late."""
        assert self._wire is not None, "the LAN is up"
        counted = {}
        for line in Path(f"/proc/{self._wire.pid}/net/dev").read_text().splitlines()[2:]:
            device, _, numbers = line.partition(":")
            fields = numbers.split()
            counted[device.strip()] = int(fields[0]), int(fields[8])
        return {host.name: counted.get(host.port, (0, 0)) for host in self.hosts}

    def wire_bytes(self) -> dict[str, int]:
        """Bytes that each host, and the hub, has sent, headers included. Links must be shaped."""
        return {host.name: namespaces.shaped_bytes(host.namespace) for host in self.everybody}

    def make_namespace(self, namespace: str) -> None:
        """A namespace as those of the hosts are."""
        namespaces.make(namespace, has_ipv6=self._has_ipv6)
        with suppress(CannotBuild):
            namespaces.sysctl(namespace, f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}")

    def plug_in(self, namespace: str, port: str, ip: str, ip6: str = "") -> None:
        """A cable from `port` of the switch to `eth0` of the namespace."""
        namespaces.ip("", f"link add {port} netns {self._switch} type veth peer name eth0 netns {namespace}")
        namespaces.ip(self._switch, f"link set {port} master br0 up")
        six = [f"addr add {ip6}/64 dev eth0 nodad"] if ip6 and self._has_ipv6 else []
        namespaces.ip(namespace, f"addr add {ip}/24 brd + dev eth0", *six, "link set eth0 up")

    def _build(self) -> None:
        self.make_namespace(self._switch)
        # Its /proc/PID/net shows the switch's counters without starting a program each time.
        self._wire = namespaces.spawn(self._switch, ["sleep", "infinity"])
        namespaces.ip(self._switch, "link add br0 type bridge forward_delay 0", "link set br0 up")
        for host in self.hosts:
            self.make_namespace(host.namespace)
            self.plug_in(host.namespace, host.port, host.ip, host.ip6)
            way_out = f"via {self.wan.gateway_ip}" if self.wan else "dev eth0"
            namespaces.ip(host.namespace, f"route add default {way_out}")
            if self._rate_bits is not None:
                host.set_rate(self._rate_bits)
        if self.wan:
            self.wan.build()


def why_not(*programs: str) -> str | None:
    """Why no LAN can be built here, for which these programs are needed beside `ip`; None if one can."""
    return namespaces.why_not("ip", *programs)
