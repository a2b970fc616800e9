"""A repo as git asks for it, made of what the node and its peers know: refs, what a fetch wants, and the pack.

What is known of a commit is all of it but its parents. So a repo here is a shallow one, as git calls it, but where the
client has the parents already. Owns what goes into an answer; knows neither HTTP nor git's lines. The bytes of plain
files come through the endpoint's own reading, from the cache, peers, mirrors or the origin.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hfpeer.endpoint.callers import Caller
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.gitobjects import CommitObjects, Filter, GitObject, each_once
from hfpeer.endpoint.gitpack import PackWriter
from hfpeer.endpoint.keptpacks import KeptPack
from hfpeer.endpoint.reading import Reading
from hfpeer.endpoint.seen import Seen
from hfpeer.errors import HfpeerError, HubUnreachable, NotFound, Unreachable
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.ranges import MIB

DEFAULT_BRANCH = "main"
"""Hub protocol: every repo's HEAD is its main branch."""
MAX_COMMITS = 64
"""More commits in one fetch are the hub's business."""
MAX_SEARCHED = 16
"""In so many commits, the latest known first, a single object is looked for."""
MANY_FILES = 64
READ_AHEAD = 16
PIECE_BYTES = MIB


@dataclass(frozen=True)
class Wanted:
    """What a client asks of a fetch, ids in hex. `shallow` are commits whose parents it does not have; `depth` is how
    many commits deep the answer shall be, None for all there are; `filter` as in git rev-list."""

    wants: tuple[str, ...]
    haves: frozenset[str] = frozenset()
    shallow: frozenset[str] = frozenset()
    depth: int | None = None
    filter: str | None = None
    is_done: bool = True

    @property
    def is_whole_clone(self) -> bool:
        """Whether all history is wanted, by a client that has nothing."""
        return not self.haves and not self.shallow and self.depth is None

    @property
    def deepens(self) -> bool:
        """Whether a client that has less history asks for more of it."""
        return bool(self.shallow) and self.depth is not None and self.depth > 1


@dataclass(frozen=True)
class Plan:
    """What is sent: the objects, the commits where the client's history now begins, and those of its own that are
    known here. It is all that was asked if the client misses nothing of its history then. `base` goes before.
    It is costly if so many small files must be fetched one by one that a hub's own pack costs less."""

    objects: Sequence[GitObject]
    shallow: tuple[str, ...]
    common: tuple[str, ...]
    is_all: bool
    seen: dict[str, Seen]
    base: KeptPack | None = None
    is_costly: bool = False


