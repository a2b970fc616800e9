"""A node that lies: hfpeer's own daemon, in a process whose `sendfile` changes one byte in one of N pieces it sends.

    python -m fakes.liar FILE N      started like `hfpeerd`; each lie is a line of FILE

The product has no switch for this; the lie is told beneath it, where file bytes go to a socket. The files that the node
itself fetches and keeps stay right.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from hfpeer.ranges import PIECE_SIZE_BYTES


class Liar:
    """Decides which pieces are lies, by the order in which they are first sent, and sends them. Thread-safe."""

    def __init__(self, told: Path, one_in: int) -> None:
        self._told, self._one_in = told, one_in
        self._is_lie: dict[int, bool] = {}
        self._lock = threading.Lock()
        self._honest = os.sendfile

    def sendfile(self, out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
        """Like `os.sendfile`; the first byte of a piece that is a lie is changed."""
        lie_at = None if offset is None else self.lie_in(offset, count)
        if offset is None or lie_at is None:
            return self._honest(out_fd, in_fd, offset, count)
        if lie_at > offset:
            return self._honest(out_fd, in_fd, offset, lie_at - offset)
        (byte,) = os.pread(in_fd, 1, offset)
        sent = os.write(out_fd, bytes([byte ^ 0xFF]))
        with self._told.open("a") as file:
            file.write(f"{offset}\n")
        return sent

    def lie_in(self, offset: int, count: int) -> int | None:
        """Where the first lying piece begins in `[offset, offset + count)`; None if none does."""
        first = -(-offset // PIECE_SIZE_BYTES)
        stop = -(-(offset + count) // PIECE_SIZE_BYTES)
        return next((piece * PIECE_SIZE_BYTES for piece in range(first, stop) if self._decide(piece)), None)

    def _decide(self, piece: int) -> bool:
        with self._lock:
            return self._is_lie.setdefault(piece, len(self._is_lie) % self._one_in == self._one_in // 2)


def lie(told: Path, one_in: int) -> None:
    """Makes a liar of this process."""
    os.sendfile = Liar(told, one_in).sendfile


def main() -> int:
    from hfpeer_daemon.server import main as serve

    lie(Path(sys.argv.pop(1)), int(sys.argv.pop(1)))
    return serve()


if __name__ == "__main__":
    sys.exit(main())
