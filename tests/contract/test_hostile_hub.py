"""Hubs that would fill the memory or stop the clock: each is a fault of the hub, at once and for little."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest

from fakes.hub import Fault, HubSimulator
from fakes.hub.wire import Request, Response
from hfpeer import budgets
from hfpeer.errors import HfpeerError, HubUnreachable
from hfpeer.git import trees
from hfpeer.git.proof import object_id
from hfpeer.git.trees import BrokenTree
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.net.body import SourceFault
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.listing import git
from hfpeer.upstream.listing.git import NoGit
from hfpeer.upstream.upstream import Upstream

ZOO, MAIN, COMMIT = RepoId.parse("acme/zoo"), Revision("main"), Commit("c" * 40)
MIB = 1 << 20


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
async def upstream(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=Timeouts(backoff_seconds=0.01))
    yield one
    await one.aclose()


def saying(body: bytes, status: int = 200, **headers: str) -> Fault:
    """An answer with this body, whatever was asked."""

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, answer: Response(status, named, (body,))


async def longest_stall(work: Awaitable[object]) -> float:
    """For how many seconds of computing the event loop stood still at most while this was done. Its failure is raised.

    Only what its own thread computes counts: the machine may be busy."""
    task, longest = asyncio.ensure_future(work), 0.0
    while not task.done():
        began_at = time.thread_time()
        await asyncio.sleep(0.005)
        longest = max(longest, time.thread_time() - began_at)
    await task
    return longest


@lru_cache
def in_boxes(size_bytes: int, boxes: int) -> bytes:
    """So many NULs in gzip in gzip."""
    packer, raw = zlib.compressobj(6, zlib.DEFLATED, 31), bytearray()
    for _ in range(size_bytes // MIB):
        raw += packer.compress(bytes(MIB))
    raw += packer.flush()
    for _ in range(boxes - 1):
        raw = bytearray(gzip.compress(raw, 9))
    return bytes(raw)


@pytest.mark.parametrize(("encoding", "boxes"), [("gzip", 1), ("gzip, gzip", 2), ("deflate", 1), ("zstd, br", 1)])
@pytest.mark.parametrize("status", [200, 307, 403])
async def test_a_bomb_in_any_box_takes_little_memory(
    hub: HubSimulator, upstream: Upstream, encoding: str, boxes: int, status: int
) -> None:
    hub.inject(saying(in_boxes(96 * MIB, boxes), status, Content_Encoding=encoding))
    tracemalloc.start()
    try:
        with pytest.raises(HfpeerError):
            await upstream.resolve(ZOO, MAIN)
        assert tracemalloc.get_traced_memory()[1] < (140 if boxes == 1 and status == 200 else 4) * MIB
    finally:
        tracemalloc.stop()


async def test_an_answer_that_is_cut_or_no_gzip_is_a_fault(hub: HubSimulator, upstream: Upstream) -> None:
    whole = gzip.compress(json.dumps({"sha": COMMIT}).encode())
    hub.inject(saying(whole, Content_Encoding="GZIP"), times=1)
    assert await upstream.resolve(ZOO, MAIN) == COMMIT
    for broken in (whole[:-9], b"{}", b""):
        with hub.inject(saying(broken, Content_Encoding="gzip")), pytest.raises(HubUnreachable):
            await upstream.resolve(ZOO, MAIN)


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1", b"[[[1]]]"])
async def test_a_document_that_would_swell_is_not_parsed(hub: HubSimulator, upstream: Upstream, item: bytes) -> None:
    hub.inject(saying(b"[" + item + (b"," + item) * (8 * MIB // (len(item) + 1)) + b"]"))
    tracemalloc.start()
    try:
        with pytest.raises(HubUnreachable, match="no JSON"):
            await upstream.resolve(ZOO, MAIN)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.timed
async def test_a_million_siblings_take_no_memory_and_hold_nobody_up(hub: HubSimulator, upstream: Upstream) -> None:
    siblings = ",".join(f'{{"rfilename":"f{number:06}"}}' for number in range(1_000_000))
    hub.inject(saying(f'{{"sha":"{COMMIT}","siblings":[{siblings}]}}'.encode()))
    assert await longest_stall(upstream.resolve(ZOO, MAIN)) < 0.5


async def test_what_is_nested_ten_thousand_deep_is_no_document(hub: HubSimulator, upstream: Upstream) -> None:
    for deep in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
        with hub.inject(saying(deep)), pytest.raises(HubUnreachable, match="no JSON"):
            await upstream.resolve(ZOO, MAIN)


@pytest.mark.parametrize("pages", [2, 3])
async def test_pages_that_lead_in_a_circle_are_asked_once_each(
    hub: HubSimulator, upstream: Upstream, pages: int
) -> None:
    entry = {"type": "file", "oid": "a" * 40, "size": 1, "path": "a"}
    turns = iter(range(100))

    def fault(request: Request, answer: Any) -> Response:
        following = f"/api/models/acme/zoo/tree/x?page={next(turns) % pages}"
        return saying(json.dumps([entry]).encode(), Link=f'<{following}>; rel="next"')(request, answer)

    hub.behaviour.has_git = False
    hub.inject(fault, path="*/tree/*")
    with pytest.raises(HubUnreachable, match="no end"):
        await upstream.manifest(ZOO, COMMIT)
    assert len(hub.requests_for("*/tree/*")) == pages + 1


async def test_empty_pages_without_end_are_left_at_the_first(hub: HubSimulator, upstream: Upstream) -> None:
    turns = iter(range(100))
    hub.inject(
        lambda request, answer: saying(b"[]", Link=f'</x?page={next(turns)}>; rel="next"')(request, answer),
        path="*/tree/*",
    )
    with pytest.raises(HubUnreachable, match="no end"):
        await upstream.manifest(ZOO, COMMIT)


# --- git


@pytest.mark.timed
@pytest.mark.parametrize("line", [b"0000", b"0005\2", b"0004"])
async def test_an_advertisement_of_nothing_but_lines_holds_nobody_up(
    hub: HubSimulator, upstream: Upstream, line: bytes
) -> None:
    hub.inject(saying(line * (MIB // len(line))), path="*/info/refs")
    hub.inject(saying(b"[]"), path="*/tree/*")
    assert await longest_stall(upstream.manifest(ZOO, COMMIT)) < 0.3


@pytest.mark.parametrize("line", [b"0000", b"0005\2", b"0001"])
def test_a_git_answer_has_a_largest_number_of_lines(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(git)["MAX_GIT_LINES"] == budgets.MAX_GIT_LINES
    monkeypatch.setattr(git, "MAX_GIT_LINES", 10)
    assert len(list(git._lines_of(line * 9))) == 9
    with pytest.raises(NoGit, match="more than 10 lines"):
        list(git._lines_of(line * 11))


@pytest.mark.parametrize("broken", [b"00", b"0003", b"-001", b"0x10", b"zzzz", b"0010abc", b" 123"])
def test_what_is_no_line_of_git_ends_the_answer(broken: bytes) -> None:
    with pytest.raises(NoGit):
        list(git._lines_of(b"0008abcd" + broken))


def tree_of(*entries: tuple[str, str, str]) -> bytes:
    return b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(id) for mode, name, id in entries)


def test_a_few_trees_that_stand_for_a_million_are_not_spelled_out() -> None:
    body = tree_of(*(("100644", f"f{number}", "b" * 40) for number in range(10)))
    objects = {object_id("tree", body): body}
    for _ in range(6):
        body = tree_of(*(("40000", f"d{number}", object_id("tree", body)) for number in range(10)))
        objects[object_id("tree", body)] = body
    count = 0
    with pytest.raises(BrokenTree, match="too large"):
        for _ in trees.leaves(objects.get, object_id("tree", body)):
            count += 1
    assert count <= budgets.MAX_REPEATED_ENTRIES + 10


def test_folders_that_are_alike_count_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    body = tree_of(("100644", "a", "b" * 40), ("100644", "b", "b" * 40))
    same = object_id("tree", body)
    root = tree_of(*(("40000", name, same) for name in "cde"))
    objects = {same: body, object_id("tree", root): root}
    assert vars(trees)["MAX_REPEATED_ENTRIES"] == budgets.MAX_REPEATED_ENTRIES
    monkeypatch.setattr(trees, "MAX_REPEATED_ENTRIES", 4)
    assert len(list(trees.leaves(objects.get, object_id("tree", root)))) == 6
    monkeypatch.setattr(trees, "MAX_REPEATED_ENTRIES", 3)
    with pytest.raises(BrokenTree, match="too large"):
        list(trees.leaves(objects.get, object_id("tree", root)))


ODD_TREES: dict[str, Callable[[], bytes]] = {
    "unsorted": lambda: tree_of(("100644", "b", "b" * 40), ("100644", "a", "b" * 40)),
    "twice": lambda: tree_of(("100644", "a", "b" * 40), ("100644", "a", "b" * 40)),
    "dots": lambda: tree_of(*(("100644", name, "b" * 40) for name in (".", "..", ".git", ".GIT"))),
    "a slash": lambda: tree_of(("100644", "a/b", "b" * 40)),
    "no name": lambda: tree_of(("100644", "", "b" * 40)),
    "a newline": lambda: tree_of(("100644", "a\nb", "b" * 40), ("100644", "a\x1b[2Jb", "b" * 40)),
    "twins": lambda: tree_of(("100644", "e\u0301", "b" * 40), ("100644", "\u00e9", "b" * 40)),
    "no mode": lambda: b" a\0" + bytes(20),
    "a huge mode": lambda: b"7" * 5000 + b" a\0" + bytes(20),
    "cut": lambda: b"100644 a\0" + bytes(19),
    "itself below": lambda: tree_of(("40000", "a", "4b825dc642cb6eb9a060e54bf8d69288fbee4904")),
    "submodules": lambda: tree_of(*(("160000", f"s{number:06}", "b" * 40) for number in range(20_000))),
}


@pytest.mark.parametrize("kind", ODD_TREES)
async def test_an_odd_tree_is_proved_or_refused_in_a_sentence(hub: HubSimulator, upstream: Upstream, kind: str) -> None:
    tree = ODD_TREES[kind]()
    commit = f"tree {object_id('tree', tree)}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nm".encode()
    pack = b"PACK" + struct.pack(">II", 2, 2)
    for kind_number, body in ((1, commit), (2, tree)):
        size, header = len(body), bytearray()
        first = kind_number << 4 | size & 15
        size >>= 4
        while size:
            header.append(first | 0x80)
            first, size = size & 0x7F, size >> 7
        pack += bytes(header) + bytes([first]) + zlib.compress(body)
    pack += hashlib.sha1(pack).digest()
    lines = [b"packfile\n", *(b"\1" + pack[at : at + 60_000] for at in range(0, len(pack), 60_000))]
    hub.put_repo("model", "acme/zoo", {"a": b"1"})
    hub.inject(saying(b"".join(b"%04x%b" % (len(line) + 4, line) for line in lines) + b"0000"), path="*git-upload-pack")
    hub.inject(saying(b"[]"), path="*/tree/*")
    hub.inject(saying(b"[]"), path="*/paths-info/*")
    try:
        found = await upstream.manifest(ZOO, Commit(object_id("commit", commit)))
    except HfpeerError as error:
        assert error.message.isprintable(), error.message
    else:
        assert not found.files


@pytest.mark.parametrize(
    "place", ["javascript:x", "http://xn--a/", "http://[", "http://x:99999/", "file:///x", "unix:///x"]
)
async def test_a_redirect_to_what_is_no_url_is_a_fault_of_the_hub(
    hub: HubSimulator, upstream: Upstream, place: str
) -> None:
    hub.inject(saying(b"", 302, Location=place))
    with pytest.raises(HubUnreachable, match=r"redirects|cannot be reached"):
        await upstream.resolve(ZOO, MAIN)
    with pytest.raises(SourceFault):
        await asyncio.to_thread(upstream.open_range, ZOO, COMMIT, FilePath("a"), 0, 1, size_bytes=1)
