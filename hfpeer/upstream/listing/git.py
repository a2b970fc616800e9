"""Fetches the commit object and the trees of one commit over git's smart HTTP, without the content of files.

Protocol version 2 with `filter blob:none` and `deepen 1` (gitprotocol-v2, gitprotocol-http): a few hundred bytes for a
small repo, about 40 bytes for each file of a large one. Objects are trusted for their SHA-1 alone. dulwich reads
pkt-lines and the pack. Requests go through `api`, with its rules for tokens and redirects.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from dulwich.errors import GitProtocolError, ObjectFormatException
from dulwich.protocol import pkt_line

from hfpeer.budgets import (
    MAX_COMMIT_BYTES,
    MAX_GIT_LINES,
    MAX_PACK_BYTES,
    MAX_UNPACKED_PACK_BYTES,
)
from hfpeer.errors import HfpeerError, RateLimited
from hfpeer.git.pack_reader import BrokenPack, read_objects
from hfpeer.git.trees import BrokenTree, GitEntry, leaves
from hfpeer.names import Commit, RepoId
from hfpeer.system.cancellation import check_stop, in_thread
from hfpeer.system.printable import printable
from hfpeer.upstream.access import Access
from hfpeer.upstream.api import Api, ApiRequest, TransientFault
from hfpeer.upstream.responses.unpacking import unpacked

_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")
_VERSION_2 = {"Git-Protocol": "version=2"}
_BROKEN_GIT = (BrokenPack, BrokenTree, GitProtocolError, ObjectFormatException, ValueError)


class NoGit(Exception):
    """This hub gives no proof for this commit over git. The text says why."""


@dataclass(frozen=True)
class GitSnapshot:
    """The raw commit, checked against its id, and every leaf below it."""

    commit_object: bytes
    entries: tuple[GitEntry, ...]


async def fetch_snapshot(api: Api, access: Access, repo: RepoId, commit: Commit, timeout_seconds: float) -> GitSnapshot:
    """The commit and its trees. Raises NoGit if the hub has no git, no filters, or sends nothing valid in time, and
    RateLimited."""
    fetching = asyncio.ensure_future(_fetch(api, access, repo, commit))
    # If this is cancelled at the moment the fetch fails, nothing else reads the exception, and asyncio would log that.
    fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.wait_for(fetching, timeout_seconds)
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise NoGit(f"git takes more than {timeout_seconds:.0f} s") from error
    except RateLimited:
        raise
    except (HfpeerError, TransientFault) as error:
        raise NoGit(str(error)) from error
    except _BROKEN_GIT as error:
        raise NoGit(f"the git response is broken: {error or type(error).__name__}") from error


def advertisement_url(base: httpx.URL) -> httpx.URL:
    """The URL of the first request to the git of a repo, which has the URL `base`."""
    return base.copy_with(path=base.path + "/info/refs", query=b"service=git-upload-pack")


async def _fetch(api: Api, access: Access, repo: RepoId, commit: Commit) -> GitSnapshot:
    base = access.url(f"/{repo.url_path}.git")
    base = await _check_advertisement(api, access, repo, base)
    headers = {
        **_VERSION_2,
        "Content-Type": "application/x-git-upload-pack-request",
        "Accept": "application/x-git-upload-pack-result",
    }
    url = base.copy_with(path=base.path + "/git-upload-pack")
    request = ApiRequest(url, repo, commit, headers, body=_fetch_request(commit))
    response = await _receive(api, access, request)
    return await in_thread(_read_answer, response, commit)


async def _check_advertisement(api: Api, access: Access, repo: RepoId, base: httpx.URL) -> httpx.URL:
    """The repo's git URL after redirects. Raises NoGit unless the server supports version 2 with filters."""
    response = await api.get(ApiRequest(advertisement_url(base), repo, headers=_VERSION_2, max_bytes=1 << 20), access)
    lines = await in_thread(lambda: list(_lines_of(response.content)))
    capabilities = [line.rstrip(b"\n") for line in lines if line is not None]
    if b"version 2" not in capabilities:
        raise NoGit("its git does not speak protocol version 2")
    fetch = next((line for line in capabilities if line.startswith(b"fetch=")), b"fetch=")
    if b"filter" not in fetch.partition(b"=")[2].split():
        raise NoGit("its git does not support filters")
    path = response.request.url.path
    if not path.endswith("/info/refs"):
        raise NoGit("its git redirects to something else")
    return response.request.url.copy_with(path=path.removesuffix("/info/refs"), query=None)


def _fetch_request(commit: Commit) -> bytes:
    capabilities = (b"command=fetch", b"agent=hfpeer", b"object-format=sha1")
    arguments = (b"no-progress", b"ofs-delta", b"want " + commit.encode(), b"deepen 1", b"filter blob:none", b"done")
    return b"".join([*map(_line, capabilities), b"0001", *map(_line, arguments), b"0000"])


def _line(text: bytes) -> bytes:
    return bytes(pkt_line(text + b"\n"))


async def _receive(api: Api, access: Access, request: ApiRequest) -> bytes:
    """A whole response of bounded size."""
    content = bytearray()
    async with api.open(request, access) as response:
        async for chunk in unpacked(response):
            content += chunk
            if len(content) > MAX_PACK_BYTES:
                raise NoGit(f"its trees take more than {MAX_PACK_BYTES} bytes")
    return bytes(content)


def _read_answer(response: bytes, commit: Commit) -> GitSnapshot:
    """The snapshot in the response to `fetch`. Takes time in proportion to the pack."""
    pack = b"".join(_pack_data(response))
    return _snapshot(read_objects(pack, MAX_UNPACKED_PACK_BYTES), commit)


def _pack_data(response: bytes) -> Iterator[bytes]:
    """The data channel of the `packfile` section (side-band-64k, gitprotocol-pack)."""
    lines = _lines_of(response)
    for line in lines:
        if line == b"packfile\n":
            break
        if line is not None and line.startswith(b"ERR "):
            raise NoGit(f"its git says {_shown(line[4:])}")
    for line in lines:
        if line is None:
            return
        channel, data = line[:1], line[1:]
        if channel == b"\1":
            yield data
        elif channel == b"\3":
            raise NoGit(f"its git says {_shown(data)}")
    raise NoGit("its git response breaks off")


def _lines_of(response: bytes) -> Iterator[bytes | None]:
    """The pkt-lines of a response; None for a flush or delimiter packet. Raises NoGit for invalid lines and for too
    many.

    Source: gitprotocol-common.
    """
    at = 0
    for _ in range(MAX_GIT_LINES):
        if at == len(response):
            return
        check_stop()
        length = response[at : at + 4]
        size = int(length, 16) if _LENGTH.fullmatch(length) else -1
        if size < 0 or size == 3 or at + max(size, 4) > len(response):
            raise NoGit("its git response is broken")
        yield response[at + 4 : at + size] if size > 3 else None
        at += max(size, 4)
    raise NoGit(f"its git response has more than {MAX_GIT_LINES} lines")


def _snapshot(objects: dict[str, bytes], commit: Commit) -> GitSnapshot:
    raw = objects.get(commit)
    if raw is None or not raw.startswith(b"tree "):
        raise NoGit("its git sends another commit")
    if len(raw) > MAX_COMMIT_BYTES:
        raise NoGit(f"its commit object takes more than {MAX_COMMIT_BYTES} bytes")
    return GitSnapshot(raw, tuple(leaves(objects.get, raw[5:45].decode("ascii"))))


def _shown(text: bytes) -> str:
    return printable(text[:200].decode("utf-8", "replace").strip())
