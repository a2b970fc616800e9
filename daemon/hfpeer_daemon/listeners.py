"""The daemon's own sockets, bound before anything else starts, and who holds an address that is taken."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hfpeer.errors import AddressInUse, BrokenCache, DaemonError, InvalidName
from hfpeer.names import Address

BACKLOG = 512
LOWER_EFFORT = 1 << 2
"""The code point of RFC 8622, as it stands in the octet of IP_TOS."""
_LISTENING = "0A"
"""The state TCP_LISTEN in /proc/net/tcp."""


@dataclass(frozen=True)
class Taker:
    """The process that listens at an address."""

    pid: int
    command: str


def listen_tcp(address: Address, setting: str) -> socket.socket:
    """A listening socket; 0.0.0.0 takes IPv6 as well where the system can. Port 0 means any.

    `setting` is the key that says otherwise. Raises AddressInUse, naming the taker, InvalidName for an address that
    is not this machine's, DaemonError for a port that may not be used.
    """
    if address.host == "0.0.0.0" and socket.has_dualstack_ipv6():
        both = Address("::", address.port)
        with suppress(OSError):
            return _listen(both, is_dual=True)
    try:
        return _listen(address, is_dual=address.host == "::" and socket.has_dualstack_ipv6())
    except OSError as error:
        raise _refusal(address, setting, error) from error


def bound_address(listener: socket.socket) -> Address:
    """Where the socket listens, with the port it got; a dual-stack socket as 0.0.0.0."""
    host, port = listener.getsockname()[:2]
    return Address("0.0.0.0" if host == "::" else host, port)


def send_after_others(listener: socket.socket) -> None:
    """What the connections of a listener send is of lower effort (RFC 8622) than all else that leaves this machine.

    A queue that tells classes apart, here or on the way, lets the user's own packets go first; any other ignores it.
    """
    options = [(socket.IPPROTO_IP, socket.IP_TOS, LOWER_EFFORT)]
    if listener.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, LOWER_EFFORT))
    for level, name, value in options:
        with suppress(OSError):
            listener.setsockopt(level, name, value)


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner may open. A file left there by a dead daemon is replaced: the
    caller holds the home's lock. Raises BrokenCache."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_foreign_folder(path.parent)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        # Nobody can connect before `listen`, so there is no moment at which others may.
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BrokenCache(f"The control socket {path} cannot be made: {error}.", hint="Check HFPEER_HOME.") from error
    listener.setblocking(False)
    return listener


def find_taker(port: int) -> Taker | None:
    """Who listens on a TCP port, as far as this user may see. Linux only; None elsewhere."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(Path("/proc/net") / table, port)}
    return next(_holders(inodes), None) if inodes else None


def _listen(address: Address, *, is_dual: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    target = (
        socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        if family is socket.AF_INET6
        else (address.host, address.port)
    )
    # Named, because asyncio sends at once (TCP_NODELAY) only on sockets whose protocol says that they are TCP.
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
    taker = find_taker(address.port)
    by = f"process {taker.pid} ({taker.command})" if taker else "another process"
    return AddressInUse(
        f"{address} is taken by {by}.",
        hint=f"Stop that one, or choose another port: hfpeer conf set {setting} {address.host}:PORT",
        address=str(address),
        pid=taker.pid if taker else None,
        command=taker.command if taker else None,
    )


def _refuse_foreign_folder(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(errno.EPERM, f"{folder} belongs to user {owner}")


def _listening_inodes(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for columns in map(str.split, lines):
        if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
            yield columns[9]


def _holders(inodes: set[str]) -> Iterator[Taker]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        if wanted & set(_open_files(process)):
            yield Taker(int(process.name), _command(process))


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
