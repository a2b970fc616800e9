"""Asks one peer: what is small through httpx on the event loop, blobs through `bodies` in worker threads.

Everything a peer says is bounded in size and time and parsed into values; whatever goes wrong becomes PeerUnreachable
here. No token, cookie or redirect, no proxy, nothing from the environment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from hfpeer.asking import BadAnswer, NoAnswer, ask, question
from hfpeer.errors import CorruptData, HfpeerError, PeerUnreachable
from hfpeer.limits import Limiter
from hfpeer.manifest import Manifest
from hfpeer.names import Address, Commit, Digest, RepoId, Revision
from hfpeer.peers.bodies import Batch, BodyClient
from hfpeer.peers.window import SharedWindow
from hfpeer.wire import (
    CATALOGUE_PATH,
    MAX_MESSAGE_BYTES,
    NODE_HEADER,
    NODE_PATH,
    PEERS_PATH,
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    Body,
    CatalogueMessage,
    NodeMessage,
    PeersMessage,
    PieceMap,
    PieceNews,
    RefMessage,
    follow_path,
    generation_etag,
    manifest_path,
    parse_following,
    pieces_path,
    ref_path,
)

SMALL_MESSAGE_BYTES = 64 * 1024
MAX_CATALOGUE_BYTES = 16 * 1024 * 1024
MAX_PIECE_MAP_BYTES = 4 * 1024 * 1024
MESSAGE_SECONDS = 60.0
"""No message may take longer as a whole, however steadily it trickles."""
PARSE_IN_THREAD_BYTES = 256 * 1024
MAX_CONNECTIONS = 64
FOLLOW_SILENCE_SECONDS = 15.0
"""A peer that is followed says something at least every five seconds."""

Message = TypeVar("Message")


class PeerClient:
    """One peer at one address. Belongs to the event loop it is first used on; `close` it with `aclose`.

    Every coroutine raises PeerUnreachable when the peer does not answer, or not in hfpeer's protocol. The two
    blocking methods raise SourceFault and are for worker threads; `limiter` and `window` hold for what these bring.
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
    ) -> None:
        self.address = address
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
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=4),
            trust_env=False,
            verify=False,  # there is no TLS between nodes; loading the certificates would cost 20 ms a peer
        )
        self._bodies = BodyClient(
            address,
            own_node_id,
            connect_timeout_seconds=connect_timeout_seconds,
            silence_timeout_seconds=silence_timeout_seconds,
            limiter=limiter,
            window=window,
        )

    async def node(self) -> NodeMessage:
        """Who answers there. PeerUnreachable also if it speaks another version of the protocol."""
        message = await self._must_get(NODE_PATH, NodeMessage.from_json, SMALL_MESSAGE_BYTES)
        if message.protocol != PROTOCOL_VERSION:
            raise self._unreachable(f"speaks version {message.protocol} of the protocol, not {PROTOCOL_VERSION}")
        return message

    async def catalogue(self, after_generation: int | None = None) -> CatalogueMessage | None:
        """What the peer shares; None if that is still the generation `after_generation`."""
        known = {} if after_generation is None else {"If-None-Match": generation_etag(after_generation)}
        return await self._get(CATALOGUE_PATH, CatalogueMessage.from_json, MAX_CATALOGUE_BYTES, (304,), headers=known)

    async def peers(self) -> tuple[str, ...]:
        """The addresses of the peers it finds alive: hearsay, as text, for `PeerTable.told`."""
        message = await self._must_get(PEERS_PATH, PeersMessage.from_json, SMALL_MESSAGE_BYTES)
        return message.addresses

    async def manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The listing of a commit, not yet proved, but of this repo and commit; None if the peer has none."""
        manifest = await self._get(manifest_path(repo, commit), _parse_manifest, MAX_MESSAGE_BYTES, (404,))
        if manifest is not None and (manifest.repo, manifest.commit) != (repo, commit):
            raise self._unreachable(f"sent the listing of {manifest.repo} at {manifest.commit.short} for another")
        return manifest

    async def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        """What the peer last knew a revision to be; None if it never knew."""
        return await self._get(ref_path(repo, revision), RefMessage.from_json, SMALL_MESSAGE_BYTES, (404,))

    async def pieces(self, digest: Digest) -> PieceMap | None:
        """The piece map of a blob; None if the peer neither has nor fetches it."""
        return await self._get(pieces_path(digest), PieceMap.from_json, MAX_PIECE_MAP_BYTES, (404,))

    async def follow(self, digest: Digest) -> AsyncGenerator[PieceMap | PieceNews, None]:
        """What the peer has of a blob, and then what it gets, for as long as it is fetching it; nothing if it neither
        has nor fetches it. Ends when the peer has all of it, which the last map says, or has stopped fetching."""
        asking = ask(
            asyncio.open_connection(self.address.host, self.address.port),
            question("GET", follow_path(digest), {"Host": str(self.address), **self._headers}),
            connect_seconds=self._connect_timeout_seconds,
            silence_seconds=FOLLOW_SILENCE_SECONDS,
        )
        try:
            async with asking as answer:
                if answer.status == 404:
                    return
                if answer.status != 200:
                    raise self._unreachable(f"answers with status {answer.status}")
                async for line in answer.lines(MAX_PIECE_MAP_BYTES):
                    yield parse_following(json.loads(line.decode()))
        except NoAnswer as error:
            raise self._unreachable(f"does not answer: {error}") from error
        except (BadAnswer, CorruptData, ValueError, RecursionError) as error:
            raise self._unreachable(f"cannot be understood: {error}") from error

    def open_range(
        self, digest: Digest, start: int, stop: int, *, size_bytes: int | None = None, cut_through: bool = False
    ) -> Body:
        """Blocking: see `BodyClient.open_range`."""
        return self._bodies.open_range(digest, start, stop, size_bytes=size_bytes, cut_through=cut_through)

    def open_batch(self, digests: Sequence[Digest]) -> Batch:
        """Blocking: see `BodyClient.open_batch`."""
        return self._bodies.open_batch(digests)

    async def aclose(self) -> None:
        """Ends all connections; a body that another thread reads from fails at once."""
        self._bodies.close()
        await self._http.aclose()

    async def _must_get(self, path: str, parse: Callable[[Any], Message], limit_bytes: int) -> Message:
        message = await self._get(path, parse, limit_bytes)
        if message is None:
            raise self._unreachable("does not answer in hfpeer's protocol")
        return message

    async def _get(
        self,
        path: str,
        parse: Callable[[Any], Message],
        limit_bytes: int,
        absent: tuple[int, ...] = (),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Message | None:
        try:
            request = self._http.build_request("GET", path, headers=headers)
            raw = await asyncio.wait_for(self._read(request, limit_bytes, absent), MESSAGE_SECONDS)
            return None if raw is None else await _parse(raw, parse)
        except (httpx.HTTPError, asyncio.TimeoutError) as error:
            raise self._unreachable(f"does not answer: {str(error) or type(error).__name__}") from error
        except PeerUnreachable:
            raise
        except (HfpeerError, ValueError, RecursionError) as error:
            raise self._unreachable(f"cannot be understood: {error}") from error

    async def _read(self, request: httpx.Request, limit_bytes: int, absent: tuple[int, ...]) -> bytes | None:
        response = await self._http.send(request, stream=True)
        self._bodies.look_how_far(response.extensions["network_stream"].get_extra_info("socket"))
        try:
            if response.status_code in absent:
                return None
            self._check(response, limit_bytes)
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > limit_bytes:
                    raise self._unreachable(f"sent a message of more than {limit_bytes} bytes")
            return bytes(raw)
        finally:
            await response.aclose()

    def _check(self, response: httpx.Response, limit_bytes: int) -> None:
        if response.status_code != 200:
            raise self._unreachable(f"answers with status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unreachable("sent a message in an encoding")
        if int(response.headers.get("Content-Length", "0")) > limit_bytes:
            raise self._unreachable(f"sent a message of more than {limit_bytes} bytes")

    def _unreachable(self, reason: str) -> PeerUnreachable:
        return PeerUnreachable(
            f"The peer {self.address} {reason}.",
            hint=f"Is hfpeerd running there, and may this machine reach port {self.address.port}?",
            address=str(self.address),
        )


async def _parse(raw: bytes, parse: Callable[[Any], Message]) -> Message:
    def work() -> Message:
        return parse(raw if parse is _parse_manifest else json.loads(raw))

    return work() if len(raw) < PARSE_IN_THREAD_BYTES else await asyncio.to_thread(work)


def _parse_manifest(raw: bytes) -> Manifest:
    return Manifest.from_json(raw)