class GitRepo:
    """One repo as one caller sees it, for one request. The caller must have been admitted."""

    def __init__(self, endpoint: Endpoint, caller: Caller, repo: RepoId) -> None:
        self._endpoint = endpoint
        self._caller = caller
        self.repo = repo
        self._seen: dict[str, Seen] = {}

    async def refs(self) -> dict[str, str]:
        """Ref -> commit, sorted. When no hub can be asked, those whose commit can be given from here.

        Raises HubUnreachable when there are none.
        """
        told = await self._endpoint.all_refs(self._caller, self.repo)
        refs = _refs(told.document)
        known = await self._known(refs, told.is_current)
        if told.is_current and not known.issuperset(_cloned(refs)):
            # Only a hub can give the others, and a clone asks for all: it matters whether there is one now.
            told = await self._endpoint.all_refs(self._caller, self.repo, asks_anew=True)
            refs = _refs(told.document)
            known = await self._known(refs, told.is_current)
        if not told.is_current:
            refs = {name: commit for name, commit in refs.items() if commit in known}
        if not refs and not told.is_current:
            raise _nothing_here(self.repo)
        return refs

    async def _known(self, refs: dict[str, str], is_current: bool) -> frozenset[str]:
        """The commits that can be given together, with what the client may have of them."""
        kept = await self._kept(refs.values(), None)
        tips = kept.tips if kept else frozenset()
        if is_current:
            return tips.union(await self._endpoint.commits.listed(self.repo))
        packed = await asyncio.to_thread(self._endpoint.packs.ids, kept) if kept else None
        return tips.union(await self._endpoint.commits.obtainable(self.repo, packed or ()))

    async def _kept(self, commits: Collection[str], filter: str | None) -> KeptPack | None:
        return await asyncio.to_thread(self._endpoint.packs.find, self.repo, commits, filter)

    async def beginnings(self, commits: Iterable[str]) -> list[str]:
        """Those of these commits whose parents cannot be given from here."""
        given = set(commits)
        kept = await self._kept(given, None)
        known = [await self._commit(commit) for commit in sorted(given - (kept.tips if kept else set()))]
        return [commit.commit for commit in known if commit is not None and not given.issuperset(commit.parents)]

    async def knows_any(self, commits: Collection[str]) -> bool:
        """Whether the files of one of them are known here."""
        return bool(commits) and not frozenset(commits).isdisjoint(await self._endpoint.commits.listed(self.repo))

    async def names_any(self, wanted: Wanted) -> bool:
        """Whether something that is wanted is what a ref names."""
        return not (await self._tips()).isdisjoint(wanted.wants)

    # What is sent

    async def base(self, wanted: Wanted) -> KeptPack | None:
        """A kept pack that has something of what is wanted, and all that goes with it."""
        found = await self._kept(wanted.wants, wanted.filter)
        return found or (await self._kept(wanted.wants, None) if wanted.filter else None)

    async def main(self, wanted: Wanted) -> str | None:
        """The commit that HEAD names, if it is wanted; else the only one that is."""
        with suppress(HfpeerError):
            refs = _refs((await self._endpoint.all_refs(self._caller, self.repo)).document)
            head = refs.get(f"refs/heads/{DEFAULT_BRANCH}", "")
            return head if head in wanted.wants else wanted.wants[0] if len(wanted.wants) == 1 else None
        return None

    async def plan(self, wanted: Wanted, base: KeptPack | None = None, *, asks: bool) -> Plan | None:
        """How to answer from here, after all that is in `base`; None if that cannot be done. Commits that are not
        known yet are asked of peers and hubs only if `asks`."""
        taken = Filter.parse(wanted.filter)
        if taken is None or not wanted.wants:
            return None
        tips = base.tips if base else frozenset()
        commits = await self._commits(wanted, tips, asks=asks)
        singles = [want for want in wanted.wants if want not in commits and want not in tips]
        found = await self._find_singles(singles, taken, commits, asks=asks) if singles else []
        if found is None:
            return None
        had = await self._had(wanted, commits.values())
        given = wanted.haves.union(commits, tips)
        cut = {id for id, commit in commits.items() if not given.issuperset(commit.parents)}
        begins = cut if wanted.depth is None else {*commits, *tips.intersection(wanted.wants)}
        objects = await asyncio.to_thread(_gather, list(commits.values()), found, taken, list(had.values()))
        if base is not None and objects:
            # No object may come twice in a pack.
            packed = await asyncio.to_thread(self._endpoint.packs.ids, base)
            if packed is None:
                return await self.plan(wanted, asks=asks)
            objects = [object for object in objects if object.id not in packed]
        objects, missing = await self._missing_first(objects)
        return Plan(
            objects=objects,
            shallow=tuple(sorted(begins - wanted.shallow)),
            common=_common(wanted, had, commits.values()),
            is_all=not wanted.deepens and (not cut or wanted.depth == 1),
            seen=dict(self._seen),
            base=base,
            is_costly=missing > MANY_FILES and not self._endpoint.commits.is_any_at_peers(self.repo, commits),
        )

    async def _commits(self, wanted: Wanted, packed: Collection[str], *, asks: bool) -> dict[str, CommitObjects]:
        """Those wants that are commits, as far as they are known and not `packed` already."""
        likely = set(map(str, await self._endpoint.commits.listed(self.repo)))
        if asks:
            likely |= set(wanted.wants) if wanted.depth is not None else await self._tips()
        commits = {}
        for want in [want for want in wanted.wants if want in likely and want not in packed][:MAX_COMMITS]:
            found = await self._commit(want)
            if found is not None:
                commits[want] = found
        return commits

    async def _tips(self) -> set[str]:
        with suppress(HfpeerError):
            return set(_refs((await self._endpoint.all_refs(self._caller, self.repo)).document).values())
        return set()

    async def _commit(self, commit: str) -> CommitObjects | None:
        """A commit with all that is in it; None if it is not known, not proved, or has what hfpeer cannot have."""
        try:
            seen = await self._endpoint.look(self._caller, self.repo, Revision(commit), wants_files=True)
        except (NotFound, Unreachable):
            return None
        if seen.manifest.is_attested:
            return None
        self._seen[commit] = seen
        objects = CommitObjects(seen.manifest)
        return objects if objects.has_all_blobs else None

    async def _find_singles(
        self, ids: Sequence[str], taken: Filter, commits: dict[str, CommitObjects], *, asks: bool
    ) -> list[GitObject] | None:
        """Trees and blobs that are wanted by their own ids; None if one is nowhere."""
        wanted, found = dict.fromkeys(ids), []
        async for commit in self._searched(commits, asks=asks):
            objects, unknown = await asyncio.to_thread(_singles, commit, list(wanted), taken)
            found += objects
            wanted = dict.fromkeys(unknown)
            if not wanted:
                return found
        return None

    async def _searched(self, commits: dict[str, CommitObjects], *, asks: bool) -> AsyncIterator[CommitObjects]:
        for commit in commits.values():
            yield commit
        listed = await self._endpoint.commits.listed(self.repo)
        for id in listed[:MAX_SEARCHED]:
            known = await self._commit(id) if id not in commits else None
            if known is not None:
                yield known
        if asks:
            with suppress(NotFound, Unreachable):
                head = await self._endpoint.look(self._caller, self.repo, Revision(DEFAULT_BRANCH), wants_files=True)
                known = await self._commit(head.commit) if head.commit not in listed else None
                if known is not None:
                    yield known

    async def _had(self, wanted: Wanted, commits: Iterable[CommitObjects]) -> dict[str, CommitObjects]:
        """Commits that the client has and that are known here: their objects need not be sent. Parents first."""
        if not wanted.haves:
            return {}
        parents = dict.fromkeys(parent for commit in commits for parent in commit.parents)
        listed = [*parents, *(await self._endpoint.commits.listed(self.repo))]
        known = set(map(str, await self._endpoint.commits.listed(self.repo)))
        had: dict[str, CommitObjects] = {}
        for id in dict.fromkeys(listed):
            found = await self._commit(id) if id in wanted.haves and id in known and len(had) < MAX_SEARCHED else None
            if found is not None:
                had[str(id)] = found
        return had

    async def _missing_first(self, objects: list[GitObject]) -> tuple[list[GitObject], int]:
        """What may fail comes first, when another answer can still be given; how many files those are."""
        files = {object.file.digest: object.file for object in objects if object.file is not None}
        missing = {file.digest for file in await self._endpoint.commits.missing(files.values())}
        ordered = sorted(objects, key=lambda object: object.file is None or object.file.digest not in missing)
        return ordered, len(missing)

    # The pack

    async def pack(self, plan: Plan) -> AsyncGenerator[bytes, None]:
        """The pack, piece by piece. Raises in the middle what keeps a blob from coming."""
        writer = PackWriter()
        yield writer.start(len(plan.objects) + (plan.base.count if plan.base else 0))
        if plan.base is not None:
            async for piece in _pieces(plan.base):
                yield await asyncio.to_thread(writer.packed, piece)
        reading: deque[asyncio.Task[Reading | bytes]] = deque()
        waiting = iter(object for object in plan.objects if object.body is None)
        try:
            for object in plan.objects:
                while len(reading) < READ_AHEAD and (ahead := next(waiting, None)) is not None:
                    reading.append(asyncio.create_task(self._read(plan, ahead)))
                body = object.body if object.body is not None else await reading.popleft()
                if isinstance(body, bytes):
                    yield await asyncio.to_thread(writer.whole, object.kind, body)
                    continue
                async for piece in _stream(writer, object, body):
                    yield piece
        finally:
            await _close(reading)
        yield writer.finish()

    async def _read(self, plan: Plan, object: GitObject) -> Reading | bytes:
        assert object.file is not None
        return await self._endpoint.read(plan.seen[object.commit], object.file)


