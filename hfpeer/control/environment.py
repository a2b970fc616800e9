"""Tells in which variables the environment of a daemon differs from that of a command, by digests, never by values.

A daemon keeps the environment of the process that started it. A variable counts only if something follows from the
difference: two spellings of one proxy are no difference.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hfpeer.config.settings import KEYS, Settings, setting_text
from hfpeer.control.holder import find_holder
from hfpeer.errors import HfpeerError
from hfpeer.net.address import ENDPOINT_PORT, Address
from hfpeer.net.proxies import ProxyRules, UnusableProxy
from hfpeer.system.ownership import read_own, write_own
from hfpeer.upstream.auth import environment_token

TOLD_FILE = "told.json"
"""The file below home with the digests of the differences that were told."""
MAX_TOLD = 32
HUBS, PROXIES, CERTIFICATES, CACHE, TOKEN = "hubs", "proxies", "certificates", "cache", "token"
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_HOMES = ("HF_HOME", "XDG_CACHE_HOME")
TOPICS: Mapping[str, tuple[str, ...]] = {
    HUBS: ("HFPEER_UPSTREAMS", "HFPEER_OFFLINE"),
    PROXIES: ("HFPEER_PROXY", *_PROXIES, *map(str.upper, _PROXIES)),
    CERTIFICATES: ("HFPEER_CA", *_CERTIFICATES),
    CACHE: ("HFPEER_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", *_HOMES),
    TOKEN: (*_TOKENS, "HF_TOKEN_PATH", *_HOMES, "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
    "registry_password": ("HFPEER_REGISTRY_PASSWORD",),
    "modelscope.endpoint": ("HFPEER_MODELSCOPE_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
}
"""Topic -> the variables that decide it. Each other setting is a topic of its own name."""
_IN_TOPICS = {"upstreams", "offline", "proxy", "ca", "cache"}
_TOPIC_OF_KEYS = {key.name: (key.variable,) for key in KEYS.values() if key.name not in _IN_TOPICS}
ALL_TOPICS: Mapping[str, tuple[str, ...]] = {**_TOPIC_OF_KEYS, **TOPICS}


OF_THE_DAEMON = frozenset(
    name
    for name in _TOPIC_OF_KEYS
    if name.startswith(("endpoint.", "lan.", "log.", "prepared.", "partials.", "transfers."))
    or name in ("name", "accept_requests", "request_key_file")
)
"""The topics from which nothing follows for the work that a command asks for."""


@dataclass(frozen=True)
class Digests:
    """An environment without its values: salted digests of what follows from it, by topic, and of each variable that
    is set."""

    salt: str
    effects: Mapping[str, str]
    variables: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """What a daemon does by another environment than the command's. `key` is the same for the same difference, until
    the daemon starts anew. `variables` are those in which a daemon differs."""

    key: str
    variables: tuple[str, ...]
    sentence: str
    hint: str

    def __str__(self) -> str:
        return f"{self.sentence} {self.hint}"


def digests_of(settings: Settings, environ: Mapping[str, str], salt: str) -> Digests:
    """The digests of an environment, with the settings that were read from it."""

    def digest(text: str) -> str:
        return hmac.new(salt.encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:32]

    names = {name for variables in ALL_TOPICS.values() for name in variables}
    effects = dict(_effects(settings, environ))
    return Digests(
        salt,
        {topic: digest(text) for topic, text in effects.items()},
        {name: digest(environ[name]) for name in sorted(names & environ.keys())},
    )


def find_difference(
    settings: Settings, environ: Mapping[str, str], daemon: object, *, without: Collection[str] = ()
) -> Difference | None:
    """The difference between the environment of a command and the digests that a daemon told; None if nothing follows
    from it. `settings` are those of the command; topics of `without` are passed over."""
    try:
        theirs = Digests(**daemon)  # type: ignore[arg-type] # what another process told
        mine = digests_of(settings, environ, theirs.salt)
        names = _differing(mine, theirs, without)
    except (TypeError, AttributeError):  # a daemon of another version
        return None
    if not names:
        return None
    told = ", ".join(f"{name}={mine.variables.get(name)}" for name in names)
    return Difference(
        hashlib.sha256(f"{theirs.salt} {told}".encode()).hexdigest()[:32],
        tuple(names),
        f"The daemon was started in an environment that differs from this shell's in {', '.join(names)}, "
        "and works by its own.",
        _how_to_mend(settings),
    )


def passed_over_hub(settings: Settings, environ: Mapping[str, str]) -> Difference | None:
    """The difference between HF_ENDPOINT and the hubs that hfpeer asks; None if it names one of them, or the endpoint
    of a node."""
    url = environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not url or settings.is_offline or any(url == upstream.url for upstream in settings.upstreams):
        return None
    asked = ", ".join(upstream.name for upstream in settings.upstreams) or "no hub"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        is_url = bool(host) and parts.scheme in ("http", "https")
    except ValueError:
        is_url = False
    if not is_url:
        return Difference(
            hashlib.sha256(f"{url} {asked}".encode()).hexdigest()[:32],
            (),
            f"HF_ENDPOINT is no address of a hub; hfpeer asks {asked}.",
            "It has to begin with http:// or https://. Other tools read it too: mend or unset it.",
        )
    own_port = settings.endpoint_listen.port
    is_own = Address(host or "", 0).is_loopback if own_port == 0 else port == own_port
    if is_own or port == ENDPOINT_PORT:
        return None
    named = url if "@" not in url else "URL"
    return Difference(
        hashlib.sha256(f"{url} {asked}".encode()).hexdigest()[:32],
        (),
        f"HF_ENDPOINT names {host}, which hfpeer does not ask: it asks {asked}.",
        f"To ask that hub: `hfpeer conf set upstreams origin={named}`.",
    )


def is_first_time(home: Path, difference: Difference) -> bool:
    """Whether a difference was not told before; from now on it was. Where home cannot be written, it is new each
    time."""
    path = home / TOLD_FILE
    try:
        found = json.loads(read_own(path))
        told = [str(key) for key in found] if isinstance(found, list) else []
    except (OSError, ValueError, HfpeerError):
        told = []
    if difference.key in told:
        return False
    try:
        write_own(path, json.dumps([*told[1 - MAX_TOLD :], difference.key]).encode())
    except (OSError, HfpeerError):
        pass
    return True


def _how_to_mend(settings: Settings) -> str:
    """A restart gives a detached daemon another environment. Any other daemon gets its own from what starts it."""
    holder = find_holder(settings.places.pid_file)
    if holder is not None and holder.service is not None:
        return (
            f"Set them in its unit: `{holder.service.command('edit')}` with lines Environment=NAME=VALUE, "
            f"then `{holder.service.command('restart')}`."
        )
    if holder is not None and holder.is_in_place:
        return "Set them where it is started, and start it again there."
    return "`hfpeer daemon restart` gives it the environment of this shell."


def _differing(mine: Digests, theirs: Digests, without: Collection[str]) -> list[str]:
    names = dict[str, None]()
    for topic, variables in ALL_TOPICS.items():
        if topic not in without and mine.effects[topic] != theirs.effects.get(topic, mine.effects[topic]):
            names.update(dict.fromkeys(name for name in variables if _of(mine, name) != _of(theirs, name)))
    return list(names)


def _of(digests: Digests, variable: str) -> str | None:
    return digests.variables.get(variable)


def _effects(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Topic -> a text that is the same where the same follows. It may hold passwords."""
    for name in _TOPIC_OF_KEYS:
        yield name, setting_text(settings, KEYS[name])
    yield HUBS, f"{settings.is_offline} {setting_text(settings, KEYS['upstreams'])}"
    yield PROXIES, "\n".join(_proxies(settings, environ))
    speaks_tls = any(upstream.url.startswith("https:") for upstream in settings.upstreams)
    certificates = [settings.ca or "", *(environ.get(name, "") for name in _CERTIFICATES)]
    yield CERTIFICATES, "\n".join(certificates) if speaks_tls else ""
    yield CACHE, str(settings.cache)
    stored = [environ.get(name, "") for name in ("HF_TOKEN_PATH", *_HOMES)]
    yield TOKEN, environment_token(environ) or "\n".join(["stored", *stored])
    yield "registry_password", settings.registry_password or ""


def _proxies(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """The proxy to each hub, as the daemon would choose it."""
    rules = ProxyRules(environ, settings.proxy)
    for upstream in settings.upstreams:
        url = urlsplit(upstream.url)
        try:
            proxy = rules.proxy_for(url.scheme, url.hostname or "", url.port)
        except UnusableProxy as error:
            yield str(error)
        else:
            yield proxy.url if proxy else ""
