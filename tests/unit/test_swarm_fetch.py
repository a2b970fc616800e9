"""A fetch among fellows: what one of them vouched for finds the other that changes it, however slowly it comes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource, wait_until
from hfpeer.cache.blobs import open_partial
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.ranges import MIB
from hfpeer.transfer.fetch import BlobFetch
from hfpeer.transfer.lies import UNVOUCHED_SECONDS
from hfpeer.transfer.sources import WantedBlob
from hfpeer.transfer.standing import Pace
from hfpeer.wire import PieceMap, PieceNews, piece_digest

COUNT = 6
DATA = random.Random(5).randbytes(COUNT * MIB)
VOUCHED = {piece: piece_digest(DATA[piece * MIB : (piece + 1) * MIB]) for piece in range(COUNT)}
WHOLE_PIECES = PieceMap(len(DATA), MIB, 1, bytes([(1 << COUNT) - 1]))
NO_PIECES = PieceMap(len(DATA), MIB, 1, b"\0")


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[BlobFetch]:
    """Not started; of a blob of six pieces."""
    blob = WantedBlob(digest_of(DATA), len(DATA), RepoId.from_api_path("models/a/b"), Commit("0" * 40), FilePath("w"))
    with ExitStack() as stack:
        partial = open_partial(tmp_path, blob.digest, len(DATA))
        stack.callback(partial.close)
        fetch = BlobFetch(blob, partial, lambda _: None, patience_seconds=3.0, pace=Pace(0.3), own_id="me")
        stack.callback(fetch.stop)
        yield fetch


@pytest.mark.parametrize("bytes_per_second", [0.0, 4e6], ids=["at once", "slowly"])
def test_a_fellow_that_changes_what_another_vouched_for_is_named_with_its_first_piece(
    fetch: BlobFetch, bytes_per_second: float
) -> None:
    everywhere = range(0, len(DATA), MIB // 2)
    liar = FakeSource("liar", DATA, node_id="liar", lies_at=everywhere, bytes_per_second=bytes_per_second)
    fetch.add_source(FakeSource("origin", DATA, "origin", bytes_per_second=20e6))
    fetch.add_source(FakeSource("owner", DATA, node_id="owner"), NO_PIECES)
    fetch.add_source(liar, WHOLE_PIECES)
    fetch.hear("owner", PieceNews((), (), VOUCHED))
    fetch.start()
    report = fetch.result.result(20)
    assert fetch.partial.path.read_bytes() == DATA
    assert set(report.liars) == {"liar"}
    assert liar.given_bytes <= 2 * MIB, "it was not asked again"
    assert report.bytes_by_source["origin"] >= len(DATA)


def test_news_of_pieces_that_the_blob_cannot_have_are_of_no_interest(fetch: BlobFetch) -> None:
    far = 1 << 62
    fetch.add_source(FakeSource("fellow", DATA, node_id="fellow"), NO_PIECES)
    fetch.hear("fellow", PieceNews((far, 0), (far, 1), {far: "00" * 16, -1: "00" * 16}))
    fetch.start()
    wanted = 1 << 0
    assert fetch._desk.picker.sources["fellow"].pieces == wanted
    assert not fetch._lies._vouchers.knows(far)


def test_a_fellow_that_changes_what_it_passes_on_is_named_as_soon_as_somebody_vouches_for_it(fetch: BlobFetch) -> None:
    holder = FakeSource("holder", DATA, node_id="holder", bytes_per_second=2e6)
    liar = FakeSource("liar", DATA, node_id="liar", lies_at=range(0, len(DATA), MIB // 2))
    fetch.add_source(liar, NO_PIECES)
    fetch.hear("liar", PieceNews((), (4, 5), {}))
    fetch.start()
    assert wait_until(lambda: fetch.present_bytes == 2 * MIB), "it is asked for what it says that it is just getting"
    assert fetch.piece_map().bits == NO_PIECES.bits, "nobody is told of it, who would then take this node for the liar"
    fetch.add_source(holder)
    fetch.hear("liar", PieceNews((4, 5), (), {4: VOUCHED[4], 5: VOUCHED[5]}))
    report = fetch.result.result(20)
    assert fetch.partial.path.read_bytes() == DATA
    assert report.liars[:1] == ["liar"]
    assert set(report.liars) == {"liar"}
    assert report.refetched_bytes == 2 * MIB
    assert report.bytes_by_source["holder"] == len(DATA), "only what the liar gave came twice"


def test_what_came_before_anybody_vouched_for_it_is_told_of_when_somebody_does_or_after_a_while(
    fetch: BlobFetch,
) -> None:
    fetch.add_source(FakeSource("fellow", DATA, node_id="fellow"), NO_PIECES)
    fetch.hear("fellow", PieceNews((), (4, 5), {}))
    fetch.start()
    assert wait_until(lambda: fetch.present_bytes == 2 * MIB)
    assert fetch.piece_map().bits == NO_PIECES.bits
    fetch.hear("fellow", PieceNews((4, 5), (), {4: VOUCHED[4]}))
    assert wait_until(lambda: fetch.piece_map().bits == bytes([1 << 4]), seconds=UNVOUCHED_SECONDS / 2)
    assert wait_until(lambda: fetch.piece_map().bits == bytes([1 << 4 | 1 << 5]))


def test_what_comes_from_a_holder_can_be_passed_on_while_it_comes(fetch: BlobFetch) -> None:
    holder = FakeSource("holder", DATA, node_id="holder", chunk_bytes=1 << 14, bytes_per_second=1e6)
    fetch.add_source(holder)
    fetch._workers._keep_seconds = 60.0  # without somebody who waits, only whole pieces are written
    fetch.start()
    assert wait_until(lambda: holder.given_bytes > 0)
    assert fetch.is_coming(0, MIB)
    stops = [0]
    while stops[-1] < MIB:
        stops.append(fetch.await_readable(stops[-1], MIB, 5.0))
        assert stops[-1] > stops[-2]
        assert fetch.partial.path.read_bytes()[: stops[-1]] == DATA[: stops[-1]]
    assert len(stops) > 10, "in many small portions"


def test_nobody_waits_for_what_is_not_on_its_way_from_a_holder(fetch: BlobFetch) -> None:
    fellow = FakeSource("fellow", DATA, node_id="fellow", never_answers=True)
    fetch.add_source(fellow, WHOLE_PIECES)
    fetch._desk.picker.sources["fellow"].is_holder = False
    fetch.start()
    assert fellow.asked.wait(5.0)
    assert not fetch.is_coming(0, MIB)
    began_at = time.monotonic()
    assert fetch.await_readable(0, MIB, 30.0) == 0
    assert time.monotonic() - began_at < 10.0
    fellow.released.set()


def test_who_waits_for_bytes_learns_that_the_fetch_has_ended(fetch: BlobFetch) -> None:
    holder = FakeSource("holder", DATA, node_id="holder", is_silent_after=0)
    fetch.add_source(holder)
    fetch.start()
    assert wait_until(lambda: fetch.is_coming(0, MIB))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(fetch.await_readable, 0, MIB, 30.0)
        assert wait_until(lambda: bool(fetch._desk.awaited))
        fetch.stop()
        assert waiting.result(5.0) == 0