def _refs(document: dict[str, object]) -> dict[str, str]:
    """Ref -> commit of a listing of the Hub; what is malformed is left out."""
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


def _gather(
    commits: Sequence[CommitObjects], singles: Iterable[GitObject], taken: Filter, had: Iterable[CommitObjects]
) -> list[GitObject]:
    known = {id for commit in had for id in (commit.commit, *commit.trees, *commit.blobs)}
    wholes = [object for commit in commits for object in commit.whole(taken)]
    return each_once([*(object for object in wholes if object.id not in known), *singles])


def _common(wanted: Wanted, had: Collection[str], commits: Iterable[CommitObjects]) -> tuple[str, ...]:
    """What the client has of what is known here, be it only by name."""
    parents = {parent for commit in commits for parent in commit.parents}
    return tuple(sorted(wanted.haves & parents.union(had)))


async def _pieces(kept: KeptPack) -> AsyncIterator[bytes]:
    """The objects of a kept pack, as they lie there."""
    file = await asyncio.to_thread(kept.path.open, "rb")
    try:
        for start in range(kept.body.start, kept.body.stop, PIECE_BYTES):
            yield await asyncio.to_thread(os.pread, file.fileno(), min(PIECE_BYTES, kept.body.stop - start), start)
    finally:
        file.close()


def _singles(commit: CommitObjects, ids: Collection[str], taken: Filter) -> tuple[list[GitObject], list[str]]:
    """The objects of this commit that are wanted by their ids, with what is below them, and the ids it lacks."""
    known = [id for id in ids if id in commit.trees or id in commit.blobs]
    return [object for id in known for object in commit.single(id, taken)], [id for id in ids if id not in known]


async def _stream(writer: PackWriter, object: GitObject, reading: Reading) -> AsyncIterator[bytes]:
    """One large blob, as it comes."""
    try:
        yield writer.begin(object.kind, reading.size_bytes)
        position = 0
        while position < reading.size_bytes:
            stop = min(await reading.readable(position, reading.size_bytes), position + PIECE_BYTES)
            chunk = await asyncio.to_thread(os.pread, reading.fd, stop - position, position)
            if not chunk:
                raise Unreachable("A file that was being sent ended early.", hint="Ask again.")
            position += len(chunk)
            yield await asyncio.to_thread(writer.more, chunk)
        yield writer.end()
    finally:
        await reading.close()


async def _close(reading: Iterable[asyncio.Task[Reading | bytes]]) -> None:
    """Ends what was begun and is not wanted any more."""
    tasks = list(reading)
    for task in tasks:
        task.cancel()
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, Reading):
            await done.close()


def _nothing_here(repo: RepoId) -> HubUnreachable:
    return HubUnreachable(
        f"No hub can be reached, and no commit of {repo} is here or at a peer.",
        hint="Try again when a hub can be reached.",
    )
