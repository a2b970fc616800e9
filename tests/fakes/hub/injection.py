"""Which request meets which fault, and how often.

Owns the faults in place. Must never break anything itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .faults import Answer, Fault
from .record import path_matches
from .wire import Request, Response


@dataclass
class InjectedFault:
    """A fault in place. `remaining` is how often it will still strike, None for always."""

    fault: Fault
    method: str | None
    path: str
    listener: str | None
    remaining: int | None
    hits: int = 0
    was_hit: threading.Event = field(default_factory=threading.Event)

    def matches(self, request: Request) -> bool:
        return (
            self.remaining != 0
            and self.method in (None, request.method)
            and self.listener in (None, request.listener)
            and path_matches(request, self.path)
        )

    def strike(self) -> None:
        self.hits += 1
        self.remaining = None if self.remaining is None else self.remaining - 1
        self.was_hit.set()

    def remove(self) -> None:
        """Strike no more; those who wait in it go on."""
        self.remaining = 0
        self.release()

    def release(self) -> None:
        """Let go on those who wait in a pause, now and later."""
        pause = getattr(self.fault, "pause", None)
        if pause is not None:
            pause.release()

    def wait_hit(self, timeout_seconds: float = 30) -> None:
        """Return once a request has met it. Raises TimeoutError."""
        if not self.was_hit.wait(timeout_seconds):
            raise TimeoutError(f"no request met the fault on {self.method} {self.path}")

    def __enter__(self) -> InjectedFault:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Faults:
    """The faults in place, asked in the order of injection: every one that matches strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injected: list[InjectedFault] = []

    def inject(self, injected: InjectedFault) -> InjectedFault:
        with self._lock:
            self._injected.append(injected)
        return injected

    def clear(self) -> None:
        """Remove them all."""
        with self._lock:
            injected, self._injected = self._injected, []
        for one in injected:
            one.remove()

    def around(self, answer: Answer) -> Answer:
        """The answer function with the faults applied."""

        def answer_with_faults(request: Request) -> Response:
            struck = self._struck(request)
            faulty = _settled(answer) if struck else answer
            for fault in struck:
                faulty = _wrap(fault, faulty)
            return faulty(request)

        return answer_with_faults

    def _struck(self, request: Request) -> list[Fault]:
        with self._lock:
            struck = [injected for injected in self._injected if injected.matches(request)]
            for injected in struck:
                injected.strike()
            return [injected.fault for injected in struck]


def _wrap(fault: Fault, answer: Answer) -> Answer:
    return lambda request: fault(request, answer)


def _settled(answer: Answer) -> Answer:
    return lambda request: answer(request).settled()
