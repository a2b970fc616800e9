"""Rate limits, the hours at which they apply, their text form, and the token bucket that keeps to one.

Pure: the clock and the time of day are parameters, and nothing here waits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from hfpeer.errors import InvalidName

Rate: TypeAlias = "float | None"
"""Bytes per second; None is no limit."""

MINUTES_PER_DAY = 24 * 60
LOWEST_BYTES_PER_SECOND = 8_000
"""A lower limit would look like a dead source."""
LATE_SECONDS = 0.25
"""A transfer that wakes up at most this many seconds late catches up; a later one starts anew."""

_UNITS_BYTES = {
    "kbit": 125.0,
    "mbit": 125e3,
    "gbit": 125e6,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 1024.0,
    "mib": 1024.0**2,
    "gib": 1024.0**3,
}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg](?:bit|ib|b))(?:/s)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})=(.+)")
_HINT = "Write 200mbit, 25MB or none; by hour 08:00-18:00=100mbit,none, where the last holds at all other times."


@dataclass(frozen=True)
class Span:
    """At most `rate` from `start_minute` to `stop_minute` of the local day. A stop before the start is on the next day;
    a stop equal to the start is a whole day later."""

    start_minute: int
    stop_minute: int
    rate: Rate

    def covers(self, minute: int) -> bool:
        if self.start_minute < self.stop_minute:
            return self.start_minute <= minute < self.stop_minute
        return minute >= self.start_minute or minute < self.stop_minute

    def __str__(self) -> str:
        return f"{_clock_text(self.start_minute)}-{_clock_text(self.stop_minute)}={rate_text(self.rate)}"


@dataclass(frozen=True)
class Schedule:
    """A limit by hour: the first span that covers a minute applies, else `default`."""

    spans: tuple[Span, ...] = ()
    default: Rate = None

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit at any hour."""
        return self.default is None and all(span.rate is None for span in self.spans)

    def rate_at(self, minute: int) -> Rate:
        """The rate that applies at a minute of the day, 0 to 1439."""
        return next((span.rate for span in self.spans if span.covers(minute)), self.default)

    def __str__(self) -> str:
        return ",".join([*map(str, self.spans), rate_text(self.default)])


def parse_schedule(text: str) -> Schedule:
    """Reads a rate, or spans of the day with rates and then the rate for the other hours (no limit if omitted).

    Raises InvalidName.
    """
    *parts, last = [part.strip() for part in text.split(",")]
    spans = [_parse_span(part) for part in parts]
    if _SPAN.fullmatch(last):
        return Schedule((*spans, _parse_span(last)))
    return Schedule(tuple(spans), parse_rate(last))


def parse_rate(text: str) -> Rate:
    """`200mbit`, `1.5gbit`, `25MB`, `25MiB`, each with or without `/s`, or `none`. Raises InvalidName."""
    if text.strip().lower() == "none":
        return None
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise InvalidName(f"{text!r} is not a rate.", hint=_HINT, value=text)
    rate = float(found[1]) * _UNITS_BYTES[found[2].lower()]
    if rate < LOWEST_BYTES_PER_SECOND:
        raise InvalidName(f"{text!r} is too low a rate.", hint="64kbit is the lowest.", value=text)
    return rate


def rate_text(rate: Rate) -> str:
    """The rate as `parse_rate` reads it, in the largest unit of bits that gives a short number."""
    if rate is None:
        return "none"
    unit = next((unit for unit in ("gbit", "mbit") if rate >= _UNITS_BYTES[unit]), "kbit")
    return f"{rate / _UNITS_BYTES[unit]:.12g}{unit}"


class TokenBucket:
    """Keeps all reservations together to a rate. Not thread-safe; times are parameters, in seconds.

    Reservations are served in the order they are made: each gets the time until its turn.
    """

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def reserve(self, size_bytes: float, now: float, rate: float) -> float:
        """Reserves `size_bytes` at `rate` bytes per second; returns the seconds to wait before they may move."""
        begins_at = self._free_at if self._free_at >= now - LATE_SECONDS else now
        self._free_at = begins_at + size_bytes / rate
        return max(0.0, begins_at - now)

    def give_back(self, size_bytes: float, rate: float) -> None:
        """Returns the part of a reservation that did not move."""
        self._free_at -= size_bytes / rate


def _parse_span(text: str) -> Span:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise InvalidName(f"{text!r} is not hours with a rate.", hint=_HINT, value=text)
    start, stop = (_parse_clock(found[n], found[n + 1], text) for n in (1, 3))
    return Span(start % MINUTES_PER_DAY, stop % MINUTES_PER_DAY, parse_rate(found[5]))


def _parse_clock(hour: str, minute: str, text: str) -> int:
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > MINUTES_PER_DAY:
        raise InvalidName(f"{hour}:{minute} in {text!r} is no time of day.", hint="00:00 to 24:00.", value=text)
    return minutes


def _clock_text(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
