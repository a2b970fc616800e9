"""The commit of a revision when hubs are silent or refuse: nodes in this process, peers that lie, hubs that fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes import hub_cache
from fakes.hub import HubSimulator, faults
from fakes.peers import GoodPeer
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest, PublishRequest
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.endpoint import Endpoint
from hfpeer.errors import AccessDenied, ContestedName, HfpeerError, NameTaken, NotFound, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import MAIN, Commit, RepoId, Revision
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer.peers.protocol.messages import RefMessage
from hfpeer.transfer.events import Event, Finished, Resolved
from hfpeer.upstream.upstream import Upstream

REPO = RepoId.from_api_path("models/acme/m")
FILES = {"config.json": b'{"layers": 2}', "weights.txt": b"w" * 9000}
EVIL = {"config.json": b'{"layers": "evil"}'}
SECONDS = 60
YEARS = 3e8


@dataclass
class Scene:
    """An origin with one repo, a mirror of it, and nodes with homes of their own."""

    origin: HubSimulator
    mirror: HubSimulator
    commit: Commit
    folder: Path
    events: list[Event] = field(default_factory=list)

    @asynccontextmanager
    async def node(
        self, name: str, peers: Sequence[str] = (), upstreams: str | None = None, door: bool = False, **environ: str
    ) -> AsyncIterator[Node]:
        """A node like a daemon's; its LAN door is not open."""
        environ = {
            "HF_HUB_CACHE": str(self.folder / name / "hub"),
            "HFPEER_UPSTREAMS": f"origin={self.origin.endpoint}" if upstreams is None else upstreams,
            "HFPEER_PEERS": ",".join(peers),
            "HFPEER_NAME": name,
            "HFPEER_MDNS": "0",
            "HFPEER_PATIENCE": "2",
            **environ,
        }
        node = Node(read_settings(environ, home=self.folder / name))
        try:
            await node.start(Address("127.0.0.1", 1))
            await node.search(REPO)
            yield node
        finally:
            await node.stop()

    def name(self, hub: HubSimulator) -> str:
        """The sentence that people see."""
        return hub.endpoint.removeprefix("http://")

    @property
    def both(self) -> str:
        return f"mirror={self.mirror.endpoint},origin={self.origin.endpoint}"

    async def add(self, node: Node, revision: str = "main", **options: Any) -> Finished:
        self.events.clear()
        request = AddRequest(repo=REPO, revision=Revision(revision), **options)
        return await asyncio.wait_for(node.add(request, self.events.append), SECONDS)

    @property
    def resolved(self) -> Resolved:
        (event,) = (event for event in self.events if isinstance(event, Resolved))
        return event


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with HubSimulator() as origin, HubSimulator(mirror_of=origin) as mirror:
        commit = Commit(origin.put_repo("model", "acme/m", FILES))
        yield Scene(origin, mirror, commit, tmp_path)


async def listing(hub: HubSimulator, commit: str) -> Manifest:
    upstream = Upstream("hub", "origin", hub.endpoint)
    try:
        return await upstream.manifest(REPO, Commit(commit))
    finally:
        await upstream.aclose()


class Named(GoodPeer):
    """Shares one commit of the repo, which it says is main; `told` is what the ref says, `published` its marks."""

    def __init__(self, name: str, manifest: Manifest, files: dict[str, bytes], **ref: Any) -> None:
        blobs = {file.digest: files[file.path] for file in manifest.files}
        told = RefMessage(**{"commit": manifest.commit, "resolved_at": time.time(), "answered_by": "hub", **ref})
        super().__init__(blobs, manifests=[manifest], refs={(REPO, MAIN): told})
        self.name = name
        self.published = told.published_commit

    def catalog(self) -> dict[str, Any]:
        document = super().catalog()
        for revision in document["revisions"]:
            revision["is_published"] = revision["commit"] == self.published
        return document


@pytest.fixture
async def evil(tmp_path: Path) -> Manifest:
    """A commit of the same repo, as another hub would have it: proved, and not what the hub of the test says."""
    with HubSimulator() as other:
        return await listing(other, other.put_repo("model", "acme/m", EVIL))


def refs_main(node: Node) -> str | None:
    path = node.store.cache / REPO.folder / "refs/main"
    return path.read_text() if path.exists() else None


