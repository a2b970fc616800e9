"""The hubs: whether they answer, how soon, through which proxy, and whether the clock agrees with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from hfpeer.config.settings import Settings
from hfpeer.net.proxies import UnusableProxy
from hfpeer.node.doctor.findings import Finding, Level, fault, ok, warning
from hfpeer.upstream.connection.clients import CLOCK_HINT, Connections
from hfpeer.upstream.connection.probe import Probe, probe
from hfpeer.upstream.responses.refusals import LATER

SLOW_SECONDS = 2.0
CLOCK_SECONDS = 60.0
"""A clock that differs by more makes certificates and signed URLs fail."""


async def look_at_hubs(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """A finding for each hub and each proxy, and one on the clock if a hub told the time."""
    if settings.is_offline or not settings.upstreams:
        return [ok("hubs", "None is asked: this node is set to work from peers alone.")]
    connections = Connections(environ, proxy=settings.proxy, ca=settings.ca)
    probes = await asyncio.gather(*(probe(upstream.url, connections) for upstream in settings.upstreams))
    found = [_hub(upstream.name, answer) for upstream, answer in zip(settings.upstreams, probes, strict=True)]
    if all(finding.level is not Level.OK for finding in found):
        found.append(
            fault(
                "hubs",
                "No hub answers: only what is here or at a peer can be had.",
                "On a machine without Internet, `hfpeer conf set offline true` saves the wait.",
            )
        )
    return [*found, *_proxies(settings, connections), *_clock(probes)]


def _hub(name: str, answer: Probe) -> Finding:
    if answer.reason and answer.hint != LATER:
        return fault(f"hub {name}", f"It {answer.reason}.", answer.hint)
    if answer.reason:
        return warning(f"hub {name}", f"It {answer.reason}.")
    if answer.status >= 500:
        return warning(f"hub {name}", f"It answers with status {answer.status}.")
    make = warning if answer.seconds > SLOW_SECONDS else ok
    return make(f"hub {name}", f"It answers in {answer.seconds * 1000:,.0f} ms.")


def _proxies(settings: Settings, connections: Connections) -> Iterator[Finding]:
    for note in connections.proxies.notes:
        yield warning("proxy", note)
    for upstream in settings.upstreams:
        url = urlsplit(upstream.url)
        try:
            proxy = connections.proxies.proxy_for(url.scheme, url.hostname or "", url.port)
        except UnusableProxy as error:
            yield fault("proxy", f"{upstream.name} {error}.")
            continue
        if proxy is not None:
            yield ok("proxy", f"{upstream.name} is asked through {proxy.address} ({proxy.named_by}).")


def _clock(probes: Iterable[Probe]) -> Iterator[Finding]:
    ahead_seconds = [one.ahead_seconds for one in probes if one.ahead_seconds is not None]
    if not ahead_seconds:
        return
    least = min(ahead_seconds, key=abs)
    if abs(least) > CLOCK_SECONDS:
        side = "behind" if least > 0 else "ahead of"
        yield fault("clock", f"The clock of this machine is {abs(least):,.0f} s {side} that of the hubs.", CLOCK_HINT)
    else:
        yield ok("clock", "It agrees with the hubs.")
