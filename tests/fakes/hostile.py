"""Peers that want a node never to finish: each makes a promise that others would wait for, and does not keep it.

    with ordeal_hub() as stage:
        outcome = await stage.add(folder, [ClaimsAndRefuses, LiesAtTheEnd])
        assert not outcome.error and outcome.liars == {"liesattheend"}

Where `fakes.peers` has the ways to give wrong answers, this cast has the ways to waste time. A `Stage` is an honest
hub of a certain speed with a repo of large and of small files; an `add` at it says how long a node took beside the
peers, and how much the hub had to send. Must never import what it is there to test: only the node, and the wire's
words.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.hub import HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.peers import GoodPeer, Reply, Request
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES, encode_batch_header
from hfpeer.peers.protocol.paths import BATCH_PATH, BLOBS_PREFIX, MANIFESTS_PREFIX
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.ranges import MIB
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.upstream.upstream import Upstream

REPO = RepoId.from_api_path("models/acme/mixed")
NEWS_SECONDS = 0.5


class Ended(OSError):
    """The peer is stopped."""


class Talk:
    """One answer on its connection, said bit by bit."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def head(self, status: int = 200, length: int | None = None, **headers: str) -> None:
        """The head; without a `length` the body comes in chunks."""
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        others = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.say(f"HTTP/1.1 {status} Said\r\n{size}\r\n{others}\r\n".encode())

    def range_head(self, start: int, stop: int, total: int) -> None:
        self.head(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{total}")

    def line(self, document: PieceMap | PieceNews) -> None:
        """One line of what is followed, a chunk of its own."""
        text = json.dumps(document.to_json()).encode() + b"\n"
        self.say(b"%x\r\n%s\r\n" % (len(text), text))

    def say(self, data: bytes) -> None:
        self._connection.sendall(data)

    def rest(self, seconds: float) -> None:
        """Waits. Raises Ended when the peer is stopped meanwhile."""
        if self._stopping.wait(seconds):
            raise Ended

    def stall(self) -> None:
        """Says nothing until the other side has gone."""
        self._connection.settimeout(None)
        while self._connection.recv(65536):
            pass


@dataclass(frozen=True)
class Said(Reply):
    """A reply that is said by a script instead; the connection ends after it."""

    script: Callable[[Talk], None] = field(default=lambda talk: None)


class HostilePeer(GoodPeer):
    """A node that lists the repo. Subclasses decide what it tells about blobs and how it gives them."""

    lies = False
    """Whether it gives wrong bytes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes: dict[Digest, tuple[int, int]] = {}
        """Of all that can be followed: how large it is, and its pieces."""
        for manifest in self.manifests.values():
            self.sizes |= {file.digest: (file.size_bytes, MIB) for file in manifest.files}
            small = {file.digest for file in manifest.files if file.size_bytes <= MAX_BATCH_BLOB_BYTES}
            self.sizes[_bundle_digest(manifest)] = len(small), 1

    def answer(self, request: Request) -> Reply:
        if not request.path.startswith(BLOBS_PREFIX) or request.path == BATCH_PATH:
            return super().answer(request)
        name, _, rest = request.path.removeprefix(BLOBS_PREFIX).partition("/")
        digest = Digest.parse(name)
        if digest not in self.sizes:
            return Reply(404)
        if rest == "follow":
            size_bytes, piece_bytes = self.sizes[digest]
            return self.followed(digest, size_bytes, piece_bytes)
        return super().answer(request)

    def followed(self, digest: Digest, size_bytes: int, piece_bytes: int) -> Reply:
        """Its lines to a follower: that it has all of it."""
        whole = PieceMap(size_bytes, piece_bytes, 1, None)

        def tell(talk: Talk) -> None:
            talk.head()
            talk.line(whole)
            talk.say(b"0\r\n\r\n")

        return Said(script=tell)

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        if not isinstance(reply, Said):
            return super()._send(connection, reply)
        reply.script(Talk(connection, self._stopping))
        return False


class FalseLeecher(HostilePeer):
    """Says that it fetches everything too, has nothing yet, and tells `news` again and again; gives only 503."""

    has_from_the_start = False

    def followed(self, digest: Digest, size_bytes: int, piece_bytes: int) -> Reply:
        count = -(-size_bytes // piece_bytes)
        full = (1 << count) - 1 if self.has_from_the_start else 0
        bits = full.to_bytes(-(-count // 8), "little")

        def tell(talk: Talk) -> None:
            talk.head()
            talk.line(PieceMap(size_bytes, piece_bytes, 1, bits))
            turn = 0
            while True:
                for line in self.news(turn, count):
                    talk.line(line)
                turn += 1
                talk.rest(self.news_seconds)

        return Said(script=tell)

    news_seconds = NEWS_SECONDS

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews()

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(503)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Reply(503)


# Leechers that claim


class ClaimsAndRefuses(FalseLeecher):
    """Claims every piece twice a second and answers 503."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews((), tuple(range(count)), {})


class ClaimsAndStalls(ClaimsAndRefuses):
    """Claims every piece; a body of it never begins."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _part(data, start, stop, stalls=True)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Said(script=Talk.stall)


class ClaimsAndLacks(ClaimsAndRefuses):
    """Claims every piece and says that it does not have the blob."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(404)


class ClaimsInTurn(FalseLeecher):
    """Claims one half, then the other, so that no claim of it is ever old."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews((), tuple(range(turn % 2, count, 2)), {})


class ClaimsAndTrickles(ClaimsAndRefuses):
    """Claims every piece, and passes each on at a byte every half second."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _trickle(data, start, stop, 1, 0.5)


class ClaimsAndSaysItCame(FalseLeecher):
    """Claims all, and says of one more piece in each half second that it has come; gives none."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews((turn,) if turn < count else (), tuple(range(turn, count)), {})


# Seeds in name only


class LeecherWithEverything(FalseLeecher):
    """Has every piece, it says, from the start, and gives none."""

    has_from_the_start = True


class TellsOfPiecesAndLacksThem(FalseLeecher):
    """Tells of all pieces, and answers 416 to each."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews(tuple(range(count)), (), {})

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(416)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Reply(body=b"".join(encode_batch_header(digest, None) for digest in digests))


class SilentLeecher(FalseLeecher):
    """Has its share of everything, and never does anything about it."""


class VouchesFalsely(FalseLeecher):
    """Vouches for digests that nothing has, of all pieces, and gives none."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        yield PieceNews((), (), {piece: hashlib.sha256(b"%d" % piece).hexdigest()[:32] for piece in range(count)})


class InventsMembers(FalseLeecher):
    """Says that 32 others fetch it too, each alive at every moment."""

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        beat = int(time.time()) + turn
        yield PieceNews((), (), {}, {hashlib.sha256(b"%d" % one).hexdigest()[:32]: beat for one in range(32)})


class TalksWithoutEnd(ClaimsAndRefuses):
    """Its news never stop, a line after the other."""

    news_seconds = 0.001

    def news(self, turn: int, count: int) -> Iterator[PieceNews]:
        digests = dict.fromkeys(range(1000), "00" * 16)
        yield PieceNews(tuple(range(count, count + 1000)), tuple(range(count)), digests)


class HugeLine(HostilePeer):
    """A follower gets a single line without end, in huge chunks."""

    def followed(self, digest: Digest, size_bytes: int, piece_bytes: int) -> Reply:
        def tell(talk: Talk) -> None:
            talk.head()
            while True:
                talk.say(b"%x\r\n%s\r\n" % (MIB, b" " * MIB))

        return Said(script=tell)

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(503)


class OfAnotherSize(FalseLeecher):
    """Says that everything is twice as large as it is."""

    def followed(self, digest: Digest, size_bytes: int, piece_bytes: int) -> Reply:
        return super().followed(digest, 2 * size_bytes, piece_bytes)


# Holders that give little or nothing


class StallsAtOnce(HostilePeer):
    """Has everything, announces each body, and sends nothing of it."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _part(data, start, stop, stalls=True)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return _part_of_a_batch(stalls=True)


class AByteNowAndThen(HostilePeer):
    """A byte every half second."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _trickle(data, start, stop, 1, 0.5)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return _trickle_batch(b"".join(map(self._framed, digests)), 1, 0.5)


class JustAboveNothing(HostilePeer):
    """Steady, and slow: 100 KiB a second."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _trickle(data, start, stop, 10 * 1024, 0.1)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return _trickle_batch(b"".join(map(self._framed, digests)), 10 * 1024, 0.1)


class SlowerThanALan(HostilePeer):
    """Right bytes at 400 KiB a second for each request, and small files at once."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return _trickle(data, start, stop, 40 * 1024, 0.1)


class OneFileABatch(HostilePeer):
    """Of each batch the first file, then silence."""

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        first = self._framed(digests[0])
        return _part_of_a_batch(first, stalls=True)


class OneFileABatchAndCloses(HostilePeer):
    """Of each batch the first file, and the connection ends."""

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        first = self._framed(digests[0])
        return _part_of_a_batch(first)


class AFileASecond(HostilePeer):
    """A file each second, whole and right."""

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        parts = [self._framed(digest) for digest in digests]

        def tell(talk: Talk) -> None:
            talk.head(length=sum(map(len, parts)))
            for part in parts:
                talk.say(part)
                talk.rest(1.0)

        return Said(script=tell)


class HeaderOfABatch(HostilePeer):
    """The header of the first file of each batch, then silence."""

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        first = encode_batch_header(digests[0], 100_000)
        return _part_of_a_batch(first, stalls=True)


class APieceAndAStall(HostilePeer):
    """By turns a piece of what is asked, and nothing."""

    turn = 0

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        self.turn += 1
        given = data[start : min(stop, start + MIB)] if self.turn % 2 else b""
        return _part(data, start, stop, given, stalls=True)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        self.turn += 1
        given = b"".join(map(self._framed, digests[:8])) if self.turn % 2 else b""
        return _part_of_a_batch(given, stalls=True)


class ClosesSoon(HostilePeer):
    """The connection ends after each 64 KiB."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        given = data[start : start + 64 * 1024]
        return _part(data, start, stop, given)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        given = b"".join(map(self._framed, digests))[: 64 * 1024]
        return _part_of_a_batch(given)


class NeverAnswers(HostilePeer):
    """Says who it is; everything else it leaves unanswered."""

    def answer(self, request: Request) -> Reply:
        if request.path.startswith((BLOBS_PREFIX, MANIFESTS_PREFIX)):
            return Said(script=Talk.stall)
        return super().answer(request)


class SendsElsewhere(HostilePeer):
    """Answers each request for a blob with a redirect."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(302, headers={"Location": "http://127.0.0.1:1/"})

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Reply(302, headers={"Location": "http://127.0.0.1:1/"})


class TakesNineSeconds(HostilePeer):
    """Every head about blobs comes after nine seconds; the rest is right and quick."""

    def answer(self, request: Request) -> Reply:
        good = super().answer(request)
        if not request.path.startswith(BLOBS_PREFIX) or isinstance(good, Said):
            return good
        head = "".join(f"{name}: {value}\r\n" for name, value in good.headers.items())
        text = f"HTTP/1.1 {good.status} Said\r\n{head}Content-Length: {len(good.body)}\r\n\r\n".encode() + good.body

        def tell(talk: Talk) -> None:
            talk.rest(9.0)
            talk.say(text)

        return Said(script=tell)


class AHeaderASecond(HostilePeer):
    """Its heads have twenty lines, and each takes a second."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Said(script=self._drag)

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Said(script=self._drag)

    @staticmethod
    def _drag(talk: Talk) -> None:
        talk.say(b"HTTP/1.1 206 Said\r\n")
        for number in range(20):
            talk.say(b"X-%d: x\r\n" % number)
            talk.rest(1.0)


class ComesAndGoes(HostilePeer):
    """Alive in one second and gone in the next: no connection outlives its second."""

    def start(self) -> None:
        super().start()
        self._flipping = threading.Thread(target=self._flip, daemon=True)
        self._flipping.start()

    def stop(self) -> None:
        super().stop()
        self._flipping.join(5.0)

    def _flip(self) -> None:
        while not self._stopping.wait(1.0):
            with self._came:
                live = list(self._live)
            for connection in live:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def answer(self, request: Request) -> Reply:
        if int(time.monotonic()) % 2 and request.path.startswith(BLOBS_PREFIX):
            return Said()
        return super().answer(request)

    bytes_per_second = 200_000


class BusyForNoTime(HostilePeer):
    """Answers 503 and asks to be asked again at once."""

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        return Reply(503, headers={"Retry-After": "0"})

    def batch(self, digests: tuple[Digest, ...]) -> Reply:
        return Reply(503, headers={"Retry-After": "0"})


class LiesSlowly(HostilePeer):
    """Wrong bytes, at a rate that one could put up with: 400 KiB a second."""

    lies = True

    def content(self, digest: Digest) -> bytes | None:
        data = self.blobs.get(digest)
        return None if data is None else bytes(byte ^ 0xFF for byte in data[:1]) + data[1:]

    def blob(self, data: bytes, start: int, stop: int, *, is_ranged: bool) -> Reply:
        wrong = bytes(stop - start)
        return _trickle(b"\0" * start + wrong + b"\0" * (len(data) - stop), start, stop, 40 * 1024, 0.1)


class LiesAtTheEnd(HostilePeer):
    """The last byte of each blob is another."""

    lies = True

    def content(self, digest: Digest) -> bytes | None:
        data = self.blobs.get(digest)
        return data and data[:-1] + bytes([data[-1] ^ 0xFF])


HOSTILE: tuple[type[HostilePeer], ...] = (
    ClaimsAndRefuses,
    ClaimsAndStalls,
    ClaimsAndLacks,
    ClaimsInTurn,
    ClaimsAndTrickles,
    ClaimsAndSaysItCame,
    LeecherWithEverything,
    TellsOfPiecesAndLacksThem,
    SilentLeecher,
    VouchesFalsely,
    InventsMembers,
    TalksWithoutEnd,
    HugeLine,
    OfAnotherSize,
    StallsAtOnce,
    AByteNowAndThen,
    JustAboveNothing,
    SlowerThanALan,
    OneFileABatch,
    OneFileABatchAndCloses,
    AFileASecond,
    HeaderOfABatch,
    APieceAndAStall,
    ClosesSoon,
    NeverAnswers,
    SendsElsewhere,
    TakesNineSeconds,
    AHeaderASecond,
    ComesAndGoes,
    BusyForNoTime,
    LiesSlowly,
    LiesAtTheEnd,
)
"""All of them."""


def _bundle_digest(manifest: Manifest) -> Digest:
    text = f"small files of {manifest.repo.api_path} at {manifest.commit}"
    return Digest("sha256", hashlib.sha256(text.encode()).hexdigest())


def _part(data: bytes, start: int, stop: int, given: bytes = b"", *, stalls: bool = False) -> Said:
    """Announces `[start, stop)` of `data`, sends `given`, then stalls or closes."""

    def tell(talk: Talk) -> None:
        talk.range_head(start, stop, len(data))
        talk.say(given)
        if stalls:
            talk.stall()

    return Said(script=tell)


def _part_of_a_batch(given: bytes = b"", *, stalls: bool = False) -> Said:
    """Announces a batch of 10 MB, sends `given`, then stalls or closes."""

    def tell(talk: Talk) -> None:
        talk.head(length=10_000_000)
        talk.say(given)
        if stalls:
            talk.stall()

    return Said(script=tell)


def _trickle(data: bytes, start: int, stop: int, size_bytes: int, seconds: float) -> Said:
    def tell(talk: Talk) -> None:
        talk.range_head(start, stop, len(data))
        _drip(talk, data[start:stop], size_bytes, seconds)

    return Said(script=tell)


def _trickle_batch(body: bytes, size_bytes: int, seconds: float) -> Said:
    def tell(talk: Talk) -> None:
        talk.head(length=len(body))
        _drip(talk, body, size_bytes, seconds)

    return Said(script=tell)


def _drip(talk: Talk, body: bytes, size_bytes: int, seconds: float) -> None:
    for at in range(0, len(body), size_bytes):
        talk.say(body[at : at + size_bytes])
        talk.rest(seconds)


# ---- the stage


@dataclass(frozen=True)
class Outcome:
    """How an add went: its wall time, what the hub sent of the repo's bytes (1.0 is each once), the sources called
    liars, and the error that ended it, if one did."""

    seconds: float
    copies: float
    liars: frozenset[str]
    error: str = ""


class Stage:
    """An honest hub that sends `bytes_per_second` in all, with a repo of `files`."""

    def __init__(self, origin: HubSimulator, files: dict[str, bytes], bytes_per_second: float) -> None:
        self._origin = origin
        self.files = files
        self._bytes_per_second = bytes_per_second
        contents = {path: Lfs(data) if path.endswith(".bin") else data for path, data in files.items()}
        self.commit = Commit(origin.put_repo("model", "acme/mixed", contents))
        self.size_bytes = sum(map(len, files.values()))
        self._manifest: Manifest | None = None

    async def manifest(self) -> Manifest:
        if self._manifest is None:
            upstream = Upstream("origin", "origin", self._origin.endpoint)
            try:
                self._manifest = await upstream.manifest(REPO, self.commit)
            finally:
                await upstream.aclose()
        return self._manifest

    async def add(self, home: Path, kinds: Sequence[type[GoodPeer]] = (), *, limit_seconds: float = 60.0) -> Outcome:
        """One add by a new node with its home there, beside a peer of each kind, and checks the bytes."""
        manifest = await self.manifest()
        blobs = {file.digest: self.files[file.path] for file in manifest.files if file.path in self.files}
        with ExitStack() as stack:
            hub = stack.enter_context(HubSimulator(mirror_of=self._origin))
            stack.callback(hub.faults.clear)
            hub.inject(faults.throttle(self._bytes_per_second, is_shared=True), method="GET", path="*/resolve/*")
            hub.inject(hub.faults._injected[0].fault, method="GET", listener="cdn")
            peers = [kind(blobs, manifests=[manifest]) for kind in kinds]
            for peer in peers:
                await asyncio.to_thread(peer.start)
            try:
                return await self._add(home, hub, peers, limit_seconds)
            finally:
                await asyncio.gather(*(asyncio.to_thread(peer.stop) for peer in peers))

    async def _add(self, home: Path, hub: HubSimulator, peers: Sequence[GoodPeer], limit_seconds: float) -> Outcome:
        environ = {
            "HF_HUB_CACHE": str(home / "hub"),
            "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
            "HFPEER_PEERS": ",".join(str(peer.address) for peer in peers),
            "HFPEER_MDNS": "0",
            "HFPEER_PATIENCE": "20",
        }
        events: list[Event] = []
        node = Node(read_settings(environ, home=home / "home"))
        error, seconds = "", 0.0
        try:
            await node.start(Address("127.0.0.1", 1))
            began_at = time.monotonic()
            request = AddRequest(repo=REPO, revision=Revision(self.commit))
            try:
                finished = await asyncio.wait_for(node.add(request, events.append), limit_seconds)
                snapshot = Path(finished.snapshot)
                for path, data in self.files.items():
                    assert (snapshot / path).read_bytes() == data, path
            except Exception as reason:  # noqa: BLE001  it is what is shown
                error = f"{type(reason).__name__}: {reason}"
            seconds = time.monotonic() - began_at
        finally:
            await node.stop()
        sent_bytes = hub.body_bytes_sent("*/resolve/*", listener="hub") + hub.body_bytes_sent(listener="cdn")
        liars = {event.source for event in events if isinstance(event, SourceFailed) and event.was_lying}
        return Outcome(seconds, sent_bytes / self.size_bytes, frozenset(liars), error)


@contextmanager
def ordeal_hub(
    *, large: int = 3, large_bytes: int = 8 * MIB, small: int = 120, bytes_per_second: float = 12e6
) -> Iterator[Stage]:
    """A stage with a number of large and small files."""
    files = {f"model-{number}.bin": noise(large_bytes + number, f"large {number}") for number in range(large)}
    files |= {f"part-{number:03}.json": noise(500 + 97 * number, f"small {number}") for number in range(small)}
    with HubSimulator() as origin:
        yield Stage(origin, files, bytes_per_second)
