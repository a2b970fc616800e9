"""Bounds the request bodies in memory: of all callers, of those on other machines, and of each of these."""

from __future__ import annotations

from collections import Counter

from hfpeer.budgets import MAX_GUEST_HELD_BYTES, MAX_GUESTS_HELD_BYTES, MAX_HELD_BYTES
from hfpeer.errors import Unreachable

RETRY_SECONDS = 2.0
"""Seconds after which a refused client may try again."""


class HeldBytes:
    """One budget for all requests. Belongs to one event loop."""

    def __init__(
        self,
        most_bytes: int = MAX_HELD_BYTES,
        guests_bytes: int = MAX_GUESTS_HELD_BYTES,
        guest_bytes: int = MAX_GUEST_HELD_BYTES,
    ) -> None:
        self._most_bytes = most_bytes
        self._guests_bytes = guests_bytes
        self._guest_bytes = guest_bytes
        self.size_bytes = 0
        self._guests: Counter[str] = Counter()

    def of(self, guest: str | None) -> Held:
        """The budget of one request; `guest` is the caller's address, None for a caller on this machine."""
        return Held(self, guest)

    def add(self, guest: str | None, size_bytes: int) -> None:
        """Raises Unreachable if a bound would be exceeded."""
        is_too_much = self.size_bytes + size_bytes > self._most_bytes
        if guest is not None:
            is_too_much |= self._guests.total() + size_bytes > self._guests_bytes
            is_too_much |= self._guests[guest] + size_bytes > self._guest_bytes
        if is_too_much:
            raise Unreachable(
                "This endpoint reads as much at once as it may.",
                hint="Ask again in a moment.",
                retry_after_seconds=RETRY_SECONDS,
            )
        self.size_bytes += size_bytes
        if guest is not None:
            self._guests[guest] += size_bytes

    def free(self, guest: str | None, size_bytes: int) -> None:
        self.size_bytes -= size_bytes
        if guest is not None:
            self._guests[guest] -= size_bytes
            if not self._guests[guest]:
                del self._guests[guest]


class Held:
    """The bytes of one request that are in memory."""

    def __init__(self, budget: HeldBytes, guest: str | None) -> None:
        self._budget = budget
        self._guest = guest
        self._size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Raises Unreachable if a bound would be exceeded."""
        self._budget.add(self._guest, size_bytes)
        self._size_bytes += size_bytes

    def free(self) -> None:
        self._budget.free(self._guest, self._size_bytes)
        self._size_bytes = 0
