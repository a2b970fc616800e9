"""The Internet behind a LAN: a router, and a hub beyond a narrow link with latency.

      h1   h2  …  hN        hosts, 10.77.0.1 … N
       └────┴──┬───┘
              br0           one bridge; multicast passes, as on a real switch
               gw           router, 10.77.0.254
               │            narrow link: one rate shared by all, and latency
              hub           198.51.100.2, not on the LAN, hears no multicast

Latency comes from netem if the kernel has it, else from `tapdelay`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fakes.network import namespaces
from fakes.network.host import Host
from fakes.network.namespaces import CannotBuild

if TYPE_CHECKING:
    from fakes.network.lan import Lan

SUBNET = "198.51.100"
QUEUE_SECONDS = 0.06


class Wan:
    """The link of `bits` a second between a LAN and the hub; built and torn down by the LAN."""

    def __init__(self, lan: Lan, gateway_ip: str, prefix: str, bits: float, rtt_seconds: float) -> None:
        self._lan, self._bits, self._rtt_seconds = lan, bits, rtt_seconds
        self._gateway = f"{prefix}-gw"
        self._wire: subprocess.Popen[str] | None = None
        self.hub = Host("hub", f"{prefix}-hub", f"{SUBNET}.2")
        self.gateway_ip = gateway_ip
        self.delay = "none"
        """How the latency is made."""

    def build(self) -> None:
        """Raises CannotBuild."""
        self._lan.make_namespace(self._gateway)
        self._lan.plug_in(self._gateway, "pgw", self.gateway_ip)
        namespaces.sysctl(self._gateway, "net.ipv4.ip_forward=1")
        self._lan.make_namespace(self.hub.namespace)
        has_netem = namespaces.has_netem(self._gateway)
        self.delay = "netem" if has_netem else "a TAP wire that holds every frame"
        (self._veth_wire if has_netem else self._tap_wire)()
        ends = [(self._gateway, "wan0", f"{SUBNET}.1"), (self.hub.namespace, "eth0", self.hub.ip)]
        for namespace, device, ip in ends:
            namespaces.ip(namespace, f"addr add {ip}/24 dev {device}", f"link set {device} up")
            delay_seconds = self._rtt_seconds / 2 if has_netem else None
            namespaces.shape(namespace, device, self._bits, QUEUE_SECONDS, delay_seconds)
        namespaces.ip(self.hub.namespace, f"route add default via {SUBNET}.1")

    def tear_down(self) -> None:
        """Removes the router; the LAN removes the hub. Harmless when repeated."""
        if self._wire is not None:
            self._wire.kill()
            self._wire.communicate()
            self._wire = None
        namespaces.remove(self._gateway)

    def _veth_wire(self) -> None:
        namespaces.ip("", f"link add wan0 netns {self._gateway} type veth peer name eth0 netns {self.hub.namespace}")

    def _tap_wire(self) -> None:
        program = Path(__file__).with_name("tapdelay.py")
        argv = [sys.executable, str(program), str(self._rtt_seconds * 500), "wan0", "wan1"]
        self._wire = namespaces.spawn(self._gateway, argv)
        assert self._wire.stdout is not None
        if self._wire.stdout.readline().strip() != "ready":
            raise CannotBuild("this kernel has neither netem nor TAP devices; there is no way to delay the WAN")
        namespaces.ip(self._gateway, f"link set wan1 netns {self.hub.namespace}")
        namespaces.ip(self.hub.namespace, "link set wan1 name eth0")
