"""The fetch of one blob from sources of every kind: its result, its cost, the liars, and the bytes that stay."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource
from fakes.waiting import wait_until
from hfpeer.cache.partial.blob import PartialBlob, open_partial
from hfpeer.errors import AccessDenied, CorruptData, GatedRepo, HfpeerError, NoSourceLeft, NoSpace
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.ranges import MIB
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob

LIMITS = StallLimits(silence_seconds=0.3, far_ratio=1.0)
SECONDS = 100.0
"""Seconds within which any fetch ends, on a busy machine too."""
NOISE = random.Random(3).randbytes(20 * MIB)


def noise(size_bytes: int) -> bytes:
    return NOISE[:size_bytes]


@dataclass
class Job:
    """A blob, its partial, and one fetch of it."""

    data: bytes
    cache: Path
    algorithm: str = "sha256"
    patience_seconds: float = 3.0
    events: list[Event] = field(default_factory=list)
    _opened: list[BlobFetch] = field(default_factory=list)

    def open(self) -> PartialBlob:
        return open_partial(self.cache, digest_of(self.data, self.algorithm), len(self.data))

    def begin(self, *sources: FakeSource, partial: PartialBlob | None = None) -> BlobFetch:
        digest = digest_of(self.data, self.algorithm)
        blob = WantedBlob(digest, len(self.data), RepoId.from_api_path("models/a/b"), Commit("0" * 40), FilePath("w"))
        partial = partial or self.open()
        fetch = BlobFetch(
            blob, partial, self.events.append, limits=replace(LIMITS, patience_seconds=self.patience_seconds)
        )
        self._opened.append(fetch)
        for source in sources:
            fetch.add_source(source)
        fetch.start()
        return fetch

    def run(self, *sources: FakeSource, partial: PartialBlob | None = None) -> FetchReport:
        fetch = self.begin(*sources, partial=partial)
        report = fetch.result.result(SECONDS)
        assert self.content(fetch) == self.data
        return report

    def content(self, fetch: BlobFetch) -> bytes:
        return fetch.partial.path.read_bytes()

    def reasons(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in self.events:
            assert isinstance(event, SourceFailed)
            found.setdefault(event.source, []).append(event.reason)
        return found

    def liars(self) -> set[str]:
        return {event.source for event in self.events if isinstance(event, SourceFailed) and event.was_lying}

    def close(self) -> None:
        for fetch in self._opened:
            fetch.stop()
            assert fetch.result.done()
            fetch.partial.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A fetch that leaves no thread and no open file behind."""
    threads, files = threading.active_count(), open_files()
    job = Job(noise(5 * MIB + 17), tmp_path)
    yield job
    job.close()
    assert wait_until(lambda: threading.active_count() <= threads), threading.enumerate()
    assert open_files() == files


@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
@pytest.mark.parametrize("size_bytes", [0, 1, MIB - 1, MIB, MIB + 1, 20 * MIB])
def test_any_size_arrives_whole(job: Job, size_bytes: int, algorithm: str) -> None:
    job.data, job.algorithm = noise(size_bytes), algorithm
    report = job.run(FakeSource("peer", job.data))
    assert report.bytes_by_source == ({"peer": size_bytes} if size_bytes else {})
    assert (report.refetched_bytes, report.liars) == (0, [])


def test_several_peers_share_the_work_and_the_hub_is_left_alone(job: Job) -> None:
    job.data = noise(20 * MIB)
    peers = [FakeSource(f"peer {n}", job.data, bytes_per_second=20e6) for n in range(3)]
    hub = FakeSource("hub", job.data, kind="origin")
    report = job.run(hub, *peers)
    assert sum(report.bytes_by_source.values()) == 20 * MIB
    assert all(peer.given_bytes > 0 for peer in peers)
    assert not hub.given


