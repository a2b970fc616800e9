"""One push: compare, ask what the site has, fetch what is wanted, send it, commit, compare again.

It keeps no state of its own. What was sent is found at the site, so that the same command goes on after any end. One
push works on a target at a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hfpeer.control.operations import AddRequest, Operations
from hfpeer.errors import PushRefused, RepoNotFound, RevisionNotFound
from hfpeer.language.amounts import counted
from hfpeer.modelscope.api import SiteApi
from hfpeer.modelscope.commits import Committer
from hfpeer.modelscope.files import SourceFile
from hfpeer.modelscope.listing import list_files
from hfpeer.modelscope.names import DEFAULT_BRANCH, SiteVisibility
from hfpeer.modelscope.plan import Change, Comparison, compare
from hfpeer.modelscope.repos import OTHER_LICENSE, create_repo, find_visibility
from hfpeer.modelscope.uploads import SiteBlob, Upload, Uploader, ask_wanted
from hfpeer.net.limiter import Limiter
from hfpeer.node.operations.modelscope.progress import PushProgress
from hfpeer.node.operations.modelscope.requests import PushRequest, check_target, is_private_there
from hfpeer.node.operations.modelscope.results import CopyReport, PushReport
from hfpeer.node.operations.modelscope.sources import CommitSource, listed_paths
from hfpeer.transfer.events import OnEvent

MAX_CARD_BYTES = 64 * 1024
"""Bytes of README.md in which its licence is looked for."""
_LICENSE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z0-9_.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class PushParts:
    """A node, a site, and the limit of what may be sent."""

    node: Operations
    api: SiteApi
    limiter: Limiter | None = None


def add_request(request: PushRequest) -> AddRequest:
    """The add that lists and brings the files of a push."""
    return AddRequest(
        request.repo, request.revision, request.files, request.include, request.exclude, token=request.token
    )


async def push(
    parts: PushParts, request: PushRequest, on_event: OnEvent, source: CommitSource | None = None
) -> PushReport:
    """Makes the target have the files of the request. `source` is the listed commit, if it was listed before.

    Raises AccessDenied, RepoNotFound, NameTaken, PushRefused, HubUnreachable and the errors of an add. Whatever was
    sent stays there, and the same call goes on.
    """
    began_at = time.monotonic()
    source = source or await CommitSource.open(parts.node, add_request(request), on_event)
    report = await _Push(parts, request, source, on_event).run()
    return replace(report, seconds=time.monotonic() - began_at)


async def compare_copy(parts: PushParts, request: PushRequest, on_event: OnEvent) -> CopyReport:
    """Compares a repo of the Hub with one at ModelScope, both ways, by size and sha256. Changes nothing there.

    Raises RepoNotFound, AccessDenied, HubUnreachable and the errors of an add.
    """
    began_at = time.monotonic()
    source = await CommitSource.open(parts.node, add_request(request), on_event)
    there = await list_files(parts.api, request.target, request.branch)
    files = await source.files()
    comparison = compare(files, there, [*listed_paths(source.listed)])
    return CopyReport(
        repo=source.listed.repo,
        type=source.listed.type,
        commit=source.listed.commit,
        target=request.target.full_name,
        site=parts.api.site,
        branch=request.branch,
        files=len(files),
        size_bytes=source.size_bytes,
        same_files=len(comparison.same),
        different=_paths(comparison.different),
        absent=(*_paths(comparison.absent), *source.listed.unusable),
        extra=comparison.extra,
        untold=tuple(file.path for file in comparison.different if there[file.path].sha256 is None),
        seconds=time.monotonic() - began_at,
    )


class _Push:
    """One push of a listed commit."""

    def __init__(self, parts: PushParts, request: PushRequest, source: CommitSource, on_event: OnEvent) -> None:
        self._parts = parts
        self._api = parts.api
        self._request = request
        self._target = request.target
        self._source = source
        self._on_event = on_event
        self._is_created = False

    async def run(self) -> PushReport:
        listed = self._source.listed
        is_private = is_private_there(self._request, listed.visibility)
        there = await self._find_target(is_private=is_private)
        if there is None and not self._request.creates:
            raise RepoNotFound(
                f"{self._api.site} has no repo {self._target} that this token may see, and --no-create was said.",
                hint="Leave out --no-create, or check the name.",
                repo=str(self._target),
            )
        is_absent, is_dry_run = there is None, self._request.is_dry_run
        if is_absent and self._request.branch != DEFAULT_BRANCH:
            raise RevisionNotFound(
                f"{self._target} is not at {self._api.site} yet, and a new repo has the branch master only.",
                hint="Leave out --branch.",
                repo=str(self._target),
            )
        files = await self._source.files()
        if is_absent and not is_dry_run:
            license = await self._license(files)
            self._is_created = await create_repo(self._api, self._target, is_private=is_private, license=license)
            if not self._is_created:
                there = await self._find_target(is_private=is_private)
        has_listing = not (is_absent and is_dry_run)
        files_there = await list_files(self._api, self._target, self._request.branch) if has_listing else {}
        comparison = compare(files, files_there, [*listed_paths(listed)])
        report = self._begun(files, comparison)
        shown = ("private" if is_private else "public") if there is None else there
        report = replace(report, visibility=shown, notes=self._notes(shown))
        wanted = await self._ask_wanted(comparison, is_absent=is_absent)
        report = _with_blobs(report, comparison, wanted)
        report = replace(report, is_stored_known=has_listing)
        pruned = comparison.prunable if self._request.prunes else ()
        report = replace(report, pruned=pruned, extra=tuple(path for path in report.extra if path not in pruned))
        if is_dry_run:
            return replace(report, is_dry_run=True, fetched_bytes=self._source.fetched_bytes)
        return await self._send(report, files, comparison, wanted)

    async def _find_target(self, *, is_private: bool) -> SiteVisibility | None:
        """Who may see the target; None if it does not exist. Raises AccessDenied if it would show too much."""
        there = await find_visibility(self._api, self._target)
        visibility = self._source.listed.visibility
        error = check_target(self._request, self._api.site, there, visibility, is_private=is_private)
        if error is not None:
            raise error
        return there

    async def _ask_wanted(self, comparison: Comparison, *, is_absent: bool) -> dict[SiteBlob, SourceFile]:
        """The blobs that the site has not stored, each with one of its files."""
        blobs = dict[SiteBlob, SourceFile]()
        for file in comparison.changed:
            if not file.is_plain_there:
                blobs.setdefault(_blob(file), file)
        if not blobs or (is_absent and self._request.is_dry_run):
            return blobs
        return {blob: blobs[blob] for blob in await ask_wanted(self._api, self._target, blobs)}

    async def _send(
        self,
        report: PushReport,
        files: Sequence[SourceFile],
        comparison: Comparison,
        wanted: dict[SiteBlob, SourceFile],
    ) -> PushReport:
        await self._source.bring(
            [file.path for file in comparison.changed if _blob(file) in wanted or (file.is_plain_there and file.is_lfs)]
        )
        progress = PushProgress(
            self._on_event, {blob.sha256: (file.path, blob.size_bytes) for blob, file in wanted.items()}
        )
        verified = await self._source.verified() if wanted else {}
        uploads = [
            Upload(blob, self._source.path(file.path), file.path, verified.get(f"sha256:{blob.sha256}"))
            for blob, file in wanted.items()
        ]
        uploader = Uploader(self._api, self._target, self._parts.limiter, progress.sent, self._request.uploads)
        sent = await uploader.send(uploads)
        changes = [*(Change(file.path, file) for file in comparison.changed), *map(Change, report.pruned)]
        commits: list[str] = []
        if changes:
            committer = Committer(self._api, self._target, self._request.branch, self._source.path)
            commits = await committer.commit(changes, self._message())
            report = replace(report, notes=(*report.notes, *await self._check(files)))
        stored = {upload.blob for upload in sent}
        return replace(
            report,
            sent_blobs=len(stored),
            sent_bytes=sum(blob.size_bytes for blob in stored),
            stored_blobs=report.stored_blobs + len(wanted) - len(stored),
            stored_bytes=report.stored_bytes + sum(blob.size_bytes for blob in wanted if blob not in stored),
            wire_bytes=uploader.sent_bytes,
            fetched_bytes=self._source.fetched_bytes,
            commits=tuple(commits),
        )

    async def _check(self, files: Sequence[SourceFile]) -> tuple[str, ...]:
        """Compares again. Returns a note on files whose sha256 the site does not tell.

        Raises PushRefused if it lists other files than those that were committed.
        """
        there = await list_files(self._api, self._target, self._request.branch)
        comparison = compare(files, there, [*listed_paths(self._source.listed)])
        untold = {
            file.path
            for file in comparison.different
            if (there[file.path].sha256, there[file.path].size_bytes) == (None, file.size_bytes)
        }
        wrong = [path for path in _paths(comparison.changed) if path not in untold]
        if wrong:
            raise PushRefused(
                f"After the commit {self._api.site} still lists other bytes of {counted(len(wrong), 'file')} of "
                f"{self._target}: {', '.join(wrong[:3])}.",
                hint="Another program may have committed meanwhile. Run the same command again.",
                repo=str(self._target),
            )
        if not untold:
            return ()
        names = ", ".join(sorted(untold)[:3])
        of = counted(len(untold), "file")
        return (f"{self._api.site} tells no sha256 of {of}, so only sizes were compared: {names}.",)

    def _begun(self, files: Sequence[SourceFile], comparison: Comparison) -> PushReport:
        listed = self._source.listed
        plain = [file for file in comparison.changed if file.is_plain_there]
        return PushReport(
            repo=listed.repo,
            type=listed.type,
            commit=listed.commit,
            target=self._target.full_name,
            site=self._api.site,
            branch=self._request.branch,
            visibility="",
            files=len(files),
            size_bytes=self._source.size_bytes,
            same_files=len(comparison.same),
            same_bytes=sum(file.size_bytes for file in comparison.same),
            plain_files=len(plain),
            plain_bytes=sum(file.size_bytes for file in plain),
            replaced=_paths(comparison.different),
            extra=comparison.extra,
            skipped=(
                *((path, "its name cannot be stored here") for path in listed.unusable),
                *((path, "a submodule has no bytes of its own") for path in listed.submodules),
            ),
            is_created=self._is_created,
        )

    def _notes(self, shown: str) -> tuple[str, ...]:
        if self._request.wish == "public" and shown in ("private", "internal"):
            return (f"{self._target} stays {shown}: only the page of the repo at {self._api.site} changes that.",)
        return ()

    def _message(self) -> str:
        listed = self._source.listed
        return self._request.message or f"Push {self._source.repo} at {listed.commit[:12]} from Hugging Face"

    async def _license(self, files: Sequence[SourceFile]) -> str:
        """The licence in the card of the repo."""
        card = next((file for file in files if file.path == "README.md" and not file.is_lfs), None)
        if card is None:
            return OTHER_LICENSE
        try:
            with self._source.path(card.path).open("rb") as opened:
                text = opened.read(MAX_CARD_BYTES).decode("utf-8", "replace")
        except OSError:
            return OTHER_LICENSE
        head = text.split("\n---", 1)[0] if text.startswith("---") else ""
        found = _LICENSE.search(head)
        return found.group(1) if found else OTHER_LICENSE


def _blob(file: SourceFile) -> SiteBlob:
    return SiteBlob(file.sha256, file.size_bytes)


def _with_blobs(report: PushReport, comparison: Comparison, wanted: Mapping[SiteBlob, SourceFile]) -> PushReport:
    """The report with the counts of blobs before any is sent: those that the site has, and those that it wants."""
    stored = {_blob(file) for file in comparison.changed if not file.is_plain_there} - wanted.keys()
    return replace(
        report,
        stored_blobs=len(stored),
        stored_bytes=sum(blob.size_bytes for blob in stored),
        sent_blobs=len(wanted),
        sent_bytes=sum(blob.size_bytes for blob in wanted),
    )


def _paths(files: Sequence[SourceFile]) -> tuple[str, ...]:
    return tuple(file.path for file in files)
