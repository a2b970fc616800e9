"""What can be set, from where it was read, and how it is written back.

Settings are one frozen object, read once where a process starts: defaults, then the file, then the environment
`HFPEER_*`, each overriding the one before. The file is TOML and keeps its comments when a key is changed.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.names import ENDPOINT_PORT, LAN_PORT, Address
from hfpeer.paths import Places, chosen_cache, default_cache, default_home
from hfpeer.rates import Schedule, parse_schedule

if TYPE_CHECKING:
    import tomlkit

UpstreamKind: TypeAlias = Literal["mirror", "origin"]
DEFAULT_UPSTREAMS = "mirror=https://hf-mirror.com,origin=https://huggingface.co"


@dataclass(frozen=True)
class UpstreamSetting:
    """An HTTP hub: `kind` decides the order and whether it may see a token; `url` has no trailing slash."""

    kind: UpstreamKind
    url: str

    @property
    def name(self) -> str:
        """What people see: the host, with the port where there is one."""
        return urlsplit(self.url).netloc

    def __str__(self) -> str:
        return f"{self.kind}={self.url}"


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, read once. `origins` says for each key where its value came from.

    `peers` are all that are named, `added_peers` those that the file names.
    """

    places: Places
    name: str
    lan_listen: Address
    endpoint_listen: Address
    endpoint_names: tuple[str, ...]
    ref_seconds: float
    stale_refs: Literal["serve", "refuse"]
    offline_days: float
    upstreams: tuple[UpstreamSetting, ...]
    sends_token_to_mirrors: bool
    uses_mdns: bool
    peers: tuple[Address, ...]
    added_peers: tuple[Address, ...]
    trusts_attested: bool
    patience_seconds: float
    lan_up_limit: Schedule
    lan_down_limit: Schedule
    wan_down_limit: Schedule
    log_level: str
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Key:
    """One setting: its dotted name, its default as text, what it does, and how its text is read."""

    name: str
    default: str
    summary: str
    parse: Callable[[str], Any]

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return "HFPEER_" + self.name.upper().replace(".", "_")


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise InvalidName(f"{text!r} is neither true nor false.", hint="Use true or false.", value=text)


def _upstreams(text: str) -> tuple[UpstreamSetting, ...]:
    return tuple(_upstream(part.strip()) for part in text.split(",") if part.strip())


def _upstream(text: str) -> UpstreamSetting:
    kind, _, url = text.partition("=")
    parts = urlsplit(url)
    if kind not in ("mirror", "origin") or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidName(
            f"{text!r} is not an upstream.",
            hint="Write mirror=URL or origin=URL, separated by commas, in the order in which they are asked; "
            "empty means none.",
            value=text,
        )
    return UpstreamSetting("mirror" if kind == "mirror" else "origin", url.rstrip("/"))


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(Address.parse(part.strip()) for part in text.split(",") if part.strip())


def _host_names(text: str) -> tuple[str, ...]:
    return tuple(_host_name(part.strip()) for part in text.split(",") if part.strip())


def _host_name(text: str) -> str:
    address = Address.parse(text)
    if text.lower() != address.host:
        raise InvalidName(f"{text!r} is not a host name.", hint="Give the name alone: models.example.", value=text)
    return address.host


def _node_name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,63}", text):
        raise InvalidName(
            f"{text!r} is not a name for a node.", hint="Letters, digits, '.', '-', '_'; at most 63.", value=text
        )
    return text


def _log_level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise InvalidName(f"{text!r} is not a log level.", hint="debug, info, warning or error.", value=text)
    return text.lower()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86400:
        raise InvalidName(f"{text!r} is not a time.", hint="Give seconds, more than 0, at most 86400.", value=text)
    return seconds


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 3650:
        raise InvalidName(f"{text!r} is not a number of days.", hint="Give days, from 0 to 3650.", value=text)
    return days


def _stale_refs(text: str) -> str:
    if text.lower() not in ("serve", "refuse"):
        raise InvalidName(f"{text!r} is neither serve nor refuse.", hint="serve or refuse.", value=text)
    return text.lower()


def _folder(text: str) -> Path:
    path = Path(os.path.expandvars(text)).expanduser()
    if not path.is_absolute():
        raise InvalidName(f"{text!r} is not an absolute path.", hint="Give the whole path of the folder.", value=text)
    return path


def _this_host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname().split(".")[0])[:63] or "node"


