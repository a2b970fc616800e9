"""Repairs a cache: verifies it, mends what needs no bytes, takes the missing bytes from the nearest source, and
verifies again. The cache folders that are only read are verified too, and left as they are.

Files of this machine are asked first, then peers, then upstreams. A step that fails does not stop the others. Whatever
ends a repair, the same command goes on: nothing right is removed, and fetched pieces stay.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hfpeer.cache.disk import layout
from hfpeer.cache.repair import structure
from hfpeer.cache.repair.local_copies import LocalCopies
from hfpeer.cache.repair.planning import FIRST, Knowledge, Step, key_of, make_plan, manifest_of
from hfpeer.cache.repair.results import (
    CANNOT,
    FAILED,
    FETCH,
    KEEP_REF,
    LEAVE,
    LEFT,
    LINK,
    LIST,
    PLANNED,
    REPAIRED,
    TAKE,
    RepairedFinding,
    RepairReport,
)
from hfpeer.cache.repair.steps import carry_out
from hfpeer.cache.verify.findings import NOTED, CheckedFolder, VerifyReport
from hfpeer.cache.verify.verification import Examined
from hfpeer.control.operations import RepairRequest
from hfpeer.errors import NotFound
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.repair.asking import Asker
from hfpeer.node.operations.repair.files import FileMender
from hfpeer.node.operations.repair.parts import Key, Reasons, RepairParts
from hfpeer.node.operations.repair.verifying import telling
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.sources.sources import WantedBlob

MAX_ROUNDS = 8
"""At most this many looks at the cache. Each may show more: an opened folder has files, a list says what is missing."""


async def repair(parts: RepairParts, request: RepairRequest) -> RepairReport:
    """See `Operations.repair`."""
    return await _Repair(parts, request).run()


class _Repair:
    """One repair."""

    def __init__(self, parts: RepairParts, request: RepairRequest) -> None:
        self._parts = parts
        self._store = parts.store
        self._cache = parts.store.cache
        self._request = request
        self._on_check = telling(parts.on_event)
        self._reasons = Reasons()
        self._asker = Asker(parts, self._reasons)
        self._mender = FileMender(parts)
        self._steps: dict[Key, Step] = {}
        """The last step for each finding that is not left alone."""
        self._tried: set[tuple[Key, str]] = set()
        self._held_back_bytes = 0
        self._copies: LocalCopies

    async def run(self) -> RepairReport:
        began = time.monotonic()
        if not self._request.verifies_others:
            return await self._repair(began)
        asked = self._request.repos
        wanted = await in_thread(self._store.not_elsewhere, asked)
        if asked and not wanted:
            after = VerifyReport(str(self._cache), self._request.is_quick, (), ())
            report = RepairReport(str(self._cache), self._request.is_dry_run, (), after)
        else:
            self._request = replace(self._request, repos=tuple(wanted))
            report = await self._repair(began)
        return replace(report, others=await in_thread(self._verify_others, asked))

    async def _repair(self, began: float) -> RepairReport:
        examined = await self._examine(self._request.repos, trusts_verdicts=not self._request.is_again)
        await self._write_told_refs()
        for _ in range(MAX_ROUNDS):
            plan = await self._plan(examined)
            if self._request.is_dry_run:
                return await self._planned(plan, examined, began)
            todo = [step for step in plan if self._is_due(step)]
            if not todo:
                break
            first = [step for step in todo if step.action in FIRST]
            await self._carry_out(first or todo, examined)
            examined = await self._examine(sorted({step.repo for step in todo}))
        return self._report(await self._examine(self._request.repos), began)

    async def _examine(self, repos: Sequence[RepoId], *, trusts_verdicts: bool = True) -> Examined:
        def work() -> Examined:
            for repo in repos:
                if layout.repo_folder(self._cache, repo).is_dir():
                    self._store.scan_repo(repo)
            return self._store.examine(
                repos,
                is_quick=self._request.is_quick,
                trusts_verdicts=trusts_verdicts,
                on_progress=self._on_check,
            )

        return await in_thread(work)

    def _verify_others(self, repos: Sequence[RepoId]) -> tuple[CheckedFolder, ...]:
        """Blocking: the verdicts on the cache folders that are only read."""
        reports = self._store.verify_others(
            repos,
            is_quick=self._request.is_quick,
            trusts_verdicts=not self._request.is_again,
            on_progress=self._on_check,
        )
        return tuple(folder for report in reports for folder in report.folders)

    async def _plan(self, examined: Examined) -> list[Step]:
        self._copies = await in_thread(LocalCopies, self._cache, examined)
        knowledge = Knowledge({ref.name: ref.commit for ref in self._request.refs}, self._asker.without_list)
        plan = await in_thread(make_plan, self._store, examined, self._copies, knowledge)
        for step in plan:
            if step.action == CANNOT:
                self._reasons.note([step], step.why)
                self._steps.setdefault(step.key, step)
            elif step.action != LEAVE:
                self._steps[step.key] = step
        return plan

    def _is_due(self, step: Step) -> bool:
        return step.action not in (LEAVE, CANNOT) and (step.key, step.action) not in self._tried

    async def _write_told_refs(self) -> None:
        """Writes the refs that the user told. Raises NotFound for a commit that is not here."""
        for ref in self._request.refs if not self._request.is_dry_run else ():
            repo = self._request.repos[0]
            if not await asyncio.to_thread(layout.snapshot_path(self._cache, repo, ref.commit).is_dir):
                raise NotFound(
                    f"There is no snapshot of {repo} at {ref.commit} here, so {ref.name} cannot lead to it.",
                    hint=f"`hfpeer {repo.type.value} ls -r {repo.full_name}` lists those that are here.",
                    repo=str(repo),
                    commit=str(ref.commit),
                )
            await in_thread(structure.write_ref, self._cache, repo, ref.name, ref.commit)

    async def _carry_out(self, steps: Sequence[Step], examined: Examined) -> None:
        self._tried |= {(step.key, step.action) for step in steps}
        held = {step.key for step in await self._held_back(steps)}
        of_revisions: dict[tuple[RepoId, Commit], list[Step]] = defaultdict(list)
        of_lists: dict[tuple[RepoId, Commit], list[Step]] = defaultdict(list)
        for step in steps:
            if step.key in held:
                continue
            if step.action in (FETCH, TAKE, LINK):
                of_revisions[step.repo, step.commit].append(step)
            elif step.action == LIST:
                of_lists[step.repo, step.commit].append(step)
            else:
                with self._reasons.of([step]):
                    await (self._asker.keep_ref(step) if step.action == KEEP_REF else self._mend_structure(step))
        for place, some in of_lists.items():
            await self._asker.find_list(*place, some)
        inspections = dict(examined.inspections)
        for (repo, commit), some in of_revisions.items():
            with self._reasons.of(some):
                known = await in_thread(manifest_of, self._store, repo, commit, inspections[repo]) if commit else None
                await self._mender.mend(repo, commit, known, some, self._copies)
            for step in some:
                if step.file is not None and (error := self._mender.failures.get(step.file.digest)) is not None:
                    self._reasons.note_error([step], error)

    async def _mend_structure(self, step: Step) -> None:
        await in_thread(carry_out, self._store, step)

    # The WAN

    async def _held_back(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that would fetch over the WAN, if all of them together need more than the user has agreed to."""
        limit = self._request.max_wan_bytes
        wanted = [step for step in steps if step.action == FETCH and step.fetch_bytes]
        is_much = limit is not None and sum(step.fetch_bytes for step in wanted) > limit
        if limit is None or not is_much or not self._parts.upstreams.upstreams:
            return []
        await self._parts.lan.wait_for_peers(None)
        wanted = [step for step in wanted if not self._peers_with(step)]
        wan_bytes = sum(step.fetch_bytes for step in wanted)
        if wan_bytes <= limit:
            return []
        self._held_back_bytes = wan_bytes
        digests = {step.file.digest for step in wanted if step.file is not None}
        held = [step for step in steps if step.file is not None and step.file.digest in digests]
        self._reasons.note(held, f"It is part of {wan_bytes:,} bytes from the WAN, which `--yes` agrees to.")
        return held

    def _peers_with(self, step: Step) -> list[str]:
        """The names of the peers whose catalogs name the commit of a step."""
        if step.file is None or not self._parts.trust.asks_peers:
            return []
        blob = WantedBlob(step.file.digest, step.file.size_bytes, step.repo, step.commit, step.file.path)
        return [peer.name for peer in self._parts.lan.source_peers(blob) if peer.is_likely]

    # Reports

    async def _planned(self, plan: Sequence[Step], examined: Examined, began: float) -> RepairReport:
        """The report of a dry run."""
        if any(step.action == FETCH for step in plan):
            await self._parts.lan.wait_for_peers(None)
        findings = []
        for step in plan:
            outcome = LEFT if step.action == LEAVE else FAILED if step.action == CANNOT else PLANNED
            detail = self._from_where(step) if step.action == FETCH else step.why
            findings.append(RepairedFinding(step.finding, step.action, outcome, detail, step.fetch_bytes))
        planned = {step.key for step in plan}
        beside = [one for one in examined.report.findings if key_of(one) not in planned]
        findings += [RepairedFinding(one, LEAVE, LEFT) for one in beside]
        return RepairReport(str(self._cache), True, tuple(findings), examined.report, seconds=time.monotonic() - began)

    def _from_where(self, step: Step) -> str:
        if step.file is not None and not step.fetch_bytes:
            return "From files of this machine, or with another file of this plan."
        most = f"At most {step.fetch_bytes:,} bytes"
        if peers := self._peers_with(step):
            return f"{most}, from the peers {', '.join(peers)}."
        if self._parts.upstreams.upstreams:
            return f"{most}, from {', '.join(one.name for one in self._parts.upstreams)}."
        return f"{most}, and no peer is known to have them: without `--no-wan` hubs are asked too."

    def _report(self, examined: Examined, began: float) -> RepairReport:
        after = examined.report
        left = {key_of(finding): finding for finding in after.findings}
        findings = []
        for key, step in self._steps.items():
            if key in left:
                reason = self._reasons.by_key.get(key, step.why)
                is_noted = left[key].severity == NOTED and not reason
                findings.append(RepairedFinding(left[key], step.action, LEFT if is_noted else FAILED, reason))
            else:
                findings.append(RepairedFinding(step.finding, step.action, REPAIRED, step.why, step.fetch_bytes))
        findings += [RepairedFinding(one, LEAVE, LEFT) for key, one in left.items() if key not in self._steps]
        bad = {key for key, finding in left.items() if finding.severity != NOTED}
        totals = self._mender.totals
        return RepairReport(
            str(self._cache),
            False,
            tuple(sorted(findings, key=lambda one: (one.finding.repo, one.finding.commit))),
            after,
            totals.bytes_by_source,
            totals.bytes_by_kind,
            totals.local_bytes,
            self._held_back_bytes,
            is_unreachable=bool(bad) and bad <= self._reasons.unreachable,
            seconds=time.monotonic() - began,
        )