def refs_main_at(node: Node) -> float:
    """When `refs/main` was written, as its date says."""
    return (node.store.cache / REPO.folder / "refs/main").stat().st_mtime


def endpoint(node: Node) -> Endpoint:
    assert node.endpoint is not None
    return node.endpoint


async def asked(node: Node, revision: str = "main") -> Any:
    """The result of the endpoint for a caller without a token; whether it may is another's matter."""
    return (await endpoint(node).refs.resolve(Caller(), REPO, Revision(revision)))[0]


# H4: hubs silent


@pytest.mark.parametrize("resolved_at", [0.0, time.time() + YEARS], ids=["long ago", "in years"])
async def test_an_earlier_answer_of_a_hub_outranks_any_peer_while_the_hubs_are_silent(
    scene: Scene, evil: Manifest, resolved_at: float
) -> None:
    with Named("evil", evil, EVIL, resolved_at=resolved_at) as liar:
        async with scene.node("victim", [str(liar.address)], HFPEER_ENDPOINT_REF_TTL="0.01") as node:
            await scene.add(node)
            with scene.origin.down():
                finished = await scene.add(node)
                assert finished.commit == scene.commit
                said = await asked(node)
                assert (said.commit, said.is_current) == (scene.commit, False)
                refs = await endpoint(node).refs.all(Caller(), REPO)
                assert refs.document["branches"][0]["targetCommit"] == scene.commit
            assert (scene.resolved.voice, scene.resolved.answered_by) == ("memory", scene.name(scene.origin))
            assert refs_main(node) == scene.commit
            assert not liar.paths or all("/refs/" not in path for path in liar.paths)


async def test_an_answer_of_a_peer_is_named_as_one_and_is_not_passed_on(scene: Scene, evil: Manifest) -> None:
    with Named("orion", evil, EVIL) as peer, scene.origin.down():
        async with scene.node("asker", [str(peer.address)]) as node:
            finished = await scene.add(node)
            assert finished.commit == evil.commit
            assert (scene.resolved.voice, scene.resolved.answered_by) == ("peer", "orion")
            assert (await asked(node)).voice.value == "peer"
            await endpoint(node).refs.write(REPO, evil.commit)
            assert (refs_main(node), refs_main_at(node)) == (evil.commit, 0), "for tools that are offline, and dated"
            node.store.scan()
            assert node.store.refs.read(REPO, MAIN) is None
            node.store.set_share(REPO, True)
            assert await node.provider.shared_ref(REPO, MAIN) is None
            (told,) = (await node.provider.catalog()).revisions
            assert told.refs == {}
            peer.refs = {}
            assert (await scene.add(node)).commit == evil.commit
            assert scene.resolved.voice == "told", "what peers said before, while nobody says anything"
    async with scene.node("asker") as node:
        assert (await scene.add(node)).commit == scene.commit, "a hub answers again"
        assert refs_main(node) == scene.commit and refs_main_at(node) > 0
        assert node.store.refs.read_told(REPO, MAIN) is None


async def test_using_an_earlier_answer_does_not_renew_its_date(scene: Scene) -> None:
    async with scene.node("old") as node:
        await scene.add(node)
        before = node.store.refs.read(REPO, MAIN)
        with scene.origin.down():
            await scene.add(node)
        assert node.store.refs.read(REPO, MAIN) == before


async def test_an_add_stops_and_names_the_peers_that_disagree(scene: Scene, evil: Manifest) -> None:
    good = await listing(scene.origin, scene.commit)
    with (
        Named("evil", evil, EVIL, published_commit=evil.commit) as liar,
        Named("good", good, FILES) as first,
        Named("fair", good, FILES) as second,
        scene.origin.down(),
    ):
        peers = [str(peer.address) for peer in (liar, first, second)]
        async with scene.node("asker", peers) as node:
            with pytest.raises(ContestedName) as caught:
                await scene.add(node)
            error = caught.value
            assert error.exit_code == 7
            for word in ("evil", "good", "fair", evil.commit, scene.commit, "(evil published it.)"):
                assert word in error.message
            assert "-v COMMIT" in (error.hint or "") and "--trust-peers" in (error.hint or "")
            with pytest.raises(ContestedName):
                await asked(node)
            assert node.store.revisions.all() == []
            assert (await scene.add(node, scene.commit)).commit == scene.commit
            node.store.remove(REPO)
            assert (await scene.add(node, trusts_peers=True)).commit == scene.commit
        async with scene.node("tied", peers[:2]) as node:
            with pytest.raises(ContestedName):
                await scene.add(node, trusts_peers=True)


