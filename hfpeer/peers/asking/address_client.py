"""Sends requests to one address of a peer: messages through httpx on the event loop, blobs through `range_client` in
worker threads.

Every response is bounded in size and time and parsed into values; every fault becomes PeerUnreachable. Sends no token
and no cookie, follows no redirect, uses no proxy and no setting of the environment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from hfpeer.budgets import (
    MAX_CATALOG_BYTES,
    MAX_LISTING_BYTES,
    MAX_PIECE_MAP_BYTES,
    MESSAGE_SECONDS,
    SMALL_MESSAGE_BYTES,
    SMALL_MESSAGE_SECONDS,
)
from hfpeer.errors import CorruptData, HfpeerError, PeerUnreachable, RequestRefused, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.net.http1 import BadResponse, NoResponse, encode_request, has_too_many_items, whole_number
from hfpeer.net.http1_asyncio import send_request
from hfpeer.net.limiter import Limiter
from hfpeer.peers.asking.message_budget import MessageBudget
from hfpeer.peers.protocol.batch import FORMER_BATCH_BLOBS, MAX_BATCH_BLOBS
from hfpeer.peers.protocol.copies import CopiesMessage, copies_path
from hfpeer.peers.protocol.messages import NodeMessage, PeersMessage, RefMessage
from hfpeer.peers.protocol.paths import (
    ADDS_PATH,
    CATALOG_PATH,
    DOOR_HEADER,
    NODE_HEADER,
    NODE_PATH,
    PEERS_PATH,
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    SIGNATURE_HEADER,
    add_progress_path,
    follow_path,
    generation_etag,
    manifest_path,
    pieces_path,
    ref_path,
)
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews, parse_following
from hfpeer.peers.protocol.remote_adds import NOT_ACCEPTED, REFUSALS, AddProgress, AddTerms
from hfpeer.peers.ranges.range_client import RangeClient
from hfpeer.peers.ranges.window import SharedWindow
from hfpeer.peers.table.catalogs import Catalog

PARSE_IN_THREAD_BYTES = 32 * 1024
MAX_CONNECTIONS = 64
FOLLOW_SILENCE_SECONDS = 15.0
"""Seconds without a line before a followed peer counts as silent. It sends one at least every 5 s."""

Message = TypeVar("Message")


class AddressClient:
    """One peer at one address. Belongs to the event loop it is first used on; `aclose` closes it.

    Every coroutine raises PeerUnreachable when the peer does not respond in hfpeer's protocol. `range_client` is for
    worker threads; `limiter` and `window` bound its bodies.
    """

    def __init__(
        self,
        address: Address,
        own_node_id: str,
        *,
        connect_timeout_seconds: float = 3.0,
        silence_timeout_seconds: float = 10.0,
        limiter: Limiter | None = None,
        window: SharedWindow | None = None,
        message_budget: MessageBudget | None = None,
    ) -> None:
        self.address = address
        self.responses = 0
        """The number of responses that have begun here."""
        self.batch_blobs = FORMER_BATCH_BLOBS
        """At most this many blobs in a batch, as the peer has said."""
        self._message_budget = message_budget or MessageBudget()
        self._connect_timeout_seconds = connect_timeout_seconds
        self._headers = {
            "Accept-Encoding": "identity",
            NODE_HEADER: own_node_id,
            PROTOCOL_HEADER: str(PROTOCOL_VERSION),
        }
        self._http = httpx.AsyncClient(
            base_url=address.url,
            headers=self._headers,
            timeout=httpx.Timeout(silence_timeout_seconds, connect=connect_timeout_seconds),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            transport=httpx.AsyncHTTPTransport(
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=4),
                trust_env=False,
                verify=False,  # nodes use no TLS, and loading certificates would cost 20 ms a peer
                uds=address.host if address.is_socket else None,
            ),
        )
        self.range_client = RangeClient(
            address,
            own_node_id,
            connect_timeout_seconds=connect_timeout_seconds,
            silence_timeout_seconds=silence_timeout_seconds,
            limiter=limiter,
            window=window,
        )

    async def node(self) -> NodeMessage:
        """The node message of the peer. Raises PeerUnreachable also for another version of the protocol."""
        message = await self._require(NODE_PATH, _of_json(NodeMessage.from_json), SMALL_MESSAGE_BYTES)
        if message.protocol_version != PROTOCOL_VERSION:
            raise self._unreachable(
                f"speaks version {message.protocol_version} of the protocol, not {PROTOCOL_VERSION}"
            )
        self.batch_blobs = max(1, min(message.batch_blobs, MAX_BATCH_BLOBS))
        return message

    async def catalog(self, after_generation: int | None = None) -> Catalog | None:
        """The catalog of the peer; None if its generation is still `after_generation` (If-None-Match, RFC 9110
        §13.1.2). Raises MessageTooLarge for more than MAX_CATALOG_BYTES."""
        known = {} if after_generation is None else {"If-None-Match": generation_etag(after_generation)}
        return await self._get(CATALOG_PATH, Catalog.from_json, MAX_CATALOG_BYTES, (304,), headers=known)

    async def peers(self, door: str = "") -> tuple[str, ...]:
        """The addresses of the peers that this peer finds alive, unchecked, for `PeerTable.gossiped`. It is told the
        `door` of this node, see DOOR_HEADER; "" if it has none."""
        headers = {DOOR_HEADER: door} if door else None
        parse = _of_json(PeersMessage.from_json)
        message = await self._require(PEERS_PATH, parse, SMALL_MESSAGE_BYTES, headers)
        return message.addresses

    async def manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The manifest of a commit, not proved yet, but of this repo and commit; None if the peer has none."""
        manifest = await self._get(manifest_path(repo, commit), Manifest.from_json, MAX_LISTING_BYTES, (404,))
        if manifest is not None and (manifest.repo, manifest.commit) != (repo, commit):
            raise self._unreachable(f"sent the listing of {manifest.repo} at {manifest.commit.short} for another")
        return manifest

    async def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        """The commit that the peer knows for a revision; None if it knows none."""
        return await self._get(ref_path(repo, revision), _of_json(RefMessage.from_json), SMALL_MESSAGE_BYTES, (404,))

    async def copies(self, digests: Sequence[Digest]) -> CopiesMessage:
        """Which of these blobs the peer has whole, at most MAX_ASKED_BLOBS."""
        return await self._require(copies_path(digests), _of_json(CopiesMessage.from_json), SMALL_MESSAGE_BYTES)

    async def pieces(self, digest: Digest) -> PieceMap | None:
        """The piece map of a blob; None if the peer neither has nor fetches it."""
        return await self._get(pieces_path(digest), _of_json(PieceMap.from_json), MAX_PIECE_MAP_BYTES, (404,))

    async def add_terms(self) -> AddTerms | None:
        """Whether the peer adds what this node asks it to; None if its version of hfpeer takes no requests."""
        return await self._get(ADDS_PATH, _of_json(AddTerms.from_json), SMALL_MESSAGE_BYTES, (404,))

    async def ask_add(self, body: bytes, signed: str = "") -> AddProgress:
        """Sends a `RemoteAdd`. Raises RequestRefused, whose fact `reason` is one of REFUSALS, and Unreachable while the
        peer has too many."""
        headers = {"Content-Type": "application/json"} | ({SIGNATURE_HEADER: signed} if signed else {})
        parse = _of_json(AddProgress.from_json)
        found = await self._get(ADDS_PATH, parse, SMALL_MESSAGE_BYTES, headers=headers, body=body)
        if found is None:
            raise self._unreachable("does not respond in hfpeer's protocol")
        return found

    async def add_progress(self, ticket: str, wait_seconds: int) -> AddProgress | None:
        """How far an add is; the peer answers when it is over, or after `wait_seconds`. None if it does not know the
        ticket any more."""
        path = add_progress_path(ticket, wait_seconds)
        return await self._get(path, _of_json(AddProgress.from_json), SMALL_MESSAGE_BYTES, (404,))

    async def follow(self, digest: Digest) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """The piece map of a blob, then news of each further piece while the peer fetches the blob. Nothing if the peer
        neither has nor fetches it. Ends when the peer has the whole blob, with a map that says so, or has stopped
        fetching."""
        exchange = send_request(
            self._connected(),
            encode_request("GET", follow_path(digest), {"Host": self.address.url[len("http://") :], **self._headers}),
            connect_seconds=self._connect_timeout_seconds,
            silence_seconds=FOLLOW_SILENCE_SECONDS,
        )
        try:
            async with exchange as response:
                self.responses += 1
                if response.status == 404:
                    return
                if response.status != 200:
                    raise self._unreachable(f"answers with status {response.status}")
                async for line in response.lines(MAX_PIECE_MAP_BYTES):
                    yield parse_following(json.loads(line.decode()))
        except NoResponse as error:
            raise self._unreachable(f"does not answer: {error}") from error
        except (BadResponse, CorruptData, ValueError, RecursionError) as error:
            raise self._unreachable(f"cannot be understood: {error}") from error

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.address.is_socket:
            return await asyncio.open_unix_connection(self.address.host)
        return await asyncio.open_connection(self.address.host, self.address.port)

    async def aclose(self) -> None:
        """Closes all connections; a body that another thread is reading fails at once."""
        self.range_client.close()
        await self._http.aclose()

    async def _require(
        self,
        path: str,
        parse: Callable[[bytes], Message],
        limit_bytes: int,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        message = await self._get(path, parse, limit_bytes, headers=headers)
        if message is None:
            raise self._unreachable("does not respond in hfpeer's protocol")
        return message

    async def _get(
        self,
        path: str,
        parse: Callable[[bytes], Message],
        limit_bytes: int,
        absent: tuple[int, ...] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Message | None:
        """The parsed answer to a GET, or, with a `body`, to a POST; None for a status among `absent`."""
        seconds = SMALL_MESSAGE_SECONDS if limit_bytes <= SMALL_MESSAGE_BYTES else MESSAGE_SECONDS
        try:
            method = "GET" if body is None else "POST"
            request = self._http.build_request(method, path, headers=headers, content=body)
            return await asyncio.wait_for(self._exchange(request, parse, limit_bytes, absent), seconds)
        except (httpx.HTTPError, asyncio.TimeoutError) as error:
            raise self._unreachable(f"does not answer: {str(error) or type(error).__name__}") from error
        except (Unreachable, RequestRefused):
            raise
        except (HfpeerError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise self._unreachable(f"cannot be understood: {error}") from error

    async def _exchange(
        self, request: httpx.Request, parse: Callable[[bytes], Message], limit_bytes: int, absent: tuple[int, ...]
    ) -> Message | None:
        response = await self._http.send(request, stream=True)
        self.responses += 1
        try:
            self.range_client.measure_round_trip(response.extensions["network_stream"].get_extra_info("socket"))
            if response.status_code in absent:
                return None
            if request.method == "POST" and response.status_code == 403:
                reason = _refusal(await self._read(response, limit_bytes))
                raise RequestRefused("The peer refuses the request.", reason=reason)
            if request.method == "POST" and response.status_code == 503:
                raise Unreachable(f"The peer {self.address} has as many transfers of other nodes as it takes.")
            async with self._message_budget.reading(self._announced_bytes(response, limit_bytes)):
                raw = await self._read(response, limit_bytes)
                async with self._message_budget.parsing(len(raw)):
                    return await _parse(raw, parse)
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, limit_bytes: int) -> bytes:
        raw = bytearray()
        async for chunk in response.aiter_raw():
            raw += chunk
            if len(raw) > limit_bytes:
                raise self._too_large(limit_bytes)
        return bytes(raw)

    def _announced_bytes(self, response: httpx.Response, limit_bytes: int) -> int:
        """The most bytes the body may have. Raises PeerUnreachable for a response that must not be read."""
        if response.status_code != 200:
            raise self._unreachable(f"answers with status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unreachable("sent an encoded message")
        announced = response.headers.get("Content-Length")
        if announced is None:
            return limit_bytes
        size_bytes = whole_number(announced, limit_bytes)
        if size_bytes is None:
            raise self._too_large(limit_bytes)
        return size_bytes

    def _too_large(self, limit_bytes: int) -> MessageTooLarge:
        error = self._unreachable(f"sent a message of more than {limit_bytes} bytes")
        return MessageTooLarge(error.message, hint=error.hint, **error.facts)

    def _unreachable(self, reason: str) -> PeerUnreachable:
        way = "open this socket" if self.address.is_socket else f"reach port {self.address.port}"
        return PeerUnreachable(
            f"The peer {self.address} {reason}.",
            hint=f"Is hfpeerd running there, and may this machine {way}?",
            address=str(self.address),
        )


class MessageTooLarge(PeerUnreachable):
    """A peer's message exceeds its bound."""


def _refusal(raw: bytes) -> str:
    """Why a request was refused, by the problem that the peer sent."""
    try:
        reason = json.loads(raw)["facts"]["reason"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return NOT_ACCEPTED
    return reason if reason in REFUSALS else NOT_ACCEPTED


async def _parse(raw: bytes, parse: Callable[[bytes], Message]) -> Message:
    if len(raw) < PARSE_IN_THREAD_BYTES:
        return parse(raw)
    return await asyncio.to_thread(_parse_large, raw, parse)


def _parse_large(raw: bytes, parse: Callable[[bytes], Message]) -> Message:
    if has_too_many_items(raw):
        raise ValueError("it has too many values for its size")
    return parse(raw)


def _of_json(parse: Callable[[Any], Message]) -> Callable[[bytes], Message]:
    return lambda raw: parse(json.loads(raw))