KEYS: tuple[Key, ...] = (
    Key("name", "", "what other nodes call this one; empty means the host's name", _node_name),
    Key("cache", "", "the Hugging Face hub cache; empty means where huggingface_hub has it", _folder),
    Key(
        "lan.listen",
        f"0.0.0.0:{LAN_PORT}",
        "where peers reach this node",
        lambda text: Address.parse(text, LAN_PORT, is_listener=True),
    ),
    Key(
        "endpoint.listen",
        f"127.0.0.1:{ENDPOINT_PORT}",
        "where local tools reach this node",
        lambda text: Address.parse(text, ENDPOINT_PORT, is_listener=True),
    ),
    Key(
        "endpoint.names",
        "",
        "names of this machine, beside its own, by which the endpoint may be asked, separated by commas",
        _host_names,
    ),
    Key("endpoint.ref_ttl", "60", "seconds for which the endpoint knows what a branch or tag is", _seconds),
    Key(
        "endpoint.stale_refs",
        "serve",
        "old answers about a branch when no hub answers: serve or refuse",
        _stale_refs,
    ),
    Key(
        "endpoint.offline_days",
        "7",
        "days for which a token once accepted opens cached repos while no hub answers",
        _days,
    ),
    Key("upstreams", DEFAULT_UPSTREAMS, "the hubs to ask after the peers, in order", _upstreams),
    Key("mirror.send_token", "false", "whether mirrors may see your Hugging Face token", _boolean),
    Key("mdns", "true", "whether to announce this node and find others by mDNS", _boolean),
    Key(
        "peers",
        "",
        "static peers, HOST[:PORT], separated by commas; the environment's are added to the file's",
        _addresses,
    ),
    Key("trust.attested", "false", "whether to take listings without proof from peers", _boolean),
    Key("patience", "60", "seconds without a byte from anybody after which an add gives up", _seconds),
    Key("limit.lan_up", "none", "what peers may take in all: 200mbit, 25MB, 08:00-18:00=100mbit,none", parse_schedule),
    Key("limit.lan_down", "none", "what may come from peers in all, written the same", parse_schedule),
    Key("limit.wan_down", "none", "what may come from mirrors and the origin in all, written the same", parse_schedule),
    Key("log.level", "info", "debug, info, warning or error", _log_level),
)
LISTS = ("peers", "endpoint.names")
"""Settings whose empty text is an empty list."""
BY_NAME: Mapping[str, Key] = {key.name: key for key in KEYS}


def read_settings(environ: Mapping[str, str], *, home: Path | None = None) -> Settings:
    """Reads the settings: defaults, the file below home, the environment.

    An empty environment variable counts as set for `upstreams` (none), as unset for the others. Peers add up: the
    environment must not hide those that were added with a command.
    Raises InvalidName, naming the key and where its value came from.
    """
    home = home or default_home(environ)
    file_values = _read_file(home / "settings.toml")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key in KEYS:
        text, origin = _text_of(key, file_values, environ)
        origins[key.name] = origin
        values[key.name] = _parse(key, text, origin)
    added_peers = _parse(BY_NAME["peers"], file_values.get("peers", ""), "file")
    if added_peers and origins["peers"] != "file":
        values["peers"] = tuple(dict.fromkeys([*values["peers"], *added_peers]))
        origins["peers"] = f"file and {origins['peers']}"
    cache, origins["cache"] = _cache(values["cache"], origins["cache"], environ)
    return Settings(
        places=Places(home, cache),
        name=values["name"] or _this_host(),
        lan_listen=values["lan.listen"],
        endpoint_listen=values["endpoint.listen"],
        endpoint_names=values["endpoint.names"],
        ref_seconds=values["endpoint.ref_ttl"],
        stale_refs=values["endpoint.stale_refs"],
        offline_days=values["endpoint.offline_days"],
        upstreams=values["upstreams"],
        sends_token_to_mirrors=values["mirror.send_token"],
        uses_mdns=values["mdns"],
        peers=values["peers"],
        added_peers=added_peers,
        trusts_attested=values["trust.attested"],
        patience_seconds=values["patience"],
        lan_up_limit=values["limit.lan_up"],
        lan_down_limit=values["limit.lan_down"],
        wan_down_limit=values["limit.wan_down"],
        log_level=values["log.level"],
        origins=origins,
    )


