"""One HTTP hub, whole: resolves revisions, lists and proves commits, says who may see a repo, opens ranges.

The one place that attaches tokens (through `access`) and one of two that import huggingface_hub. A hub's word is
never taken where it can be checked: a manifest with a proof is proved before it is given on.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from hfpeer import gitproof
from hfpeer.errors import AccessDenied, InvalidName, RepoNotFound
from hfpeer.limits import Limiter, limited
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId, Revision, Visibility
from hfpeer.tasks import end_tasks
from hfpeer.upstream import git, listing
from hfpeer.upstream.access import Access, Token
from hfpeer.upstream.api import Api, Question, Timeouts
from hfpeer.upstream.bodies import Bodies, Places, WantedRange, file_url
from hfpeer.upstream.refusals import no_hub
from hfpeer.wire import Body

log = logging.getLogger(__name__)

UpstreamKind: TypeAlias = Literal["mirror", "origin"]
PATHS_PER_QUESTION = 500
MAX_MISSING_PATHS = 20_000
"""A listing that lacks more files than this is refused rather than completed."""
MAX_ODD_POINTERS = 256
QUESTIONS_AT_ONCE = 8


def stored_token() -> str | None:
    """The token that huggingface_hub finds for this user, by its own rules. May block, and may refresh the token."""
    from huggingface_hub import constants, errors, get_token

    # Its errors, and those of the HTTP library it uses, which differs between its versions.
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
class Told:
    """A document of a hub's API, with the answer's headers (names in lower case)."""

    document: Any
    headers: Mapping[str, str]


class Upstream:
    """One hub. `name` is what people see, `endpoint` its URL without a trailing slash.

    `token` gives the token for it, asked again for every request; it is sent only if `sends_token`, and only to the
    endpoint's own scheme, host and port. Give mirrors `sends_token=False` unless their user has opted in. The async
    methods belong to one event loop; `open_range` is for threads, and `limiter` holds for it.
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
    ) -> None:
        timeouts = timeouts or Timeouts()
        self._limiter = limiter
        self.name = name
        self.kind: UpstreamKind = kind
        self.endpoint = endpoint.rstrip("/")
        self._access = Access(self.endpoint, token, sends_token)
        self._timeouts = timeouts
        self._api = Api(name, timeouts)
        self._bodies = Bodies(name, timeouts)
        self._places = Places()

    def acting_for(self, token: str | None) -> Upstream:
        """The same hub with another user's token (None: nobody's), over the same connections.

        Closing it closes the original. Addresses that one user was given are not shown to the other.
        """
        other = copy.copy(self)
        other._access = Access(self.endpoint, lambda: token, self._access.sends_token)
        other._places = Places()
        return other

    async def resolve(self, repo: RepoId, revision: Revision) -> Commit:
        """The commit a revision is now; a full commit id is one already, and nobody is asked.

        Raises RepoNotFound, RevisionNotFound, GatedRepo, AccessDenied, HubUnreachable.
        """
        if revision.is_commit:
            return Commit(revision)
        info = await self._info(repo, f"/revision/{quote(revision, safe='')}", revision, self._access)
        try:
            return Commit.parse(str(info.get("sha")))
        except InvalidName as error:
            no_hub(self.name, f"it resolves {revision} to no commit", error)

    async def manifest(self, repo: RepoId, commit: Commit) -> Manifest:
        """Every file of a commit: proved over git where the hub has it, else attested.

        Raises ForgedManifest when its listing contradicts its git, and the errors of `resolve`.
        """
        proving = asyncio.ensure_future(self._snapshot(repo, commit))
        try:
            listed = await self._listing(repo, commit)
            snapshot = await proving
        finally:
            await end_tasks([proving])
        if snapshot is None:
            return listing.attested_manifest(repo, commit, listed)
        listed = await self._completed(repo, commit, listed, snapshot)
        pointers = await self._pointers(repo, commit, listing.odd_pointers(listed, snapshot))
        return await asyncio.to_thread(_prove, repo, commit, listed, snapshot, pointers)

    async def visibility(self, repo: RepoId) -> Visibility:
        """Who may see a repo, as it is shown to someone without a token. Raises HubUnreachable.

        PUBLIC is only what the hub says in so many words.
        """
        try:
            info = await self._info(repo, "", None, self._access.anonymous())
        except (RepoNotFound, AccessDenied):
            return Visibility.PRIVATE
        if not isinstance(info.get("private"), bool):
            no_hub(self.name, f"it does not say whether {repo} is private")
        if info["private"] or info.get("disabled"):
            return Visibility.PRIVATE
        return Visibility.GATED if info.get("gated") else Visibility.PUBLIC

    async def check_access(self, repo: RepoId) -> None:
        """Asks whether the token may have a repo's files: listings of gated repos are open to all, files are not.

        Raises GatedRepo, AccessDenied, RepoNotFound, HubUnreachable.
        """
        url = self._access.url(f"/api/{repo.api_path}/auth-check")
        await self._api.read(Question(url, repo), self._access)

    async def answer(self, repo: RepoId, rest: str, revision: str | None = None) -> Told:
        """What `/api/{type}s/{id}{rest}` says; `rest` is quoted and may have a query.

        Raises RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo, AccessDenied, HubUnreachable.
        """
        url = self._access.url(f"/api/{repo.api_path}{rest}")
        document, answer = await self._api.document(Question(url, repo, revision), self._access)
        return Told(document, dict(answer.headers))

    @property
    def sends_token(self) -> bool:
        """Whether this hub may see tokens at all."""
        return self._access.sends_token

    def open_range(
        self, repo: RepoId, commit: Commit, path: FilePath, start: int, stop: int, *, size_bytes: int
    ) -> Body:
        """The bytes `[start, stop)` of a file that has `size_bytes`. Blocks: for a worker thread.

        Raises SourceFault; where the hub refuses, `__cause__` is the HfpeerError that says so to a person.
        """
        url = file_url(self._access, repo, commit, path)
        wanted = WantedRange(repo, commit, url, start, stop, size_bytes)
        return limited(self._bodies.open(self._access, self._places, wanted), self._limiter)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._api.aclose()
        await asyncio.to_thread(self._bodies.close)

    def close(self) -> None:
        """Closes the connections of `open_range`, where the event loop is gone already."""
        self._bodies.close()

    async def _info(self, repo: RepoId, rest: str, revision: str | None, access: Access) -> Mapping[str, Any]:
        url = access.url(f"/api/{repo.api_path}{rest}")
        info = await self._api.json(Question(url, repo, revision), access)
        if not isinstance(info, dict):
            no_hub(self.name, "what it says of a repo is no object")
        return info

    async def _listing(self, repo: RepoId, commit: Commit) -> dict[str, listing.Listed]:
        url = self._access.url(f"/api/{repo.api_path}/tree/{commit}?recursive=true&expand=false")
        return self._read(await self._api.pages(Question(url, repo, commit), self._access))

    def _read(self, entries: list[Any]) -> dict[str, listing.Listed]:
        try:
            return listing.read_listing(entries)
        except ValueError as error:
            no_hub(self.name, str(error), error)

    async def _snapshot(self, repo: RepoId, commit: Commit) -> git.GitSnapshot | None:
        try:
            return await git.fetch_snapshot(self._api, self._access, repo, commit, self._timeouts.git_seconds)
        except git.NoGit as error:
            log.info("%s gives no proof of %s at %s: %s", self.name, repo, commit.short, error)
            return None

    async def _completed(
        self, repo: RepoId, commit: Commit, listed: dict[str, listing.Listed], snapshot: git.GitSnapshot
    ) -> dict[str, listing.Listed]:
        """The listing with what it lacked looked up by path. What is still missing then is refused by the proof."""
        missing = listing.missing_from(listed, snapshot)
        if not missing or len(missing) > MAX_MISSING_PATHS:
            return listed
        url = self._access.url(f"/api/{repo.api_path}/paths-info/{commit}")
        completed = dict(listed)
        for first in range(0, len(missing), PATHS_PER_QUESTION):
            paths = missing[first : first + PATHS_PER_QUESTION]
            form = "&".join([*(f"paths={quote(path, safe='')}" for path in paths), "expand=false"])
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            question = Question(url, repo, commit, headers, body=form.encode())
            entries = await self._api.json(question, self._access)
            completed.update(self._read(entries if isinstance(entries, list) else []))
        return completed

    async def _pointers(self, repo: RepoId, commit: Commit, files: list[listing.Listed]) -> dict[str, bytes]:
        """The texts of pointers that cannot be rebuilt, by path."""
        if len(files) > MAX_ODD_POINTERS:
            no_hub(self.name, f"{len(files)} LFS pointers are not canonical")
        at_once = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def read(file: listing.Listed) -> bytes:
            url = self._access.url(f"/{repo.url_path}/raw/{commit}/{quote(file.path, safe='/')}")
            question = Question(url, repo, commit, max_bytes=gitproof.MAX_POINTER_BYTES)
            async with at_once:
                return (await self._api.read(question, self._access)).content

        texts = await asyncio.gather(*map(read, files))
        return {file.path: text for file, text in zip(files, texts, strict=True)}


def _prove(
    repo: RepoId,
    commit: Commit,
    listed: Mapping[str, listing.Listed],
    snapshot: git.GitSnapshot,
    pointers: Mapping[str, bytes],
) -> Manifest:
    manifest = listing.proved_manifest(repo, commit, listed, snapshot, pointers)
    gitproof.prove(manifest)
    return manifest
