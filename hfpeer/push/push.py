"""One push: asks the far end what it is, chooses a way, and tells what was brought."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from hfpeer.errors import CorruptData, SshFailed
from hfpeer.push.job import Job, Outcome
from hfpeer.push.probe import Host, probe
from hfpeer.push.results import PushReport
from hfpeer.push.ssh import Ssh
from hfpeer.push.through_hfpeer import ThroughHfpeer
from hfpeer.push.through_python import ThroughPython
from hfpeer.push.through_tar import ThroughTar


class Way(str, Enum):
    """The program at the far end that takes the revisions into the cache there."""

    HFPEER = "hfpeer"
    PYTHON = "python"
    TAR = "tar"


def push(
    host: str, cache: str, ssh_command: str, way: Way | None, make_job: Callable[[], Job], *, is_dry_run: bool
) -> PushReport:
    """Brings the revisions of a job to `host`. `cache` is the folder that the user named, else empty; `way` is the
    user's choice. Blocking.

    Raises SshFailed, InvalidName, NoSpace, BrokenCache, CorruptData, NotFound.
    """
    began = time.monotonic()
    job = make_job()
    with Ssh(host, ssh_command) as ssh:
        found = probe(ssh, cache, job.wanted())
        chosen = way or _best_way(found)
        try:
            outcome = _bring(ssh, found, job, chosen, is_dry_run=is_dry_run)
        except CorruptData:
            job.check_here()
            raise
    total_bytes = sum(job.wanted().values())
    return PushReport(
        host,
        found.cache,
        chosen.value,
        outcome.revisions,
        outcome.sent_blobs,
        outcome.sent_bytes,
        total_bytes - outcome.sent_bytes,
        outcome.is_verified,
        outcome.is_present_verified,
        is_dry_run,
        time.monotonic() - began,
        (*found.notes, *outcome.notes),
    )


def _best_way(host: Host) -> Way:
    if host.hfpeer:
        return Way.HFPEER
    if host.python:
        return Way.PYTHON
    if host.tar:
        return Way.TAR
    raise SshFailed(
        f"{host.name} has neither Python 3.8 nor tar, and no hfpeer.",
        hint="Install one of them there, or carry an archive: `hfpeer export`.",
        host=host.name,
    )


def _bring(ssh: Ssh, host: Host, job: Job, way: Way, *, is_dry_run: bool) -> Outcome:
    needed = {Way.HFPEER: host.hfpeer, Way.PYTHON: host.python, Way.TAR: host.tar}[way]
    if not needed:
        raise SshFailed(
            f"{host.name} has no {way.value} that can take part.",
            hint="Leave out `--way`: hfpeer finds a way.",
            host=host.name,
        )
    if way is Way.HFPEER:
        return ThroughHfpeer(ssh, host, job).bring(is_dry_run=is_dry_run)
    if way is Way.PYTHON:
        return ThroughPython(ssh, host, job).bring(is_dry_run=is_dry_run)
    return ThroughTar(ssh, host, job).bring(is_dry_run=is_dry_run)
