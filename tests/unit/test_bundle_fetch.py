"""Small blobs: batches from peers, single ones from hubs, and what happens when either is not what it should be."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterable, Sequence

import pytest

from fakes.hostile import (
    AByteNowAndThen,
    AFileASecond,
    BusyForNoTime,
    HeaderOfABatch,
    NeverAnswers,
    OneFileABatch,
    OneFileABatchAndCloses,
    StallsAtOnce,
    TakesNineSeconds,
)
from fakes.peers import FlakyPeer, GoodPeer, LyingPeer, SilentPeer, TruncatingPeer, UnreachablePeer, digest_of
from fakes.sources import FakeSource
from fakes.waiting import wait_until
from hfpeer.budgets import MAX_HUB_MISSES
from hfpeer.errors import AccessDenied, CorruptData, GatedRepo, HfpeerError, NoSourceLeft, NoSpace
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import SourceFault
from hfpeer.peers.asking.address_client import AddressClient
from hfpeer.peers.asking.peer_client import PeerClient
from hfpeer.peers.protocol.paths import BATCH_PATH
from hfpeer.peers.protocol.pieces import PieceMap, PieceNews
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.picker.bitfield import bits_of
from hfpeer.transfer.small.bundle import Bundle
from hfpeer.transfer.small.fetch import BundleFetch
from hfpeer.transfer.small.verified import VerifiedBlob
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob
from hfpeer.transfer.sources.tiers import SourceKind, Tier

FILES = [random.Random(n).randbytes(n % 300 * 10) for n in range(200)]
REPO = RepoId.from_api_path("models/a/b")


def wanted(data: bytes, number: int) -> WantedBlob:
    digest = digest_of(data, "sha256" if number % 2 else "git-sha1")
    return WantedBlob(digest, len(data), REPO, Commit("0" * 40), FilePath(f"file-{number}"))


WANTED = [wanted(data, number) for number, data in enumerate(FILES)]
BLOBS = {blob.digest: data for blob, data in zip(WANTED, FILES, strict=True)}


class Hub(FakeSource):
    """A hub that gives each file by its path."""

    def open_range(self, blob: WantedBlob, start: int, stop: int, **_: bool) -> object:  # type: ignore[override]
        body = FakeSource(self.name, BLOBS.get(blob.digest, b"?" * blob.size_bytes), self.kind, refuses=self.refuses)
        body.lies_at, body.never_answers, body.released = self.lies_at, self.never_answers, self.released
        body.bytes_per_second = self.bytes_per_second
        with self._lock:
            self.given.append((start, stop))
        return body.open_range(blob, start, stop)


class Run:
    """One run of a BundleFetch, with what it kept."""

    def __init__(
        self,
        blobs: Sequence[WantedBlob] = WANTED,
        *,
        patience_seconds: float = 1.0,
        bundle: Bundle | None = None,
        credits: Credits | None = None,
        rest_seconds: float = 900.0,
    ) -> None:
        self.kept: dict[str, bytes] = {}
        self.events: list[Event] = []
        self.clients: list[AddressClient] = []
        self.small = BundleFetch(
            blobs,
            self.keep,
            self.events.append,
            patience_seconds=patience_seconds,
            rest_seconds=rest_seconds,
            bundle=bundle,
            credits=credits,
        )

    def keep(self, blobs: Sequence[VerifiedBlob]) -> None:
        for one in blobs:
            assert one.blob.path not in self.kept
            self.kept[one.blob.path] = one.data

    def peer(self, peer: GoodPeer, silence_seconds: float = 0.5) -> PeerSource:
        client = AddressClient(peer.address, "me", connect_timeout_seconds=0.5, silence_timeout_seconds=silence_seconds)
        self.clients.append(client)
        return PeerSource(peer.name, peer.node_id, PeerClient.at(client))

    def __call__(self, peers: Sequence[GoodPeer], *hubs: Hub) -> BundleFetch:
        sources = [self.peer(peer) for peer in peers]
        try:
            self.small.run(sources, hubs)  # type: ignore[arg-type]
        finally:
            for client in self.clients:
                client.range_client.close()
        return self.small

    def assert_all_kept(self) -> None:
        assert self.kept == {blob.path: data for blob, data in zip(WANTED, FILES, strict=True)}

    def liars(self) -> list[str]:
        return [event.source for event in self.events if isinstance(event, SourceFailed) and event.was_lying]


def test_a_peer_gives_many_in_one_request() -> None:
    run = Run()
    with GoodPeer(BLOBS) as peer:
        report = run([peer]).report
        assert len(peer.paths) <= 6
    run.assert_all_kept()
    assert report.bytes_by_source == {"good": sum(map(len, FILES))}


def test_what_one_peer_lacks_comes_from_the_next_and_what_none_has_from_the_hub() -> None:
    items = list(BLOBS.items())
    run, hub = Run(), Hub("hub", b"", kind="origin")
    with GoodPeer(dict(items[:80])) as one, GoodPeer(dict(items[60:150])) as two:
        one.name, two.name = "one", "two"
        run([one, two], hub)
    run.assert_all_kept()
    hub_files = [size for _, size in hub.given]
    assert len(hub_files) == 50


def test_a_lying_peer_is_named_once_and_the_files_that_it_claimed_come_from_the_honest_one() -> None:
    run = Run()
    with LyingPeer(BLOBS) as liar, GoodPeer(BLOBS) as honest:
        report = run([liar, honest]).report
    run.assert_all_kept()
    assert report.liars == run.liars() == ["lying"]


@pytest.mark.parametrize("kind", [FlakyPeer, TruncatingPeer, SilentPeer, UnreachablePeer])
def test_a_peer_that_breaks_off_costs_no_more_than_its_batches(kind: type[GoodPeer]) -> None:
    run, hub = Run(), Hub("hub", b"", kind="origin")
    with kind(BLOBS) as peer:
        report = run([peer], hub).report
    run.assert_all_kept()
    assert report.liars == []
    if kind is FlakyPeer:
        assert report.bytes_by_source["flaky"] > report.bytes_by_source.get("hub", 0)


def test_a_hub_that_lies_is_not_asked_again() -> None:
    run = Run()
    liar, honest = Hub("liar", b"", "mirror", lies_at=frozenset({0})), Hub("honest", b"", "origin")
    report = run([], liar, honest).report
    run.assert_all_kept()
    assert report.liars == ["liar"]
    assert len(liar.given) <= 16


def test_what_nobody_has_is_named_and_the_rest_is_kept() -> None:
    missing = wanted(b"nobody has this", 1000)
    run = Run([*WANTED, missing])
    with GoodPeer(BLOBS) as peer, pytest.raises(NoSourceLeft, match="file-1000: no source has it"):
        run([peer])
    run.assert_all_kept()


def test_a_hub_that_refuses_is_what_a_person_is_told_and_is_asked_once() -> None:
    refusal = SourceFault("answers 403", is_permanent=True)
    refusal.__cause__ = GatedRepo("The repo is gated.")
    hub = Hub("hub", b"", "origin", refuses=refusal)
    with pytest.raises(GatedRepo):
        Run()([], hub)
    assert len(hub.given) < MAX_HUB_MISSES + Tier.ORIGIN.bundle_requests


def test_a_mirror_that_fails_again_and_again_keeps_no_file_from_the_origin() -> None:
    run = Run(patience_seconds=60.0)
    mirror, origin = Hub("mirror", b"", kind="mirror"), Hub("origin", b"", kind="origin")
    mirror.refuses = SourceFault("answers 503")
    report = run([], mirror, origin).report
    run.assert_all_kept()
    assert {name for name, size_bytes in report.bytes_by_source.items() if size_bytes} == {"origin"}
    assert len(mirror.given) < 2 * len(FILES), "while it rests, others are asked"


def test_a_mirror_that_limits_requests_is_passed_over_and_asked_again() -> None:
    run = Run(patience_seconds=60.0)
    mirror, origin = Hub("mirror", b"", kind="mirror"), Hub("origin", b"", kind="origin")
    origin.bytes_per_second = 30_000.0
    mirror.refuses = SourceFault("limits requests", retry_after_seconds=0.3)
    timer = threading.Timer(0.2, lambda: setattr(mirror, "refuses", None))
    timer.start()
    report = run([], mirror, origin).report
    timer.join()
    run.assert_all_kept()
    assert set(report.bytes_by_source) == {"mirror", "origin"}


def test_a_hub_alone_that_limits_requests_is_waited_for_beyond_the_patience_and_within_its_bound() -> None:
    hub = Hub("hub", b"", kind="origin")
    hub.refuses = SourceFault("limits requests", retry_after_seconds=0.6)
    run = Run(patience_seconds=0.1, rest_seconds=30.0)
    timer = threading.Timer(0.3, lambda: setattr(hub, "refuses", None))
    timer.start()
    run([], hub)
    timer.join()
    run.assert_all_kept()
    hub.refuses = SourceFault("limits requests", retry_after_seconds=20.0)
    with pytest.raises(NoSourceLeft, match="limits requests") as caught:
        Run(patience_seconds=0.1, rest_seconds=10.0)([], hub)
    assert caught.value.facts["retry_after_seconds"] == 20.0


def test_a_mirror_that_is_down_costs_no_time_and_the_last_hub_is_tried_again() -> None:
    down = SourceFault("cannot be reached", is_unreachable=True)
    mirror, origin = Hub("mirror", b"", "mirror", refuses=down), Hub("hub", b"", "origin")
    run = Run(patience_seconds=60.0)
    began_at = time.monotonic()
    run([], mirror, origin)
    run.assert_all_kept()
    assert time.monotonic() - began_at < 20.0
    assert len(mirror.given) < 20, "as many as asked at once, and no more"
    alone = Hub("alone", b"", "origin", refuses=down)
    with pytest.raises(NoSourceLeft):
        Run(WANTED[1:2], patience_seconds=0.6)([], alone)
    assert len(alone.given) > 1


def test_a_disk_that_fails_ends_it() -> None:
    run = Run()

    def full(blobs: object) -> None:
        raise NoSpace("The disk is full.")

    run.small._keeper._keep = full
    with GoodPeer(BLOBS) as peer, pytest.raises(NoSpace):
        run([peer])


def test_cancelling_ends_a_read_that_waits_and_keeps_what_came() -> None:
    run = Run(patience_seconds=30.0)
    hub = Hub("hub", b"", "origin", never_answers=True)
    with GoodPeer(dict(list(BLOBS.items())[:50])) as good:
        working = threading.Thread(target=run, args=([good], hub))
        working.start()
        good.wait_for_request(BATCH_PATH)
        assert wait_until(lambda: len(run.kept) == 50)
        run.small.cancel()
        working.join(20.0)
        assert not working.is_alive()
    hub.released.set()


def test_the_same_blob_under_two_paths_is_fetched_once() -> None:
    run = Run([WANTED[7], WANTED[7]])
    with GoodPeer(BLOBS) as peer:
        run([peer])
    assert list(run.kept) == ["file-7"]


# One wrong file of a hub


class SpottyHub(Hub):
    """A hub that gives all files but some, by their paths; these it refuses, or has other bytes for."""

    def __init__(self, name: str, kind: SourceKind = "origin", **spots: SourceFault | None) -> None:
        super().__init__(name, b"", kind)
        self.spots = {path.replace("_", "-"): spot for path, spot in spots.items()}
        self.asked_for: list[str] = []

    def open_range(self, blob: WantedBlob, start: int, stop: int, **_: bool) -> object:  # type: ignore[override]
        with self._lock:
            self.asked_for.append(blob.path)
        if blob.path not in self.spots:
            return super().open_range(blob, start, stop)
        spot = self.spots[blob.path]
        if spot is not None:
            raise spot
        return FakeSource(self.name, b"?" * blob.size_bytes).open_range(blob, start, stop)


def refused() -> SourceFault:
    fault = SourceFault("answers 403", is_permanent=True)
    fault.__cause__ = AccessDenied("hub refuses access to a/b.", hint="Log in.")
    return fault


@pytest.mark.parametrize(
    ("spot", "error", "said"),
    [
        (None, CorruptData, "No source gives the right bytes of file-150: hub: gave wrong bytes."),
        (refused(), AccessDenied, "file-150 cannot be fetched: hub refuses access to a/b."),
        (SourceFault("answers 404", is_permanent=True), NoSourceLeft, "No source can give file-150: hub: answers 404."),
    ],
    ids=["wrong", "403", "404"],
)
def test_one_file_that_a_hub_does_not_give_costs_no_other_and_is_the_only_one_that_is_named(
    spot: SourceFault | None, error: type[HfpeerError], said: str
) -> None:
    run, hub = Run(), SpottyHub("hub", file_150=spot)
    with pytest.raises(error, match=re.escape(said)):
        run([], hub)
    assert run.kept.keys() == {blob.path for blob in WANTED} - {"file-150"}


def test_what_a_mirror_has_wrong_is_asked_of_the_origin_and_nothing_else_is() -> None:
    run = Run()
    mirror, origin = SpottyHub("mirror", "mirror", file_7=None, file_9=refused()), SpottyHub("origin")
    run([], mirror, origin)
    run.assert_all_kept()
    assert sorted(origin.asked_for) == ["file-7", "file-9"]


# Peers that waste time


@pytest.mark.parametrize(
    "kind",
    [
        OneFileABatch,
        OneFileABatchAndCloses,
        AFileASecond,
        HeaderOfABatch,
        StallsAtOnce,
        AByteNowAndThen,
        NeverAnswers,
        TakesNineSeconds,
        BusyForNoTime,
    ],
)
def test_a_peer_that_keeps_files_waiting_and_gives_too_few_is_asked_after_the_hub(
    kind: type[GoodPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.promises.NEAR_HOLD_SECONDS", 0.5)
    run, hub = Run(), Hub("hub", b"", kind="origin")
    with kind(BLOBS) as peer:
        began_at = time.monotonic()
        run.small.run([run.peer(peer, silence_seconds=30.0)], [hub])  # type: ignore[list-item]
        seconds = time.monotonic() - began_at
        for client in run.clients:
            client.range_client.close()
    run.assert_all_kept()
    assert seconds < 25.0, "nothing waits for the silence limit"


def test_where_there_is_nobody_else_a_slow_peer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.promises.NEAR_HOLD_SECONDS", 0.2)
    run = Run(WANTED[:3])
    with AFileASecond(BLOBS) as peer:
        run.small.run([run.peer(peer, silence_seconds=30.0)], [])
        run.clients[0].range_client.close()
    assert len(run.kept) == 3


def test_who_kept_files_waiting_is_asked_last_for_the_next_bundle_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.promises.NEAR_HOLD_SECONDS", 0.5)
    credits = Credits()
    with StallsAtOnce(BLOBS) as peer:
        for _ in range(2):
            run, hub = Run(credits=credits), Hub("hub", b"", kind="origin")
            run.small.run([run.peer(peer, silence_seconds=30.0)], [hub])  # type: ignore[list-item]
            run.assert_all_kept()
            run.clients[0].range_client.close()
        assert len(peer.paths) <= Tier.PEER.bundle_requests, "nothing more the second time"


# Leechers


def a_bundle() -> Bundle:
    digests = [blob.digest for blob in WANTED]
    return Bundle(digests, digests, own_id="me")


def own_share(leecher: str) -> int:
    """How many are this node's beside one leecher."""
    bundle = a_bundle()
    bundle.meet(leecher, Tier.PEER, leecher)
    bundle.fetches(leecher, 0)
    bundle.meet("seed", Tier.PEER)
    return len(bundle.claim("seed", len(WANTED), rank=1))


