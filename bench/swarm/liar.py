"""A node that lies: hfpeer's own daemon, in a process whose `sendfile` changes one byte in one of N pieces it sends.

    python -m bench.swarm.liar FILE N      started like `hfpeerd`; each lie is a line of FILE

The product has no switch for this; the lie is told beneath it, where file bytes go to a socket. What the node itself
fetches and keeps stays right.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hfpeer.ranges import PIECE_SIZE_BYTES


def lies_in(offset: int, count: int, one_in: int) -> int | None:
    """The offset of the first byte that is changed in `[offset, offset + count)`; None if none is."""
    period = one_in * PIECE_SIZE_BYTES
    first = offset - (offset - period // 2) % -period
    return first if first < offset + count else None


def make_sendfile_lie(told: Path, one_in: int) -> None:
    """Replaces `os.sendfile` of this process."""
    honest = os.sendfile

    def lying(out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
        if offset is None:
            return honest(out_fd, in_fd, offset, count)
        lie_at = lies_in(offset, count, one_in)
        if lie_at is None:
            return honest(out_fd, in_fd, offset, count)
        if lie_at > offset:
            return honest(out_fd, in_fd, offset, lie_at - offset)
        (byte,) = os.pread(in_fd, 1, offset)
        sent = os.write(out_fd, bytes([byte ^ 0xFF]))
        with told.open("a") as file:
            file.write(f"{offset}\n")
        return sent

    os.sendfile = lying


def main() -> int:
    from hfpeer_daemon.server import main as serve

    make_sendfile_lie(Path(sys.argv.pop(1)), int(sys.argv.pop(1)))
    return serve()


if __name__ == "__main__":
    sys.exit(main())
