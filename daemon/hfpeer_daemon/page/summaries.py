"""Sums that only the page shows: the copies of each repo by machine, the bytes received by day and by repo. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from hfpeer.control.results import CachedRevision, Holding, PeerStatus
from hfpeer.control.transfers import HistoryEntry
from hfpeer.names import RepoId

ALL, PART, NONE = "all", "part", ""
MAX_ROWS = 1000
"""At most this many repos are in the matrix; its filter looks at these."""


@dataclass(frozen=True)
class MatrixRow:
    """One repo. `cells` says for each machine whether it has a whole revision, a part of one, or nothing."""

    repo: str
    type: str
    size_bytes: int
    cells: tuple[str, ...]
    copies: int
    is_here: bool


@dataclass(frozen=True)
class Matrix:
    """The first `MAX_ROWS` repos; `left_out` counts the others. The first machine is this node."""

    machines: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    left_out: int


@dataclass(frozen=True)
class Came:
    """The bytes that peers and hubs gave on one day, or for one repo."""

    name: str
    peer_bytes: int = 0
    hub_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return self.peer_bytes + self.hub_bytes


def repo_name(repo: str, type: str) -> str:
    """The name of a repo in the history and in transfers: `acme/tiny`, `datasets/acme/set`."""
    return str(RepoId.parse(repo, type))


def matrix(
    here: Iterable[CachedRevision], at_peers: Iterable[Holding], peers: Sequence[PeerStatus], name: str
) -> Matrix:
    """Counts the copies at this node, which is called `name`, and at its peers. The repo with the most comes first."""
    columns = {peer.node_id: number for number, peer in enumerate(peers, 1) if peer.node_id}
    cells: dict[tuple[str, str], list[str]] = {}
    sizes: dict[tuple[str, str], int] = {}

    def note(key: tuple[str, str], column: int, is_complete: bool | None, size_bytes: int | None) -> None:
        row = cells.setdefault(key, [NONE] * (len(peers) + 1))
        row[column] = ALL if is_complete else row[column] or PART
        sizes[key] = max(sizes.get(key, 0), size_bytes or 0)

    for one in here:
        note((one.repo, one.type), 0, one.is_complete, one.size_bytes)
    for held in at_peers:
        if held.node_id in columns:
            note((held.repo, held.type), columns[held.node_id], held.is_complete, held.size_bytes)
    rows = [
        MatrixRow(repo_name(*key), key[1], sizes[key], tuple(row), sum(map(bool, row)), bool(row[0]))
        for key, row in cells.items()
    ]
    rows.sort(key=lambda row: (-row.copies, row.repo.lower()))
    machines = (name, *(peer.name or peer.address for peer in peers))
    return Matrix(machines, tuple(rows[:MAX_ROWS]), max(0, len(rows) - MAX_ROWS))


def by_day(entries: Iterable[HistoryEntry], today: date, days: int) -> list[Came]:
    """The last `days` days by the local clock, the oldest first. A day without bytes has a row too."""
    first = today - timedelta(days=days - 1)
    names = [(first + timedelta(days=number)).isoformat() for number in range(days)]
    sums = _sums((date.fromtimestamp(entry.ended_at).isoformat(), entry) for entry in entries)
    return [sums.get(name, Came(name)) for name in names]


def by_repo(entries: Iterable[HistoryEntry]) -> list[Came]:
    """Each repo that has received bytes. The repo with the most bytes from peers comes first."""
    sums = _sums((entry.repo, entry) for entry in entries)
    return sorted((one for one in sums.values() if one.size_bytes), key=lambda one: (-one.peer_bytes, -one.hub_bytes))


def _sums(named: Iterable[tuple[str, HistoryEntry]]) -> dict[str, Came]:
    sums: dict[str, Came] = {}
    for name, entry in named:
        before, all_bytes = sums.get(name, Came(name)), sum(entry.bytes_by_kind.values())
        hub_bytes = before.hub_bytes + all_bytes - entry.saved_bytes
        sums[name] = Came(name, before.peer_bytes + entry.saved_bytes, hub_bytes)
    return sums
