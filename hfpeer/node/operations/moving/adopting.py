"""Adopts files of other tools for a node, and forgets them. With a repo it first finds the sizes of its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from hfpeer.adoption.adopting import Adoption, AdoptOptions, WantedPlace
from hfpeer.adoption.results import AdoptReport, Forgotten, WantedRevision
from hfpeer.archive.progress import telling
from hfpeer.cache.adopted import TakeBy
from hfpeer.cache.store import Store
from hfpeer.control.operations import AdoptRequest
from hfpeer.errors import InvalidName
from hfpeer.manifest import Manifest
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent
from hfpeer.upstream.upstreams import Upstreams

REPORT_SECONDS = 0.1
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class AdoptParts:
    """The parts of a node that an adoption uses. `caches` are the cache folders of the node."""

    store: Store
    caches: tuple[Path, ...]
    resolver: Resolver
    upstreams: Upstreams
    hub_urls: tuple[str, ...]
    trusts_attested: bool


async def adopt(parts: AdoptParts, request: AdoptRequest, on_event: OnEvent) -> AdoptReport:
    """See `Operations.adopt`."""
    try:
        way = TakeBy(request.way)
    except ValueError as error:
        raise InvalidName(f"{request.way!r} is no way of taking files.", hint="copy, link or move.") from error
    manifest = await _manifest(parts, request, on_event)
    options = AdoptOptions(
        way,
        request.repo,
        frozenset(manifest.sizes.values()) if manifest is not None else None,
        tuple(host for host in (urlsplit(url).hostname for url in parts.hub_urls) if host),
        request.is_dry_run,
    )
    wanted = [WantedPlace(place.tool, place.path, place.is_named) for place in request.places]

    def work() -> AdoptReport:
        report = Adoption(parts.store, parts.caches, options, telling(on_event)).run(wanted)
        return report if manifest is None else replace(report, wanted=_found_of(parts.store, manifest, report))

    return await in_thread(work)


async def _manifest(parts: AdoptParts, request: AdoptRequest, on_event: OnEvent) -> Manifest | None:
    """The manifest of the repo of a request, from the cache, peers or hubs; None without a repo."""
    if request.repo is None:
        return None
    trust = PeerTrust.of(asks_peers=True, trusts_peers=parts.trusts_attested)
    resolver = parts.resolver
    resolution = await resolver.commits.resolve(request.repo, request.revision, parts.upstreams, trust=trust)
    found = await resolver.manifests.find(request.repo, resolution.commit, parts.upstreams, on_event, trust=trust)
    if not request.is_dry_run:
        await in_thread(parts.store.save_manifest, found.manifest)
    return found.manifest


def _found_of(store: Store, manifest: Manifest, report: AdoptReport) -> WantedRevision:
    """How much of a revision an add would find on this machine. A listing knows sizes only, so it counts those."""
    files = {file.digest: file for file in manifest.files}
    absent = {file.digest for file in store.inventory.missing(files.values())}
    adopted = store.adopted.table.with_digests(absent)
    sizes = {file.size_bytes for file in report.listed}
    found = [
        file
        for digest, file in files.items()
        if digest not in absent or digest in adopted or (report.is_dry_run and file.size_bytes in sizes)
    ]
    return WantedRevision(
        str(manifest.repo),
        str(manifest.commit),
        len(found),
        len(files),
        sum(file.size_bytes for file in found),
        sum(file.size_bytes for file in files.values()),
    )


def forget(store: Store, places: Sequence[str]) -> Forgotten:
    """See `Operations.forget_adopted`. Blocking."""
    if not places:
        return Forgotten(*store.adopted.table.forget())
    counts = [
        store.adopted.table.forget(path) for place in places for path in dict.fromkeys((place, os.path.realpath(place)))
    ]
    return Forgotten(sum(files for files, _ in counts), sum(size_bytes for _, size_bytes in counts))
