"""One trial: a plan, done one way, on a LAN of its own, measured from the first command to the last verified file.

Owns the clock, the counters and the faults. Bounded in time by the plan's limit.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fakes.network.lan import Lan
from fakes.network.program import HostProgram, machine_cpu
from fakes.waiting import LOOK_SECONDS

from .ballast import Ballast
from .plan import (
    HOLDER_KILLED_AFTER_COPIES,
    KILLED_AT_PROGRESS,
    SLOWED_TO,
    Fetch,
    Model,
    Plan,
)
from .ways import WAYS, HfDownload, HfPeer, Hub, Way

SAMPLE_SECONDS = 0.1
QUIET_SAMPLES = 3
TRICKLE_BYTES = 32 * 1024
"""Less than this between two samples is talk, not a transfer."""
PAUSE_BYTES = 256 * 1024
"""A node that receives less than this has paused."""
SPARE_MEMORY_BYTES = 1 << 30
"""Beside the files, what the programs themselves take while they run; and what is free for the next second."""


@dataclass(frozen=True)
class Outcome:
    """The result of one trial. `seconds` ends with the last awaited fetch; None if one did not end, or ended wrong.

    Between the first bytes and the last, as the switch saw them, the wire was used; the rest is starting and ending.
    """

    scenario: str
    way: str
    receivers: int
    rate_mbit: float
    size_bytes: int
    bound_seconds: float
    seconds: float | None
    finished: int
    awaited: int
    node_seconds: list[float]
    first_bytes_seconds: float | None
    last_bytes_seconds: float | None
    wan_payload_copies: float | None
    wan_wire_copies: float | None
    holder_payload_copies: float | None
    holder_wire_copies: float | None
    cpu_seconds_per_gb: float
    cpu_seconds: dict[str, float]
    machine_busy: float
    fault_at_seconds: float | None
    pause_seconds: float | None
    delay: str
    congestion_control: str
    remarks: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Time over the bound."""
        return None if self.seconds is None else self.seconds / self.bound_seconds


@dataclass(frozen=True)
class Sample:
    """Bytes (sent, received) by each host, at a moment."""

    at: float
    bytes_by_host: dict[str, tuple[int, int]]


