"""A key that can be set, and the parsers that make values of texts. `settings` has the table of all keys."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from hfpeer.config.amounts import size_bytes
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId
from hfpeer.net.address import Address

UpstreamKind: TypeAlias = Literal["mirror", "origin"]
LEAST_BARE_BYTES = 10_000
"""A size below this many bytes needs a unit."""
DEFAULT_MODELSCOPE = "https://modelscope.cn"
DEFAULT_UPSTREAMS = "mirror=https://hf-mirror.com,origin=https://huggingface.co"


@dataclass(frozen=True)
class UpstreamSetting:
    """An HTTP hub: `kind` decides the order and whether it may see a token; `url` has no trailing slash."""

    kind: UpstreamKind
    url: str

    @property
    def name(self) -> str:
        """The name that people see: the host, with the port if the URL has one."""
        return urlsplit(self.url).netloc

    def __str__(self) -> str:
        return f"{self.kind}={self.url}"


@dataclass(frozen=True)
class Key:
    """One setting: its dotted name, its default as text, a sentence for people, and the parser of its text.

    The parser raises InvalidName. For `is_list` an empty text is an empty list; for other keys without a default it
    means that the key is not set.
    """

    name: str
    default: str
    summary: str
    parse: Callable[[str], Any]
    is_list: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return "HFPEER_" + self.name.upper().replace(".", "_")

    def value(self, text: str, origin: str) -> Any:
        """The value of a text, None where it means that the key is not set. Raises InvalidName, naming the key and
        `origin`, the place where the text was read."""
        if not text and not self.default:
            return self.parse("") if self.is_list else None
        try:
            return self.parse(text)
        except InvalidName as error:
            raise InvalidName(
                f"The setting `{self.name}` (from {origin}): {error.message}",
                hint=error.hint,
                key=self.name,
                **error.facts,
            ) from error


def boolean(text: str) -> bool:
    """true or false, also as 1/0, yes/no, on/off."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise InvalidName(f"{text!r} is neither true nor false.", hint="Use true or false.", value=text)


def size(text: str) -> int:
    """A number of bytes: 500GB, 200GiB. A small number without a unit is refused: its unit was forgotten."""
    found = size_bytes(text)
    if found is None or (text.strip().isdigit() and 0 < found < LEAST_BARE_BYTES):
        raise InvalidName(f"{text!r} is not a size.", hint="Write 500GB, 200GiB or 4000000000.", value=text)
    return found


def is_switched_on(environ: Mapping[str, str], variable: str) -> bool:
    """Whether a variable of huggingface_hub is true, as it reads them. Source: huggingface_hub `constants._is_true`."""
    return environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def upstreams(text: str) -> tuple[UpstreamSetting, ...]:
    """Upstreams in order, separated by commas."""
    return tuple(_upstream(part.strip()) for part in text.split(",") if part.strip())


def _upstream(text: str) -> UpstreamSetting:
    kind, _, url = text.partition("=")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if kind not in ("mirror", "origin") or not is_url or re.search(r"[\s?#\\]", url):
        raise InvalidName(
            f"{text!r} is not an upstream.",
            hint="Write mirror=URL or origin=URL, separated by commas, in the order in which they are asked; "
            "empty means none.",
            value=text,
        )
    if "@" in parts.netloc:
        # The address is shown to people and peers as the hub's name, and the hub would take an anonymous request for
        # one of this user.
        raise InvalidName(
            f"The address of the {kind} {parts.hostname} has a user's name or password in it.",
            hint="Leave out what stands before the @: `hfpeer auth login` stores a token, which goes to its hub alone.",
        )
    return UpstreamSetting("mirror" if kind == "mirror" else "origin", url.rstrip("/"))


def proxy(text: str) -> str:
    """A proxy's URL, or `none`."""
    from hfpeer.net.proxies import DIRECT, read_proxy  # most settings name none

    found = DIRECT if text == DIRECT else read_proxy(text, "it")
    if isinstance(found, str) and text != DIRECT:
        raise InvalidName(f"{found[0].upper()}{found[1:]}.", hint="Write http://HOST:PORT, socks5://HOST:PORT or none.")
    return text


def certificates(text: str) -> str:
    """A file or folder that exists."""
    place = Path(text).expanduser()
    if not place.exists():
        raise InvalidName(f"There is no {place}.", hint="Name a file in PEM format, or a folder of such files.")
    return str(place.absolute())


