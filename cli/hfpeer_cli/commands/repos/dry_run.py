"""`add --dry-run`: the size of an add, its likely sources, and about how long it would take. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from hfpeer.names import Revision
from hfpeer_cli.output import Output, counted, human_size, human_time

if TYPE_CHECKING:
    from hfpeer.control.operations import AddRequest, Holding, ListedCommit, NodeStatus, Operations
    from hfpeer.control.transfers import HistoryEntry

MAIN_SHARE = 0.8
"""A past fetch tells the rate of a kind of source if at least this share of its bytes came from that kind."""
MIN_BYTES = 1_000_000
"""A past fetch of fewer bytes tells no rate."""
MAX_ENTRIES = 20
"""This number of last fetches of a kind counts."""
MAX_SOURCES = 12
"""At most this many sources are printed; JSON has all."""


@dataclass(frozen=True)
class PlannedSource:
    """A source that an add would ask. `kind` is peer, mirror, origin, or hub if it is not known. `has` is all, part or
    unknown."""

    name: str
    kind: str
    address: str
    has: str


@dataclass(frozen=True)
class PlannedAdd:
    """An add that was not done. `missing_bytes` would come over a network. `seconds` is how long it would take at the
    rates of past fetches, None where there were none."""

    repo: str
    type: str
    commit: str
    snapshot: str
    files: int
    size_bytes: int
    missing_files: int
    missing_bytes: int
    free_bytes: int | None
    sources: tuple[PlannedSource, ...]
    seconds: float | None


async def plan_add(node: Operations, request: AddRequest, kinds: Mapping[str, str]) -> PlannedAdd:
    """Resolves and lists a revision, and finds its sources; `kinds` are those of hubs, by their URLs. Raises the errors
    of an add up to the first byte."""
    from pathlib import Path

    from hfpeer.cache.disk.os_errors import free_bytes

    listed = await node.list_commit(request)
    status = await node.status()
    holdings = await node.search(request.repo, Revision(listed.commit)) if request.uses_peers else []
    sources = tuple(_sources(holdings, status, kinds))
    selected = [file for file in listed.files if file.is_selected]
    missing = {file.digest: file.size_bytes for file in selected if not file.is_present}
    missing_bytes = sum(missing.values())
    return PlannedAdd(
        repo=listed.repo,
        type=listed.type,
        commit=listed.commit,
        snapshot=listed.snapshot,
        files=len(selected),
        size_bytes=_size(listed),
        missing_files=sum(not file.is_present for file in selected),
        missing_bytes=missing_bytes,
        free_bytes=free_bytes(Path(status.cache)),
        sources=sources if missing else (),
        seconds=_seconds(missing_bytes, sources, await node.history()) if missing else 0.0,
    )


def _size(listed: ListedCommit) -> int:
    return sum({file.digest: file.size_bytes for file in listed.files if file.is_selected}.values())


def _sources(holdings: Sequence[Holding], status: NodeStatus, kinds: Mapping[str, str]) -> Iterator[PlannedSource]:
    """Peers with all of it first, then the others, then the hubs in their order."""
    for holding in sorted(holdings, key=lambda one: not one.is_complete):
        yield PlannedSource(holding.peer, "peer", holding.address, "all" if holding.is_complete else "part")
    for name, url in status.upstreams.items():
        yield PlannedSource(name, kinds.get(url, "hub"), url, "unknown")


def _seconds(missing_bytes: int, sources: Sequence[PlannedSource], history: Sequence[HistoryEntry]) -> float | None:
    """The time at the rate of the first kind of source that has all of it, or that hubs are."""
    kinds = {source.kind for source in sources if source.has != "part"}
    rates = {kind: rate for kind in kinds if (rate := _rate(kind, history)) is not None}
    first = next((kind for kind in ("peer", "mirror", "origin") if kind in kinds), None)
    rate = rates.get(first) if first else None
    return missing_bytes / rate if rate else None


def _rate(kind: str, history: Sequence[HistoryEntry]) -> float | None:
    """Bytes a second of past fetches from a kind of source: the median of the last ones."""
    rates = [
        sum(entry.bytes_by_kind.values()) / entry.seconds
        for entry in history
        if entry.seconds > 0 and _is_of(kind, entry.bytes_by_kind)
    ]
    return median(rates[-MAX_ENTRIES:]) if rates else None


def _is_of(kind: str, bytes_by_kind: Mapping[str, int]) -> bool:
    total = sum(bytes_by_kind.values())
    return total >= MIN_BYTES and bytes_by_kind.get(kind, 0) >= MAIN_SHARE * total


def print_planned(output: Output, planned: PlannedAdd) -> None:
    """Prints the plan, and that nothing was done."""
    output.result(list(_lines(planned)), planned)
    output.note("Dry run: nothing was fetched.")


def _lines(planned: PlannedAdd) -> Iterator[str]:
    amount = f"{counted(planned.files, 'file')}, {human_size(planned.size_bytes)}"
    yield f"{planned.repo} at {planned.commit[:12]}: {amount}."
    if not planned.missing_files:
        yield "To fetch: nothing, all of it is here."
        return
    time = "how long is not known yet" if planned.seconds is None else f"about {human_time(planned.seconds)}"
    yield f"To fetch: {counted(planned.missing_files, 'file')}, {human_size(planned.missing_bytes)}; {time}."
    words = {"all": "all of it", "part": "a part", "unknown": ""}
    shown = planned.sources[:MAX_SOURCES]
    width = max((len(source.name) for source in shown), default=0)
    for source in shown:
        yield f"  from {source.name:<{width}}  {source.kind:<6}  {source.address}  {words[source.has]}".rstrip()
    if len(planned.sources) > len(shown):
        yield f"  and {len(planned.sources) - len(shown):,} more"
    if not planned.sources:
        yield "  No source is known."
    if planned.free_bytes is not None and planned.missing_bytes > planned.free_bytes:
        yield f"It does not fit: {human_size(planned.free_bytes)} are free."
