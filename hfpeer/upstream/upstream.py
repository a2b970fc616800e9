"""One HTTP hub: resolves revisions, lists and proves commits, tells who may see a repo, opens ranges.

The only module that attaches tokens (through `access`), and with `auth` the only one that imports huggingface_hub.
Checks all that can be checked: a manifest with a proof is proved before it is returned.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from hfpeer.budgets import MAX_ODD_POINTERS
from hfpeer.errors import (
    AccessDenied,
    GatedRepo,
    InvalidName,
    NotFound,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.git import lfs
from hfpeer.git import proof as gitproof
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId, Revision, Visibility
from hfpeer.net.body import Body
from hfpeer.net.limiter import Limiter, limited
from hfpeer.net.tasks import end_tasks
from hfpeer.system.cancellation import in_thread
from hfpeer.trust.visibility import WHOLE_REPO
from hfpeer.upstream.access import Access, Token, readable_endpoint
from hfpeer.upstream.api import Api, ApiRequest, Timeouts
from hfpeer.upstream.connection.clients import Connections
from hfpeer.upstream.listing import git, listing
from hfpeer.upstream.listing.file_lists import MAX_CONCURRENT_REQUESTS, FileLister
from hfpeer.upstream.range_client import RangeClient, RedirectCache, WantedRange, file_url
from hfpeer.upstream.reach import Reach
from hfpeer.upstream.responses.rate_limit import RateLimit, Rest, Rests
from hfpeer.upstream.responses.refusals import not_a_hub, outage

log = logging.getLogger(__name__)

UpstreamKind: TypeAlias = Literal["mirror", "origin"]


def stored_token() -> str | None:
    """The token that huggingface_hub finds for this user, by its own rules. May block, and may refresh the token."""
    with readable_endpoint():
        from huggingface_hub import constants, errors, get_token

    # Its errors and those of its HTTP library, which differs between versions.
    named = [getattr(errors, name, OSError) for name in ("HfHubHTTPError", "OIDCError")]
    failures: tuple[type[Exception], ...] = (*errors.HfHubHTTPError.__bases__, *named, ValueError, RuntimeError)
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    try:
        return get_token()
    except failures as error:
        log.warning("huggingface_hub gives no token: %s", type(error).__name__)
        return None


@dataclass(frozen=True)
class HubId:
    """The hub that gave a response: its name, its kind and its URL."""

    name: str
    kind: UpstreamKind
    url: str


@dataclass(frozen=True)
class ApiResponse:
    """A document of a hub's API, the headers of the response (names in lower case), and the hub that sent it."""

    document: Any
    headers: Mapping[str, str]
    said_by: HubId


