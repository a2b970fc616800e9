"""The words of ModelScope as values: a repo there, and the host names that make up one site. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from hfpeer.errors import InvalidName
from hfpeer.names import RepoType

SiteVisibility: TypeAlias = Literal["private", "internal", "public", "unknown"]
"""Who may see a repo there; unknown where the site does not tell."""
DEFAULT_BRANCH = "master"
"""The default branch of every repo there; there is no `main`."""
_DOMAINS = ("modelscope.cn", "modelscope.ai")
"""The two sites. They have separate accounts and repos, and several hosts below these domains."""
_PART = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_BRANCH = re.compile(r"(?!\.)[A-Za-z0-9_./-]{1,128}")


@dataclass(frozen=True, order=True)
class SiteRepo:
    """A repo at ModelScope: a model or a dataset, its owner and its name. Names are exact, upper and lower case."""

    type: RepoType
    owner: str
    name: str

    @classmethod
    def parse(cls, text: str, type: RepoType | str = RepoType.MODEL) -> SiteRepo:
        """Reads `owner/name`. Raises InvalidName, also for a space, which ModelScope does not have."""
        owner, _, name = text.partition("/")
        if any(not _PART.fullmatch(part) or part.startswith(".") or ".." in part for part in (owner, name)):
            raise InvalidName(
                f"{text!r} is not the name of a repo at ModelScope.",
                hint="Write OWNER/NAME; each part has letters, digits, '-', '_' and '.'.",
                repo=text,
            )
        kind = RepoType(type)
        if kind is RepoType.SPACE:
            raise InvalidName(
                f"{text} cannot be a space: ModelScope has models and datasets.",
                hint="Use --type model or --type dataset.",
                repo=text,
            )
        return cls(kind, owner, name)

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def api_path(self) -> str:
        """`models/owner/name`: the part of an API path that names the repo."""
        return f"{self.type.plural}/{self.full_name}"

    def __str__(self) -> str:
        return self.full_name if self.type is RepoType.MODEL else self.api_path


def parse_branch(text: str) -> str:
    """A branch at ModelScope. Raises InvalidName."""
    if not _BRANCH.fullmatch(text) or ".." in text or "//" in text or text.endswith(("/", ".")):
        raise InvalidName(f"{text!r} is not a branch.", hint="The default branch there is master.", branch=text)
    return text


def site_name(endpoint: str) -> str:
    """The name of a site for people: its host, with the port if there is one."""
    return urlsplit(endpoint).netloc


def is_host_of(host: str, endpoint_host: str) -> bool:
    """Whether a host belongs to the site at `endpoint_host`: the same host, or one below the same domain of
    ModelScope."""
    host, endpoint_host = host.lower(), endpoint_host.lower()
    if host == endpoint_host:
        return True
    return any(_is_below(host, domain) and _is_below(endpoint_host, domain) for domain in _DOMAINS)


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
