"""Fetches the commit object and the trees of one commit over git's smart HTTP, without any file's content.

Protocol version 2 with `filter blob:none` and `deepen 1` (gitprotocol-v2, gitprotocol-http): a few hundred bytes for
a small repo, about 40 for each file of a large one. What comes back is believed by its SHA-1 alone. dulwich reads
pkt-lines and the pack; the requests go through `api`, so that its rules for tokens and redirects hold here too.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from dulwich.errors import GitProtocolError, ObjectFormatException
from dulwich.objects import parse_tree
from dulwich.protocol import PktLineParser, Protocol, pkt_line

from hfpeer.errors import HfpeerError
from hfpeer.gitproof import EMPTY_TREE, FILE_MODES, MAX_TREES, SUBMODULE_MODE, TREE_MODE
from hfpeer.names import Commit, RepoId
from hfpeer.upstream.access import Access
from hfpeer.upstream.api import Api, PassingFault, Question
from hfpeer.upstream.pack import BrokenPack, read_objects

MAX_PACK_BYTES = 64 * 1024 * 1024
MAX_TREE_BYTES = 256 * 1024 * 1024
"""All trees together, unpacked and their deltas: a million files of ordinary names take 70 MB."""
MAX_ENTRIES = 2_000_000
_VERSION_2 = {"Git-Protocol": "version=2"}
_BROKEN_GIT = (BrokenPack, GitProtocolError, ObjectFormatException, ValueError)


class NoGit(Exception):
    """This hub gives no proof for this commit over git; the text says why."""


@dataclass(frozen=True)
class GitEntry:
    """A leaf of the tree: a file, a submodule or an empty tree. `mode` as in `gitproof`, `object_id` in hex."""

    path: bytes
    mode: str
    object_id: str


@dataclass(frozen=True)
class GitSnapshot:
    """The raw commit, checked against its id, and every leaf below it."""

    commit_object: bytes
    entries: tuple[GitEntry, ...]


async def fetch_snapshot(api: Api, access: Access, repo: RepoId, commit: Commit, timeout_seconds: float) -> GitSnapshot:
    """The commit and its trees. Raises NoGit when the hub has no git, no filters, or no sound answer in time."""
    fetching = asyncio.ensure_future(_fetch(api, access, repo, commit))
    # When this is cancelled at the moment at which the fetch fails, nobody else would look at how it failed.
    fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.wait_for(fetching, timeout_seconds)
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise NoGit(f"git takes more than {timeout_seconds:.0f} s") from error
    except (HfpeerError, PassingFault) as error:
        raise NoGit(str(error)) from error
    except _BROKEN_GIT as error:
        raise NoGit(f"the git answer is broken: {error or type(error).__name__}") from error


async def _fetch(api: Api, access: Access, repo: RepoId, commit: Commit) -> GitSnapshot:
    base = access.url(f"/{repo.url_path}.git")
    base = await _check_advertisement(api, access, repo, base)
    headers = {
        **_VERSION_2,
        "Content-Type": "application/x-git-upload-pack-request",
        "Accept": "application/x-git-upload-pack-result",
    }
    url = base.copy_with(path=base.path + "/git-upload-pack")
    question = Question(url, repo, commit, headers, body=_fetch_request(commit))
    answer = await _receive(api, access, question)
    return await asyncio.to_thread(_read_answer, answer, commit)


async def _check_advertisement(api: Api, access: Access, repo: RepoId, base: httpx.URL) -> httpx.URL:
    """The repo's git URL after redirects. Raises NoGit unless the server speaks version 2 with filters."""
    url = base.copy_with(path=base.path + "/info/refs", query=b"service=git-upload-pack")
    answer = await api.read(Question(url, repo, headers=_VERSION_2, max_bytes=1 << 20), access)
    lines: list[bytes | None] = []
    PktLineParser(lines.append).parse(answer.content)
    capabilities = [line.rstrip(b"\n") for line in lines if line is not None]
    if b"version 2" not in capabilities:
        raise NoGit("its git does not speak protocol version 2")
    fetch = next((line for line in capabilities if line.startswith(b"fetch=")), b"fetch=")
    if b"filter" not in fetch.partition(b"=")[2].split():
        raise NoGit("its git does not support filters")
    path = answer.request.url.path
    if not path.endswith("/info/refs"):
        raise NoGit("its git redirects to something else")
    return answer.request.url.copy_with(path=path.removesuffix("/info/refs"), query=None)


