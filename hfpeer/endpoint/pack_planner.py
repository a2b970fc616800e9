"""Plans what is sent for one fetch, from the commits that the cache, peers and hubs know.

A manifest tells all of a commit except its parents, so the history that can be given begins at that commit, as in a
shallow repo, unless the client or a cached pack has the parents.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import suppress

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.endpoint.fetch_request import FetchRequest, PackPlan
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.endpoint.packs.pack_cache import CachedPack
from hfpeer.errors import NotFound, Unreachable
from hfpeer.git.objects import CommitObjects, Filter, GitObject, each_once
from hfpeer.names import MAIN, Commit, RepoId, Revision
from hfpeer.system.cancellation import in_thread

MAX_COMMITS = 64
"""At most this many commits are sent for one fetch. Fetches of more go to a hub."""
MAX_SEARCHED = 16
"""At most this many commits, the latest known first, are searched for a single object."""
MANY_FILES = 64
"""With more missing plain files than this, and no peer that has the commit, a plan is costly."""


class PackPlanner:
    """Makes the plan for one fetch of an admitted caller.

    `listed` are the commits whose manifests are here, the latest first; `tips` the commits that refs name. Only with
    `asks` are peers and hubs asked for commits that are not here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        caller: Caller,
        repo: RepoId,
        fetch: FetchRequest,
        listed: Sequence[Commit],
        tips: frozenset[str],
        *,
        asks: bool,
    ) -> None:
        self._endpoint = endpoint
        self._caller = caller
        self._repo = repo
        self._fetch = fetch
        self._listed = listed
        self._tips = tips
        self._asks = asks
        self._admitted: dict[str, AdmittedRevision] = {}

    async def plan(self, base: CachedPack | None) -> PackPlan | None:
        """The plan, without what the cached pack `base` has; None if something that is wanted is not found."""
        fetch, filter = self._fetch, Filter.parse(self._fetch.filter)
        if filter is None or not fetch.wants:
            return None
        packed = base.tips if base else frozenset[str]()
        commits = await self._wanted_commits(packed)
        singles = [want for want in fetch.wants if want not in commits and want not in packed]
        found = await self._find_singles(singles, filter, commits) if singles else []
        if found is None:
            return None
        had = await self._client_commits(commits.values())
        objects = await in_thread(_gather, list(commits.values()), found, filter, list(had.values()))
        if base is not None and objects:
            # An object must not be in a pack twice.
            ids = await in_thread(self._endpoint.packs.ids, base)
            if ids is None:
                return await self.plan(None)
            objects = [object for object in objects if object.id not in ids]
        given = fetch.haves.union(commits, packed)
        cut = {id for id, commit in commits.items() if not given.issuperset(commit.parents)}
        begins = cut if fetch.depth is None else {*commits, *packed.intersection(fetch.wants)}
        objects, missing = await self._missing_first(objects)
        return PackPlan(
            objects=objects,
            shallow=tuple(sorted(begins - fetch.shallow)),
            common=_common(fetch, had, commits.values()),
            is_all=not fetch.deepens and (not cut or fetch.depth == 1),
            admitted=self._admitted,
            base=base,
            is_costly=missing > MANY_FILES and not self._endpoint.commits.is_any_at_peers(self._repo, commits),
        )

    async def _commit(self, id: str) -> CommitObjects | None:
        known = await known_commit(self._endpoint, self._caller, self._repo, id)
        if known is None:
            return None
        self._admitted[id], objects = known
        return objects

    async def _wanted_commits(self, packed: Collection[str]) -> dict[str, CommitObjects]:
        """The wants that are commits, as far as they are known and not `packed`."""
        likely = set(map(str, self._listed))
        if self._asks:
            likely |= self._tips if self._fetch.depth is None else set(self._fetch.wants)
        wants = [want for want in self._fetch.wants if want in likely and want not in packed]
        commits = {want: await self._commit(want) for want in wants[:MAX_COMMITS]}
        return {want: commit for want, commit in commits.items() if commit is not None}

    async def _find_singles(
        self, ids: Sequence[str], filter: Filter, commits: dict[str, CommitObjects]
    ) -> list[GitObject] | None:
        """Trees and blobs that are wanted by their own ids; None if one is not found."""
        wanted, found = list(dict.fromkeys(ids)), list[GitObject]()
        async for commit in self._searched(commits):
            objects, wanted = await in_thread(_singles, commit, wanted, filter)
            found += objects
            if not wanted:
                return found
        return None

    async def _searched(self, commits: dict[str, CommitObjects]) -> AsyncIterator[CommitObjects]:
        """The commits in which single objects are searched."""
        for commit in commits.values():
            yield commit
        for id in self._listed[:MAX_SEARCHED]:
            known = await self._commit(id) if id not in commits else None
            if known is not None:
                yield known
        if self._asks:
            with suppress(NotFound, Unreachable):
                head = await self._endpoint.admit_revision(self._caller, self._repo, MAIN, wants_files=True)
                known = await self._commit(head.commit) if head.commit not in self._listed else None
                if known is not None:
                    yield known

    async def _client_commits(self, commits: Iterable[CommitObjects]) -> dict[str, CommitObjects]:
        """Commits that the client has and that are known here, parents first. Their objects need not be sent."""
        parents = [parent for commit in commits for parent in commit.parents if parent in self._listed]
        had: dict[str, CommitObjects] = {}
        for id in dict.fromkeys([*parents, *self._listed]):
            found = await self._commit(id) if id in self._fetch.haves and len(had) < MAX_SEARCHED else None
            if found is not None:
                had[str(id)] = found
        return had

    async def _missing_first(self, objects: list[GitObject]) -> tuple[list[GitObject], int]:
        """The objects whose files are not in the cache come first, because a failure is reported best before the first
        byte is sent; and the number of these files."""
        files = {object.file.digest: object.file for object in objects if object.file is not None}
        missing = {file.digest for file in await self._endpoint.commits.missing(files.values())}
        ordered = sorted(objects, key=lambda object: object.file is None or object.file.digest not in missing)
        return ordered, len(missing)


