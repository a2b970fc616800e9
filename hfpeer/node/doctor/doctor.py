"""Runs all checks, those that wait side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from hfpeer.config.settings import Settings
from hfpeer.control.environment import Difference
from hfpeer.control.results import NodeStatus
from hfpeer.node.doctor.findings import Finding
from hfpeer.node.doctor.hubs import look_at_hubs
from hfpeer.node.doctor.lan import look_at_lan
from hfpeer.node.doctor.machine import look_at_daemon, look_at_disk, look_at_home, look_at_limits


async def examine(
    settings: Settings,
    environ: Mapping[str, str],
    status: NodeStatus | None,
    differences: Sequence[Difference] = (),
) -> tuple[Finding, ...]:
    """The findings on this machine and its LAN. `environ` is the environment of the command, `status` that of the node
    as the daemon tells it, None if it could not be had, `differences` those of the daemon's environment."""

    async def within_a_thread(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
        return await asyncio.to_thread(lambda: list(check()))

    groups = await asyncio.gather(
        within_a_thread(lambda: look_at_daemon(settings, status, differences)),
        within_a_thread(lambda: look_at_lan(settings, status)),
        look_at_hubs(settings, environ),
        within_a_thread(lambda: look_at_disk(settings)),
        within_a_thread(lambda: look_at_home(settings)),
        within_a_thread(look_at_limits),
    )
    return tuple(finding for group in groups for finding in group)
