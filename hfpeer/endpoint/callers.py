"""Who asks at the endpoint, and what they may have.

What is public is everybody's, unless its owner withholds it from other machines. Gated and private files go only to a
caller whose own token the hub accepts for that repo; its verdict is remembered by the token's hash, for minutes, and
for days while no hub can be reached. A token is shown to the hub alone, and the node's own is never lent. Callers on
other machines are nobody: their tokens would cross the LAN in the clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.snapshots import write_file
from hfpeer.cache.store import Store
from hfpeer.endpoint.once import Once, Recent
from hfpeer.errors import AccessDenied, GatedRepo, HfpeerError, NotFound, RepoNotFound, StorageError, Unreachable
from hfpeer.names import RepoId, Visibility
from hfpeer.upstream.hubs import Hubs

VERDICT_SECONDS = 300.0
"""How long a hub's verdict on a token, or on who may see a repo that is not public, holds."""
OPEN_SECONDS = 5.0
"""How long a repo that is everybody's on this machine is so without another look."""
MAX_VERDICTS = 10_000
SharedByPeers = Callable[[RepoId], Awaitable[bool]]


@dataclass(frozen=True)
class Caller:
    """Whoever asks. `token` is the caller's own, None for nobody's; only local ones may bring one."""

    token: str | None = None
    is_local: bool = True

    @property
    def fingerprint(self) -> str:
        """The hash by which the token is remembered; empty without one."""
        return hashlib.sha256(self.token.encode()).hexdigest() if self.token else ""


