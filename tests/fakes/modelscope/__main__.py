"""Serve an empty ModelScope: `python -m fakes.modelscope`.

Prints one line of JSON with its address and a token that may write, serves until interrupted, and then prints another
with the bytes of all uploads.
"""

from __future__ import annotations

import json
import signal
import threading

from .simulator import ModelScopeSimulator


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ModelScopeSimulator() as site:
        print(json.dumps({"endpoint": site.endpoint, "token": site.token}), flush=True)
        stopped.wait()
        print(json.dumps({"received_bytes": site.uploads.received_bytes}), flush=True)


if __name__ == "__main__":
    main()
