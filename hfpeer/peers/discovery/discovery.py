"""All ways by which a node finds peers and is found: multicast, DNS names, a registry. Each is started if it is set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hfpeer.config.peer_names import DnsName, addresses_among, dns_names_among
from hfpeer.config.settings import Settings
from hfpeer.names import Commit
from hfpeer.net.address import Address
from hfpeer.peers.neighbourhood import Neighbourhood

if TYPE_CHECKING:
    from hfpeer.peers.discovery.dns_names import DnsNames
    from hfpeer.peers.discovery.multicast import Multicast
    from hfpeer.peers.discovery.registry import Registry


async def addresses_now(settings: Settings) -> tuple[Address, ...]:
    """The addresses of all configured peers, also those that DNS names have now: for a command without a daemon."""
    if not dns_names_among(settings.peers):
        return addresses_among(settings.peers)
    from hfpeer.peers.discovery.dns_names import look_up_once

    return await look_up_once(settings.peers, accepts_loopback=settings.lan_listen.is_loopback)


class Discovery:
    """Keeps a neighbourhood informed, between `start` and `stop`. Belongs to one event loop."""

    def __init__(self, settings: Settings, node_id: str, listen: Address, neighbourhood: Neighbourhood) -> None:
        self._settings = settings
        self._node_id = node_id
        self._neighbourhood = neighbourhood
        self._listen = listen
        self._multicast: Multicast | None = None
        self._names: DnsNames | None = None
        self._registry: Registry | None = None

    @property
    def finds(self) -> bool:
        """Whether peers may be found that the settings do not name by their address."""
        return not (self._multicast is None and self._names is None and self._registry is None)

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences on faults that keep peers from being found now."""
        names = () if self._names is None else self._names.problems.values()
        ways = (self._multicast, self._registry)
        return (*(way.problem for way in ways if way is not None and way.problem), *names)

    @property
    def unresolved(self) -> dict[DnsName, str]:
        """The names without an address now, each with a sentence on why."""
        return {} if self._names is None else self._names.unresolved

    async def start(self) -> None:
        """Raises MissingExtra if a registry is set and its library is missing."""
        if self._settings.uses_mdns:
            from hfpeer.peers.discovery.multicast import Multicast

            self._multicast = Multicast(self._node_id, self._settings.name, self._listen, self._settings.advertised)
            await self._multicast.start(self._neighbourhood.found, self._neighbourhood.left)
        if self._settings.registry is not None:
            from hfpeer.peers.discovery.registry import Registry

            self._registry = Registry(self._settings, self._node_id, self._listen)
            await self._registry.start(self._neighbourhood.found, self._neighbourhood.left)
        names = dns_names_among(self._settings.peers)
        if names:
            await self._start_names(names)

    async def announce(self, generation: int, commits: Iterable[Commit]) -> None:
        """See `Multicast.announce`. A registry has no catalogs: strangers may read it."""
        if self._multicast is not None:
            await self._multicast.announce(generation, commits)

    @property
    def announces(self) -> bool:
        """Whether a new catalog has to be announced."""
        return self._multicast is not None

    async def stop(self) -> None:
        for way in (self._multicast, self._names, self._registry):
            if way is not None:
                await way.stop()

    async def add_name(self, name: DnsName) -> Sequence[Address]:
        """Looks up one more name from now on. Its addresses of now."""
        names = self._names or await self._start_names(())
        return await names.add(name)

    async def remove_name(self, name: DnsName) -> bool:
        """Forgets a name and its peers; False if it is unknown."""
        if self._names is None or not await self._names.remove(name):
            return False
        self._neighbourhood.listed(str(name), ())
        return True

    async def _start_names(self, names: Iterable[DnsName]) -> DnsNames:
        from hfpeer.peers.discovery.dns_names import DnsNames

        self._names = DnsNames(
            names,
            lambda name, addresses: self._neighbourhood.listed(str(name), addresses),
            accepts_loopback=self._listen.is_loopback,
        )
        await self._names.start()
        return self._names