@dataclass(frozen=True)
class RepoPair:
    """A repo of the Hub and the name of the repo at ModelScope that has the same files."""

    repo: RepoId
    there: str

    def __str__(self) -> str:
        return f"{self.repo}={self.there}"


def repo_pairs(text: str) -> tuple[RepoPair, ...]:
    """`HUB-REPO=OWNER/NAME`, separated by commas; a dataset begins with `datasets/`."""
    return tuple(_repo_pair(part.strip()) for part in text.split(",") if part.strip())


def _repo_pair(text: str) -> RepoPair:
    repo, _, there = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", there.strip()):
        raise InvalidName(
            f"{text!r} is no pair of repos.",
            hint="Write HUB-REPO=OWNER/NAME, separated by commas; before a dataset datasets/.",
            value=text,
        )
    is_dataset = repo.strip().startswith("datasets/")
    parsed = RepoId.from_api_path(repo.strip()) if is_dataset else RepoId.parse(repo.strip())
    return RepoPair(parsed, there.strip())


def on_or_off(text: str) -> str:
    """on or off, also as true and false."""
    try:
        return "on" if boolean(text) else "off"
    except InvalidName as error:
        raise InvalidName(f"{text!r} is neither on nor off.", hint="Use on or off.", value=text) from error


def site_order(text: str) -> str:
    """The place of ModelScope among the sources."""
    if text.lower() not in ("before-mirrors", "after-mirrors", "after-origin"):
        raise InvalidName(
            f"{text!r} is no place among the sources.",
            hint="before-mirrors, after-mirrors or after-origin.",
            value=text,
        )
    return text.lower()


def site_url(text: str) -> str:
    """The URL of a ModelScope without a trailing slash; a bare host gets https. Raises InvalidName.

    Source: modelscope_hub `HubConfig.normalize_endpoint`.
    """
    url = text.strip()
    if "://" not in url:
        url = f"https://{url}"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or "@" in url or "?" in url or "#" in url:
        raise InvalidName(
            f"{text!r} is not the address of a ModelScope.",
            hint="Write a URL such as https://modelscope.cn or https://modelscope.ai.",
            value=text,
        )
    return url.rstrip("/")


def listener(usual_port: int) -> Callable[[str], Address]:
    """The parser of HOST[:PORT] to listen at."""
    return lambda text: Address.parse(text, usual_port, is_listener=True)


@dataclass(frozen=True)
class Advertised:
    """An IP address at which other nodes reach this one. The port 0 is that of the LAN door."""

    host: str
    port: int

    def __str__(self) -> str:
        return str(Address(self.host, self.port)) if self.port else self.host


def advertised(text: str) -> tuple[Advertised, ...]:
    """IP[:PORT], separated by commas."""
    return tuple(_advertised(part.strip()) for part in text.split(",") if part.strip())


def _advertised(text: str) -> Advertised:
    address = Address.parse(text, 0)
    if address.ip is None or address.ip.is_unspecified or address.ip.is_multicast:
        raise InvalidName(
            f"{text!r} is not the address of a machine.",
            hint="Give the IP address, with the port if it is another than here: 192.168.1.20 or 192.168.1.20:9437. "
            "`hostname -I` shows those of a machine.",
            value=text,
        )
    return Advertised(address.host, address.port)


