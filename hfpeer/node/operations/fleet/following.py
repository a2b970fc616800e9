"""Follows repos: looks now and then what a revision means, and begins the add of a new commit.

One question to the hubs a look, at a time that is moved a little by dice. What is followed is kept in `followed.jsonl`
in the home, with the time of the next look. An older revision is not removed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.control.asker import Asker
from hfpeer.control.codec import decode, encode
from hfpeer.control.followed import FollowedRepo
from hfpeer.control.operations import AddRequest, ListedCommit, TransferStatus
from hfpeer.errors import HfpeerError, InvalidName, NotFound, StorageError
from hfpeer.names import RepoId, Revision
from hfpeer.net.tasks import end_tasks
from hfpeer.node.operations.fleet import schedule
from hfpeer.node.operations.transfers.json_lines import JsonLines
from hfpeer.transfer.events import Resolved

FILE = "followed.jsonl"
MAX_FOLLOWED = 1000
"""At most this many repos and revisions are followed."""
LOOK_SECONDS = 60.0
"""At most this many seconds between two looks at the schedule: the clock may jump, or the machine have slept."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FollowingParts:
    """Operations of the node. `resolve` asks what a revision means now, `begin` puts an add into the queue, or finds
    one there that is not over."""

    resolve: Callable[[AddRequest], Awaitable[Resolved]]
    list_commit: Callable[[AddRequest], Awaitable[ListedCommit]]
    begin: Callable[[AddRequest], Awaitable[TransferStatus]]


class Following:
    """Belongs to one event loop. Between `start` and `stop` it looks; in a node that is no daemon it only keeps the
    list."""

    def __init__(
        self,
        home: Path,
        parts: FollowingParts,
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._lines = JsonLines(home / FILE)
        self._parts = parts
        self._clock = clock
        self._dice = dice
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = asyncio.create_task(self._keep_looking(), name="followed repos")

    async def stop(self) -> None:
        await end_tasks([] if self._looking is None else [self._looking])

    # For callers

    async def listed(self) -> list[FollowedRepo]:
        """All that are followed, by name. Raises BrokenCache."""
        documents = await asyncio.to_thread(self._lines.read)
        found = []
        for document in documents:
            with suppress(InvalidName):
                found.append(decode(FollowedRepo, document))
        return sorted(found, key=lambda one: (str(one.repo), one.revision))

    async def follow(self, wanted: FollowedRepo) -> FollowedRepo:
        """Follows a revision of a repo from now on, or changes how; it is looked at soon. Raises StorageError."""
        if wanted.revision.is_commit:
            raise InvalidName(
                f"{wanted.revision} is a commit, which never means another.",
                hint="Follow a branch or a tag; `hfpeer add` brings a commit.",
            )
        fresh = replace(wanted, commit="", seen_commit="", checked_at=0.0, next_at=0.0, problem="")
        async with self._turn:
            others = [one for one in await self.listed() if _key(one) != _key(fresh)]
            if len(others) >= MAX_FOLLOWED:
                raise InvalidName(f"{MAX_FOLLOWED:,} repos are followed already.", hint="`unfollow` ends one.")
            await self._write([*others, fresh])
        self._changed.set()
        return fresh

    async def unfollow(self, repo: RepoId, revision: Revision | None) -> list[FollowedRepo]:
        """Ends to follow a repo, at one revision or at all. Returns those that ended. Raises NotFound."""
        async with self._turn:
            known = await self.listed()
            gone = [one for one in known if one.repo == repo and revision in (None, one.revision)]
            if not gone:
                raise NotFound(
                    f"{repo} at {revision} is not followed." if revision else f"{repo} is not followed.",
                    hint=f"`hfpeer {repo.type.value} follow --ls` lists what is.",
                )
            await self._write([one for one in known if one not in gone])
        return gone

    async def _write(self, followed: list[FollowedRepo]) -> None:
        await asyncio.to_thread(self._lines.replace, [encode(one) for one in followed])

    # Looking

    async def _keep_looking(self) -> None:
        while True:
            self._changed.clear()
            seconds = LOOK_SECONDS
            try:
                for one in await self.listed():
                    if schedule.is_due(one, self._clock()):
                        await self._keep(one, await self._look(one))
                seconds = schedule.seconds_to_next(await self.listed(), self._clock(), LOOK_SECONDS)
            except StorageError as error:
                _log.warning("The list of followed repos cannot be used: %s", error.message)
            except Exception:  # noqa: BLE001  a bug in one look must not end all later ones
                _log.exception("A look at the followed repos failed")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    async def _keep(self, before: FollowedRepo, after: FollowedRepo) -> None:
        """Notes what a look has found, unless the user has changed or ended it meanwhile."""
        async with self._turn:
            known = await self.listed()
            if before in known:
                await self._write([after if one == before else one for one in known])

    async def _look(self, one: FollowedRepo) -> FollowedRepo:
        """One look at a followed repo, and what it is after it."""
        now, had_answer = self._clock(), True
        request = AddRequest(one.repo, one.revision, include=one.include, exclude=one.exclude)
        try:
            told = await self._parts.resolve(request)
            found = replace(one, seen_commit=told.commit, problem="")
            if told.commit != one.commit:
                found = await self._fetch(found, request, told)
        except HfpeerError as error:
            _log.info("%s at %s, which is followed: %s", one.repo, one.revision, error.message)
            had_answer, found = False, replace(one, problem=error.message)
        next_at = schedule.next_look_at(one, now, self._dice(), had_answer=had_answer)
        return replace(found, checked_at=now, next_at=next_at)

    async def _fetch(self, one: FollowedRepo, request: AddRequest, told: Resolved) -> FollowedRepo:
        """Begins the add of a new commit, if it is within the limit."""
        place = f"{one.repo} at {one.revision} is now {told.commit[:12]}"
        if one.limit_bytes is not None:
            listed = await self._parts.list_commit(replace(request, revision=Revision(told.commit)))
            sizes = {file.digest: file.size_bytes for file in listed.files if file.is_selected and not file.is_present}
            missing_bytes = sum(sizes.values())
            if missing_bytes > one.limit_bytes:
                _log.info("%s; %s bytes are missing, more than its limit %s", place, missing_bytes, one.limit_bytes)
                return replace(
                    one, problem=f"{missing_bytes:,} bytes of {told.commit[:12]} are missing, more than the limit."
                )
        begun = await self._parts.begin(replace(request, resolved=told, asked_by=Asker("follow")))
        if begun.commit != told.commit:
            return replace(one, problem=f"Transfer {begun.id} of an older commit is {begun.state}.")
        _log.info("%s; transfer %s fetches it", place, begun.id)
        return replace(one, commit=told.commit)


def _key(one: FollowedRepo) -> tuple[RepoId, Revision]:
    return one.repo, one.revision
