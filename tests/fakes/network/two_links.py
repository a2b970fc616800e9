"""Two hosts with two links between them: a slow one at the lower addresses, and a fast one.

Needs root and Linux, as `lan` does. Must never touch the machine's own network or a namespace that it did not make.
"""

from __future__ import annotations

from fakes.network import namespaces
from fakes.network.host import Host

SLOW, FAST = "10.8.0", "10.9.0"
QUEUE_SECONDS = 0.05


class TwoLinks(namespaces.Network):
    """A context manager. `slow_bits` a second shape the slow link both ways."""

    def __init__(self, slow_bits: float = 8_000_000) -> None:
        prefix = namespaces.new_prefix()
        self.hosts = [Host(f"t{number}", f"{prefix}-t{number}", f"{FAST}.{number}") for number in (1, 2)]
        self._slow_bits = slow_bits

    def tear_down(self) -> None:
        """Kills what runs on the hosts and removes them. Harmless when repeated."""
        for host in self.hosts:
            host.stop_all()
            namespaces.remove(host.namespace)

    def cut(self, link: str) -> None:
        """Takes the link `slow` or `fast` down."""
        namespaces.ip(self.hosts[0].namespace, f"link set {link} down")

    def swallow(self, link: str) -> None:
        """From now on the link passes next to nothing, without a word."""
        for host in self.hosts:
            namespaces.swallow(host.namespace, link)

    def sent_bytes(self, link: str) -> int:
        """Bytes that the first host has sent over a link."""
        shown = self.hosts[0].run(["cat", f"/sys/class/net/{link}/statistics/tx_bytes"]).stdout
        return int(shown)

    def _build(self) -> None:
        one, other = (host.namespace for host in self.hosts)
        for namespace in (one, other):
            namespaces.make(namespace)
        for link, subnet in (("slow", SLOW), ("fast", FAST)):
            namespaces.ip("", f"link add {link} netns {one} type veth peer name {link} netns {other}")
            for number, namespace in enumerate((one, other), start=1):
                namespaces.ip(namespace, f"addr add {subnet}.{number}/24 dev {link}", f"link set {link} up")
        for namespace in (one, other):
            namespaces.shape(namespace, "slow", self._slow_bits, QUEUE_SECONDS)
