"""Upload-pack: the refs and packs that a git client fetches, made of what this node and its peers know.

Knows neither HTTP nor git's lines. The content of plain files is read through the endpoint: from the cache, peers,
mirrors or the origin. `pack_planner` decides what a pack contains.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.fetch_request import FetchRequest, PackPlan
from hfpeer.endpoint.files.reader import BlobReader
from hfpeer.endpoint.pack_planner import PackPlanner, known_commit
from hfpeer.endpoint.packs.pack_cache import CachedPack, PackRecorder
from hfpeer.errors import HfpeerError, HubUnreachable, Unreachable
from hfpeer.git.objects import GitObject
from hfpeer.git.pack_writer import PackWriter
from hfpeer.names import Commit, RepoId
from hfpeer.ranges import MIB
from hfpeer.system.cancellation import in_thread
from hfpeer.upstream.proxy import ProxyResponse

DEFAULT_BRANCH = "main"
"""Hub protocol: every repo's HEAD is its main branch."""
READ_AHEAD = 16
"""At most this many files are opened before their turn in the pack."""
PIECE_BYTES = MIB
"""Largest piece of a file or cached pack that is read at once."""


class UploadPack:
    """One repo as one admitted caller sees it, for one request."""

    def __init__(self, endpoint: Endpoint, caller: Caller, repo: RepoId) -> None:
        self._endpoint = endpoint
        self._caller = caller
        self._repo = repo

    # Refs

    async def refs(self) -> dict[str, str]:
        """Ref → commit, sorted. If no hub can be asked, only refs whose commit can be given from here.

        Raises HubUnreachable if there is none.
        """
        listed = await self._endpoint.all_refs(self._caller, self._repo)
        refs = _refs(listed.document)
        known = await self._obtainable(refs, listed.is_current)
        if listed.is_current and not known.issuperset(_cloned(refs)):
            # Only a hub can give the missing commits, and a clone wants all: find out whether a hub answers now.
            listed = await self._endpoint.all_refs(self._caller, self._repo, asks_anew=True)
            refs = _refs(listed.document)
            known = await self._obtainable(refs, listed.is_current)
        if not listed.is_current:
            refs = {name: commit for name, commit in refs.items() if commit in known}
        if not refs and not listed.is_current:
            raise HubUnreachable(
                f"No hub can be reached, and no commit of {self._repo} is here or at a peer.",
                hint="Try again when a hub can be reached.",
            )
        return refs

    async def shallow_commits(self, commits: Iterable[str]) -> list[str]:
        """Those of these commits whose parents cannot be given from here."""
        given = set(commits)
        pack = await self._cached_pack(given, None)
        begins = []
        for commit in sorted(given - (pack.tips if pack else set())):
            known = await known_commit(self._endpoint, self._caller, self._repo, commit)
            if known is not None and not given.issuperset(known[1].parents):
                begins.append(commit)
        return begins

    async def _obtainable(self, refs: dict[str, str], is_current: bool) -> frozenset[str]:
        """The commits that can be given from here; if the refs are current, also those that a hub may complete."""
        pack = await self._cached_pack(refs.values(), None)
        tips = pack.tips if pack else frozenset()
        if is_current:
            return tips.union(await self._endpoint.commits.listed(self._repo))
        packed = await in_thread(self._endpoint.packs.ids, pack) if pack else None
        return tips.union(await self._endpoint.commits.obtainable(self._repo, packed or ()))

    async def _known_refs(self) -> dict[str, str] | None:
        """Ref → commit, as far as the caller may see them; None if they are not known."""
        with suppress(HfpeerError):
            return _refs((await self._endpoint.all_refs(self._caller, self._repo)).document)
        return None

    # Plans

    async def plan(self, fetch: FetchRequest) -> PackPlan | None:
        """The plan for a fetch that is answered from here although a hub might be reached: it must be complete and
        cheaper than the hub's pack. None if there is no such plan."""
        listed = await self._endpoint.commits.listed(self._repo)
        # One commit alone, news for a client that has a commit from here, or single objects of a partial clone.
        asks = fetch.depth == 1 or not fetch.haves.isdisjoint(listed)
        tips = frozenset[str]() if asks and fetch.depth is not None else await self._tips()
        asks = asks or tips.isdisjoint(fetch.wants)
        base = await self._base(fetch) if fetch.is_whole_clone else None
        plan = await self._planner(fetch, listed, tips, asks=asks).plan(base)
        return plan if plan is not None and plan.is_all and not plan.is_costly else None

    async def plan_without_hubs(self, fetch: FetchRequest) -> PackPlan:
        """The plan for a fetch that no hub answers. Raises HubUnreachable if too much is missing."""
        listed = await self._endpoint.commits.listed(self._repo)
        tips = frozenset[str]() if fetch.depth is not None else await self._tips()
        plan = await self._planner(fetch, listed, tips, asks=True).plan(await self._base(fetch))
        # A partial clone takes missing commits as promised and asks for them again and again, unless it set a depth.
        needs_all = fetch.deepens or (fetch.filter is not None and fetch.depth is None)
        if plan is None or (needs_all and not plan.is_all):
            raise self.unobtainable(fetch)
        return plan

    async def _tips(self) -> frozenset[str]:
        """The commits that refs name, as far as they are known."""
        return frozenset((await self._known_refs() or {}).values())

    def unobtainable(self, fetch: FetchRequest) -> HubUnreachable:
        """The error for a fetch that neither a hub nor this node can answer."""
        missing = f"{'more of the history' if fetch.deepens else 'what git asks for'} of {self._repo}"
        other = "" if fetch.depth == 1 else ", or ask for the last commit alone: --depth 1"
        return HubUnreachable(
            f"hfpeer: no hub can be reached that gives it, and {missing} is neither here nor at a peer.",
            hint=f"Try again when a hub can be reached{other}.",
        )

    def _planner(
        self, fetch: FetchRequest, listed: Iterable[Commit], tips: frozenset[str], *, asks: bool
    ) -> PackPlanner:
        return PackPlanner(self._endpoint, self._caller, self._repo, fetch, list(listed), tips, asks=asks)

    async def _base(self, fetch: FetchRequest) -> CachedPack | None:
        """A cached pack with some of the wanted commits, of which the caller may have everything."""
        pack = await self._cached_pack(fetch.wants, fetch.filter)
        if pack is None and fetch.filter:
            pack = await self._cached_pack(fetch.wants, None)
        if pack is None or not await self._endpoint.may_have_all(self._caller, self._repo, pack.tips):
            return None
        return pack

    async def _cached_pack(self, commits: Collection[str], filter: str | None) -> CachedPack | None:
        return await in_thread(self._endpoint.packs.find, self._repo, commits, filter)

    # A hub's pack, recorded

    @asynccontextmanager
    async def recorded(self, fetch: FetchRequest) -> AsyncIterator[Callable[[ProxyResponse], ProxyResponse]]:
        """Within the block, the function records the pack in a hub's response while it passes, if it is worth it. At
        the end the plain files of the repo's last commit are put into the cache."""
        recorder = await asyncio.to_thread(self._recorder, fetch)
        if recorder is None:
            yield lambda response: response
            return
        try:
            yield lambda response: self._record(response, recorder, fetch)
        finally:
            await self._learn(fetch, recorder)

    def _recorder(self, fetch: FetchRequest) -> PackRecorder | None:
        if fetch.is_whole_clone:
            return self._endpoint.packs.record(self._repo, fetch.wants, fetch.filter)
        return self._endpoint.packs.record_aside(self._repo) if fetch.depth == 1 and not fetch.haves else None

    def _record(self, response: ProxyResponse, recorder: PackRecorder, fetch: FetchRequest) -> ProxyResponse:
        async def chunks() -> AsyncGenerator[bytes, None]:
            async for chunk in response.chunks:
                if response.status == 200:
                    await asyncio.to_thread(recorder.write, chunk)
                yield chunk
            # Before the client sees the end, because its next request may need the pack.
            if await asyncio.to_thread(recorder.close) is not None:
                await self._endpoint.note_given(self._caller, self._repo, fetch.wants, response.hub)

        return ProxyResponse(response.hub, response.status, response.headers, chunks())

    async def _learn(self, fetch: FetchRequest, recorder: PackRecorder) -> None:
        is_whole = await asyncio.to_thread(recorder.close) is not None
        commit = await self._main_commit(fetch) if is_whole and fetch.filter is None else None
        if commit is None:
            recorder.remove()
        else:
            self._endpoint.learn(self._caller, self._repo, commit, recorder)

    async def _main_commit(self, fetch: FetchRequest) -> str | None:
        """The commit of HEAD, if it is wanted; else the only wanted one; else None."""
        refs = await self._known_refs()
        if refs is None:
            return None
        head = refs.get(f"refs/heads/{DEFAULT_BRANCH}", "")
        return head if head in fetch.wants else fetch.wants[0] if len(fetch.wants) == 1 else None

    # Our own pack

    async def pack(self, plan: PackPlan) -> AsyncGenerator[bytes, None]:
        """The pack in pieces. Raises in the middle if a file cannot be had."""
        writer = PackWriter()
        yield writer.start(len(plan.objects) + (plan.base.count if plan.base else 0))
        if plan.base is not None:
            async for piece in _pieces(plan.base):
                yield await asyncio.to_thread(writer.packed, piece)
        opening: deque[asyncio.Task[BlobReader | bytes]] = deque()
        waiting = iter(object for object in plan.objects if object.body is None)
        try:
            for object in plan.objects:
                while len(opening) < READ_AHEAD and (ahead := next(waiting, None)) is not None:
                    opening.append(asyncio.create_task(self._read(plan, ahead)))
                body = object.body if object.body is not None else await opening.popleft()
                if isinstance(body, bytes):
                    yield await asyncio.to_thread(writer.whole, object.kind, body)
                    continue
                async for piece in _stream(writer, object, body):
                    yield piece
        finally:
            await _close(opening)
        yield writer.finish()

    async def _read(self, plan: PackPlan, object: GitObject) -> BlobReader | bytes:
        assert object.file is not None
        return await self._endpoint.read(plan.admitted[object.commit], object.file)


