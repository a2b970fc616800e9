"""Small blobs: batches from peers, single ones from hubs, and what happens when either is not what it should be."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence

import pytest

from fakes.peers import FlakyPeer, GoodPeer, LyingPeer, SilentPeer, TruncatingPeer, UnreachablePeer, digest_of
from fakes.sources import FakeSource, wait_until
from hfpeer.errors import GatedRepo, NoSourceLeft, NoSpace
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.peers.client import PeerClient
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.lots import Lot
from hfpeer.transfer.pieces import bits_of
from hfpeer.transfer.small import SmallBlobs
from hfpeer.transfer.sources import PeerSource, WantedBlob
from hfpeer.wire import BATCH_PATH, PieceMap, PieceNews, SourceFault

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
        with self._lock:
            self.given.append((start, stop))
        return body.open_range(blob, start, stop)


class Run:
    """One run of SmallBlobs, with what it kept."""

    def __init__(
        self, blobs: Sequence[WantedBlob] = WANTED, *, patience_seconds: float = 1.0, lot: Lot | None = None
    ) -> None:
        self.kept: dict[str, bytes] = {}
        self.events: list[Event] = []
        self.clients: list[PeerClient] = []
        self.small = SmallBlobs(blobs, self.keep, self.events.append, patience_seconds=patience_seconds, lot=lot)

    def keep(self, blobs: Sequence[tuple[WantedBlob, bytes]]) -> None:
        for blob, data in blobs:
            assert blob.path not in self.kept
            self.kept[blob.path] = data

    def peer(self, peer: GoodPeer) -> PeerSource:
        client = PeerClient(peer.address, "me", connect_timeout_seconds=0.5, silence_timeout_seconds=0.5)
        self.clients.append(client)
        return PeerSource(peer.name, peer.node_id, client)

    def __call__(self, peers: Sequence[GoodPeer], *hubs: Hub) -> SmallBlobs:
        sources = [self.peer(peer) for peer in peers]
        try:
            self.small.run(sources, hubs)  # type: ignore[arg-type]
        finally:
            for client in self.clients:
                client._bodies.close()
        return self.small

    def assert_all_kept(self) -> None:
        assert self.kept == {blob.path: data for blob, data in zip(WANTED, FILES, strict=True)}

    def blamed(self) -> list[str]:
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


def test_a_lying_peer_is_blamed_once_and_what_it_had_claimed_comes_from_the_honest_one() -> None:
    run = Run()
    with LyingPeer(BLOBS) as liar, GoodPeer(BLOBS) as honest:
        report = run([liar, honest]).report
    run.assert_all_kept()
    assert report.liars == run.blamed() == ["lying"]


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
    with GoodPeer(BLOBS) as peer, pytest.raises(NoSourceLeft, match="file-1000: no source has got it"):
        run([peer])
    run.assert_all_kept()


def test_a_hub_that_refuses_is_what_a_person_is_told_and_is_asked_once() -> None:
    refusal = SourceFault("answers 403", is_permanent=True)
    refusal.__cause__ = GatedRepo("The repo is gated.")
    hub = Hub("hub", b"", "origin", refuses=refusal)
    with pytest.raises(GatedRepo):
        Run()([], hub)
    assert len(hub.given) <= 8


def test_a_mirror_that_is_down_costs_no_time_and_the_last_hub_is_tried_again() -> None:
    down = SourceFault("cannot be reached", is_unreachable=True)
    mirror, origin = Hub("mirror", b"", "mirror", refuses=down), Hub("hub", b"", "origin")
    run = Run(patience_seconds=60.0)
    began_at = time.monotonic()
    run([], mirror, origin)
    run.assert_all_kept()
    assert time.monotonic() - began_at < 2.0
    assert len(mirror.given) < 20, "as many as asked at once, and no more"
    alone = Hub("alone", b"", "origin", refuses=down)
    with pytest.raises(NoSourceLeft):
        Run(WANTED[1:2], patience_seconds=0.6)([], alone)
    assert len(alone.given) > 1


def test_a_disk_that_fails_ends_it() -> None:
    run = Run()

    def full(blobs: object) -> None:
        raise NoSpace("The disk is full.")

    run.small._keep = full
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
        working.join(3)
        assert not working.is_alive()
    hub.released.set()


def test_the_same_blob_under_two_paths_is_fetched_once() -> None:
    run = Run([WANTED[7], WANTED[7]])
    with GoodPeer(BLOBS) as peer:
        run([peer])
    assert list(run.kept) == ["file-7"]


# Fellows


def a_lot() -> Lot:
    digests = [blob.digest for blob in WANTED]
    return Lot(digests, digests, own_id="me")


def own_share(fellow: str) -> int:
    """How many are this node's beside one fellow."""
    lot = a_lot()
    lot.meet(fellow, 0, fellow)
    lot.fetches(fellow, 0)
    lot.meet("holder", 0)
    return len(lot.claim("holder", len(WANTED), rank=1))


