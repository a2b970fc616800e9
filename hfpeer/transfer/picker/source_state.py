"""The state of each source and of each request. Pure; time is handed in.

It only keeps account; the other modules decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from hfpeer.net.backoff import backoff_seconds
from hfpeer.transfer.credit import Credit
from hfpeer.transfer.sources.tiers import Tier

LATE_RATIO = 4.0
"""A piece that takes this many times the usual time is late."""
LATE_SECONDS = 1.0
"""No piece is late before this."""
MIN_SAMPLE_PIECES = 8
"""The usual time is unknown until this many pieces have come."""
MEMORY_PIECES = 16
"""The usual time is a moving average over this many pieces."""
AVOIDED_SECONDS = 5.0
"""Seconds for which a late piece is not requested from the same source again, nor expected of it."""

LEFT = "left"
"""Why a leecher is excluded that does not answer, or has stopped fetching."""


class UsualTime:
    """Learns how long a piece takes."""

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0

    def note(self, seconds: float) -> None:
        """A piece has come. A very long time counts as that of a piece that was just late."""
        if self.is_known:
            seconds = min(seconds, self.late_after())
        self._count += 1
        self._seconds += (seconds - self._seconds) / min(self._count, MEMORY_PIECES)

    @property
    def is_known(self) -> bool:
        return self._count >= MIN_SAMPLE_PIECES

    def late_after(self, patience: float = 1.0) -> float:
        """Seconds after which a piece is late, times `patience`; infinite while the usual time is unknown."""
        return patience * max(LATE_SECONDS, LATE_RATIO * self._seconds) if self.is_known else float("inf")

    def bound(self, patience: float, at_least: float, running_seconds: float) -> float:
        """Like `late_after`, but always finite. While the usual time is unknown, the first pieces replace it, or
        `running_seconds`, the age of the oldest running request; the bound is then not less than `at_least`."""
        if self.is_known:
            return self.late_after(patience)
        return max(at_least, patience * LATE_RATIO * max(self._seconds, running_seconds))


@dataclass
class Avoided:
    """The pieces that were late at one source, and how often in a row it was late."""

    _pieces: int = 0
    _until: float = 0.0
    in_a_row: int = 0

    def add(self, pieces: int, now: float) -> None:
        self._pieces = self.now(now) | pieces
        self._until = now + AVOIDED_SECONDS
        self.in_a_row += 1

    def now(self, now: float) -> int:
        return self._pieces if now < self._until else 0


class Claims:
    """The pieces that a leecher claims, with the time of each first claim. Repeating or renewing a claim makes it no
    younger: a leecher could hold a piece for ever otherwise."""

    def __init__(self) -> None:
        self._pieces = 0
        self._ever = 0
        self._since: list[tuple[float, int]] = []

    @property
    def ever(self) -> int:
        """All pieces that it has ever claimed."""
        return self._ever

    def update(self, pieces: int, now: float) -> None:
        """Takes all pieces that it claims now."""
        self._pieces = pieces
        new = pieces & ~self._ever
        if new:
            self._ever |= new
            self._since.append((now, new))

    def within(self, seconds: float, now: float) -> int:
        """The claims that are at most `seconds` old."""
        while self._since and now - self._since[0][0] > seconds:
            del self._since[0]
        return reduce(or_, (pieces for _, pieces in self._since), 0) & self._pieces

    def stale(self, seconds: float, now: float) -> int:
        """The claims that are older."""
        return self._pieces & ~self.within(seconds, now)


@dataclass
class LeecherNews:
    """The news that a leecher has announced."""

    claimed: int = 0
    """The pieces that it is getting from a seed now."""
    withheld: int = 0
    """The claimed pieces that it did not pass on when asked."""
    claims: Claims = field(default_factory=Claims)
    _latest: tuple[int, int] | None = None
    _latest_at: float = 0.0

    def seconds_without(self, pieces: int, now: float) -> float:
        """Seconds since a new piece or a new claim was noticed. `pieces` are all that it has."""
        latest = pieces, self.claims.ever
        if latest != self._latest:
            self._latest, self._latest_at = latest, now
        return now - self._latest_at


@dataclass
class Failures:
    """The failures of one source in a row, and how long it rests after the latest."""

    count: int = 0
    latest_at: float = 0.0
    resting_until: float = 0.0
    asked_rest_until: float = 0.0
    """When the rest ends for which the source itself asked."""
    reason: str = ""
    """Of the latest failure or stall; also after the source has recovered."""
    _bytes_since: int = 0

    def add(self, began_at: float, now: float) -> None:
        """A request that began at `began_at` failed. Requests that ran side by side and failed together count once."""
        if began_at >= self.latest_at:
            self.count += 1
        self._bytes_since = 0
        self.latest_at = now

    def rest(self, retry_after_seconds: float | None, now: float) -> None:
        """Lets the source rest for the time that it asked for, else for longer with each failure in a row."""
        self.resting_until = max(self.resting_until, now + backoff_seconds(self.count, retry_after_seconds))
        if retry_after_seconds is not None:
            self.asked_rest_until = now + retry_after_seconds

    def recover(self, size_bytes: int, enough_bytes: int) -> None:
        """`size_bytes` came; after `enough_bytes` since the latest failure the count begins at 0 again."""
        self._bytes_since += size_bytes
        if self._bytes_since >= enough_bytes:
            self.count = 0


@dataclass
class RateMeter:
    """Measures how fast one source gives, all its requests together."""

    bytes_per_second: float = 0.0
    """0 while unknown."""
    _since: float = 0.0
    _bytes: int = 0

    def begin(self, now: float) -> None:
        self._since, self._bytes = now, 0

    def add(self, size_bytes: int, now: float) -> None:
        self._bytes += size_bytes
        seconds = now - self._since
        if seconds >= 1.0:
            latest = self._bytes / seconds
            self.bytes_per_second = latest if not self.bytes_per_second else (self.bytes_per_second + latest) / 2
            self._since, self._bytes = now, 0


@dataclass
class RangeRequest:
    """A range asked of one source: `[start, stop)`, of which the bytes before `position` have come. `stop` may move
    down while it runs. Times are in seconds of the clock that is handed in."""

    number: int
    source: str
    start: int
    stop: int
    position: int
    began_at: float
    progressed_at: float
    is_paused: bool = False
    """It waits for this node, not for its source, so that its silence timer stops."""
    is_late: bool = False
    """It was ended only because a piece took much longer than usual."""
    is_cut_through: bool = False
    """Its source is just getting these bytes from a seed, and passes them on as they come."""
    floor_met_at: float = 0.0
    """When it last had brought as many bytes as the floor asks for, or began."""
    floor_met_position: int = 0
    """Its position then."""

    @property
    def remaining_bytes(self) -> int:
        return self.stop - self.position

    def advance(self, size_bytes: int, now: float) -> None:
        """The next `size_bytes` have come."""
        self.position += size_bytes
        self.is_paused, self.progressed_at = False, now

    def resume(self, now: float) -> None:
        """It waits for its source again."""
        self.is_paused, self.progressed_at = False, now
        self.meet_floor(now)

    def meet_floor(self, now: float) -> None:
        """Restarts the time in which it has to bring as many bytes as the floor asks for."""
        self.floor_met_at, self.floor_met_position = now, self.position


@dataclass
class SourceState:
    """The state of a source. `pieces` has a bit for each piece that it can give; `limit` bounds its
    requests at a time."""

    name: str
    tier: Tier
    limit: int
    pieces: int
    is_seed: bool
    node_id: str = ""
    gives_first_hand: bool = False
    """It was a seed when it joined, so no leecher can have changed what comes from it."""
    news: LeecherNews = field(default_factory=LeecherNews, repr=False)
    usual: UsualTime = field(default_factory=UsualTime, repr=False)
    """How long a piece takes from it, if it is a seed."""
    credit: Credit = field(default_factory=Credit)
    avoided: Avoided = field(default_factory=Avoided, repr=False)
    failures: Failures = field(default_factory=Failures)
    rate: RateMeter = field(default_factory=RateMeter)
    in_flight: int = 0
    was_asked: bool = False
    takes_ranges: bool = True
    """If not, each response begins with the first byte of the blob, so it is asked for all of the rest at once."""
    excluded_because: str | None = None
    """Why it is not asked until it has something new; None when it may be asked."""
    is_removed: bool = False
    """It stays excluded, whatever it has, until it is restored."""

    @property
    def is_leecher(self) -> bool:
        return not self.is_seed and bool(self.node_id)

    @property
    def allowance(self) -> int:
        """How many requests it may have at a time: one, after a failure, until it has given bytes again."""
        return 1 if self.failures.count or not self.takes_ranges else self.limit

    def is_usable(self, now: float) -> bool:
        return self.excluded_because is None and self.failures.resting_until <= now

    def is_sound(self, now: float) -> bool:
        """Whether it is usable, has not just failed, and has credit."""
        return self.is_usable(now) and not self.failures.count and not self.credit.is_lost(now)

    def begin_request(self, now: float) -> None:
        if self.in_flight == 0:
            self.rate.begin(now)
        self.in_flight += 1
        self.was_asked = True

    def readmit(self) -> None:
        """It may be asked again, unless it was removed."""
        if not self.is_removed:
            self.excluded_because = None

    def reset(self, now: float) -> None:
        """Forgets its failures, because it is reached at another address now."""
        self.failures.count, self.failures.resting_until, self.failures.asked_rest_until = 0, 0.0, 0.0
        self.rate.bytes_per_second, self.avoided = 0.0, Avoided()
        self.credit.reset(now)
        self.readmit()
