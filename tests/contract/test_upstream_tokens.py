"""A token goes to the hub it belongs to and nowhere else, and several hubs are asked in order as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from fakes.hub import Fault, HubSimulator, Lfs, faults, put_many, put_zoo
from hfpeer.errors import (
    ForgedManifest,
    GatedRepo,
    HfpeerError,
    HubUnreachable,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.names import Commit, FilePath, RepoId, Revision, Visibility
from hfpeer.net.body import SourceFault
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.upstream import Upstream, UpstreamKind
from hfpeer.upstream.upstreams import Upstreams, VisibilityAnswer

ZOO = RepoId.parse("acme/zoo")
MAIN = Revision("main")
LARGE = FilePath("model.safetensors")
QUICK = Timeouts(backoff_seconds=0.01)


@pytest.fixture
def origin() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def mirror(origin: HubSimulator) -> Iterator[HubSimulator]:
    with HubSimulator(mirror_of=origin) as simulator:
        yield simulator


def upstream(name: str, kind: UpstreamKind, hub: HubSimulator, sends_token: bool) -> Upstream:
    endpoint, token = hub.endpoint, hub.valid_token
    return Upstream(name, kind, endpoint, token=lambda: token, sends_token=sends_token, timeouts=QUICK)


async def exercise(one: Upstream, repo: RepoId = ZOO) -> None:
    """Everything an upstream can be asked; refusals do not matter here."""
    with suppress(HfpeerError):
        await one.resolve(repo, MAIN)
    with suppress(HfpeerError):
        await one.visibility(repo)
    with suppress(HfpeerError):
        await one.visibility(repo, Commit(COMMITS[repo]))
    with suppress(HfpeerError):
        await one.auth_check(repo)
    with suppress(HfpeerError):
        await one.auth_check(repo, Commit(COMMITS[repo]))
    with suppress(HfpeerError):
        await one.manifest(repo, Commit(COMMITS[repo]))
    for path in (LARGE, FilePath("config.json"), FilePath("shard-0/file-0000.txt")):
        with suppress(SourceFault):
            one.open_range(repo, Commit(COMMITS[repo]), path, 0, 10, size_bytes=SIZES.get(path, 10)).close()


COMMITS: dict[RepoId, str] = {}
SIZES = {LARGE: 3_000_000, FilePath("config.json"): 22}


@pytest.fixture
def commit(origin: HubSimulator) -> Commit:
    COMMITS[ZOO] = put_zoo(origin.storage)
    COMMITS[RepoId.parse("acme/many")] = put_many(origin.storage)
    return Commit(COMMITS[ZOO])


def listeners_with_token(hub: HubSimulator) -> set[str]:
    return {record.listener for record in hub.requests if hub.valid_token in str(record.request)}


async def test_the_cdn_never_sees_the_token(origin: HubSimulator, commit: Commit) -> None:
    one = upstream("origin", "origin", origin, sends_token=True)
    await exercise(one)
    await exercise(one, RepoId.parse("acme/many"))
    assert origin.requests_for(listener="cdn") and listeners_with_token(origin) == {"hub"}
    verbs = ("revision", "tree", "resolve", "info", "git-upload-pack", "auth-check")
    assert all(any(f"/{verb}" in record.path for record in origin.requests_with_token()) for verb in verbs)
    await one.aclose()


async def test_a_mirror_sees_no_token_without_the_opt_in(mirror: HubSimulator, commit: Commit) -> None:
    one = upstream("mirror", "mirror", mirror, sends_token=False)
    await exercise(one)
    await exercise(one.with_token(mirror.valid_token))
    assert len(mirror.requests) > 8 and not mirror.requests_with_token() and listeners_with_token(mirror) == set()
    await one.aclose()


async def test_a_mirror_with_the_opt_in_sees_it(mirror: HubSimulator, commit: Commit) -> None:
    one = upstream("mirror", "mirror", mirror, sends_token=True)
    await exercise(one)
    assert listeners_with_token(mirror) == {"hub"}
    await one.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_carries_the_token_to_another_origin(
    origin: HubSimulator, mirror: HubSimulator, commit: Commit, status: int
) -> None:
    """The other origin is a whole hub that answers everything, so that nothing stops the requests."""

    def elsewhere(request: object, answer: object) -> object:
        location = f"{mirror.endpoint}{request.target}"  # type: ignore[attr-defined]
        return faults.status(status, headers={"Location": location})(request, answer)  # type: ignore[arg-type]

    one = upstream("origin", "origin", origin, sends_token=True)
    origin.inject(elsewhere, listener="hub")  # type: ignore[arg-type]
    await exercise(one)
    assert origin.requests_with_token()
    assert len(mirror.requests) > 5 and not mirror.requests_with_token()
    await one.aclose()


async def test_localhost_is_another_origin_than_its_address(origin: HubSimulator, commit: Commit) -> None:
    port = origin.endpoint.rpartition(":")[2]

    def renamed(request: object, answer: object) -> object:
        location = f"http://localhost:{port}{request.target}"  # type: ignore[attr-defined]
        return faults.status(307, headers={"Location": location})(request, answer)  # type: ignore[arg-type]

    one = upstream("origin", "origin", origin, sends_token=True)
    origin.inject(renamed, times=1)  # type: ignore[arg-type]
    await one.resolve(ZOO, MAIN)
    assert [record.authorization is not None for record in origin.requests] == [True, False]
    await one.aclose()


async def test_a_next_page_at_another_host_is_asked_of_ours(origin: HubSimulator, mirror: HubSimulator) -> None:
    commit = Commit(put_many(origin.storage))
    link = f"<{mirror.endpoint}/api/models/acme/many/tree/{commit}?recursive=true&cursor=eyJvZmZzZXQiOjEwMDB9>"
    origin.inject(faults.with_header("Link", link + '; rel="next"'), path="*/tree/*", times=1)
    one = upstream("origin", "origin", origin, sends_token=True)
    assert len((await one.manifest(RepoId.parse("acme/many"), commit)).files) == 1100
    assert not mirror.requests
    await one.aclose()


async def test_addresses_found_with_one_token_are_not_used_for_another(origin: HubSimulator, commit: Commit) -> None:
    put_zoo(origin.storage, visibility="gated")
    one = upstream("origin", "origin", origin, sends_token=True)
    size = SIZES[LARGE]
    one.open_range(ZOO, commit, LARGE, 0, 10, size_bytes=size).close()
    one.open_range(ZOO, commit, LARGE, 0, 10, size_bytes=size).close()
    assert len(origin.requests_for("*/resolve/*")) == 1
    with pytest.raises(SourceFault) as caught:
        one.with_token(origin.foreign_token).open_range(ZOO, commit, LARGE, 0, 10, size_bytes=size)
    assert isinstance(caught.value.__cause__, GatedRepo)
    await one.aclose()


async def test_no_cookie_is_kept(origin: HubSimulator, commit: Commit) -> None:
    origin.inject(faults.with_header("Set-Cookie", "token=secret; Path=/"))
    one = upstream("origin", "origin", origin, sends_token=True)
    await exercise(one)
    assert not [record for record in origin.requests if "cookie" in record.request.headers]
    await one.aclose()


async def test_no_token_and_no_signature_is_in_our_log_or_our_errors(
    origin: HubSimulator, commit: Commit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="hfpeer")
    one = upstream("origin", "origin", origin, sends_token=True)
    messages = []
    for fault_of_hub in (faults.status(500), faults.cut_before_headers(), faults.expired_signature()):
        with origin.inject(fault_of_hub):
            for asking in (one.resolve(ZOO, MAIN), one.manifest(ZOO, commit)):
                with pytest.raises(HfpeerError) as caught:
                    await asking
                messages.append(f"{caught.value.to_problem()}")
            with pytest.raises(SourceFault) as fault:
                one.open_range(ZOO, commit, LARGE, 0, 10, size_bytes=100)
            messages.append(fault.value.reason)
    said = "\n".join(messages + [record.getMessage() for record in caplog.records if record.name.startswith("hfpeer")])
    assert origin.valid_token not in said and "Signature" not in said and len(messages) == 9
    await one.aclose()


# --- several hubs -----------------------------------------------------------------------------------------------


@pytest.fixture
def hubs(mirror: HubSimulator, origin: HubSimulator) -> Upstreams:
    return Upstreams([upstream("mirror", "mirror", mirror, False), upstream("origin", "origin", origin, True)])


async def test_the_first_that_knows_answers(
    hubs: Upstreams, mirror: HubSimulator, origin: HubSimulator, commit: Commit
) -> None:
    assert await hubs.resolve(ZOO, MAIN) == (commit, "mirror")
    manifest, name = await hubs.manifest(ZOO, commit)
    assert name == "mirror" and not manifest.is_attested and not origin.requests
    with mirror.down():
        assert await hubs.resolve(ZOO, MAIN) == (commit, "origin")
        assert (await hubs.manifest(ZOO, commit))[1] == "origin"
    await hubs.aclose()


FORGING: dict[str, Callable[[], Fault]] = {
    "forged": lambda: faults.substituted(b"[]"),
    "broken": lambda: faults.status(500),
    "no hub": lambda: faults.status(404),
}


@pytest.mark.parametrize("fault", FORGING)
async def test_a_bad_mirror_does_not_stop_the_origin(
    hubs: Upstreams, mirror: HubSimulator, commit: Commit, fault: str
) -> None:
    mirror.inject(FORGING[fault](), path="/api/*")
    manifest, name = await hubs.manifest(ZOO, commit)
    assert name == "origin" and not manifest.is_attested
    await hubs.aclose()


async def test_a_proof_is_preferred_to_the_order(
    hubs: Upstreams, mirror: HubSimulator, origin: HubSimulator, commit: Commit
) -> None:
    mirror.behaviour.has_git = False
    assert (await hubs.manifest(ZOO, commit))[1] == "origin"
    with origin.down():
        manifest, name = await hubs.manifest(ZOO, commit)
        assert manifest.is_attested and name == "mirror"
    await hubs.aclose()


async def test_everybody_who_said_no_is_named(hubs: Upstreams, mirror: HubSimulator, commit: Commit) -> None:
    with pytest.raises(RevisionNotFound) as caught:
        await hubs.resolve(ZOO, Revision("nope"))
    assert "mirror" in caught.value.message and "origin" in caught.value.message
    with pytest.raises(RepoNotFound) as missing, mirror.down():
        await hubs.resolve(RepoId.parse("acme/none"), MAIN)
    assert "mirror cannot be reached" in missing.value.message and "origin has no model" in missing.value.message
    assert set(missing.value.facts["answers"]) == {"mirror", "origin"}
    await hubs.aclose()


async def test_nobody_reachable_names_each_and_its_reason(
    hubs: Upstreams, mirror: HubSimulator, origin: HubSimulator
) -> None:
    mirror.inject(faults.status(500))
    with origin.down(), pytest.raises(HubUnreachable) as caught:
        await hubs.resolve(ZOO, MAIN)
    assert "mirror answers 500" in caught.value.message and "origin cannot be reached" in caught.value.message
    with pytest.raises(HubUnreachable, match="No hub is set"):
        await Upstreams([]).resolve(ZOO, MAIN)
    await hubs.aclose()


async def test_a_private_repo_that_the_mirror_does_not_know_comes_from_the_origin(
    hubs: Upstreams, origin: HubSimulator
) -> None:
    commit = origin.put_repo("model", "acme/secret", {"a": Lfs(b"1")}, visibility="private")
    repo = RepoId.parse("acme/secret")
    assert await hubs.resolve(repo, MAIN) == (commit, "origin")
    assert await hubs.visibility(repo, Commit(commit)) == [
        VisibilityAnswer(origin.endpoint, True, Visibility.PRIVATE, "")
    ]
    await hubs.aclose()


async def test_mirrors_are_asked_who_may_see_it_only_while_the_origin_is_silent(
    hubs: Upstreams, mirror: HubSimulator, origin: HubSimulator, commit: Commit
) -> None:
    public = VisibilityAnswer(origin.endpoint, True, Visibility.PUBLIC, commit)
    assert await hubs.visibility(ZOO, commit, asks_mirrors=True) == [public]
    assert not mirror.requests
    with origin.down():
        with pytest.raises(HubUnreachable, match="No origin tells"):
            await hubs.visibility(ZOO, commit)
        assert not mirror.requests
        assert await hubs.visibility(ZOO, commit, asks_mirrors=True) == [
            VisibilityAnswer(mirror.endpoint, False, Visibility.PUBLIC, commit)
        ]
    await hubs.aclose()


async def test_a_forgery_outweighs_absence(
    hubs: Upstreams, mirror: HubSimulator, origin: HubSimulator, commit: Commit
) -> None:
    for hub in (mirror, origin):
        hub.inject(faults.substituted(b"[]"), path="/api/*")
    with pytest.raises(ForgedManifest, match="contradicts"):
        await hubs.manifest(ZOO, commit)
    await hubs.aclose()
