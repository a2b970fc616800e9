"""A wire with latency, for kernels without netem: `python tapdelay.py MILLISECONDS DEVICE DEVICE`.

Makes two TAP devices in the network namespace where it starts and carries every frame from one to the other that many
milliseconds later, in order, until it is killed; then they vanish. Large segments pass unsplit (virtio headers), so
that a Python loop is fast enough. Prints `ready` when both exist; they may be moved to other namespaces then. Rate is
not its business: shape the devices.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
FRAME_BYTES = 1 << 17
BURST = 32
"""Frames read at once from one side, before the other has its turn."""


def open_tap(name: str) -> int:
    """A TAP device of this name, which exists as long as the descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return device


def carry(delay_seconds: float, left: int, right: int) -> None:
    """Carries frames between the two, for ever."""
    towards = {left: right, right: left}
    waiting: deque[tuple[float, int, bytes]] = deque()
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, device, frame = waiting.popleft()
            _write(device, frame)
        patience = max(0.0, waiting[0][0] - now) if waiting else None
        readable, _, _ = select.select([left, right], [], [], patience)
        due_at = time.monotonic() + delay_seconds
        for device in readable:
            waiting.extend((due_at, towards[device], frame) for frame in _read(device))


def _read(device: int) -> list[bytes]:
    frames: list[bytes] = []
    try:
        while len(frames) < BURST:
            frames.append(os.read(device, FRAME_BYTES))
    except BlockingIOError:
        pass
    except OSError:
        time.sleep(0.001)  # the device is down
    return frames


def _write(device: int, frame: bytes) -> None:
    try:
        os.write(device, frame)
    except OSError:
        pass  # as a cable loses a frame when nothing is at its end


def main() -> None:
    delay, left, right = sys.argv[1:]
    devices = open_tap(left), open_tap(right)
    print("ready", flush=True)
    carry(float(delay) / 1000, *devices)


if __name__ == "__main__":
    main()