async def known_commit(
    endpoint: Endpoint, caller: Caller, repo: RepoId, id: str
) -> tuple[AdmittedRevision, CommitObjects] | None:
    """A commit with all its objects; None if it is unknown, unproved, or has files that hfpeer cannot hold."""
    try:
        admitted = await endpoint.admit_revision(caller, repo, Revision(id), wants_files=True)
    except (NotFound, Unreachable):
        return None
    if admitted.manifest.is_attested:
        return None
    objects = CommitObjects(admitted.manifest)
    return (admitted, objects) if objects.has_all_blobs else None


def _gather(
    commits: Sequence[CommitObjects], singles: Iterable[GitObject], filter: Filter, had: Iterable[CommitObjects]
) -> list[GitObject]:
    known = {id for commit in had for id in (commit.commit, *commit.trees, *commit.blobs)}
    wholes = [object for commit in commits for object in commit.whole(filter)]
    return each_once([*(object for object in wholes if object.id not in known), *singles])


def _common(fetch: FetchRequest, had: Collection[str], commits: Iterable[CommitObjects]) -> tuple[str, ...]:
    """The client's commits that are known here, at least by name."""
    parents = {parent for commit in commits for parent in commit.parents}
    return tuple(sorted(fetch.haves & parents.union(had)))


def _singles(commit: CommitObjects, ids: Collection[str], filter: Filter) -> tuple[list[GitObject], list[str]]:
    """The objects of this commit with these ids, each with the objects below it; and the ids that the commit lacks."""
    known = [id for id in ids if id in commit.trees or id in commit.blobs]
    return [object for id in known for object in commit.single(id, filter)], [id for id in ids if id not in known]