def _refs(document: dict[str, object]) -> dict[str, str]:
    """Ref → commit of a Hub listing of refs. Malformed entries are left out."""
    refs = {}
    for kind in ("branches", "tags", "converts", "pullRequests"):
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else ():
            with suppress(KeyError, TypeError, HfpeerError):
                refs[str(entry["ref"])] = str(Commit.parse(entry["targetCommit"]))
    return dict(sorted(refs.items()))


def _cloned(refs: dict[str, str]) -> list[str]:
    """The commits that a plain clone wants."""
    return [commit for name, commit in refs.items() if name.startswith(("refs/heads/", "refs/tags/"))]


async def _pieces(pack: CachedPack) -> AsyncIterator[bytes]:
    """The objects of a cached pack, as they are stored."""
    file = await asyncio.to_thread(pack.path.open, "rb")
    try:
        for start in range(pack.body.start, pack.body.stop, PIECE_BYTES):
            yield await asyncio.to_thread(os.pread, file.fileno(), min(PIECE_BYTES, pack.body.stop - start), start)
    finally:
        file.close()


async def _stream(writer: PackWriter, object: GitObject, reader: BlobReader) -> AsyncIterator[bytes]:
    """One large blob, while it is fetched."""
    try:
        yield writer.begin(object.kind, reader.size_bytes)
        position = 0
        while position < reader.size_bytes:
            stop = min(await reader.readable(position, reader.size_bytes), position + PIECE_BYTES)
            chunk = await asyncio.to_thread(os.pread, reader.fd, stop - position, position)
            if not chunk:
                raise Unreachable("A file that was being sent ended early.", hint="Ask again.")
            position += len(chunk)
            yield await asyncio.to_thread(writer.more, chunk)
        yield writer.end()
    finally:
        await reader.close()


async def _close(opening: Iterable[asyncio.Task[BlobReader | bytes]]) -> None:
    """Closes files that were opened but are not needed any more."""
    tasks = list(opening)
    for task in tasks:
        task.cancel()
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, BlobReader):
            await done.close()
