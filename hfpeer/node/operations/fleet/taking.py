"""Takes the requests of other nodes: each becomes a transfer, if the owner of this node has allowed that.

This node adds with its own rights, rates and bounds: a request only names a commit. The other node learns how far the
add is, and one word if it fails. It never learns paths, logins or messages of this node.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hfpeer.budgets import MAX_REFUSED_NODES, MAX_REQUEST_WAITS, MAX_TICKETS
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest, AttachRequest
from hfpeer.control.transfers import CANCELLED, FAILED, TransferStatus
from hfpeer.errors import (
    AccessDenied,
    CorruptData,
    HfpeerError,
    InvalidName,
    NotFound,
    RequestRefused,
    StorageError,
    Unreachable,
)
from hfpeer.names import Revision
from hfpeer.node.operations.transfers.operations import TransferOperations
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.paths import ADDS_PATH
from hfpeer.peers.protocol.remote_adds import (
    LAN,
    NO,
    NOT_A_PEER,
    NOT_ACCEPTED,
    NOT_SIGNED,
    SIGNED,
    AddProgress,
    AddTerms,
    RemoteAdd,
)
from hfpeer.trust.signatures import Nonces, is_signature, signature

ALLOWING = "`hfpeer conf set accept_requests lan` and `hfpeer daemon restart` allow them."
_REASONS = {
    NotFound.exit_code: "access_denied",
    AccessDenied.exit_code: "access_denied",
    Unreachable.exit_code: "unreachable",
    CorruptData.exit_code: "corrupt_data",
    StorageError.exit_code: "storage",
}
"""The word for an error, by its exit code. A missing repo and a closed one have the same word."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TakingParts:
    """`accepts` is the setting `accept_requests`. `read_key` is blocking, and raises InvalidName without a key."""

    accepts: str
    read_key: Callable[[], bytes]
    node_id: str
    neighbourhood: Neighbourhood
    transfers: TransferOperations


class AddsOfOthers:
    """Implements `AddTaker`. Belongs to one event loop."""

    def __init__(self, parts: TakingParts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self._nonces = Nonces(secrets.token_bytes(32))
        self._tickets: OrderedDict[str, int] = OrderedDict()
        self._refused: dict[str, None] = {}
        self._waits = 0

    @property
    def notes(self) -> list[str]:
        """Names the nodes whose requests were refused because `accept_requests` is no; empty without such requests."""
        if not self._refused:
            return []
        return [f"Requests of {', '.join(self._refused)} were refused: `accept_requests` is no. {ALLOWING}"]

    def terms(self) -> AddTerms:
        is_signed = self._parts.accepts == SIGNED
        nonce = self._nonces.fresh(self._clock(), secrets.token_bytes(16)) if is_signed else ""
        return AddTerms(self._parts.accepts, nonce)

    async def take(self, body: bytes, *, sender: str, host: str, signed: str) -> AddProgress:
        peer = self._parts.neighbourhood.get(sender)
        is_peer = peer is not None and peer.node_id == sender and not peer.lies
        name = peer.name if peer is not None and is_peer else ""
        if self._parts.accepts == NO:
            self._note_refused(name or host)
            raise RequestRefused("This node takes no requests of other nodes.", reason=NOT_ACCEPTED)
        if self._parts.accepts == LAN and not is_peer:
            raise RequestRefused("This node does not know the node that asks.", reason=NOT_A_PEER)
        if self._parts.accepts == SIGNED and not await self._is_signed(body, sender, signed):
            raise RequestRefused("The request has no signature that counts here.", reason=NOT_SIGNED)
        asked = _asked(body)
        begun = await self._parts.transfers.begin_unattended(
            AddRequest(
                repo=asked.repo,
                revision=Revision(asked.commit),
                files=asked.files,
                include=asked.include,
                exclude=asked.exclude,
                told_as=asked.told_as,
                asked_by=Asker("peer", user=name or host, host=host),
            )
        )
        self._tickets[asked.ticket] = begun.id
        while len(self._tickets) > MAX_TICKETS:
            self._tickets.popitem(last=False)
        return _progress(begun)

    async def progress(self, ticket: str, wait_seconds: float) -> AddProgress | None:
        id = self._tickets.get(ticket)
        if id is None:
            return None
        if wait_seconds > 0 and self._waits < MAX_REQUEST_WAITS:
            self._waits += 1
            try:
                await self._until_over(id, wait_seconds)
            finally:
                self._waits -= 1
        found = next((one for one in await self._parts.transfers.listed() if one.id == id), None)
        return AddProgress(CANCELLED) if found is None else _progress(found)

    async def _until_over(self, id: int, seconds: float) -> None:
        with suppress(HfpeerError, asyncio.TimeoutError):
            await asyncio.wait_for(self._parts.transfers.attach(AttachRequest(id), lambda event: None), seconds)

    async def _is_signed(self, body: bytes, sender: str, signed: str) -> bool:
        """Whether the request is signed with the key of this node, over a nonce that is used with it."""
        try:
            key = await asyncio.to_thread(self._parts.read_key)
        except InvalidName as error:
            _log.warning("A request is refused: %s %s", error.message, error.hint)
            return False
        nonce, _, given = signed.partition(" ")
        right = signature(
            key, nonce=nonce, sender=sender, receiver=self._parts.node_id, method="POST", path=ADDS_PATH, body=body
        )
        # The signature comes first: a stranger must not use up a nonce.
        return is_signature(given, right) and self._nonces.take(nonce, self._clock())

    def _note_refused(self, name: str) -> None:
        """Tells the owner of a node whose request was refused, once."""
        if name not in self._refused and len(self._refused) < MAX_REFUSED_NODES:
            self._refused[name] = None
            _log.warning("%s asked this node to add something and was refused. %s", name, ALLOWING)


def _asked(body: bytes) -> RemoteAdd:
    """Raises InvalidName."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidName("The request is not JSON.") from error
    asked = RemoteAdd.from_json(document)
    if asked.repo.is_of_sets:
        raise InvalidName("Prepared sets are not added for other nodes.")
    return asked


def _progress(one: TransferStatus) -> AddProgress:
    is_failed = one.state == FAILED and one.problem is not None
    return AddProgress(
        one.state,
        one.present_bytes,
        one.size_bytes,
        one.files,
        one.rate_bytes_per_second,
        _REASONS.get(one.problem.exit_code, "internal") if is_failed and one.problem is not None else "",
    )
