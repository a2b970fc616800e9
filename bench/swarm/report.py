"""The results of the trials: medians, a table, and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .trial import Outcome

FAULTED_FROM = {"wan-killed": "wan", "wan-slow": "wan", "wan-liar": "wan", "holder-killed": "holder"}
"""The scenario that is the same without the fault."""
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Row:
    """The medians of one scenario, way and number of receivers. Copies are bytes over F; None is unknown."""

    scenario: str
    way: str
    receivers: int
    runs: int
    complete_runs: int
    bound_seconds: float
    seconds: float | None
    ratio: float | None
    ratio_least: float | None
    ratio_most: float | None
    holder_payload: float | None
    holder_wire: float | None
    wan_payload: float | None
    wan_wire: float | None
    cpu_seconds_per_gb: float
    machine_busy: float
    pause_seconds: float | None
    price: float | None

    @property
    def key(self) -> Key:
        return self.scenario, self.way, self.receivers


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row a scenario, way and number, in the order in which they were first measured."""
    grouped: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.scenario, outcome.way, outcome.receivers), []).append(outcome)
    return [_row(found, grouped) for found in grouped.values()]


def _row(found: list[Outcome], grouped: dict[Key, list[Outcome]]) -> Row:
    first, ratios = found[0], [outcome.ratio for outcome in found if outcome.ratio is not None]
    ratio = _median(found, lambda outcome: outcome.ratio)
    unfaulted = grouped.get((FAULTED_FROM.get(first.scenario, ""), first.way, first.receivers), [])
    without = _median(unfaulted, lambda outcome: outcome.ratio)
    return Row(
        scenario=first.scenario,
        way=first.way,
        receivers=first.receivers,
        runs=len(found),
        complete_runs=len(ratios),
        bound_seconds=first.bound_seconds,
        seconds=_median(found, lambda outcome: outcome.seconds),
        ratio=ratio,
        ratio_least=min(ratios, default=None),
        ratio_most=max(ratios, default=None),
        holder_payload=_median(found, lambda outcome: outcome.holder_payload_copies),
        holder_wire=_median(found, lambda outcome: outcome.holder_wire_copies),
        wan_payload=_median(found, lambda outcome: outcome.wan_payload_copies),
        wan_wire=_median(found, lambda outcome: outcome.wan_wire_copies),
        cpu_seconds_per_gb=statistics.median(outcome.cpu_seconds_per_gb for outcome in found),
        machine_busy=statistics.median(outcome.machine_busy for outcome in found),
        pause_seconds=_median(found, lambda outcome: outcome.pause_seconds),
        price=ratio - without if ratio is not None and without is not None else None,
    )


def _median(found: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> float | None:
    known = [number for outcome in found if (number := value(outcome)) is not None]
    return statistics.median(known) if known else None


def as_json(outcomes: Sequence[Outcome], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything: how it was measured, the medians, every run."""
    runs = [{**asdict(outcome), "ratio": outcome.ratio} for outcome in outcomes]
    return {"settings": settings, "medians": [asdict(row) for row in rows(outcomes)], "runs": runs}


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("scenario", lambda row: row.scenario),
    ("way", lambda row: row.way),
    ("N", lambda row: str(row.receivers)),
    ("done", lambda row: f"{row.complete_runs}/{row.runs}"),
    ("bound s", lambda row: f"{row.bound_seconds:.2f}"),
    ("time s", lambda row: _shown(row.seconds)),
    ("time/bound", lambda row: _shown(row.ratio)),
    ("least", lambda row: _shown(row.ratio_least)),
    ("most", lambda row: _shown(row.ratio_most)),
    ("holder/F", lambda row: _shown(row.holder_payload)),
    ("on wire", lambda row: _shown(row.holder_wire)),
    ("WAN/F", lambda row: _shown(row.wan_payload, 3)),
    ("on wire", lambda row: _shown(row.wan_wire, 3)),
    ("CPU s/GB", lambda row: f"{row.cpu_seconds_per_gb:.2f}"),
    ("busy", lambda row: f"{row.machine_busy:.0%}"),
    ("price", lambda row: _shown(row.price, signed=True)),
    ("pause s", lambda row: _shown(row.pause_seconds)),
)
LEGEND = """\
done: runs in which every awaited node ended with the right bytes. time: from the first command to the last of them.
holder/F: payload sent by the holder(s) over what they hold. WAN/F: payload sent by the hub. on wire: with all headers.
CPU s/GB: of all programs of all hosts, servers too, per GB delivered. busy: share of this machine's cores.
price: time/bound more than without the fault. pause: the longest time a survivor received nothing after the kill."""


def table(found: Sequence[Row]) -> str:
    """The rows as text, one line each, with a blank line between scenarios."""
    cells = [[title for title, _ in COLUMNS], *([show(row) for _, show in COLUMNS] for row in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines, scenario = [], ""
    for number, line in enumerate(cells):
        if number and line[0] != scenario:
            lines.append("")
            scenario = line[0]
        words = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join([*words, *numbers]).rstrip())
    return "\n".join([*lines, "", LEGEND])


def _shown(number: float | None, digits: int = 2, *, signed: bool = False) -> str:
    if number is None:
        return "-"
    return f"{number:{'+' if signed else ''}.{digits}f}"
