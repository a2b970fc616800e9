"""`hfpeer doctor`: what keeps this node from working, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hfpeer.errors import StorageError
from hfpeer.language.amounts import counted
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation

if TYPE_CHECKING:
    from hfpeer.control.results import NodeStatus
    from hfpeer.node.doctor.findings import Finding

EXIT_FAULT = 1


@click.command("doctor", cls=Verb, examples=["hfpeer doctor", "hfpeer --json doctor"])
@pass_invocation
@click.pass_context
def doctor(ctx: click.Context, invocation: Invocation) -> None:
    """Look for what keeps this node from working, and name the command that mends it.

    Looks at the daemon, addresses and ports, multicast, firewalls and peers; at hubs, proxies, certificates and the
    clock; at the disk of the cache. Changes nothing. Takes some seconds. The exit code is 1 if it finds a fault.
    """
    import asyncio

    from hfpeer.node.doctor.doctor import examine
    from hfpeer.node.doctor.findings import fault
    from hfpeer.node.session import differences

    status: NodeStatus | None = None
    broken: tuple[Finding, ...] = ()
    try:
        status = invocation.run(lambda node: node.status())
    except StorageError as error:
        broken = (fault("home", error.message, error.hint or ""),)
    settings, environ = invocation.settings, invocation.environ
    examined = asyncio.run(examine(settings, environ, status, differences(invocation.daemon, settings, environ)))
    found = broken + examined
    counts = {level: sum(one.level == level for one in found) for level in ("fault", "warning")}
    invocation.output.result(_lines(found), [asdict(one) for one in found])
    invocation.output.note(
        f"{counted(counts['fault'], 'fault')}, {counted(counts['warning'], 'warning')}."
        if any(counts.values())
        else "No fault was found."
    )
    ctx.exit(EXIT_FAULT if counts["fault"] else 0)


def _lines(found: tuple[Finding, ...]) -> list[str]:
    width = max(len(one.check) for one in found)
    lines = []
    for one in found:
        lines.append(f"{one.level.value:<7}  {one.check:<{width}}  {one.sentence}")
        if one.hint:
            lines.append(f"{'':<7}  {'':<{width}}  → {one.hint}")
    return lines
