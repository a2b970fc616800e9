"""Half-fetched blobs: seen, counted, gone on from with a word, removed; and no byte of the WAN counts as saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import HFPEER, Machine, Machines
from fakes.waiting import wait_until
from hfpeer.cache.partial.files import partial_bytes

LARGE, SMALL = os.urandom(24_000_000), os.urandom(3_000_000)
SLOW = {"HFPEER_LIMIT_WAN_DOWN": "6MB"}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/one", {"model.safetensors": Lfs(LARGE)})
        hub.put_repo("model", "acme/some", {"config.json": b"{}", "a.bin": Lfs(SMALL), "model.safetensors": Lfs(LARGE)})
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: HubSimulator) -> Iterator[Machine]:
    with Machines(tmp_path) as machines:
        yield machines.make("pegasus", upstreams=f"origin={hub.endpoint}")


def interrupt(machine: Machine, repo: str, present_bytes: int = 4_000_000) -> None:
    """An add that is ended by Ctrl-C once a part of the large file is here."""
    adding = machine.begin(*HFPEER, "model", "add", repo, **SLOW)
    wait_until(lambda: partial_bytes(machine.cache) >= present_bytes, "a part of the blob is here")
    adding.send_signal(signal.SIGINT)
    assert machine.finish(adding).code == 130
    assert 0 < partial_bytes(machine.cache) < len(LARGE)


def disk_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())


def test_it_is_seen_counted_and_gone_on_from_with_a_word(machine: Machine) -> None:
    interrupt(machine, "acme/one")
    begun = partial_bytes(machine.cache)
    (listed,) = machine.do("model", "ls")
    assert (listed["repo"], listed["is_complete"], listed["files"]) == ("acme/one", False, 0)
    assert (listed["kept_bytes"], listed["listed_bytes"]) == (begun, len(LARGE))
    assert listed["reserved_bytes"] >= begun
    shown = machine.run(*HFPEER, "ls").out
    assert f"partial, {begun / 1e6:.1f} MB of 24.0 MB" in shown
    status = machine.do("status")
    assert (status["begun_blobs"], status["kept_bytes"], status["begun_whole_bytes"]) == (1, begun, len(LARGE))
    assert f"half-fetched 1 blob, {begun / 1e6:.1f} MB of 24.0 MB" in machine.run(*HFPEER, "status").out
    ran = machine.run(*HFPEER, "model", "add", "acme/one")
    assert ran.code == 0
    assert f"resuming: {begun / 1e6:.1f} MB of it are here." in ran.err
    assert machine.do("status")["begun_blobs"] == 0
    assert "half-fetched" not in machine.run(*HFPEER, "status").out
    (listed,) = machine.do("model", "ls")
    assert (listed["is_complete"], listed["kept_bytes"]) == (True, 0)


def test_the_rows_of_a_resumed_add_add_up_and_nothing_was_saved(machine: Machine) -> None:
    interrupt(machine, "acme/some")
    (listed,) = machine.do("model", "ls")
    assert listed["is_complete"] is False and listed["kept_bytes"] > 0
    begun, here = listed["kept_bytes"], listed["size_bytes"]
    assert listed["listed_bytes"] == len(LARGE) + len(SMALL) + 2
    finished = machine.do("model", "add", "acme/some")
    received = sum(finished["bytes_by_kind"].values())
    assert finished["wan_saved_bytes"] == 0
    assert finished["kept_bytes"] == begun
    assert received + finished["kept_bytes"] + finished["reused_bytes"] == finished["size_bytes"]
    assert finished["reused_bytes"] >= here, "a blob may have come without its link"
    again = machine.do("model", "add", "acme/some")
    assert again["reused_bytes"] == again["size_bytes"] == again["wan_saved_bytes"], "now none would cross the WAN"


@pytest.mark.parametrize("words", [("model", "rm", "acme/one", "-y"), ("cache", "prune", "--older-than", "0", "-y")])
def test_it_is_removed_with_its_space(machine: Machine, words: tuple[str, ...]) -> None:
    interrupt(machine, "acme/one")
    assert disk_bytes(machine.cache) > 4_000_000
    ran = machine.run(*HFPEER, *words)
    assert ran.code == 0 and "half-fetched" in ran.out
    assert disk_bytes(machine.cache) < 100_000
    assert machine.do("model", "ls") == []


def test_of_two_adds_at_once_no_byte_of_the_wan_is_saved(machine: Machine, hub: HubSimulator) -> None:
    machine.environ.update(SLOW)
    machine.start()
    results: dict[str, Any] = {}

    def add(repo: str) -> None:
        results[repo] = machine.do("model", "add", repo)

    adding = [threading.Thread(target=add, args=(repo,)) for repo in ("acme/one", "acme/some")]
    for one in adding:
        one.start()
    for one in adding:
        one.join(60)
    assert {repo: one["wan_saved_bytes"] for repo, one in results.items()} == {"acme/one": 0, "acme/some": 0}
    machine.stop()


def test_what_another_revision_had_before_is_saved(machine: Machine, hub: HubSimulator) -> None:
    hub.put_repo("model", "acme/two", {"model.safetensors": Lfs(LARGE), "v": b"1"})
    machine.do("model", "add", "acme/two")
    hub.repo("model", "acme/two").commit({"v": b"22", "more.bin": Lfs(SMALL)})
    finished = machine.do("model", "add", "acme/two")
    assert finished["wan_saved_bytes"] == len(LARGE)
    assert finished["bytes_by_kind"] == {"origin": len(SMALL) + 2}
