"""Asks peers and hubs for what a repair has to know: the list of the files of a commit, and the commit of `main`.

A hub that does not answer is asked no other question in the same repair: each would take as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hfpeer.cache.disk import layout
from hfpeer.cache.repair.planning import Step
from hfpeer.errors import HfpeerError, HubUnreachable, Unreachable
from hfpeer.names import MAIN, Commit, RepoId, keeping_ref
from hfpeer.node.operations.repair.parts import Reasons, RepairParts
from hfpeer.system.cancellation import in_thread
from hfpeer.upstream.upstreams import Upstreams


class Asker:
    """The questions of one repair."""

    def __init__(self, parts: RepairParts, reasons: Reasons) -> None:
        self._parts = parts
        self._store = parts.store
        self._reasons = reasons
        self._upstreams = parts.upstreams
        self._asked_for_main: set[RepoId] = set()
        self.without_list: dict[tuple[RepoId, Commit], str] = {}
        """The revisions whose list cannot be had, each with a sentence on why."""

    async def find_list(self, repo: RepoId, commit: Commit, steps: Sequence[Step]) -> None:
        """Finds the list of a commit at peers and upstreams. It is kept."""
        command = f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {commit}`"
        if not self._parts.may_ask:
            why = f"Nothing here lists the files of the commit, and no peer or hub may be asked: {command} asks them."
            self.without_list[repo, commit] = why
            self._reasons.note(steps, why, is_unreachable=True)
            return
        manifests = self._parts.resolver.manifests
        try:
            await self._parts.lan.wait_for_peers(commit)
            await manifests.find(repo, commit, self._upstreams, self._parts.on_event, trust=self._parts.trust)
        except HfpeerError as error:
            self._note_silence(error)
            why = (
                f"Nothing here lists the files of the commit. {error.message} {command} gets the list when a peer or "
                "hub can be asked."
            )
            self.without_list[repo, commit] = why
            self._reasons.note(steps, why, is_unreachable=isinstance(error, Unreachable))
        await in_thread(self._store.scan_repo, repo)

    async def keep_ref(self, step: Step) -> None:
        """Leaves a ref for a revision that has none; `main`, too, if a hub or peers say that it is this revision."""
        if step.repo not in self._asked_for_main:
            self._asked_for_main.add(step.repo)
            await self._write_main(step.repo)
        await in_thread(self._store.refs.show, step.repo, keeping_ref(step.commit), step.commit)

    async def _write_main(self, repo: RepoId) -> None:
        """Asks what `main` is, if there is no such ref, and writes it if its snapshot is here."""
        place = layout.ref_path(self._store.cache, repo, MAIN)
        if await asyncio.to_thread(place.exists) or not self._parts.may_ask:
            return
        try:
            await self._parts.lan.wait_for_peers(None)
            resolution = await self._parts.resolver.commits.resolve(
                repo, MAIN, self._upstreams, trust=self._parts.trust
            )
        except HfpeerError as error:
            self._note_silence(error)
            return
        if resolution.is_of_upstream:
            await in_thread(self._store.refs.show, repo, MAIN, resolution.commit)
        elif resolution.is_of_peers:
            await in_thread(self._store.refs.show_told, repo, MAIN, resolution.commit)

    def _note_silence(self, error: HfpeerError) -> None:
        if isinstance(error, HubUnreachable):
            self._upstreams = Upstreams([])
