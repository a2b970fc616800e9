"""A fetch among leechers: what one of them vouched for finds the other that changes it, however slowly it comes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource
from fakes.waiting import wait_until
from hfpeer.cache.partial.blob import open_partial
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews, piece_digest
from hfpeer.ranges import MIB
from hfpeer.transfer.fetch import piece_check
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.sources.sources import WantedBlob

COUNT = 6
SECONDS = 100.0
"""Seconds within which any fetch ends, on a busy machine too."""
DATA = random.Random(5).randbytes(COUNT * MIB)
VOUCHED = {piece: piece_digest(DATA[piece * MIB : (piece + 1) * MIB]) for piece in range(COUNT)}
WHOLE_PIECES = PieceMap(len(DATA), MIB, 1, bytes([(1 << COUNT) - 1]))
NO_PIECES = PieceMap(len(DATA), MIB, 1, b"\0")


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobFetch]:
    """Not started; of a blob of six pieces. It tells of no piece without a voucher."""
    monkeypatch.setattr(piece_check, "UNVOUCHED_SECONDS", float("inf"))
    blob = WantedBlob(digest_of(DATA), len(DATA), RepoId.from_api_path("models/a/b"), Commit("0" * 40), FilePath("w"))
    with ExitStack() as stack:
        partial = open_partial(tmp_path, blob.digest, len(DATA))
        stack.callback(partial.close)
        fetch = BlobFetch(
            blob, partial, lambda _: None, limits=StallLimits(0.3, far_ratio=1.0, patience_seconds=3.0), own_id="me"
        )
        stack.callback(fetch.stop)
        yield fetch


@pytest.mark.parametrize("bytes_per_second", [0.0, 4e6], ids=["at once", "slowly"])
def test_a_leecher_that_changes_what_another_vouched_for_is_named_with_its_first_piece(
    fetch: BlobFetch, bytes_per_second: float
) -> None:
    everywhere = range(0, len(DATA), MIB // 2)
    liar = FakeSource("liar", DATA, node_id="liar", lies_at=everywhere, bytes_per_second=bytes_per_second)
    fetch.add_source(FakeSource("origin", DATA, "origin", bytes_per_second=20e6))
    fetch.add_source(FakeSource("owner", DATA, node_id="owner"), NO_PIECES)
    fetch.add_source(liar, WHOLE_PIECES)
    fetch.hear("owner", PieceNews((), (), VOUCHED))
    fetch.start()
    report = fetch.result.result(SECONDS)
    assert fetch.partial.path.read_bytes() == DATA
    assert set(report.liars) == {"liar"}
    assert liar.given_bytes <= 2 * MIB, "it was not asked again"
    assert report.bytes_by_source["origin"] >= len(DATA)


def test_news_of_pieces_that_the_blob_cannot_have_is_ignored(fetch: BlobFetch) -> None:
    far = 1 << 62
    fetch.add_source(FakeSource("leecher", DATA, node_id="leecher"), NO_PIECES)
    fetch.hear("leecher", PieceNews((far, 0), (far, 1), {far: "00" * 16, -1: "00" * 16}))
    fetch.start()
    wanted = 1 << 0
    assert fetch._state.sources()["leecher"].pieces == wanted
    assert not fetch._state._piece_check._vouchers.knows(far)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 4], ids=["hashed already", "not hashed yet"])
def test_a_leecher_that_changes_what_it_passes_on_is_named_as_soon_as_a_leecher_vouches_for_it(
    fetch: BlobFetch, first: int
) -> None:
    seed = FakeSource("seed", DATA, node_id="seed", bytes_per_second=2e6)
    liar = FakeSource("liar", DATA, node_id="liar", lies_at=range(0, len(DATA), MIB // 2))
    fetch.add_source(liar, NO_PIECES)
    fetch.hear("liar", PieceNews((), (first, first + 1), {}))
    fetch.start()
    assert wait_until(lambda: fetch.present_bytes == 2 * MIB), "it is asked for what it says that it is just getting"
    assert fetch.piece_map().bitfield == NO_PIECES.bitfield, (
        "a peer that got it from this node would take this node for the liar"
    )
    fetch.add_source(seed)
    fetch.hear("liar", PieceNews((first, first + 1), (), {piece: VOUCHED[piece] for piece in (first, first + 1)}))
    report = fetch.result.result(SECONDS)
    assert fetch.partial.path.read_bytes() == DATA
    assert report.liars[:1] == ["liar"]
    assert set(report.liars) == {"liar"}
    assert report.refetched_bytes == 2 * MIB
    assert report.bytes_by_source["seed"] == len(DATA), "only what the liar gave came twice"


def test_a_piece_that_came_before_its_voucher_is_told_when_that_comes_or_after_a_while(
    fetch: BlobFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.add_source(FakeSource("leecher", DATA, node_id="leecher"), NO_PIECES)
    fetch.hear("leecher", PieceNews((), (4, 5), {}))
    fetch.start()
    assert wait_until(lambda: fetch.present_bytes == 2 * MIB)
    assert fetch.piece_map().bitfield == NO_PIECES.bitfield
    fetch.hear("leecher", PieceNews((4, 5), (), {4: VOUCHED[4]}))
    assert wait_until(lambda: fetch.piece_map().bitfield == bytes([1 << 4]))
    monkeypatch.setattr(piece_check, "UNVOUCHED_SECONDS", 0.5)
    assert wait_until(lambda: fetch.piece_map().bitfield == bytes([1 << 4 | 1 << 5]))


def test_a_piece_from_a_seed_can_be_passed_on_while_it_comes(fetch: BlobFetch) -> None:
    seed = FakeSource("seed", DATA, node_id="seed", chunk_bytes=1 << 14, bytes_per_second=1e6)
    fetch.add_source(seed)
    fetch._workers._write_seconds = 60.0  # without a waiting reader only whole pieces are written
    fetch.start()
    assert wait_until(lambda: seed.given_bytes > 0)
    assert fetch.is_coming(0, MIB)
    stops = [0]
    while stops[-1] < MIB:
        stops.append(fetch.await_readable(stops[-1], MIB, 5.0))
        assert stops[-1] > stops[-2]
        assert fetch.partial.path.read_bytes()[: stops[-1]] == DATA[: stops[-1]]
    assert len(stops) > 10, "in many small portions"


def test_a_piece_that_does_not_come_from_a_seed_is_not_waited_for(fetch: BlobFetch) -> None:
    leecher = FakeSource("leecher", DATA, node_id="leecher", never_answers=True)
    fetch.add_source(leecher, WHOLE_PIECES)
    fetch._state._picker.sources["leecher"].gives_first_hand = False
    fetch.start()
    assert leecher.asked.wait(20.0)
    assert not fetch.is_coming(0, MIB)
    began_at = time.monotonic()
    assert fetch.await_readable(0, MIB, 60.0) == 0
    assert time.monotonic() - began_at < 30.0
    leecher.released.set()


def test_a_wait_for_bytes_ends_with_the_fetch(fetch: BlobFetch) -> None:
    seed = FakeSource("seed", DATA, node_id="seed", is_silent_after=0)
    fetch.add_source(seed)
    fetch.start()
    assert wait_until(lambda: fetch.is_coming(0, MIB))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(fetch.await_readable, 0, MIB, 30.0)
        assert wait_until(lambda: fetch._readers.is_awaited(0))
        fetch.stop()
        assert waiting.result(20.0) == 0


ALL_FALSE = {piece: piece_digest(b"%d" % piece) for piece in range(COUNT)}


def test_two_honest_leechers_are_no_liars_because_a_third_vouches_for_other_bytes(fetch: BlobFetch) -> None:
    origin = FakeSource("origin", DATA, "origin", bytes_per_second=20e6)
    fetch.add_source(origin)
    fetch.add_source(FakeSource("framer", DATA, node_id="framer", refuses=SourceFault("is busy")), NO_PIECES)
    for name in ("ara", "crux"):
        fetch.add_source(FakeSource(name, DATA, node_id=name), WHOLE_PIECES)
    fetch.hear("framer", PieceNews((), (), ALL_FALSE))
    fetch.start()
    report = fetch.result.result(SECONDS)
    assert fetch.partial.path.read_bytes() == DATA
    assert report.liars == ["framer"]
    assert origin.given_bytes <= 2 * MIB, "a seed is asked about one piece, and then the framer's vouchers do not count"
    assert report.refetched_bytes <= 2 * MIB


def test_where_no_seed_can_decide_there_is_no_liar(fetch: BlobFetch) -> None:
    fetch.add_source(FakeSource("framer", DATA, node_id="framer", refuses=SourceFault("is busy")), NO_PIECES)
    fetch.add_source(FakeSource("ara", DATA, node_id="ara"), WHOLE_PIECES)
    fetch.hear("framer", PieceNews((), (), ALL_FALSE))
    fetch.start()
    report = fetch.result.result(SECONDS)
    assert report.liars == []
    assert report.bytes_by_source == {"ara": len(DATA)}


def test_a_seed_that_never_answers_decides_nothing_and_holds_up_nothing_for_long(
    fetch: BlobFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfpeer.transfer.fetch.piece_check.DISPUTE_SECONDS", 1.0)
    origin = FakeSource("origin", DATA, "origin", never_answers=True)
    fetch.add_source(origin)
    fetch.add_source(FakeSource("framer", DATA, node_id="framer", refuses=SourceFault("is busy")), NO_PIECES)
    fetch.add_source(FakeSource("ara", DATA, node_id="ara"), WHOLE_PIECES)
    fetch.hear("framer", PieceNews((), (), ALL_FALSE))
    fetch.start()
    report = fetch.result.result(SECONDS)
    origin.released.set()
    assert report.liars == []
    assert report.bytes_by_source["ara"] == len(DATA)


def test_a_lying_seed_makes_no_liar_of_the_leecher_that_it_contradicts(fetch: BlobFetch) -> None:
    liar = FakeSource("liar", DATA, node_id="liar", lies_at=range(0, len(DATA), MIB // 2))
    fetch.add_source(liar)
    fetch.add_source(FakeSource("origin", DATA, "origin", bytes_per_second=20e6))
    fetch.add_source(FakeSource("deceived", DATA, node_id="deceived"), NO_PIECES)
    fetch.add_source(FakeSource("ara", DATA, node_id="ara"), WHOLE_PIECES)
    deceived = {piece: piece_digest(liar.piece(piece * MIB, (piece + 1) * MIB)) for piece in range(COUNT)}
    fetch.hear("deceived", PieceNews((), (), deceived))
    fetch.start()
    report = fetch.result.result(SECONDS)
    assert fetch.partial.path.read_bytes() == DATA
    assert "liar" in report.liars
    assert not {"ara", "deceived"} & set(report.liars)


# A source that is somewhere else now


def test_a_source_that_moves_is_asked_at_its_new_address_and_loses_no_credit(fetch: BlobFetch) -> None:
    before = FakeSource("ara", DATA, node_id="ara", is_silent_after=MIB // 2)
    fetch.add_source(before)
    fetch.start()
    assert wait_until(lambda: bool(fetch.unanswered())), "silence is noticed although no other source could give it"
    assert fetch.unanswered() == {"ara"}
    now = FakeSource("ara", DATA, node_id="ara", address="127.0.0.1:9438")
    fetch.moved(now)  # type: ignore[arg-type]
    report = fetch.result.result(20.0)
    assert fetch.partial.path.read_bytes() == DATA
    assert report.addresses == {"ara": "127.0.0.1:9438"}
    assert not fetch._credits.of("ara").losses


def test_a_source_that_does_not_answer_at_all_is_asked_at_its_new_address(fetch: BlobFetch) -> None:
    before = FakeSource("ara", DATA, node_id="ara", never_answers=True)
    fetch.add_source(before)
    fetch.start()
    assert wait_until(lambda: fetch.unanswered() == {"ara"})
    fetch.moved(FakeSource("ara", DATA, node_id="ara"))  # type: ignore[arg-type]
    fetch.result.result(20.0)
    before.released.set()
    assert fetch.partial.path.read_bytes() == DATA
