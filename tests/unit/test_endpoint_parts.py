"""The pure parts of the endpoint: addresses, listings, suspicion, Xet's arithmetic, who may pass."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.endpoint.answers import Listing, history, info, without_xet
from hfpeer.endpoint.once import Once, Recent
from hfpeer.endpoint.reading import Reading, reserve_of
from hfpeer.endpoint.suspicion import Suspicion
from hfpeer.errors import CorruptData, InvalidName
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.ranges import ByteRange, RangeSet
from hfpeer.upstream.passage import own_address
from hfpeer_daemon.hub.addresses import Address, collapsed, read_address
from hfpeer_daemon.hub.asked import Asked
from hfpeer_daemon.hub.xet import CHUNK_BYTES, CHUNK_HEADER_BYTES, XORB_BYTES, packed, reconstruction

COMMIT = Commit("5a0d" * 10)
DIGEST = Digest("sha256", "ab" * 32)


def read(path: str) -> Address:
    found = read_address(path)
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
def test_what_is_no_repos_address_is_passed_on(path: str) -> None:
    assert read_address(path) is None


def test_an_impossible_repo_has_no_address() -> None:
    with pytest.raises(InvalidName):
        read_address("/a..b/c/resolve/main/x")


@given(st.text(alphabet="/a%2F.é"))
def test_collapsing_leaves_no_double_slash_and_is_done_once(path: str) -> None:
    one = collapsed("/" + path)
    assert "//" not in one and one.startswith("/") and collapsed(one) == one


def manifest(**files: int) -> Manifest:
    blob = Digest("git-sha1", "cd" * 20)
    entries = [ManifestFile(FilePath(path.replace("__", "/")), size, blob) for path, size in files.items()]
    return Manifest(RepoId.parse("acme/zoo"), COMMIT, tuple(sorted(entries, key=lambda file: file.path)))


def test_a_listing_shows_folders_as_the_hub_does() -> None:
    listing = Listing(manifest(a=1, b__c=2, b__d__e=3, bb=4))
    assert [entry["path"] for entry in listing.tree("", is_recursive=False) or []] == ["a", "b", "bb"]
    assert [entry["path"] for entry in listing.tree("b", is_recursive=True) or []] == ["b/c", "b/d", "b/d/e"]
    assert listing.tree("a", is_recursive=True) is None
    assert listing.paths(["b", "no", "b/c", "b"]) == [listing.entries["b"], listing.entries["b/c"]]


def test_info_without_facts_is_still_one() -> None:
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


def test_who_was_given_better_bytes_later_has_none_that_are_wrong() -> None:
    suspicion = Suspicion()
    suspicion.gave("ann", DIGEST, 0, 50)
    suspicion.found_wrong(DIGEST, ByteRange(50, 150))
    suspicion.gave("ann", DIGEST, 50, 300)
    assert not suspicion.has_wrong("ann", DIGEST)


def test_who_was_given_wrong_bytes_is_remembered_until_it_starts_again() -> None:
    suspicion = Suspicion()
    suspicion.gave("ann", DIGEST, 0, 100)
    suspicion.gave("bob", DIGEST, 200, 300)
    suspicion.found_wrong(DIGEST, ByteRange(50, 150))
    suspicion.verified(DIGEST)
    assert suspicion.has_wrong("ann", DIGEST) and not suspicion.has_wrong("bob", DIGEST)
    suspicion.has_all("ann", DIGEST)
    assert not suspicion.has_wrong("ann", DIGEST)


class Growing:
    """A blob that grows as the test says."""

    def __init__(self) -> None:
        self.present = RangeSet()
        self.is_verified = False
        self.wrong: list[ByteRange] = []

    def readable_stop(self, start: int, stop: int) -> int:
        gap = next(self.present.gaps(start, stop), None)
        return stop if gap is None else gap.start

    def prefer(self, reader: int, start: int, stop: int) -> None: ...

    def check(self) -> None: ...

    def wrong_since(self, number: int) -> list[ByteRange]:
        return self.wrong[number:]


async def _nothing() -> None: ...


async def test_some_bytes_are_held_back_until_all_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.endpoint.reading.TRICKLE_SECONDS", 0.01)
    size, growing = 1_000_000, Growing()
    reading, held = Reading(-1, size, growing, _nothing), reserve_of(size)
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


async def test_the_end_of_a_blob_is_given_as_soon_as_it_is_here() -> None:
    size, growing = 1_000_000, Growing()
    growing.present.add(size - 100_000, size)
    assert await Reading(-1, size, growing, _nothing).readable(size - 100_000, size) == size


async def test_bytes_that_turn_out_to_be_wrong_end_the_reading() -> None:
    growing = Growing()
    growing.present.add(0, 500_000)
    reading = Reading(-1, 1_000_000, growing, _nothing)
    assert await reading.readable(0, 1_000_000) == 500_000
    growing.wrong.append(ByteRange(400_000, 600_000))
    with pytest.raises(CorruptData):
        await reading.readable(500_000, 1_000_000)


async def test_several_who_ask_at_once_share_one_answer_and_one_who_leaves_takes_nothing_away() -> None:
    once, asked, gate = Once(), 0, asyncio.Event()

    async def work() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        return 7

    waiting = [asyncio.ensure_future(once.ask("key", work)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [7, 7]
    assert asked == 1


def test_what_is_used_last_stays() -> None:
    recent: Recent[str, bytes] = Recent(10, len)
    for key in "abc":
        recent.put(key, b"12345")
    assert [recent.get(key) for key in "abc"] == [None, b"12345", b"12345"]


@given(st.integers(1, 3 * XORB_BYTES), st.data())
def test_a_reconstruction_covers_exactly_what_was_asked(size: int, data: st.DataObject) -> None:
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


def test_addresses_of_the_hub_become_ours_and_no_others() -> None:
    def turned(address: str) -> str:
        return own_address(address, "https://mirror.example/hub", "http://127.0.0.1:9438")

    assert turned("https://mirror.example/hub/api/x?a=b") == "http://127.0.0.1:9438/api/x?a=b"
    assert turned("https://huggingface.co/api/x") == "http://127.0.0.1:9438/api/x"
    assert turned("https://cdn.example/x") == "https://cdn.example/x"
    assert turned("/hub/acme/zoo") == "/acme/zoo"


def asked(client: str, **headers: str) -> Asked:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"client": (client, 1), "headers": lines, "raw_path": b"/", "query_string": b"", "method": "GET"}
    return Asked(scope, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("client", ["192.168.1.9", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "unix"])
def test_a_caller_on_another_machine_is_nobody(client: str) -> None:
    caller = asked(client, authorization="Bearer hf_secret").caller
    assert (caller.token, caller.is_local) == (None, False)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("authorization", ["Bearer hf_secret", "bearer hf_secret", "Basic dTpoZl9zZWNyZXQ="])
def test_a_caller_on_this_machine_brings_its_token(client: str, authorization: str) -> None:
    caller = asked(client, authorization=authorization).caller
    assert (caller.token, caller.is_local) == ("hf_secret", True)
    assert "secret" not in caller.fingerprint
