"""`git clone`, `fetch` and `ls-remote`: answered from what the node knows where that is all that was asked.

- Refs are the Hub's, asked again after a while; when no hub can be asked, those whose commit can be given from here.
- `--depth 1`, single objects of a partial clone, and what lacks nothing of the client's history are answered from here.
- A clone of all history goes through to the hub, and its pack is kept for the next one: a second clone asks nobody.
- When no hub can be reached, a commit whose parents nobody here knows is given as a shallow repo would give it.
- What can be had from nobody is an error that git shows.

The older protocol, which names every ref at once, goes through to the hub while there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.git import GitRepo, Plan, Wanted
from hfpeer.endpoint.keptpacks import PackKeeper
from hfpeer.errors import HfpeerError, HubUnreachable, Unreachable
from hfpeer.upstream.passage import PassedBack
from hfpeer_daemon.hub import gitwire
from hfpeer_daemon.hub.addresses import Address
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.hub.passing import pass_through, passed
from hfpeer_daemon.responses import header_lines, send_whole

SERVICE = "git-upload-pack"
FINAL = frozenset({200, 401, 403})
"""What a hub's answer counts with these; any other is none."""
BATCH_BYTES = 32 * 1024
_UNCACHED = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


@dataclass(frozen=True)
class Form:
    """How an answer is written: what stands before the pack, and how much of it fits a frame, None for no frames."""

    before: bytes
    frame_bytes: int | None = gitwire.MAX_DATA_BYTES

    def data(self, piece: bytes) -> bytes:
        return piece if self.frame_bytes is None else gitwire.framed(piece, 1, self.frame_bytes)

    def said(self, text: str, channel: gitwire.Channel) -> bytes:
        return b"" if self.frame_bytes is None else gitwire.framed(text.encode(), channel, self.frame_bytes)

    @property
    def end(self) -> bytes:
        return b"" if self.frame_bytes is None else gitwire.FLUSH


