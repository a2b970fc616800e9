"""Counts the connections of a door per host and in all, and chooses which one to end when the door is full.

Belongs to one event loop. A host is an IP address. All addresses of one IPv6 /64 share a limit too, because one machine
can have them all.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from hfpeer.budgets import (
    MAX_CONTROL_CONNECTIONS,
    MAX_DOOR_CONNECTIONS,
    MAX_GUEST_CONNECTIONS,
    MAX_GUEST_HOST_CONNECTIONS,
    MAX_HOST_CONNECTIONS,
    MAX_PREFIX_CONNECTIONS,
    RESERVED_FILES,
)
from hfpeer.net.address import parse_ip
from hfpeer.net.networks import prefix_of

SETTLED_SECONDS = 1.0
"""A connection that has been idle for less than this many seconds is not ended: its next request may be on its way."""
MIN_CROWD_CONNECTIONS = 8
"""From this many connections on, a host can lose busy ones."""


class Connection(Protocol):
    """One connection of a door."""

    @property
    def idle_since(self) -> float | None:
        """When the connection became idle, on the monotonic clock; None while a request or a response is under way."""
        ...

    @property
    def has_received(self) -> bool:
        """Whether a byte has been received on it."""
        ...

    def abort(self) -> None:
        """Ends it at once. `Connections.remove` follows."""
        ...


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of one door: connections in all, of one host, of one IPv6 /64."""

    all: int
    host: int
    prefix: int


@dataclass(frozen=True)
class DoorBudgets:
    """The limits of each door: the LAN door for other machines and for this one; the endpoint for local tools and for
    guests, which are other machines; the control door."""

    lan: ConnectionLimits
    lan_local: ConnectionLimits
    local: ConnectionLimits
    guests: ConnectionLimits
    control: ConnectionLimits

    @classmethod
    def of(cls, max_files: int) -> DoorBudgets:
        """For a process with `max_files` descriptors, of which a part is reserved for files and the control door."""
        reserved = min(RESERVED_FILES, max_files // 4)
        control = min(MAX_CONTROL_CONNECTIONS, max(8, max_files // 16))
        # The LAN door for other machines and the endpoint for local tools get the same. The LAN door for this machine
        # gets half of that, and the endpoint's guests a quarter.
        share = max(8, (max_files - reserved - control) * 4 // 11)
        lan = min(MAX_DOOR_CONNECTIONS, share)
        guests = min(MAX_GUEST_CONNECTIONS, share // 4)
        return cls(
            lan=ConnectionLimits(lan, min(MAX_HOST_CONNECTIONS, lan // 4), min(MAX_PREFIX_CONNECTIONS, lan // 2)),
            lan_local=ConnectionLimits(lan // 2, lan // 2, lan // 2),
            local=ConnectionLimits(lan, lan, lan),
            guests=ConnectionLimits(guests, min(MAX_GUEST_HOST_CONNECTIONS, guests // 4), guests // 2),
            control=ConnectionLimits(control, control, control),
        )


class Connections:
    """The connections that share one set of limits."""

    def __init__(self, limits: ConnectionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._hosts: dict[Hashable, set[Connection]] = defaultdict(set)
        self._prefixes: dict[Hashable, set[Connection]] = defaultdict(set)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, host: str) -> bool:
        """Whether one more connection of `host` is accepted. May end another one for it, of the same host or of the
        host with the most."""
        own = self._hosts.get(host, set())
        if len(own) >= self._limits.host and not self._end_idle_of(own):
            return False
        prefix = self._prefixes.get(_prefix(host), set())
        if len(prefix) >= self._limits.prefix and not self._end_idle_of(prefix):
            return False
        return self._count < self._limits.all or self._make_room(len(own))

    def add(self, host: str, connection: Connection) -> None:
        self._hosts[host].add(connection)
        self._count += 1
        if (prefix := _prefix(host)) is not None:
            self._prefixes[prefix].add(connection)

    def remove(self, host: str, connection: Connection) -> None:
        """Does nothing for a connection that has been removed already."""
        if connection not in self._hosts.get(host, ()):
            return
        self._count -= 1
        for groups, key in ((self._hosts, host), (self._prefixes, _prefix(host))):
            group = groups.get(key)
            if group is not None:
                group.discard(connection)
                if not group:
                    del groups[key]

    def end_idle(self) -> bool:
        """Ends an idle connection of the host with the most, when the process has no descriptor left. Returns whether
        there was one."""
        return any(self._end_idle_of(group) for group in sorted(self._hosts.values(), key=len, reverse=True))

    def _end_idle_of(self, group: set[Connection]) -> bool:
        """Ends the connection of `group` that has been idle longest; those that never received a byte first."""
        idle = [(not one.has_received, self._idle_seconds(one), id(one), one) for one in group]
        settled = [found for found in idle if found[1] >= SETTLED_SECONDS]
        if settled:
            max(settled)[-1].abort()
        return bool(settled)

    def _make_room(self, own: int) -> bool:
        """Ends a connection of a host that has more than `own`, the number of the new connection's host."""
        larger = [group for group in self._hosts.values() if len(group) > own]
        idle = [
            (len(group), not one.has_received, seconds, id(one), one)
            for group in larger
            for one in group
            if (seconds := self._idle_seconds(one)) >= (0.0 if len(group) > own + 1 else SETTLED_SECONDS)
        ]
        if idle:
            max(idle)[-1].abort()
            return True
        crowd = max(larger, key=len, default=set())
        if len(crowd) < max(MIN_CROWD_CONNECTIONS, 2 * (own + 1)):
            return False
        next(iter(crowd)).abort()
        return True

    def _idle_seconds(self, connection: Connection) -> float:
        """Seconds idle; -1 for a busy connection."""
        since = connection.idle_since
        return -1.0 if since is None else self._clock() - since


def _prefix(host: str) -> Hashable | None:
    ip = parse_ip(host)
    return None if ip is None else prefix_of(ip)
