"""A node among hubs and peers of every kind: nothing wrong is ever visible in its cache, each liar is named, and a
token goes only where it belongs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.hub import HubSimulator, Lfs, faults
from fakes.hub.faults import Fault
from fakes.hub.zoo import noise
from fakes.peers import (
    CAST,
    FlakyPeer,
    ForgingManifestPeer,
    ForgingRefsPeer,
    ForgingSizesPeer,
    GoodPeer,
    GzippingPeer,
    HugeMessagePeer,
    IgnoresRangePeer,
    LyingPeer,
    PassingOffPointersPeer,
    PathTraversalPeer,
    RedirectingPeer,
    SilentPeer,
    SlowPeer,
    StallingPeer,
    TruncatingPeer,
    UnreachablePeer,
    WrongLengthPeer,
    WrongRangePeer,
)
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.errors import CorruptData, ForgedManifest, HfpeerError, NoSourceLeft, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer.ranges import MIB
from hfpeer.transfer.events import Event, Finished, SourceFailed
from hfpeer.upstream.upstream import Upstream

REPO = RepoId.from_api_path("models/acme/weights")
LARGE = noise(6 * MIB + 77, "large")
FILES = {
    "config.json": b'{"layers": 2}\n',
    "model.safetensors": LARGE,
    "vocabulary.txt": noise(30_000, "vocabulary"),
}
SECRET = HubSimulator.valid_token
LARGE_PATH = "*model.safetensors"


@dataclass
class Scene:
    """A mirror and an origin with one repo, and as many nodes as wanted, each with a home of its own."""

    mirror: HubSimulator
    origin: HubSimulator
    commit: Commit
    folder: Path
    events: list[Event] = field(default_factory=list)

    @property
    def upstreams(self) -> str:
        return f"mirror={self.mirror.endpoint},origin={self.origin.endpoint}"

    @asynccontextmanager
    async def node(
        self, peers: Sequence[GoodPeer] = (), upstreams: str | None = None, patience: int = 3, name: str = "node"
    ) -> AsyncIterator[Node]:
        environ = {
            "HF_HUB_CACHE": str(self.folder / name / "hub"),
            "HFPEER_UPSTREAMS": self.upstreams if upstreams is None else upstreams,
            "HFPEER_PEERS": ",".join(str(peer.address) for peer in peers),
            "HFPEER_MDNS": "0",
            "HFPEER_PATIENCE": str(patience),
        }
        node = Node(read_settings(environ, home=self.folder / name))
        try:
            await node.start(Address("127.0.0.1", 1) if peers else None)
            yield node
        finally:
            await node.stop()

    async def add(self, node: Node, revision: str | None = None) -> Finished:
        request = AddRequest(repo=REPO, revision=Revision(revision or self.commit), token=SECRET)
        try:
            return await asyncio.wait_for(node.add(request, self.events.append), 60)
        finally:
            assert_only_truth(node.store.cache)

    def assert_whole(self, node: Node) -> None:
        snapshot = node.store.snapshot_path(REPO, self.commit)
        found = {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}
        assert found == FILES

    def liars(self) -> set[str]:
        return {event.source for event in self.events if isinstance(event, SourceFailed) and event.was_lying}

    def said_of(self, source: str) -> str:
        return "; ".join(e.reason for e in self.events if isinstance(e, SourceFailed) and e.source == source)

    async def manifest(self) -> Manifest:
        upstream = Upstream("origin", "origin", self.origin.endpoint)
        try:
            return await upstream.manifest(REPO, self.commit)
        finally:
            await upstream.aclose()

    def assert_tokens_stay_home(self) -> None:
        assert self.mirror.requests_with_token(SECRET) == []
        assert {record.listener for record in self.origin.requests_with_token(SECRET)} <= {"hub"}


def assert_only_truth(cache: Path) -> None:
    """Every blob hashes to its name, every link of a snapshot leads to one, and nothing lies outside its place."""
    for blob in cache.glob("*--*/blobs/*"):
        data = blob.read_bytes()
        hashes = {64: hashlib.sha256(data), 40: hashlib.sha1(b"blob %d\0" % len(data) + data)}
        assert hashes[len(blob.name)].hexdigest() == blob.name
    for link in cache.glob("*--*/snapshots/**/*"):
        assert link.is_dir() or link.resolve(strict=True).parent.name == "blobs"
    assert not list(cache.parent.parent.rglob("*escaped*"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with HubSimulator() as origin, HubSimulator(mirror_of=origin) as mirror:
        contents = {path: Lfs(data) if path.endswith("safetensors") else data for path, data in FILES.items()}
        commit = Commit(origin.put_repo("model", "acme/weights", contents))
        yield Scene(mirror, origin, commit, tmp_path)
        origin.faults.clear()
        mirror.faults.clear()


@asynccontextmanager
async def company(scene: Scene, *kinds: type[GoodPeer]) -> AsyncIterator[list[GoodPeer]]:
    """Peers that share the repo, each in its own way. None of them has seen a secret when the block is left."""
    manifest = await scene.manifest()
    blobs = {file.digest: FILES[file.path] for file in manifest.files if file.path in FILES}
    peers = [kind(blobs, manifests=[manifest]) for kind in kinds]
    async with AsyncExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        yield peers
        for peer in peers:
            peer.assert_anonymous()
            assert SECRET not in str(peer.requests)
    scene.assert_tokens_stay_home()


# Peers

BAD_PEERS = [kind for kind in CAST if kind is not SlowPeer]


@pytest.mark.parametrize("kind", BAD_PEERS)
async def test_with_one_bad_peer_and_the_hubs_everything_arrives(scene: Scene, kind: type[GoodPeer]) -> None:
    async with company(scene, kind) as peers, scene.node(peers) as node:
        await scene.add(node)
        scene.assert_whole(node)
    liars = {LyingPeer: {"lying"}, ForgingManifestPeer: {"forgingmanifest"}, WrongLengthPeer: {"wronglength"}}
    assert scene.liars() == liars.get(kind, set())


@pytest.mark.parametrize("kind", [FlakyPeer, StallingPeer, TruncatingPeer, IgnoresRangePeer, LyingPeer])
async def test_what_a_bad_peer_spoils_a_good_one_gives_without_any_hub(scene: Scene, kind: type[GoodPeer]) -> None:
    async with company(scene, kind, GoodPeer) as peers, scene.node(peers, upstreams="", patience=20) as node:
        await scene.add(node)
        scene.assert_whole(node)
    assert scene.liars() == ({"lying"} if kind is LyingPeer else set())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (WrongLengthPeer, "wronglength: (has [0-9]+ bytes under this digest|gave wrong bytes)"),
        (WrongRangePeer, "another range"),
        (GzippingPeer, "[Nn]o hub is set"),
        (LyingPeer, "does not hash to|gave wrong bytes"),
    ],
)
async def test_with_a_bad_peer_alone_nothing_arrives_and_the_error_names_it(
    scene: Scene, kind: type[GoodPeer], reason: str
) -> None:
    async with company(scene, kind) as peers, scene.node(peers, upstreams="", patience=1) as node:
        with pytest.raises((CorruptData, Unreachable), match=reason) as caught:
            await scene.add(node)
        assert not list(node.store.cache.glob("*--*/blobs/" + hashlib.sha256(LARGE).hexdigest()))
    if kind is not GzippingPeer:
        assert kind(()).name in str(caught.value)


async def test_a_forged_manifest_is_refused_and_its_forger_named(scene: Scene) -> None:
    async with company(scene, ForgingManifestPeer) as peers, scene.node(peers, upstreams="") as node:
        with pytest.raises(HfpeerError):
            await scene.add(node)
        assert not list(node.store.cache.glob("*--*/blobs/*"))
    assert scene.liars() == {"forgingmanifest"}
    assert "commit" in scene.said_of("forgingmanifest")


@pytest.mark.parametrize("kind", [PassingOffPointersPeer, ForgingSizesPeer])
async def test_a_listing_that_only_its_files_give_away_is_asked_of_a_hub_again(
    scene: Scene, kind: type[GoodPeer]
) -> None:
    async with company(scene, kind) as peers, scene.node(peers) as node:
        await scene.add(node)
        scene.assert_whole(node)


@pytest.mark.parametrize(
    ("kind", "path"), [(PassingOffPointersPeer, "model.safetensors"), (ForgingSizesPeer, "config.json")]
)
async def test_without_a_hub_nothing_of_what_it_forged_is_visible_and_it_is_forgotten(
    scene: Scene, kind: type[GoodPeer], path: str
) -> None:
    async with company(scene, kind) as peers, scene.node(peers, upstreams="", patience=1) as node:
        with pytest.raises((ForgedManifest, NoSourceLeft)):
            await scene.add(node)
        assert not list(node.store.cache.glob(f"*--*/snapshots/*/{path}"))
        assert node.store.manifests.load(REPO, scene.commit) is None


async def test_a_forged_ref_does_not_outweigh_a_hub(scene: Scene) -> None:
    async with company(scene, ForgingRefsPeer, GoodPeer) as peers, scene.node(peers) as node:
        finished = await scene.add(node, "main")
    assert finished.commit == scene.commit


@pytest.mark.parametrize("kind", [PathTraversalPeer, HugeMessagePeer, RedirectingPeer, SilentPeer, UnreachablePeer])
async def test_without_a_hub_a_peer_that_talks_nonsense_gives_nothing(scene: Scene, kind: type[GoodPeer]) -> None:
    async with company(scene, kind) as peers, scene.node(peers, upstreams="", patience=1) as node:
        with pytest.raises(HfpeerError):
            await scene.add(node)
        assert not list(node.store.cache.glob("*--*/blobs/*"))


# Hubs

FAULTS: dict[str, Fault] = {
    "200 to a range": faults.ignored_range(),
    "a wrong Content-Range": faults.shifted_content_range(),
    "gzip": faults.gzipped(),
    "a body cut off": faults.cut_body_after(1_500_000, reset=True),
    "a body too short": faults.shortened(),
    "a body too long": faults.lengthened(),
    "a lie": faults.corrupted(at=3 * MIB),
    "nothing but 503": faults.status(503),
    "a rest without end": faults.too_many_requests(retry_after="99999999999"),
    "a foreign file": faults.substituted(b"not this"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_mirror_does_not_spoil_what_the_origin_completes(scene: Scene, name: str) -> None:
    scene.mirror.inject(FAULTS[name], path="*", listener="cdn")
    async with scene.node() as node:
        finished = await scene.add(node)
        scene.assert_whole(node)
    mirror = scene.mirror.endpoint.removeprefix("http://")
    assert scene.liars() == ({mirror} if name == "a lie" else set())
    goes_on = ("a body cut off", "200 to a range", "gzip")
    assert name in goes_on or finished.bytes_by_kind["origin"] > 0
    scene.assert_tokens_stay_home()


async def test_one_wrong_small_file_of_a_hub_is_named_and_all_others_come_from_it(scene: Scene) -> None:
    for hub in (scene.mirror, scene.origin):
        hub.inject(faults.substituted(noise(30_000, "wrong")), method="GET", path="*vocabulary.txt")
    async with scene.node() as node:
        with pytest.raises(CorruptData, match=r"right bytes of vocabulary\.txt:") as caught:
            await scene.add(node)
        snapshot = node.store.snapshot_path(REPO, scene.commit)
        assert {path.name for path in snapshot.iterdir()} >= {"config.json", "model.safetensors"}
    assert "config.json" not in str(caught.value)
    assert caught.value.exit_code == 7


async def test_a_mirror_that_stalls_in_the_middle_is_left_there(scene: Scene) -> None:
    stall = scene.mirror.inject(faults.stall_after(MIB, 60), listener="cdn")
    async with scene.node() as node:
        await scene.add(node)
        scene.assert_whole(node)
        stall.remove()
    assert "silent" in scene.said_of(scene.mirror.endpoint.removeprefix("http://"))


async def test_when_every_hub_lies_nothing_is_visible_and_both_are_named(scene: Scene) -> None:
    for hub in (scene.mirror, scene.origin):
        hub.inject(faults.corrupted(at=3 * MIB), listener="cdn")
    async with scene.node() as node:
        with pytest.raises(CorruptData) as caught:
            await scene.add(node)
    for hub in (scene.mirror, scene.origin):
        assert hub.endpoint.removeprefix("http://") in str(caught.value)


async def test_when_the_hubs_die_in_the_middle_a_later_run_continues(scene: Scene) -> None:
    for hub in (scene.mirror, scene.origin):
        hub.inject(faults.cut_body_after(MIB), listener="cdn", times=1)
        hub.inject(faults.status(503), listener="cdn")
        hub.faults._injected.reverse()
    async with scene.node(patience=1) as node:
        with pytest.raises(NoSourceLeft, match=r"model\.safetensors.*503"):
            await scene.add(node)
    scene.mirror.faults.clear()
    scene.origin.faults.clear()
    async with scene.node() as node:
        await scene.add(node)
        scene.assert_whole(node)
