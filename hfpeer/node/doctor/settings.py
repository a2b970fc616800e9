"""Tries a new value of a setting as the next start of the daemon will use it, so that a bad one is refused at once.

Binds a port for a moment and reads files; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfpeer.config.keys import Key
from hfpeer.config.settings import Settings
from hfpeer.control.holder import find_holder
from hfpeer.control.ports import listen_tcp
from hfpeer.errors import AddressInUse, BrokenCache, InvalidName
from hfpeer.net.address import Address
from hfpeer.node.operations.cache.folders import choose_other
from hfpeer.upstream.connection.certificates import UnusableCertificates, tls_context

LISTENERS = {"lan.listen": "endpoint.listen", "endpoint.listen": "lan.listen"}


def try_setting(key: Key, value: Any, settings: Settings) -> None:
    """Tries the value of a key beside the settings in force. Raises what would be wrong at the next start, as
    AddressInUse, InvalidName, NotFound, BrokenCache or MissingExtra."""
    trial = _TRIALS.get(key.name)
    if trial is not None and value is not None:
        trial(key.name, value, settings)


def _listener(name: str, address: Address, settings: Settings) -> None:
    other = settings.endpoint_listen if name == "lan.listen" else settings.lan_listen
    if address.port and address.port == other.port and _overlap(address.host, other.host):
        raise InvalidName(
            f"{address} overlaps {other}, where {LISTENERS[name]} is.",
            hint="Choose another port.",
            address=str(address),
        )
    try:
        listen_tcp(address, name).close()
    except AddressInUse as error:
        holder, owner = find_holder(settings.places.pid_file), error.facts.get("pid")
        if holder is None or owner not in (None, holder.pid):
            raise


def _overlap(one: str, other: str) -> bool:
    return one == other or not {one, other}.isdisjoint(("0.0.0.0", "::"))


def _read_caches(name: str, folders: tuple[Path, ...], settings: Settings) -> None:
    known = list(settings.read_caches)
    for folder in folders:
        if folder not in known:
            choose_other(folder, settings.cache, known)
            known.append(folder)


def _certificates(name: str, place: str, settings: Settings) -> None:
    try:
        tls_context({}, place)
    except UnusableCertificates as error:
        reason = str(error).partition(f" names {place}")[2].lstrip(":, ")
        raise InvalidName(
            f"{place} cannot be used: {reason}.", hint="Name a file in PEM format, or a folder of such files."
        ) from error


def _password_file(name: str, path: Path, settings: Settings) -> None:
    try:
        path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BrokenCache(f"{path} cannot be read: {reason}.", hint="Check the path and its permissions.") from error


def _request_key(name: str, path: Path, settings: Settings) -> None:
    from hfpeer.node.operations.fleet.request_key import read_request_key  # most nodes have none

    read_request_key(path)


def _registry(name: str, url: str, settings: Settings) -> None:
    from hfpeer.peers.discovery.registry import need_redis  # most nodes have none

    need_redis()


_TRIALS: dict[str, Callable[[str, Any, Settings], None]] = {
    "lan.listen": _listener,
    "endpoint.listen": _listener,
    "read_caches": _read_caches,
    "ca": _certificates,
    "registry": _registry,
    "registry_password_file": _password_file,
    "request_key_file": _request_key,
}
"""Key -> its trial. All other values are known to be good when they are parsed; `cache` is tried by `choose_first`."""
