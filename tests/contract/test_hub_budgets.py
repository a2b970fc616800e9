"""What a hub may send, and how often it is asked: each bound is reached, from below and from beyond."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from fakes.hub import Fault, HubSimulator, Lfs, faults, pointer_text
from fakes.hub.wire import body_bytes
from hfpeer import budgets
from hfpeer.budgets import MAX_ADDRESSES_TRIED, MAX_HINT_HEADER_CHARACTERS
from hfpeer.errors import ForgedManifest, HubUnreachable
from hfpeer.git import pack_reader as pack
from hfpeer.git import trees
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.upstream import api
from hfpeer.upstream import upstream as hub_module
from hfpeer.upstream.access import Access
from hfpeer.upstream.api import Api, ApiRequest, Timeouts
from hfpeer.upstream.connection import destinations
from hfpeer.upstream.connection.clients import Connections
from hfpeer.upstream.listing import file_lists, git
from hfpeer.upstream.responses.refusals import asked_rest
from hfpeer.upstream.upstream import Upstream

ZOO, MAIN = RepoId.parse("acme/zoo"), Revision("main")
QUICK = Timeouts(backoff_seconds=0.01)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
async def upstream(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=QUICK)
    yield one
    await one.aclose()


def put(hub: HubSimulator, count: int, content: bytes = b"x") -> Commit:
    return Commit(hub.put_repo("model", "acme/zoo", {f"f{number}": content for number in range(count)}))


def packed(text: bytes) -> Fault:
    """The text, in gzip."""
    return lambda request, answer: faults.gzipped()(request, lambda _: faults.substituted(text)(request, answer))


async def test_an_answer_has_a_largest_size_unpacked(hub: HubSimulator) -> None:
    put(hub, 1)
    assert ApiRequest(httpx.URL("http://x"), ZOO).max_bytes == budgets.MAX_ANSWER_BYTES
    asking, access = Api("hub", QUICK, hub.endpoint, Connections()), Access(hub.endpoint, None, False)
    try:
        for size_bytes, is_taken in ((50_000, True), (50_001, False)):
            hub.inject(packed(b"[]".ljust(size_bytes)), times=1)
            request = ApiRequest(access.url("/api/models/acme/zoo"), ZOO, max_bytes=50_000)
            if is_taken:
                assert await asking.get_json(request, access) == []
            else:
                with pytest.raises(HubUnreachable, match="larger than 50000 bytes"):
                    await asking.get_json(request, access)
    finally:
        await asking.aclose()


@pytest.mark.parametrize(("bound", "most"), [("MAX_PAGES", 4), ("MAX_ELEMENTS", 6)])
async def test_a_listing_has_a_largest_number_of_pages_and_elements(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    commit = put(hub, 8)
    hub.behaviour.has_git, hub.behaviour.tree_page_entries = False, 2
    assert getattr(api, bound) == getattr(budgets, bound)
    monkeypatch.setattr(api, bound, most)
    assert len((await upstream.manifest(ZOO, commit)).files) == 8
    monkeypatch.setattr(api, bound, most - 1)
    hub.inject(faults.status(404), path="/api/*/revision/*")  # which lists the files too
    with pytest.raises(HubUnreachable, match="no end"):
        await upstream.manifest(ZOO, commit)


async def test_so_many_paths_are_asked_for_one_by_one_and_no_more(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = put(hub, 8)
    hub.inject(faults.truncated_listing(5), path="*/tree/*")
    assert vars(file_lists)["MAX_MISSING_PATHS"] == budgets.MAX_MISSING_PATHS
    monkeypatch.setattr(file_lists, "MAX_MISSING_PATHS", 3)
    assert len((await upstream.manifest(ZOO, commit)).files) == 8
    monkeypatch.setattr(file_lists, "MAX_MISSING_PATHS", 2)
    asked = len(hub.requests_for("*/paths-info/*"))
    with pytest.raises(ForgedManifest, match="lacks"):
        await upstream.manifest(ZOO, commit)
    assert len(hub.requests_for("*/paths-info/*")) == asked


async def test_so_many_pointers_are_fetched_and_no_more(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    odd = {f"{number}.bin": pointer_text(digest, 7).replace(b"oid", b"x-note %d\noid" % number) for number in range(3)}
    commit = Commit(hub.put_repo("model", "acme/zoo", {"real.bin": Lfs(b"weights"), **odd}))
    assert vars(hub_module)["MAX_ODD_POINTERS"] == budgets.MAX_ODD_POINTERS
    monkeypatch.setattr(hub_module, "MAX_ODD_POINTERS", 3)
    assert sum(file.pointer is not None for file in (await upstream.manifest(ZOO, commit)).files) == 3
    monkeypatch.setattr(hub_module, "MAX_ODD_POINTERS", 2)
    with pytest.raises(HubUnreachable, match="3 LFS pointers are not canonical"):
        await upstream.manifest(ZOO, commit)


async def test_a_git_answer_has_a_largest_size_packed_and_unpacked(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, answers = put(hub, 8), list[bytes]()

    def repeat(request: Any, answer: Any) -> Any:
        """The first answer for every request: git's progress lines make the others a little longer or shorter."""
        if not answers:
            answers.append(body_bytes(answer(request).body))
        return faults.substituted(answers[0])(request, answer)

    hub.inject(repeat, path="*git-upload-pack")
    assert not (await upstream.manifest(ZOO, commit)).is_attested
    packed = len(answers[0])
    unpacked = sum(pack._declared_sizes(b"".join(git._pack_data(answers[0]))))
    for bound, size_bytes in (("MAX_PACK_BYTES", packed), ("MAX_UNPACKED_PACK_BYTES", unpacked)):
        assert getattr(git, bound) == getattr(budgets, bound)
        for most, is_attested in ((size_bytes, False), (size_bytes - 1, True)):
            monkeypatch.setattr(git, bound, most)
            assert (await upstream.manifest(ZOO, commit)).is_attested is is_attested
        monkeypatch.undo()