def setting_text(settings: Settings, name: str) -> str:
    """The value in force of one key, as text that `write_setting` takes. Raises InvalidName for an unknown key."""
    value: Any = {
        "name": settings.name,
        "cache": settings.places.cache,
        "lan.listen": settings.lan_listen,
        "endpoint.listen": settings.endpoint_listen,
        "endpoint.names": settings.endpoint_names,
        "endpoint.ref_ttl": settings.ref_seconds,
        "endpoint.stale_refs": settings.stale_refs,
        "endpoint.offline_days": settings.offline_days,
        "upstreams": settings.upstreams,
        "mirror.send_token": settings.sends_token_to_mirrors,
        "mdns": settings.uses_mdns,
        "peers": settings.peers,
        "trust.attested": settings.trusts_attested,
        "patience": settings.patience_seconds,
        "limit.lan_up": settings.lan_up_limit,
        "limit.lan_down": settings.lan_down_limit,
        "limit.wan_down": settings.wan_down_limit,
        "log.level": settings.log_level,
    }[find_key(name).name]
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def find_key(name: str) -> Key:
    """The key called `name`. Raises InvalidName that lists the keys there are."""
    if name not in BY_NAME:
        raise InvalidName(f"There is no setting {name!r}.", hint=f"The settings are: {', '.join(BY_NAME)}.", key=name)
    return BY_NAME[name]


def write_setting(home: Path, name: str, text: str | None) -> None:
    """Sets one key in the file below `home`, or takes it out (None). Comments and order in the file stay.

    Raises InvalidName for an unknown key or a bad value, BrokenCache when the file cannot be written.
    """
    key = find_key(name)
    if text is not None:
        _parse(key, text, "the command line")
    path = home / "settings.toml"
    document = _load(path)
    *tables, last = name.split(".")
    table: Any = document
    for part in tables:
        table = table.setdefault(part, {})
    if text is None:
        table.pop(last, None)
    else:
        table[last] = text
    _replace(path, document)


def _text_of(key: Key, file_values: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str]:
    overriding = environ.get(key.variable)
    if overriding or (overriding is not None and key.name == "upstreams"):
        return overriding, f"environment {key.variable}"
    if key.name in file_values:
        return file_values[key.name], "file"
    return key.default, "default"


def _parse(key: Key, text: str, origin: str) -> Any:
    if not text and not key.default:
        return key.parse("") if key.name in LISTS else None
    try:
        return key.parse(text)
    except InvalidName as error:
        raise InvalidName(
            f"The setting {key.name} (from {origin}): {error.message}", hint=error.hint, key=key.name, **error.facts
        ) from error


def _cache(from_settings: Path | None, origin: str, environ: Mapping[str, str]) -> tuple[Path, str]:
    from_environment = chosen_cache(environ)
    if from_environment is not None:
        return from_environment, "environment"
    return (from_settings, origin) if from_settings else (default_cache(environ), "default")


def _read_file(path: Path) -> dict[str, str]:
    flat: dict[str, str] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            dotted = f"{prefix}{name}"
            if isinstance(value, Mapping):
                walk(f"{dotted}.", value)
            elif dotted not in BY_NAME:
                raise InvalidName(
                    f"{path} sets {dotted!r}, which is no setting.", hint=f"The settings are: {', '.join(BY_NAME)}."
                )
            else:
                flat[dotted] = ",".join(map(str, value)) if isinstance(value, list) else _as_text(value)

    walk("", _values(path))
    return flat


def _values(path: Path) -> Mapping[str, Any]:
    """What the file sets. All commands read it, few write it: Python's own reader, where it has one, is sooner here."""
    if not path.exists():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        except tomllib.TOMLDecodeError as error:
            raise _not_toml(path, error) from error
    return _load(path).unwrap()


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _load(path: Path) -> tomlkit.TOMLDocument:
    import tomlkit
    import tomlkit.exceptions

    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    except tomlkit.exceptions.ParseError as error:
        raise _not_toml(path, error) from error


def _unreadable(path: Path, error: Exception) -> BrokenCache:
    return BrokenCache(f"The settings file {path} cannot be read: {error}.", hint="Check its permissions.")


def _not_toml(path: Path, error: Exception) -> InvalidName:
    return InvalidName(f"The settings file {path} is not TOML: {error}.", hint="Mend it, or delete it.")


def _replace(path: Path, document: tomlkit.TOMLDocument) -> None:
    import tomlkit

    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(tomlkit.dumps(document), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise BrokenCache(f"The settings file {path} cannot be written: {error}.", hint="Check the folder.") from error
