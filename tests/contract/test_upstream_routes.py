"""Hubs that lack routes: their files are listed by the routes that they have, and none is passed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from fakes.hub import HubSimulator, faults, put_zoo
from fakes.network.ports import free_ports
from hfpeer import budgets
from hfpeer.errors import AccessDenied, HubUnreachable, RepoNotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.net.body import SourceFault
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.listing import file_lists
from hfpeer.upstream.upstream import Upstream
from hfpeer.upstream.upstreams import Upstreams

ZOO = RepoId.parse("acme/zoo")
TREE, PATHS_INFO, GIT = "/api/*/tree/*", "/api/*/paths-info/*", "*/info/refs*"


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
async def upstream(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=Timeouts(backoff_seconds=0.01))
    yield one
    await one.aclose()


def facts(manifest: Manifest) -> list[tuple[str, int, str]]:
    return [(file.path, file.size_bytes, str(file.digest)) for file in manifest.files]


def without_digests(hub: HubSimulator) -> None:
    """Its siblings are names alone, as those of a hub that does not know `blobs=true`."""
    hub.inject(lambda request, answer: answer(replace(request, target=request.path)), path="/api/*/revision/*")


@pytest.mark.parametrize("status", [400, 401, 404, 405, 410, 501])
@pytest.mark.parametrize("has_git", [True, False])
async def test_without_the_tree_route_the_siblings_are_the_list(
    hub: HubSimulator, upstream: Upstream, status: int, has_git: bool
) -> None:
    commit = Commit(put_zoo(hub.storage))
    wanted = facts(await upstream.manifest(ZOO, commit))
    hub.behaviour.has_git = has_git
    hub.inject(faults.status(status), path=TREE)
    manifest = await upstream.manifest(ZOO, commit)
    assert facts(manifest) == wanted and manifest.is_attested is not has_git
    assert not hub.requests_for("/acme/zoo/resolve/*")


WEB_PAGE = faults.status(200, "<html>Please log in</html>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize(
    "answer",
    [
        WEB_PAGE,
        faults.substituted(b'{"files": []}'),
        faults.substituted(b'["config.json"]'),
        faults.with_header("Link", '<http://[::1>; rel="next"'),
        faults.with_header("Content-Encoding", "br"),
        faults.status(403),
        faults.status(500),
    ],
    ids=["web page", "another document", "other entries", "no next page", "encoding", "403", "500"],
)
async def test_a_tree_route_that_answers_something_else_counts_as_none(
    hub: HubSimulator, upstream: Upstream, answer: faults.Fault
) -> None:
    commit = Commit(put_zoo(hub.storage))
    wanted = facts(await upstream.manifest(ZOO, commit))
    hub.inject(answer, path=TREE)
    assert facts(await upstream.manifest(ZOO, commit)) == wanted


async def test_the_login_page_of_a_network_is_no_outage_of_the_hub(hub: HubSimulator, upstream: Upstream) -> None:
    with hub.inject(WEB_PAGE), pytest.raises(HubUnreachable, match="is a web page") as page:
        await Upstreams([upstream]).resolve(ZOO, Revision("main"))
    assert "in a browser" in str(page.value.hint)
    with hub.inject(faults.status(511)), pytest.raises(HubUnreachable, match="answers 511") as login:
        await Upstreams([upstream]).resolve(ZOO, Revision("main"))
    assert "in a browser" in str(login.value.hint)
    with hub.inject(faults.status(404)), pytest.raises(HubUnreachable) as other:
        await Upstreams([upstream]).resolve(ZOO, Revision("main"))
    assert "`upstreams`" in str(other.value.hint)


async def test_the_host_to_which_a_hub_redirects_is_named_if_it_fails(hub: HubSimulator, upstream: Upstream) -> None:
    (port,) = free_ports(1)
    hub.inject(faults.status(302, headers={"Location": f"http://127.0.0.1:{port}/login"}))
    with pytest.raises(HubUnreachable, match=r"hub redirects to 127\.0\.0\.1:\d+, which cannot be reached"):
        await upstream.resolve(ZOO, Revision("main"))
    with pytest.raises(SourceFault, match=r"redirects to 127\.0\.0\.1:\d+, which cannot be reached"):
        upstream.open_range(ZOO, Commit("a" * 40), FilePath("config.json"), 0, 10, size_bytes=10)


async def test_a_hub_that_tells_no_digests_is_asked_for_the_headers_of_each_file(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = Commit(put_zoo(hub.storage))
    wanted = facts(await upstream.manifest(ZOO, commit))
    without_digests(hub)
    hub.behaviour.has_git = False
    for route in (TREE, PATHS_INFO):
        hub.inject(faults.status(404), path=route)
    assert facts(await upstream.manifest(ZOO, commit)) == wanted
    assert {request.method for request in hub.requests_for("/acme/zoo/resolve/*")} == {"HEAD"}
    assert not [request for request in hub.requests if request.listener == "cdn"]


async def test_without_git_a_listing_that_lacks_files_is_completed_or_refused(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = Commit(put_zoo(hub.storage))
    wanted = facts(await upstream.manifest(ZOO, commit))
    hub.behaviour.has_git = False
    hub.inject(faults.truncated_listing(3), path=TREE)
    assert facts(await upstream.manifest(ZOO, commit)) == wanted
    hub.inject(faults.substituted(b"[]"), path=PATHS_INFO)
    with pytest.raises(HubUnreachable, match=r"its lists of the files of acme/zoo at .* differ"):
        await upstream.manifest(ZOO, commit)


async def test_what_no_route_tells_is_the_refusal_of_the_first(hub: HubSimulator, upstream: Upstream) -> None:
    commit = Commit(put_zoo(hub.storage))
    hub.inject(faults.status(404), path="/api/*/revision/*")
    with hub.inject(faults.status(404), path=TREE), pytest.raises(HubUnreachable, match="answers 404"):
        await upstream.manifest(ZOO, commit)
    with hub.inject(faults.status(401), path=TREE), pytest.raises(RepoNotFound):
        await upstream.manifest(ZOO, commit)
    with hub.inject(faults.status(403), path=TREE), pytest.raises(AccessDenied):
        await upstream.manifest(ZOO, commit)


async def test_so_many_files_are_asked_for_one_by_one_and_no_more(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Commit(hub.put_repo("model", "acme/zoo", {f"{number}.txt": b"x" for number in range(4)}))
    without_digests(hub)
    hub.inject(faults.status(404), path=TREE)
    assert vars(file_lists)["MAX_FILES_ASKED_FOR"] == budgets.MAX_FILES_ASKED_FOR
    monkeypatch.setattr(file_lists, "MAX_FILES_ASKED_FOR", 4)
    assert len((await upstream.manifest(ZOO, commit)).files) == 4
    monkeypatch.setattr(file_lists, "MAX_FILES_ASKED_FOR", 3)
    with pytest.raises(HubUnreachable, match="has no list of the digests of acme/zoo, which has 4 files"):
        await upstream.manifest(ZOO, commit)
