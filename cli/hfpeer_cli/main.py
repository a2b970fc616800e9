"""Where the `hfpeer` command starts. From its first line on, Ctrl-C ends it with exit code 130 and no traceback."""

from __future__ import annotations

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
    import gc

    from hfpeer_cli.root import run

    exit_code = run(sys.argv[1:], invocation)
    # The process ends now: a last garbage collection over all living objects would only cost time.
    gc.freeze()
    sys.exit(exit_code)
