"""Hubs that limit requests: nothing is sent to them while they rest, whatever it is for, and others are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from fakes.hub import HubSimulator, Lfs, faults, put_zoo
from fakes.waiting import wait_until
from hfpeer.errors import HubUnreachable, RateLimited
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.net.body import SourceFault
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.proxy import ProxyRequest, ReverseProxy
from hfpeer.upstream.responses import rate_limit
from hfpeer.upstream.upstream import Upstream, UpstreamKind
from hfpeer.upstream.upstreams import Upstreams

ZOO, MAIN = RepoId.parse("acme/zoo"), Revision("main")
SHORT_SECONDS, REST, LONG = 0.3, "0.5", "100"


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests of a part of a second are long ones here."""
    monkeypatch.setattr(rate_limit, "SHORT_REST_SECONDS", SHORT_SECONDS)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def mirror(hub: HubSimulator) -> Iterator[HubSimulator]:
    with HubSimulator(mirror_of=hub) as simulator:
        yield simulator


def of(hub: HubSimulator, name: str = "hub", kind: UpstreamKind = "origin") -> Upstream:
    return Upstream(name, kind, hub.endpoint, timeouts=Timeouts(backoff_seconds=0.01))


@pytest.fixture
async def upstream(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = of(hub)
    yield one
    await one.aclose()


@pytest.fixture
async def both(hub: HubSimulator, mirror: HubSimulator) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams([of(mirror, "mirror", "mirror"), of(hub)])
    yield upstreams
    await upstreams.aclose()


async def get_file(upstream: Upstream, commit: str) -> bytes:
    def read() -> bytes:
        body = upstream.open_range(ZOO, Commit(commit), FilePath("README.md"), 0, 2, size_bytes=size_bytes)
        found = bytearray(2)
        body.readinto(memoryview(found))
        body.close()
        return bytes(found)

    size_bytes = (await upstream.manifest(ZOO, Commit(commit))).file(FilePath("README.md")).size_bytes
    return await asyncio.to_thread(read)


async def test_after_one_limit_nothing_is_sent_to_the_hub_for_any_purpose(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = put_zoo(hub.storage)
    size_bytes = (await upstream.manifest(ZOO, Commit(commit))).file(FilePath("README.md")).size_bytes
    proxy = ReverseProxy([upstream])
    with hub.inject(faults.too_many_requests(retry_after=LONG), times=1), pytest.raises(RateLimited) as caught:
        await upstream.resolve(ZOO, MAIN)
    assert "limits requests until" in caught.value.message and caught.value.exit_code == 6
    assert caught.value.facts["retry_after_seconds"] == float(LONG)
    assert caught.value.facts["until"] > time.time()
    hub.clear()
    with pytest.raises(RateLimited):
        await upstream.with_token("another").resolve(ZOO, MAIN)
    with pytest.raises(HubUnreachable):
        await upstream.visibility(ZOO)
    with pytest.raises(SourceFault, match="limits requests") as fault:
        upstream.open_range(ZOO, Commit(commit), FilePath("README.md"), 0, 2, size_bytes=size_bytes)
    assert fault.value.retry_after_seconds is not None and 0 < fault.value.retry_after_seconds <= float(LONG)
    with pytest.raises(RateLimited):
        async with proxy.open(ProxyRequest("GET", "/api/models", []), "http://own"):
            pass
    assert not hub.requests
    await proxy.aclose()


async def test_a_limit_of_the_cdn_is_one_of_files_and_ends_when_it_said(hub: HubSimulator, upstream: Upstream) -> None:
    hub.put_repo("model", "acme/zoo", {"big.bin": Lfs(b"x" * 100)})
    commit = await upstream.resolve(ZOO, MAIN)

    def read() -> bytes:
        body = upstream.open_range(ZOO, commit, FilePath("big.bin"), 0, 2, size_bytes=100)
        found = bytearray(2)
        body.readinto(memoryview(found))
        return bytes(found)

    with hub.inject(faults.too_many_requests(retry_after="1"), listener="cdn"), pytest.raises(SourceFault):
        await asyncio.to_thread(read)
    (rest,) = Upstreams([upstream]).rests
    assert 0 < rest.seconds <= 1
    await asyncio.to_thread(wait_until, lambda: not Upstreams([upstream]).rests, "the rest is over")
    assert await asyncio.to_thread(read) == b"xx"


async def test_a_limit_on_files_leaves_the_api_alone_where_the_hub_says_so(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = put_zoo(hub.storage)
    limit = faults.status(429, headers={"RateLimit": '"resolvers";r=0;t=99'})
    with hub.inject(limit, path="*/resolve/*"), pytest.raises(SourceFault):
        await get_file(upstream, commit)
    assert await upstream.resolve(ZOO, MAIN) == commit


async def test_a_short_rest_is_waited_out_and_a_long_one_only_by_those_that_may_wait(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = put_zoo(hub.storage)
    hub.inject(faults.status(429, headers={"Retry-After": "0"}), times=1)
    assert await upstream.resolve(ZOO, MAIN) == commit
    assert len(hub.requests) == 2
    limit = hub.inject(faults.too_many_requests(retry_after=REST), times=1)
    with pytest.raises(RateLimited):
        await upstream.resolve(ZOO, MAIN)
    with pytest.raises(RateLimited):
        await upstream.resting(0.4).resolve(ZOO, MAIN)
    assert await upstream.resting(60.0).resolve(ZOO, MAIN) == commit
    assert limit.hits == 1


async def test_a_limited_mirror_is_passed_over_and_taken_up_again(
    hub: HubSimulator, mirror: HubSimulator, both: Upstreams
) -> None:
    commit = put_zoo(hub.storage)
    mirror.inject(faults.too_many_requests(retry_after=REST), times=1)
    assert await both.resolve(ZOO, MAIN) == (commit, "hub")
    assert len(mirror.requests) == 1
    await asyncio.to_thread(wait_until, lambda: not both.rests, "the rest is over")
    assert await both.resolve(ZOO, MAIN) == (commit, "mirror")


async def test_a_mirrors_no_is_none_while_the_origin_rests(
    hub: HubSimulator, mirror: HubSimulator, both: Upstreams
) -> None:
    commit = put_zoo(hub.storage)
    mirror.inject(faults.status(404, headers={"X-Error-Code": "RepoNotFound"}))
    hub.inject(faults.too_many_requests(retry_after=REST), times=1)
    with pytest.raises(RateLimited, match=r"hub limits requests until .* mirror has no model") as caught:
        await both.resolve(ZOO, MAIN)
    assert caught.value.facts["said_no"]
    resting = both.resting(60.0)
    assert resting is not None and await resting.resolve(ZOO, MAIN) == (commit, "hub")


async def test_of_two_limited_hubs_the_one_that_rests_shorter_is_waited_for(
    hub: HubSimulator, mirror: HubSimulator, both: Upstreams
) -> None:
    commit = put_zoo(hub.storage)
    mirror.inject(faults.too_many_requests(retry_after=LONG), times=1)
    hub.inject(faults.too_many_requests(retry_after=REST), times=1)
    with pytest.raises(RateLimited) as caught:
        await both.resolve(ZOO, MAIN)
    assert caught.value.facts["retry_after_seconds"] <= float(REST)
    resting = both.resting(60.0)
    assert resting is not None and await resting.resolve(ZOO, MAIN) == (commit, "hub")


async def test_a_listing_goes_on_at_the_page_before_which_the_hub_rests_and_is_proved(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = put_zoo(hub.storage)
    hub.behaviour.tree_page_entries = 2
    whole = len((await upstream.manifest(ZOO, Commit(commit))).files)
    asked = len(hub.requests_for("*/tree/*"))
    hub.clear()
    hub.inject(faults.afterwards(lambda: hub.inject(faults.too_many_requests(retry_after=REST), times=1)), times=2)
    manifest, _ = await Upstreams([upstream.resting(60.0)]).manifest(ZOO, Commit(commit))
    assert not manifest.is_attested and len(manifest.files) == whole
    assert len(hub.requests_for("*/tree/*")) <= asked + 2, "only the pages that were refused are asked for again"


async def test_a_proof_that_is_only_late_is_waited_for_by_those_that_may_wait(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = Commit(put_zoo(hub.storage))
    limit = faults.status(429, headers={"RateLimit": '"pages";r=0;t=0'})
    hub.inject(limit, path="*/info/refs*", times=1)
    upstreams = Upstreams([upstream])
    manifest, _ = await upstreams.manifest(ZOO, commit)
    assert manifest.is_attested
    resting = upstreams.resting(60.0)
    assert resting is not None
    manifest, _ = await resting.manifest(ZOO, commit)
    assert not manifest.is_attested


async def test_the_proxy_asks_the_mirror_when_the_origin_limits(hub: HubSimulator, mirror: HubSimulator) -> None:
    put_zoo(hub.storage)
    proxy = ReverseProxy([of(mirror, "mirror", "mirror"), of(hub)])
    hub.inject(faults.too_many_requests(retry_after=LONG))
    for _ in range(2):
        async with proxy.open(ProxyRequest("GET", "/api/models", []), "http://own") as response:
            assert (response.hub, response.status) == ("mirror", 200)
    assert len(hub.requests) == 1
    await proxy.aclose()


async def test_a_request_that_waits_can_be_cancelled(hub: HubSimulator, upstream: Upstream) -> None:
    put_zoo(hub.storage)
    hub.inject(faults.too_many_requests(retry_after=LONG))
    waiting = asyncio.ensure_future(upstream.resting(900.0).resolve(ZOO, MAIN))
    await asyncio.to_thread(wait_until, lambda: bool(Upstreams([upstream]).rests), "the hub limits requests")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
