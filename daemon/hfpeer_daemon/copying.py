"""The bytes of a file to a socket: blocking, in a worker thread, as fast as the client and the limiter let it.

Nobody keeps the thread for ever: a client that takes next to nothing is left.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable

from hfpeer.limits import Limiter

Readable = Callable[[int, int], int]
"""Blocking: how far a file that still grows can be read from the first offset, at most to the second; the first itself
when nothing more comes."""

MAX_SENDFILE_BYTES = 1 << 30
COPY_BYTES = 1024 * 1024
BULK = 2
"""TC_PRIO_BULK of linux/pkt_sched.h: behind the user's own packets wherever this machine queues by priority."""
LEAST_TAKEN_BYTES = 16 * 1024
"""Who takes less in the time of a stall is stalling, even if it is a byte now and then."""

_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What sendfile says of a file system that has none."""
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}

_log = logging.getLogger(__name__)


class SendBroken(ConnectionError):
    """A body was not sent to its end, and its connection is gone. `sent_bytes` of the message did leave."""

    def __init__(self, reason: str, sent_bytes: int = 0) -> None:
        super().__init__(reason)
        self.sent_bytes = sent_bytes


def copy_to_socket(
    sock: socket.socket,
    file_fd: int,
    offset: int,
    count: int,
    timeout_seconds: float,
    limiter: Limiter | None = None,
    readable: Readable | None = None,
) -> int:
    """All `count` bytes, or SendBroken. `sock` does not block (its mode is shared with the loop's). With `readable`
    they are sent as they come.

    To shut the socket down in another thread ends it at once, whatever it waits for.
    """
    client = _Client(sock, timeout_seconds)
    sent, here = 0, count if readable is None else 0
    send = _sendfile
    while sent < count:
        if sent == here and readable is not None:
            here = client.wait_for_bytes(readable, offset + sent, offset + count) - offset
            if sent == here:
                raise SendBroken("waited for bytes that did not come", sent)
        portion = here - sent if limiter is None else client.wait_for_turn(limiter, here - sent)
        size = 0
        try:
            size = send(sock, file_fd, offset + sent, portion)
        except BlockingIOError:
            client.wait_until_it_takes(sent)
            continue
        except OSError as error:
            if error.errno in _NO_SENDFILE and send is _sendfile:
                send = _read_and_send
                continue
            if error.errno not in _GONE:
                _log.warning("A file that was being sent cannot be read: %s", error)
            raise SendBroken(str(error), sent) from error
        finally:
            if limiter is not None:
                limiter.give_back(portion - size)
        if size == 0:
            _log.warning("A file that was being sent ended %d bytes early", count - sent)
            raise SendBroken("the file ended early", sent)
        sent += size
    return sent


class _Client:
    """Who is being sent to: waits for it, and watches how much it takes."""

    def __init__(self, sock: socket.socket, timeout_seconds: float) -> None:
        if hasattr(socket, "SO_PRIORITY"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, BULK)
        self._sock = sock
        self._timeout_seconds = timeout_seconds
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._gone = select.poll()
        self._gone.register(sock, 0)
        self._watched_since = time.monotonic()
        self._taken_before = 0

    def wait_for_turn(self, limiter: Limiter, count: int) -> int:
        """How much may be sent now, at most `count`; waits for it, unless the client goes away."""
        portion = min(count, limiter.quantum() or count)
        delay_seconds = limiter.reserve(portion)
        if delay_seconds:
            self._gone.poll(delay_seconds * 1000)
            self._watched_since += delay_seconds  # it is not the client who was slow
        return portion

    def wait_for_bytes(self, readable: Readable, start: int, stop: int) -> int:
        """How far the file can be read."""
        began_at = time.monotonic()
        end = readable(start, stop)
        self._watched_since += time.monotonic() - began_at  # it is not the client who was slow
        return end

    def wait_until_it_takes(self, sent: int) -> None:
        """Waits until there is room for more. Raises SendBroken if the client took next to nothing for too long;
        `sent` bytes were given to the system by then."""
        while True:
            remaining_seconds = self._watched_since + self._timeout_seconds - time.monotonic()
            if remaining_seconds > 0 and self._writable.poll(remaining_seconds * 1000):
                return
            taken = sent - _waiting_bytes(self._sock)
            if taken - self._taken_before < LEAST_TAKEN_BYTES:
                reason = f"took {max(0, taken - self._taken_before)} bytes in {self._timeout_seconds:g} s"
                raise SendBroken(reason, sent)
            self._watched_since, self._taken_before = time.monotonic(), taken


def _waiting_bytes(sock: socket.socket) -> int:
    """What the other side has not acknowledged yet; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])


def _sendfile(sock: socket.socket, file_fd: int, offset: int, count: int) -> int:
    return os.sendfile(sock.fileno(), file_fd, offset, min(count, MAX_SENDFILE_BYTES))


def _read_and_send(sock: socket.socket, file_fd: int, offset: int, count: int) -> int:
    chunk = os.pread(file_fd, min(count, COPY_BYTES), offset)
    return sock.send(chunk) if chunk else 0
