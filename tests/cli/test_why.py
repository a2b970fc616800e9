"""`hfpeer why`: its arguments, and its text on where the bytes came from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.stub_node import COMMIT, StubNode
from hfpeer.cache.records import Contribution, Failure, FetchRecord
from hfpeer.control.operations import Provenance
from hfpeer.errors import NotFound
from hfpeer.names import MAIN, RepoId

Run = Callable[..., Any]
MB = 1_000_000
PEER = Contribution("pegasus", "peer", "192.168.1.20:9437", "lan", "eth0", 3 * MB, ((0, 2 * MB), (4 * MB, 5 * MB)))
HUB = Contribution("huggingface.co", "origin", "https://huggingface.co", "wan", "", 2 * MB, ((2 * MB, 4 * MB),))


@pytest.fixture
def fetched() -> Provenance:
    now = time.time()
    record = FetchRecord(
        "sha256:00",
        5 * MB,
        now - 130,
        now - 120,
        now - 120,
        (PEER, HUB),
        (Failure("pegasus", "the connection broke", False, now - 125), Failure("orion", "gave wrong bytes", True, now)),
        ((0, MB),),
        MB,
    )
    return Provenance("acme/tiny", COMMIT, "w.bin", "sha256:00", 5 * MB, "fetched", now - 120, record)


def test_why_shows_the_sources_the_networks_and_the_time_of_verification(
    hfpeer: Run, node: StubNode, fetched: Provenance
) -> None:
    node.provenance = [fetched]
    ran = hfpeer("why", "acme/tiny")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "w.bin  5.0 MB, verified 2 min ago"
    assert "3.0 MB in 2 ranges came from pegasus (peer, LAN through eth0, 192.168.1.20:9437)" in ran.out
    assert "2.0 MB in 1 range came from huggingface.co (origin, WAN, https://huggingface.co)" in ran.out
    assert "bytes 0 to" not in ran.out


def test_why_says_what_failed_and_what_was_fetched_twice(hfpeer: Run, node: StubNode, fetched: Provenance) -> None:
    node.provenance = [fetched]
    out = hfpeer("why", "acme/tiny").out
    assert "pegasus failed 2 min ago: the connection broke" in out
    assert "orion lied" in out
    assert "fetched twice: 1.0 MB, for these bytes were wrong: 0-1,000,000" in out


def test_why_of_one_file_lists_the_ranges(hfpeer: Run, node: StubNode, fetched: Provenance) -> None:
    node.provenance = [fetched]
    out = hfpeer("why", "acme/tiny", "w.bin").out
    assert "bytes 4,000,000 to 5,000,000" in out


def test_why_of_a_file_in_a_thousand_ranges_stays_readable(hfpeer: Run, node: StubNode, fetched: Provenance) -> None:
    assert fetched.fetch is not None
    many = replace(PEER, ranges=tuple((n, n + 1) for n in range(0, 1000, 2)), more_ranges=200)
    node.provenance = [replace(fetched, fetch=replace(fetched.fetch, contributions=(many,)))]
    out = hfpeer("why", "acme/tiny", "w.bin").out
    assert len(out.splitlines()) < 60
    assert "and 660 more ranges" in out
    assert len(hfpeer("why", "acme/tiny", "w.bin", "--json").document[0]["fetch"]["contributions"][0]["ranges"]) == 500


def test_why_says_that_a_file_was_found_in_the_cache(hfpeer: Run, node: StubNode, fetched: Provenance) -> None:
    node.provenance = [
        replace(fetched, how="found", fetch=None),
        replace(fetched, path="b", how="found", fetch=None, verified_at=None),
        replace(fetched, path="c", how="published", fetch=None),
        replace(fetched, path="d", how="missing", fetch=None, verified_at=None),
    ]
    lines = hfpeer("why", "acme/tiny").out.splitlines()
    assert lines[0].endswith("found in the cache, its source is not known, verified 2 min ago")
    assert lines[1].endswith("not verified yet")
    assert "published from this machine" in lines[2]
    assert lines[3].endswith("not in the cache")


@pytest.mark.parametrize(
    "words",
    [
        ("acme/tiny", "w.bin", "-v", "main"),
        ("-r", "acme/tiny", "w.bin"),
        ("-r", "acme/tiny", "-f", "w.bin"),
        ("-v", "main", "acme/tiny", "-f", "w.bin", "--type", "model"),
    ],
)
def test_the_repo_is_named_with_or_without_its_option(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    assert hfpeer("why", *words).code == 0
    assert node.calls == [("why", {"repo": RepoId.parse("acme/tiny"), "revision": MAIN, "files": ("w.bin",)})]


def test_why_as_json_is_one_document(hfpeer: Run, node: StubNode, fetched: Provenance) -> None:
    node.provenance = [fetched]
    (document,) = hfpeer("--json", "why", "acme/tiny").document
    assert document["fetch"]["contributions"][1]["kind"] == "origin"
    assert document["fetch"]["wrong_ranges"] == [[0, MB]]


@pytest.mark.parametrize("words", [(), ("bad//name",), ("acme/tiny", "../x"), ("acme/tiny", "--type", "thing")])
def test_malformed_words_are_refused_before_anything_is_asked(
    hfpeer: Run, node: StubNode, words: tuple[str, ...]
) -> None:
    assert hfpeer("why", *words).code == 2
    assert node.sessions == 0


def test_a_repo_that_is_not_here_exits_4(hfpeer: Run, node: StubNode) -> None:
    node.broken = NotFound("acme/tiny at main is not in the cache.")
    assert hfpeer("why", "acme/tiny").code == 4
