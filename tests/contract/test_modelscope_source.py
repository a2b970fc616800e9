"""ModelScope as a source of the same bytes: what it gives, when it is asked, and what no side hears of the other."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import Content, Fault, HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.modelscope import ModelScopeSimulator
from fakes.modelscope import faults as site_faults
from fakes.modelscope.storage import PRIVATE
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.modelscope.names import SiteRepo
from hfpeer.modelscope.source import SiteCopies, SiteCopy
from hfpeer.names import Digest, RepoId
from hfpeer.node.session import open_node
from hfpeer.transfer.events import Event, Finished, SourceFailed
from hfpeer.upstream.connection.clients import Connections

REPO = RepoId.parse("acme/big")
SIZE = 1_500_000
FILES: dict[str, Content] = {
    "README.md": b"# Big\n",
    **{f"{number}.safetensors": Lfs(noise(SIZE, f"shard {number}")) for number in range(10)},
}


def bodies(files: Mapping[str, Content] = FILES) -> dict[str, bytes]:
    return {path: each.data for path, each in files.items() if isinstance(each, Lfs)}


@dataclass
class World:
    """An origin, a mirror of it, ModelScope with the same LFS files, and the environment of a node."""

    origin: HubSimulator
    mirror: HubSimulator
    site: ModelScopeSimulator
    environ: dict[str, str]
    events: list[Event] = field(default_factory=list)

    def add(self, repo: RepoId = REPO, **options: Any) -> Finished:
        async def run() -> Finished:
            async with open_node(read_settings(self.environ)) as node:
                return await node.add(AddRequest(repo, **{"token": "", **options}), self.events.append)

        return asyncio.run(run())

    @property
    def failures(self) -> list[SourceFailed]:
        return [event for event in self.events if isinstance(event, SourceFailed)]

    def right(self) -> None:
        """Every file in the cache has its bytes."""
        snapshot = next(Path(self.environ["HF_HUB_CACHE"]).glob("models--acme--big/snapshots/*"))
        for path, data in bodies().items():
            assert hashlib.sha256((snapshot / path).read_bytes()).digest() == hashlib.sha256(data).digest()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    with HubSimulator() as origin, HubSimulator(mirror_of=origin) as mirror, ModelScopeSimulator() as site:
        origin.put_repo("model", "acme/big", FILES)
        site.put_repo("model", "acme/big", bodies(), lfs=bodies())
        environ = {
            "HFPEER_HOME": str(tmp_path / "home"),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HFPEER_UPSTREAMS": f"mirror={mirror.endpoint},origin={origin.endpoint}",
            "HFPEER_MODELSCOPE_ENDPOINT": site.endpoint,
            "HFPEER_MODELSCOPE_SOURCE": "on",
            "HFPEER_MODELSCOPE_ORDER": "before-mirrors",
        }
        yield World(origin, mirror, site, environ)


@pytest.mark.parametrize(
    ("order", "shares"),
    [("before-mirrors", {"modelscope"}), ("after-mirrors", {"mirror"}), ("after-origin", {"mirror"})],
)
def test_it_gives_when_the_order_says_so(world: World, order: str, shares: set[str]) -> None:
    world.environ["HFPEER_MODELSCOPE_ORDER"] = order
    finished = world.add()
    large = {kind for kind, size in finished.bytes_by_kind.items() if size >= SIZE}
    assert large == shares
    assert finished.wan_saved_bytes == 0


def test_it_is_asked_only_if_wanted_or_named(world: World) -> None:
    world.environ["HFPEER_MODELSCOPE_SOURCE"] = "off"
    world.site.put_repo("model", "team/copy", bodies(), lfs=bodies())
    world.add(files=(), include=("0.*",))
    assert world.site.requests == []
    finished = world.add(modelscope="team/copy")
    assert finished.bytes_by_kind["modelscope"] == 9 * SIZE
    assert not world.site.requests_for("*acme/big*")
    world.right()


def test_the_owners_pairs_of_names_count_and_no_other_owner_is_guessed(world: World) -> None:
    world.site.put_repo("model", "team/copy", bodies(), lfs=bodies())
    del world.site.storage.repos["model", "acme/big"]
    assert "modelscope" not in world.add(files=(), include=("0.*",)).bytes_by_kind
    assert world.failures == [], "a repo that is not there is no failure"
    world.environ["HFPEER_MODELSCOPE_NAMES"] = "acme/other=x/y, acme/big=team/copy"
    assert world.add().bytes_by_kind["modelscope"] == 9 * SIZE


def test_the_name_of_a_repo_that_may_be_private_is_not_told(world: World) -> None:
    world.origin.put_repo("model", "acme/big", FILES, visibility="private")
    world.add(token=HubSimulator.valid_token)
    assert world.site.requests == []


def test_the_listing_is_asked_for_once_and_pinned(world: World) -> None:
    world.add()
    (listing,) = world.site.requests_for("*/repo/files")
    commit = world.site.storage.repos["model", "acme/big"].branches["master"]
    assert listing.request.query_value("Revision") == commit
    assert {r.request.query_value("Revision") for r in world.site.requests_for("*/repo")} == {commit}


@pytest.mark.parametrize("ranges", ["200", "206", "ignored"])
def test_ranges_count_by_what_they_say_and_not_by_their_status(world: World, ranges: Any) -> None:
    world.site.behaviour.cdn_ranges = ranges
    given = world.add().bytes_by_kind
    assert ranges == "ignored" or given["modelscope"] == 10 * SIZE
    world.right()


@pytest.mark.parametrize(
    "fault",
    [
        faults.shifted_content_range(7),
        faults.shortened(3),
        faults.substituted(b""),
        faults.substituted(b'{"Code": 10010205001}'),
        site_faults.json_for_missing(),
        faults.status(404),
        faults.status(403),
        faults.status(416),
        faults.status(500),
        faults.too_many_requests(retry_after="600"),
        faults.cut_body_after(1000, reset=True),
        faults.corrupted(100),
        faults.status(302, headers={"Location": "http://192.0.2.1/elsewhere"}),
        site_faults.html(502, "Bad Gateway"),
    ],
)
def test_a_site_that_fails_costs_no_byte_and_the_hubs_give_the_rest(world: World, fault: Fault) -> None:
    world.site.inject(fault, listener="cdn")
    finished = world.add(files=(), include=("0.*",))
    assert finished.bytes_by_kind["mirror"] > SIZE - 100_000
    snapshot = next(Path(world.environ["HF_HUB_CACHE"]).glob("models--acme--big/snapshots/*"))
    assert (snapshot / "0.safetensors").read_bytes() == bodies()["0.safetensors"]


def test_an_address_that_has_expired_is_resolved_anew(world: World) -> None:
    data = bodies()["0.safetensors"]
    digest = Digest("sha256", hashlib.sha256(data).hexdigest())

    def read(copy: SiteCopy, start: int) -> bytes:
        body, buffer = copy.open_range(digest, SIZE, start, start + 1000), bytearray(1000)
        got = 0
        while got < len(buffer):
            got += body.readinto(memoryview(buffer)[got:])
        body.close()
        return bytes(buffer)

    async def run() -> None:
        copies = SiteCopies(world.site.endpoint, lambda: None, {}, None, Connections())
        try:
            copy = await copies.find(SiteRepo.parse("acme/big"))
            assert copy is not None and await asyncio.to_thread(read, copy, 0) == data[:1000]
            resolved = len(world.site.requests_for("*/repo"))
            with world.site.inject(faults.expired_signature(), listener="cdn", times=1) as expired:
                assert await asyncio.to_thread(read, copy, 1000) == data[1000:2000]
            assert expired.hits == 1 and len(world.site.requests_for("*/repo")) == resolved + 1
        finally:
            await copies.stop()

    asyncio.run(run())


@pytest.mark.parametrize("fault", [faults.status(500), faults.substituted(b"<html>"), site_faults.no_files()])
def test_a_site_that_cannot_be_listed_is_named_and_the_add_goes_on(world: World, fault: Fault) -> None:
    world.site.inject(fault, path="*/repo/files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfpeer.modelscope.api.MAX_TRIES", 1)
        world.add(files=(), include=("0.*",))
    assert len(world.failures) <= 1 and all("ModelScope" in e.reason or "500" in e.reason for e in world.failures)


def test_a_private_copy_is_read_with_the_token_of_its_site(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.site.put_repo("model", "team/closed", bodies(), lfs=bodies(), visibility=PRIVATE)
    world.add(modelscope="team/closed", files=(), include=("0.*",))
    assert [event.reason for event in world.failures] == ["has no such repo that you may see"]
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", world.site.read_token)
    assert world.add(modelscope="team/closed").bytes_by_kind["modelscope"] == 9 * SIZE
