"""What a peer can be asked, and that no bad peer gets more out of it than a fault."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, closing, contextmanager
from pathlib import Path

import pytest

from fakes.peers import (
    BAD_AT_BODIES,
    CAST,
    FlakyPeer,
    ForgingManifestPeer,
    ForgingRefsPeer,
    GoodPeer,
    GzippingPeer,
    HugeMessagePeer,
    IgnoresRangePeer,
    LyingPeer,
    PathTraversalPeer,
    RedirectingPeer,
    Reply,
    Request,
    SilentPeer,
    SlowPeer,
    StallingPeer,
    TruncatingPeer,
    UnreachablePeer,
    WrongLengthPeer,
    digest_of,
)
from hfpeer.budgets import LARGE_MESSAGE_BYTES
from hfpeer.errors import CorruptData, InvalidName, PeerUnreachable
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.net.body import Body, SourceFault
from hfpeer.peers.asking.address_client import AddressClient
from hfpeer.peers.asking.message_budget import MessageBudget
from hfpeer.peers.protocol.batch import (
    FORMER_BATCH_BLOBS,
    MAX_BATCH_BLOBS,
    encode_batch_header,
    parse_batch_digests,
    parse_batch_header,
)
from hfpeer.peers.protocol.messages import RefMessage
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.peers.ranges import window
from hfpeer.peers.ranges.range_client import SocketBody
from hfpeer.peers.ranges.window import MIN_SENDER_BYTES, MIN_TOTAL_BYTES, UNBOUNDED_SENDERS

OWN = "own-node"
DATA = os.urandom(300_000)
DIGEST = digest_of(DATA)
REPO = RepoId.parse("org/model")
COMMIT = Commit("1" * 40)
MAIN = Revision("main")
MANIFEST = Manifest(
    REPO, COMMIT, (ManifestFile(FilePath("config.json"), 5, digest_of(b"hello", "git-sha1")),), commit_object=b"tree x"
)


PATIENCE_SECONDS = 20.0
"""What is never reached, however busy the machine is."""
SHORT_SECONDS = 0.3
"""The patience with a peer that says nothing."""


def client_of(peer: GoodPeer, silence_seconds: float = PATIENCE_SECONDS) -> AddressClient:
    return AddressClient(
        peer.address, OWN, connect_timeout_seconds=PATIENCE_SECONDS, silence_timeout_seconds=silence_seconds
    )


def asking(peer: GoodPeer, silence_seconds: float = PATIENCE_SECONDS) -> AbstractAsyncContextManager[AddressClient]:
    return aclosing(client_of(peer, silence_seconds))


@contextmanager
def reading(peer: GoodPeer, silence_seconds: float = PATIENCE_SECONDS) -> Iterator[AddressClient]:
    client = client_of(peer, silence_seconds)
    try:
        yield client
    finally:
        client.range_client.close()


def read_range(client: AddressClient, start: int, stop: int, digest: Digest = DIGEST, size: int = len(DATA)) -> bytes:
    body = client.range_client.open_range(digest, start, stop, size_bytes=size)
    buffer = bytearray(stop - start)
    try:
        filled = 0
        while got := body.readinto(memoryview(buffer)[filled:]):
            filled += got
        assert filled == len(buffer)
        return bytes(buffer)
    finally:
        body.close()


# ---- messages


async def test_a_good_peer_says_who_it_is_what_it_has_and_whom_it_knows() -> None:
    ref = RefMessage(COMMIT, 17.5, "origin")
    refs = {(REPO, Revision("refs/pr/3")): ref}
    with GoodPeer([DATA], manifests=[MANIFEST], refs=refs, peers=["10.0.0.2:9437"]) as peer:
        async with asking(peer) as client:
            assert (await client.node()).node_id == peer.node_id
            catalog = await client.catalog()
            assert catalog is not None and [revision.commit for revision in catalog] == [COMMIT]
            assert await client.peers() == ("10.0.0.2:9437",)
            assert await client.manifest(REPO, COMMIT) == MANIFEST
            assert await client.ref(REPO, Revision("refs/pr/3")) == ref
            pieces = await client.pieces(DIGEST)
            assert pieces is not None and pieces.has(0) and pieces.size_bytes == len(DATA)
        peer.assert_anonymous()
        assert {request.headers["hfpeer-node"] for request in peer.requests} == {OWN}


async def test_what_a_peer_does_not_have_is_none() -> None:
    with GoodPeer() as peer:
        async with asking(peer) as client:
            assert await client.manifest(REPO, COMMIT) is None
            assert await client.ref(REPO, MAIN) is None
            assert await client.pieces(DIGEST) is None


async def test_a_catalog_that_did_not_change_is_not_sent_again() -> None:
    with GoodPeer(manifests=[MANIFEST]) as peer:
        async with asking(peer) as client:
            assert await client.catalog(after_generation=peer.generation) is None
            peer.generation += 1
            assert await client.catalog(after_generation=peer.generation - 1) is not None


async def test_a_peer_that_has_all_of_a_blob_says_so_once() -> None:
    with GoodPeer([DATA]) as peer:
        async with asking(peer) as client:
            lines = [line async for line in client.follow(DIGEST)]
            assert [line async for line in client.follow(Digest("sha256", "0" * 64))] == []
        assert [isinstance(line, PieceMap) and line.bitfield is None for line in lines] == [True]


@pytest.mark.parametrize("cls", [UnreachablePeer, SilentPeer, GzippingPeer, HugeMessagePeer, RedirectingPeer])
async def test_a_peer_that_does_not_speak_properly_is_unreachable(cls: type[GoodPeer]) -> None:
    with cls([DATA], manifests=[MANIFEST]) as peer:
        async with asking(peer, SHORT_SECONDS) as client:
            started = time.monotonic()
            for call in (client.node(), client.catalog(), client.peers(), client.manifest(REPO, COMMIT)):
                with pytest.raises(PeerUnreachable, match=str(peer.address.port)):
                    await call
            assert time.monotonic() - started < PATIENCE_SECONDS


async def test_a_host_name_that_cannot_exist_is_unreachable() -> None:
    client = AddressClient(Address("xn--a", 9437), OWN)
    with pytest.raises(PeerUnreachable, match="xn--a"):
        await client.node()
    await client.aclose()


async def test_a_redirect_to_another_host_is_not_followed_and_its_cookie_not_kept() -> None:
    with GoodPeer() as victim, RedirectingPeer() as peer:
        peer.target = victim.address.url
        async with asking(peer) as client:
            for _ in range(2):
                with pytest.raises(PeerUnreachable):
                    await client.node()
        assert victim.requests == []
        assert len(peer.requests) == 2
        peer.assert_anonymous()


async def test_names_that_lead_out_of_the_folder_never_get_in() -> None:
    with PathTraversalPeer(manifests=[MANIFEST]) as peer:
        async with asking(peer) as client:
            with pytest.raises(PeerUnreachable):
                await client.manifest(REPO, COMMIT)
            with pytest.raises(PeerUnreachable):
                await client.catalog()


async def test_the_listing_of_another_commit_is_refused() -> None:
    class Confused(GoodPeer):
        def manifest(self, repo: RepoId, commit: Commit) -> str | None:
            return MANIFEST.to_json()

    with Confused() as peer:
        async with asking(peer) as client:
            with pytest.raises(PeerUnreachable, match="for another"):
                await client.manifest(REPO, Commit("2" * 40))


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"null", b"7", b'{"node_id": 3}', b"[" * 100_000, b"\xff\xfe{}"])
async def test_nonsense_instead_of_a_message_is_a_fault_not_a_crash(text: bytes) -> None:
    class Babbling(GoodPeer):
        def message(self, request: Request) -> Reply:
            return Reply(body=text)

    with Babbling() as peer:
        async with asking(peer) as client:
            for call in (client.node(), client.manifest(REPO, COMMIT), client.catalog()):
                with pytest.raises(PeerUnreachable):
                    await call


async def test_another_version_of_the_protocol_is_named() -> None:
    ours = b'"protocol_version": %d' % PROTOCOL_VERSION

    class FromTheFuture(GoodPeer):
        def message(self, request: Request) -> Reply:
            return Reply(body=super().message(request).body.replace(ours, b'"protocol_version": 99'))

    with FromTheFuture() as peer:
        async with asking(peer) as client:
            with pytest.raises(PeerUnreachable, match="version 99"):
                await client.node()


async def test_a_forged_ref_and_a_forged_listing_arrive_as_they_are_for_others_to_judge() -> None:
    with ForgingRefsPeer() as peer:
        async with asking(peer) as client:
            ref = await client.ref(REPO, MAIN)
            assert ref is not None and ref.commit == ForgingRefsPeer.forged
    with ForgingManifestPeer(manifests=[MANIFEST]) as peer:
        async with asking(peer) as client:
            manifest = await client.manifest(REPO, COMMIT)
            assert manifest is not None and manifest.files != MANIFEST.files


async def test_proxies_and_credentials_of_the_environment_are_not_for_peers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    with GoodPeer([DATA]) as peer:
        async with asking(peer) as client:
            await client.node()
        with reading(peer) as client:
            read_range(client, 0, 10)
        peer.assert_anonymous()


# ---- bodies


@pytest.mark.parametrize(("start", "stop"), [(0, len(DATA)), (0, 1), (len(DATA) - 1, len(DATA)), (1000, 200_000)])
def test_a_range_arrives_byte_for_byte(start: int, stop: int) -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        assert read_range(client, start, stop) == DATA[start:stop]
        peer.assert_anonymous()


def test_an_empty_or_impossible_range_is_never_asked() -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        for start, stop in [(0, 0), (5, 4), (-1, 3)]:
            with pytest.raises(ValueError, match="no range"):
                client.range_client.open_range(DIGEST, start, stop)
        assert peer.requests == []


def test_one_connection_carries_many_ranges() -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        for start in range(0, 100_000, 10_000):
            assert read_range(client, start, start + 10_000) == DATA[start : start + 10_000]
        assert peer.connections == 1


def test_a_peer_that_restarted_is_asked_again_without_a_fault() -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        read_range(client, 0, 10)
        peer.stop()
        peer.start()
        assert read_range(client, 10, 20) == DATA[10:20]


def test_a_connection_that_dies_between_the_check_and_the_request_is_replaced_once() -> None:
    class ClosingAtTheSecondQuestion(GoodPeer):
        def _send(self, connection: socket.socket, reply: Reply) -> bool:
            return False if len(self.requests) in (2, 4, 5) else super()._send(connection, reply)

    with ClosingAtTheSecondQuestion([DATA]) as peer, reading(peer) as client:
        read_range(client, 0, 10)
        assert read_range(client, 10, 20) == DATA[10:20]
        assert len(peer.requests) == 3
        with pytest.raises(SourceFault):
            read_range(client, 20, 30)
        assert len(peer.requests) == 5


def test_idle_connections_are_few_however_many_bodies_were_open() -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        bodies = [client.range_client.open_range(DIGEST, 0, 10) for _ in range(10)]
        for body in bodies:
            body.readinto(memoryview(bytearray(10)))
            body.close()
            body.close()
        assert len(client.range_client._idle) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a window")
def test_of_many_who_send_at_once_each_may_have_little_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "RATE_SECONDS", math.inf)  # the least window, whatever the rate of this machine

    def window_of(body: Body) -> int:
        assert isinstance(body, SocketBody)
        return body._connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)

    with GoodPeer([DATA]) as peer, reading(peer) as client:
        bodies = [client.range_client.open_range(DIGEST, 0, len(DATA)) for _ in range(8)]
        for senders, body in enumerate(bodies, 1):
            left_bytes = len(DATA) - 200
            while left_bytes:  # the system makes room for more when it sees how much is read at once
                left_bytes -= body.readinto(memoryview(bytearray(left_bytes)))
            if senders > UNBOUNDED_SENDERS:
                share = max(MIN_SENDER_BYTES, MIN_TOTAL_BYTES // senders)
                reads = (body.readinto(memoryview(bytearray(1))) for _ in range(200))
                # It may do so during a read, too; the next read bounds it again.
                assert any(window_of(body) == share for _ in reads), f"{window_of(body)} instead of {share}"
                assert sum(reads) < 200, "the rest is read, so that its connection is kept"
        for body in bodies:
            body.close()
        alone = client.range_client.open_range(DIGEST, 0, 10)
        assert window_of(alone) > 100 * MIN_TOTAL_BYTES, "on a kept connection, too"
        alone.close()


@pytest.mark.parametrize("cls", [GoodPeer, StallingPeer])
def test_a_body_that_was_not_read_to_its_end_costs_its_connection(cls: type[GoodPeer]) -> None:
    with cls([DATA]) as peer, reading(peer) as client:
        for number in (1, 2):
            body = client.range_client.open_range(DIGEST, 0, 20)
            body.readinto(memoryview(bytearray(10)))
            body.close()
            assert not client.range_client._idle
            assert peer.connections == number


@pytest.mark.parametrize("cls", BAD_AT_BODIES)
def test_a_bad_peer_gives_a_fault_in_time_and_never_a_wrong_length(cls: type[GoodPeer]) -> None:
    with cls([DATA]) as peer, reading(peer, SHORT_SECONDS) as client:
        for start, stop in [(0, len(DATA)), (1000, 250_000)]:
            started = time.monotonic()
            with pytest.raises(SourceFault) as fault:
                read_range(client, start, stop)
            assert time.monotonic() - started < PATIENCE_SECONDS
            assert fault.value.reason


@pytest.mark.parametrize("cls", [*BAD_AT_BODIES, FlakyPeer])
def test_what_a_bad_peer_gave_before_its_fault_are_the_right_bytes(cls: type[GoodPeer]) -> None:
    with cls([DATA]) as peer, reading(peer, SHORT_SECONDS) as client:
        got, buffer = bytearray(), bytearray(10_000)

        def read_on() -> None:
            with closing(client.range_client.open_range(DIGEST, 100, len(DATA), size_bytes=len(DATA))) as body:
                while count := body.readinto(memoryview(buffer)):
                    got.extend(buffer[:count])

        with pytest.raises(SourceFault):
            read_on()
        assert bytes(got) == DATA[100 : 100 + len(got)]


def test_a_lying_peer_is_not_noticed_here() -> None:
    with LyingPeer([DATA]) as peer, reading(peer) as client:
        assert read_range(client, 0, len(DATA)) != DATA


def test_a_slow_peer_gives_what_it_has_without_waiting_for_a_full_buffer() -> None:
    with SlowPeer([DATA]) as peer, reading(peer) as client:
        body = client.range_client.open_range(DIGEST, 0, len(DATA))
        assert 0 < body.readinto(memoryview(bytearray(len(DATA)))) < 20_000
        body.close()


def test_the_whole_blob_instead_of_a_range_is_taken_only_where_it_is_the_range() -> None:
    with IgnoresRangePeer([DATA]) as peer, reading(peer) as client:
        assert read_range(client, 0, len(DATA)) == DATA
        for start, stop in [(0, 10), (1, len(DATA))]:
            with pytest.raises(SourceFault) as fault:
                read_range(client, start, stop)
            assert fault.value.is_permanent


def test_as_many_bytes_as_were_asked_from_nowhere_in_particular_are_refused() -> None:
    class Vague(GoodPeer):
        def answer(self, request: Request) -> Reply:
            return Reply(200, b"0123456789")

    with Vague() as peer, reading(peer) as client, pytest.raises(SourceFault, match="another range"):
        client.range_client.open_range(DIGEST, 5, 15)


def test_a_blob_of_another_size_is_refused_before_its_first_byte() -> None:
    with GoodPeer([DATA]) as peer, reading(peer) as client:
        with pytest.raises(SourceFault, match=f"{len(DATA)} bytes instead of") as fault:
            client.range_client.open_range(DIGEST, 0, 10, size_bytes=len(DATA) + 1)
        assert fault.value.is_permanent


def test_a_blob_that_the_peer_lacks_is_not_asked_of_it_again() -> None:
    with GoodPeer() as peer, reading(peer) as client:
        with pytest.raises(SourceFault) as fault:
            client.range_client.open_range(DIGEST, 0, 10)
        assert fault.value.is_permanent


@pytest.mark.parametrize(
    ("status", "headers", "is_permanent", "rest"),
    [
        (503, {"Retry-After": "7"}, False, 7.0),
        (503, {}, False, 1.0),
        (503, {"Retry-After": "9999999"}, False, 300.0),
        (503, {"Retry-After": "soon"}, False, 1.0),
        (500, {}, False, None),
        (416, {}, False, None),
        (410, {}, True, None),
        (307, {"Location": "/elsewhere"}, True, None),
        (204, {}, True, None),
        (206, {"Content-Range": "bytes 0-9/*"}, True, None),
        (206, {"Content-Range": "bytes 0-9/5"}, True, None),
        (206, {"Content-Range": "bytes 0-9/300000", "Transfer-Encoding": "chunked"}, True, None),
    ],
)
def test_each_status_means_what_it_says(
    status: int, headers: dict[str, str], is_permanent: bool, rest: float | None
) -> None:
    class Answering(GoodPeer):
        def answer(self, request: Request) -> Reply:
            return Reply(status, b"0123456789", headers)

    with Answering() as peer, reading(peer) as client:
        with pytest.raises(SourceFault) as fault:
            client.range_client.open_range(DIGEST, 0, 10)
        assert (fault.value.is_permanent, fault.value.retry_after_seconds) == (is_permanent, rest)


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: 10\r\nContent-Length: 9\r\nContent-Range: bytes 0-9/300000\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: +10\r\nContent-Range: bytes 0-9/300000\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/300000\r\n\r\n",
        b"HTTP/1.1 206 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 206 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_broken_head_is_a_fault(head: bytes) -> None:
    class Raw(GoodPeer):
        def _send(self, connection: socket.socket, reply: Reply) -> bool:
            connection.sendall(head + b"0123456789")
            return True

    with Raw([DATA]) as peer, reading(peer) as client, pytest.raises(SourceFault):
        client.range_client.open_range(DIGEST, 0, 10)


def test_a_head_that_trickles_does_not_hold_a_worker() -> None:
    class Trickling(GoodPeer):
        def _send(self, connection: socket.socket, reply: Reply) -> bool:
            while not self._stopping.wait(0.05):
                connection.sendall(b"H")
            return False

    with Trickling([DATA]) as peer, reading(peer, SHORT_SECONDS) as client:
        started = time.monotonic()
        with pytest.raises(SourceFault):
            client.range_client.open_range(DIGEST, 0, 10)
        assert time.monotonic() - started < PATIENCE_SECONDS


@pytest.mark.parametrize("is_batch", [False, True])
def test_abort_wakes_a_blocked_reader_at_once(is_batch: bool) -> None:
    class StallingInBatches(StallingPeer):
        def batch(self, digests: tuple[Digest, ...]) -> Reply:
            good = super().batch(digests)
            return Reply(body=good.body, stalls_at=100)

    small = os.urandom(1000)
    with StallingInBatches([DATA, small]) as peer, reading(peer, silence_seconds=60) as client:
        body = (
            client.range_client.open_batch([digest_of(small)])
            if is_batch
            else client.range_client.open_range(DIGEST, 0, len(DATA))
        )

        def read() -> None:
            with pytest.raises(SourceFault):
                while next(body) if is_batch else body.readinto(memoryview(bytearray(100_000))):  # type: ignore
                    pass

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()
        body.abort()
        reader.join(PATIENCE_SECONDS)
        assert not reader.is_alive()
        body.close()
        body.abort()


def test_closing_the_client_wakes_every_reader_and_lets_nobody_ask_again() -> None:
    with StallingPeer([DATA]) as peer, reading(peer, silence_seconds=60) as client:
        body = client.range_client.open_range(DIGEST, 0, len(DATA))
        started = time.monotonic()
        client.range_client.close()
        with pytest.raises(SourceFault):
            while body.readinto(memoryview(bytearray(100_000))):
                pass
        assert time.monotonic() - started < PATIENCE_SECONDS
        body.close()
        with pytest.raises(SourceFault):
            client.range_client.open_range(DIGEST, 0, 10)


@pytest.mark.parametrize("cls", CAST)
async def test_no_peer_ever_sees_a_token_or_a_cookie(cls: type[GoodPeer]) -> None:
    with cls([DATA], manifests=[MANIFEST]) as peer:
        async with asking(peer, silence_seconds=0.1) as client:
            for call in (client.node(), client.catalog(), client.ref(REPO, MAIN), client.node()):
                try:
                    await call
                except PeerUnreachable:
                    pass
            for _ in range(2):
                try:
                    body = client.range_client.open_range(DIGEST, 0, 10)
                    body.readinto(memoryview(bytearray(10)))
                    body.close()
                except SourceFault:
                    pass
        peer.assert_anonymous()
        assert peer.requests or cls is UnreachablePeer


# ---- batches


def test_a_batch_brings_many_blobs_in_order_with_one_request() -> None:
    blobs = [os.urandom(size) for size in (0, 1, 1000, 200_000)]
    digests = [digest_of(data, "git-sha1") for data in blobs]
    missing = digest_of(b"nowhere")
    with GoodPeer(dict(zip(digests, blobs, strict=True))) as peer, reading(peer) as client:
        got = list(client.range_client.open_batch([*digests, missing]))
        assert got == [*zip(digests, blobs, strict=True), (missing, None)]
        assert list(client.range_client.open_batch(digests[:1])) == [(digests[0], b"")]
        assert (len(peer.requests), peer.connections) == (2, 1)


def test_a_full_batch_fits_into_one_request() -> None:
    blobs = [b"%d" % number for number in range(MAX_BATCH_BLOBS)]
    digests = [digest_of(data) for data in blobs]
    with GoodPeer(blobs) as peer, reading(peer) as client:
        assert [data for _, data in client.range_client.open_batch(digests)] == blobs
        with pytest.raises(ValueError, match="batch"):
            client.range_client.open_batch([*digests, DIGEST])


@pytest.mark.parametrize(
    ("said", "taken"), [(None, FORMER_BATCH_BLOBS), (100, 100), (0, 1), (1 << 40, MAX_BATCH_BLOBS)]
)
async def test_a_peer_is_asked_for_as_many_blobs_at_once_as_it_says(said: int | None, taken: int) -> None:
    class Saying(GoodPeer):
        def _document(self, path: str, query: Mapping[str, str]) -> dict[str, object]:
            document = super()._document(path, query)
            document.pop("batch_blobs")
            return document if said is None else {**document, "batch_blobs": said}

    with Saying() as peer:
        async with asking(peer) as client:
            assert client.batch_blobs == FORMER_BATCH_BLOBS
            await client.node()
            assert client.batch_blobs == taken


@pytest.mark.parametrize("cls", [FlakyPeer, TruncatingPeer, GzippingPeer, RedirectingPeer, SilentPeer, UnreachablePeer])
def test_a_batch_that_breaks_gives_whole_blobs_and_then_a_fault(cls: type[GoodPeer]) -> None:
    blobs = [os.urandom(1000) for _ in range(10)]
    with cls(blobs) as peer, reading(peer, SHORT_SECONDS) as client:
        got: list[bytes | None] = []
        with pytest.raises(SourceFault):
            got.extend(data for _, data in client.range_client.open_batch([digest_of(blob) for blob in blobs]))
        assert got == blobs[: len(got)]
        assert not client.range_client._busy


def test_a_batch_in_another_order_or_of_huge_blobs_is_refused() -> None:
    class Shuffling(GoodPeer):
        def batch(self, digests: tuple[Digest, ...]) -> Reply:
            return super().batch(digests[::-1])

    class Boasting(GoodPeer):
        def batch(self, digests: tuple[Digest, ...]) -> Reply:
            return Reply(body=encode_batch_header(digests[0], 1 << 30), length=1 << 31)

    for cls in (Shuffling, Boasting):
        with cls([b"1", b"2"]) as peer, reading(peer) as client, pytest.raises(SourceFault) as fault:
            list(client.range_client.open_batch([digest_of(b"1"), digest_of(b"2")]))
        assert fault.value.is_permanent


def test_a_batch_with_a_longer_blob_than_it_has_breaks_off() -> None:
    with WrongLengthPeer([b"1" * 10]) as peer, reading(peer) as client:
        assert list(client.range_client.open_batch([digest_of(b"1" * 10)])) == [
            (digest_of(b"1" * 10), b"1" * 10 + b"!")
        ]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"sha256:00 5\n", b"x\n", encode_batch_header(DIGEST, 1)[:-1], b"\xff 1\n"],
    ids=["empty", "short digest", "one word", "no end", "no text"],
)
def test_a_batch_header_is_read_strictly(line: bytes) -> None:
    with pytest.raises(CorruptData):
        parse_batch_header(line, DIGEST)


def test_a_batch_is_asked_by_digests_that_are_really_digests() -> None:
    assert parse_batch_digests(f"{DIGEST},{DIGEST}") == (DIGEST,)
    for text in ("", "sha256:../../etc", ",".join(str(digest_of(b"%d" % n)) for n in range(MAX_BATCH_BLOBS + 1))):
        with pytest.raises(InvalidName):
            parse_batch_digests(text)


# ---- room


@pytest.mark.parametrize("text", [b"[" + b"[]," * 40_000 + b"[]]", b"[" + b"1," * 60_000 + b"1]", b"{}" * 60_000])
async def test_a_message_that_would_swell_is_not_parsed(text: bytes) -> None:
    class Swelling(GoodPeer):
        def message(self, request: Request) -> Reply:
            return Reply(body=text)

    with Swelling() as peer:
        async with asking(peer) as client:
            with pytest.raises(PeerUnreachable, match="too many values"):
                await client.manifest(REPO, COMMIT)


async def test_large_messages_share_a_memory_budget_and_are_parsed_one_at_a_time() -> None:
    room = MessageBudget(3 * LARGE_MESSAGE_BYTES)
    sizes: list[int] = []
    parsing = 0

    async def read(size_bytes: int) -> None:
        nonlocal parsing
        async with room.reading(size_bytes):
            sizes.append(size_bytes)
            assert sum(sizes) <= 3 * LARGE_MESSAGE_BYTES or size_bytes > 3 * LARGE_MESSAGE_BYTES
            await asyncio.sleep(0)
            async with room.parsing(size_bytes):
                parsing += 1
                assert parsing == 1
                await asyncio.sleep(0)
                parsing -= 1
            sizes.remove(size_bytes)

    sizes_asked = [LARGE_MESSAGE_BYTES + 1, 2 * LARGE_MESSAGE_BYTES, LARGE_MESSAGE_BYTES + 7]
    gone = asyncio.create_task(read(2 * LARGE_MESSAGE_BYTES))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    sizes.clear()
    await asyncio.wait_for(asyncio.gather(*map(read, sizes_asked * 5)), 20.0)
    async with room.reading(100 * LARGE_MESSAGE_BYTES), room.reading(LARGE_MESSAGE_BYTES):
        pass
