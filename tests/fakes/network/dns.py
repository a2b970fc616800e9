"""A real DNS server, dnsmasq, on a host of a LAN. Its records can be changed; each change starts it anew.

with DnsServer(lan.hosts[2], tmp_path, {"peers.lab": [lan.hosts[0].ip]}) as dns:
    dns.say({"peers.lab": [lan.hosts[0].ip, lan.hosts[1].ip]})
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fakes.network.host import Host
from fakes.network.program import kill_session
from fakes.waiting import wait_until

PROGRAM = "dnsmasq"


class DnsServer:
    """Knows all of one domain. Its records have this time to live."""

    def __init__(
        self,
        host: Host,
        folder: Path,
        addresses: Mapping[str, Sequence[str]],
        ttl_seconds: int = 5,
        domain: str = "lab",
    ) -> None:
        self._host = host
        self._hosts_file = folder / "dns-hosts"
        self._ttl_seconds = ttl_seconds
        self._domain = domain
        self._process: subprocess.Popen[bytes] | None = None
        self._first = addresses

    def __enter__(self) -> DnsServer:
        self.say(self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def say(
        self, addresses: Mapping[str, Sequence[str]], services: Mapping[str, Sequence[tuple[str, int]]] | None = None
    ) -> None:
        """From now on these names have these addresses, and these services these hosts and ports."""
        self.kill()
        self._hosts_file.write_text("".join(f"{ip} {name}\n" for name, ips in addresses.items() for ip in ips))
        told = [
            f"--srv-host={service},{host},{port}"
            for service, places in (services or {}).items()
            for host, port in places
        ]
        rules = ("--no-resolv", "--no-hosts", "--no-poll", f"--local=/{self._domain}/", "--user=root", "--pid-file=")
        ttl = (f"--local-ttl={self._ttl_seconds}", f"--neg-ttl={self._ttl_seconds}")
        where = (f"--listen-address={self._host.ip}", "--bind-interfaces")
        argv = [PROGRAM, "--keep-in-foreground", *rules, *ttl, *where, f"--addn-hosts={self._hosts_file}", *told]
        process = self._host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._process = process
        wait_until(lambda: process.poll() is not None or self._listens(), "the DNS server listens")
        assert process.poll() is None, process.communicate()[1].decode()

    def kill(self) -> None:
        if self._process is not None:
            kill_session(self._process)
            self._process = None

    def _listens(self) -> bool:
        shown = self._host.run(["ss", "-Hlun", "sport = :53"])
        return self._host.ip in shown.stdout
