"""Tells which network interfaces of this machine lead to a LAN, by what they are and never by their names.

An interface of hardware does, and whatever stands on one: a bridge with it as a port, a bond, a team, a VLAN, a
macvlan. So does an interface with a default route. Tunnels do not: peers behind a VPN are as slow as its line. Bridges
for containers and virtual machines do not, because many machines have the same addresses on them.

Sources: sysfs-class-net(5) of the kernel's ABI, proc_pid_net(5). Must never guess where the system does not tell: such
an interface is used.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYSFS, PROC = Path("/sys/class/net"), Path("/proc/net")

TUNNELS = frozenset({"wireguard", "vxlan", "geneve", "gtp", "ppp", "wwan", "bareudp"})
"""Values of DEVTYPE. A device of type `wwan` is a modem: behind it is the operator's network."""
FRAMES = frozenset({"1", "32"})
"""Hardware types with frames of a LAN: Ethernet with Wi-Fi, and InfiniBand. Source: if_arp.h."""
NOARP = 0x80
"""The flag of interfaces without neighbours, such as dummies. Source: netdevice(7)."""
MAX_DEPTH = 8
"""Interfaces that stand on one another, at most."""


@dataclass(frozen=True)
class Links:
    """The interfaces as `sysfs` and `proc` show them."""

    sysfs: Path = SYSFS
    proc: Path = PROC

    def on_lan(self, names: Iterable[str]) -> set[str]:
        """Those of these interfaces that lead to a LAN."""
        routed = self._with_default_route()
        has_hardware = any(self._is_hardware(name) for name in self._all())
        return {name for name in names if self._leads_out(name, routed, has_hardware=has_hardware)}

    def _leads_out(self, name: str, routed: set[str], *, has_hardware: bool) -> bool:
        if not self._is_told(name):
            return True
        if self._is_tunnel(name):
            return False
        if name in routed or self._stands_on_hardware(name):
            return True
        if has_hardware or (self.sysfs / name / "master").exists():
            return False
        # In a container the other end is outside, unless it is a bridge for containers inside of this one.
        is_bridge = (self.sysfs / name / "bridge").exists()
        if is_bridge:
            return not routed and any((self.sysfs / name / "brif").iterdir())
        return not int(self._read(name, "flags") or "0", 16) & NOARP

    def _stands_on_hardware(self, name: str, depth: int = 0) -> bool:
        if self._is_tunnel(name) or depth > MAX_DEPTH:
            return False
        if self._is_hardware(name):
            return True
        with suppress(OSError):
            lower = [entry.name for entry in (self.sysfs / name).iterdir() if entry.name.startswith("lower_")]
            return any(self._stands_on_hardware(one.removeprefix("lower_"), depth + 1) for one in lower)
        return False

    def _is_hardware(self, name: str) -> bool:
        return (self.sysfs / name / "device").exists()

    def _is_tunnel(self, name: str) -> bool:
        kind = [line.removeprefix("DEVTYPE=") for line in self._read(name, "uevent").splitlines() if "DEVTYPE=" in line]
        has_frames = self._read(name, "type") in FRAMES
        return not has_frames or (self.sysfs / name / "tun_flags").exists() or not TUNNELS.isdisjoint(kind)

    def _is_told(self, name: str) -> bool:
        """Whether the system tells of this interface. A process that has changed its network namespace may see the
        files of another one."""
        try:
            return self._read(name, "ifindex") == str(_index(name))
        except OSError:
            return False

    def _with_default_route(self) -> set[str]:
        """The interfaces with a default route, of IPv4 or IPv6."""
        four = [line.split() for line in self._lines("route")[1:]]
        six = [line.split() for line in self._lines("ipv6_route")]
        return {
            *(fields[0] for fields in four if len(fields) > 7 and (fields[1], fields[7]) == ("00000000", "00000000")),
            *(fields[9] for fields in six if len(fields) > 9 and fields[1] == "00" and fields[9] != "lo"),
        }

    def _all(self) -> list[str]:
        try:
            return [entry.name for entry in self.sysfs.iterdir()]
        except OSError:
            return []

    def _lines(self, name: str) -> list[str]:
        try:
            return (self.proc / name).read_text().splitlines()
        except OSError:
            return []

    def _read(self, name: str, what: str) -> str:
        try:
            return (self.sysfs / name / what).read_text().strip()
        except OSError:
            return ""


def _index(name: str) -> int:
    """Raises OSError for an unknown interface."""
    return socket.if_nametoindex(name)
