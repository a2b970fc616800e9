"""What is on order, what is known of each source, and when one counts as silent or behind. Pure; time is handed in.

It keeps account of what happened; what follows from it is for the picker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hfpeer.transfer.lateness import Avoided, Claims


@dataclass(frozen=True)
class Pace:
    """When a source counts as silent, behind, or as good as none."""

    silence_seconds: float = 5.0
    """How long an order may bring nothing while another source could carry on."""
    slow_ratio: float = 10.0
    """A source this many times slower than the best other one of its tier loses its order."""
    slow_seconds: float = 30.0
    """How long a source that fell behind gets no order that another could take."""
    floor_bytes_per_second: float = 64 * 1024
    """Under this rate a source holds back no worse tier, and may lose its order to one."""
    floor_seconds: float = 10.0
    """How long a source must have been busy before its rate is held against the floor."""


@dataclass
class Order:
    """Bytes asked of one source. `position` is how far it has come; `stop` may move down while it runs.

    `is_paused` while not the source but the receiver is what it waits for.
    """

    number: int
    source: str
    start: int
    stop: int
    position: int
    began_at: float
    progressed_at: float
    is_paused: bool = False
    is_late: bool = False
    """It is ended for this alone."""
    is_cut_through: bool = False
    """Its source is just getting these bytes from a holder, and passes them on as they come."""

    @property
    def remaining_bytes(self) -> int:
        return self.stop - self.position


@dataclass
class SourceState:
    """What the picker knows of a source. `pieces` has a bit for each piece that it can give."""

    name: str
    tier: int
    limit: int
    pieces: int
    is_whole: bool
    node_id: str = ""
    is_holder: bool = False
    """Whether it had everything when it was met: what comes from it was not changed by a fellow on the way."""
    claimed: int = 0
    """The pieces that this fellow is asking a holder for."""
    claims: Claims = field(default_factory=Claims, repr=False)
    kept_back: int = 0
    """The pieces that it claimed, and still does, but did not pass on as they came."""
    avoided: Avoided = field(default_factory=Avoided, repr=False)
    in_flight: int = 0
    failures: int = 0
    failed_at: float = 0.0
    resting_until: float = 0.0
    slow_until: float = 0.0
    out_because: str | None = None
    is_barred: bool = False
    last_reason: str = ""
    rate: float = 0.0
    """Bytes per second of late; 0 while unknown."""
    _window_start: float = field(default=0.0, repr=False)
    _window_bytes: int = field(default=0, repr=False)
    _busy_since: float = field(default=0.0, repr=False)

    @property
    def is_fellow(self) -> bool:
        """Whether it is a node that fetches the blob too."""
        return not self.is_whole and bool(self.node_id)

    @property
    def allowance(self) -> int:
        """How many orders it may have at a time: one until it has shown after a failure that it gives bytes."""
        return 1 if self.failures else self.limit

    def is_usable(self, now: float) -> bool:
        return self.out_because is None and self.resting_until <= now

    def is_sound(self, now: float) -> bool:
        """Whether it can be counted on: usable, and neither on probation nor behind."""
        return self.is_usable(now) and not self.failures and self.slow_until <= now

    def begin(self, now: float) -> None:
        if self.in_flight == 0:
            self._window_start, self._window_bytes, self._busy_since = now, 0, now
        self.in_flight += 1

    def account(self, size_bytes: int, now: float) -> None:
        self._window_bytes += size_bytes
        elapsed = now - self._window_start
        if elapsed >= 1.0:
            fresh = self._window_bytes / elapsed
            self.rate = fresh if not self.rate else (self.rate + fresh) / 2
            self._window_start, self._window_bytes = now, 0

    def is_below_floor(self, now: float, pace: Pace) -> bool:
        """Whether it has been busy for a while and still gives next to nothing."""
        if not self.in_flight or now - self._busy_since < pace.floor_seconds:
            return False
        elapsed = now - self._window_start
        recent = self._window_bytes / elapsed if elapsed >= 1.0 else 0.0
        return max(self.rate if elapsed < 2.0 else 0.0, recent) < pace.floor_bytes_per_second
