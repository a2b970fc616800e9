"""Readers of a blob while it is fetched: no wake-up is lost, and a reader that left is told nothing."""

from __future__ import annotations

import time

from hfpeer.transfer.fetch.readers import Readers


def test_bytes_that_come_between_a_look_and_the_wait_end_the_wait() -> None:
    readers = Readers()
    with readers.awaiting(3):
        wakes = readers.wakes
        readers.came(3)
        began_at = time.monotonic()
        assert readers.wait(wakes, 30.0)
        assert time.monotonic() - began_at < 15.0


def test_other_bytes_do_not_end_the_wait() -> None:
    readers = Readers()
    with readers.awaiting(3):
        wakes = readers.wakes
        readers.came(2)
        assert not readers.wait(wakes, 0.01)


def test_a_piece_is_awaited_as_long_as_any_reader_waits_for_it() -> None:
    readers = Readers()
    with readers.awaiting(3):
        with readers.awaiting(3):
            pass
        assert readers.is_awaited(3)
    assert not readers.is_awaited(3)


def test_a_reader_is_told_of_changes_until_it_leaves() -> None:
    readers, told = Readers(), list[str]()
    readers.join(1, lambda: told.append("one"))
    readers.join(2, lambda: told.append("two"))
    readers.came(0)
    readers.leave(1)
    readers.changed()
    assert told == ["one", "two", "two"]