def _fetch_request(commit: Commit) -> bytes:
    capabilities = (b"command=fetch", b"agent=hfpeer", b"object-format=sha1")
    arguments = (b"no-progress", b"ofs-delta", b"want " + commit.encode(), b"deepen 1", b"filter blob:none", b"done")
    return b"".join([*map(_line, capabilities), b"0001", *map(_line, arguments), b"0000"])


def _line(text: bytes) -> bytes:
    return bytes(pkt_line(text + b"\n"))


async def _receive(api: Api, access: Access, question: Question) -> bytes:
    """A whole answer of bounded size."""
    answer = bytearray()
    async with api.open(question, access) as response:
        async for chunk in response.aiter_bytes():
            answer += chunk
            if len(answer) > MAX_PACK_BYTES:
                raise NoGit(f"its trees take more than {MAX_PACK_BYTES} bytes")
    return bytes(answer)


def _read_answer(answer: bytes, commit: Commit) -> GitSnapshot:
    """The snapshot in a `fetch` answer. Takes time in proportion to the pack."""
    pack = b"".join(_pack_data(answer))
    return _snapshot(read_objects(pack, MAX_TREE_BYTES), commit)


def _pack_data(answer: bytes) -> Iterator[bytes]:
    """The data channel of the `packfile` section."""
    lines = Protocol(io.BytesIO(answer).read, _write_nothing)
    while (line := lines.read_pkt_line()) != b"packfile\n":
        if line is not None and line.startswith(b"ERR "):
            raise NoGit(f"its git says {_printable(line[4:])}")
    while line := lines.read_pkt_line():
        channel, data = line[:1], line[1:]
        if channel == b"\1":
            yield data
        elif channel == b"\3":
            raise NoGit(f"its git says {_printable(data)}")


def _snapshot(objects: dict[str, bytes], commit: Commit) -> GitSnapshot:
    raw = objects.get(commit)
    if raw is None or not raw.startswith(b"tree "):
        raise NoGit("its git sends another commit")
    return GitSnapshot(raw, tuple(_leaves(objects, raw[5:45].decode("ascii"))))


def _leaves(objects: dict[str, bytes], root: str) -> Iterator[GitEntry]:
    """Every entry below a tree that is no tree itself, or an empty one. Raises NoGit where a tree is missing."""
    waiting: list[tuple[bytes, str]] = [(b"", root)]
    trees = entries = 0
    while waiting:
        folder, tree = waiting.pop()
        trees += 1
        if tree not in objects and tree != EMPTY_TREE:
            raise NoGit("its git leaves out a tree")
        for name, mode, entry_id in _parse_tree(objects.get(tree, b"")):
            entries += 1
            if mode == TREE_MODE and entry_id != EMPTY_TREE:
                waiting.append((folder + name + b"/", entry_id))
            else:
                yield GitEntry(folder + name, mode, entry_id)
        if trees > MAX_TREES or entries > MAX_ENTRIES:
            raise NoGit("its tree is too large")


def _parse_tree(body: bytes) -> Iterator[tuple[bytes, str, str]]:
    """(name, mode, id in hex) of each entry. Raises NoGit for a mode that only broken tools ever wrote."""
    for name, mode, entry_id in parse_tree(body, 20, strict=True):
        text = f"{mode:o}"
        if text not in FILE_MODES and text not in (TREE_MODE, SUBMODULE_MODE):
            raise NoGit(f"a tree has an entry of mode {text}")
        yield name, text, entry_id.decode("ascii")


def _write_nothing(data: bytes) -> None:
    raise AssertionError("an answer is only read")


def _printable(text: bytes) -> str:
    return "".join(character for character in text.decode("utf-8", "replace") if character.isprintable())[:200]
