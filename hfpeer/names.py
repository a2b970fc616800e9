"""The words of the Hub as values: repo, revision, commit, file path, digest.

Strings from outside are parsed here once, at the edge, and everything behind it handles values that are
known to be good; each prints itself back. Pure: no input or output. A name that passed through this module
is safe as part of a path below the cache.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum

from hfpeer.errors import InvalidName

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
_DRIVE = re.compile(r"[A-Za-z]:")
_HEX_LENGTH = {"sha256": 64, "git-sha1": 40}


class RepoType(str, Enum):
    """What kind of repo: the Hub keeps models, datasets and spaces in separate namespaces."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"

    @property
    def plural(self) -> str:
        """`models`, `datasets` or `spaces`: the API's segment and the cache folder's prefix."""
        return f"{self.value}s"


class Visibility(str, Enum):
    """Who may see a repo at its hub, as an upstream said when it was asked without a token."""

    PUBLIC = "public"
    GATED = "gated"
    PRIVATE = "private"
    """Private or missing: a hub does not tell the two apart."""
    UNKNOWN = "unknown"
    """Found in the cache and never asked about."""


@dataclass(frozen=True, order=True)
class RepoId:
    """A repo: its type, its namespace (None for legacy ids such as `gpt2`) and its name."""

    type: RepoType
    namespace: str | None
    name: str

    @classmethod
    def parse(cls, text: str, type: RepoType | str = RepoType.MODEL) -> RepoId:
        """Reads `ns/name` or `name`, by the Hub client's own rules.

        Raises InvalidName. Source: huggingface_hub `validate_repo_id`.
        """
        segments = text.split("/")
        well_formed = len(segments) in (1, 2) and all(_is_segment(segment) for segment in segments)
        if not well_formed or len(text) > 193:
            raise InvalidName(
                f"{text!r} is not a repo name.",
                hint="A repo is NAME or ORG/NAME; each part has letters, digits, '-', '_' and '.', at most 96, "
                "without '--' or '..', and neither starts nor ends with '-' or '.', nor ends with '.git'.",
                repo=text,
            )
        return cls(RepoType(type), segments[0] if len(segments) == 2 else None, segments[-1])

    @property
    def full_name(self) -> str:
        """`ns/name`, or `name` for a legacy id."""
        return self.name if self.namespace is None else f"{self.namespace}/{self.name}"

    @property
    def api_path(self) -> str:
        """`models/ns/name`: what follows `/api/`."""
        return f"{self.type.plural}/{self.full_name}"

    @property
    def url_path(self) -> str:
        """`ns/name` for models, `datasets/ns/name`, `spaces/ns/name`: what file and git URLs start with."""
        return self.full_name if self.type is RepoType.MODEL else self.api_path

    @property
    def folder(self) -> str:
        """`models--ns--name`: the repo's folder in the Hub cache."""
        return "--".join([self.type.plural, *self.full_name.split("/")])

    @classmethod
    def from_folder(cls, folder: str) -> RepoId:
        """The inverse of `folder`. Raises InvalidName for anything else."""
        plural, _, rest = folder.partition("--")
        for type in RepoType:
            if type.plural == plural and rest:
                return cls.parse(rest.replace("--", "/"), type)
        raise InvalidName(f"{folder!r} is not the folder of a repo.", repo=folder)

    @classmethod
    def from_api_path(cls, path: str) -> RepoId:
        """The inverse of `api_path`. Raises InvalidName for anything else."""
        plural, _, rest = path.partition("/")
        for type in RepoType:
            if type.plural == plural:
                return cls.parse(rest, type)
        raise InvalidName(f"{path!r} does not name a repo.", repo=path)

    def __str__(self) -> str:
        return self.url_path


def _is_segment(text: str) -> bool:
    return (
        _SEGMENT.fullmatch(text) is not None
        and "--" not in text
        and ".." not in text
        and text[0] not in "-."
        and text[-1] not in "-."
        and not text.endswith(".git")
    )


class Revision(str):
    """What a user typed: a branch, a tag, `refs/pr/3`, a short or a full commit id. Safe as a path."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Reads a revision by git's rules for ref names. Raises InvalidName. Source: git-check-ref-format."""
        segments = text.split("/")
        if (
            _REVISION.fullmatch(text) is None
            or ".." in text
            or "@{" in text
            or text == "@"
            or any(not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in segments)
        ):
            raise InvalidName(
                f"{text!r} is not a revision.",
                hint="A revision is a branch, a tag, refs/pr/N or a commit id, as git allows them: "
                "no spaces, no '..', none of ~ ^ : ? * [ \\.",
                revision=text,
            )
        return cls(text)

    @property
    def is_commit(self) -> bool:
        """Whether this is a full commit id, so that nobody need be asked what it means."""
        return _COMMIT.fullmatch(self) is not None


