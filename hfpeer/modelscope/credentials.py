"""The ModelScope token where ModelScope's own tools keep it: a cookie jar in `~/.modelscope/credentials/cookies`.

hfpeer keeps no second one. The jar is a pickle of the class that `requests` has. A pickle can run any program, so this
module reads only a file of this user that no other user may write, and lets it make nothing but inert objects. It
writes the same pickle byte by byte, without `requests`.
Source: modelscope_hub `HubConfig.save_token`, `load_token`, `clear_token`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import Cookie, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hfpeer.budgets import MAX_COOKIE_FILE_BYTES
from hfpeer.config.paths import user_home
from hfpeer.errors import AccessDenied, BrokenCache
from hfpeer.modelscope.names import is_host_of
from hfpeer.system.ownership import open_own, user_name, write_own

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "MODELSCOPE_API_TOKEN"
"""The environment variable that outweighs the stored token; empty, it makes requests anonymous."""
COOKIE_NAME = "m_session_id"
KEPT_SECONDS = 30 * 24 * 3600
"""Seconds after which ModelScope's tools take a stored token for expired."""
_JAR = ("requests.cookies", "RequestsCookieJar")


class Credentials:
    """The stored login of one user. `environ` is the environment of the process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        home = environ.get("MODELSCOPE_HOME")
        place = Path(home).expanduser() if home else user_home(environ) / ".modelscope"
        self.folder = place.absolute() / "credentials"

    @property
    def is_of_environment(self) -> bool:
        """Whether the environment names a token, which outweighs the stored one."""
        return TOKEN_VARIABLE in self._environ

    def token(self, endpoint: str) -> str | None:
        """The token for a site; None without one, or with one that was stored for another site.

        Raises BrokenCache for a file that another user made or may write.
        """
        if self.is_of_environment:
            return self._environ[TOKEN_VARIABLE].strip() or None
        return self._stored(urlsplit(endpoint).hostname or "")

    def _stored(self, host: str) -> str | None:
        raw = self._read_jar()
        for cookie in [] if raw is None else _cookies(raw):
            expires = cookie.get("expires")
            is_expired = isinstance(expires, (int, float)) and expires <= time.time()
            domain = str(cookie.get("domain") or "").lstrip(".").partition(":")[0]
            value = cookie.get("value")
            is_token = cookie.get("name") == COOKIE_NAME and isinstance(value, str) and value.isprintable()
            if is_token and not is_expired and is_host_of(domain, host):
                return str(value).strip() or None
        return None

    def store(self, token: str, endpoint: str, user: str, email: str) -> None:
        """Keeps a token for a site, with mode 0600, in place of any other. Raises BrokenCache."""
        host = urlsplit(endpoint).hostname or ""
        with _translated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            write_own(self.folder / "cookies", _jar_pickle(token, host, int(time.time()) + KEPT_SECONDS))
            write_own(self.folder / "user", f"{user}:{email}".encode())
            # A git token of another login would be found by ModelScope's tools beside this one.
            (self.folder / "git_token").unlink(missing_ok=True)

    def remove(self) -> bool:
        """Removes the stored login. Returns whether there was one. Raises BrokenCache."""
        found = False
        with _translated(self.folder):
            for name in ("cookies", "git_token", "user"):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()
                    found = True
        return found

    def _read_jar(self) -> bytes | None:
        path = self.folder / "cookies"
        try:
            with open(open_own(path, os.O_RDONLY), "rb") as file:
                facts = os.fstat(file.fileno())
                if stat.S_IMODE(facts.st_mode) & 0o022:
                    raise BrokenCache(
                        f"{path} may be written by other users, so hfpeer does not read it.",
                        hint=f"Take that right away: chmod 600 {path}. Then log in again: `hfpeer modelscope login`.",
                        path=str(path),
                    )
                raw = file.read(MAX_COOKIE_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unusable(path, error) from error
        return raw if len(raw) <= MAX_COOKIE_FILE_BYTES else None


def readable_token(endpoint: str) -> str | None:
    """The token for a site in the environment of this process; None also if the stored one cannot be used."""
    try:
        return Credentials(os.environ).token(endpoint)
    except BrokenCache as error:
        log.warning("The ModelScope token is not used: %s", error.message)
        return None


def environment_hint(credentials: Credentials) -> str:
    """A sentence on the token of the environment, or ""."""
    return f"{TOKEN_VARIABLE} in the environment outweighs the stored token." if credentials.is_of_environment else ""


def refuse_environment(credentials: Credentials) -> None:
    """Raises AccessDenied if a token remains in the environment, which only the user can remove."""
    if credentials.is_of_environment:
        raise AccessDenied(
            "The stored token is removed, but the environment still has one.",
            hint=f"Unset {TOKEN_VARIABLE} in your shell.",
        )


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(path: Path, error: OSError) -> BrokenCache:
    return BrokenCache(
        f"{path}, where ModelScope's tools keep the token, cannot be used: {error.strerror or error}.",
        hint=f"It must belong to {user_name(os.geteuid())}; or set {TOKEN_VARIABLE}.",
        path=str(path),
    )


# Reading


class _Inert:
    """Stands in for every object of a pickle. Its attributes are data."""


class _InertUnpickler(pickle.Unpickler):
    """Reads a pickle of a cookie jar. The classes that it names become inert; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("builtins", "object"), ("__builtin__", "object")):
            return object
        if module in ("copyreg", "copy_reg") and name == "_reconstructor":
            return lambda cls, base, state: _Inert()
        if (module, name) == _JAR or module in ("http.cookiejar", "cookielib"):
            return _Inert
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a cookie jar")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id")


