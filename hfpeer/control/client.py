"""The client of the control door: operations as JSON over a Unix socket.

Each operation has a path of its own name. `Operations` alone gives the types of its parameters and its result: a new
operation needs a method here and nothing in the codec. An error crosses as a problem and is raised again as the same
class.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hfpeer.control.operations import (
    AddRequest,
    AdoptRequest,
    AttachRequest,
    FollowedRequest,
    PublishRequest,
    RepairRequest,
    VerifyRequest,
)
from hfpeer.errors import HfpeerError, NotRunning, from_problem
from hfpeer.names import MAIN, FilePath, RepoId, Revision
from hfpeer.net.http1 import BadResponse, NoResponse, ResponseReader, TimedOut, encode_request
from hfpeer.system.ownership import check_peer, check_socket
from hfpeer.transfer.events import KINDS, Event, Finished, OnEvent, TransferJoined, TransferLeft
from hfpeer.transfer.events import from_json as event_from_json

if TYPE_CHECKING:
    import asyncio

    from hfpeer.control.results import (
        AdoptReport,
        CachedRevision,
        CacheReport,
        CleanReport,
        CleanRequest,
        FollowedRepo,
        Forgotten,
        HistoryEntry,
        Holding,
        ListedCommit,
        NodeStatus,
        PeerStatus,
        Provenance,
        Published,
        RepairReport,
        TransferStatus,
        VerifyReport,
    )
from hfpeer.control.codec import (
    CONTROL_VERSION,
    HELLO_PATH,
    STOP_PATH,
    VERSION_HEADER,
    call_path,
    decode,
    encode,
    result_type,
    version_mismatch,
)

CONNECT_TIMEOUT_SECONDS = 2.0
MAX_LINE_BYTES = 64 * 1024 * 1024
STOP_ANSWER_SECONDS = 1.5
"""Seconds in which a daemon has to answer that it ends; after them it gets a signal."""
QUICK_TIMEOUT_SECONDS = 10.0
"""Seconds in which the daemon has to answer a request that needs no work."""


class ControlClient:
    """The daemon behind `socket_path`, as `Operations`. Each call opens a connection of its own.

    Every method raises NotRunning when no daemon answers, VersionMismatch when the daemon has another version, and the
    errors of the daemon's node. It raises BrokenCache, before it sends a byte, when the socket or its listener belongs
    to another user. With `is_blocking` the coroutines never suspend; `run_blocking` runs them.
    """

    def __init__(self, socket_path: Path, *, is_blocking: bool = False) -> None:
        self._socket_path = socket_path
        self._is_blocking = is_blocking
        self.environment: Any = None
        """The digests of the daemon's environment, as JSON, after `is_answering`. See `control.environment`."""
        self.asked: set[str] = set()
        """The operations that were called."""

    async def is_answering(self) -> bool:
        """Whether a daemon answers. Raises VersionMismatch if it has another version than this command."""
        try:
            hello = await self._ask("GET", HELLO_PATH, timeout_seconds=QUICK_TIMEOUT_SECONDS)
        except NotRunning:
            return False
        self.environment = hello.get("environment")
        return True

    async def stop(self) -> None:
        """Asks the daemon to end. It answers first. Works across versions."""
        await self._ask("POST", STOP_PATH, timeout_seconds=STOP_ANSWER_SECONDS, checks_version=False)

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        """See `Operations.add`. The add runs in the daemon. Cancelling tells the daemon so, and gives TransferLeft with
        what becomes of it; when this process is killed, the transfer goes on."""
        joined: list[TransferJoined] = []

        def note(event: Event) -> None:
            if isinstance(event, TransferJoined):
                joined.append(event)
            on_event(event)

        try:
            return cast(Finished, await self._follow("add", Finished, request, note))
        except GeneratorExit:
            raise
        except BaseException as error:
            if joined and not isinstance(error, HfpeerError):
                with suppress(HfpeerError):
                    left = await self.leave_transfer(joined[0].id, joined[0].follower)
                    on_event(TransferLeft(joined[0].id, left))
            raise

    async def begin_transfer(self, request: AddRequest, priority: str = "normal") -> TransferStatus:
        return cast("TransferStatus", await self._call("begin_transfer", request=request, priority=priority))

    async def attach(self, request: AttachRequest, on_event: OnEvent) -> Finished:
        return cast(Finished, await self._follow("attach", Finished, request, on_event))

    async def leave_transfer(self, id: int, follower: int) -> str:
        arguments = {"id": id, "follower": follower}
        return cast(str, await self._call("leave_transfer", timeout_seconds=QUICK_TIMEOUT_SECONDS, **arguments))

    async def list_transfers(self) -> list[TransferStatus]:
        return cast("list[TransferStatus]", await self._call("list_transfers"))

    async def change_transfers(self, ids: tuple[int, ...], change: str) -> list[TransferStatus]:
        return cast("list[TransferStatus]", await self._call("change_transfers", ids=ids, change=change))

    async def history(self, since: float = 0.0) -> list[HistoryEntry]:
        return cast("list[HistoryEntry]", await self._call("history", since=since))

    async def follow_repo(self, wanted: FollowedRepo) -> FollowedRepo:
        return cast("FollowedRepo", await self._call("follow_repo", wanted=wanted))

    async def unfollow_repo(self, repo: RepoId, revision: Revision | None = None) -> list[FollowedRepo]:
        return cast("list[FollowedRepo]", await self._call("unfollow_repo", repo=repo, revision=revision))

    async def list_followed(self) -> list[FollowedRepo]:
        return cast("list[FollowedRepo]", await self._call("list_followed"))

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        return cast("ListedCommit", await self._call("list_commit", request=request))

    async def verify(self, request: VerifyRequest, on_event: OnEvent) -> VerifyReport:
        """See `Operations.verify`. It runs in the daemon. Cancelling ends it there, as for an add."""
        return cast("VerifyReport", await self._follow("verify", result_type("verify"), request, on_event))

    async def adopt(self, request: AdoptRequest, on_event: OnEvent) -> AdoptReport:
        """See `Operations.adopt`. It runs in the daemon. Cancelling ends it there, as for an add."""
        return cast("AdoptReport", await self._follow("adopt", result_type("adopt"), request, on_event))

    async def repair(self, request: RepairRequest, on_event: OnEvent) -> RepairReport:
        """See `Operations.repair`. It runs in the daemon. Cancelling ends it there, as for an add."""
        return cast("RepairReport", await self._follow("repair", result_type("repair"), request, on_event))

    async def _follow(self, operation: str, kind: Any, request: FollowedRequest, on_event: OnEvent) -> Any:
        """Calls an operation that sends events before its result, which is of the type `kind`."""
        self.asked.add(operation)
        async with self._opened("POST", call_path(operation), encode({"request": request})) as answer:
            await self._check(answer)
            async for line in answer.lines(MAX_LINE_BYTES):
                message = json.loads(line)
                if "event" in message:
                    if message["event"] in KINDS:  # a daemon of another version may have more
                        on_event(event_from_json(message))
                elif "problem" in message:
                    raise from_problem(message["problem"])
                else:
                    return decode(kind, message["result"])
        raise self._not_running(f"stopped before the {operation} had ended")

    async def list_revisions(
        self, repo: RepoId | None = None, revision: Revision | None = None
    ) -> list[CachedRevision]:
        return cast("list[CachedRevision]", await self._call("list_revisions", repo=repo, revision=revision))

    async def cache_report(self) -> CacheReport:
        return cast("CacheReport", await self._call("cache_report"))

    async def forget_adopted(self, places: tuple[str, ...] = ()) -> Forgotten:
        return cast("Forgotten", await self._call("forget_adopted", places=places))

    async def clean(self, request: CleanRequest) -> CleanReport:
        return cast("CleanReport", await self._call("clean", request=request))

    async def search(
        self, repo: RepoId | None, revision: Revision | None = None, files: tuple[FilePath, ...] = ()
    ) -> list[Holding]:
        return cast("list[Holding]", await self._call("search", repo=repo, revision=revision, files=files))

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        return cast("list[Provenance]", await self._call("why", repo=repo, revision=revision, files=files))

    async def publish(self, request: PublishRequest, on_event: OnEvent) -> Published:
        """See `Operations.publish`. It runs in the daemon. Cancelling ends it there, as for an add."""
        return cast("Published", await self._follow("publish", result_type("publish"), request, on_event))

    async def add_peer(self, address: str) -> PeerStatus:
        return cast("PeerStatus", await self._call("add_peer", address=address))

    async def remove_peer(self, address: str) -> None:
        await self._call("remove_peer", address=address)

    async def list_peers(self) -> list[PeerStatus]:
        return cast("list[PeerStatus]", await self._call("list_peers"))

    async def share(self, repo: RepoId, is_shared: bool | None) -> list[CachedRevision]:
        return cast("list[CachedRevision]", await self._call("share", repo=repo, is_shared=is_shared))

    async def status(self) -> NodeStatus:
        return cast("NodeStatus", await self._call("status", timeout_seconds=QUICK_TIMEOUT_SECONDS))

    async def _call(self, operation: str, *, timeout_seconds: float | None = None, **arguments: Any) -> Any:
        self.asked.add(operation)
        body = encode(arguments)
        answer = await self._ask("POST", call_path(operation), body, timeout_seconds=timeout_seconds)
        return decode(result_type(operation), answer)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_seconds: float | None = None,
        checks_version: bool = True,
    ) -> Any:
        async with self._opened(method, path, body, timeout_seconds) as answer:
            await self._check(answer, checks_version)
            return json.loads(await answer.body())

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Any = None, timeout_seconds: float | None = None
    ) -> AsyncIterator[ResponseReader]:
        """Opens the socket and sends a request. Turns errors of the connection into NotRunning."""
        asking = self._asking(method, path, b"" if body is None else json.dumps(body).encode(), timeout_seconds)
        try:
            async with asking as answer:
                yield answer
        except TimedOut as error:
            raise self._not_running("has not answered in time") from error
        except (NoResponse, BadResponse) as error:
            raise self._not_running(f"does not answer ({error})") from error

    def _asking(
        self, method: str, path: str, body: bytes, silence_seconds: float | None
    ) -> AbstractAsyncContextManager[ResponseReader]:
        """Sends a request, blocking or in the event loop. Only the client that is needed is imported: an event loop
        costs more time than a whole command."""
        headers = {"Host": "hfpeer", VERSION_HEADER: str(CONTROL_VERSION), "Content-Type": "application/json"}
        request = encode_request(method, path, headers, body)
        if self._is_blocking:
            from hfpeer.net.http1_blocking import send_unix_request

            return send_unix_request(
                self._socket_path, request, connect_seconds=CONNECT_TIMEOUT_SECONDS, silence_seconds=silence_seconds
            )
        from hfpeer.net.http1_asyncio import send_request

        return send_request(
            self._connected(), request, connect_seconds=CONNECT_TIMEOUT_SECONDS, silence_seconds=silence_seconds
        )

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a daemon of this user. Raises BrokenCache for one of another user."""
        import asyncio

        await asyncio.to_thread(check_socket, self._socket_path)
        reader, writer = await asyncio.open_unix_connection(self._socket_path)
        try:
            check_peer(writer.get_extra_info("socket"), self._socket_path)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _check(self, answer: ResponseReader, checks_version: bool = True) -> None:
        spoken = answer.headers.get(VERSION_HEADER.lower())
        if checks_version and spoken != str(CONTROL_VERSION):
            raise version_mismatch(spoken)
        if answer.status >= 400:
            raise _problem(await answer.body(), answer.status)

    def _not_running(self, what: str) -> NotRunning:
        return NotRunning(f"The daemon {what}.", hint="hfpeer daemon start", control_socket=str(self._socket_path))


def _problem(raw: bytes, status: int) -> HfpeerError:
    try:
        return from_problem(json.loads(raw))
    except (ValueError, AttributeError):
        return HfpeerError(f"The daemon answered with status {status}.", hint="Its log says more: hfpeer daemon logs.")