async def test_a_short_commit_id_of_the_cache_counts_and_one_on_which_peers_disagree_stops_the_add(
    scene: Scene,
) -> None:
    good = await listing(scene.origin, scene.commit)
    twin = Commit(scene.commit[:12] + "0" * 28)

    class Grinder(Named):
        """Says that it has another commit that begins the same."""

        def catalog(self) -> dict[str, Any]:
            document = super().catalog()
            for revision in document["revisions"]:
                revision["commit"] = twin
            return document

    with Grinder("grinder", good, FILES) as liar, Named("good", good, FILES) as peer:
        peers = [str(liar.address), str(peer.address)]
        async with scene.node("asker", peers) as node:
            with scene.origin.down():
                with pytest.raises(ContestedName, match="grinder"):
                    await scene.add(node, scene.commit[:8])
                assert node.store.revisions.all() == []
            await scene.add(node)
            with scene.origin.down():
                assert (await scene.add(node, scene.commit[:8])).commit == scene.commit
                assert scene.resolved.voice == "cache"
            assert not (node.store.cache / REPO.folder / "refs" / scene.commit[:8]).exists()


class AnyName(Named):
    """Says that whatever is asked is its commit."""

    def ref(self, repo: RepoId, revision: Revision) -> RefMessage | None:
        return self.refs[REPO, MAIN]


async def test_another_spelling_of_a_known_name_is_the_same_name(scene: Scene, evil: Manifest) -> None:
    scene.origin.repo("model", "acme/m").create_tag("v1", scene.commit)
    with AnyName("evil", evil, EVIL, published_commit=evil.commit) as liar:
        async with scene.node("asker", [str(liar.address)]) as node:
            await scene.add(node)
            await scene.add(node, "refs/tags/v1")
            with scene.origin.down():
                for name in ("refs/heads/main", "v1", scene.commit.upper(), scene.commit[:9].upper()):
                    assert (await scene.add(node, name)).commit == scene.commit, name


async def test_the_first_digits_of_a_commit_id_mean_no_other_commit(scene: Scene, evil: Manifest) -> None:
    with AnyName("evil", evil, EVIL, published_commit=evil.commit) as liar:
        async with scene.node("asker", [str(liar.address)]) as node:
            with scene.origin.down():
                for name in (scene.commit[:8], scene.commit[:8].upper(), scene.commit.upper()):
                    with pytest.raises(HfpeerError):
                        await scene.add(node, name)
                assert node.store.revisions.all() == []
                assert (await scene.add(node, evil.commit[:8])).commit == evil.commit


# Case 6: a mirror's no while the origin is silent

NO: dict[str, faults.Fault] = {
    "401 RepoNotFound": faults.status(401, headers={"X-Error-Code": "RepoNotFound"}),
    "401": faults.status(401),
    "403": faults.status(403),
    "403 GatedRepo": faults.status(403, headers={"X-Error-Code": "GatedRepo"}),
    "404 RepoNotFound": faults.status(404, headers={"X-Error-Code": "RepoNotFound"}),
    "404 RevisionNotFound": faults.status(404, headers={"X-Error-Code": "RevisionNotFound"}),
}


@pytest.mark.parametrize("no", NO)
async def test_a_refusal_of_a_mirror_counts_as_silence_while_the_origin_is_silent(scene: Scene, no: str) -> None:
    good = await listing(scene.origin, scene.commit)
    with Named("good", good, FILES) as peer:
        async with scene.node("first", upstreams=scene.both, HFPEER_ENDPOINT_REF_TTL="0.01") as first:
            await scene.add(first)
            scene.mirror.inject(NO[no])
            with scene.origin.down():
                assert (await scene.add(first)).commit == scene.commit
                assert scene.resolved.voice == "memory"
                assert all(scene.name(hub) in scene.resolved.hubs_said for hub in (scene.mirror, scene.origin))
                assert (await asked(first)).commit == scene.commit
                assert (await endpoint(first).refs.all(Caller(), REPO)).document["branches"]
        async with scene.node("second", [str(peer.address)], upstreams=scene.both) as second:
            with scene.origin.down():
                assert (await scene.add(second)).commit == scene.commit
                assert scene.resolved.voice == "peer"
                assert (await asked(second)).commit == scene.commit
            # The origin answers again and has the repo, so the refusal of the mirror decides nothing.
            assert (await scene.add(second)).commit == scene.commit
            assert (scene.resolved.voice, scene.resolved.answered_by) == ("hub", scene.name(scene.origin))


