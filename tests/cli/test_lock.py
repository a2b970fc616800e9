"""lock and sync: one machine pins, another has exactly these files, also without a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import Machine, Machines

WEIGHTS = b"w" * 5000


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/tiny", {"config.json": b"{}", "model.bin": Lfs(WEIGHTS), "notes.md": b"x"})
        hub.put_repo("dataset", "acme/rows", {"data.jsonl": b"{}\n"})
        yield hub


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path / "machines") as machines:
        yield machines


@pytest.fixture
def machine(machines: Machines, hub: HubSimulator) -> Machine:
    return machines.make("one", upstreams=f"origin={hub.endpoint}")


def test_a_lock_is_made_checked_and_brought_up_to_date(machine: Machine, hub: HubSimulator, tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    missing = machine.hfpeer("lock", "--check", "-o", str(path))
    assert (missing.code, "cannot be read" in missing.err) == (2, True)
    made = machine.do("lock", "acme/tiny", "datasets/acme/rows", "-o", str(path))
    assert [one["files"] for one in made["repos"]] == [3, 1]
    text = path.read_text()
    assert machine.hfpeer("lock", "--check", "-o", str(path)).code == 0
    assert machine.do("lock", "-o", str(path))["changes"] == [] and path.read_text() == text

    hub.put_repo("model", "acme/tiny", {"config.json": b'{"v": 2}', "model.bin": Lfs(WEIGHTS)})
    stale = machine.hfpeer("lock", "--check", "-o", str(path))
    assert (stale.code, len(stale.document["changes"])) == (1, 1)
    assert path.read_text() == text, "a check changes nothing"
    assert machine.hfpeer("sync", str(path), "--locked").code == 1
    machine.do("lock", "-o", str(path))
    assert machine.hfpeer("lock", "--check", "-o", str(path)).code == 0


def test_sync_brings_the_locked_files_and_no_others(
    machine: Machine, machines: Machines, hub: HubSimulator, tmp_path: Path
) -> None:
    path = tmp_path / "models.lock"
    machine.do("lock", "acme/tiny", "--include", "*.json", "--include", "*.bin", "-o", str(path))
    hub.put_repo("model", "acme/tiny", {"config.json": b'{"v": 2}'})
    machine.do("sync", str(path))
    (revision,) = machine.do("ls", "acme/tiny")
    assert revision["commit"] in path.read_text(), "what main meant then"
    assert revision["files"] == 2
    machine.start()
    other = machines.make("other", upstreams="", peers=[machine.address])
    other.start()
    other.wait_until_it_knows(machine)
    other.do("sync", str(path))
    assert other.do("ls", "acme/tiny")[0]["files"] == 2
    assert other.hfpeer("sync", str(path), "--local-only").code == 0


def test_a_lock_that_was_edited_stops_its_repo_and_not_the_others(
    machine: Machine, hub: HubSimulator, tmp_path: Path
) -> None:
    path = tmp_path / "models.lock"
    machine.do("lock", "acme/tiny", "datasets/acme/rows", "-o", str(path))
    path.write_text(path.read_text().replace("size = 5000", "size = 5001"))
    ran = machine.hfpeer("sync", str(path))
    assert ran.code == 7
    (problem,) = [one["problem"] for one in ran.document if "problem" in one]
    assert "model.bin" in problem["message"]
    assert [one["repo"] for one in machine.do("ls")] == ["acme/rows"]
