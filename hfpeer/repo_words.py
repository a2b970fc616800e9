"""A repo as people write and paste it: its name, an address of the Hub, or an `hf://` URI. Pure.

Names are `ORG/NAME`, `datasets/ORG/NAME`, each with `@REV`. Addresses are those that a browser shows of a repo, its
folders and files, and those of its git repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from hfpeer.errors import InvalidName
from hfpeer.names import FilePath, RepoId, RepoType, Revision

HUBS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com", "www.hf-mirror.com")
"""The hosts, without a scheme, at whose addresses the Hub's pages are found."""
URI = "hf://"
_URL = re.compile(r"(?:https?|git|ssh)://(?:[^/@]*@)?(.*)", re.IGNORECASE | re.DOTALL)
_SCP = re.compile(r"[a-z]+@([^/:]+):(.*)", re.DOTALL)
_FILE_PAGES = frozenset(("blob", "resolve", "raw", "blame", "edit"))
_FOLDER_PAGES = frozenset(("tree", "commits", "revision"))
_OTHER_PAGES = frozenset(("commit", "discussions", "settings", "info", "viewer", "embed", "logs", "xet-read-token"))
_NO_REPO = frozenset(
    ("blog", "chat", "collections", "docs", "enterprise", "join", "learn", "login", "models", "new", "organizations")
) | frozenset(("papers", "posts", "pricing", "search", "settings", "spaces", "datasets", "tasks"))
"""First parts of addresses of the Hub that are no namespace and no repo."""
_LONG_REF = re.compile(r"refs/(?:pr/[0-9]+|convert/[^/]+|heads/[^/]+|tags/[^/]+)")
"""A ref that the Hub's clients take with its slashes as they are."""


@dataclass(frozen=True)
class NamedRepo:
    """A repo, and what the word says beside it: a revision, a file or a folder of it. `says_type`: the word itself
    tells the type."""

    repo: RepoId
    revision: Revision | None = None
    file: FilePath | None = None
    folder: FilePath | None = None
    says_type: bool = False


def parse_repo_word(word: str, type: RepoType | str = RepoType.MODEL, hubs: Iterable[str] = ()) -> NamedRepo:
    """Reads a word; `type` is that of a repo without a prefix, `hubs` are URLs of further hubs. Raises InvalidName,
    whose hint says what may have been meant."""
    try:
        return _parsed(word.strip(), type, hubs)
    except InvalidName as error:
        name, kind = error.facts.get("repo"), _split_type(word.strip())[0] or RepoType.MODEL
        if isinstance(name, str):
            error.hint = _meant(name, "" if kind is RepoType.MODEL else f"{kind.plural}/") or error.hint
        raise


def _parsed(text: str, type: RepoType | str, hubs: Iterable[str]) -> NamedRepo:
    if text.startswith(URI):
        return _from_uri(text.removeprefix(URI))
    place = _place_of_address(text, hubs)
    if place is not None:
        return _from_address(text, place)
    name, at, revision = text.partition("@")
    kind, name = _split_type(name.removesuffix("/"))
    if at and not revision:
        raise InvalidName(f"{text!r} names no revision behind the @.", hint=f"Leave out the @: `{name}`.", word=text)
    said = Revision.parse(revision) if at else None
    return NamedRepo(RepoId.parse(name, kind or type), said, says_type=kind is not None)


def _meant(name: str, prefix: str) -> str | None:
    """A hint on a word that is no name of a repo, if it looks like something else that people write. `prefix` stands
    before the names of repos of its type."""
    folder = re.fullmatch(r"(model|dataset|space)s--(.+)", name)
    if folder:
        of_folder = "" if folder[1] == "model" else f"{folder[1]}s/"
        return f"That is a folder of the cache; the repo is `{of_folder}{folder[2].replace('--', '/')}`."
    if name.startswith(("/", "./", "../", "~")) or "\\" in name:
        return (
            "That is a path, and a repo is ORG/NAME. `hfpeer model publish DIR --as ORG/NAME` makes a repo of a folder."
        )
    if re.search(r"[*?\[]", name):
        return (
            "A repo is named whole. `hfpeer ls 'ORG/*'` lists those in the cache, and `--include` takes globs of files."
        )
    tagged = re.fullmatch(r"([^:#]+)[:#]([^:#/]+)", name)
    if tagged:
        repo, tag = f"{prefix}{tagged[1]}", tagged[2]
        return f"A revision stands behind an @: `{repo}@{tag}`. Some files of a repo: `{repo} --include '*{tag}*'`."
    inside = re.fullmatch(r"([^/\s]+/[^/\s]+)/(.+)", name)
    return f"A file in a repo is named with -f: `{prefix}{inside[1]} -f {inside[2]}`." if inside else None