def test_what_a_dead_peer_gave_is_kept_and_the_rest_comes_from_elsewhere(job: Job) -> None:
    dying = FakeSource("dying", job.data, dies_after=2 * MIB + 1000, chunk_bytes=1000)
    hub = FakeSource("hub", job.data, kind="origin")
    report = job.run(dying, hub)
    assert report.bytes_by_source["dying"] >= 2 * MIB
    assert report.bytes_by_source["dying"] + report.bytes_by_source["hub"] == len(job.data)
    assert "the connection broke" in job.reasons()["dying"][0]


@pytest.mark.parametrize("silence", [{"is_silent_after": 100_000}, {"is_silent_after": 0}, {"never_answers": True}])
def test_a_silent_peer_loses_its_request_to_the_hub(job: Job, silence: dict[str, int]) -> None:
    silent = FakeSource("silent", job.data, **silence)  # type: ignore[arg-type]
    report = job.run(silent, FakeSource("hub", job.data, kind="origin"))
    assert report.bytes_by_source["hub"] >= len(job.data) - 2 * silent.chunk_bytes
    assert job.reasons()["silent"][0].startswith("silent for ")
    silent.released.set()


def test_a_source_slower_than_a_piece_a_second_is_not_taken_for_silent(job: Job) -> None:
    job.data = noise(MIB)
    slow = FakeSource("slow", job.data, bytes_per_second=600_000, chunk_bytes=30_000)
    report = job.run(slow, FakeSource("hub", job.data, kind="origin"))
    assert report.bytes_by_source == {"slow": MIB}


def test_a_source_that_ends_at_once_is_left_for_another(job: Job) -> None:
    report = job.run(FakeSource("empty", job.data, ends_after=0), FakeSource("hub", job.data, kind="origin"))
    assert report.bytes_by_source == {"hub": len(job.data)}
    assert job.reasons()["empty"][0] == "broke off after 0 bytes"


def test_a_hub_without_ranges_is_read_once_from_its_beginning(job: Job) -> None:
    job.data = noise(20 * MIB)
    hub = FakeSource("hub", job.data, kind="origin", ignores_ranges=True)
    report = job.run(hub)
    assert not job.events, "the hub has not failed"
    twice = report.bytes_by_source["hub"] - len(job.data)
    assert report.refetched_bytes == twice == hub.passed_over_bytes <= 16 * MIB


def test_a_hub_that_is_known_to_have_no_ranges_is_asked_once(job: Job) -> None:
    job.data = noise(20 * MIB)
    hub = FakeSource("hub", job.data, kind="origin", ignores_ranges=True, takes_ranges=False)
    assert job.run(hub).bytes_by_source["hub"] == len(job.data)
    assert not hub.passed_over_bytes


def test_a_long_way_to_the_missing_bytes_is_no_silence(job: Job) -> None:
    job.data = noise(20 * MIB)
    first = job.begin(FakeSource("peer", job.data, dies_after=18 * MIB))
    with pytest.raises(NoSourceLeft):
        first.result.result(SECONDS)
    first.stop()
    first.partial.close()
    job.events.clear()
    job.patience_seconds = 0.5
    report = job.run(FakeSource("hub", job.data, kind="origin", ignores_ranges=True, bytes_per_second=12 * MIB))
    assert not job.reasons().get("hub") and report.refetched_bytes >= 17 * MIB


def test_peers_come_before_a_hub_without_ranges(job: Job) -> None:
    job.data = noise(8 * MIB)
    hub = FakeSource("hub", job.data, kind="origin", ignores_ranges=True)
    report = job.run(hub, FakeSource("peer", job.data))
    assert set(report.bytes_by_source) == {"peer"}


def test_when_no_source_is_left_the_error_names_each_with_its_reason_and_the_bytes_are_kept(job: Job) -> None:
    gone = SourceFault("does not have it", is_permanent=True)
    fetch = job.begin(
        FakeSource("dying", job.data, dies_after=MIB + 1, chunk_bytes=4096), FakeSource("hub", b"", refuses=gone)
    )
    with pytest.raises(NoSourceLeft, match=r"dying: the connection was refused; hub: does not have it") as caught:
        fetch.result.result(20.0)
    assert caught.value.facts["sources"]["hub"] == "does not have it"
    fetch.stop()
    fetch.partial.close()
    rest = FakeSource("hub", job.data)
    job.run(rest)
    assert rest.given_bytes <= len(job.data) - MIB


