"""A run to be measured: which host holds which model, which host fetches it when, what goes wrong, and how fast it
could be.

Pure values; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fakes.network.lan import MBIT

MIB = 1 << 20
FaultKind = Literal["kill", "slow", "lie", "kill-holder"]
SLOWED_TO = 0.1
KILLED_AT_PROGRESS = 0.5
HOLDER_KILLED_AFTER_COPIES = 1.2
FEWEST_LIES = 5
WAN_START_SPREAD_SECONDS = 2.0
SMALL_FILES, SMALL_FILE_BYTES = 1000, 10_000
MANY_NODES, MANY_MODELS = 6, 12
FULL_SPEED_RECEIVERS = 8
"""With more hosts than this, two cores no longer carry the full rate; the rate is halved."""


@dataclass(frozen=True)
class Shape:
    """The shape of a model: number of files, and bytes of each."""

    files: int
    file_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.files * self.file_bytes


@dataclass(frozen=True)
class Model:
    """A model that exists: its folder, and the sha256 of each of its files by relative path."""

    name: str
    folder: Path
    shape: Shape
    digests: dict[str, str]

    @property
    def repo(self) -> str:
        return f"bench/{self.name}"


@dataclass(frozen=True)
class Fetch:
    """Host number `host` gets model number `model`, beginning `after_seconds` after the first."""

    model: int
    host: int
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Fault:
    """The fault, and its host; that host's own fetch is not waited for."""

    kind: FaultKind
    host: int


@dataclass(frozen=True)
class Plan:
    """One scenario. `holders` says on which host each model lies; None is the hub. Rates in bits a second."""

    scenario: str
    receivers: int
    hosts: int
    shapes: tuple[Shape, ...]
    holders: tuple[int | None, ...]
    fetches: tuple[Fetch, ...]
    rate_bits: float
    wan_bits: float | None
    ways: tuple[str, ...]
    fault: Fault | None = None

    @property
    def awaited(self) -> tuple[Fetch, ...]:
        """The fetches that must end: all but the one on the host at fault."""
        return tuple(fetch for fetch in self.fetches if self.fault is None or fetch.host != self.fault.host)

    @property
    def lie_one_in(self) -> int:
        """A liar lies in one of this many pieces: 1 % of them, and a few of a model that has not even a few hundred."""
        return max(2, min(100, self.largest_bytes // MIB // FEWEST_LIES))

    @property
    def largest_bytes(self) -> int:
        return max(shape.size_bytes for shape in self.shapes)

    @property
    def awaited_bytes(self) -> int:
        return sum(self.shapes[fetch.model].size_bytes for fetch in self.awaited)

    @property
    def bound_seconds(self) -> float:
        """No way can be faster: the busiest link carries what it must, once, as payload."""
        incoming, outgoing = [0] * self.hosts, [0] * self.hosts
        for fetch in self.fetches:
            incoming[fetch.host] += self.shapes[fetch.model].size_bytes
        from_wan = 0
        for shape, holder in zip(self.shapes, self.holders, strict=True):
            if holder is None:
                from_wan += shape.size_bytes
            else:
                outgoing[holder] += shape.size_bytes
        over_wan = from_wan * 8 / self.wan_bits if self.wan_bits else 0.0
        return max(over_wan, max(*incoming, *outgoing) * 8 / self.rate_bits)

    @property
    def limit_seconds(self) -> float:
        """When a run is given up: some time after everyone, one after the other, would have it from one place."""
        return 60.0 + self.bound_seconds * max(6.0, 1.6 * self.receivers)


@dataclass(frozen=True)
class Scale:
    """The sizes of a benchmark: F, the rates, how many receivers."""

    size_bytes: int
    rate_bits: float = 200 * MBIT
    wan_bits: float = 100 * MBIT
    holder_receivers: Sequence[int] = (1, 2, 4, 8, 12)
    wan_receivers: Sequence[int] = (1, 2, 4, 8)
    fault_receivers: int = 8

    def rate_for(self, receivers: int) -> float:
        return self.rate_bits if receivers <= FULL_SPEED_RECEIVERS else self.rate_bits / 2


SCENARIOS = ("holder", "on", "wan", "wan-killed", "wan-slow", "wan-liar", "holder-killed", "small", "many")


def plans(scenario: str, scale: Scale) -> list[Plan]:
    """The plans of a scenario, smallest first."""
    n, whole = max(2, scale.fault_receivers), Shape(1, scale.size_bytes)
    if scenario == "holder":
        return [_from_holder("holder", count, whole, scale) for count in scale.holder_receivers]
    if scenario == "wan":
        return [_from_wan("wan", count, whole, scale) for count in scale.wan_receivers]
    if scenario == "on":
        return [replace(_from_holder(scenario, n, whole, scale), ways=("hfpeer add --on",))]
    if scenario == "small":
        return [_from_holder("small", n, Shape(SMALL_FILES, SMALL_FILE_BYTES), scale)]
    if scenario == "many":
        return [_many(scale)]
    if scenario == "holder-killed":
        return [_from_holder(scenario, n, whole, scale, Fault("kill-holder", 0))]
    kinds: dict[str, FaultKind] = {"wan-killed": "kill", "wan-slow": "slow", "wan-liar": "lie"}
    return [_from_wan(scenario, n, whole, scale, Fault(kinds[scenario], n // 2))]


def _from_holder(scenario: str, receivers: int, shape: Shape, scale: Scale, fault: Fault | None = None) -> Plan:
    """Host 0 holds it, the others get it."""
    return Plan(
        scenario,
        receivers,
        receivers + 1,
        (shape,),
        (0,),
        tuple(Fetch(0, host) for host in range(1, receivers + 1)),
        scale.rate_for(receivers),
        None,
        ("hfpeer",) if fault else ("hfpeer", "nginx+curl", "libtorrent"),
        fault,
    )


def _from_wan(scenario: str, receivers: int, shape: Shape, scale: Scale, fault: Fault | None = None) -> Plan:
    """Only the hub has it."""
    step = WAN_START_SPREAD_SECONDS / receivers
    return Plan(
        scenario,
        receivers,
        receivers,
        (shape,),
        (None,),
        tuple(Fetch(0, host, host * step) for host in range(receivers)),
        scale.rate_for(receivers),
        scale.wan_bits,
        ("hfpeer",) if fault else ("hfpeer", "hf download"),
        fault,
    )


def _many(scale: Scale) -> Plan:
    """Every host holds two models and gets two others', from two neighbours, all at once."""
    shape = Shape(1, scale.size_bytes // 4)
    holders = tuple(model // 2 for model in range(MANY_MODELS))
    fetches = tuple(Fetch(model, (holders[model] + 1 + model % 2) % MANY_NODES) for model in range(MANY_MODELS))
    ways = ("hfpeer", "nginx+curl")
    return Plan("many", MANY_NODES, MANY_NODES, (shape,) * MANY_MODELS, holders, fetches, scale.rate_bits, None, ways)
