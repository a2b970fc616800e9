"""The buffers between receivers and the hash: their number is fixed, and whoever waits for one gets one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hfpeer.ranges import MIB, RangeSet
from hfpeer.transfer.hashing import BufferPool, readable_stop

LONG_SECONDS = 30.0


def pool_of(count: int) -> tuple[BufferPool, threading.Lock]:
    lock = threading.Lock()
    return BufferPool(count, lock), lock


def acquire_beside(pool: BufferPool, lock: threading.Lock) -> tuple[threading.Thread, list[bytearray | None]]:
    """A thread that waits for a buffer, and what it gets."""
    found: list[bytearray | None] = []

    def work() -> None:
        with lock:
            found.append(pool.acquire())

    return begun(work), found


def starve_beside(pool: BufferPool, lock: threading.Lock, position: int) -> threading.Thread:
    """A hash that waits for the bytes at `position` by the time this returns."""
    waits = threading.Event()

    def work() -> None:
        with lock:
            waits.set()
            pool.starve(position, LONG_SECONDS)

    thread = begun(work)
    assert waits.wait(LONG_SECONDS)
    with lock:  # free only once it waits
        return thread


def begun(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_buffer_that_comes_back_goes_to_whoever_waits() -> None:
    pool, lock = pool_of(1)
    with lock:
        buffer = pool.acquire()
        assert buffer is not None
    thread, found = acquire_beside(pool, lock)
    with lock:
        pool.give_back(buffer)
    thread.join(5)
    assert found[0] is buffer


def test_while_the_hash_starves_the_buffer_furthest_ahead_is_taken_back() -> None:
    pool, lock = pool_of(2)
    with lock:
        near, far = pool.acquire(), pool.acquire()
        assert near is not None
        assert far is not None
        pool.hand_over(MIB, near, MIB)
        pool.hand_over(5 * MIB, far, MIB)
    thread, found = acquire_beside(pool, lock)
    hashing = starve_beside(pool, lock, 0)
    thread.join(5)
    assert found[0] is far
    assert pool.take(MIB) == (near, MIB)
    with lock:
        pool.close()
    hashing.join(5)


def test_the_hash_is_woken_by_the_bytes_that_it_waits_for() -> None:
    pool, lock = pool_of(1)
    hashing = starve_beside(pool, lock, 3 * MIB + 5)
    with lock:
        buffer = pool.acquire()
        assert buffer is not None
        pool.hand_over(3 * MIB, buffer, MIB)
    hashing.join(5)
    assert not hashing.is_alive()


def test_the_hash_is_not_woken_by_other_bytes() -> None:
    pool, lock = pool_of(1)
    hashing = starve_beside(pool, lock, 3 * MIB)
    with lock:
        buffer = pool.acquire()
        assert buffer is not None
        pool.hand_over(2 * MIB, buffer, MIB)
    hashing.join(0.05)
    assert hashing.is_alive()
    with lock:
        pool.close()
    hashing.join(5)
    assert not hashing.is_alive()


def test_closing_sends_away_whoever_waits() -> None:
    pool, lock = pool_of(0)
    thread, found = acquire_beside(pool, lock)
    with lock:
        pool.close()
    thread.join(5)
    assert found == [None]


def test_no_buffer_is_lost_by_replacing_passing_or_clearing() -> None:
    pool, lock = pool_of(3)
    with lock:
        for offset in (0, 0, MIB):
            buffer = pool.acquire()
            assert buffer is not None
            pool.hand_over(offset, buffer, MIB)
        pool.drop_before(MIB)
        pool.clear()
        again = [pool.acquire() for _ in range(3)]
        assert len({id(buffer) for buffer in again}) == 3


def test_the_hash_reads_back_to_a_gap_a_waiting_buffer_or_a_piece() -> None:
    pool, lock = pool_of(1)
    with lock:
        assert readable_stop(RangeSet([(0, 10)]), 0, pool) == 10
        assert readable_stop(RangeSet([(0, 10)]), 10, pool) == 10
        assert readable_stop(RangeSet([(0, 9 * MIB)]), 3, pool) == MIB + 3
        buffer = pool.acquire()
        assert buffer is not None
        pool.hand_over(100, buffer, MIB)
        assert readable_stop(RangeSet([(0, 9 * MIB)]), 0, pool) == 100