def test_without_any_source_it_says_so_at_once(job: Job) -> None:
    job.patience_seconds = 60.0
    with pytest.raises(NoSourceLeft, match="no source has it"):
        job.begin().result.result(20.0)


def test_the_refusal_of_a_hub_is_the_error(job: Job) -> None:
    refusal = SourceFault("answers 403", is_permanent=True)
    refusal.__cause__ = GatedRepo("The repo is gated.")
    with pytest.raises(AccessDenied, match="gated"):
        job.begin(FakeSource("hub", b"", refuses=refusal)).result.result(20.0)


def test_patience_ends_even_while_a_source_is_always_being_asked(job: Job) -> None:
    job.patience_seconds = 0.8
    silent = FakeSource("silent", job.data, never_answers=True)
    with pytest.raises(NoSourceLeft, match="silent"):
        job.begin(silent).result.result(20.0)
    silent.released.set()


def test_a_lying_peer_among_honest_ones_is_the_only_liar_and_only_its_bytes_are_fetched_again(job: Job) -> None:
    job.data = noise(20 * MIB)
    liar = FakeSource("liar", job.data, lies_at=range(0, 20 * MIB, 4096), bytes_per_second=30e6)
    honest = [FakeSource(f"honest {n}", job.data, bytes_per_second=30e6) for n in range(2)]
    fetch = job.begin(liar, *honest)
    report = fetch.result.result(SECONDS)
    assert job.content(fetch) == job.data
    assert report.liars == ["liar"]
    assert job.liars() == {"liar"}
    samples = 3 * MIB
    assert report.refetched_bytes <= report.bytes_by_source["liar"] + samples


def test_a_peer_that_lies_in_one_byte_is_found(job: Job) -> None:
    job.data = noise(12 * MIB)
    liar = FakeSource("liar", job.data, lies_at=frozenset({MIB - 1}), bytes_per_second=30e6)
    peers = [FakeSource(f"honest {n}", job.data, bytes_per_second=30e6) for n in range(2)]
    report = job.run(liar, *peers, FakeSource("hub", job.data, kind="origin"))
    assert set(report.liars) <= {"liar"}
    assert job.liars() <= {"liar"}


@pytest.mark.parametrize("rate", [1e6, 4e6], ids=["too slow for a sample", "sampled"])
def test_of_two_peers_that_differ_the_bytes_of_the_one_that_gave_less_come_again_first(job: Job, rate: float) -> None:
    job.data = noise(20 * MIB)
    lies = range(0, len(job.data), 4096)
    liar = FakeSource("liar", job.data, lies_at=lies, bytes_per_second=rate)
    report = job.run(liar, FakeSource("honest", job.data, bytes_per_second=40e6))
    assert report.liars == ["liar"]
    assert report.refetched_bytes <= report.bytes_by_source["liar"] + 2 * MIB


def test_of_two_peers_without_a_hub_the_honest_one_gives_it_all(job: Job) -> None:
    for names in (("a", "b"), ("b", "a")):
        sources = {
            "a": FakeSource("a", job.data, bytes_per_second=30e6),
            "b": FakeSource("b", job.data, lies_at=range(0, len(job.data), 4096), bytes_per_second=30e6),
        }
        fetch = job.begin(*(sources[name] for name in names))
        report = fetch.result.result(SECONDS)
        assert job.content(fetch) == job.data
        assert report.liars == ["b"]
        fetch.partial.remove()


def test_many_liars_and_one_honest_peer(job: Job) -> None:
    lies = range(0, len(job.data), 4096)
    liars = [FakeSource(f"liar {n}", job.data, lies_at=lies, bytes_per_second=50e6) for n in range(4)]
    report = job.run(*liars, FakeSource("honest", job.data, bytes_per_second=50e6))
    assert set(report.liars) <= {liar.name for liar in liars}
    assert report.liars