@pytest.mark.parametrize(("no", "kind"), [("401", NotFound), ("403", AccessDenied), ("404 RevisionNotFound", NotFound)])
async def test_without_an_origin_a_refusal_of_the_mirror_counts(scene: Scene, no: str, kind: type[HfpeerError]) -> None:
    scene.mirror.inject(NO[no])
    async with scene.node("mirrored", upstreams=f"mirror={scene.mirror.endpoint}") as node:
        with pytest.raises(kind):
            await scene.add(node)
    async with scene.node("both", upstreams=scene.both) as node:
        scene.origin.inject(NO[no])
        with pytest.raises(kind):
            await scene.add(node)


# Case 5: the hub says no


def delete_repo(scene: Scene) -> None:
    scene.origin.storage.delete_repo("model", "acme/m")


def disable(scene: Scene) -> None:
    scene.origin.repo("model", "acme/m").is_disabled = True


def delete_main(scene: Scene) -> None:
    scene.origin.repo("model", "acme/m").delete_ref("refs/heads/main")


@pytest.mark.parametrize(("refuse", "code"), [(delete_repo, 4), (disable, 5), (delete_main, 4)])
async def test_a_refusal_of_a_hub_names_the_copies_in_the_cache_and_at_peers(
    scene: Scene, refuse: Any, code: int
) -> None:
    good = await listing(scene.origin, scene.commit)
    with Named("orion", good, FILES) as peer:
        async with scene.node("seed") as seed, scene.node("seeker", [str(peer.address)]) as seeker:
            await scene.add(seed)
            refuse(scene)
            for node, start in ((seed, "Here is"), (seeker, "orion")):
                with pytest.raises(HfpeerError) as caught:
                    await scene.add(node)
                error = caught.value
                assert error.exit_code == code
                assert start in error.message and scene.commit[:7] in error.message
                assert f"-v {scene.commit}" in (error.hint or "")
                assert (await scene.add(node, scene.commit)).commit == scene.commit
            with pytest.raises(HfpeerError) as caught:
                await scene.add(seed)
            assert "2 files, complete" in caught.value.message and "main of it as" in caught.value.message


async def test_the_error_names_the_folder_of_a_copy_without_a_manifest(scene: Scene) -> None:
    """Another tool put it there; then the repo is deleted."""
    cache = scene.folder / "other" / "hub"
    hub_cache.download(cache, FILES, Commit(scene.commit), REPO, ref="main")
    scene.origin.storage.delete_repo("model", "acme/m")
    async with scene.node("other") as node:
        for revision in ("main", str(scene.commit)):
            with pytest.raises(NotFound) as caught:
                await scene.add(node, revision)
            assert str(node.store.snapshot_path(REPO, scene.commit)) in caught.value.message
            assert "takes it" not in (caught.value.hint or "")


async def test_the_error_names_no_source_that_was_not_asked(scene: Scene) -> None:
    async with scene.node("local") as node:
        await scene.add(node)
        await scene.add(node, is_local_only=True)
        assert (scene.resolved.voice, scene.resolved.hubs) == ("memory", "not asked")


# Case 5 and F4: published names


