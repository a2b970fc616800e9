"""Copies a file to a socket: blocking, in a worker thread, as fast as the receiver and the limiter allow.

A receiver that accepts almost nothing loses its connection, so that it cannot hold the thread.
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

from hfpeer.budgets import LEAST_TAKEN_BYTES, UPLOAD_STALL_SECONDS
from hfpeer.net.limiter import Limiter

Readable = Callable[[int, int], int]
"""Blocking: the offset up to which a growing file can be read, from the first argument on, at most the second; the
first argument if no more bytes come."""

IsWanted = Callable[[], bool]
"""Whether others wait for this receiver's upload slot."""

MAX_SENDFILE_BYTES = 1 << 30
COPY_BYTES = 1024 * 1024
LOOK_SECONDS = 1.0
"""Seconds between two looks whether the slot of a waiting receiver is wanted."""
TC_PRIO_BULK = 2
"""Of linux/pkt_sched.h: queues with priorities on this machine send the user's other packets first."""

_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""errno values of sendfile on a file system without it."""
_DISCONNECTED = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}

_log = logging.getLogger(__name__)


class SendBroken(ConnectionError):
    """A body was not sent to its end, and its connection is closed. `sent_bytes` of the message were sent."""

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
    is_wanted: IsWanted | None = None,
) -> int:
    """Sends all `count` bytes, or raises SendBroken. `sock` is non-blocking (it shares its mode with the loop's
    descriptor). With `readable` the bytes are sent as the file grows. While `is_wanted`, the receiver has less time
    before it counts as stalled.

    A shutdown of the socket in another thread ends this at once, whatever it waits for.
    """
    receiver = _Receiver(sock, timeout_seconds, is_wanted)
    sent, readable_bytes = 0, count if readable is None else 0
    send = _sendfile
    while sent < count:
        if sent == readable_bytes and readable is not None:
            readable_bytes = receiver.wait_for_bytes(readable, offset + sent, offset + count) - offset
            if sent == readable_bytes:
                raise SendBroken("waited in vain for bytes", sent)
        portion = readable_bytes - sent if limiter is None else receiver.wait_for_turn(limiter, readable_bytes - sent)
        size = 0
        try:
            size = send(sock, file_fd, offset + sent, portion)
        except BlockingIOError:
            receiver.wait_until_it_takes(sent)
            continue
        except OSError as error:
            if error.errno in _NO_SENDFILE and send is _sendfile:
                send = _read_and_send
                continue
            if error.errno not in _DISCONNECTED:
                _log.warning("Cannot read a file that is being sent: %s", error)
            raise SendBroken(str(error), sent) from error
        finally:
            if limiter is not None:
                limiter.give_back(portion - size)
        if size == 0:
            _log.warning("A file that was being sent ended %d bytes early", count - sent)
            raise SendBroken("the file ended early", sent)
        sent += size
    return sent


class _Receiver:
    """The receiver of a body: waits for it, and measures how much it accepts."""

    def __init__(self, sock: socket.socket, timeout_seconds: float, is_wanted: IsWanted | None) -> None:
        if hasattr(socket, "SO_PRIORITY"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, TC_PRIO_BULK)
        self._sock = sock
        self._timeout_seconds = timeout_seconds
        self._is_wanted = is_wanted
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._gone = select.poll()
        self._gone.register(sock, 0)
        self._watched_since = time.monotonic()
        self._taken_before = 0

    def wait_for_turn(self, limiter: Limiter, count: int) -> int:
        """Waits for the limiter, or until the receiver has gone. Returns how many bytes may be sent now, at most
        `count`."""
        portion = min(count, limiter.quantum() or count)
        delay_seconds = limiter.reserve(portion)
        if delay_seconds:
            self._gone.poll(delay_seconds * 1000)
            self._watched_since += delay_seconds  # the limiter waited, not the receiver
        return portion

    def wait_for_bytes(self, readable: Readable, start: int, stop: int) -> int:
        """The offset up to which the file can be read."""
        began_at = time.monotonic()
        end = readable(start, stop)
        self._watched_since += time.monotonic() - began_at  # the file waited, not the receiver
        return end

    def wait_until_it_takes(self, sent: int) -> None:
        """Waits until the socket accepts more. Raises SendBroken if the receiver accepted almost nothing for too long.
        `sent` is the number of bytes handed to the system so far."""
        while True:
            seconds = self._timeout_seconds
            if self._is_wanted is not None and self._is_wanted():
                seconds = min(seconds, UPLOAD_STALL_SECONDS)
            remaining_seconds = self._watched_since + seconds - time.monotonic()
            if remaining_seconds > 0:
                look_seconds = remaining_seconds if self._is_wanted is None else min(remaining_seconds, LOOK_SECONDS)
                if self._writable.poll(look_seconds * 1000):
                    return
                continue
            taken = sent - unacknowledged_bytes(self._sock.fileno())
            if taken - self._taken_before < LEAST_TAKEN_BYTES:
                reason = f"took {max(0, taken - self._taken_before)} bytes in {seconds:g} s"
                raise SendBroken(reason, sent)
            self._watched_since, self._taken_before = time.monotonic(), taken


def unacknowledged_bytes(socket_fd: int) -> int:
    """Bytes in the socket's send queue that the receiver has not acknowledged; 0 where the system does not tell."""
    if sys.platform != "linux" or socket_fd < 0:
        return 0
    queued = fcntl.ioctl(socket_fd, termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", queued)[0])


def _sendfile(sock: socket.socket, file_fd: int, offset: int, count: int) -> int:
    return os.sendfile(sock.fileno(), file_fd, offset, min(count, MAX_SENDFILE_BYTES))


def _read_and_send(sock: socket.socket, file_fd: int, offset: int, count: int) -> int:
    chunk = os.pread(file_fd, min(count, COPY_BYTES), offset)
    return sock.send(chunk) if chunk else 0