class GitDoor:
    """Answers git's own routes. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def info_refs(self, asked: Asked, address: Address) -> None:
        """`/{id}[.git]/info/refs?service=…`: what can be asked here, or in the older protocol all refs."""
        if asked.values("service") != [SERVICE]:
            await pass_through(self._endpoint, asked)
            return
        try:
            await self._endpoint.admit(asked.caller, address.repo, wants_files=True)
            if _speaks_version_2(asked):
                await _send(asked, gitwire.advertisement(), "advertisement")
            elif not await passed(self._endpoint, asked, None, FINAL):
                repo = GitRepo(self._endpoint, asked.caller, address.repo)
                refs = await repo.refs()
                shallow = await repo.beginnings(refs.values())
                await _send(asked, gitwire.old_advertisement(refs, shallow), "advertisement")
        except Unreachable as error:
            await _send(asked, gitwire.service() + _refusal(error), "advertisement")

    async def upload_pack(self, asked: Asked, address: Address) -> None:
        """`/{id}[.git]/git-upload-pack`: one command, or one round of the older protocol."""
        body = await asked.body()
        try:
            await self._endpoint.admit(asked.caller, address.repo, wants_files=True)
            plain = gitwire.unpacked(body, asked.header("content-encoding"))
            exchange = _Exchange(self._endpoint, asked, GitRepo(self._endpoint, asked.caller, address.repo), body)
            if _speaks_version_2(asked):
                await exchange.run_command(gitwire.read_command(plain))
            else:
                await exchange.run_old(gitwire.read_old_fetch(plain))
        except Unreachable as error:
            await _send(asked, _refusal(error), "result")


class _Exchange:
    """One request to `git-upload-pack`; `body` is it as it came."""

    def __init__(self, endpoint: Endpoint, asked: Asked, repo: GitRepo, body: bytes) -> None:
        self._endpoint = endpoint
        self._asked = asked
        self._repo = repo
        self._body = body

    async def run_command(self, command: gitwire.Command | None) -> None:
        """A command of protocol version 2."""
        if command is None:
            await _send(self._asked, b"", "result")
        elif command.name == "ls-refs":
            await _send(self._asked, gitwire.ls_refs(await self._repo.refs(), command), "result")
        elif command.name == "fetch":
            await self._fetch(command.wanted())
        else:
            await _send(self._asked, gitwire.error_line(f"hfpeer knows no command {command.name[:40]!r}"), "result")

    async def _fetch(self, wanted: Wanted) -> None:
        asks = wanted.depth == 1 or await self._repo.knows_any(wanted.haves) or not await self._repo.names_any(wanted)
        base = await self._repo.base(wanted) if wanted.is_whole_clone else None
        plan = await self._repo.plan(wanted, base, asks=asks)
        if plan is not None and plan.is_all and not plan.is_costly and await self._sent_plan(wanted, plan):
            return
        if not await self._passed(wanted):
            await self._fetch_alone(wanted)

    async def _fetch_alone(self, wanted: Wanted) -> None:
        """No hub can be asked."""
        plan = await self._repo.plan(wanted, await self._repo.base(wanted), asks=True)
        # A partial clone takes what it lacks for promised, and asks for it without end, unless it asked for a depth.
        needs_all = wanted.deepens or (wanted.filter is not None and wanted.depth is None)
        if plan is None or (needs_all and not plan.is_all):
            raise self._unknown(wanted)
        if not wanted.is_done and wanted.haves and not plan.is_all:
            await _send(self._asked, gitwire.acknowledged(plan.common, is_ready=False), "result")
        elif not await self._sent_plan(wanted, plan):
            raise self._unknown(wanted)

    async def _passed(self, wanted: Wanted) -> bool:
        """Whether a hub has answered. What it gives of the repo's last commit is learnt."""
        keeper = await asyncio.to_thread(self._keeper, wanted)
        if keeper is None:
            return await passed(self._endpoint, self._asked, self._body, FINAL)
        try:
            return await passed(self._endpoint, self._asked, self._body, FINAL, partial(_heard, keeper))
        finally:
            await self._learn(wanted, keeper)

    async def _learn(self, wanted: Wanted, keeper: PackKeeper) -> None:
        is_whole = await asyncio.to_thread(keeper.close) is not None
        commit = await self._repo.main(wanted) if is_whole and wanted.filter is None else None
        if commit is None:
            keeper.remove()
        else:
            self._endpoint.learn(self._asked.caller, self._repo.repo, commit, keeper)

    def _keeper(self, wanted: Wanted) -> PackKeeper | None:
        packs, repo = self._endpoint.packs, self._repo.repo
        if wanted.is_whole_clone:
            return packs.keep(repo, wanted.wants, wanted.filter)
        return packs.pass_by(repo) if wanted.depth == 1 and not wanted.haves else None

    async def _sent_plan(self, wanted: Wanted, plan: Plan) -> bool:
        is_ready = bool(wanted.haves) and not wanted.is_done
        said = gitwire.acknowledged(plan.common, is_ready=True) if is_ready else b""
        form = Form(said + gitwire.shallow_info(plan.shallow) + gitwire.line("packfile"))
        return await self._sent_pack(form, plan)

    async def _sent_pack(self, form: Form, plan: Plan) -> bool:
        """Whether the answer was sent; it was not begun if what must be fetched for it cannot be had."""
        async with aclosing(_batches(self._repo.pack(plan))) as batches:
            try:
                first = await anext(batches)
            except HfpeerError:
                return False
            await self._start(form.before + (b"" if plan.is_all else form.said(_remark(plan), 2)) + form.data(first))
            try:
                async for batch in batches:
                    await self._more(form.data(batch))
            except HfpeerError as error:
                await self._more(form.said(f"hfpeer: {error.message}\n", 3))
                if form.frame_bytes is None:
                    raise
            await self._more(form.end, is_last=True)
        return True

    def _unknown(self, wanted: Wanted) -> HubUnreachable:
        what = f"{'more of the history' if wanted.deepens else 'what git asks for'} of {self._repo.repo}"
        other = "" if wanted.depth == 1 else ", or ask for the last commit alone: --depth 1."
        return HubUnreachable(
            f"hfpeer: no hub can be reached that gives it, and {what} is neither here nor at a peer.",
            hint=f"Try again when a hub can be reached{other or '.'}",
        )

    # The older protocol

    async def run_old(self, asked: gitwire.OldFetch | None) -> None:
        """One round of the older protocol."""
        if asked is None:
            await _send(self._asked, b"", "result")
        elif not await passed(self._endpoint, self._asked, self._body, FINAL):
            await self._fetch_old(asked)

    async def _fetch_old(self, asked: gitwire.OldFetch) -> None:
        wanted = asked.wanted
        plan = await self._repo.plan(wanted, await self._repo.base(wanted), asks=True)
        if plan is None or (wanted.deepens and not plan.is_all):
            raise self._unknown(wanted)
        before = b"" if wanted.depth is None else gitwire.old_shallow(plan.shallow)
        if not asked.has_haves:
            await _send(self._asked, before, "result")
        elif not wanted.is_done:
            await _send(self._asked, before + gitwire.line("NAK"), "result")
        else:
            said = gitwire.line(f"ACK {plan.common[-1]}" if plan.common else "NAK")
            if not await self._sent_pack(Form(before + said, _frame_bytes(asked)), plan):
                raise self._unknown(wanted)

    # The answer

    async def _start(self, piece: bytes) -> None:
        headers = {**_UNCACHED, "Content-Type": f"application/x-{SERVICE}-result"}
        await self._asked.send({"type": "http.response.start", "status": 200, "headers": header_lines(headers)})
        await self._more(piece)

    async def _more(self, piece: bytes, *, is_last: bool = False) -> None:
        await self._asked.send({"type": "http.response.body", "body": piece, "more_body": not is_last})


def _heard(keeper: PackKeeper, answer: PassedBack) -> PassedBack:
    """The same answer, which the keeper hears while it passes."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        async for chunk in answer.chunks:
            if answer.status == 200:
                await asyncio.to_thread(keeper.hear, chunk)
            yield chunk
        # Before the client hears the end: its next question may want the pack.
        await asyncio.to_thread(keeper.close)

    return PassedBack(answer.hub, answer.status, answer.headers, chunks())


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


async def _send(asked: Asked, body: bytes, kind: str) -> None:
    headers = {**_UNCACHED, "Content-Type": f"application/x-{SERVICE}-{kind}"}
    await send_whole(asked.send, 200, b"" if asked.is_head else body, headers.items())


def _refusal(error: HfpeerError) -> bytes:
    return gitwire.error_line(f"{error.message} {error.hint or ''}".strip()) + gitwire.FLUSH


def _remark(plan: Plan) -> str:
    return (
        f"hfpeer: no hub can be reached; what came before {', '.join(commit[:12] for commit in plan.shallow[:3])} is "
        "not here. Later: git fetch --unshallow. If git refuses a shallow update now: git fetch --depth 1.\n"
    )


def _speaks_version_2(asked: Asked) -> bool:
    return "version=2" in (asked.header("git-protocol") or "").split(":")


def _frame_bytes(asked: gitwire.OldFetch) -> int | None:
    if "side-band-64k" in asked.capabilities:
        return gitwire.MAX_DATA_BYTES
    return 995 if "side-band" in asked.capabilities else None
