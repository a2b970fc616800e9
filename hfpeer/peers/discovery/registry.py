"""Finds nodes in a registry: a Redis server, in which each node keeps an entry with a lease.

The only module that imports redis. An entry has a node's id and addresses, and nothing else. It is a key with a time to
live, so that the server drops the entry of a node that was killed; only the server's clock counts. While the server
does not answer, all peers stay. An entry is a hint, as an announcement by mDNS is: a node whose entry is gone is asked
before it counts as gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.budgets import MAX_ADDRESSES, MAX_REGISTERED_NODES, MAX_REGISTRATION_BYTES
from hfpeer.config.settings import Settings
from hfpeer.errors import MissingExtra
from hfpeer.net.address import Address
from hfpeer.net.networks import CLOUD_METADATA
from hfpeer.net.tasks import end_tasks
from hfpeer.peers.discovery.advertised import own_addresses
from hfpeer.peers.interfaces import LanInterfaces, find_lan_interfaces
from hfpeer.peers.protocol.registration import Registration
from hfpeer.peers.table.table import Origin

if TYPE_CHECKING:
    from redis.asyncio import Redis

HEARTBEAT_SECONDS = 5.0
"""Seconds between two heartbeats, each of which renews the lease and reads the other entries."""
LEASE_SECONDS = 30
"""Seconds after the last heartbeat of a node until the server drops its entry."""
ANSWER_SECONDS = 4.0
"""Seconds for the server's answers to one heartbeat."""
GOODBYE_SECONDS = 1.0
REPEAT_SECONDS = 300.0
"""Seconds after which an unchanged entry is told again, in case that its peer was forgotten."""
KEYS = "hfpeer:{nodes}"
"""The set of node ids; the entry of a node is at `hfpeer:{nodes}:ID`. All keys with these braces lie in one slot of a
cluster."""

Found = Callable[[str, str, Sequence[Address], "int | None", frozenset[str], Origin], None]
"""Called with node id, "" for the name, addresses, None for the generation, no hints, and the origin."""

_log = logging.getLogger(__name__)


