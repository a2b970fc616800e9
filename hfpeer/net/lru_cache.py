"""A bounded dictionary that forgets the values used longest ago. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Keeps the values used last, at most `limit` of them; with `weigh`, values that weigh at most `limit` together.

    The newest value stays even if it alone weighs more. Not thread-safe.
    """

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now; None if there is none."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def get_or_put(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value, which counts as used now; the one that `make` returns if there is none."""
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Sets a value and drops others until the limit holds."""
        self.drop(key)
        self._values[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self._values) > 1:
            self.drop(next(iter(self._values)))

    def items(self) -> list[tuple[Key, Value]]:
        """All keys and values, the one used longest ago first."""
        return list(self._values.items())

    def drop(self, key: Key) -> None:
        """Removes a value, if there is one."""
        value = self._values.pop(key, None)
        if value is not None:
            self._weight -= self._weigh(value)