def _cookies(raw: bytes) -> list[dict[str, Any]]:
    """The attributes of each cookie in a pickle; none for anything that is no cookie jar."""
    try:
        jar = _InertUnpickler(io.BytesIO(raw)).load()
        found = list(jar) if isinstance(jar, (list, tuple)) else list(_values(vars(jar).get("_cookies"), depth=3))
        return [vars(cookie) for cookie in found if isinstance(cookie, _Inert)]
    except Exception:  # noqa: BLE001 - damaged bytes can raise nearly anything
        return []


def _values(tree: Any, depth: int) -> Iterator[Any]:
    """The leaves of nested dictionaries: domain, path, name."""
    if depth == 0:
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _values(value, depth - 1)


# Writing


class _Made:
    """An object of a class that need not be importable here, and its attributes."""

    def __init__(self, module: str, name: str, state: Mapping[str, Any]) -> None:
        self.module, self.name, self.state = module, name, dict(state)


def _jar_pickle(token: str, domain: str, expires: int) -> bytes:
    """The pickle that `requests` makes of a jar with this one cookie."""
    cookie = Cookie(
        0, COOKIE_NAME, token, None, False, domain, True, False, "/", True, False, expires, False, None, None, {}
    )
    policy = _Made("http.cookiejar", "DefaultCookiePolicy", vars(DefaultCookiePolicy()))
    cookies = {domain: {"/": {COOKIE_NAME: _Made("http.cookiejar", "Cookie", vars(cookie))}}}
    return b"\x80\x02" + _pickled(_Made(*_JAR, {"_policy": policy, "_cookies": cookies})) + b"."


def _pickled(value: Any) -> bytes:
    """The opcodes of protocol 2 that make a value. Source: CPython `pickletools`."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case str():
            raw = value.encode()
            return b"X" + struct.pack("<I", len(raw)) + raw
        case tuple():
            return b"(" + b"".join(map(_pickled, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_pickled(key) + _pickled(item) for key, item in value.items()) + b"u"
        case _Made():
            made = f"c{value.module}\n{value.name}\n".encode() + b")\x81"
            return made + _pickled(value.state) + b"b"
        case _:
            raise TypeError(type(value).__name__)