def test_a_lying_mirror_does_not_keep_the_origin_from_being_believed(job: Job) -> None:
    mirror = FakeSource("mirror", job.data, kind="mirror", lies_at=frozenset({3 * MIB}))
    report = job.run(mirror, FakeSource("origin", job.data, kind="origin"))
    assert report.liars == ["mirror"]


def test_only_liars_are_all_named_and_nothing_of_theirs_is_kept(job: Job) -> None:
    fetch = job.begin(
        FakeSource("one", job.data, lies_at=frozenset({0})), FakeSource("two", job.data, lies_at=frozenset({0}))
    )
    with pytest.raises(CorruptData, match="it came from one, two"):
        fetch.result.result(SECONDS)
    assert fetch.partial.present.total == 0


def test_a_liar_of_an_earlier_run_is_found_through_the_journal(job: Job) -> None:
    partial = job.open()
    wrong = bytes(MIB)
    partial.write(0, memoryview(wrong))
    partial.record(0, MIB, "the day before's peer")
    partial.close()
    report = job.run(FakeSource("hub", job.data, kind="origin"))
    assert report.liars == ["the day before's peer"]
    assert report.refetched_bytes <= 2 * MIB


def test_a_fetch_stopped_while_wrong_bytes_are_replaced_keeps_none(job: Job) -> None:
    job.patience_seconds = 20.0
    liar = FakeSource("liar", job.data, lies_at=range(0, len(job.data), 4096))
    fetch = job.begin(liar)
    fetch.add_source(FakeSource("hub", job.data, kind="origin", bytes_per_second=2e6))
    assert wait_until(lambda: bool(fetch.discarded))
    fetch.stop()
    here = fetch.partial.present
    assert all(job.content(fetch)[start:stop] == job.data[start:stop] for start, stop in here)
    assert here.total < len(job.data)


def test_a_stopped_fetch_is_resumed_with_nothing_fetched_twice(job: Job) -> None:
    job.data = noise(20 * MIB)
    first = FakeSource("first", job.data, bytes_per_second=20e6)
    fetch = job.begin(first)
    assert wait_until(lambda: fetch.present_bytes > 6 * MIB)
    fetch.stop()
    here = fetch.partial.present.total
    assert first.open_bodies == 0
    fetch.partial.close()
    second = FakeSource("second", job.data)
    job.run(second)
    pieces_in_flight = 2 * MIB
    assert here >= 6 * MIB
    assert second.given_bytes <= 20 * MIB - here + pieces_in_flight


def test_stopping_ends_a_wait_for_the_result(job: Job) -> None:
    fetch = job.begin(FakeSource("silent", job.data, is_silent_after=0))
    threading.Timer(0.1, fetch.stop).start()
    with pytest.raises(concurrent.futures.CancelledError):
        fetch.result.result(20.0)


def test_stopping_does_not_wait_for_a_source_that_does_not_answer(job: Job) -> None:
    silent = FakeSource("silent", job.data, never_answers=True)
    fetch = job.begin(silent)
    assert silent.asked.wait(20.0)
    began_at = time.monotonic()
    fetch.stop()
    assert time.monotonic() - began_at < 20
    fetch.partial.close()
    silent.released.set()


def test_a_caller_may_cancel_its_wait_without_harm(job: Job) -> None:
    fetch = job.begin(FakeSource("peer", job.data, bytes_per_second=20e6))
    assert fetch.result.cancel()
    assert wait_until(lambda: fetch.present_bytes == len(job.data))


