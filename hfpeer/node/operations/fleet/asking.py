"""Asks another node to do an add, and follows it there to its end. It is the run of a transfer of this node.

A node that is away raises PeerUnreachable, so that its transfer waits, and is tried again when the peer comes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from hfpeer.control.operations import AddRequest, OtherNode
from hfpeer.control.transfers import CANCELLED, DONE, FAILED
from hfpeer.errors import (
    HfpeerError,
    InvalidName,
    NotRunning,
    PeerUnreachable,
    RequestRefused,
    TransferCancelled,
    from_problem,
)
from hfpeer.names import Commit
from hfpeer.peers.asking.peer_client import PeerClient
from hfpeer.peers.neighbourhood import Neighbourhood
from hfpeer.peers.protocol.paths import ADDS_PATH
from hfpeer.peers.protocol.remote_adds import (
    NOT_A_PEER,
    NOT_SIGNED,
    SIGNED,
    AddProgress,
    AddTerms,
    RemoteAdd,
)
from hfpeer.peers.table.table import State
from hfpeer.transfer.events import Finished, NodeTold, OnEvent, Resolved
from hfpeer.trust.precedence import Voice
from hfpeer.trust.signatures import signature

WAIT_SECONDS = 1
"""Seconds after which the other node says how far it is, if its add is not over before."""
AT_ONCE = 8
"""At most this many adds are followed at one node at once. The others begin there when one of them has ended."""
_FAILURES = {
    "access_denied": "its login does not open the repo, or no source of it has this commit",
    "unreachable": "no source answers it",
    "storage": "its disk is full or cannot be written",
    "corrupt_data": "the bytes that it got are not those of the commit",
    "internal": "something went wrong there",
}
"""In words: `REASONS` of the protocol."""


@dataclass(frozen=True)
class AskingParts:
    """The parts of a node that ask. `neighbourhood` is None in a node without peers. `read_key` is blocking, and raises
    InvalidName without a key."""

    node_id: str
    neighbourhood: Neighbourhood | None
    read_key: Callable[[], bytes]


class AskedNodes:
    """Asks nodes. Belongs to one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def add(self, parts: AskingParts, request: AddRequest, on_event: OnEvent) -> Finished:
        """Has another node do an add at a full commit.

        Raises RequestRefused, PeerUnreachable, TransferCancelled, and an error of the class with which it failed there.
        """
        assert request.node is not None
        async with self._turns.setdefault(request.node.key, asyncio.Semaphore(AT_ONCE)):
            try:
                return await _add(parts, request, request.node, on_event)
            except PeerUnreachable as error:
                if parts.neighbourhood is not None:
                    parts.neighbourhood.failed(request.node.key, error.message)
                raise


async def _add(parts: AskingParts, request: AddRequest, node: OtherNode, on_event: OnEvent) -> Finished:
    on_event(Resolved(request.repo.full_name, request.revision, request.revision, "", voice=Voice.PIN.value))
    client, receiver = _find(parts, node)
    asked = RemoteAdd(
        secrets.token_hex(16),
        request.repo,
        Commit.parse(request.revision),
        request.files,
        request.include,
        request.exclude,
        request.told_as,
    )
    body = json.dumps(asked.to_json()).encode()
    terms = await client.add_terms()
    signed = await _signed(parts, node, receiver, terms, body)
    try:
        told = await client.ask_add(body, signed)
    except RequestRefused as error:
        raise _refused(node, str(error.facts["reason"])) from error
    while True:
        on_event(
            NodeTold(node.name, told.state, told.present_bytes, told.size_bytes, told.files, told.rate_bytes_per_second)
        )
        if told.state in (DONE, FAILED, CANCELLED):
            return _outcome(request, node, told)
        latest = await client.add_progress(asked.ticket, WAIT_SECONDS)
        if latest is None:
            raise PeerUnreachable(f"{node.name} has forgotten the request: it was restarted.")
        told = latest


def _find(parts: AskingParts, node: OtherNode) -> tuple[PeerClient, str]:
    """The client of a node that is there, and its id. Raises PeerUnreachable."""
    neighbours = parts.neighbourhood
    if neighbours is None:
        raise NotRunning("No daemon runs, so no other node can be asked.", hint="hfpeer daemon start")
    peer = neighbours.get(node.key)
    if peer is None or peer.node_id is None or neighbours.state(peer) is State.GONE:
        raise PeerUnreachable(f"{node.name} is away.", hint="It is asked when it returns.", node=node.name)
    return neighbours.client(peer), peer.node_id


async def _signed(parts: AskingParts, node: OtherNode, receiver: str, terms: AddTerms | None, body: bytes) -> str:
    """The signature that the other node wants; empty if it wants none. A node that refuses is sent the request too, so
    that it tells its owner. Raises RequestRefused."""
    if terms is None:
        raise RequestRefused(
            f"{node.name} takes no requests: it runs an older version.", hint="A newer one takes them.", node=node.name
        )
    if terms.accepts != SIGNED:
        return ""
    try:
        key = await asyncio.to_thread(parts.read_key)
    except InvalidName as error:
        raise RequestRefused(
            f"{node.name} takes only signed requests. {error.message}",
            hint=f"{error.hint} It must be the key that {node.name} has.",
            node=node.name,
        ) from error
    right = signature(
        key, nonce=terms.nonce, sender=parts.node_id, receiver=receiver, method="POST", path=ADDS_PATH, body=body
    )
    return f"{terms.nonce} {right}"


def _refused(node: OtherNode, reason: str) -> RequestRefused:
    if reason == NOT_A_PEER:
        message = f"{node.name} does not know this node as its peer, so it takes no request of it."
        hint = "There: `hfpeer peer add` with the address of this node, or `accept_requests` signed."
    elif reason == NOT_SIGNED:
        message = f"{node.name} does not accept the signature: it has another key."
        hint = "`request_key_file` must name the same key on both nodes."
    else:
        message = f"{node.name} takes no requests of other nodes: `accept_requests` is no there."
        hint = "Its owner allows it with `hfpeer conf set accept_requests lan` and `hfpeer daemon restart` there."
    return RequestRefused(message, hint=hint, node=node.name)


def _outcome(request: AddRequest, node: OtherNode, told: AddProgress) -> Finished:
    """The result of an add that is over. Raises the error with which it ended."""
    if told.state == CANCELLED:
        raise TransferCancelled(f"{node.name} has cancelled it.", hint="Its owner decides there.", node=node.name)
    if told.state == FAILED:
        raise failure(node, told.reason)
    return Finished(request.repo.full_name, request.revision, "", told.files, told.size_bytes or 0, 0)


def failure(node: OtherNode, reason: str) -> HfpeerError:
    """The error for an add that failed at the other node."""
    message = f"{node.name} could not add it: {_FAILURES.get(reason, _FAILURES['internal'])}."
    hint = f"On {node.name}, `hfpeer transfers` says more."
    return from_problem({"code": reason, "message": message, "hint": hint, "facts": {"node": node.name}})
