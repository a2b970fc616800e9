"""Which interfaces lead to a LAN: told by what they are, as sysfs and the routes show it, never by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfpeer.system import links as links_module
from hfpeer.system.links import Links


class Machine:
    """A fake /sys/class/net and /proc/net."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sysfs, self.proc = folder / "sys", folder / "proc"
        self.indexes: dict[str, int] = {}
        self.proc.mkdir()
        (self.proc / "route").write_text("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n")
        (self.proc / "ipv6_route").write_text("")
        monkeypatch.setattr(links_module, "_index", self.index)
        self.add("lo", kind="772")

    def index(self, name: str) -> int:
        if name not in self.indexes:
            raise OSError
        return self.indexes[name]

    def add(
        self,
        name: str,
        *folders: str,
        lower: tuple[str, ...] = (),
        ports: tuple[str, ...] = (),
        devtype: str = "",
        kind: str = "1",
        flags: int = 0x1003,
    ) -> str:
        self.indexes[name] = number = len(self.indexes) + 1
        here = self.sysfs / name
        here.mkdir(parents=True)
        for folder in (*folders, *(f"lower_{one}" for one in lower), *(["bridge", "brif"] if ports else [])):
            (here / folder).mkdir()
        for port in ports:
            (here / "brif" / port).mkdir()
            (here / f"lower_{port}").mkdir(exist_ok=True)
            (self.sysfs / port / "master").mkdir()
        for what, text in {
            "ifindex": number,
            "flags": hex(flags),
            "type": kind,
            "uevent": f"{f'DEVTYPE={devtype}' if devtype else ''}\nINTERFACE={name}",
        }.items():
            (here / what).write_text(f"{text}\n")
        return name

    def veth(self, name: str) -> str:
        return self.add(name)

    def nic(self, name: str) -> str:
        return self.add(name, "device")

    def route(self, name: str) -> None:
        with (self.proc / "route").open("a") as file:
            file.write(f"{name} 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n")

    def route_of_ipv6(self, name: str) -> None:
        zero = "0" * 32
        (self.proc / "ipv6_route").write_text(
            f"{zero} 00 {zero} 00 fe80{'0' * 27}1 00000400 1 0 00000003     {name}\n"
            f"{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200       lo\n"
        )

    def on_lan(self) -> set[str]:
        return Links(self.sysfs, self.proc).on_lan(self.indexes) - {"lo"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_hardware_is_a_lan_whatever_its_name(machine: Machine) -> None:
    names = {machine.nic(name) for name in ("enp3s0", "docker7", "veth-lan", "tun5", "br-office")}
    names.add(machine.add("wlp2s0", "device", "wireless", devtype="wlan"))
    names.add(machine.add("ib0", "device", kind="32"))
    assert machine.on_lan() == names


@pytest.mark.parametrize("name", ["br0", "br-lan", "docker0", "virbr0", "vmbr0"])
def test_a_bridge_with_hardware_as_a_port_is_a_lan(machine: Machine, name: str) -> None:
    machine.nic("eth0"), machine.veth("v1")
    machine.add(name, ports=("eth0", "v1"))
    assert name in machine.on_lan()


@pytest.mark.parametrize("name", ["br0", "docker0", "lan"])
def test_a_bridge_for_containers_is_none(machine: Machine, name: str) -> None:
    machine.nic("eth0"), machine.veth("v1"), machine.add("vnet0", "tun_flags")
    machine.add(name, ports=("v1", "vnet0"))
    machine.add("empty", "bridge", "brif")
    assert machine.on_lan() == {"eth0"}
    machine.route(name)
    assert machine.on_lan() == {"eth0", name}, "it has the default route"


def test_what_stands_on_hardware_is_a_lan(machine: Machine) -> None:
    machine.nic("eth0"), machine.nic("eth1")
    machine.add("bond9", "bonding", lower=("eth0", "eth1"), devtype="bond")
    machine.add("team9", lower=("eth0",))
    machine.add("office.12", lower=("bond9",), devtype="vlan")
    machine.add("mac9", lower=("eth0",))
    machine.add("br9", ports=("office.12",))
    assert machine.on_lan() == {"eth0", "eth1", "bond9", "team9", "office.12", "mac9", "br9"}


def test_a_tunnel_is_none_whatever_it_stands_on(machine: Machine) -> None:
    machine.nic("eth0")
    machine.add("eth5", "tun_flags")
    machine.add("eth6", "tun_flags", kind="65534")
    machine.add("lan0", devtype="wireguard", kind="65534")
    machine.add("flannel", lower=("eth0",), devtype="vxlan")
    machine.add("ppp0", devtype="ppp", kind="512")
    machine.add("modem", "device", devtype="wwan", kind="65534")
    machine.route("lan0")
    assert machine.on_lan() == {"eth0"}


def test_in_a_container_the_pair_to_the_outside_is_a_lan(machine: Machine) -> None:
    machine.veth("eth0"), machine.veth("net1"), machine.veth("v1")
    machine.add("dummy0", flags=0x10C3)
    machine.add("docker0", ports=("v1",))
    machine.route_of_ipv6("eth0")
    assert machine.on_lan() == {"eth0", "net1"}


def test_in_a_container_a_bridge_is_one_where_nothing_else_leads_out(machine: Machine) -> None:
    machine.veth("eth0")
    machine.add("br-lan", ports=("eth0",))
    assert machine.on_lan() == {"br-lan"}


def test_an_interface_of_which_the_system_does_not_tell_is_used(machine: Machine, tmp_path: Path) -> None:
    machine.nic("eth0")
    assert Links(tmp_path / "none", tmp_path / "none").on_lan(["en0"]) == {"en0"}
    machine.indexes["eth0"] = 77  # the files are those of another network namespace
    assert machine.on_lan() == {"eth0"}


def test_interfaces_that_stand_on_each_other_end_nothing(machine: Machine) -> None:
    machine.add("a", lower=("b",))
    machine.add("b", lower=("a",))
    machine.nic("eth0")
    assert machine.on_lan() == {"eth0"}
