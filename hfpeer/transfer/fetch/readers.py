"""The readers of a blob while it is fetched: told when it has changed, or waiting for the next bytes of a piece."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Readers:
    """A monitor. Callbacks are called outside its lock."""

    def __init__(self) -> None:
        self._woken = threading.Condition()
        self._wakes = 0
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._awaited: Counter[int] = Counter()

    def join(self, reader: int, on_change: Callable[[], object]) -> None:
        """`on_change` is called, from any thread, when bytes came or were found wrong."""
        with self._woken:
            self._callbacks[reader] = on_change

    def leave(self, reader: int) -> None:
        with self._woken:
            self._callbacks.pop(reader, None)

    def came(self, piece: int) -> None:
        """More of a piece came."""
        if piece in self._awaited:
            self.wake()
        self.changed()

    def changed(self) -> None:
        """Tells all readers that bytes came or were found wrong."""
        if self._callbacks:
            with self._woken:
                callbacks = list(self._callbacks.values())
            for on_change in callbacks:
                on_change()

    @contextmanager
    def awaiting(self, piece: int) -> Iterator[None]:
        """While the block runs, a reader waits for more of a piece."""
        with self._woken:
            self._awaited[piece] += 1
        try:
            yield
        finally:
            with self._woken:
                self._awaited[piece] -= 1
                self._awaited = +self._awaited

    def is_awaited(self, piece: int) -> bool:
        """Whether a reader waits for more of a piece, so that its bytes are written as they come."""
        return piece in self._awaited

    @property
    def wakes(self) -> int:
        """The number of wakes until now: read it, look at the state, then pass it to `wait`."""
        return self._wakes

    def wake(self) -> None:
        """More of an awaited piece came, or no more of it comes."""
        with self._woken:
            self._wakes += 1
            self._woken.notify_all()

    def wait(self, wakes: int, seconds: float) -> bool:
        """Blocking: waits until there were more than this many wakes; False after `seconds`."""
        with self._woken:
            return self._woken.wait_for(lambda: self._wakes > wakes, max(0.0, seconds))
