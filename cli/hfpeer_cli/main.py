"""Where the `hfpeer` command starts. From its first line on, Ctrl-C ends it with exit code 130 and no traceback."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hfpeer_cli.interrupts import end_on_interrupt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from hfpeer_cli.invocation import Invocation


def main(arguments: Sequence[str] | None = None, invocation: Invocation | None = None) -> NoReturn:
    """Runs one command line and exits with its code. Without `arguments` the process is the command's own, and they
    are `sys.argv[1:]`."""
    if arguments is not None:
        from hfpeer_cli.root import run

        sys.exit(run(arguments, invocation))
    end_on_interrupt()
    _open_closed_streams()
    import gc

    from hfpeer_cli.root import run

    exit_code = run(sys.argv[1:], invocation)
    # The process ends now: a last garbage collection over all living objects would only cost time.
    gc.freeze()
    sys.exit(exit_code)


def _open_closed_streams() -> None:
    """Gives a process whose shell closed standard streams (`hfpeer ls >&-`) others that lead nowhere. Else files that
    it opens would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open until the process ends
