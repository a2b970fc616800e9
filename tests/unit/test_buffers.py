"""The buffers between receivers and the hash: their number is fixed, and a thread that waits for one gets one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from mmap import mmap

from fakes.waiting import wait_until
from hfpeer.ranges import MIB
from hfpeer.transfer.fetch.buffers import BufferPool

LONG_SECONDS = 30.0


def acquired(pool: BufferPool) -> mmap:
    buffer = pool.acquire()
    assert buffer is not None
    return buffer


def acquire_beside(pool: BufferPool) -> tuple[threading.Thread, list[mmap | None]]:
    """A thread that waits for a buffer, and what it gets."""
    found: list[mmap | None] = []
    return begun(lambda: found.append(pool.acquire())), found


def starve_beside(pool: BufferPool, position: int) -> threading.Thread:
    """A hash that waits for the bytes at `position` by the time this returns."""
    thread = begun(lambda: pool.starve(position, LONG_SECONDS))
    assert wait_until(lambda: pool._starved_at == position)
    return thread


def begun(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_buffer_that_comes_back_goes_to_a_waiting_thread() -> None:
    pool = BufferPool(1)
    buffer = acquired(pool)
    thread, found = acquire_beside(pool)
    pool.give_back(buffer)
    thread.join(20.0)
    assert found[0] is buffer


def test_while_the_hash_starves_the_buffer_furthest_ahead_is_taken_back() -> None:
    pool = BufferPool(2)
    near, far = acquired(pool), acquired(pool)
    pool.hand_over(MIB, near, MIB)
    pool.hand_over(5 * MIB, far, MIB)
    thread, found = acquire_beside(pool)
    hashing = starve_beside(pool, 0)
    thread.join(20.0)
    assert found[0] is far
    assert pool.take(MIB) == (near, MIB)
    pool.close()
    hashing.join(20.0)


def test_the_hash_is_woken_by_the_bytes_that_it_waits_for() -> None:
    pool = BufferPool(1)
    hashing = starve_beside(pool, 3 * MIB + 5)
    pool.hand_over(3 * MIB, acquired(pool), MIB)
    hashing.join(20.0)
    assert not hashing.is_alive()


def test_the_hash_does_not_wait_for_bytes_that_came_since_it_looked() -> None:
    pool = BufferPool(1)
    pool.hand_over(3 * MIB, acquired(pool), MIB)
    began_at = time.monotonic()
    pool.starve(3 * MIB + 5, LONG_SECONDS)
    assert time.monotonic() - began_at < LONG_SECONDS / 2


def test_the_hash_is_not_woken_by_other_bytes() -> None:
    pool = BufferPool(1)
    hashing = starve_beside(pool, 3 * MIB)
    pool.hand_over(2 * MIB, acquired(pool), MIB)
    hashing.join(0.05)
    assert hashing.is_alive()
    pool.close()
    hashing.join(20.0)
    assert not hashing.is_alive()


def test_closing_ends_every_wait() -> None:
    pool = BufferPool(0)
    thread, found = acquire_beside(pool)
    pool.close()
    thread.join(20.0)
    assert found == [None]


def test_no_buffer_is_lost_by_replacing_passing_or_clearing() -> None:
    pool = BufferPool(3)
    for offset in (0, 0, MIB):
        pool.hand_over(offset, acquired(pool), MIB)
    pool.drop_before(MIB)
    pool.clear()
    again = [pool.acquire() for _ in range(3)]
    assert len({id(buffer) for buffer in again}) == 3


def test_the_next_waiting_buffer_is_the_first_at_or_after_an_offset() -> None:
    pool = BufferPool(2)
    for offset in (100, 5 * MIB):
        pool.hand_over(offset, acquired(pool), MIB)
    assert [pool.next_waiting(offset) for offset in (0, 100, 101, 6 * MIB)] == [100, 100, 5 * MIB, None]
