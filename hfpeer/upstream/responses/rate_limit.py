"""The rests that a hub asks for, shared by all requests of a node to it.

A hub limits requests by a window of minutes: 429 with `RateLimit` or `Retry-After`, or 503 with `Retry-After`. The node
sends it nothing before the rest is over, because requests in between may prolong it. The Hub counts three buckets, by
path; its `RateLimit` names the bucket that is used up, and the others go on. Any other limit is of the whole hub.

A hub counts by public address, which the nodes of a LAN often share. So nodes tell their peers which hubs limit them. A
peer may have another public address, or lie: what it says makes a node send one request, and the answer decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import httpx

from hfpeer.budgets import MAX_RATE_LIMIT_SECONDS
from hfpeer.errors import RateLimited
from hfpeer.net.backoff import backoff_seconds
from hfpeer.upstream.responses.refusals import asked_rest

BUCKETS = ("api", "resolvers", "pages")
"""The names that the Hub has for them."""
TOLD_SECONDS = 2.0
"""A shorter rest is not told, nor one that ends less than this after the one that was told before."""
TRIAL_SECONDS = 1.5
"""For at most this many seconds other requests wait for the one that tries whether what a peer said is so."""
HEARD_AGAIN_SECONDS = 60.0
"""After the answer of the hub itself, peers are not heard for this many seconds."""
SHORT_REST_SECONDS, SHORT_RESTS = 3.0, 3
"""Every request waits out this number of rests of this length in seconds; only some wait longer."""
UNKNOWN_REST_STEPS = 2
"""A rest of unknown length begins after this number of steps of the backoff."""


@dataclass(frozen=True)
class Rest:
    """A rest that a hub asks for: it ends in `seconds`, at `until` (seconds since the epoch)."""

    hub: str
    seconds: float
    until: float

    @property
    def clock_time(self) -> str:
        """When it ends, as the clocks of this machine show it."""
        return time.strftime("%H:%M:%S", time.localtime(self.until))

    @property
    def error(self) -> RateLimited:
        """The error of a request that is not sent; its facts have `retry_after_seconds` and `until`."""
        return RateLimited(
            f"{self.hub} limits requests until {self.clock_time}.",
            hint=f"Try again after {self.clock_time}; what has arrived is kept.",
            hub=self.hub,
            reason=f"limits requests until {self.clock_time}",
            retry_after_seconds=self.seconds,
            until=self.until,
        )


def hub_key(endpoint: str) -> str:
    """A digest of a hub's address. Nodes exchange it in place of the address: a peer that uses the same hub recognises
    it, and other peers do not learn the address."""
    return hashlib.sha256(httpx.URL(endpoint).netloc.lower()).hexdigest()[:32]


OnRest: TypeAlias = "Callable[[Rest], None]"
"""Called from any thread; it must return at once and not raise."""


class RateLimit:
    """The rests of one hub. Thread-safe. `clock` gives seconds like `time.monotonic`."""

    def __init__(self, hub: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        """Of each bucket when its rest ends."""
        self._in_a_row: dict[str, int] = {}
        """Of each bucket how often its requests were limited since one was answered."""
        self._told: dict[OnRest, float] = {}
        """Of each listener the end of the rest that it was told of."""
        self._heard_until = self._trial_until = self._deaf_until = 0.0

    def heard(self, seconds: float) -> None:
        """A peer says for how many seconds more the hub limits its requests."""
        now = self._clock()
        with self._lock:
            if now >= self._deaf_until:
                self._heard_until = max(self._heard_until, now + min(seconds, MAX_RATE_LIMIT_SECONDS))

    def note(self, url: httpx.URL, response: httpx.Response) -> Rest | None:
        """Takes the response to a request that was made for `url`, perhaps of a host to which the hub redirects. The
        rest that it asks for; None if it asks for none."""
        bucket, now = _bucket(url), self._clock()
        asked = asked_rest(response.headers, time.time())
        asks = response.status_code == 429 or (response.status_code == 503 and asked.seconds is not None)
        with self._lock:
            self._heard_until, self._deaf_until = 0.0, now + HEARD_AGAIN_SECONDS
            if not asks:
                self._in_a_row.pop(bucket, None)
                return None
            if self._until.get(bucket, 0.0) <= now:  # requests that ran side by side count once
                self._in_a_row[bucket] = self._in_a_row.get(bucket, 0) + 1
            in_a_row = self._in_a_row.get(bucket, 1)
            if asked.seconds is None:
                seconds = backoff_seconds(in_a_row + UNKNOWN_REST_STEPS)
            else:
                seconds = max(asked.seconds, backoff_seconds(in_a_row))
            for one in (bucket,) if asked.bucket == bucket else BUCKETS:
                self._until[one] = max(self._until.get(one, 0.0), now + seconds)
            rest = self._rest(bucket, now)
        self._tell(rest, now)
        return rest

    def rest(self, url: httpx.URL) -> Rest | None:
        """The rest for which a request for `url` must not be sent now. None if there is none: the caller sends it."""
        now = self._clock()
        with self._lock:
            rest = self._rest(_bucket(url), now)
            if not rest.seconds and (seconds := self._seconds_of_trial(now)):
                rest = Rest(self._hub, seconds, time.time() + seconds)
        if not rest.seconds:
            return None
        self._tell(rest, now)
        return rest

    def _seconds_of_trial(self, now: float) -> float:
        """For how long a request waits for another one, which tries whether a peer is right; 0 for that one itself."""
        if now >= self._heard_until:
            return 0.0
        if now >= self._trial_until:
            self._trial_until = now + TRIAL_SECONDS
            return 0.0
        return self._trial_until - now

    @property
    def longest(self) -> Rest | None:
        """The rest that ends last, of those that the hub itself asked for; None if there is none."""
        with self._lock:
            now = self._clock()
            rest = max((self._rest(bucket, now) for bucket in BUCKETS), key=lambda one: one.seconds)
        return rest if rest.seconds else None

    @contextmanager
    def telling(self, on_rest: OnRest) -> Iterator[None]:
        """While the block runs, `on_rest` is called once for each rest that a request of this node meets."""
        with self._lock:
            self._told[on_rest] = 0.0
        try:
            yield
        finally:
            with self._lock:
                del self._told[on_rest]

    def _tell(self, rest: Rest, now: float) -> None:
        if rest.seconds < TOLD_SECONDS:
            return
        until = now + rest.seconds
        with self._lock:
            listeners = [one for one, told in self._told.items() if until - told >= TOLD_SECONDS]
            self._told.update(dict.fromkeys(listeners, until))
        for listener in listeners:
            listener(rest)

    def _rest(self, bucket: str, now: float) -> Rest:
        seconds = round(max(0.0, self._until.get(bucket, 0.0) - now), 3)
        return Rest(self._hub, seconds, time.time() + seconds)


class Rests:
    """The rests that one request waits out: each of a few seconds, and longer ones up to `allowed_seconds` in all."""

    def __init__(self, allowed_seconds: float) -> None:
        self._longest_seconds = max(SHORT_REST_SECONDS, allowed_seconds)
        self._left_seconds = max(SHORT_RESTS * SHORT_REST_SECONDS, allowed_seconds)

    async def after(self, limit: RateLimited) -> None:
        """Waits until the request may be sent. Raises `limit` if that takes too long."""
        seconds = float(limit.facts["retry_after_seconds"])
        self._left_seconds -= seconds
        if seconds > self._longest_seconds or self._left_seconds < 0:
            raise limit
        await asyncio.sleep(seconds)


def _bucket(url: httpx.URL) -> str:
    """The bucket in which the Hub counts a request."""
    path = url.path
    if "/resolve/" in path or "/resolve-cache/" in path:
        return "resolvers"
    return "api" if "/api/" in path else "pages"
