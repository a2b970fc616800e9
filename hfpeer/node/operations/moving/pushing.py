"""Pushes revisions of the cache to another machine over ssh.

It works on the cache in this process, also while a daemon runs, as an export does. The private door of the push is a
process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hfpeer.archive.results import ExportedSet
from hfpeer.cache.store import Store
from hfpeer.config.settings import Settings
from hfpeer.errors import CorruptData, DaemonError
from hfpeer.language.amounts import counted
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.node.operations.moving.archiving import exported_set, opened, sets_of
from hfpeer.node.operations.selection import Selection
from hfpeer.push.job import Job
from hfpeer.push.push import Way, push
from hfpeer.push.results import PushReport
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import CheckBegan, OnEvent

END_SECONDS = 5.0
"""Seconds that the private door gets to end."""


@dataclass(frozen=True)
class PushRequest:
    """Push these revisions to `host`. `cache` is the folder of the cache there, or empty for its own; `ssh` is the
    command. `include` and `exclude` are globs as of an add. `checks_present`: hash also what is there already.
    `configs` are those of prepared sets that go along: None for no sets, empty for all."""

    revisions: tuple[tuple[RepoId, Revision], ...]
    host: str
    cache: str = ""
    ssh: str = "ssh"
    way: Way | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    checks_present: bool = False
    is_dry_run: bool = False
    configs: tuple[str, ...] | None = None


async def push_revisions(settings: Settings, request: PushRequest, on_event: OnEvent) -> PushReport:
    """Raises the errors of `push.push`, and NotFound for a revision that is not in this cache."""
    with opened(settings) as store:
        await in_thread(store.scan)
        commits = Resolver(store, None).commits
        chosen = {(repo, (await commits.resolve_cached(repo, name)).commit): None for repo, name in request.revisions}
        selection = Selection(request.include, request.exclude)
        job = Job(
            store,
            tuple(chosen),
            selection.files_of,
            request.include,
            request.exclude,
            lambda: _private_door(settings, tuple(chosen)),
            on_event,
            request.checks_present,
        )

        def work() -> PushReport:
            with sets_of(settings, tuple(chosen), request.configs) as (sets, left_out):
                whole = replace(job, sets=tuple(sets))

                def make_job() -> Job:
                    whole.plan(whole.have_all())  # raises for what is not here, before the far end is asked
                    _verify(store, whole, on_event)
                    return whole

                report = push(
                    request.host, request.cache, request.ssh, request.way, make_job, is_dry_run=request.is_dry_run
                )
            told = tuple(map(exported_set, sets))
            lie = () if report.way == Way.HFPEER.value else tuple(map(_lies_there, told))
            return replace(report, notes=(*left_out, *report.notes, *lie), sets=told)

        return await in_thread(work)


def _lies_there(packed: ExportedSet) -> str:
    """What is left to do at a far end without hfpeer: only that knows where `datasets` looks for a set."""
    target = f'"${{HF_HOME:-$HOME/.cache/huggingface}}/datasets/{packed.folder}"'
    return (
        f"The prepared set {packed.config_id} of {packed.repo} lies in the Hub cache there. This puts it in its place: "
        f"mkdir -p {target} && cp -L {packed.snapshot}/* {target}"
    )


def _verify(store: Store, job: Job, on_event: OnEvent) -> None:
    """Hashes the files of other tools, once. Raises CorruptData for wrong bytes."""
    wanted = job.wanted_of_revisions()
    manifests = [store.manifests.load(repo, commit) for repo, commit in job.revisions]
    files = [file for manifest in manifests if manifest for file in job.select(manifest) if file.digest in wanted]
    unverified = store.inventory.unverified_of(files)
    if not unverified:
        return
    on_event(CheckBegan(len(unverified), sum(blob.size_bytes for blob in unverified)))
    store.inventory.verify_all(unverified)
    wrong = wanted.keys() - job.wanted_of_revisions().keys()
    if wrong:
        raise CorruptData(
            f"This cache has wrong bytes in {counted(len(wrong), 'file')}: {', '.join(sorted(map(str, wrong))[:3])}.",
            hint="`hfpeer verify` names the files and their repair. Then push again.",
            digests=sorted(map(str, wrong)),
        )


@contextmanager
def _private_door(settings: Settings, revisions: tuple[tuple[RepoId, Commit], ...]) -> Iterator[Path]:
    """The door of one push, until the end of the block; gives the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="hfpeer-") as folder:
        place = Path(folder) / "door"
        request = {"socket": str(place), "revisions": [[repo.api_path, commit] for repo, commit in revisions]}
        process = subprocess.Popen(
            [sys.executable, "-m", "hfpeer_daemon.private_door"],
            env={**os.environ, "HFPEER_HOME": str(settings.home), "HFPEER_CACHE": str(settings.cache)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                if process.stdout.readline() != b"ready\n":
                    said = process.stderr.read().decode(errors="replace").strip().splitlines()
                    raise DaemonError(f"The door of the push did not open: {said[-1] if said else 'it ended'}.")
                yield place
            finally:
                process.stdin.close()
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