def map_of(numbers: Iterable[int]) -> PieceMap:
    return PieceMap(len(WANTED), 1, 1, bits_of(numbers).to_bytes(len(WANTED) // 8, "little"))


def asked_of(peer: GoodPeer) -> set[str]:
    return {digest for request in peer.requests for digest in request.query.get("digests", "").split(",") if digest}


def test_a_fellow_gives_what_it_has_as_it_gets_it_and_the_holder_the_rest() -> None:
    run, share = Run(lot=a_lot()), own_share("fe" * 16)
    with GoodPeer(BLOBS) as holder, GoodPeer(BLOBS) as fellow:
        fellow.name, fellow.node_id = "fellow", "fe" * 16
        run.small.add_source(run.peer(fellow), map_of([]))
        working = threading.Thread(target=run, args=([holder],))
        working.start()
        assert wait_until(lambda: len(run.kept) == share)
        run.small.hear("fellow", PieceNews(added=tuple(range(200))))
        working.join(10)
        assert not working.is_alive()
        from_holder, from_fellow = asked_of(holder), asked_of(fellow)
    run.assert_all_kept()
    assert len(from_holder) == share
    assert from_holder | from_fellow == {str(digest) for digest in BLOBS}
    assert not from_holder & from_fellow


def test_the_share_of_a_fellow_that_brings_nothing_is_taken_over_soon() -> None:
    run = Run(lot=a_lot())
    with GoodPeer(BLOBS) as holder, GoodPeer({}) as fellow:
        fellow.name, fellow.node_id = "fellow", "fe" * 16
        run.small.add_source(run.peer(fellow), map_of([]))
        began_at = time.monotonic()
        run([holder])
    run.assert_all_kept()
    assert 0.3 < time.monotonic() - began_at < 3.0


def test_what_a_silent_fellow_has_told_of_is_asked_of_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.FELLOW_SECONDS", 0.5)
    run = Run(lot=a_lot())
    with GoodPeer(BLOBS) as holder, SilentPeer(BLOBS) as fellow:
        fellow.node_id = "fe" * 16
        run.small.add_source(run.peer(fellow), map_of(range(200)))
        run([holder])
    run.assert_all_kept()


def test_a_fellow_that_lies_is_blamed_and_what_it_gave_comes_from_the_holder() -> None:
    run = Run(lot=a_lot())
    with GoodPeer(BLOBS) as holder, LyingPeer(BLOBS) as fellow:
        fellow.node_id = "fe" * 16
        run.small.add_source(run.peer(fellow), map_of(range(200)))
        report = run([holder]).report
    run.assert_all_kept()
    assert report.liars == run.blamed() == ["lying"]


def test_fellows_who_all_wait_for_what_nobody_has_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.transfer.small.FELLOW_PATIENCE_SECONDS", 0.5)
    run = Run(lot=a_lot())
    with GoodPeer({}) as holder, GoodPeer({}) as fellow:
        fellow.name, fellow.node_id = "fellow", "fe" * 16
        run.small.add_source(run.peer(fellow), map_of([]))
        with pytest.raises(NoSourceLeft):
            run([holder])


def test_a_map_of_another_lot_makes_nobody_a_fellow() -> None:
    run = Run(lot=a_lot())
    with GoodPeer(BLOBS) as holder, GoodPeer({}) as stranger:
        stranger.name = "stranger"
        run.small.add_source(run.peer(stranger), PieceMap(7, 1, 1, b"\x7f"))
        run.small.hear("stranger", PieceNews(added=(1,)))
        run([holder])
        assert stranger.paths == []
    run.assert_all_kept()
