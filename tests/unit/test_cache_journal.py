"""The present bytes of a partial are on the disk after any writes, discards, kill -9 and power cuts."""

from __future__ import annotations

import random
import tempfile
from functools import partial as bind
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfpeer.cache.disk.layout import partial_folder
from hfpeer.cache.partial import blob as blobs
from hfpeer.cache.partial import journal
from hfpeer.names import Digest
from hfpeer.ranges import PieceGrid

SIZE = 100
PIECE = 8
DIGEST = Digest("sha256", "a" * 64)
spans = st.tuples(st.integers(0, SIZE), st.integers(1, 40)).map(lambda span: (span[0], min(SIZE, span[0] + span[1])))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), spans, st.sampled_from(["peer:a", "peer:b", "origin:hub"])),
        st.tuples(st.just("discard"), spans, st.just("")),
        st.tuples(st.just("sync"), st.just((0, 0)), st.just("")),
        st.tuples(st.just("reopen"), st.just((0, 0)), st.just("")),
    ),
    max_size=25,
)


class Machine:
    """A partial blob, and its bytes on the disk. `written` has the right value of every present byte."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = partial_folder(cache, DIGEST)
        self.written: dict[int, tuple[int, str]] = {}
        self.stamp = 0
        self.partial = self.open("boot 1")
        self.durable_data = (self.folder / "data").read_bytes()
        self.durable_journal_bytes = 0

    def open(self, boot: str) -> blobs.PartialBlob:
        return blobs.open_partial(self.cache, DIGEST, SIZE, boot)

    def write(self, start: int, stop: int, source: str) -> None:
        self.stamp = self.stamp % 255 + 1
        self.partial.write(start, memoryview(bytes([self.stamp]) * (stop - start)))
        self.partial.record(start, stop, source)
        self.written |= dict.fromkeys(range(start, stop), (self.stamp, source))

    def discard(self, start: int, stop: int, _: str) -> None:
        self.partial.discard(start, stop)
        self.written = {at: value for at, value in self.written.items() if not start <= at < stop}
        self.durable_journal_bytes = (self.folder / "journal").stat().st_size

    def sync(self, *_: object) -> None:
        self.partial.sync()
        self.durable_data = (self.folder / "data").read_bytes()
        self.durable_journal_bytes = (self.folder / "journal").stat().st_size

    def reopen(self, *_: object) -> None:
        self.partial.close()
        self.partial = self.open("boot 1")

    def write_gaps(self, start: int, stop: int, source: str) -> None:
        """Writes bytes that are not present yet, as a fetch does: of two values a disk may keep either."""
        for gap in list(self.partial.present.gaps(start, stop)):
            self.write(*gap, source)

    def run(self, listed: list[tuple[str, tuple[int, int], str]]) -> None:
        for what, (start, stop), source in listed:
            getattr(self, what)(start, stop, source)

    def check(self) -> set[int]:
        """Checks that every present byte has the value last written. Returns the present bytes."""
        data = (self.folder / "data").read_bytes()
        there = {at for start, stop in self.partial.present for at in range(start, stop)}
        assert {at: data[at] for at in there} == {at: self.written[at][0] for at in there}
        source_of = {at: source for start, stop, source in self.partial.sources() for at in range(start, stop)}
        assert source_of == {at: self.written[at][1] for at in there}
        return there


@pytest.fixture(autouse=True)
def small_pieces() -> object:
    with mock.patch.object(blobs, "PieceGrid", bind(PieceGrid, piece_size_bytes=PIECE)):
        yield


def whole_pieces(there: set[int]) -> set[int]:
    grid = PieceGrid(SIZE, PIECE)
    extents = [set(range(*grid.range_of(piece))) for piece in range(grid.count)]
    return {at for extent in extents if extent <= there for at in extent}


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_killed_process_loses_no_whole_piece_and_invents_none(listed: list[tuple[str, tuple[int, int], str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        try:
            machine.run(listed)
            before = machine.check()
            machine.reopen()
            assert whole_pieces(before) <= machine.check() <= before
        finally:
            machine.partial.close()


@settings(max_examples=120, deadline=None)
@given(steps, st.integers(0, 10_000), st.integers(0, 255))
def test_after_a_power_cut_only_synced_bytes_count(
    listed: list[tuple[str, tuple[int, int], str]], cut: int, seed: int
) -> None:
    """The disk keeps the journal up to any byte behind the last sync, and any mix of old and new data."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        try:
            machine.run([("write_gaps" if what == "write" else what, span, source) for what, span, source in listed])
            machine.partial.close()
            dice = random.Random(seed)
            data = (machine.folder / "data").read_bytes()
            mixed = bytes(dice.choice(pair) for pair in zip(data, machine.durable_data, strict=True))
            (machine.folder / "data").write_bytes(mixed)
            whole = (machine.folder / "journal").read_bytes()
            kept = machine.durable_journal_bytes + cut % (len(whole) - machine.durable_journal_bytes + 1)
            (machine.folder / "journal").write_bytes(whole[:kept])
            machine.partial = machine.open("boot 2")
            machine.check()
        finally:
            machine.partial.close()


