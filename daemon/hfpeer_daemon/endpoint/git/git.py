"""`git clone`, `fetch` and `ls-remote`: answered from what the node knows where that is complete.

- Refs are the Hub's, asked again after a while. If no hub can be asked, only refs whose commit can be given from here.
- `--depth 1`, single objects of a partial clone, and fetches that lack nothing of the history are answered from here.
- A clone of the whole history goes through to the hub. Its pack is cached, so a second clone asks no hub.
- If no hub can be reached, a commit with unknown parents is given as a shallow repo would give it.
- A fetch that neither a hub nor this node can answer ends with an error that git shows.

The older protocol, which lists all refs at once, goes through to the hub while there is one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from hfpeer.budgets import MAX_GUEST_UNPACKED_BYTES, MAX_UNPACKED_BYTES
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.fetch_request import PackPlan
from hfpeer.endpoint.upload_pack import UploadPack
from hfpeer.errors import HfpeerError, Unreachable
from hfpeer_daemon.endpoint.git import git_protocol
from hfpeer_daemon.endpoint.git.git_protocol import FetchResponse, GitRequest
from hfpeer_daemon.endpoint.pass_through import PassThroughApp
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.requests.urls import HubUrl
from hfpeer_daemon.http.responses import header_lines, send_whole

SERVICE = "git-upload-pack"
FINAL = frozenset({200, 401, 403})
"""Statuses of a hub's response that are passed on. After any other the node answers itself."""
BATCH_BYTES = 32 * 1024
"""The pack is sent in batches of about this size."""
_UNCACHED = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


class GitApp:
    """Answers the routes of git over HTTP. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, pass_through: PassThroughApp) -> None:
        self._endpoint = endpoint
        self._pass_through = pass_through

    async def info_refs(self, request: HubRequest, url: HubUrl) -> None:
        """`/{id}[.git]/info/refs?service=…`: the capabilities, or in the older protocol all refs."""
        if request.values("service") != [SERVICE]:
            await self._pass_through.forward(request)
            return
        try:
            await self._endpoint.admit(request.caller, url.repo, wants_files=True)
            if git_protocol.protocol_version(request.header("git-protocol")) == 2:
                await _send(request, git_protocol.advertisement(), "advertisement")
            elif not await self._pass_through.try_forward(request, None, FINAL):
                repo = UploadPack(self._endpoint, request.caller, url.repo)
                refs = await repo.refs()
                shallow = await repo.shallow_commits(refs.values())
                await _send(request, git_protocol.old_advertisement(refs, shallow), "advertisement")
        except Unreachable as error:
            await _send(request, git_protocol.service() + _refusal(error), "advertisement")

    async def upload_pack(self, request: HubRequest, url: HubUrl) -> None:
        """`/{id}[.git]/git-upload-pack`: one command, or one round of the older protocol."""
        body = await request.body()
        try:
            await self._endpoint.admit(request.caller, url.repo, wants_files=True)
            most_bytes = MAX_UNPACKED_BYTES if request.caller.is_local else MAX_GUEST_UNPACKED_BYTES
            plain = git_protocol.unpacked(body, request.header("content-encoding"), most_bytes)
            request.held.add(len(plain))
            version = git_protocol.protocol_version(request.header("git-protocol"))
            git = git_protocol.read_request(plain, version)
            await self._answer(request, body, git, UploadPack(self._endpoint, request.caller, url.repo))
        except Unreachable as error:
            await _send(request, _refusal(error), "result")

    async def _answer(self, request: HubRequest, body: bytes, git: GitRequest, repo: UploadPack) -> None:
        if not git.command:
            await _send(request, b"", "result")
        elif git.command == "ls-refs":
            await _send(request, git_protocol.ls_refs(await repo.refs(), git), "result")
        elif git.command == "fetch":
            await self._fetch(request, body, git, repo)
        else:
            await _send(request, git_protocol.error_line(f"hfpeer knows no command {git.command[:40]!r}"), "result")

    async def _fetch(self, request: HubRequest, body: bytes, git: GitRequest, repo: UploadPack) -> None:
        """From here if that is complete, else from a hub, else from here as far as possible."""
        plan = await repo.plan(git.fetch) if git.version == 2 else None
        if plan is not None and await _send_plan(request, git, repo, plan):
            return
        if await self._forward(request, body, git, repo):
            return
        plan = await repo.plan_without_hubs(git.fetch)
        if not await _send_plan(request, git, repo, plan):
            raise repo.unobtainable(git.fetch)

    async def _forward(self, request: HubRequest, body: bytes, git: GitRequest, repo: UploadPack) -> bool:
        """Whether a hub has answered."""
        if git.version != 2:
            return await self._pass_through.try_forward(request, body, FINAL)
        async with repo.recorded(git.fetch) as record:
            return await self._pass_through.try_forward(request, body, FINAL, record)


async def _send_plan(request: HubRequest, git: GitRequest, repo: UploadPack, plan: PackPlan) -> bool:
    """Sends the response to a fetch. False if nothing was sent, because the first missing file cannot be had."""
    response = FetchResponse(git, plan)
    if (whole := response.without_pack) is not None:
        await _send(request, whole, "result")
        return True
    async with aclosing(_batches(repo.pack(plan))) as batches:
        try:
            first = await anext(batches)
        except HfpeerError:
            return False
        remark = b"" if plan.is_all else response.message(_remark(plan), 2)
        await _start(request, response.head + remark + response.data(first))
        try:
            async for batch in batches:
                await _more(request, response.data(batch))
        except HfpeerError as error:
            if git.frame_bytes is None:
                raise
            await _more(request, response.message(f"hfpeer: {error.message}\n", 3))
        await _more(request, response.end, is_last=True)
    return True


async def _start(request: HubRequest, piece: bytes) -> None:
    headers = {**_UNCACHED, "Content-Type": f"application/x-{SERVICE}-result"}
    await request.send({"type": "http.response.start", "status": 200, "headers": header_lines(headers)})
    await _more(request, piece)


async def _more(request: HubRequest, piece: bytes, *, is_last: bool = False) -> None:
    await request.send({"type": "http.response.body", "body": piece, "more_body": not is_last})


async def _batches(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes in fewer pieces."""
    batch = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            batch += piece
            if len(batch) >= BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
    yield bytes(batch)


async def _send(request: HubRequest, body: bytes, kind: str) -> None:
    headers = {**_UNCACHED, "Content-Type": f"application/x-{SERVICE}-{kind}"}
    await send_whole(request.send, 200, b"" if request.is_head else body, headers.items())


def _refusal(error: HfpeerError) -> bytes:
    return git_protocol.error_line(f"{error.message} {error.hint or ''}".strip()) + git_protocol.FLUSH


def _remark(plan: PackPlan) -> str:
    return (
        f"hfpeer: no hub can be reached; what came before {', '.join(commit[:12] for commit in plan.shallow[:3])} is "
        "not here. Later: git fetch --unshallow. If git refuses a shallow update now: git fetch --depth 1.\n"
    )
