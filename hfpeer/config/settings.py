"""The table of all settings, and how they are read: defaults, then the file, then the environment `HFPEER_*`.

Each later source overrides the earlier ones. Settings are read once where a process starts, into one frozen object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from hfpeer.config import keys
from hfpeer.config.file import read_file
from hfpeer.config.keys import DEFAULT_UPSTREAMS, Advertised, Key, RepoPair, UpstreamSetting
from hfpeer.config.paths import Places, chosen_cache, datasets_cache, default_cache, default_home
from hfpeer.config.peer_names import PeerName, parse_peers
from hfpeer.errors import InvalidName
from hfpeer.net.address import ENDPOINT_PORT, LAN_PORT, Address
from hfpeer.net.networks import AllowedNetworks
from hfpeer.net.rates import Schedule, parse_schedule
from hfpeer.system.ownership import check_own_folder


@dataclass(frozen=True)
class Settings:
    """All settings of one node. This is the only list of them: each field that can be set names its Key, and the file,
    the environment, `conf` and the README follow from it, in this order."""

    home: Path
    name: Annotated[str, Key("name", "", "what other nodes call this one; empty means the host's name", keys.node_name)]
    cache: Annotated[
        Path, Key("cache", "", "the Hugging Face hub cache; empty means where huggingface_hub has it", keys.folder)
    ]
    read_caches: Annotated[
        tuple[Path, ...],
        Key(
            "read_caches",
            "",
            "more cache folders, which this node reads and shares and never writes, separated by commas",
            keys.folders,
            is_list=True,
        ),
    ]
    max_cache_bytes: Annotated[
        int | None,
        Key(
            "cache.max_size", "", "the size that the cache keeps below, such as 500GB; empty means no bound", keys.size
        ),
    ]
    min_free_bytes: Annotated[
        int | None,
        Key(
            "cache.min_free",
            "",
            "the space that stays free on the volume of the cache; empty means no bound",
            keys.size,
        ),
    ]
    evicts_last_copies: Annotated[
        bool,
        Key(
            "cache.evict_last_copies",
            "false",
            "whether these bounds may cost the last copy on the LAN of what a hub still gives",
            keys.boolean,
        ),
    ]
    lan_listen: Annotated[
        Address,
        Key(
            "lan.listen",
            f"0.0.0.0:{LAN_PORT}",
            "where peers reach this node",
            keys.listener(LAN_PORT),
        ),
    ]
    lan_allow: Annotated[
        AllowedNetworks,
        Key(
            "lan.allow",
            "private",
            "networks that are answered beside private ones and this machine's own, separated by commas, or any",
            AllowedNetworks.parse,
        ),
    ]
    advertised: Annotated[
        tuple[Advertised, ...],
        Key(
            "lan.advertise",
            "",
            "where other nodes reach this one, IP[:PORT], separated by commas, if not at its own addresses: behind NAT",
            keys.advertised,
            is_list=True,
        ),
    ]
    accepts_requests: Annotated[
        Literal["no", "lan", "signed"],
        Key(
            "accept_requests",
            "no",
            "whose requests to add something are met: no, lan for all peers, or signed for nodes with the same key",
            keys.accepted_requests,
        ),
    ]
    request_key_file: Annotated[
        Path | None,
        Key(
            "request_key_file",
            "",
            "a file with the key that signs requests to other nodes, and that those to this node must be signed with",
            keys.folder,
        ),
    ]
    endpoint_listen: Annotated[
        Address,
        Key(
            "endpoint.listen",
            f"127.0.0.1:{ENDPOINT_PORT}",
            "where local tools reach this node",
            keys.listener(ENDPOINT_PORT),
        ),
    ]
    endpoint_names: Annotated[
        tuple[str, ...],
        Key(
            "endpoint.names",
            "",
            "names of this machine, beside its own, by which the endpoint may be asked, separated by commas",
            keys.host_names,
            is_list=True,
        ),
    ]
    ref_seconds: Annotated[
        float,
        Key("endpoint.ref_ttl", "60", "seconds for which the endpoint knows what a branch or tag is", keys.seconds),
    ]
    stale_refs: Annotated[
        Literal["serve", "refuse"],
        Key(
            "endpoint.stale_refs",
            "serve",
            "old answers about a branch when no hub answers: serve or refuse",
            keys.stale_refs,
        ),
    ]
    offline_days: Annotated[
        float,
        Key(
            "endpoint.offline_days",
            "7",
            "days for which a token once accepted opens cached repos while no hub answers",
            keys.days,
        ),
    ]
    upstreams: Annotated[
        tuple[UpstreamSetting, ...],
        Key("upstreams", DEFAULT_UPSTREAMS, "the hubs to ask after the peers, in order", keys.upstreams),
    ]
    is_offline: Annotated[
        bool,
        Key("offline", "false", "whether no hub is ever asked, only peers: for a LAN without Internet", keys.boolean),
    ]
    proxy: Annotated[
        str | None,
        Key(
            "proxy",
            "",
            "the proxy to the hubs: a URL, or none; empty means what the environment says",
            keys.proxy,
        ),
    ]
    ca: Annotated[
        str | None,
        Key("ca", "", "a file or folder of certificates that are trusted beside this system's", keys.certificates),
    ]
    sends_token_to_mirrors: Annotated[
        bool, Key("mirror.send_token", "false", "whether mirrors may see your Hugging Face token", keys.boolean)
    ]
    asks_mirrors_who_may_see: Annotated[
        bool,
        Key(
            "visibility.ask_mirrors",
            "false",
            "whether mirrors, too, are asked who may see what is in the cache, while the origin is silent",
            keys.boolean,
        ),
    ]
    uses_mdns: Annotated[
        bool, Key("mdns", "true", "whether to announce this node and find others by mDNS", keys.boolean)
    ]
    peers: Annotated[
        tuple[PeerName, ...],
        Key(
            "peers",
            "",
            "peers, separated by commas: HOST[:PORT], dns:NAME[:PORT] or srv:_hfpeer._tcp.DOMAIN; the environment's "
            "are added to the file's",
            parse_peers,
            is_list=True,
        ),
    ]
    registry: Annotated[
        str | None,
        Key(
            "registry",
            "",
            "a Redis server by which nodes find each other, redis://HOST[:PORT][/NUMBER], or rediss:// for TLS",
            keys.registry,
        ),
    ]
    registry_password_file: Annotated[
        Path | None,
        Key(
            "registry_password_file",
            "",
            "a file with the password of the registry; HFPEER_REGISTRY_PASSWORD may have it instead",
            keys.folder,
        ),
    ]
    trusts_attested: Annotated[
        bool,
        Key(
            "trust.attested",
            "false",
            "whether to take manifests without proof from peers, and what most peers say of a name",
            keys.boolean,
        ),
    ]
    patience_seconds: Annotated[
        float, Key("patience", "60", "seconds without a byte from any source after which an add gives up", keys.seconds)
    ]
    rest_seconds: Annotated[
        float,
        Key(
            "rate_limit.wait",
            "900",
            "seconds without a byte or an answer for which an add waits for hubs that limit requests",
            keys.seconds,
        ),
    ]
    transfers_at_once: Annotated[
        int,
        Key(
            "transfers.at_once",
            "3",
            "how many transfers of the queue run at once; those that a command waits for run beside them",
            keys.number_at_once,
        ),
    ]
    lan_up_limit: Annotated[
        Schedule,
        Key(
            "limit.lan_up",
            "none",
            "what peers may take in all: 200mbit, 25MB, 08:00-18:00=100mbit,none",
            parse_schedule,
        ),
    ]
    lan_down_limit: Annotated[
        Schedule, Key("limit.lan_down", "none", "what may come from peers in all, written the same", parse_schedule)
    ]
    wan_down_limit: Annotated[
        Schedule,
        Key(
            "limit.wan_down",
            "none",
            "what may come from mirrors and the origin in all, written the same",
            parse_schedule,
        ),
    ]
    wan_up_limit: Annotated[
        Schedule,
        Key("limit.wan_up", "none", "what pushes to ModelScope may send in all, written the same", parse_schedule),
    ]
    modelscope_endpoint: Annotated[
        str,
        Key(
            "modelscope.endpoint",
            keys.DEFAULT_MODELSCOPE,
            "the ModelScope to push to; MODELSCOPE_ENDPOINT, which its own tools follow, overrides it",
            keys.site_url,
        ),
    ]
    modelscope_source: Annotated[
        Literal["on", "off"],
        Key(
            "modelscope.source",
            "off",
            "whether an add takes files with the same sha256 from ModelScope too: on or off",
            keys.on_or_off,
        ),
    ]
    modelscope_order: Annotated[
        Literal["before-mirrors", "after-mirrors", "after-origin"],
        Key(
            "modelscope.order",
            "after-mirrors",
            "when ModelScope is asked: before-mirrors, after-mirrors or after-origin",
            keys.site_order,
        ),
    ]
    modelscope_names: Annotated[
        tuple[RepoPair, ...],
        Key(
            "modelscope.names",
            "",
            "repos with another name there, HUB-REPO=OWNER/NAME, separated by commas; all others have their own",
            keys.repo_pairs,
            is_list=True,
        ),
    ]
    shares_prepared_sets: Annotated[
        bool,
        Key(
            "prepared.share",
            "false",
            "whether peers may have prepared sets of the datasets that they may have",
            keys.boolean,
        ),
    ]
    partial_days: Annotated[
        float,
        Key(
            "partials.days",
            "30",
            "days of running after which a daemon deletes a half-fetched blob that was not touched; 0 means never",
            keys.days,
        ),
    ]
    log_level: Annotated[str, Key("log.level", "info", "debug, info, warning or error", keys.log_level)]
    makes_links: bool
    """Whether files in snapshots are links to blobs: not with HF_HUB_DISABLE_SYMLINKS, as huggingface_hub reads it."""
    datasets_cache: Path
    """The cache of the `datasets` library, as the environment has it."""
    added_peers: tuple[PeerName, ...]
    """The peers that the file names; `peers` has those of the environment too."""
    origins: Mapping[str, str]
    """For each key where its value came from."""
    file_texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The texts of the file, by key."""
    registry_password: str | None = field(default=None, repr=False)
    """HFPEER_REGISTRY_PASSWORD. It is in no file of hfpeer, and no command shows it."""

    @property
    def makes_cache(self) -> bool:
        """Whether a missing cache folder is made. One that `hfpeer conf cache set` has made is on a disk that is
        unplugged."""
        return self.origins["cache"] != "file"

    @property
    def has_budget(self) -> bool:
        """Whether the cache has a bound, so that revisions go by themselves."""
        return self.max_cache_bytes is not None or self.min_free_bytes is not None

    @property
    def places(self) -> Places:
        return Places(self.home, self.cache)


