"""The LAN door and the endpoint door: what strangers get, and what they never get."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import queue
import random
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from blockbuster import blockbuster_ctx

from fakes.doors import Answer, OpenDoor, Wire, eventually, open_door, wire
from fakes.node import COMMIT, MemoryBlob, MemoryNode
from hfpeer import __version__
from hfpeer.control.operations import PeerStatus
from hfpeer.control.ports import listen_tcp
from hfpeer.errors import AddressInUse, InvalidName, from_problem
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Digest, FilePath, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES, MAX_BATCH_BYTES
from hfpeer.peers.protocol.messages import RefMessage
from hfpeer.peers.protocol.paths import blob_path, digests_path, follow_path, manifest_path, pieces_path, ref_path
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES, PieceMap, PieceNews, parse_following, piece_digest
from hfpeer.peers.ranges.range_client import RangeClient
from hfpeer.ranges import MIB, ByteRange, PieceGrid, RangeSet
from hfpeer_daemon.app import endpoint_app, lan_app
from hfpeer_daemon.http.listeners import bound_address, listen_unix
from hfpeer_daemon.http.responses import UNSATISFIABLE, App, Receive, Scope, Send, names_etag, parse_range
from hfpeer_daemon.http.zero_copy import EXTENSION
from hfpeer_daemon.lan import blobs, piece_digests
from hfpeer_daemon.lan.upload_slots import UploadSlots

CONTENT = os.urandom(2 * MIB + 345)
REPO = RepoId.parse("org/name")


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    with blockbuster_ctx(scanned_modules=["hfpeer", "hfpeer_daemon"]):
        yield


@pytest.fixture
def node() -> MemoryNode:
    return MemoryNode()


@pytest.fixture
def blob(node: MemoryNode, tmp_path: Path) -> Digest:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return node.put(path)


@asynccontextmanager
async def lan(node: MemoryNode, line: UploadSlots | None = None, *, zero_copy: bool = True) -> AsyncIterator[OpenDoor]:
    line = line or UploadSlots()
    stopping = asyncio.Event()

    def make_app(threads: ThreadPoolExecutor) -> App:
        app = lan_app(node, threads, line, stopping)
        return app if zero_copy else without_zero_copy(app)

    async with open_door(make_app, threads=6) as door:
        yield door
    assert node.open_blobs == 0


def without_zero_copy(app: App) -> App:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"].pop(EXTENSION)
        await app(scope, receive, send)

    return plain


async def ask_lan(node: MemoryNode, path: str, *lines: str, method: str = "GET") -> Answer:
    async with lan(node) as door, wire(door.address) as connection:
        return await connection.ask(path, *lines, method=method)


# Blobs


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_a_whole_blob_is_sent_and_counted(node: MemoryNode, blob: Digest, zero_copy: bool) -> None:
    async with lan(node, zero_copy=zero_copy) as door, wire(door.address) as connection:
        answer = await connection.ask(blob_path(blob))
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{blob.hex}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["server"] == f"hfpeer/{__version__}"
    assert "last-modified" not in answer.headers
    assert "content-encoding" not in answer.headers
    assert node.sent_bytes == len(CONTENT)


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=5-9": (5, 10),
    "bytes=1048576-": (MIB, len(CONTENT)),
    "bytes=-7": (len(CONTENT) - 7, len(CONTENT)),
    "bytes=-99999999999": (0, len(CONTENT)),
    f"bytes={len(CONTENT) - 1}-99999999999999999999999": (len(CONTENT) - 1, len(CONTENT)),
    "BYTES = 3 - 4": (3, 5),
}


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_one_range_is_sent(node: MemoryNode, blob: Digest, zero_copy: bool) -> None:
    async with lan(node, zero_copy=zero_copy) as door, wire(door.address) as connection:
        for header, (start, stop) in RANGES.items():
            answer = await connection.ask(blob_path(blob), f"Range: {header}")
            assert (answer.status, answer.body) == (206, CONTENT[start:stop])
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


async def test_many_ranges_and_malformed_ones_give_the_whole(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for header in ("bytes=0-1,5-6", "bytes=5-2", "lines=1-2", "bytes=", "bytes=-", "bytes=a-b", "x"):
            answer = await connection.ask(blob_path(blob), f"Range: {header}")
            assert (answer.status, answer.body) == (200, CONTENT)


async def test_a_range_behind_the_end_is_refused_with_the_size(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for header in (f"bytes={len(CONTENT)}-", "bytes=9999999999999999999999999-", "bytes=-0"):
            answer = await connection.ask(blob_path(blob), f"Range: {header}")
            assert (answer.status, answer.body) == (416, b"")
            assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
        assert (await connection.ask(blob_path(blob), "Range: bytes=0-3")).body == CONTENT[:4]


async def test_if_range_lets_a_range_count_only_for_the_same_blob(node: MemoryNode, blob: Digest) -> None:
    same, other = f'"{blob.hex}"', ('"other"', f'W/"{blob.hex}"', "Wed, 21 Oct 2015 07:28:00 GMT")
    async with lan(node) as door, wire(door.address) as connection:
        part = await connection.ask(blob_path(blob), "Range: bytes=0-9", f"If-Range: {same}")
        assert (part.status, part.body) == (206, CONTENT[:10])
        for etag in other:
            whole = await connection.ask(blob_path(blob), "Range: bytes=0-9", f"If-Range: {etag}")
            assert (whole.status, whole.body) == (200, CONTENT)


async def test_a_blob_that_is_known_is_not_sent_again(node: MemoryNode, blob: Digest) -> None:
    etag = f'"{blob.hex}"'
    async with lan(node) as door, wire(door.address) as connection:
        for method in ("GET", "HEAD"):
            for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
                answer = await connection.ask(blob_path(blob), f"If-None-Match: {known}", method=method)
                assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert (await connection.ask(blob_path(blob), 'If-None-Match: "x"', "Range: bytes=0-3")).body == CONTENT[:4]


async def test_head_tells_size_and_etag_and_sends_nothing(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        answer = await connection.ask(blob_path(blob), "Range: bytes=0-9", method="HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(CONTENT)))
        assert (await connection.ask(blob_path(blob), "Range: bytes=0-9")).body == CONTENT[:10]
    assert node.sent_bytes == 10


async def test_an_empty_blob_is_sent_as_nothing_whatever_range_is_asked(node: MemoryNode, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    digest = node.put(empty)
    for lines in ((), ("Range: bytes=0-",), ("Range: bytes=-5",)):
        answer = await ask_lan(node, blob_path(digest), *lines)
        assert (answer.status, answer.body) == (200, b"")


async def test_an_invalid_digest_is_refused(node: MemoryNode) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for path in ("/blobs/", "/blobs/sha256:zz", "/blobs/../../etc/passwd", "/blobs/%00"):
            answer = await connection.ask(path)
            assert answer.status == 400
            assert json.loads(answer.body)["code"] == "bad_name"


async def test_a_blob_that_is_not_shared_does_not_exist(node: MemoryNode) -> None:
    answer = await ask_lan(node, blob_path(Digest("sha256", "0" * 64)))
    assert answer.status == 404
    assert from_problem(json.loads(answer.body)).code == "not_found"


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_what_is_shared_no_more_is_not_sent_to_its_end(
    node: MemoryNode, tmp_path: Path, zero_copy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner withholds it while somebody gets all of it in one answer."""
    monkeypatch.setattr(blobs, "MESSAGE_BYTES", MIB)
    path = tmp_path / "large"
    path.write_bytes(bytes(5 * MIB))
    blob, opened = node.put(path), node.open_shared

    def open_thrice(digest: Digest) -> MemoryBlob | None:
        return opened(digest) if next(asked) < 3 else None

    asked = itertools.count()
    monkeypatch.setattr(node, "open_shared", open_thrice)
    async with lan(node, zero_copy=zero_copy) as door:
        reader, writer = await asyncio.open_connection(door.address.host, door.address.port)
        writer.write(f"GET {blob_path(blob)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20.0)
        writer.close()
    assert 3 * MIB < len(answer) < 4 * MIB


async def test_of_a_partial_blob_only_what_is_here_without_a_gap_is_sent(node: MemoryNode, blob: Digest) -> None:
    node.partial[blob] = RangeSet([(100, 200), (300, 400)])
    async with lan(node) as door, wire(door.address) as connection:
        inside = await connection.ask(blob_path(blob), "Range: bytes=110-119")
        assert (inside.status, inside.body) == (206, CONTENT[110:120])
        cut = await connection.ask(blob_path(blob), "Range: bytes=150-349")
        assert (cut.status, cut.body) == (206, CONTENT[150:200])
        assert cut.headers["content-range"] == f"bytes 150-199/{len(CONTENT)}"
        for start in (0, 99, 200, 250, 400):
            missing = await connection.ask(blob_path(blob), f"Range: bytes={start}-{start + 200}")
            assert (missing.status, missing.body) == (416, b"")
        whole = await connection.ask(blob_path(blob))
        assert whole.status == 404


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_what_a_node_is_just_getting_is_sent_as_it_comes_to_who_prefers_to_wait(
    node: MemoryNode, blob: Digest, zero_copy: bool
) -> None:
    node.partial[blob] = RangeSet([(0, 100)])
    coming = node.coming[blob] = queue.Queue()
    async with lan(node, zero_copy=zero_copy) as door, wire(door.address) as connection:
        assert (await connection.ask(blob_path(blob), "Range: bytes=100-299")).status == 416
        await connection.say(blob_path(blob), "Range: bytes=100-299", "Prefer: respond-async, wait=5")
        head = await connection.head()
        assert (head.status, head.headers["content-length"]) == (206, "200")
        for start, stop in ((100, 150), (150, 299), (299, 300)) if zero_copy else ((100, 300),):
            coming.put(stop)
            assert await connection.reader.readexactly(stop - start) == CONTENT[start:stop]
        assert (await connection.ask(blob_path(blob), "Range: bytes=0-9")).body == CONTENT[:10], "and it can go on"
    assert node.sent_bytes == 210


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_when_what_a_node_waits_for_does_not_come_the_connection_ends(
    node: MemoryNode, blob: Digest, zero_copy: bool
) -> None:
    node.partial[blob] = RangeSet([(0, 100)])
    coming = node.coming[blob] = queue.Queue()
    async with lan(node, zero_copy=zero_copy) as door, wire(door.address) as connection:
        await connection.say(blob_path(blob), "Range: bytes=100-299", "Prefer: wait=5")
        await connection.head()
        for stop in (150, 150) if zero_copy else (100,):
            coming.put(stop)
        assert await connection.rest() in (CONTENT[100:150], b"")
        await eventually(lambda: node.open_blobs == 0)
        assert await door.threads_are_free()


async def test_hfpeers_own_client_waits_for_what_is_coming(node: MemoryNode, blob: Digest) -> None:
    node.partial[blob] = RangeSet([(0, 100)])
    node.coming[blob] = queue.Queue()

    def work(address: Address) -> bytes:
        client = RangeClient(address, "me")
        try:
            with pytest.raises(SourceFault, match="does not have these bytes now"):
                client.open_range(blob, 100, 300)
            body = client.open_range(blob, 100, 300, cut_through=True)
            buffer, got = bytearray(200), 0
            for stop in (160, 300):
                node.coming[blob].put(stop)
                got += body.readinto(memoryview(buffer)[got:])
            body.close()
            return bytes(buffer)
        finally:
            client.close()

    async with lan(node) as door:
        assert await asyncio.to_thread(work, door.address) == CONTENT[100:300]


async def test_random_ranges_of_whole_and_partial_blobs_are_never_wrong(node: MemoryNode, blob: Digest) -> None:
    dice, size = random.Random(7), len(CONTENT)
    async with lan(node) as door, wire(door.address) as connection:
        for turn in range(120):
            parts = RangeSet(_random_part(dice) for _ in range(3))
            node.partial = {blob: parts} if turn % 2 else {}
            first, last = dice.randrange(size + 50), dice.randrange(size + 50)
            header = dice.choice([f"{first}-{last}", f"{first}-", f"-{last}", f"{first}-{last},1-2", f"{first}-x"])
            answer = await connection.ask(blob_path(blob), f"Range: bytes={header}")
            _check_true(answer, header, None if turn % 2 == 0 else parts)


def _random_part(dice: random.Random) -> tuple[int, int]:
    start, stop = sorted(dice.sample(range(len(CONTENT)), 2))
    return start, stop


def _check_true(answer: Answer, header: str, parts: RangeSet | None) -> None:
    if answer.status == 206:
        span, _, size = answer.headers["content-range"].removeprefix("bytes ").partition("/")
        start, last = map(int, span.split("-"))
        assert int(size) == len(CONTENT)
        assert answer.body == CONTENT[start : last + 1]
        assert parts is None or parts.covers(start, last + 1)
        assert header.startswith(("-", f"{start}-"))
    elif answer.status == 200:
        assert parts is None
        assert answer.body == CONTENT
    else:
        assert answer.status in (404, 416)


async def test_what_is_sent_does_not_change_when_the_file_is_removed_meanwhile(tmp_path: Path) -> None:
    node, path = MemoryNode(), tmp_path / "large"
    content = os.urandom(1024) * 32 * 1024
    path.write_bytes(content)
    digest = node.put(path)
    async with lan(node) as door, wire(door.address) as connection:
        await connection.say(blob_path(digest))
        await connection.head()
        path.unlink()
        assert await connection.reader.readexactly(len(content)) == content


async def test_hfpeers_own_client_reads_ranges_and_batches(node: MemoryNode, blob: Digest, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"small")
    digest, missing = node.put(small), Digest("sha256", "0" * 64)

    def work(address: Address) -> tuple[bytes, list[tuple[Digest, bytes | None]]]:
        client = RangeClient(address, "me")
        try:
            body = client.open_range(blob, MIB - 5, MIB + 5, size_bytes=len(CONTENT))
            buffer, got = bytearray(10), 0
            while size := body.readinto(memoryview(buffer)[got:]):
                got += size
            body.close()
            return bytes(buffer), list(client.open_batch([digest, missing, blob]))
        finally:
            client.close()

    async with lan(node) as door:
        part, batch = await asyncio.to_thread(work, door.address)
    assert part == CONTENT[MIB - 5 : MIB + 5]
    assert batch == [(digest, b"small"), (missing, None), (blob, None)]


async def test_a_batch_without_digests_or_with_too_many_is_refused(node: MemoryNode) -> None:
    for query in ("", "?digests=", "?digests=x", "?digests=" + ",".join(f"sha256:{n:064x}" for n in range(513))):
        assert (await ask_lan(node, f"/batch{query}")).status == 400


async def test_a_batch_has_a_largest_size_and_says_so_of_each_blob_beyond_it(tmp_path: Path) -> None:
    node, digests = MemoryNode(), []
    for number in range(66):
        path = tmp_path / str(number)
        path.write_bytes(number.to_bytes(2, "big") * (MAX_BATCH_BLOB_BYTES // 2))
        digests.append(node.put(path))
    async with lan(node) as door:
        client = RangeClient(door.address, "me")
        got = await asyncio.to_thread(lambda: list(client.open_batch(digests)))
        client.close()
    given = [body for _, body in got if body is not None]
    assert MAX_BATCH_BYTES <= sum(map(len, given)) <= MAX_BATCH_BYTES + MAX_BATCH_BLOB_BYTES
    assert [digest for digest, _ in got] == digests and all(body is None for _, body in got[len(given) :])


async def test_beyond_the_line_peers_are_asked_to_come_back(tmp_path: Path) -> None:
    node, path = MemoryNode(), tmp_path / "large"
    path.write_bytes(bytes(64 * MIB))
    digest = node.put(path)
    line = UploadSlots(max_active=1, max_waiting=1, max_wait_seconds=30.0, retry_after_seconds=3.0)
    async with lan(node, line) as door, wire(door.address) as first, wire(door.address) as second:
        await first.say(blob_path(digest))
        await first.head()
        await second.say(blob_path(digest), "Range: bytes=0-9")
        await eventually(lambda: line.waiting == 1)
        async with wire(door.address) as third:
            refused = await third.ask(blob_path(digest), "Range: bytes=0-9")
            assert (refused.status, refused.headers["retry-after"]) == (503, "3")
            assert (await third.ask(blob_path(digest), method="HEAD")).status == 200
        first.writer.transport.abort()
        assert (await second.answer()).body == bytes(10)


async def test_nobody_waits_in_the_line_for_ever(tmp_path: Path) -> None:
    node, path = MemoryNode(), tmp_path / "large"
    path.write_bytes(bytes(64 * MIB))
    digest = node.put(path)
    line = UploadSlots(max_active=1, max_wait_seconds=0.05)
    async with lan(node, line) as door, wire(door.address) as first, wire(door.address) as second:
        await first.say(blob_path(digest))
        await first.head()
        assert (await second.ask(blob_path(digest))).status == 503


# Digests of pieces


async def test_digests_of_pieces_are_told_of_a_whole_blob(node: MemoryNode, blob: Digest) -> None:
    wanted = [bytes.fromhex(piece_digest(CONTENT[start : start + MIB])) for start in range(0, len(CONTENT), MIB)]
    async with lan(node) as door, wire(door.address) as connection:
        assert (await connection.ask(digests_path(blob))).body == b"".join(wanted)
        second = await connection.ask(digests_path(blob), "Range: bytes=16-31")
        assert (second.status, second.body) == (206, wanted[1])
        assert second.headers["content-range"] == "bytes 16-31/48"
        head = await connection.ask(digests_path(blob), method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "48")
        for odd in ("bytes=1-16", "bytes=0-5", "bytes=48-"):
            assert (await connection.ask(digests_path(blob), f"Range: {odd}")).status == 416
        assert (await connection.ask(digests_path(Digest("sha256", "0" * 64)))).status == 404
        node.partial[blob] = RangeSet([(0, MIB)])
        assert (await connection.ask(digests_path(blob))).status == 404


async def test_a_client_asks_for_the_digests_of_some_pieces(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door:
        client = RangeClient(door.address, "me")

        def read(pieces: range, count: int) -> bytes:
            body, found = client.open_piece_digests(blob, pieces, count), bytearray(len(pieces) * PIECE_DIGEST_BYTES)
            body.readinto(memoryview(found))
            body.close()
            return bytes(found)

        assert (await asyncio.to_thread(read, range(1, 2), 3)).hex() == piece_digest(CONTENT[MIB : 2 * MIB])
        with pytest.raises(SourceFault, match="48 bytes instead of 64"):
            await asyncio.to_thread(read, range(1, 2), 4)
        client.close()


async def test_digests_of_pieces_are_computed_for_few_at_a_time(
    node: MemoryNode, blob: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller holds half of the slots, and another request of it waits until it gives up."""
    computing, release = threading.Event(), threading.Event()

    def compute(fd: int, grid: PieceGrid, pieces: range) -> bytes:
        computing.set()
        release.wait(20.0)
        return bytes(len(pieces) * PIECE_DIGEST_BYTES)

    monkeypatch.setattr(piece_digests, "_compute", compute)
    monkeypatch.setattr("hfpeer_daemon.app.UploadSlots", partial(UploadSlots, max_wait_seconds=0.05))
    async with lan(node) as door, wire(door.address) as first, wire(door.address) as second:
        await first.say(digests_path(blob))
        await first.head()
        await eventually(computing.is_set)
        assert (await second.ask(digests_path(blob))).status == 503
        release.set()


# Messages


async def test_the_catalog_is_sent_again_only_when_it_has_changed(node: MemoryNode) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        first = await connection.ask("/catalog")
        assert json.loads(first.body)["generation"] == 1
        known = f"If-None-Match: {first.headers['etag']}"
        assert (await connection.ask("/catalog", known)).status == 304
        node.generation = 2
        assert (await connection.ask("/catalog", known)).status == 200


async def test_a_node_says_who_it_is_and_whom_it_knows(node: MemoryNode) -> None:
    node.peers["a"] = PeerStatus("id", "peer", "10.0.0.7:9437", "alive", "mdns")
    node.peers["b"] = PeerStatus("id", "peer", "10.0.0.8:9437", "gone", "mdns")
    assert json.loads((await ask_lan(node, "/node")).body)["name"] == "memory"
    assert json.loads((await ask_lan(node, "/peers")).body) == {"addresses": ["10.0.0.7:9437"]}


async def test_manifests_and_refs_are_found_whatever_their_names(node: MemoryNode) -> None:
    legacy, revision = RepoId.parse("gpt2"), Revision.parse("refs/pr/3")
    file = ManifestFile(FilePath("a"), 1, Digest("git-sha1", "1" * 40))
    node.manifests[legacy, COMMIT] = Manifest(legacy, COMMIT, (file,))
    node.refs[REPO, revision] = RefMessage(COMMIT, 12.0, "origin")
    found = await ask_lan(node, manifest_path(legacy, COMMIT))
    assert Manifest.from_json(found.body) == node.manifests[legacy, COMMIT]
    assert json.loads((await ask_lan(node, ref_path(REPO, revision))).body)["commit"] == COMMIT
    assert (await ask_lan(node, manifest_path(REPO, COMMIT))).status == 404
    assert (await ask_lan(node, ref_path(legacy, revision))).status == 404
    for path in ("/manifests/models/x", "/refs/", "/manifests/models/a/b/c/d", "/refs/models/a/b/%2e%2e"):
        assert (await ask_lan(node, path)).status == 400


async def test_a_follower_of_a_blob_gets_its_piece_map_and_then_news(node: MemoryNode, blob: Digest) -> None:
    node.partial[blob] = RangeSet([(0, MIB)])
    async with lan(node) as door, httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False) as client:
        async with client.stream("GET", follow_path(blob)) as answer:
            lines = answer.aiter_lines()
            first = parse_following(json.loads(await anext(lines)))
            assert isinstance(first, PieceMap) and first.has(0) and not first.has(1)
            following = asyncio.ensure_future(anext(lines))
            news = PieceNews((1, 2), (3,), {1: "ab"})
            await node.news.put(news)
            assert parse_following(json.loads(await following)) == news
        assert (await client.get(follow_path(Digest("sha256", "0" * 64)))).status_code == 404
        assert (await client.get(pieces_path(blob))).json()["bitfield"] == "AQ=="


# Who is let in


async def test_the_lan_door_takes_nothing_but_get_and_head(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in (blob_path(blob), "/node", "/v1/add", "/v1/status", "/v1/stop", "/batch", "/"):
                answer = await connection.ask(path, "Content-Length: 0", method=method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_no_control_route_exists_on_the_lan(node: MemoryNode) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for path in ("/v1/add", "/v1/status", "/v1/stop", "/v1/clean", "/v1/hello", "/metrics", "/docs", "/"):
            assert (await connection.ask(path)).status == 404
    assert node.calls == []


async def test_web_pages_are_refused(node: MemoryNode, blob: Digest) -> None:
    async with lan(node) as door, wire(door.address) as connection:
        for line in ("Origin: http://evil", "Origin: null", "Referer: http://evil/"):
            for path in (blob_path(blob), "/node"):
                assert (await connection.ask(path, line)).status == 403


@asynccontextmanager
async def endpoint(node: MemoryNode, *names: str) -> AsyncIterator[tuple[OpenDoor, Wire]]:
    """The endpoint door and a connection to it; its own address is known only once it is bound."""
    inner: list[App] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner[0](scope, receive, send)

    async with open_door(lambda _threads: app) as door:
        inner.append(endpoint_app(node, door.address, names))
        async with wire(door.address) as connection:
            yield door, connection


async def test_the_endpoint_answers_only_by_its_own_names(node: MemoryNode) -> None:
    async with endpoint(node, "models.lan") as (door, connection):
        port = door.address.port
        for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "models.lan", f"models.lan:{port}"):
            assert (await connection.ask("/healthz", f"Host: {host}")).status == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "", "localhost:80"):
            assert (await connection.ask("/metrics", f"Host: {host}")).status == 403
        assert (await connection.ask("/", f"Host: localhost:{port}", "Host: evil")).status == 400


async def test_metrics_tell_bytes_by_kind_and_peers_by_state(node: MemoryNode) -> None:
    node.peers["a"] = PeerStatus("id", "peer", "10.0.0.7:9437", "alive", "mdns")
    async with endpoint(node) as (door, connection):
        answer = await connection.ask("/metrics", f"Host: {door.address}")
    text = answer.body.decode()
    assert 'hfpeer_received_bytes_total{kind="origin"} 7.0' in text
    assert 'hfpeer_peers{state="alive"} 1.0' in text
    assert "hfpeer_cache_bytes 11.0" in text
    assert "python_info" not in text


async def test_an_unforeseen_error_is_logged_and_not_told(
    node: MemoryNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(node, "open_shared", fail)
    monkeypatch.setattr(node, "peer_addresses", fail)
    for path in (blob_path(Digest("sha256", "0" * 64)), "/peers"):
        with caplog.at_level(logging.ERROR):
            answer = await ask_lan(node, path)
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert from_problem(json.loads(answer.body)).hint
    assert len([record for record in caplog.records if record.name == "hfpeer_daemon.http.problems"]) == 2


# Sockets


def test_a_taken_port_names_its_taker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse) as caught:
            listen_tcp(Address("127.0.0.1", port), "lan.listen")
        with pytest.raises(AddressInUse):
            listen_tcp(Address("0.0.0.0", port), "lan.listen")
    assert caught.value.facts["pid"] == os.getpid()
    assert str(os.getpid()) in caught.value.message
    assert "lan.listen" in (caught.value.hint or "")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidName, match="cannot listen"):
        listen_tcp(Address("192.0.2.1", 0), "lan.listen")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_default_address_is_reached_by_ipv4_and_ipv6() -> None:
    with listen_tcp(Address("0.0.0.0", 0), "lan.listen") as listener:
        address = bound_address(listener)
        assert address.host == "0.0.0.0"
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, address.port)).close()


def test_the_control_socket_is_its_owners_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "control.sock"
    listen_unix(path).close()
    with listen_unix(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


# Pure


def test_ranges_of_many_sizes_agree_with_a_slow_reading() -> None:
    for size in range(1, 6):
        for first in range(8):
            for last in range(8):
                expected: object = ByteRange(first, min(last + 1, size))
                if first >= size:
                    expected = UNSATISFIABLE
                if last < first:
                    expected = None
                assert parse_range(f"bytes={first}-{last}", size) == expected


def test_an_etag_is_found_only_whole() -> None:
    assert names_etag('"a", W/"b"', '"b"')
    assert not names_etag('"ab"', '"b"')
    assert not names_etag("b", '"b"')
    assert not names_etag(None, '"b"')


async def test_odd_paths_are_answered_and_never_with_500(node: MemoryNode, blob: Digest) -> None:
    odd = ["//node", "/v1/../node", "/blobs/%2e%2e%2fx", "/node%00", "/%ff%fe", "/blobs/" + "a" * 9000]
    odd += [
        f"{blob_path(blob)}/",
        f"{blob_path(blob)}/pieces/",
        "/manifests/%ED%A0%80/x",
        "/refs//",
        "*",
        "/?",
        "/#",
    ]
    odd += [
        f"/batch?digests={blob}%00",
        "/catalog/",
        "http://evil/blobs/x",
        "/blobs/x/pieces?after=" + "9" * 5000,
    ]
    async with lan(node) as door:
        for path in odd:
            async with wire(door.address) as connection:
                assert (await connection.ask(path)).status in (200, 400, 404), path


async def test_what_is_no_http_gets_400_or_nothing(node: MemoryNode) -> None:
    async with lan(node) as door:
        for raw in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\n\r\n",
        ):
            async with wire(door.address) as connection:
                connection.writer.write(raw)
                connection.writer.write_eof()
                assert (await connection.rest())[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"")
        async with wire(door.address) as connection:
            assert (await connection.ask("/node")).status == 200