def _split_type(text: str) -> tuple[RepoType | None, str]:
    """The type that a prefix says, None without one, and the rest. `dataset/NAME` may be a repo of an organisation of
    that name; `datasets/NAME` may not."""
    first, _, rest = text.partition("/")
    for kind in RepoType:
        if rest and (first == kind.plural or (first == kind.value and "/" in rest)):
            return kind, rest
    return None, text


def _place_of_address(text: str, hubs: Iterable[str]) -> str | None:
    """The path of an address at a hub; None for a word that is no address. Raises InvalidName for other addresses."""
    url, scp = _URL.fullmatch(text), _SCP.fullmatch(text)
    rest = url[1] if url else f"{scp[1]}/{scp[2]}" if scp else text
    for hub in (*HUBS, *(hub.partition("://")[2] or hub for hub in hubs)):
        host, slash, path = rest[: len(hub)], rest[len(hub) : len(hub) + 1], rest[len(hub) + 1 :]
        if host.lower() == hub.lower() and slash in ("", "/"):
            return path.partition("#")[0].partition("?")[0]
    if url or scp:
        known = ", ".join(hub for hub in HUBS if not hub.startswith("www."))
        raise InvalidName(
            f"{text!r} is no address of a hub that this node knows.",
            hint=_meant_at_modelscope(rest)
            or f"Write the name of the repo, ORG/NAME. Known are {known} and the hubs of the setting `upstreams`.",
            word=text,
        )
    return None


def _meant_at_modelscope(rest: str) -> str | None:
    """A hint on an address, without its scheme, of a repo at ModelScope."""
    found = re.match(r"(?:www\.)?modelscope\.(?:cn|ai)/(models|datasets)/([^/?#]+/[^/?#]+)", rest, re.IGNORECASE)
    if found is None:
        return None
    prefix = "" if found[1] == "models" else "datasets/"
    return (
        "Repos have their names at the Hub, and ModelScope can give equal files: "
        f"`hfpeer add {prefix}{found[2]} --modelscope {found[2]}`."
    )


def _from_address(word: str, path: str) -> NamedRepo:
    parts = [unquote(part) for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        del parts[0]
    kind = next((one for one in RepoType if parts[:1] == [one.plural] and len(parts) > 1), None)
    if kind is not None:
        del parts[0]
    if not parts or parts[0] in _NO_REPO:
        raise InvalidName(
            f"{word!r} is no address of a repo.",
            hint="Paste the address of the page of a repo, or write ORG/NAME.",
            word=word,
        )
    is_legacy = len(parts) == 1 or parts[1] in _FILE_PAGES | _FOLDER_PAGES | _OTHER_PAGES
    name, tail = "/".join(parts[: 1 if is_legacy else 2]), parts[1 if is_legacy else 2 :]
    repo = RepoId.parse(name.removesuffix(".git"), kind or RepoType.MODEL)
    page, rest = tail[0] if tail else "", tail[1:]
    if page == "commit" and rest:
        return NamedRepo(repo, Revision.parse(rest[0]), says_type=True)
    if page not in _FILE_PAGES | _FOLDER_PAGES or not rest:
        return NamedRepo(repo, says_type=True)
    revision, inside = _split_revision(rest)
    path_inside = FilePath.parse(inside) if inside else None
    if page in _FILE_PAGES:
        return NamedRepo(repo, revision, file=path_inside, says_type=True)
    return NamedRepo(repo, revision, folder=path_inside, says_type=True)


def _from_uri(text: str) -> NamedRepo:
    """`[TYPE/]ID[@REV][/PATH]`. Source: huggingface_hub `parse_hf_uri`."""
    kind, text = _split_type(text)
    name, at, after = text.partition("@")
    revision = None
    if at and name.count("/") <= 1:
        revision, path = _split_revision(after.rstrip("/").split("/"))
    else:
        parts = text.rstrip("/").split("/")
        name, path = "/".join(parts[:2]), "/".join(parts[2:])
    repo = RepoId.parse(name, kind or RepoType.MODEL)
    return NamedRepo(repo, revision, FilePath.parse(path) if path else None, says_type=True)


def _split_revision(parts: Sequence[str]) -> tuple[Revision, str]:
    """A revision and the path behind it. A slash in a revision is `%2F`, except in the refs of the Hub itself."""
    text = "/".join(parts)
    long = _LONG_REF.match(text)
    if long and text[long.end() :][:1] in ("", "/"):
        return Revision.parse(long[0]), text[long.end() + 1 :]
    return Revision.parse(unquote(parts[0])), "/".join(parts[1:])
