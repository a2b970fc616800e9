"""The effect of Ctrl-C: it ends a command at once, or raises KeyboardInterrupt.

Imports are not safe to interrupt: an exception in the middle of one may be wrapped, printed or lost. So Ctrl-C ends the
process at once while there is nothing to clean up, and raises KeyboardInterrupt only inside `Interruptible`, around the
work of a verb. This module is the first that a command imports, and imports almost nothing itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

EXIT_INTERRUPTED = 130
SENTENCE = "Interrupted."
REPEAT_SECONDS = 0.01
"""Seconds after which an interrupt that Python has dropped is sent again."""


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends this process with exit code 130. A process that ignores SIGINT goes on ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        sys.unraisablehook = _unraisable
        # Registered first, so called last: while Python takes itself apart, a signal would change the exit code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


class Interruptible:
    """Inside the block Ctrl-C raises KeyboardInterrupt, if outside of it Ctrl-C ends the process at once."""

    def __enter__(self) -> None:
        self._ends_process = signal.getsignal(signal.SIGINT) is _end
        if self._ends_process:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ends_process:
            signal.signal(signal.SIGINT, _end)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is, or was raised because of, KeyboardInterrupt. Before Python 3.12 a class that is being
    created wraps it in RuntimeError."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _end(number: int, frame: FrameType | None) -> None:
    text = SENTENCE
    if "--json" in sys.argv:
        text = f'{{"code": "interrupted", "message": "{SENTENCE}", "hint": null, "facts": {{}}}}'
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass
    os._exit(EXIT_INTERRUPTED)


def _unraisable(dropped: Any) -> None:
    """Sends an interrupt again that Python would only print, because it came in a destructor or a weakref callback."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        import _thread

        _thread.start_new_thread(_interrupt_again, ())
    else:
        sys.__unraisablehook__(dropped)


def _interrupt_again() -> None:
    import time

    time.sleep(REPEAT_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)
