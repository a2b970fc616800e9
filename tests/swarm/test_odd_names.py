"""Repos with names that other systems refuse: what Linux can hold is here, and what cannot be here is named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Content, HubSimulator, Lfs
from fakes.machine import Machine, Machines

LONG = "n" * 256
DEEP = "/".join("d" * 1500)
ORDINARY: dict[str, Content] = {
    "config.json": b"{}",
    "weights\\part1.bin": Lfs(b"1" * 3000),
    "C:notes.txt": b"notes",
    "x:y.txt": b"xy",
    "a\\..\\..\\b.txt": b"stays here",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/odd", ORDINARY)
        hub.put_repo("model", "acme/long", {**ORDINARY, f"weights/{LONG}": b"1"})
        hub.put_repo("model", "acme/deep", {"config.json": b"{}", f"{DEEP}/w.bin": b"1"})
        hub.put_repo("model", "acme/none", {f"weights/{LONG}": b"1"})
        yield hub


@pytest.fixture
def machine(hub: HubSimulator, tmp_path: Path) -> Iterator[Machine]:
    with Machines(tmp_path) as machines:
        yield machines.make("pegasus", upstreams=f"origin={hub.endpoint}")


def found(machine: Machine, repo: str) -> dict[str, bytes]:
    (shown,) = machine.found("model", "ls", "-r", repo)
    snapshot = Path(machine.cache, f"models--{repo.replace('/', '--')}", "snapshots", shown["commit"])
    return {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}


def test_what_linux_can_hold_is_here(machine: Machine) -> None:
    machine.do("model", "add", "-r", "acme/odd")
    contents = {path: data.data if isinstance(data, Lfs) else data for path, data in ORDINARY.items()}
    assert found(machine, "acme/odd") == contents
    assert machine.found("model", "ls", "-r", "acme/odd")[0]["is_complete"] is True


@pytest.mark.parametrize(
    ("repo", "counts", "why"), [("acme/long", "1 of 6", "255 bytes"), ("acme/deep", "1 of 2", "deep")]
)
def test_what_cannot_be_here_is_named_and_all_else_is_here(machine: Machine, repo: str, counts: str, why: str) -> None:
    for _ in range(2):
        ran = machine.hfpeer("model", "add", "-r", repo)
        assert (ran.code, ran.problem["code"]) == (8, "storage")
        assert f"{counts} files" in ran.problem["message"] and why in ran.problem["message"]
        assert "Traceback" not in ran.err and len(ran.err) < 3000
    assert found(machine, repo)["config.json"] == b"{}"
    assert machine.found("model", "ls", "-r", repo)[0]["is_complete"] is False
    machine.do("model", "add", "-r", repo, "--include", "*.json")


def test_where_nothing_can_be_here_nothing_is_said_to_be(machine: Machine) -> None:
    for words in ((), ("--include", "weights*")):
        ran = machine.hfpeer("model", "add", "-r", "acme/none", *words)
        assert (ran.code, "1 of 1 file" in ran.problem["message"]) == (8, True)


def test_a_folder_that_is_too_deep_is_not_published(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    place = folder
    for _ in range(1500):
        place = place / "d"
        place.mkdir()
    (place / "w.bin").write_bytes(b"1")
    ran = machine.hfpeer("model", "publish", str(folder), "--as", "acme/mine")
    subprocess.run(["rm", "-r", str(folder)], check=True)  # pytest, which removes old folders, cannot go so deep
    assert (ran.code, "folders deep" in ran.problem["message"]) == (2, True)
    assert "Traceback" not in ran.err
