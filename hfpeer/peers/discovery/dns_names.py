"""Finds nodes behind DNS names: A and AAAA records, such as those of a headless service of Kubernetes, or SRV records.

The only module that imports dnspython. A name is looked up again when its records expire. What the DNS lists no more
is no peer of that name; a DNS server that does not answer takes no peer away. Source of SRV: RFC 2782.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hfpeer.budgets import MAX_NAME_ADDRESSES
from hfpeer.config.peer_names import DnsName, PeerName, addresses_among, dns_names_among
from hfpeer.net.address import Address
from hfpeer.net.networks import CLOUD_METADATA
from hfpeer.net.tasks import end_tasks

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

LOOKUP_SECONDS = 5.0
"""Seconds for one query, all tries at all DNS servers together."""
MIN_TTL_SECONDS = 5.0
"""Least seconds between two look-ups of a name, however soon its records expire."""
MAX_TTL_SECONDS = 60.0
"""Most seconds between two look-ups of a name: Docker's DNS gives records of services 10 minutes."""
MAX_QUERIES = 16
"""Queries of one look-up at once. The others wait."""

_log = logging.getLogger(__name__)

OnListed = Callable[[DnsName, Sequence[Address]], None]
"""Called with a name and all addresses that it has now."""


class DnsNames:
    """Looks up names, between `start` and `stop`, and calls `on_listed` after each look-up.

    Belongs to one event loop. `problems` has a sentence for each name that has no address now, or that could not be
    looked up; `unresolved` those of names without an address.
    """

    def __init__(self, names: Iterable[DnsName], on_listed: OnListed, *, accepts_loopback: bool) -> None:
        self._names = tuple(names)
        self._on_listed = on_listed
        self._accepts_loopback = accepts_loopback
        self._tasks: dict[DnsName, asyncio.Task[None]] = {}
        self._found: dict[DnsName, tuple[Address, ...]] = {}
        self.problems: dict[DnsName, str] = {}

    @property
    def unresolved(self) -> dict[DnsName, str]:
        return {name: problem for name, problem in self.problems.items() if not self._found.get(name)}

    async def start(self) -> None:
        """Begins with the names, in the background."""
        for name in self._names:
            self._begin(name)

    async def stop(self) -> None:
        await end_tasks(self._tasks.values())
        self._tasks.clear()

    async def add(self, name: DnsName) -> tuple[Address, ...]:
        """Looks up one more name from now on. Its addresses of now."""
        if name not in self._tasks:
            looked_up = self._begin(name)
            await looked_up.wait()
        return self._found.get(name, ())

    async def remove(self, name: DnsName) -> bool:
        """Ends the look-ups of a name; False if it was not looked up."""
        task = self._tasks.pop(name, None)
        await end_tasks([] if task is None else [task])
        self.problems.pop(name, None)
        self._found.pop(name, None)
        return task is not None

    def _begin(self, name: DnsName) -> asyncio.Event:
        looked_up = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name, looked_up), name=f"look up {name}")
        return looked_up

    async def _run(self, name: DnsName, looked_up: asyncio.Event) -> None:
        lookup = Lookup(name, accepts_loopback=self._accepts_loopback)
        while True:
            self._found[name] = await lookup.addresses()
            self._on_listed(name, self._found[name])
            self._report(name, lookup.problem)
            looked_up.set()
            await asyncio.sleep(lookup.wait_seconds)

    def _report(self, name: DnsName, problem: str) -> None:
        if problem and self.problems.get(name) != problem:
            _log.warning("%s", problem)
        if problem:
            self.problems[name] = problem
        else:
            self.problems.pop(name, None)