FIELDS: Mapping[Key, str] = {
    data: name
    for name, hint in get_type_hints(Settings, include_extras=True).items()
    for data in getattr(hint, "__metadata__", ())
}
"""Each key with its field of Settings."""
KEYS: Mapping[str, Key] = {key.name: key for key in FIELDS}


def find_key(name: str) -> Key:
    """The key with a name. Raises InvalidName with the keys that may have been meant."""
    if name not in KEYS:
        from hfpeer.language.near import did_you_mean, near  # only a mistake needs it

        key, equals, value = name.partition("=")
        if equals and key in KEYS:
            raise InvalidName(f"There is no setting {name!r}.", hint=f"`hfpeer conf set {key} {value}`", key=name)
        meant = did_you_mean(near(key.lower().removeprefix("hfpeer_"), KEYS))
        raise InvalidName(
            f"There is no setting {name!r}.{meant}", hint="`hfpeer conf ls` lists all settings.", key=name
        )
    return KEYS[name]


def setting_value(settings: Settings, key: Key) -> bool | int | float | str | list[str] | None:
    """The value in force of one key, as JSON has it; None if it is not set. A size is bytes, a list a list of texts."""
    value = getattr(settings, FIELDS[key])
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def setting_text(settings: Settings, key: Key) -> str:
    """The value in force of one key, as a text that `write_setting` takes."""
    value = setting_value(settings, key)
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def changed_keys(settings: Settings, added_peers: Collection[PeerName]) -> list[str]:
    """The keys whose values would be others if the settings were read now, because the file has changed. `added_peers`
    are those of the file that the node knows: commands add some while it runs.

    Raises InvalidName for a file that can no longer be used, and BrokenCache.
    """
    texts = read_file(settings.home, KEYS)
    changed = []
    for key in KEYS.values():
        if settings.origins[key.name].startswith("environment") and key.name != "peers":
            continue
        before, now = (key.value(at.get(key.name, key.default), "file") for at in (settings.file_texts, texts))
        if key.name == "peers":
            before, now = set(added_peers), set(now)
        if before != now:
            changed.append(key.name)
    return changed