def registry(text: str) -> str:
    """redis://[USER@]HOST[:PORT][/NUMBER], or rediss:// for TLS; never with a password."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
        has_password = parts.password is not None
    except ValueError:
        is_url = has_password = False
    if has_password:
        # What the settings say is shown to people and written to logs.
        raise InvalidName(
            "The URL of the registry has a password in it.",
            hint="Leave it out, and set HFPEER_REGISTRY_PASSWORD, or name its file: "
            "`hfpeer conf set registry_password_file FILE`.",
        )
    if not is_url or parts.query or parts.fragment or not re.fullmatch(r"(/[0-9]*)?", parts.path):
        raise InvalidName(
            f"{text!r} is not the URL of a Redis server.",
            hint="Write redis://HOST[:PORT][/NUMBER], or rediss://HOST[:PORT][/NUMBER] for TLS.",
            value=text,
        )
    return text


def host_names(text: str) -> tuple[str, ...]:
    """Host names without ports, separated by commas."""
    return tuple(_host_name(part.strip()) for part in text.split(",") if part.strip())


def _host_name(text: str) -> str:
    address = Address.parse(text)
    if text.lower() != address.host:
        raise InvalidName(f"{text!r} is not a host name.", hint="Give the name alone: models.example.", value=text)
    return address.host


def node_name(text: str) -> str:
    """A name as mDNS and other nodes can show it."""
    if not re.fullmatch(r"[\w.-]{1,63}", text):
        raise InvalidName(
            f"{text!r} is not a name for a node.", hint="Letters, digits, '.', '-', '_'; at most 63.", value=text
        )
    return text


def log_level(text: str) -> str:
    """A level of Python's logging."""
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise InvalidName(f"{text!r} is not a log level.", hint="debug, info, warning or error.", value=text)
    return text.lower()


def seconds(text: str) -> float:
    """More than 0 and at most a day."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86400:
        raise InvalidName(f"{text!r} is not a time.", hint="Give seconds, more than 0, at most 86400.", value=text)
    return seconds


def number_at_once(text: str) -> int:
    """1 to 100."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise InvalidName(f"{text!r} is not a number of transfers.", hint="Give a number from 1 to 100.", value=text)
    return int(text)


def days(text: str) -> float:
    """0 to 3650 days."""
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 3650:
        raise InvalidName(f"{text!r} is not a number of days.", hint="Give days, from 0 to 3650.", value=text)
    return days


def stale_refs(text: str) -> str:
    """serve or refuse."""
    if text.lower() not in ("serve", "refuse"):
        raise InvalidName(f"{text!r} is neither serve nor refuse.", hint="serve or refuse.", value=text)
    return text.lower()


def accepted_requests(text: str) -> str:
    """no, lan or signed."""
    if text.lower() not in ("no", "lan", "signed"):
        raise InvalidName(f"{text!r} is neither no, lan nor signed.", hint="no, lan or signed.", value=text)
    return text.lower()


def folder(text: str) -> Path:
    """An absolute path; variables and ~ are expanded."""
    path = expanded(text)
    if not path.is_absolute():
        raise InvalidName(f"{text!r} is not an absolute path.", hint="Give the whole path of the folder.", value=text)
    return path


def folders(text: str) -> tuple[Path, ...]:
    """Absolute paths, separated by commas; variables and ~ are expanded."""
    return tuple(dict.fromkeys(folder(part.strip()) for part in text.split(",") if part.strip()))


def readable(path: Path) -> Path:
    """The path itself. Raises InvalidName for one that is not UTF-8: the catalog and JSON are."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        name = os.fsencode(path).decode(errors="replace")
        raise InvalidName(
            f"The path {name!r} is not UTF-8.", hint="Rename the folder, or take another one.", value=name
        ) from error
    return path


def expanded(text: str) -> Path:
    """A path with its variables and ~ expanded. Raises InvalidName for a variable without a value, a user who is
    unknown, a URL, and a path of Windows."""
    if re.match(r"[A-Za-z]:[\\/]|[A-Za-z]:$|\\\\", text) and os.name != "nt":
        drive = text[:1].lower()
        example = f"Under WSL that drive is /mnt/{drive}." if text[1:2] == ":" else "Mount the share first."
        raise InvalidName(
            f"{text!r} is a path of Windows, and this system has none.",
            hint=f"{example} Give the path as this system has it, such as /mnt/models.",
            value=text,
        )
    if "://" in text:
        raise InvalidName(
            f"{text!r} is a URL, not a folder.", hint="Give the path where the system has mounted it.", value=text
        )
    spread = os.path.expandvars(text)
    unset = re.search(r"\$(\w+|\{\w+\})", spread)
    if unset:
        raise InvalidName(
            f"The variable {unset[0]} in {text!r} has no value.", hint="Set it, or give the whole path.", value=text
        )
    try:
        return readable(Path(spread).expanduser())
    except RuntimeError as error:
        raise InvalidName(
            f"{text!r} begins with the home of no user.", hint="Give the whole path.", value=text
        ) from error


def this_host() -> str:
    """The name of this machine without its domain, as a node's name."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname().split(".")[0])[:63] or "node"