async def test_a_git_tree_has_a_largest_number_of_entries_folders_and_bytes(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Commit(hub.put_repo("model", "acme/zoo", {"a/b": b"1", "c/d": b"2", "e": b"3"}))
    bounds = ((trees, "MAX_TREES", 3), (trees, "MAX_MANIFEST_PATH_BYTES", 9), (git, "MAX_COMMIT_BYTES", None))
    for module, bound, most in bounds:
        if most is None:
            raw = (await upstream.manifest(ZOO, commit)).commit_object
            assert raw is not None
            most = len(raw)
        for allowed, is_attested in ((most, False), (most - 1, True)):
            monkeypatch.setattr(module, bound, allowed)
            assert (await upstream.manifest(ZOO, commit)).is_attested is is_attested, (bound, allowed)
        monkeypatch.undo()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")
@pytest.mark.parametrize("before", [MAX_ADDRESSES_TRIED - 1, MAX_ADDRESSES_TRIED])
async def test_so_many_addresses_of_a_host_are_tried_and_no_more(
    hub: HubSimulator, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the host of a redirect only the last address answers."""
    commit, really, port = put(hub, 1), socket.getaddrinfo, hub.endpoint.rpartition(":")[2]
    many = [f"127.9.9.{last}" for last in range(1, before + 1)]

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        hosts = [*many, "127.0.0.1"] if host == "files.test" else ["127.0.0.1"]
        return [one for each in hosts for one in really(each, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    target = f"http://files.test:{port}/api/models/acme/zoo/revision/main"
    hub.inject(faults.status(307, headers={"Location": target}), times=1)
    upstream = Upstream("hub", "origin", f"http://hub.test:{port}", timeouts=QUICK)
    try:
        if before < MAX_ADDRESSES_TRIED:
            assert await upstream.resolve(ZOO, MAIN) == commit
        else:
            with pytest.raises(HubUnreachable, match="cannot be reached"):
                await upstream.resolve(ZOO, MAIN)
    finally:
        await upstream.aclose()


def test_of_many_addresses_the_first_are_looked_at() -> None:
    answers = [(0, 0, 0, "", (f"10.0.0.{last}", 80)) for last in range(MAX_ADDRESSES_TRIED + 1)]
    for count in (MAX_ADDRESSES_TRIED, MAX_ADDRESSES_TRIED + 1):
        found = destinations._parsed(answers[:count])
        assert found == [ipaddress.ip_address(f"10.0.0.{last}") for last in range(MAX_ADDRESSES_TRIED)]


def test_of_a_hint_no_more_is_read_than_its_bound() -> None:
    hint = '"api";r=0;t=7'
    for size, seconds in ((MAX_HINT_HEADER_CHARACTERS, 8.0), (MAX_HINT_HEADER_CHARACTERS + len(hint), 4.0)):
        assert asked_rest({"ratelimit": hint.rjust(size), "retry-after": "4"}).seconds == seconds