class Registry:
    """Keeps this node's entry, and reads those of the others, between `start` and `stop`.

    The node listens at `listen`. `problem` is a sentence while the server cannot be used.
    """

    def __init__(
        self, settings: Settings, node_id: str, listen: Address, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`settings` name a registry. Raises MissingExtra if the client of Redis is not installed."""
        need_redis()
        self._settings = settings
        self._node_id = node_id
        self._listen = listen
        self._clock = clock
        self._client: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._known: dict[str, Registration] = {}
        self._told_at = 0.0
        self._connected_at = 0.0
        self.problem: str | None = None

    async def start(self, on_found: Found, on_left: Callable[[str], None]) -> None:
        """Begins in the background. Both callbacks run on the event loop."""
        self._task = asyncio.create_task(self._run(on_found, on_left), name="registry")

    async def stop(self) -> None:
        """Removes this node's entry, if the server answers."""
        await end_tasks([] if self._task is None else [self._task])
        if self._client is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._say_goodbye(self._client), GOODBYE_SECONDS)
        await self._close()

    async def _run(self, on_found: Found, on_left: Callable[[str], None]) -> None:
        while True:
            try:
                interfaces = await asyncio.to_thread(find_lan_interfaces, self._listen)
                own = own_addresses(interfaces, self._listen, self._settings.advertised)
                earlier, others = await asyncio.wait_for(self._beat(own), ANSWER_SECONDS)
                self._compare(others, interfaces, on_found, on_left)
                twin = [] if earlier is None else self._usable(set(earlier.addresses).difference(own), interfaces)
                if twin:  # a clone of this node; or this node, elsewhere before. Their answer tells.
                    on_found(self._node_id, "", twin, None, frozenset(), Origin.REGISTRY)
                self.problem = None
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is tried again at the next heartbeat
                await self._close()
                self._report_problem(_reason(error))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _beat(self, addresses: Sequence[Address]) -> tuple[Registration | None, list[Registration]]:
        """Renews this node's lease, and reads the entries of the others. The first result is the earlier entry under
        this node's id."""
        if self._client is None:
            self._client = await asyncio.to_thread(self._connect)
            self._connected_at = self._clock()
        client: Any = self._client
        entry = Registration.of(self._node_id, addresses).to_text()
        async with client.pipeline(transaction=False) as ask:
            ask.getrange(_key(self._node_id), 0, MAX_REGISTRATION_BYTES)
            ask.set(_key(self._node_id), entry, ex=LEASE_SECONDS)
            ask.sadd(KEYS, self._node_id)
            ask.srandmember(KEYS, MAX_REGISTERED_NODES)
            earlier, _, _, members = await ask.execute()
        node_ids = [one for one in members if one != self._node_id.encode() and len(one) <= 64]
        if not node_ids:
            return Registration.from_text(earlier), []
        async with client.pipeline(transaction=False) as ask:
            for node_id in node_ids:
                ask.getrange(_key(node_id.decode(errors="replace")), 0, MAX_REGISTRATION_BYTES)
            texts = await ask.execute()
        expired = [node_id for node_id, text in zip(node_ids, texts, strict=True) if not text]
        if expired:
            await client.srem(KEYS, *expired)  # a node that comes back adds itself again
        entries = map(Registration.from_text, texts)
        return Registration.from_text(earlier), [one for one in entries if one is not None]

    def _compare(
        self,
        entries: Iterable[Registration],
        interfaces: LanInterfaces,
        on_found: Found,
        on_left: Callable[[str], None],
    ) -> None:
        """Tells the changes since the last heartbeat."""
        now = self._clock()
        repeats = now - self._told_at >= REPEAT_SECONDS
        if repeats:
            self._told_at = now
        found = {entry.node_id: entry for entry in entries}
        for node_id, entry in found.items():
            if repeats or self._known.get(node_id) != entry:
                addresses = self._usable(entry.addresses, interfaces)
                if addresses:
                    on_found(node_id, "", addresses, None, frozenset(), Origin.REGISTRY)
        missing = self._known.keys() - found.keys()
        # A server that has just come back may have lost its entries, and the other nodes are still on their way to it.
        if now - self._connected_at < LEASE_SECONDS:
            found.update((node_id, self._known[node_id]) for node_id in missing)
        else:
            for node_id in missing:
                on_left(node_id)
        self._known = found

    def _usable(self, addresses: Collection[Address], interfaces: LanInterfaces) -> list[Address]:
        """The addresses at which a peer may be: those of the LAN, the nearest first, then those that `lan.allow`
        names."""
        by_port = groupby(sorted(addresses, key=lambda one: one.port), key=lambda one: one.port)
        near = [one for port, group in by_port for one in interfaces.nearest_first([g.host for g in group], port)]
        allowed = [one for one in addresses if self._is_allowed(one)]
        return list(dict.fromkeys([*near, *allowed]))[:MAX_ADDRESSES]

    def _is_allowed(self, address: Address) -> bool:
        ip = address.ip
        return ip is not None and ip.is_global and ip not in CLOUD_METADATA and self._settings.lan_allow.allow(ip, ())

    def _connect(self) -> Redis:
        """A client, which connects with its first command. Blocks: reads the password's file. Raises OSError."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        url, password, ca = self._settings.registry, self._settings.registry_password, self._settings.ca
        assert url is not None
        if self._settings.registry_password_file is not None:
            password = self._settings.registry_password_file.read_text().strip("\r\n")
        options: dict[str, Any] = {}
        if ca is not None and url.startswith("rediss:"):
            options["ssl_ca_path" if Path(ca).is_dir() else "ssl_ca_certs"] = ca
        return Redis.from_url(
            url,
            password=password or None,
            socket_connect_timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            max_connections=2,
            retry=Retry(NoBackoff(), 0),
            **options,
        )

    async def _say_goodbye(self, client: Redis) -> None:
        async with client.pipeline(transaction=False) as ask:
            ask.delete(_key(self._node_id))
            ask.srem(KEYS, self._node_id)
            await ask.execute()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                await asyncio.wait_for(client.aclose(), GOODBYE_SECONDS)

    def _report_problem(self, reason: str) -> None:
        problem = f"The registry {self._settings.registry} cannot be used: {reason}. Peers found before stay."
        if self.problem is None:
            _log.warning("%s", problem)
        self.problem = problem


def _key(node_id: str) -> str:
    return f"{KEYS}:{node_id}"


def _reason(error: Exception) -> str:
    """The fault in words, with a remedy where one is clear."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "it does not answer"
    text = (str(error) or type(error).__name__).rstrip(".")
    words = ("NOAUTH", "WRONGPASS", "AUTH", "invalid username-password")
    if isinstance(error, FileNotFoundError) or any(word.lower() in text.lower() for word in words):
        return f"{text:.300} (HFPEER_REGISTRY_PASSWORD, or the file in registry_password_file, has its password)"
    return f"{text:.300}"


def need_redis() -> None:
    import importlib.util
    import sys

    if importlib.util.find_spec("redis") is None:
        raise MissingExtra(
            "A registry needs the redis library, which hfpeer's own Python does not have.",
            hint=f"{sys.executable} -m pip install 'hfpeer[registry]'",
        )