@given(steps, st.integers(0, 10_000), st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_a_torn_journal_yields_only_whole_records_and_can_be_continued(
    listed: list[tuple[str, tuple[int, int], str]], cut: int, rubbish: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        try:
            machine.run([step for step in listed if step[0] != "discard"])
            machine.partial.close()
            path = machine.folder / "journal"
            whole = path.read_bytes()
            path.write_bytes(whole[: cut % (len(whole) + 1)] + rubbish)
            machine.partial = machine.open("boot 1")
            present = machine.partial.present
            assert all(at in machine.written for start, stop in present for at in range(start, stop))
            machine.write(0, PIECE, "peer:new")
            machine.reopen()
            assert machine.partial.present.covers(0, PIECE)
            assert machine.partial.sources()[0] == (0, PIECE, "peer:new")
        finally:
            machine.partial.close()


def test_bytes_written_during_a_sync_do_not_count_as_synced(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(0, PIECE, "peer:a")

    def slow_disk(fd: int) -> None:
        if fd == machine.partial._files.data_fd:
            machine.write(PIECE, 2 * PIECE, "peer:a")

    with mock.patch.object(blobs, "fdatasync", slow_disk):
        machine.partial.sync()
    machine.partial.close()
    machine.partial = machine.open("boot 2")
    assert list(machine.partial.present) == [(0, PIECE)]
    machine.partial.close()


def test_synced_bytes_survive_two_power_cuts(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(0, PIECE, "peer:a")
    machine.sync()
    machine.partial.close()
    for boot in ("boot 2", "boot 3", "boot 1"):
        machine.partial = machine.open(boot)
        assert list(machine.partial.present) == [(0, PIECE)]
        machine.partial.close()


@pytest.mark.parametrize(
    "other", [journal.head(DIGEST, SIZE + 1), journal.head(Digest("sha256", "b" * 64), SIZE), b"", b"\0" * 1000]
)
def test_a_journal_of_another_blob_does_not_count(other: bytes) -> None:
    records = journal.booted("b") + journal.have([(0, 8, "peer:a")])
    assert not journal.replay(other + records, DIGEST, SIZE, "b").present


def test_a_range_beyond_the_end_ends_the_reading() -> None:
    text = journal.head(DIGEST, SIZE) + journal.booted("b") + journal.have([(0, SIZE + 1, "x")])
    known = journal.replay(text, DIGEST, SIZE, "b")
    assert not known.present
    assert known.good_bytes == 2 * journal.RECORD_BYTES


def test_a_boot_that_cannot_be_named_is_never_the_same(tmp_path: Path) -> None:
    first = blobs.open_partial(tmp_path, DIGEST, SIZE, "")
    first.record(0, PIECE, "peer:a")
    first.close()
    second = blobs.open_partial(tmp_path, DIGEST, SIZE, "")
    assert not second.present
    second.close()


def test_this_boot_has_a_name() -> None:
    assert journal.boot_id() == journal.boot_id() != ""


def test_a_long_name_of_a_source_is_kept_as_far_as_it_fits() -> None:
    text = journal.head(DIGEST, SIZE) + journal.have([(0, 8, "\u00e9" * 200)])
    [(_, _, source)] = journal.replay(text, DIGEST, SIZE, "b").sources.inside(0, 8)
    assert source.startswith("\u00e9" * 50)
