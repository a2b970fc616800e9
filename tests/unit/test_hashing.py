"""The buffers between receivers and the hash: their number is fixed, and whoever waits for one gets one."""

from __future__ import annotations

import threading

from hfpeer.ranges import MIB, RangeSet
from hfpeer.transfer.hashing import BufferPool, readable_stop


def pool_of(count: int) -> tuple[BufferPool, threading.Condition]:
    changed = threading.Condition()
    return BufferPool(count, changed), changed


def acquire_beside(pool: BufferPool, changed: threading.Condition) -> tuple[threading.Thread, list[bytearray | None]]:
    """A thread that waits for a buffer, and what it gets."""
    found: list[bytearray | None] = []

    def work() -> None:
        with changed:
            found.append(pool.acquire())

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def test_a_buffer_that_comes_back_goes_to_whoever_waits() -> None:
    pool, changed = pool_of(1)
    with changed:
        buffer = pool.acquire()
        assert buffer is not None
    thread, found = acquire_beside(pool, changed)
    with changed:
        pool.give_back(buffer)
    thread.join(5)
    assert found[0] is buffer


def test_while_the_hash_starves_the_buffer_furthest_ahead_is_taken_back() -> None:
    pool, changed = pool_of(2)
    with changed:
        near, far = pool.acquire(), pool.acquire()
        assert near is not None
        assert far is not None
        pool.hand_over(MIB, near, MIB)
        pool.hand_over(5 * MIB, far, MIB)
    thread, found = acquire_beside(pool, changed)
    with changed:
        pool.starve()
    thread.join(5)
    assert found[0] is far
    assert pool.take(MIB) == (near, MIB)


def test_closing_sends_away_whoever_waits() -> None:
    pool, changed = pool_of(0)
    thread, found = acquire_beside(pool, changed)
    with changed:
        pool.close()
    thread.join(5)
    assert found == [None]


def test_no_buffer_is_lost_by_replacing_passing_or_clearing() -> None:
    pool, changed = pool_of(3)
    with changed:
        for offset in (0, 0, MIB):
            buffer = pool.acquire()
            assert buffer is not None
            pool.hand_over(offset, buffer, MIB)
        pool.drop_before(MIB)
        pool.clear()
        again = [pool.acquire() for _ in range(3)]
        assert len({id(buffer) for buffer in again}) == 3


def test_the_hash_reads_back_to_a_gap_a_waiting_buffer_or_a_piece() -> None:
    pool, changed = pool_of(1)
    with changed:
        assert readable_stop(RangeSet([(0, 10)]), 0, pool) == 10
        assert readable_stop(RangeSet([(0, 10)]), 10, pool) == 10
        assert readable_stop(RangeSet([(0, 9 * MIB)]), 3, pool) == MIB + 3
        buffer = pool.acquire()
        assert buffer is not None
        pool.hand_over(100, buffer, MIB)
        assert readable_stop(RangeSet([(0, 9 * MIB)]), 0, pool) == 100
