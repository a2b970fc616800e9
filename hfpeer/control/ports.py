"""Binds the TCP ports of a node, and names the process that has one already."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hfpeer.control.other_daemons import daemon_of, listeners
from hfpeer.errors import AddressInUse, DaemonError, InvalidName
from hfpeer.net.address import Address
from hfpeer.system.ownership import user_name

BACKLOG = 512


@dataclass(frozen=True)
class PortOwner:
    """The process that listens at an address."""

    pid: int
    command: str


def listen_tcp(address: Address, setting: str) -> socket.socket:
    """A listening socket. 0.0.0.0 accepts IPv6 as well if the system can. Port 0 means any free port.

    `setting` is the key of the address, for messages. Raises AddressInUse, naming the owner; InvalidName for an address
    that this machine does not have; DaemonError for a port without permission.
    """
    if address.host == "0.0.0.0" and socket.has_dualstack_ipv6():
        both = Address("::", address.port)
        with suppress(OSError):
            return _listen(both, is_dual=True)
    try:
        return _listen(address, is_dual=address.host == "::" and socket.has_dualstack_ipv6())
    except OSError as error:
        raise _refusal(address, setting, error) from error


def find_port_owner(port: int) -> PortOwner | None:
    """The process that listens on a TCP port, if this user may see it. Linux only; None elsewhere."""
    inodes = {one.inode for one in listeners() if one.local[1] == port}
    return next(_owners(inodes), None) if inodes else None


def _listen(address: Address, *, is_dual: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    target = (
        socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        if family is socket.AF_INET6
        else (address.host, address.port)
    )
    # With the protocol, because asyncio sets TCP_NODELAY only on sockets whose protocol is IPPROTO_TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not is_dual))
        listener.bind(target)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _refusal(address: Address, setting: str, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return _in_use(address, setting)
    if error.errno in (errno.EACCES, errno.EPERM):
        return DaemonError(f"hfpeer may not listen on {address}.", hint=f"hfpeer conf set {setting} HOST:PORT")
    return InvalidName(
        f"hfpeer cannot listen on {address}: {error.strerror or error}.",
        hint=f"hfpeer conf set {setting} HOST:PORT, with an address of this machine.",
        address=str(address),
    )


def _in_use(address: Address, setting: str) -> AddressInUse:
    owner = find_port_owner(address.port)
    others = [one.uid for one in listeners() if one.local[1] == address.port and one.uid != os.geteuid()]
    daemon = daemon_of(others[0]) if others else None
    by = f"process {owner.pid} ({owner.command})" if owner else "another process"
    by += f" of user {user_name(others[0])}" if others else ""
    hint = f"Stop that one, or choose another port: hfpeer conf set {setting} {address.host}:PORT"
    if daemon is not None:
        hint = f"{daemon.sentence} Or choose another port: hfpeer conf set {setting} {address.host}:PORT"
    return AddressInUse(
        f"{address} is taken by {by}.",
        hint=hint,
        address=str(address),
        pid=owner.pid if owner else None,
        command=owner.command if owner else None,
    )


def _owners(inodes: set[str]) -> Iterator[PortOwner]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        if wanted & set(_open_files(process)):
            yield PortOwner(int(process.name), _command(process))


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(link.readlink())


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode(errors="replace").strip()[:200] or (process / "comm").read_text().strip()
    except OSError:
        return "?"