def over_cache(settings: Settings, cache: Path, endpoint: str | None = None) -> Settings:
    """The settings of a node over another cache, and perhaps another hub. It has a home of its own below the first one,
    and no daemon."""
    import hashlib

    digest = hashlib.sha256(f"{cache}\n{endpoint}".encode()).hexdigest()[:16]
    upstreams = settings.upstreams if endpoint is None else (UpstreamSetting("origin", endpoint.rstrip("/")),)
    origins = {**settings.origins, "cache": "argument"}
    return replace(settings, home=settings.home / "caches" / digest, cache=cache, upstreams=upstreams, origins=origins)


def read_settings(environ: Mapping[str, str], *, home: Path | None = None) -> Settings:
    """Reads the settings: defaults, the file below home, the environment.

    An empty environment variable counts as set for `upstreams` (none), as unset for the others. Peers add up: the
    environment must not hide those that were added with a command.
    Raises InvalidName, naming the key and where its value came from, and BrokenCache when the home is not this user's.
    """
    home = home or default_home(environ)
    check_own_folder(home)
    file_texts = read_file(home, KEYS)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, name in FIELDS.items():
        text, origins[key.name] = _text_of(key, file_texts, environ)
        values[name] = key.value(text, origins[key.name])
    added_peers = KEYS["peers"].value(file_texts.get("peers", ""), "file")
    if added_peers and origins["peers"] != "file":
        values["peers"] = tuple(dict.fromkeys([*values["peers"], *added_peers]))
        origins["peers"] = f"file and {origins['peers']}"
    values["name"] = values["name"] or keys.this_host()
    values["cache"], origins["cache"] = _cache(values["cache"], origins["cache"], environ)
    followed = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN")
    if followed and not origins["modelscope.endpoint"].startswith("environment"):
        values["modelscope_endpoint"] = KEYS["modelscope.endpoint"].value(followed, "environment MODELSCOPE_ENDPOINT")
        origins["modelscope.endpoint"] = "environment MODELSCOPE_ENDPOINT"
    return Settings(
        home=home,
        makes_links=not keys.is_switched_on(environ, "HF_HUB_DISABLE_SYMLINKS"),
        datasets_cache=datasets_cache(environ),
        added_peers=added_peers,
        origins=origins,
        file_texts=file_texts,
        registry_password=environ.get("HFPEER_REGISTRY_PASSWORD") or None,
        **values,
    )


def _text_of(key: Key, file_texts: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str]:
    """The text of a key and where it came from."""
    overriding = environ.get(key.variable)
    if overriding or (overriding is not None and key.name == "upstreams"):
        return overriding, f"environment {key.variable}"
    if key.name in file_texts:
        return file_texts[key.name], "file"
    return key.default, "default"


def _cache(from_settings: Path | None, origin: str, environ: Mapping[str, str]) -> tuple[Path, str]:
    """The cache and where its path came from. The variables of huggingface_hub override the file, because its tools
    follow them too."""
    from_environment = chosen_cache(environ)
    if from_environment is not None:
        return from_environment, "environment"
    return (from_settings, origin) if from_settings else (default_cache(environ), "default")