def test_a_full_disk_ends_the_fetch_and_keeps_what_came(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.data = noise(20 * MIB)
    real, written = os.pwrite, [0]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        written[0] += len(data)
        if written[0] > 8 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    fetch = job.begin(FakeSource("peer", job.data))
    with pytest.raises(NoSpace, match="the volume is full"):
        fetch.result.result(20.0)
    assert fetch.partial.present.total == 8 * MIB
    assert not job.liars()


def test_a_bug_in_a_worker_ends_the_fetch_instead_of_leaving_it_waiting(job: Job) -> None:
    class Broken(FakeSource):
        def open_range(self, blob: WantedBlob, start: int, stop: int, **_: bool) -> None:  # type: ignore[override]
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        job.begin(Broken("peer", job.data)).result.result(20.0)


def test_a_peer_that_still_fetches_gives_what_it_has_as_it_comes(job: Job) -> None:
    data = job.data = noise(4 * MIB)
    job.patience_seconds = 30.0
    peer = FakeSource("peer", data)
    fetch = job.begin()
    fetch.result.exception(20.0)  # no source has it yet
    fetch.stop()
    fetch.partial.close()
    fetch = job.begin(FakeSource("silent", data, never_answers=True))
    fetch.add_source(peer, PieceMap(len(data), MIB, 1, b"\x03"))
    assert wait_until(lambda: fetch.present_bytes == 2 * MIB)
    fetch.add_source(peer, PieceMap(len(data), MIB, 2, b"\x0f"))
    assert fetch.result.result(20.0).bytes_by_source == {"peer": 4 * MIB}
    for source in fetch._state._sources.values():
        assert isinstance(source, FakeSource)
        source.released.set()


def test_a_piece_map_of_another_grid_is_turned_away(job: Job) -> None:
    other = FakeSource("other", job.data)
    dumb = FakeSource("dumb", job.data, never_answers=True)
    fetch = job.begin(dumb)
    fetch.add_source(other, PieceMap(len(job.data) + 1, MIB, 1, None))
    with pytest.raises(NoSourceLeft, match="other: has 5242898 bytes under this digest"):
        fetch.result.result(20.0)
    assert not other.given
    dumb.released.set()


@pytest.mark.parametrize("seed", range(8))
def test_a_fetch_ends_whatever_its_sources_do(job: Job, seed: int) -> None:
    """Random sources: with an honest one the fetch verifies; without, it fails with a reason; it never hangs."""
    dice = random.Random(seed)
    job.patience_seconds = 8.0
    job.data = noise(dice.choice([1, MIB, 3 * MIB + 5, 12 * MIB]))
    sources = [_any_source(f"source {n}", job.data, dice) for n in range(dice.randint(1, 16))]
    has_honest = dice.random() < 0.7
    if has_honest:
        sources.append(FakeSource("honest", job.data, kind=dice.choice(["peer", "mirror", "origin"])))
    fetch = job.begin(*dice.sample(sources, len(sources)))
    stops = dice.random() < 0.2
    if stops:
        threading.Timer(dice.random(), fetch.stop).start()
    try:
        report = fetch.result.result(SECONDS)
        assert job.content(fetch) == job.data
        assert set(report.liars) <= {source.name for source in sources if source.lies_at}
    except concurrent.futures.CancelledError:
        assert stops
    except HfpeerError:
        assert not has_honest
    finally:
        fetch.stop()
        for source in sources:
            source.released.set()
    assert all(source.open_bodies == 0 for source in sources)


def _any_source(name: str, data: bytes, dice: random.Random) -> FakeSource:
    source = FakeSource(name, data, kind=dice.choice(["peer", "peer", "mirror", "origin"]))
    source.chunk_bytes = dice.choice([1000, 65536, 1 << 20])
    vice = dice.choice(["none", "dies", "silent", "dumb", "ends", "lies", "refuses", "slow"])
    if vice == "dies":
        source.dies_after = dice.randrange(3 * MIB)
    elif vice == "silent":
        source.is_silent_after = dice.choice([0, 5000, 2 * MIB])
    elif vice == "dumb":
        source.never_answers = True
    elif vice == "ends":
        source.ends_after = dice.choice([0, 10_000, MIB])
    elif vice == "lies":
        source.lies_at = range(dice.randrange(len(data)), len(data), dice.choice([4096, 3 * MIB]))
    elif vice == "refuses":
        source.refuses = SourceFault("refuses", is_permanent=dice.random() < 0.5)
    elif vice == "slow":
        source.bytes_per_second = dice.choice([2e4, 1e6])
        source.chunk_bytes = 5000
    return source
