"""ModelScope as one more source of the same bytes: the files of a repo there, by sha256, and ranges of them.

A repo there is a copy only as far as its listing has the sha256 and the size of a file of the Hub; the path does not
matter. The bytes count only by their digest, like those of every source. No token of the Hub comes here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

import httpx

from hfpeer.errors import HfpeerError, RepoNotFound
from hfpeer.modelscope.access import SiteAccess
from hfpeer.modelscope.api import SiteApi, SiteTimeouts
from hfpeer.modelscope.listing import head_commit, list_files
from hfpeer.modelscope.names import DEFAULT_BRANCH, SiteRepo
from hfpeer.names import Commit, Digest, RepoId, RepoType
from hfpeer.net.body import Body, SourceFault
from hfpeer.net.limiter import Limiter, limited
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.connection.clients import Connections
from hfpeer.upstream.range_client import RangeClient, RedirectCache, WantedRange

LISTING_SECONDS = 600.0
"""Seconds for which a listing counts, and the absence of a repo."""
MAX_FILES_KEPT = 200_000
"""Files in all listings that are kept, the last ones used."""
_NO_COMMIT = Commit("0" * 40)


@dataclass(frozen=True)
class SiteCopy:
    """The files of one repo at ModelScope at one of its commits, and the way to their ranges. Thread-safe."""

    site: str
    url: str
    repo: SiteRepo
    revision: str
    files: Mapping[tuple[str, int], str]
    """A path of each blob, by its sha256 and size."""
    _open: Callable[[SiteCopy, str, int, int, int], Body]

    def has(self, digest: Digest, size_bytes: int) -> bool:
        """Whether a file there has this blob. Never for a plain file of the Hub, whose sha256 no listing tells."""
        return digest.algorithm == "sha256" and (digest.hex, size_bytes) in self.files

    def open_range(self, digest: Digest, size_bytes: int, start: int, stop: int) -> Body:
        """The bytes `[start, stop)` of a blob. Blocking. Raises SourceFault."""
        path = self.files.get((digest.hex, size_bytes))
        if path is None:
            raise SourceFault("has no file with this sha256", is_permanent=True)
        return self._open(self, path, start, stop, size_bytes)


class SiteCopies:
    """The repos at one ModelScope that may have the files of repos of the Hub. Belongs to the node's event loop.

    `token` is asked for at each listing. `names` are the owner's pairs of repos. A repo without a pair has its own name
    there: no other owner is guessed.
    """

    def __init__(
        self,
        endpoint: str,
        token: Callable[[], str | None],
        names: Mapping[RepoId, str],
        limiter: Limiter | None,
        connections: Connections,
        timeouts: SiteTimeouts | None = None,
    ) -> None:
        self._token = token
        self._names = names
        self._limiter = limiter
        self._connections = connections
        self._timeouts = timeouts
        self._anonymous = SiteAccess(endpoint)
        self._ranges = RangeClient(self._anonymous.site, Timeouts(), endpoint, connections)
        self._known: LruCache[SiteRepo, tuple[float, SiteCopy | None]] = LruCache(MAX_FILES_KEPT, _weight)
        self._listing: SingleFlight[SiteRepo, SiteCopy | None] = SingleFlight()

    @property
    def site(self) -> str:
        """The name of the site for people."""
        return self._anonymous.site

    def is_paired(self, repo: RepoId) -> bool:
        """Whether the owner has said which repo there has the files of `repo`."""
        return repo in self._names

    def repo_for(self, repo: RepoId) -> SiteRepo | None:
        """The repo there that may have the files of `repo`; None for one that cannot be there."""
        if repo.type is RepoType.SPACE or (repo.namespace is None and repo not in self._names):
            return None
        try:
            return SiteRepo.parse(self._names.get(repo, repo.full_name), repo.type)
        except HfpeerError:
            return None

    async def find(self, repo: SiteRepo) -> SiteCopy | None:
        """The files of a repo there; None if there is no such repo that the token may see. A listing is kept for a
        while. Raises AccessDenied, PushRefused and HubUnreachable."""
        known = self._known.get(repo)
        if known is not None and time.monotonic() - known[0] < LISTING_SECONDS:
            return known[1]
        return await self._listing.run(repo, lambda: self._list(repo))

    async def stop(self) -> None:
        """Ends listings under way and closes the connections."""
        await self._listing.stop()
        await asyncio.to_thread(self._ranges.close)

    async def _list(self, repo: SiteRepo) -> SiteCopy | None:
        access = SiteAccess(self._anonymous.endpoint, await asyncio.to_thread(self._token))
        api = SiteApi(access, self._timeouts, connections=self._connections)
        try:
            revision = await _head(api, repo)
            listed = await list_files(api, repo, revision)
        except RepoNotFound:
            self._known.put(repo, (time.monotonic(), None))
            return None
        finally:
            await api.aclose()
        files = {(file.sha256, file.size_bytes): file.path for file in listed.values() if file.sha256 is not None}
        url = f"{access.endpoint}/{repo.api_path}"
        copy = SiteCopy(self.site, url, repo, revision, files, self._opener(access))
        self._known.put(repo, (time.monotonic(), copy))
        return copy

    def _opener(self, access: SiteAccess) -> Callable[[SiteCopy, str, int, int, int], Body]:
        """Opens ranges with one identity, whose redirects no other identity uses."""
        redirects = RedirectCache()

        def open_range(copy: SiteCopy, path: str, start: int, stop: int, size_bytes: int) -> Body:
            query = f"Revision={quote_plus(copy.revision)}&FilePath={quote_plus(path)}"
            url = httpx.URL(f"{access.endpoint}/api/v1/{copy.repo.api_path}/repo?{query}")
            repo = RepoId(copy.repo.type, copy.repo.owner, copy.repo.name)
            wanted = WantedRange(repo, _NO_COMMIT, url, start, stop, size_bytes)
            try:
                body = self._ranges.open(access, redirects, wanted)
            except SourceFault as fault:
                # Its cause speaks of the Hub and its tokens.
                raise SourceFault(
                    fault.reason,
                    retry_after_seconds=fault.retry_after_seconds,
                    is_permanent=fault.is_permanent,
                    is_unreachable=fault.is_unreachable,
                ) from None
            return limited(body, self._limiter)

        return open_range


async def _head(api: SiteApi, repo: SiteRepo) -> str:
    """The commit to list and read; the branch where the site does not tell the commit of such a repo."""
    try:
        return await head_commit(api, repo) or DEFAULT_BRANCH
    except RepoNotFound:
        return DEFAULT_BRANCH


def _weight(known: tuple[float, SiteCopy | None]) -> int:
    return 100 + (0 if known[1] is None else len(known[1].files))