class Verdicts:
    """When a hub last accepted which token for which repo, in one file that its owner alone can read. Thread-safe."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted_at: dict[str, float] | None = None

    def accepted(self, fingerprint: str, repo: RepoId) -> None:
        with self._lock:
            known = self._load()
            known[_key(fingerprint, repo)] = self._clock()
            self._save(known)

    def refused(self, fingerprint: str, repo: RepoId) -> None:
        with self._lock:
            known = self._load()
            if known.pop(_key(fingerprint, repo), None) is not None:
                self._save(known)

    def age_seconds(self, fingerprint: str, repo: RepoId) -> float | None:
        """How long ago it was accepted; None if it never was."""
        with self._lock:
            accepted_at = self._load().get(_key(fingerprint, repo))
        return None if accepted_at is None else max(0.0, self._clock() - accepted_at)

    def _load(self) -> dict[str, float]:
        if self._accepted_at is None:
            self._accepted_at = {}
            with contextlib.suppress(OSError, ValueError, AttributeError):
                document = json.loads(self._path.read_bytes())
                self._accepted_at = {str(key): float(at) for key, at in document.items()}
        return self._accepted_at

    def _save(self, known: dict[str, float]) -> None:
        for key in sorted(known, key=lambda key: known[key])[:-MAX_VERDICTS]:
            del known[key]
        with contextlib.suppress(StorageError):
            write_file(self._path, json.dumps(known, indent=1), 0o600)


class Admission:
    """Decides for each request. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        verdicts: Verdicts,
        once: Once,
        shared_by_peers: SharedByPeers,
        *,
        offline_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._verdicts = verdicts
        self._once = once
        self._shared_by_peers = shared_by_peers
        self._offline_seconds = offline_seconds
        self._clock = clock
        self._open_until: Recent[RepoId, float] = Recent(MAX_VERDICTS)
        self._asked_at: Recent[RepoId, float] = Recent(MAX_VERDICTS)
        self._decided: Recent[tuple[str, RepoId], tuple[float, HfpeerError | None]] = Recent(MAX_VERDICTS)

    async def admit(self, caller: Caller, repo: RepoId, hubs: Hubs, *, wants_files: bool) -> None:
        """Returns if the caller may have what it asks for: files, or only what is said about them.

        `hubs` act for the caller. Raises RepoNotFound, GatedRepo, AccessDenied as a hub would, HubUnreachable when
        nobody who knows can be asked.
        """
        open_until = self._open_until.get(repo) if caller.is_local else None
        if open_until is not None and self._clock() < open_until:
            return
        if not caller.is_local and await asyncio.to_thread(self._store.is_withheld, repo):
            raise _unseen(repo)
        visibility = await asyncio.to_thread(self._store.visibility, repo)
        if visibility is Visibility.PUBLIC or await self._is_of_this_lan(caller, repo):
            self._open_until.put(repo, self._clock() + OPEN_SECONDS)
            return
        visibility = await self._ask_visibility(visibility, caller, repo, hubs)
        if visibility is Visibility.PUBLIC or (visibility is Visibility.GATED and not wants_files):
            return
        if caller.token is None:
            raise _gated(repo) if visibility is Visibility.GATED else _unseen(repo)
        await self._judge(caller, repo, hubs)

    async def _is_of_this_lan(self, caller: Caller, repo: RepoId) -> bool:
        """Whether its owner shares it with everybody; for local callers also whether it was published here, or came
        from a peer that shares it."""
        if await asyncio.to_thread(self._store.is_shared, repo):
            return True
        if not caller.is_local:
            return False
        if await asyncio.to_thread(self._store.is_published, repo):
            return True
        return await self._is_known_to_come_from_peers(repo)

    async def _ask_visibility(self, known: Visibility, caller: Caller, repo: RepoId, hubs: Hubs) -> Visibility:
        """What an upstream says anonymously, asked at most every few minutes.

        What peers share counts as public where no hub says otherwise, for local callers also where it does: else a
        false peer could open to the LAN what comes here later, with a token.
        """
        asked_at = self._asked_at.get(repo)
        if known is not Visibility.UNKNOWN and asked_at is not None and self._clock() - asked_at < VERDICT_SECONDS:
            return known
        try:
            visibility, _ = await self._once.ask(("visibility", repo), lambda: hubs.visibility(repo))
        except Unreachable:
            if known is not Visibility.UNKNOWN:
                return known
            if await self._came_from_peers(repo):
                return Visibility.PUBLIC
            raise
        self._asked_at.put(repo, self._clock())
        if visibility is Visibility.PRIVATE and caller.is_local and await self._came_from_peers(repo):
            return Visibility.PUBLIC
        if visibility is not known:
            await asyncio.to_thread(self._store.set_visibility, repo, visibility)
        return visibility

    async def _came_from_peers(self, repo: RepoId) -> bool:
        """Whether peers share a repo of which nothing lay here: what comes of it is theirs, and no secret of ours. A
        peer's word must never open what was here before."""
        is_known = await self._is_known_to_come_from_peers(repo)
        held = [] if is_known else await asyncio.to_thread(self._store.revisions, repo)
        if held or not await self._shared_by_peers(repo):
            return False
        await asyncio.to_thread(self._verdicts.accepted, "", repo)
        return True

    async def _is_known_to_come_from_peers(self, repo: RepoId) -> bool:
        return await asyncio.to_thread(self._verdicts.age_seconds, "", repo) is not None

    async def _judge(self, caller: Caller, repo: RepoId, hubs: Hubs) -> None:
        key = (caller.fingerprint, repo)
        decided = self._decided.get(key)
        if decided is None or self._clock() - decided[0] >= VERDICT_SECONDS:
            refusal = await self._once.ask(("verdict", *key), lambda: self._ask_verdict(caller, repo, hubs))
            decided = (self._clock(), refusal)
            self._decided.put(key, decided)
        refusal = decided[1]
        if refusal is not None:
            # A fresh one: the same object raised again and again would carry a growing traceback.
            raise type(refusal)(refusal.message, hint=refusal.hint, **refusal.facts)

    async def _ask_verdict(self, caller: Caller, repo: RepoId, hubs: Hubs) -> HfpeerError | None:
        try:
            await hubs.check_access(repo)
        except (NotFound, AccessDenied) as error:
            await asyncio.to_thread(self._verdicts.refused, caller.fingerprint, repo)
            return error
        except Unreachable:
            age_seconds = await asyncio.to_thread(self._verdicts.age_seconds, caller.fingerprint, repo)
            if age_seconds is None or age_seconds > self._offline_seconds:
                raise
            return None
        await asyncio.to_thread(self._verdicts.accepted, caller.fingerprint, repo)
        return None


def _key(fingerprint: str, repo: RepoId) -> str:
    return f"{fingerprint or 'lan'} {repo.api_path}"


def _unseen(repo: RepoId) -> RepoNotFound:
    return RepoNotFound(
        f"There is no {repo.type.value} {repo.full_name} that you can see.",
        hint="Check the name; if it is private, send a token that may see it.",
        repo=repo.api_path,
    )


def _gated(repo: RepoId) -> GatedRepo:
    return GatedRepo(
        f"Access to {repo.type.value} {repo.full_name} is restricted. You must have access to it and be authenticated "
        "to access it. Please log in.",
        repo=repo.api_path,
    )
