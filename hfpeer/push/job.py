"""What one push has to bring, and what the far end has of it. The same for all ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hfpeer.archive.contents import packed
from hfpeer.archive.export import Plan, Select, plan_export
from hfpeer.archive.have import Have
from hfpeer.cache.store import Store
from hfpeer.errors import CorruptData, Locked, NoSpace
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.push.probe import Host
from hfpeer.push.results import PushedRevision
from hfpeer.system.cancellation import check_stop
from hfpeer.transfer.events import OnEvent

if TYPE_CHECKING:
    from hfpeer.prepared.arrow.packing import PackedSet

LOCKED_SECONDS = 20.0
"""Seconds that a part of an interrupted push gets to end at the far end."""
RETRY_SECONDS = 0.5
Result = TypeVar("Result")
OpenDoor = Callable[[], AbstractContextManager[Path]]
"""Opens the private door of a push; gives the path of its socket."""


@dataclass(frozen=True)
class Outcome:
    """What a way has brought. `sent_bytes` are those of blobs."""

    revisions: tuple[PushedRevision, ...]
    sent_blobs: int
    sent_bytes: int
    is_verified: bool
    is_present_verified: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The revisions to bring, with the files that `select` gives. `include` and `exclude` say the same for another
    hfpeer. `checks_present` hashes also what is there already. `sets` are prepared sets that go along."""

    store: Store
    revisions: tuple[tuple[RepoId, Commit], ...]
    select: Select
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    open_door: OpenDoor
    on_event: OnEvent
    checks_present: bool = False
    sets: tuple[PackedSet, ...] = ()

    def plan(self, have: Have, revisions: Sequence[tuple[RepoId, Commit]] | None = None) -> Plan:
        """What is left to send. Raises NotFound, CorruptData."""
        chosen, sets = (self.revisions, self.sets) if revisions is None else (revisions, ())
        return plan_export(self.store, chosen, have, self.select, sets)

    def have_all(self) -> Have:
        """What a target has that has all of the revisions, but no prepared set."""
        return Have(frozenset(self.wanted_of_revisions()))

    def files_of(self, manifest: Manifest) -> Iterable[ManifestFile]:
        """The files to bring of a revision or of a prepared set. Of a set that is all: `select` is about revisions."""
        return manifest.files if manifest.repo.is_of_sets else self.select(manifest)

    def folders(self) -> list[str]:
        """The folders of the cache that the blobs go to, in order."""
        return sorted({repo.folder for repo, _ in self.revisions} | {one.commit.repo.folder for one in self.sets})

    def wanted(self) -> dict[Digest, int]:
        """By digest: the sizes of the blobs to bring, those that are here."""
        sizes = self.wanted_of_revisions()
        for one in self.sets:
            sizes |= one.commit.sizes
        return sizes

    def wanted_of_revisions(self) -> dict[Digest, int]:
        """The same without prepared sets."""
        manifests = [self.store.manifests.load(repo, commit) for repo, commit in self.revisions]
        files = [file for manifest in manifests if manifest for file in self.select(manifest)]
        absent = {file.digest for file in self.store.inventory.missing(files)}
        return {file.digest: file.size_bytes for file in files if file.digest not in absent}

    def check_here(self) -> None:
        """Hashes the blobs of this push again, after the far end has refused some. Raises CorruptData if they are wrong
        here: a disk can change bytes without a trace in the times of the file."""
        inventory = self.store.inventory
        blobs = filter(None, map(inventory.best, inventory.places(self.wanted_of_revisions()).values()))
        wrong = inventory.verify_all(blobs)
        if wrong:
            more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            raise CorruptData(
                f"Blobs of this machine have wrong bytes, and the far end refused them: {wrong[0].path}{more}.",
                hint="`hfpeer verify --repair` gets the right ones. Then push again: it goes on.",
                digests=[str(blob.digest) for blob in wrong],
            )


def when_unlocked(work: Callable[[], Result]) -> Result:
    """Does `work`. A part of an interrupted push may still run at the far end: waits until that has ended."""
    deadline = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return work()
        except Locked:
            if time.monotonic() > deadline:
                raise
            check_stop()
            time.sleep(RETRY_SECONDS)


def missing_bytes(plan: Plan) -> int:
    """The bytes of blobs that are left to send."""
    return sum(blob.packed_bytes for blob in plan.index.blobs)


def check_space(host: Host, needed_bytes: int) -> None:
    """Raises NoSpace before the first byte is sent."""
    if host.free_bytes is not None and needed_bytes > host.free_bytes:
        raise NoSpace(
            f"The push needs {needed_bytes:,} bytes, and {host.free_bytes:,} are free on the volume of {host.cache} of "
            f"{host.name}.",
            hint=f"Make room there, or name a folder on another volume: `{host.name}:FOLDER`.",
            host=host.name,
            needed_bytes=needed_bytes,
            free_bytes=host.free_bytes,
        )


def of_import(report: Mapping[str, Any]) -> tuple[PushedRevision, ...]:
    """The revisions of an import at the far end, from its JSON."""
    return tuple(
        PushedRevision(
            one["repo"],
            one["commit"],
            one["files"],
            one["listed_files"],
            one["size_bytes"],
            one["is_proved"],
            tuple(one["refs"]),
            tuple(one["kept_refs"]),
            one["visibility"],
        )
        for one in report["revisions"]
    )


def planned(plan: Plan) -> tuple[PushedRevision, ...]:
    """The revisions of a plan as they will be at the far end."""
    found = []
    for manifest, revision in zip(plan.manifests, plan.index.revisions, strict=True):
        if revision.repo.is_of_sets:
            continue
        files = packed(plan.index, manifest)
        found.append(
            PushedRevision(
                str(revision.repo),
                str(revision.commit),
                len(files),
                len(manifest.files),
                sum({file.digest: file.size_bytes for file in files}.values()),
                revision.is_proved,
                tuple(str(ref.name) for ref in revision.refs),
                (),
                revision.visibility.value,
            )
        )
    return tuple(found)