class Trial:
    """A trial in its LAN; `run` may be called once."""

    def __init__(self, lan: Lan, plan: Plan, way: Way, models: list[Model], ballast: Ballast) -> None:
        self._lan, self._plan, self._way, self._models, self._ballast = lan, plan, way, models, ballast
        self._programs: dict[Fetch, HostProgram] = {}
        self._samples: list[Sample] = []
        self._fault_at: float | None = None
        self._remarks: list[str] = []

    def run(self) -> Outcome:
        hub = Hub(self._way) if None in self._plan.holders else None
        if hub is not None and isinstance(self._way, (HfPeer, HfDownload)):
            self._way.use_hub(hub)
        self._way.set_up()
        if self._plan.fault and self._plan.fault.kind == "slow":
            self._lan.hosts[self._plan.fault.host].set_rate(self._plan.rate_bits * SLOWED_TO)
        self._ballast.give(SPARE_MEMORY_BYTES)
        wire, cpu, machine = self._lan.wire_bytes(), self._cpu(), machine_cpu()
        began_at = time.monotonic()
        self._watch(began_at)
        if self._plan.fault and self._plan.fault.kind.startswith("kill") and self._fault_at is None:
            self._remarks.append("all was done before the moment for the kill came")
        machine_now, cpu_now = machine_cpu(), self._cpu()
        spent = {name: seconds - cpu.get(name, 0.0) for name, seconds in cpu_now.items()}
        spent = {name: seconds for name, seconds in spent.items() if seconds}
        sent = {name: count - wire[name] for name, count in self._lan.wire_bytes().items()}
        busy = (machine_now[0] - machine[0]) / max(1e-9, machine_now[1] - machine[1])
        return self._outcome(began_at, spent, busy, sent, hub)

    def _cpu(self) -> dict[str, float]:
        """CPU seconds of the programs, by kind: daemon, add, hub, nginx, …"""
        spent: defaultdict[str, float] = defaultdict(float)
        for host in self._lan.everybody:
            for program in host.programs:
                spent[program.output.stem.partition("-")[0]] += program.cpu_seconds()
        return spent

    # --- watching -----------------------------------------------------------------------------------------------

    def _watch(self, began_at: float) -> None:
        """Gives the commands when they are due, makes the fault, and returns when all is done or time is up."""
        waiting = list(self._plan.fetches)
        ends_at, sampled_at = began_at + self._plan.limit_seconds, 0.0
        while (now := time.monotonic()) < ends_at:
            while waiting and now >= began_at + waiting[0].after_seconds:
                fetch = waiting.pop(0)
                self._programs[fetch] = self._way.begin(fetch)
            if now >= sampled_at + SAMPLE_SECONDS:
                sampled_at = now
                self._samples.append(Sample(now, self._lan.traffic()))
                self._ballast.give(self._received_bytes() + SPARE_MEMORY_BYTES)
                self._break_if_due()
            # Each is looked at, because looking notes when it ended.
            done = [fetch for fetch, program in self._programs.items() if program.is_done()]
            if not waiting and set(self._plan.awaited) <= set(done):
                return
            time.sleep(LOOK_SECONDS)

    def _break_if_due(self) -> None:
        fault = self._plan.fault
        if fault is None or self._fault_at is not None or fault.kind in ("slow", "lie") or not self._is_due():
            return
        self._fault_at = time.monotonic()
        victim = self._lan.hosts[fault.host]
        victim.stop_all()
        sent = (self._samples[-1].bytes_by_host[victim.name][0]) / self._plan.largest_bytes
        self._remarks.append(f"{victim.name} was killed when it had sent {sent:.2f} F")

    def _is_due(self) -> bool:
        fault = self._plan.fault
        assert fault is not None
        if fault.kind == "kill":
            return self._received_bytes() >= KILLED_AT_PROGRESS * self._plan.receivers * self._plan.largest_bytes
        return self._is_holder_due(self._lan.hosts[fault.host].name)

    def _received_bytes(self) -> int:
        """By all hosts together, since the first command."""
        first, last = self._samples[0].bytes_by_host, self._samples[-1].bytes_by_host
        return sum(last[name][1] - first[name][1] for name in last)

    def _is_holder_due(self, name: str) -> bool:
        """Whether the holder has sent its 1.2 copies, or one and, because no host needs more of it, nothing since."""
        sent = [sample.bytes_by_host[name][0] for sample in self._samples]
        copies = (sent[-1] - sent[0]) / self._plan.largest_bytes
        is_quiet = len(sent) > QUIET_SAMPLES and sent[-1] - sent[-1 - QUIET_SAMPLES] < PAUSE_BYTES
        return copies >= HOLDER_KILLED_AFTER_COPIES or (copies >= 1.0 and is_quiet)

    # --- reckoning ----------------------------------------------------------------------------------------------

    def _outcome(
        self, began_at: float, cpu: dict[str, float], busy: float, sent: dict[str, int], hub: Hub | None
    ) -> Outcome:
        plan, unit = self._plan, self._plan.largest_bytes
        holders = dict.fromkeys(self._lan.hosts[holder] for holder in plan.holders if holder is not None)
        held = sum(
            shape.size_bytes for shape, holder in zip(plan.shapes, plan.holders, strict=True) if holder is not None
        )
        payloads = [self._way.sent_bytes(host) for host in holders]
        known = [count for count in payloads if count is not None]
        wrong = {fetch: problem for fetch in plan.awaited if (problem := self._problem(fetch))}
        right = [self._programs[fetch].ended_at for fetch in plan.awaited if fetch not in wrong]
        moments = self._moments()
        times = sorted(ended_at - began_at for ended_at in right if ended_at is not None)
        return Outcome(
            scenario=plan.scenario,
            way=self._way.name,
            receivers=plan.receivers,
            rate_mbit=plan.rate_bits / 1e6,
            size_bytes=unit,
            bound_seconds=plan.bound_seconds,
            seconds=None if wrong else times[-1],
            finished=len(plan.awaited) - len(wrong),
            awaited=len(plan.awaited),
            node_seconds=times,
            first_bytes_seconds=moments[0] - began_at if moments else None,
            last_bytes_seconds=moments[-1] - began_at if moments else None,
            wan_payload_copies=hub.stop() / unit if hub else None,
            wan_wire_copies=sent["hub"] / unit if hub else None,
            holder_payload_copies=sum(known) / held if known and len(known) == len(payloads) else None,
            holder_wire_copies=sum(sent[host.name] for host in holders) / held if holders else None,
            cpu_seconds_per_gb=sum(cpu.values()) / (plan.awaited_bytes / 1e9),
            cpu_seconds=cpu,
            machine_busy=busy,
            fault_at_seconds=self._fault_at - began_at if self._fault_at else None,
            pause_seconds=self._pause() if self._fault_at and not wrong else None,
            delay=self._lan.wan.delay if self._lan.wan else "none",
            congestion_control=self._lan.congestion_control(),
            remarks=[*wrong.values(), *self._remarks, *self._way.remarks()],
        )

    def _problem(self, fetch: Fetch) -> str | None:
        """The fault of a fetch; None when every file of it is right."""
        program, model = self._programs.get(fetch), self._models[fetch.model]
        label = f"{self._lan.hosts[fetch.host].name} {model.name}:"
        if program is None or not program.is_done():
            return f"{label} not done after {self._plan.limit_seconds:.0f} s"
        if program.exit_code != 0:
            return f"{label} exit {program.exit_code}"
        folder = self._way.fetched_folder(fetch)
        for name, digest in model.digests.items():
            if _sha256(folder / name) != digest:
                return f"{label} {name} is wrong"
        return None

    def _moments(self) -> list[float]:
        """When an awaited host had received something since the sample before."""
        names = {self._lan.hosts[fetch.host].name for fetch in self._plan.awaited}
        pairs = zip(self._samples, self._samples[1:], strict=False)
        return [now.at for before, now in pairs if any(_gained(before, now, name) >= TRICKLE_BYTES for name in names)]

    def _pause(self) -> float:
        """The longest time for which a survivor received next to nothing, from the fault to its last bytes."""
        assert self._fault_at is not None
        names = {self._lan.hosts[fetch.host].name for fetch in self._plan.awaited}
        after = [sample for sample in self._samples if sample.at >= self._fault_at]
        return max((_longest_pause(after, name) for name in names), default=0.0)


def _gained(before: Sample, now: Sample, name: str) -> int:
    return now.bytes_by_host[name][1] - before.bytes_by_host[name][1]


def _longest_pause(samples: Sequence[Sample], name: str) -> float:
    longest = 0.0
    mark = samples[0] if samples else None
    for sample in samples:
        assert mark is not None
        if _gained(mark, sample, name) >= PAUSE_BYTES:
            longest, mark = max(longest, sample.at - mark.at), sample
    return longest


def _sha256(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def perform(plan: Plan, way_name: str, models: list[Model], place: Path) -> Outcome:
    """One trial in a fresh LAN and a fresh folder. Raises CannotBuild, TimeoutError when it could not be set up."""
    with Lan(plan.hosts, rate_bits=plan.rate_bits, wan_bits=plan.wan_bits, has_ipv6=False) as lan:
        way = WAYS[way_name](lan, plan, models, place)
        written_bytes = sum(plan.shapes[fetch.model].size_bytes for fetch in plan.fetches)
        return Trial(lan, plan, way, models, Ballast(place, written_bytes + SPARE_MEMORY_BYTES)).run()
