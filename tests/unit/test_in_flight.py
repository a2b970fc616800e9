"""Fetches of one node share the small files that they request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource
from fakes.waiting import wait_until
from hfpeer.errors import AccessDenied, ForgedManifest, NoSourceLeft
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.net.body import Body, SourceFault
from hfpeer.transfer.small.fetch import BundleFetch
from hfpeer.transfer.small.in_flight import InFlight
from hfpeer.transfer.small.verified import VerifiedBlob
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind

FILES = [random.Random(n).randbytes(100 + n) for n in range(60)]
ONE, TWO = RepoId.from_api_path("models/a/one"), RepoId.from_api_path("models/a/two")


def wanted(numbers: Sequence[int], repo: RepoId = ONE) -> list[WantedBlob]:
    return [
        WantedBlob(digest_of(FILES[n], "git-sha1"), len(FILES[n]), repo, Commit("0" * 40), FilePath(f"file-{n}"))
        for n in numbers
    ]


BLOBS = {blob.digest: data for blob, data in zip(wanted(range(60)), FILES, strict=True)}


class Hub(FakeSource):
    """Gives each file once it may: all, those that `let` named, or none that it `refuses_files`."""

    def __init__(self, name: str = "hub", kind: SourceKind = "origin", *, is_open_now: bool = True) -> None:
        super().__init__(name, b"", kind)
        self.asked_for: list[str] = []
        self.refuses_files: set[str] = set()
        self._gate = threading.Condition()
        self._let: set[str] = set()
        self._is_open_now = is_open_now

    def let(self, *paths: str) -> None:
        """From now on these files are given, or all."""
        with self._gate:
            self._let |= set(paths)
            self._is_open_now |= not paths
            self._gate.notify_all()

    def open_range(self, blob: WantedBlob, start: int, stop: int, *, cut_through: bool = False) -> Body:
        with self._gate:
            self.asked_for.append(blob.path)
            if blob.path in self.refuses_files:
                fault = SourceFault("answers 403", is_permanent=True)
                fault.__cause__ = AccessDenied("hub refuses access.", hint="Log in.")
                raise fault
            self._gate.wait_for(lambda: self._is_open_now or blob.path in self._let, 10.0)
        return FakeSource(self.name, BLOBS[blob.digest]).open_range(blob, start, stop)


class Run:
    """A fetch in a thread of its own, with what it kept."""

    def __init__(
        self,
        in_flight: InFlight,
        blobs: Sequence[WantedBlob],
        *hubs: Hub,
        find: Callable[[Sequence[WantedBlob]], Collection[Digest]] = lambda blobs: (),
        only_given: bool = False,
        is_kept_later: bool = False,
    ) -> None:
        self.kept: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.fetch = BundleFetch(
            blobs,
            self._keep,
            lambda event: None,
            find=find,
            in_flight=in_flight,
            patience_seconds=5.0,
            only_given=only_given,
            is_kept_later=is_kept_later,
        )
        self._hubs = hubs
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.fetch.run([], self._hubs)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001
            self.error = error

    def _keep(self, blobs: Sequence[VerifiedBlob]) -> None:
        for one in blobs:
            assert one.blob.path not in self.kept
            self.kept[one.blob.path] = one.data

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self) -> dict[str, bytes]:
        self._thread.join(20.0)
        assert self.is_over
        if self.error is not None:
            raise self.error
        return self.kept


def paths(numbers: Sequence[int]) -> set[str]:
    return {f"file-{n}" for n in numbers}


@contextmanager
def two(is_open_now: bool = False) -> Iterator[tuple[InFlight, Hub, Hub]]:
    """Two hubs that hold back their files; all are given in the end."""
    hubs = Hub("hub", is_open_now=is_open_now), Hub("other", is_open_now=is_open_now)
    try:
        yield InFlight(), *hubs
    finally:
        for hub in hubs:
            hub.let()


def test_what_two_fetches_want_is_requested_once_and_kept_by_both() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted(range(40)), hub)
        assert wait_until(lambda: hub.asked_for)
        second = Run(in_flight, wanted(range(20, 60), TWO), other)
        assert wait_until(lambda: len(other.asked_for) == 8)
        hub.let()
        other.let()
        assert first.finish().keys() == paths(range(40))
        assert second.finish().keys() == paths(range(20, 60))
        assert sorted(hub.asked_for + other.asked_for) == sorted(paths(range(60)))
        assert second.fetch.report.bytes_by_source == {"other": sum(map(len, FILES[40:]))}
        assert second.fetch.joined.bytes_by_source == {"hub": sum(map(len, FILES[20:40]))}
        assert not in_flight._owners


def test_a_file_that_another_fetch_waits_for_is_requested_before_others() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted(range(60)), hub)
        assert wait_until(lambda: len(hub.asked_for) == 8)
        second = Run(in_flight, wanted([59], TWO), other)
        assert wait_until(lambda: in_flight._waiting.get(wanted([59])[0].digest))
        hub.let("file-0", "file-59")
        assert second.finish().keys() == {"file-59"}
        assert not first.is_over and not other.asked_for


def test_a_fetch_that_is_cancelled_leaves_its_files_to_those_that_wait() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted(range(3)), hub)
        assert wait_until(lambda: len(hub.asked_for) == 3)
        second, third = (Run(in_flight, wanted(range(3), TWO), other) for _ in range(2))
        assert wait_until(lambda: len(in_flight._waiting.get(wanted([0])[0].digest, ())) == 2)
        first.fetch.cancel()
        assert wait_until(lambda: len(other.asked_for) == 3)
        other.let()
        assert second.finish().keys() == third.finish().keys() == paths(range(3))
        assert sorted(other.asked_for) == sorted(paths(range(3)))


def test_a_file_that_the_sources_of_one_fetch_refused_is_requested_by_another_at_once() -> None:
    with two() as (in_flight, hub, other):
        hub.refuses_files.add("file-0")
        other.let()
        first = Run(in_flight, wanted(range(20)), hub)
        assert wait_until(lambda: len(hub.asked_for) == 9)
        assert Run(in_flight, wanted([0], TWO), other).finish().keys() == {"file-0"}
        assert not first.is_over
        hub.let()
        with pytest.raises(AccessDenied):
            first.finish()
        assert first.kept.keys() == paths(range(1, 20))


def test_a_file_that_the_sources_of_one_fetch_refuse_goes_to_the_fetch_that_waits_and_comes_back() -> None:
    with two() as (in_flight, hub, other):
        hub.refuses_files.add("file-19")
        other.let()
        first = Run(in_flight, wanted(range(20)), hub)
        assert wait_until(lambda: len(hub.asked_for) == 8)
        second = Run(in_flight, wanted([19], TWO), other)
        assert wait_until(lambda: in_flight._waiting.get(wanted([19])[0].digest))
        hub.let("file-0")
        assert second.finish().keys() == {"file-19"}
        assert wait_until(lambda: "file-19" in first.kept)
        hub.let()
        assert first.finish().keys() == paths(range(20))


def test_a_fetch_whose_sources_are_through_waits_for_the_fetch_that_has_the_file() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted([0]), hub)
        assert wait_until(lambda: hub.asked_for)
        second = Run(in_flight, wanted([0, 1], TWO))
        time.sleep(0.3)
        assert not second.is_over
        hub.let()
        first.finish()
        with pytest.raises(NoSourceLeft, match=r"file-1: no source has it"):
            second.finish()
        assert second.kept.keys() == {"file-0"}
        assert not other.asked_for


def test_a_file_that_came_into_the_cache_since_it_was_looked_for_is_not_requested() -> None:
    in_flight, hub = InFlight(), Hub()
    here = {blob.digest for blob in wanted(range(10))}
    run = Run(in_flight, wanted(range(20)), hub, find=lambda blobs: [b.digest for b in blobs if b.digest in here])
    assert run.finish().keys() == paths(range(10, 20))
    assert sorted(hub.asked_for) == sorted(paths(range(10, 20)))


def test_how_many_came_into_the_cache_says_whether_a_look_is_up_to_date() -> None:
    in_flight = InFlight()
    Run(in_flight, wanted(range(5)), Hub()).finish()
    assert in_flight.kept_count == 5


def test_a_file_that_is_put_into_the_cache_later_is_handed_out_until_then() -> None:
    in_flight, hub = InFlight(), Hub()
    Run(in_flight, wanted([0]), hub, is_kept_later=True).finish()
    digest = wanted([0])[0].digest
    assert in_flight.find(digest) is not None
    assert Run(in_flight, wanted([0], TWO), hub).finish() == {"file-0": FILES[0]}
    assert hub.asked_for == ["file-0"]
    in_flight.kept(None, [digest])
    assert in_flight.find(digest) is None


def test_a_caller_of_what_is_given_openly_does_not_get_what_a_token_brought() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted([0]), hub)
        assert wait_until(lambda: hub.asked_for)
        second = Run(in_flight, wanted([0], TWO), other, only_given=True)
        assert wait_until(lambda: in_flight._waiting.get(wanted([0])[0].digest))
        other.let()
        time.sleep(0.3)
        assert other.asked_for == []
        hub.let()
        assert first.finish() == second.finish() == {"file-0": FILES[0]}
        assert other.asked_for == ["file-0"]


def test_a_listing_that_lies_about_the_size_of_a_file_is_found_out() -> None:
    with two() as (in_flight, hub, other):
        first = Run(in_flight, wanted([0]), hub)
        assert wait_until(lambda: hub.asked_for)
        honest = wanted([0], TWO)[0]
        forged = WantedBlob(honest.digest, honest.size_bytes + 1, honest.repo, honest.commit, honest.path)
        second = Run(in_flight, [forged], other)
        assert wait_until(lambda: in_flight._waiting.get(honest.digest))
        hub.let()
        first.finish()
        with pytest.raises(ForgedManifest):
            second.finish()