def map_of(numbers: Iterable[int]) -> PieceMap:
    return PieceMap(len(WANTED), 1, 1, bits_of(numbers).to_bytes(len(WANTED) // 8, "little"))


def asked_of(peer: GoodPeer) -> set[str]:
    return {digest for request in peer.requests for digest in request.query.get("digests", "").split(",") if digest}


def test_a_leecher_gives_what_it_has_as_it_gets_it_and_the_seed_the_rest() -> None:
    run, share = Run(bundle=a_bundle()), own_share("fe" * 16)
    with GoodPeer(BLOBS) as seed, GoodPeer(BLOBS) as leecher:
        leecher.name, leecher.node_id = "leecher", "fe" * 16
        run.small.add_source(run.peer(leecher), map_of([]))
        working = threading.Thread(target=run, args=([seed],))
        working.start()
        assert wait_until(lambda: len(run.kept) == share)
        run.small.hear("leecher", PieceNews(added=tuple(range(200))))
        working.join(20.0)
        assert not working.is_alive()
        from_seed, from_leecher = asked_of(seed), asked_of(leecher)
    run.assert_all_kept()
    assert len(from_seed) == share
    assert from_seed | from_leecher == {str(digest) for digest in BLOBS}
    assert not from_seed & from_leecher


def test_the_share_of_a_leecher_that_brings_nothing_is_taken_over_soon() -> None:
    run = Run(bundle=a_bundle())
    with GoodPeer(BLOBS) as seed, GoodPeer({}) as leecher:
        leecher.name, leecher.node_id = "leecher", "fe" * 16
        run.small.add_source(run.peer(leecher), map_of([]))
        began_at = time.monotonic()
        run([seed])
    run.assert_all_kept()
    assert 0.3 < time.monotonic() - began_at < 20.0


def test_what_a_silent_leecher_has_told_of_is_asked_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.state.LEECHER_SECONDS", 0.5)
    run = Run(bundle=a_bundle())
    with GoodPeer(BLOBS) as seed, SilentPeer(BLOBS) as leecher:
        leecher.node_id = "fe" * 16
        run.small.add_source(run.peer(leecher), map_of(range(200)))
        run([seed])
    run.assert_all_kept()


def test_a_lying_leecher_is_named_and_its_files_come_from_the_seed() -> None:
    run = Run(bundle=a_bundle())
    with GoodPeer(BLOBS) as seed, LyingPeer(BLOBS) as leecher:
        leecher.node_id = "fe" * 16
        run.small.add_source(run.peer(leecher), map_of(range(200)))
        report = run([seed]).report
    run.assert_all_kept()
    assert report.liars == run.liars() == ["lying"]


def test_leechers_who_all_wait_for_what_nobody_has_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.picker.LEECHER_PATIENCE_SECONDS", 0.5)
    run = Run(bundle=a_bundle())
    with GoodPeer({}) as seed, GoodPeer({}) as leecher:
        leecher.name, leecher.node_id = "leecher", "fe" * 16
        run.small.add_source(run.peer(leecher), map_of([]))
        with pytest.raises(NoSourceLeft):
            run([seed])


def test_a_map_of_another_bundle_makes_nobody_a_leecher() -> None:
    run = Run(bundle=a_bundle())
    with GoodPeer(BLOBS) as seed, GoodPeer({}) as stranger:
        stranger.name = "stranger"
        run.small.add_source(run.peer(stranger), PieceMap(7, 1, 1, b"\x7f"))
        run.small.hear("stranger", PieceNews(added=(1,)))
        run([seed])
        assert stranger.paths == []
    run.assert_all_kept()