async def test_a_published_name_is_found_if_hubs_have_no_such_repo(scene: Scene, evil: Manifest) -> None:
    scene.origin.storage.delete_repo("model", "acme/m")
    with Named("h2", evil, EVIL, published_commit=evil.commit) as publisher, Named("h3", evil, EVIL) as other:
        async with scene.node("asker", [str(publisher.address), str(other.address)]) as node:
            assert (await scene.add(node)).commit == evil.commit
            assert (scene.resolved.voice, scene.resolved.answered_by, scene.resolved.hubs) == (
                "published",
                "h2",
                "no repo",
            )
            (cached,) = node.store.revisions.of(REPO)
            assert (cached.published_by, cached.is_published_here) == ("h2", False)
            assert (refs_main(node), refs_main_at(node)) == (evil.commit, 0)
            assert not other.paths or all("/refs/" not in path for path in other.paths), "a mere copy is not asked"
            said = await asked(node)
            assert (said.voice.value, said.is_current) == ("published", True)
            refs = await endpoint(node).refs.all(Caller(), REPO)
            assert [ref["targetCommit"] for ref in refs.document["branches"]] == [evil.commit]
            assert (await scene.add(node)).commit == evil.commit, "and again"


async def test_a_publication_takes_no_name_that_a_hub_has_named_before(scene: Scene, evil: Manifest) -> None:
    """The repo became private, and a node publishes under its name."""
    with Named("h2", evil, EVIL, published_commit=evil.commit) as publisher:
        async with scene.node("asker", [str(publisher.address)]) as node:
            await scene.add(node)
            scene.origin.storage.delete_repo("model", "acme/m")
            with pytest.raises(NotFound) as caught:
                await scene.add(node)
            assert "h2" in caught.value.message and "published" in caught.value.message