class Lookup:
    """Repeated look-ups of one name. `problem` and `wait_seconds`, until the next one, are those of the last one."""

    def __init__(self, name: DnsName, *, accepts_loopback: bool) -> None:
        self._name = name
        self._accepts_loopback = accepts_loopback
        self._found: tuple[Address, ...] = ()
        self._records: dict[tuple[str, str], list[Any]] = {}
        """What each query was answered last. It holds until a DNS server answers it again."""
        self._earlier = self._records
        self._slots = asyncio.Semaphore(MAX_QUERIES)
        self.problem = ""
        self.wait_seconds = MIN_TTL_SECONDS

    async def addresses(self) -> tuple[Address, ...]:
        """All addresses of the name. Where no DNS server answers, those that it told last."""
        self.problem, self.wait_seconds = "", MAX_TTL_SECONDS
        try:
            self._resolver = await asyncio.to_thread(_make_resolver)
        except Exception as error:  # noqa: BLE001 - whatever resolv.conf says now, the next look-up may succeed
            self._fail(f"this machine has no DNS server ({str(error) or type(error).__name__})")
            return self._found
        self._earlier, self._records = self._records, {}
        if self._name.port is None:
            services = await self._query(self._name.name, "SRV")
            found = await self._at([(service.target.to_text(), service.port) for service in services])
        else:
            found = await self._at([(self._name.name, self._name.port)])
        self._found = tuple(dict.fromkeys(filter(self._is_usable, found)))[:MAX_NAME_ADDRESSES]
        if not self._found:
            self._expire(MIN_TTL_SECONDS)  # whatever its SOA says: a DNS server that remembers that does so itself
            self.problem = self.problem or (
                f"{self._name}: the DNS has no such name, or no address for it. "
                f"If it is not to have one: `hfpeer peer rm {self._name}`."
            )
        self.wait_seconds = max(MIN_TTL_SECONDS, self.wait_seconds)
        return self._found

    async def _at(self, places: Sequence[tuple[str, int]]) -> list[Address]:
        """The addresses of hosts, each with a port. The host `.` says that there is no service (RFC 2782)."""
        places = [place for place in places if place[0] != "."][:MAX_NAME_ADDRESSES]
        hosts = list(dict.fromkeys(host for host, _ in places))
        queries = [self._query(host, kind) for host in hosts for kind in ("A", "AAAA")]
        answers = iter(await asyncio.gather(*queries))
        records = {host: [*next(answers), *next(answers)] for host in hosts}
        return [Address(record.address, port) for host, port in places for record in records[host]]

    async def _query(self, host: str, kind: str) -> list[Any]:
        """The records of one kind."""
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, LifetimeTimeout

        records: list[Any] = []
        try:
            async with self._slots:
                answer = await self._resolver.resolve(
                    host, kind, search=True, raise_on_no_answer=False, lifetime=LOOKUP_SECONDS
                )
            records = list(answer.rrset or ())
            if records:
                self._expire(answer.chaining_result.minimum_ttl)
        except NXDOMAIN:
            pass
        except (DNSException, OSError, ValueError) as error:
            records = self._earlier.get((host, kind), [])
            is_silent = isinstance(error, LifetimeTimeout)
            reason = f"not within {LOOKUP_SECONDS:g} s" if is_silent else str(error) or type(error).__name__
            self._fail(f"no DNS server answers for {host} ({reason})")
        self._records[host, kind] = records
        return records

    def _expire(self, seconds: float) -> None:
        self.wait_seconds = min(self.wait_seconds, seconds)

    def _fail(self, reason: str) -> None:
        self.problem = f"{self._name}: {reason:.300}. Peers found before stay."
        self._expire(MIN_TTL_SECONDS)

    def _is_usable(self, address: Address) -> bool:
        """Whether a machine can have the address. Loopback only if this node is there too."""
        ip = address.ip
        if ip is None or address.port == 0:
            return False
        if ip.is_loopback:
            return self._accepts_loopback
        return not (ip.is_unspecified or ip.is_multicast or ip in CLOUD_METADATA)


async def look_up_once(peers: Sequence[PeerName], *, accepts_loopback: bool) -> tuple[Address, ...]:
    """The addresses among peers, and those of the DNS names among them now."""
    lookups = [Lookup(name, accepts_loopback=accepts_loopback) for name in dns_names_among(peers)]
    found = await asyncio.gather(*(lookup.addresses() for lookup in lookups))
    for lookup in lookups:
        if lookup.problem:
            _log.warning("%s", lookup.problem)
    return tuple(dict.fromkeys([*addresses_among(peers), *(address for one in found for address in one)]))


def _make_resolver() -> Resolver:
    """A resolver over the DNS servers and domains that this machine has now. Blocks: reads /etc/resolv.conf."""
    from dns.asyncresolver import Resolver

    return Resolver()