class Upstream:
    """One hub. `name` is shown to people, `endpoint` is its URL without a trailing slash.

    `token` is called for every request. Its token is sent only if `sends_token`, and only to the endpoint's own scheme,
    host and port. Give mirrors `sends_token=False` unless their user has opted in. The coroutines belong to one event
    loop; `open_range` is for threads, and `limiter` bounds it.
    """

    def __init__(
        self,
        name: str,
        kind: UpstreamKind,
        endpoint: str,
        *,
        token: Token | None = None,
        sends_token: bool = False,
        timeouts: Timeouts | None = None,
        limiter: Limiter | None = None,
        connections: Connections | None = None,
    ) -> None:
        timeouts, connections = timeouts or Timeouts(), connections or Connections()
        self._limiter = limiter
        self.connections = connections
        self.reach = Reach()
        self.rate_limit = RateLimit(name)
        self.name = name
        self.kind: UpstreamKind = kind
        self.endpoint = endpoint.rstrip("/")
        self._access = Access(self.endpoint, token, sends_token)
        self._timeouts = timeouts
        self.may_send_token = sends_token and token is not None
        """Whether a request to it can carry a token."""
        self._api = Api(name, timeouts, self.endpoint, connections, self.reach, self.rate_limit)
        self._range_client = RangeClient(name, timeouts, self.endpoint, connections, self.rate_limit)
        self._redirects = RedirectCache()

    def with_token(self, token: str | None) -> Upstream:
        """The same hub with another user's token (None: anonymous), over the same connections.

        Closing it closes the original. Cached redirects of one user are not used for the other.
        """
        other = copy.copy(self)
        other._access = replace(self._access, token=lambda: token)
        other.may_send_token = self._access.sends_token and bool(token)
        other._redirects = RedirectCache()
        return other

    def resting(self, seconds: float) -> Upstream:
        """The same hub for requests that wait, each for up to `seconds`, while it limits requests."""
        other = copy.copy(self)
        other._access = replace(self._access, rest_seconds=seconds)
        return other

    async def resolve(self, repo: RepoId, revision: Revision) -> Commit:
        """The commit of a revision now. A full commit id needs no request.

        Raises RepoNotFound, RevisionNotFound, GatedRepo, AccessDenied, HubUnreachable.
        """
        if revision.is_commit:
            return Commit(revision)
        info = await self._repo_info(repo, f"/revision/{quote(revision, safe='')}", revision, self._access)
        try:
            return Commit.parse(str(info.get("sha")))
        except InvalidName as error:
            not_a_hub(self.name, f"it resolves {revision} to no commit", error)

    async def manifest(self, repo: RepoId, commit: Commit) -> Manifest:
        """Every file of a commit: proved over git if the hub has it, else attested.

        Raises ForgedManifest if its listing contradicts its git, and the errors of `resolve`.
        """
        lister = FileLister(self.name, self._api, self._access, repo, commit)
        proving = asyncio.ensure_future(self._git_snapshot(repo, commit))
        try:
            listed = await lister.list_files()
            snapshot = await proving
        finally:
            await end_tasks([proving])
        if snapshot is None:
            named = await lister.list_names()
            listed = await lister.completed(listed, named)
            if not listed.keys() >= set(named):
                not_a_hub(self.name, f"its lists of the files of {repo} at {commit.short} differ")
            return listing.attested_manifest(repo, commit, listed)
        listed = await lister.completed(listed, listing.missing_from(listed, snapshot))
        pointers = await self._raw_pointers(repo, commit, listing.odd_pointers(listed, snapshot))
        return await in_thread(_prove, repo, commit, listed, snapshot, pointers)

    def rest_of_proofs(self, repo: RepoId) -> Rest | None:
        """The rest that keeps the hub from proving a commit of the repo now; None if there is none."""
        return self.rate_limit.rest(git.advertisement_url(self._access.url(f"/{repo.url_path}.git")))

    async def visibility(self, repo: RepoId, commit: Commit | None = None) -> tuple[Visibility, str]:
        """Who may see a commit (without one: the head of the main branch), as the hub answers an anonymous request; and
        the commit to which that applies, WHOLE_REPO for all of them. Raises HubUnreachable.

        PUBLIC only if the hub says so of this very commit. A mirror without such a repo or commit raises
        HubUnreachable: that proves nothing.
        """
        subpath = "" if commit is None else f"/revision/{commit}"
        try:
            info = await self._repo_info(repo, subpath, commit, self._access.anonymous())
        except GatedRepo:
            return Visibility.GATED, WHOLE_REPO
        except (RevisionNotFound, RepoNotFound, AccessDenied) as error:
            if self.kind == "mirror":
                raise outage(self.name, f"does not show {repo}") from error
            is_of_commit = commit is not None and isinstance(error, RevisionNotFound)
            return Visibility.PRIVATE, commit if commit is not None and is_of_commit else WHOLE_REPO
        except NotFound as error:
            not_a_hub(self.name, f"it reports a missing file for {repo}", error)
        if not isinstance(info.get("private"), bool):
            not_a_hub(self.name, f"it does not tell whether {repo} is private")
        # A hub without such a field leaves it out. Any value but false counts as true.
        if info["private"] or not _is_no(info.get("disabled")):
            return Visibility.PRIVATE, WHOLE_REPO
        if not _is_no(info.get("gated")):
            return Visibility.GATED, WHOLE_REPO
        sha = str(info.get("sha"))
        if commit is not None and sha != commit:
            not_a_hub(self.name, f"it shows {sha[:40]!r} instead of {commit}")
        try:
            return Visibility.PUBLIC, Commit.parse(sha)
        except InvalidName as error:
            not_a_hub(self.name, f"it does not name the commit of {repo} that it shows", error)

    async def auth_check(self, repo: RepoId, commit: Commit | None = None) -> None:
        """Checks that the token may read a repo's files, and with `commit` that this hub has that commit: the listings
        of gated repos are open to all, their files are not.

        Raises GatedRepo, AccessDenied, RepoNotFound, RevisionNotFound, HubUnreachable.
        """
        if commit is not None:
            info = await self._repo_info(repo, f"/revision/{commit}", commit, self._access)
            if info.get("sha") != commit:
                not_a_hub(self.name, f"it shows another commit instead of {commit}")
        url = self._access.url(f"/api/{repo.api_path}/auth-check")
        await self._api.get(ApiRequest(url, repo), self._access)

    async def get_api(self, repo: RepoId, subpath: str, revision: str | None = None) -> ApiResponse:
        """The response to GET `/api/{type}s/{id}{subpath}`; `subpath` is quoted and may have a query.

        Raises RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo, AccessDenied, HubUnreachable.
        """
        url = self._access.url(f"/api/{repo.api_path}{subpath}")
        document, response = await self._api.get_document(ApiRequest(url, repo, revision), self._access)
        return ApiResponse(document, dict(response.headers), self.id)

    @property
    def id(self) -> HubId:
        return HubId(self.name, self.kind, self.endpoint)

    @property
    def sends_token(self) -> bool:
        """Whether this hub may see tokens."""
        return self._access.sends_token

    def open_range(
        self, repo: RepoId, commit: Commit, path: FilePath, start: int, stop: int, *, size_bytes: int
    ) -> Body:
        """The bytes `[start, stop)` of a file of `size_bytes`. Blocking: for a worker thread.

        Raises SourceFault; if the hub refuses, its `__cause__` is the HfpeerError to show to people.
        """
        url = file_url(self._access, repo, commit, path)
        wanted = WantedRange(repo, commit, url, start, stop, size_bytes)
        return limited(self._range_client.open(self._access, self._redirects, wanted), self._limiter)

    @property
    def takes_ranges(self) -> bool:
        """Whether the hub gives parts of files, as far as it was asked for any."""
        return self._range_client.takes_ranges

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._api.aclose()
        await asyncio.to_thread(self._range_client.close)

    def close(self) -> None:
        """Closes the connections of `open_range`, when the event loop is gone."""
        self._range_client.close()

    async def _repo_info(self, repo: RepoId, subpath: str, revision: str | None, access: Access) -> Mapping[str, Any]:
        url = access.url(f"/api/{repo.api_path}{subpath}")
        info = await self._api.get_json(ApiRequest(url, repo, revision), access)
        if not isinstance(info, dict):
            not_a_hub(self.name, "its info about a repo is no JSON object")
        return info

    async def _git_snapshot(self, repo: RepoId, commit: Commit) -> git.GitSnapshot | None:
        rests, access = Rests(self._access.rest_seconds), replace(self._access, rest_seconds=0.0)
        while True:
            try:
                return await git.fetch_snapshot(self._api, access, repo, commit, self._timeouts.git_seconds)
            except RateLimited as limit:
                try:
                    await rests.after(limit)
                except RateLimited:
                    return None
            except git.NoGit as error:
                log.info("%s gives no proof of %s at %s: %s", self.name, repo, commit.short, error)
                return None

    async def _raw_pointers(self, repo: RepoId, commit: Commit, files: list[listing.TreeEntry]) -> dict[str, bytes]:
        """Path -> text of each pointer that cannot be rebuilt."""
        if len(files) > MAX_ODD_POINTERS:
            not_a_hub(self.name, f"{len(files)} LFS pointers are not canonical")
        at_once = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

        async def read(file: listing.TreeEntry) -> bytes:
            url = self._access.url(f"/{repo.url_path}/raw/{commit}/{quote(file.path, safe='/')}")
            request = ApiRequest(url, repo, commit, max_bytes=lfs.MAX_POINTER_BYTES)
            async with at_once:
                return (await self._api.get(request, self._access)).content

        texts = await asyncio.gather(*map(read, files))
        return {file.path: text for file, text in zip(files, texts, strict=True)}


def _is_no(word: Any) -> bool:
    """Whether a field is false or missing."""
    return word is None or word is False


def _prove(
    repo: RepoId,
    commit: Commit,
    listed: Mapping[str, listing.TreeEntry],
    snapshot: git.GitSnapshot,
    pointers: Mapping[str, bytes],
) -> Manifest:
    manifest = listing.proved_manifest(repo, commit, listed, snapshot, pointers)
    gitproof.prove(manifest)
    return manifest
