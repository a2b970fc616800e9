"""Finds nodes by multicast and announces this one: mDNS and DNS-SD (RFC 6762, RFC 6763) through zeroconf.

The only module that imports zeroconf. An announcement is a hint for ranking peers; nothing in it is trusted. A LAN
without multicast causes a warning in the log and `problem`, never a crash, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from zeroconf import DNSQuestionType, Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from hfpeer.config.keys import Advertised
from hfpeer.names import Commit
from hfpeer.net.address import Address
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.discovery.advertised import own_addresses
from hfpeer.peers.interfaces import LanInterfaces, find_lan_interfaces, passed_over
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION, SERVICE_TYPE

LOOK_SECONDS = 15.0
"""Seconds between two looks at the machine's network interfaces. New ones are joined."""
SETTLE_SECONDS = 1.0
"""Least seconds between two changes of the announcement (RFC 6762 §6: a record is multicast at most once a second)."""
RESOLVE_SECONDS = 10.0
GOODBYE_SECONDS = 2.0
MAX_TXT_BYTES = 1024
MAX_STRING_BYTES = 255
MAX_NODES = 512
HINT_DIGITS = 12

_HINT = re.compile(rf"[0-9a-f]{{{HINT_DIGITS}}}")

Found = Callable[[str, str, Sequence[Address], int, frozenset[str]], None]
"""Called with node id, name, addresses (the nearest first), catalog generation and abbreviated commits."""
Left = Callable[[str], None]
"""Called with the id of a node that said goodbye or whose announcement expired."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Announcement:
    """The announcement of a node. `hints` are the abbreviated commits of its catalog, most recently used first."""

    node_id: str
    generation: int
    hints: tuple[str, ...]

    def to_txt(self) -> dict[str, str]:
        """As the keys of a TXT record (RFC 6763 §6), at most MAX_TXT_BYTES together: as many hints as fit.

        `id` node id · `protovers` version of the protocol (§6.7) · `gen` catalog generation · `c0` to `c9` hints,
        separated by commas.
        """
        txt = {"id": self.node_id, "protovers": str(PROTOCOL_VERSION), "gen": str(self.generation)}
        free_bytes = MAX_TXT_BYTES - sum(2 + len(key) + len(value) for key, value in txt.items())
        hints = list(self.hints)
        while hints:
            key = f"c{len(txt) - 3}"
            room_bytes = min(free_bytes, MAX_STRING_BYTES + 1) - 2 - len(key)
            count = (room_bytes + 1) // (HINT_DIGITS + 1)
            if count <= 0:
                break
            txt[key] = ",".join(hints[:count])
            hints = hints[count:]
            free_bytes -= 2 + len(key) + len(txt[key])
        return txt

    @classmethod
    def from_txt(cls, properties: Mapping[bytes, bytes | None]) -> Announcement | None:
        """The inverse of `to_txt`; None for a record that no node of this protocol version sent."""
        txt = {key: (value or b"").decode("ascii", "replace") for key, value in properties.items()}
        node_id, generation = txt.get(b"id", ""), txt.get(b"gen", "")
        is_node = re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", node_id) and re.fullmatch("[0-9]{1,18}", generation)
        if txt.get(b"protovers") != str(PROTOCOL_VERSION) or not is_node:
            return None
        lists = [txt[key] for key in sorted(txt) if re.fullmatch(rb"c[0-9]", key)]
        hints = [hint for listed in lists for hint in listed.split(",") if _HINT.fullmatch(hint)]
        return cls(node_id, int(generation), tuple(hints))


class Multicast:
    """Announces one node, which listens at `listen_address`, and browses for others, between `start` and `stop`.

    A node that listens at one address uses only the interface of that address (loopback included). At 0.0.0.0 or [::]
    it uses every usable interface, and is assumed to accept IPv4 and IPv6. It announces the addresses of
    `advertised` instead of its own, if there are any.
    """

    def __init__(self, node_id: str, name: str, listen_address: Address, advertised: Sequence[Advertised] = ()) -> None:
        self._listen_address = listen_address
        self._advertised = advertised
        self._instance = _instance_name(name, node_id)
        self._announcement = Announcement(node_id, 0, ())
        self._changed = asyncio.Event()
        self._passed_over: set[str] = set()
        self._presence: _Presence | None = None
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why no node can be found now, as a sentence; None while discovery works."""

    async def start(self, on_found: Found, on_left: Left) -> None:
        """Starts to announce and to browse, in the background. Both callbacks run on the event loop."""
        logging.getLogger("zeroconf").addFilter(_only_while_debugging)
        self._task = asyncio.create_task(self._run(on_found, on_left), name="discovery")

    async def announce(self, generation: int, commits: Iterable[Commit]) -> None:
        """Announces a new catalog: its generation, and its commits, most recently used first."""
        hints = tuple(dict.fromkeys(commit[:HINT_DIGITS] for commit in commits))
        self._announcement = Announcement(self._announcement.node_id, generation, hints)
        self._changed.set()

    async def stop(self) -> None:
        """Says goodbye and closes every socket."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._leave()

    async def _run(self, on_found: Found, on_left: Left) -> None:
        while True:
            self._changed.clear()
            try:
                await self._update(on_found, on_left)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here is tried again at the next look
                await self._leave()
                self._report_problem(f"Other nodes cannot be found by multicast: {str(error) or type(error).__name__}.")
            await asyncio.sleep(SETTLE_SECONDS)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)

    async def _update(self, on_found: Found, on_left: Left) -> None:
        """Joins the interfaces that are up now, and announces the current announcement."""
        interfaces = await asyncio.to_thread(find_lan_interfaces, self._listen_address)
        if self._presence is None or self._presence.interfaces != interfaces:
            await asyncio.to_thread(self._log_passed_over)
            await self._leave()
            own = own_addresses(interfaces, self._listen_address, self._advertised)
            self._presence = _Presence(interfaces, self._instance, self._announcement, own, on_found, on_left)
            await self._presence.open()
            self.problem = None
        await self._presence.announce(self._announcement)

    def _log_passed_over(self) -> None:
        """Once for each interface."""
        for name, host in passed_over(self._listen_address):
            if name not in self._passed_over:
                self._passed_over.add(name)
                _log.info(
                    "interface %s (%s) is passed over: containers, virtual machines or a VPN are behind it. "
                    "To use it: hfpeer conf set lan.listen %s",
                    name,
                    host,
                    host,
                )

    async def _leave(self) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            await presence.close()

    def _report_problem(self, problem: str) -> None:
        if self.problem != problem:
            _log.warning("%s Name peers: hfpeer peer add HOST, or dns:NAME", problem)
        self.problem = problem


class _Presence:
    """One membership in the multicast groups of a fixed set of interfaces."""

    def __init__(
        self,
        interfaces: LanInterfaces,
        instance: str,
        announcement: Announcement,
        own: Sequence[Address],
        on_found: Found,
        on_left: Left,
    ) -> None:
        self.interfaces = interfaces
        self._instance = instance
        self._announcement = announcement
        self._port = own[0].port if own else 0
        self._hosts = [address.host for address in own]
        self._on_found = on_found
        self._on_left = on_left
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._node_ids: dict[str, str] = {}
        self._resolving: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Joins, announces, browses. Raises OSError, RuntimeError or zeroconf's Error if that fails."""
        if not self.interfaces.interfaces:
            raise OSError("no network interface is up")
        self._zeroconf = AsyncZeroconf(interfaces=list(self.interfaces.interfaces))
        await self._zeroconf.zeroconf.async_wait_for_start()
        if not self._zeroconf.zeroconf.engine.senders:
            raise OSError("no network interface takes part in multicast")
        # The name contains the node id, so no probe for conflicts is needed (RFC 6762 §8.1).
        await self._zeroconf.async_register_service(self._service(), cooperating_responders=True)
        # QM: a unicast response would reach only one of the programs that share port 5353 on this machine.
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change], question_type=DNSQuestionType.QM
        )

    async def announce(self, announcement: Announcement) -> None:
        if announcement != self._announcement and self._zeroconf is not None:
            self._announcement = announcement
            await self._zeroconf.async_update_service(self._service())

    async def close(self) -> None:
        """Says goodbye (RFC 6762 §10.1), if the network is still there."""
        await end_tasks(self._resolving.values())
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            with suppress(asyncio.TimeoutError, OSError, Error):
                await asyncio.wait_for(self._zeroconf.async_close(), GOODBYE_SECONDS)

    def _service(self) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{self._instance}.{SERVICE_TYPE}",
            port=self._port,
            properties=self._announcement.to_txt(),
            server=f"{self._instance}.local.",
            parsed_addresses=self._hosts,
        )

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if name == f"{self._instance}.{SERVICE_TYPE}":
            if state_change is not ServiceStateChange.Removed:
                self._report_twin(zeroconf, name)
            return
        earlier = self._resolving.pop(name, None)
        if earlier is not None:
            earlier.cancel()
        if state_change is ServiceStateChange.Removed:
            node_id = self._node_ids.pop(name, None)
            if node_id is not None:
                self._on_left(node_id)
        elif name in self._node_ids or len(self._node_ids) + len(self._resolving) < MAX_NODES:
            self._resolving[name] = asyncio.create_task(self._resolve(zeroconf, name), name=f"resolve {name}")

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        with suppress(OSError, Error):
            is_known = info.load_from_cache(zeroconf)
            if is_known or await info.async_request(zeroconf, RESOLVE_SECONDS * 1000, DNSQuestionType.QM):
                self._report(name, info)
        if self._resolving.get(name) is asyncio.current_task():
            del self._resolving[name]

    def _report(self, name: str, info: AsyncServiceInfo) -> None:
        announcement = Announcement.from_txt(info.properties)
        addresses = self.interfaces.nearest_first(info.parsed_scoped_addresses(IPVersion.All), info.port or 0)
        if announcement is None or not addresses:
            return
        self._node_ids[name] = announcement.node_id
        label = name.removesuffix(f".{SERVICE_TYPE}").rpartition("-")[0]
        hints = frozenset(announcement.hints)
        self._on_found(announcement.node_id, label, addresses, announcement.generation, hints)

    def _report_twin(self, zeroconf: Zeroconf, name: str) -> None:
        """Reports other addresses under the own name: those of a node with the same name and id, a clone of this one.
        Their answer tells whether it is one."""
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if not info.load_from_cache(zeroconf):
            return
        port = info.port or self._port
        own = (*self.interfaces.addresses, *self._hosts) if port == self._port else ()
        foreign = [text for text in info.parsed_scoped_addresses(IPVersion.All) if text.partition("%")[0] not in own]
        addresses = self.interfaces.nearest_first(foreign, port)
        if addresses:
            self._on_found(self._announcement.node_id, "", addresses, 0, frozenset())


def _instance_name(name: str, node_id: str) -> str:
    """One DNS label, at most 63 bytes, that no other node has."""
    return f"{_label(name)[:40].strip('-') or 'node'}-{_label(node_id)[:HINT_DIGITS]}"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _only_while_debugging(record: logging.LogRecord) -> bool:
    """Hides zeroconf's warnings about packets that an interface did not accept, except at log level debug."""
    return _log.isEnabledFor(logging.DEBUG)