async def test_the_publisher_finds_its_own_name_after_any_answer_of_the_hubs(scene: Scene, tmp_path: Path) -> None:
    theirs = scene.origin.storage.repos.pop(("model", "acme/m"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    async with scene.node("publisher", HFPEER_ENDPOINT_REF_TTL="0.01") as node:
        published = await node.publish(PublishRequest(str(folder), REPO), lambda event: None)
        assert (await scene.add(node)).commit == published.commit
        assert (scene.resolved.voice, scene.resolved.hubs) == ("published here", "no repo")
        assert (await asked(node)).commit == published.commit
        refs = await endpoint(node).refs.all(Caller(), REPO)
        assert [ref["targetCommit"] for ref in refs.document["branches"]] == [published.commit]
        told = await node.provider.shared_ref(REPO, MAIN)
        assert told is not None and told.commit == told.published_commit == published.commit
        with scene.origin.down():
            assert (await scene.add(node)).commit == published.commit
            assert (await asked(node)).is_current
        # A hub that has the name now is asked first.
        scene.origin.storage.repos["model", "acme/m"] = theirs
        assert (await scene.add(node)).commit == scene.commit
        told = await node.provider.shared_ref(REPO, MAIN)
        assert told is not None and (told.commit, told.published_commit) == (scene.commit, published.commit)


async def test_a_forced_publication_shares_itself_and_nothing_else_of_its_name(scene: Scene, tmp_path: Path) -> None:
    """The cache has the name as a private repo of a hub."""
    scene.origin.repo("model", "acme/m").is_private = True
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    async with scene.node("publisher") as node:
        await scene.add(node, token=scene.origin.valid_token)
        with pytest.raises(NameTaken):
            await node.publish(PublishRequest(str(folder), REPO), lambda event: None)
        published = await node.publish(PublishRequest(str(folder), REPO, is_forced=True), lambda event: None)
        assert [told.commit for told in (await node.provider.catalog()).revisions] == [published.commit]
        assert await node.provider.shared_manifest(REPO, scene.commit) is None
        manifest = node.store.manifests.load(REPO, scene.commit)
        assert manifest is not None and not node.store.shared.blobs(file.digest for file in manifest.files)
        told = await node.provider.shared_ref(REPO, MAIN)
        assert told is not None and told.commit == told.published_commit == published.commit, "nor what the hub told"


async def test_the_answer_of_a_hub_to_one_caller_is_not_replaced_by_that_to_another(
    scene: Scene, evil: Manifest
) -> None:
    """The repo is private: without a token the publication of a peer is found, with one the repo of the hub."""
    scene.origin.repo("model", "acme/m").is_private = True
    with Named("h2", evil, EVIL, published_commit=evil.commit) as publisher:
        async with scene.node("asker", [str(publisher.address)]) as node:
            for caller, commit in ((Caller(), evil.commit), (Caller(scene.origin.valid_token), scene.commit)):
                found, _ = await endpoint(node).refs.resolve(caller, REPO, MAIN)
                assert found.commit == commit


# M15: clocks


async def test_an_answer_from_the_future_is_asked_again_or_given_as_old(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was ten years ahead when the hub answered, and is right again after a restart."""
    real = time.time
    async with scene.node("clock") as node:
        monkeypatch.setattr(time, "time", lambda: real() + YEARS)
        await scene.add(node)
        assert (await endpoint(node).refs.all(Caller(), REPO)).is_current
        monkeypatch.setattr(time, "time", real)
        refs = await endpoint(node).refs.all(Caller(), REPO)
        assert refs.age_seconds is not None and refs.age_seconds < SECONDS, "this process knows when it asked"
    newer = scene.origin.put_repo("model", "acme/m", {**FILES, "new.txt": b"new"})
    async with scene.node("clock") as node:
        with scene.origin.down():
            refs = await endpoint(node).refs.all(Caller(), REPO)
            assert (refs.age_seconds, refs.is_current) == (None, False)
            said = await asked(node)
            assert (said.commit, said.age_seconds, said.is_current) == (scene.commit, None, False)
            await scene.add(node)
            assert (scene.resolved.voice, scene.resolved.age_seconds) == ("memory", None)
        refs = await endpoint(node).refs.all(Caller(), REPO)
        assert refs.document["branches"][0]["targetCommit"] == newer


# M12: answers of a mirror about a commit


async def facts(node: Node) -> Any:
    seen = await endpoint(node).admit_revision(Caller(), REPO, Revision(str(refs_main(node))), wants_files=False)
    return await endpoint(node).repo_info.info(seen, with_blobs=False)


async def commits(node: Node) -> Any:
    seen = await endpoint(node).admit_revision(Caller(), REPO, Revision(str(refs_main(node))), wants_files=False)
    return (await endpoint(node).repo_info.document(seen, f"/commits/{seen.commit}")).content


async def test_an_answer_of_a_mirror_is_kept_with_its_commit_until_the_origin_answers(
    scene: Scene,
) -> None:
    poisoned = faults.substituted(
        b'{"id": "acme/m", "private": false, "sha": "%s", "library_name": "evil"}' % scene.commit.encode()
    )
    async with scene.node("told", upstreams=scene.both, HFPEER_ENDPOINT_REF_TTL="0.01") as node:
        await scene.add(node)
        with scene.mirror.inject(poisoned, path="/api/models/acme/m/revision/*"), scene.origin.down():
            assert (await facts(node))["library_name"] == "evil"
        assert (await facts(node))["library_name"] == "evil"
        # The first answer from what is kept began to ask the origin, which is there again.
        deadline = time.monotonic() + 10
        while (await facts(node)).get("library_name") == "evil":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        scene.origin.clear()
        await facts(node)
        assert scene.origin.requests_for("*/revision/*") == [], "once it has spoken it is not asked again"


async def test_an_answer_of_a_mirror_that_is_no_longer_set_is_not_given(scene: Scene) -> None:
    poisoned = faults.substituted(
        b'{"id": "acme/m", "private": false, "sha": "%s", "library_name": "evil"}' % scene.commit.encode()
    )
    async with scene.node("told", upstreams=scene.both) as node:
        await scene.add(node)
        history = faults.substituted(b'[{"id": "%s", "title": "evil"}]' % scene.commit.encode())
        with (
            scene.mirror.inject(poisoned, path="/api/models/acme/m/revision/*"),
            scene.mirror.inject(history, path="/api/models/acme/m/commits/*"),
        ):
            assert (await facts(node))["library_name"] == "evil"
            assert (await commits(node))[0]["title"] == "evil"
    async with scene.node("told", upstreams=f"origin={scene.origin.endpoint}") as node:
        assert (await facts(node)).get("library_name") != "evil"
        assert (await commits(node))[0]["title"] != "evil"
    async with scene.node("told", upstreams="") as node:
        assert (await facts(node)).get("library_name") != "evil"


# The hubs' answer while they are slow


async def test_without_any_answer_an_outage_stays_an_outage(scene: Scene) -> None:
    async with scene.node("nobody") as node:
        with scene.origin.down(), pytest.raises(Unreachable):
            await scene.add(node)
