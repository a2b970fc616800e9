"""add --dry-run: how much, from whom, about how long; and that nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import Machines
from fakes.stub_node import COMMIT, StubNode
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest, Holding, ListedCommit, ListedFile
from hfpeer.control.transfers import HistoryEntry

Run = Callable[..., Any]
SECONDS = 8.0


class ListingNode(StubNode):
    """A node whose listing has three files, one of them here; peers and history are what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.past: list[HistoryEntry] = []
        self.present = 1
        self.picture = replace(self.picture, upstreams={"hf-mirror.com": "https://hf-mirror.com"})

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        files = tuple(
            ListedFile(f"{n}.bin", 100_000_000, f"sha256:{n}", n < self.present, n < 3, None) for n in range(4)
        )
        return ListedCommit(request.repo.full_name, "model", COMMIT, "/snapshot", "public", True, files)

    async def history(self, since: float = 0.0) -> list[HistoryEntry]:
        return self.past


@pytest.fixture
def node() -> ListingNode:
    return ListingNode()


def fetched(size_bytes: int, **bytes_by_kind: int) -> HistoryEntry:
    return HistoryEntry(
        1, "a/b", "main", COMMIT, "done", Asker(), 0.0, 0.0, SECONDS, 1, size_bytes, {}, bytes_by_kind, 0
    )


def test_a_dry_run_says_how_much_from_whom_and_about_how_long(hfpeer: Run, node: ListingNode) -> None:
    node.found = [
        Holding("orion", "10.0.0.8:9437", "acme/tiny", COMMIT, ("main",), False),
        Holding("pegasus", "10.0.0.7:9437", "acme/tiny", COMMIT, ("main",), True),
    ]
    node.past = [fetched(400_000_000, peer=400_000_000), fetched(8_000_000, origin=8_000_000)]
    ran = hfpeer("add", "acme/tiny", "--dry-run")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "acme/tiny at 5a0d5a0d5a0d: 3 files, 300.0 MB.",
        "To fetch: 2 files, 200.0 MB; about 4.0 s.",
        "  from pegasus        peer    10.0.0.7:9437  all of it",
        "  from orion          peer    10.0.0.8:9437  a part",
        "  from hf-mirror.com  mirror  https://hf-mirror.com",
    ]
    assert ran.err == "Dry run: nothing was fetched.\n"
    assert not [name for name, _ in node.calls if name == "add"]


@pytest.mark.parametrize(
    ("past", "seconds"),
    [
        ([], None),
        ([fetched(80_000_000, mirror=80_000_000)], 20.0),
        ([fetched(80_000_000, mirror=60_000_000, peer=20_000_000)], None),  # of several kinds: tells no rate
        ([fetched(900_000, mirror=900_000)], None),  # too small to tell one
        ([fetched(1, mirror=8_000_000), fetched(1, mirror=80_000_000), fetched(1, mirror=800_000_000)], 20.0),
    ],
)
def test_the_time_is_that_of_past_fetches_from_the_same_kind_of_source(
    hfpeer: Run, node: ListingNode, past: list[HistoryEntry], seconds: float | None
) -> None:
    node.past = past
    document = hfpeer("add", "acme/tiny", "--dry-run", "--json").document
    assert (document["seconds"], document["missing_bytes"]) == (seconds, 200_000_000)
    assert [source["kind"] for source in document["sources"]] == ["mirror"]
    told = hfpeer("add", "acme/tiny", "--dry-run").out
    assert ("how long is not known yet" in told) is (seconds is None)


def test_a_dry_run_of_what_is_here_says_so(hfpeer: Run, node: ListingNode) -> None:
    node.present = 3
    assert hfpeer("add", "acme/tiny", "--dry-run").out.endswith("To fetch: nothing, all of it is here.\n")


def test_a_dry_run_says_that_it_does_not_fit(hfpeer: Run, node: ListingNode, tmp_path: Path) -> None:
    node.picture = replace(node.picture, cache=str(tmp_path))
    assert "does not fit" not in hfpeer("add", "acme/tiny", "--dry-run").out
    document = hfpeer("add", "acme/tiny", "--dry-run", "--json").document
    assert document["free_bytes"] > 0


@pytest.mark.parametrize("words", [("--detach",), ("--from", "10.0.0.7"), ("--modelscope", "a/b")])
def test_a_dry_run_leaves_nothing_to_options_that_need_a_fetch(
    hfpeer: Run, node: StubNode, words: tuple[str, ...]
) -> None:
    assert (hfpeer("add", "acme/tiny", "--dry-run", *words).code, node.sessions) == (2, 0)


def test_a_dry_run_fetches_no_file_of_a_real_hub(tmp_path: Path) -> None:
    with HubSimulator() as hub, Machines(tmp_path) as machines:
        hub.put_repo("model", "acme/tiny", {"config.json": b"{}", "w.bin": Lfs(b"w" * 5000)})
        machine = machines.make("one", upstreams=f"origin={hub.endpoint}")
        planned = machine.do("add", "acme/tiny", "--dry-run")
        assert (planned["files"], planned["missing_bytes"], planned["seconds"]) == (2, 5002, None)
        assert [source["kind"] for source in planned["sources"]] == ["origin"]
        assert not list(machine.cache.glob("models--*/blobs/*"))
        machine.do("add", "acme/tiny")
        again = machine.do("add", "acme/tiny", "--dry-run")
        assert (again["missing_files"], again["sources"], again["seconds"]) == (0, [], 0.0)