class Commit(str):
    """A full git commit id, 40 lower-case hex digits. The root of all trust."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Commit:
        """Raises InvalidName unless `text` is 40 lower-case hex digits."""
        if _COMMIT.fullmatch(text) is None:
            raise InvalidName(f"{text!r} is not a full commit id.", hint="A commit id has 40 hex digits.", commit=text)
        return cls(text)

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self[:12]


class FilePath(str):
    """The path of a file inside a repo: relative, `/`-separated, and unable to leave the folder it is put in."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> FilePath:
        """Raises InvalidName for absolute paths, `..`, empty segments, NUL, backslashes and drive letters.

        Stricter than git and as strict as huggingface_hub, which refuses to materialise the same names.
        """
        segments = text.split("/")
        if (
            not text
            or len(text.encode("utf-8", "surrogatepass")) > 4096
            or "\x00" in text
            or "\\" in text
            or _DRIVE.match(text)
            or any(part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > 255 for part in segments)
            or _has_surrogate(text)
        ):
            raise InvalidName(
                f"{text!r} is not the path of a file in a repo.",
                hint="A path is relative, uses '/', and has no '..', '.', empty part, backslash or drive letter.",
                path=text.encode("utf-8", "replace").decode(),
            )
        return cls(text)


def _has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)


@dataclass(frozen=True, order=True)
class Digest:
    """What a blob's bytes hash to: `sha256:<64 hex>` for LFS files, `git-sha1:<40 hex>` for the others.

    `git-sha1` is git's blob id, the SHA-1 over `blob <size>\\0` and the bytes. Both are what the Hub's etag
    names, so `hex` is also the blob's file name in the cache.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Reads `sha256:<hex>` or `git-sha1:<hex>`. Raises InvalidName."""
        algorithm, _, hex = text.partition(":")
        if _HEX_LENGTH.get(algorithm) != len(hex) or re.fullmatch("[0-9a-f]+", hex) is None:
            raise InvalidName(
                f"{text!r} is not a digest.",
                hint="A digest is sha256:<64 hex> or git-sha1:<40 hex>.",
                digest=text,
            )
        return cls(algorithm, hex)

    @classmethod
    def from_etag(cls, etag: str) -> Digest:
        """The digest an etag names, by its length. Raises InvalidName for anything but 40 or 64 hex digits."""
        bare = etag.removeprefix("W/").strip('"')
        algorithm = "sha256" if len(bare) == 64 else "git-sha1"
        return cls.parse(f"{algorithm}:{bare}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


LAN_PORT = 9437
ENDPOINT_PORT = 9438
IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LOOKS_NUMERIC = re.compile(r"[0-9.]+|0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, order=True)
class Address:
    """A host (a name, an IPv4 or an IPv6 address, the latter with its `%scope` if it has one) and a TCP port."""

    host: str
    port: int = LAN_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = LAN_PORT, *, is_listener: bool = False) -> Address:
        """Reads `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`. A listener's port may be 0: any that is free.

        Raises InvalidName.
        """
        host, port = _split_address(text.strip())
        number = default_port if port is None else _parse_port(port, 0 if is_listener else 1)
        if number is None or not (_is_ip(host) or _is_host_name(host)):
            raise InvalidName(
                f"{text!r} is not an address.",
                hint="An address is HOST or HOST:PORT, such as 192.168.1.20:9437, gpu-3.local or [fd00::2]:9437; "
                "a port is a number from 1 to 65535.",
                address=text,
            )
        return cls(host if "%" in host else host.lower(), number)

    @property
    def ip(self) -> IP | None:
        """The host as an IP address, without its scope; None for a name. `::ffff:1.2.3.4` is `1.2.3.4`."""
        try:
            found = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return None
        return getattr(found, "ipv4_mapped", None) or found

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" if self.ip is None else self.ip.is_loopback

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{self}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _split_address(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        is_v6 = bracket == "]" and ":" in host and (rest == "" or rest.startswith(":"))
        return (host, rest[1:] if rest else None) if is_v6 else ("", None)
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _parse_port(text: str, lowest: int) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= 5
    return int(text) if is_number and lowest <= int(text) <= 65535 else None


def _is_ip(host: str) -> bool:
    bare, percent, scope = host.partition("%")
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        return False
    return not percent or (ip.version == 6 and _SCOPE.fullmatch(scope) is not None)


def _is_host_name(host: str) -> bool:
    """Whether it is a host name; `256.1.1.1` and `0x7f000001` are none, though resolvers would take them."""
    return _HOST_NAME.fullmatch(host) is not None and _LOOKS_NUMERIC.fullmatch(host.rpartition(".")[2] or host) is None
