"""Parses the undecoded path of a Hub URL. Pure.

Routing happens before decoding, because a revision is one segment in which `%2F` is no separator. For clients that do
not quote, slashes are collapsed, and `refs/pr/3` may be unquoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from hfpeer.errors import InvalidName
from hfpeer.names import RepoId, RepoType, Revision

API_VERBS = frozenset(
    {"revision", "tree", "paths-info", "refs", "commits", "auth-check", "xet-read-token", "discussions", "commit"}
    | {"preupload", "xet-write-token", "branch", "tag", "settings", "compare", "treesize", "lfs-files", "super-squash"}
)
FILE_VERBS = frozenset({"resolve", "raw", "info", "git-upload-pack", "git-receive-pack", "blob", "tree", "commits"})
_TYPES = {type.plural: type for type in RepoType}
_UNQUOTED_REFS = ("pr", "convert")


@dataclass(frozen=True)
class HubUrl:
    """A repo, a verb, and the undecoded segments after the verb."""

    is_api: bool
    repo: RepoId
    verb: str
    rest: tuple[str, ...]

    def revision(self) -> tuple[Revision, tuple[str, ...]]:
        """The revision at the start of `rest`, by default `main`, and the segments after it. Raises InvalidName.

        Hub protocol: `HEAD` is always `main`; the JavaScript client asks for it.
        """
        if not self.rest or self.rest[0] == "HEAD":
            return Revision("main"), self.rest[1:]
        length = 3 if self.rest[0] == "refs" and len(self.rest) > 2 and self.rest[1] in _UNQUOTED_REFS else 1
        return Revision.parse(decoded("/".join(self.rest[:length]))), self.rest[length:]


def parse_url(path: str) -> HubUrl | None:
    """The repo and verb of a raw path; None if it names no repo. Raises InvalidName if no repo can have that name."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        if len(parts) < 3 or parts[1] not in _TYPES:
            return None
        return _address(True, _TYPES[parts[1]], parts[2:], API_VERBS)
    if parts[:1] and parts[0] in _TYPES:
        return _address(False, _TYPES[parts[0]], parts[1:], FILE_VERBS)
    return _address(False, RepoType.MODEL, parts, FILE_VERBS)


def collapsed(path: str) -> str:
    """The path with runs of slashes replaced by one."""
    one = "/".join(part for part in path.split("/") if part)
    return f"/{one}/" if one and path.endswith("/") else f"/{one}"


def decoded(segment: str) -> str:
    """The segment percent-decoded once. Raises InvalidName if it is not UTF-8."""
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidName("The URL is not UTF-8.") from error


def resolve_path(repo: RepoId, commit: str, path: str) -> str:
    """The path of a file at a commit, at this endpoint."""
    return f"/{repo.url_path}/resolve/{commit}/{quote(path, safe='/')}"


def _address(is_api: bool, type: RepoType, parts: Sequence[str], verbs: frozenset[str]) -> HubUrl | None:
    if not parts:
        return None
    is_short = len(parts) == 1 or (parts[1] in verbs and not (len(parts) > 2 and parts[2] in verbs))
    length = 1 if is_short else 2
    names, rest = parts[:length], parts[length:]
    if not is_api and (not rest or rest[0] not in verbs):
        return None
    name = decoded("/".join(names))
    if not is_api:
        name = name.removesuffix(".git")
    return HubUrl(is_api, RepoId.parse(name, type), rest[0] if rest else "", tuple(rest[1:]))
