"""The pure parts of the endpoint: URLs, listings, unverified reads, Xet's arithmetic, which callers are admitted."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import Grant
from hfpeer.endpoint.files.reader import BlobReader, reserve_of
from hfpeer.endpoint.files.unverified import UnverifiedReads
from hfpeer.endpoint.metadata.hub_json import TreeEntries, history, info, without_xet
from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.errors import CorruptData, InvalidName, RateLimited
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.net.lru_cache import LruCache
from hfpeer.net.singleflight import SingleFlight
from hfpeer.ranges import ByteRange, RangeSet
from hfpeer.resolver.commits import Resolution
from hfpeer.trust.precedence import UpstreamAnswer, Voice
from hfpeer.upstream.proxy import rewritten_url
from hfpeer_daemon.endpoint.requests.request import HubRequest
from hfpeer_daemon.endpoint.requests.urls import HubUrl, collapsed, parse_url
from hfpeer_daemon.endpoint.responses.answers import age_headers
from hfpeer_daemon.endpoint.xet import CHUNK_BYTES, CHUNK_HEADER_BYTES, XORB_BYTES, packed, reconstruction

COMMIT = Commit("5a0d" * 10)
DIGEST = Digest("sha256", "ab" * 32)


def read(path: str) -> HubUrl:
    found = parse_url(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "repo", "verb", "revision", "rest"),
    [
        ("/acme/zoo/resolve/main/a/b.txt", "acme/zoo", "resolve", "main", ("a", "b.txt")),
        ("/gpt2/resolve/dev%2Fexp/a", "gpt2", "resolve", "dev/exp", ("a",)),
        ("/acme/zoo/resolve/HEAD/a", "acme/zoo", "resolve", "main", ("a",)),
        ("/datasets/acme/zoo/raw/refs/pr/3/a", "datasets/acme/zoo", "raw", "refs/pr/3", ("a",)),
        ("/api/models/acme/zoo", "acme/zoo", "", "main", ()),
        ("/api/models/gpt2/revision/main", "gpt2", "revision", "main", ()),
        ("/api/datasets/acme/resolve/tree/main/x%2Fy", "datasets/acme/resolve", "tree", "main", ("x%2Fy",)),
        ("/api/spaces/tree/tree/tree/main", "spaces/tree/tree", "tree", "main", ()),
        ("/acme/zoo.git/info/refs", "acme/zoo", "info", "refs", ()),
    ],
)
def test_addresses(path: str, repo: str, verb: str, revision: str, rest: tuple[str, ...]) -> None:
    address = read(path)
    assert (address.repo.url_path, address.verb, address.revision()) == (repo, verb, (revision, rest))


@pytest.mark.parametrize(
    "path", ["/", "/acme", "/acme/zoo", "/api/whoami-v2", "/api/kernels/a/b", "/api/models", "/a/b/c"]
)
def test_a_path_that_names_no_repo_is_forwarded(path: str) -> None:
    assert parse_url(path) is None


def test_an_impossible_repo_name_is_refused() -> None:
    with pytest.raises(InvalidName):
        parse_url("/a..b/c/resolve/main/x")


@given(st.text(alphabet="/a%2F.é"))
def test_collapsing_leaves_no_double_slash_and_is_done_once(path: str) -> None:
    one = collapsed("/" + path)
    assert "//" not in one and one.startswith("/") and collapsed(one) == one


def manifest(**files: int) -> Manifest:
    blob = Digest("git-sha1", "cd" * 20)
    entries = [ManifestFile(FilePath(path.replace("__", "/")), size, blob) for path, size in files.items()]
    return Manifest(RepoId.parse("acme/zoo"), COMMIT, tuple(sorted(entries, key=lambda file: file.path)))


def test_a_listing_shows_folders_as_the_hub_does() -> None:
    listing = TreeEntries(manifest(a=1, b__c=2, b__d__e=3, bb=4))
    assert [entry["path"] for entry in listing.tree("", is_recursive=False) or []] == ["a", "b", "bb"]
    assert [entry["path"] for entry in listing.tree("b", is_recursive=True) or []] == ["b/c", "b/d", "b/d/e"]
    assert listing.tree("a", is_recursive=True) is None
    assert listing.paths(["b", "no", "b/c", "b"]) == [listing.entries["b"], listing.entries["b/c"]]


def test_info_without_facts_is_complete() -> None:
    document = info(manifest(a=1), {}, with_blobs=False)
    assert (document["id"], document["sha"], document["siblings"]) == ("acme/zoo", COMMIT, [{"rfilename": "a"}])
    assert history(manifest(a=1)) == []
    raw = (
        b"tree "
        + b"0" * 40
        + b"\nauthor Ann <a@b> 1700000000 +0100\ncommitter C <c@d> 1700000001 +0000\n\nTitle\n\nMore\n"
    )
    proved = Manifest(RepoId.parse("acme/zoo"), COMMIT, (), commit_object=raw)
    assert history(proved)[0] | {"id": ""} == {
        "id": "",
        "title": "Title",
        "message": "Title\n\nMore",
        "authors": [{"user": "Ann"}],
        "date": "2023-11-14T22:13:20.000Z",
    }
    assert info(proved, {"likes": 7}, with_blobs=True)["lastModified"] == "2023-11-14T22:13:21.000Z"


def test_xet_is_taken_out_at_every_depth() -> None:
    assert without_xet([{"xetHash": "x", "lfs": {"oid": 1, "xetHash": "y"}}]) == [{"lfs": {"oid": 1}}]


def test_a_client_that_was_sent_better_bytes_later_has_none_that_are_wrong() -> None:
    reads = UnverifiedReads()
    reads.note_sent("ann", DIGEST, ByteRange(0, 50))
    reads.note_wrong(DIGEST, ByteRange(50, 150))
    reads.note_sent("ann", DIGEST, ByteRange(50, 300))
    assert not reads.has_wrong_bytes("ann", DIGEST)


def test_a_client_that_was_sent_wrong_bytes_is_remembered_until_it_has_the_whole() -> None:
    reads = UnverifiedReads()
    reads.note_sent("ann", DIGEST, ByteRange(0, 100))
    reads.note_sent("bob", DIGEST, ByteRange(200, 300))
    reads.note_wrong(DIGEST, ByteRange(50, 150))
    reads.note_verified(DIGEST)
    assert reads.has_wrong_bytes("ann", DIGEST) and not reads.has_wrong_bytes("bob", DIGEST)
    reads.forget("ann", DIGEST)
    assert not reads.has_wrong_bytes("ann", DIGEST)


def reader_of(growing: Growing, reads: UnverifiedReads, size: int = 1_000_000) -> BlobReader:
    return BlobReader(-1, size, growing, _nothing, reads.of("ann", DIGEST))


async def test_a_reader_remembers_what_it_sent_unverified_and_ends_where_that_is_wrong() -> None:
    growing, reads = Growing(), UnverifiedReads()
    growing.present.add(0, 500_000)
    stretches = reader_of(growing, reads).stretches(ByteRange(0, 1_000_000))
    assert await anext(stretches) == ByteRange(0, 500_000)
    reads.note_wrong(DIGEST, ByteRange(400_000, 600_000))
    growing.present.add(500_000, 700_000)
    with pytest.raises(CorruptData):
        await anext(stretches)
    with pytest.raises(CorruptData):
        await anext(reader_of(growing, reads).stretches(ByteRange(0, 100)))


async def test_a_reader_of_the_whole_blob_repairs_a_client_that_has_wrong_bytes() -> None:
    growing, reads = Growing(), UnverifiedReads()
    growing.present.add(0, 1_000_000)
    growing.is_verified = True
    reads.mark_client("ann", DIGEST)
    stretches = reader_of(growing, reads).stretches(ByteRange(0, 1_000_000))
    assert await anext(stretches) == ByteRange(0, 1_000_000)
    assert reads.has_wrong_bytes("ann", DIGEST), "until the last byte was sent"
    assert [stretch async for stretch in stretches] == []
    assert not reads.has_wrong_bytes("ann", DIGEST)


async def test_a_reader_that_finds_wrong_bytes_marks_its_client() -> None:
    growing, reads = Growing(), UnverifiedReads()
    growing.present.add(0, 500_000)
    stretches = reader_of(growing, reads).stretches(ByteRange(0, 1_000_000))
    await anext(stretches)
    growing.wrong.append(ByteRange(0, 10))
    with pytest.raises(CorruptData):
        await anext(stretches)
    assert reads.has_wrong_bytes("ann", DIGEST)


class Growing:
    """A blob that grows as the test says."""

    def __init__(self) -> None:
        self.present = RangeSet()
        self.is_verified = False
        self.wrong: list[ByteRange] = []
        self.rest_seconds = 0.0

    def readable_stop(self, start: int, stop: int) -> int:
        gap = next(self.present.gaps(start, stop), None)
        return stop if gap is None else gap.start

    def prefer(self, reader: int, start: int, stop: int) -> None: ...

    def check(self) -> None: ...

    def check_rest(self) -> None:
        if self.rest_seconds:
            raise RateLimited("The hubs limit requests.", retry_after_seconds=self.rest_seconds)

    def wrong_since(self, number: int) -> list[ByteRange]:
        return self.wrong[number:]


async def _nothing() -> None: ...


async def test_some_bytes_are_held_back_until_all_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.endpoint.files.reader.TRICKLE_SECONDS", 0.01)
    size, growing = 1_000_000, Growing()
    reading, held = BlobReader(-1, size, growing, _nothing), reserve_of(size)
    growing.present.add(0, size)
    assert await reading.readable(0, size) == held.start
    position = held.start
    for _ in range(3):
        position, before = await reading.readable(position, size), position
        assert before < position < before + 1000, "a trickle keeps the caller waiting"
    assert await reading.readable(held.stop - 2, size) == held.stop - 1
    waiting = asyncio.ensure_future(reading.readable(held.stop - 1, size))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the last byte of them waits"
    growing.is_verified = True
    reading.changed()
    assert await waiting == size


@given(st.integers(1, 100_000_000))
def test_of_every_blob_something_is_held_back_and_of_a_large_one_not_its_end(size: int) -> None:
    held = reserve_of(size)
    assert 0 <= held.start < held.stop <= size
    assert size - held.stop >= min(8_000_000, size // 4)


async def test_a_caller_is_told_when_all_sources_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.endpoint.files.reader.TRICKLE_SECONDS", 0.01)
    growing = Growing()
    growing.rest_seconds = 60.0
    with pytest.raises(RateLimited):
        await BlobReader(-1, 1_000_000, growing, _nothing).readable(0, 1_000_000)
    growing.present.add(0, 10)
    assert await BlobReader(-1, 1_000_000, growing, _nothing).readable(0, 1_000_000) == 10


async def test_the_end_of_a_blob_is_given_as_soon_as_it_is_here() -> None:
    size, growing = 1_000_000, Growing()
    growing.present.add(size - 100_000, size)
    assert await BlobReader(-1, size, growing, _nothing).readable(size - 100_000, size) == size


async def test_bytes_that_turn_out_to_be_wrong_end_the_reading() -> None:
    growing = Growing()
    growing.present.add(0, 500_000)
    reading = BlobReader(-1, 1_000_000, growing, _nothing)
    assert await reading.readable(0, 1_000_000) == 500_000
    growing.wrong.append(ByteRange(400_000, 600_000))
    with pytest.raises(CorruptData):
        await reading.readable(500_000, 1_000_000)


async def test_callers_at_the_same_time_share_one_task_and_a_cancelled_caller_does_not_end_it() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    asked, gate = 0, asyncio.Event()

    async def work() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        return 7

    waiting = [asyncio.ensure_future(flight.run("key", work)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [7, 7]
    assert asked == 1


async def test_a_failure_is_shared_and_the_next_caller_starts_anew() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        raise ValueError(runs)

    for run in (1, 2):
        failures = await asyncio.gather(flight.run("key", work), flight.run("key", work), return_exceptions=True)
        assert [str(failure) for failure in failures] == [str(run)] * 2


async def test_stopping_ends_all_work_in_flight() -> None:
    flight: SingleFlight[str, bool] = SingleFlight()
    tasks = [flight.begin(key, asyncio.Event().wait) for key in "ab"]
    await flight.stop()
    assert all(task.cancelled() for task in tasks)


def test_a_value_that_is_missing_is_made_once() -> None:
    recent: LruCache[str, list[int]] = LruCache(2)
    assert recent.get_or_put("a", list) is recent.get_or_put("a", list)
    recent.put("b", [1])
    recent.get("a")
    recent.put("c", [2])
    assert [key for key, _ in recent.items()] == ["a", "c"] and len(recent) == 2


def test_the_values_used_last_stay() -> None:
    recent: LruCache[str, bytes] = LruCache(10, len)
    for key in "abc":
        recent.put(key, b"12345")
    assert [recent.get(key) for key in "abc"] == [None, b"12345", b"12345"]


@given(st.integers(1, 3 * XORB_BYTES), st.data())
def test_a_reconstruction_covers_exactly_the_requested_range(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 1))
    part = ByteRange(start, data.draw(st.integers(start + 1, size)))
    found = reconstruction("ab" * 32, size, part, "http://x", has_xorbs=False)
    plain = sum(term["unpacked_length"] for term in found["terms"])
    offset = found["offset_into_first_range"]
    assert offset == part.start % CHUNK_BYTES
    assert offset + part.size_bytes <= plain < offset + part.size_bytes + CHUNK_BYTES
    for term in found["terms"]:
        [fetch] = found["fetch_info"][term["hash"]]
        chunks = term["range"]["end"] - term["range"]["start"]
        span = fetch["url_range"]
        assert span["end"] - span["start"] + 1 == term["unpacked_length"] + chunks * CHUNK_HEADER_BYTES


def test_packed_chunks_hold_the_file(tmp_path: Path) -> None:
    body = os.urandom(CHUNK_BYTES + 1000)
    (tmp_path / "f").write_bytes(body)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    found = packed(fd, ByteRange(0, len(body)))
    os.close(fd)
    assert found[CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + CHUNK_BYTES] + found[-1000:] == body
    assert int.from_bytes(found[1:4], "little") == CHUNK_BYTES


def test_only_urls_of_the_hub_are_rewritten() -> None:
    def turned(address: str) -> str:
        return rewritten_url(address, "https://mirror.example/hub", "http://127.0.0.1:9438")

    assert turned("https://mirror.example/hub/api/x?a=b") == "http://127.0.0.1:9438/api/x?a=b"
    assert turned("https://huggingface.co/api/x") == "http://127.0.0.1:9438/api/x"
    assert turned("https://cdn.example/x") == "https://cdn.example/x"
    assert turned("/hub/acme/zoo") == "/acme/zoo"


def request_of(client: str, **headers: str) -> HubRequest:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"client": (client, 1), "headers": lines, "raw_path": b"/", "query_string": b"", "method": "GET"}

    async def unused(*_: object) -> Any:
        raise AssertionError("only the head is looked at")

    return HubRequest(scope, unused, unused)


@pytest.mark.parametrize("client", ["192.168.1.9", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "unix"])
def test_a_caller_on_another_machine_is_anonymous(client: str) -> None:
    caller = request_of(client, authorization="Bearer hf_secret").caller
    assert (caller.token, caller.is_local) == (None, False)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("authorization", ["Bearer hf_secret", "bearer hf_secret", "Basic dTpoZl9zZWNyZXQ="])
def test_a_caller_on_this_machine_brings_its_token(client: str, authorization: str) -> None:
    caller = request_of(client, authorization=authorization).caller
    assert (caller.token, caller.is_local) == ("hf_secret", True)
    assert "secret" not in caller.fingerprint


@pytest.mark.parametrize(
    ("voice", "hubs", "age_seconds", "age", "warning"),
    [
        (Voice.HUB, UpstreamAnswer.ANSWERED, None, "3", None),
        (Voice.MEMORY, UpstreamAnswer.SILENT, 60.0, "63", "the answer is 63 s old"),
        (Voice.MEMORY, UpstreamAnswer.SILENT, None, str(2**31), "the answer is of unknown age"),
        (Voice.PEER, UpstreamAnswer.SILENT, 5.0, "8", "the answer is what h2 on the LAN says, 8 s old"),
        (Voice.PUBLISHED, UpstreamAnswer.NO_REPO, 5.0, "3", "published by h2 on the LAN, on no hub"),
        (Voice.PUBLISHED_HERE, UpstreamAnswer.SILENT, None, "3", None),
    ],
)
def test_an_answer_names_its_age_and_its_source(
    voice: Voice, hubs: UpstreamAnswer, age_seconds: float | None, age: str, warning: str | None
) -> None:
    """What is of unknown age never passes for young: a clock may have jumped."""
    resolution = Resolution(Commit("a" * 40), "h2", voice, hubs, age_seconds)
    listing = TreeEntries(Manifest(RepoId.parse("acme/m"), Commit("a" * 40), (), (), None))
    headers = age_headers(AdmittedRevision(Caller(), resolution, listing, time.monotonic() - 3, Grant.ALL))
    assert headers["Age"] == age
    assert (warning is None) == ("X-HF-Warning" not in headers)
    assert warning is None or warning in headers["X-HF-Warning"]
    assert age_headers(AdmittedRevision(Caller(), resolution, listing, None, Grant.ALL)) == {}
