"""HF_HUB_DISABLE_SYMLINKS, as huggingface_hub reads it: real files in snapshots, whoever puts them there."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import Content, HubSimulator, Lfs
from fakes.machine import Machine, Machines

LARGE, OLD, NEW = os.urandom(9_000_000), os.urandom(6_000_000), os.urandom(6_000_000)
FILES: dict[str, Content] = {
    "config.json": b"{}",
    "same.json": b"{}",
    "nested/a.txt": b"a" * 9000,
    "big.bin": Lfs(LARGE),
    "other/big.bin": Lfs(LARGE),
    "weights.bin": Lfs(OLD),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/m", FILES)
        yield hub


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path) as machines:
        yield machines


@pytest.fixture
def machine(machines: Machines, hub: HubSimulator) -> Machine:
    return machines.make("pegasus", upstreams=f"origin={hub.endpoint}")


def add(machine: Machine, *words: str, **environ: str) -> Path:
    return Path(machine.do("model", "add", "-r", "acme/m", *words, **environ)["snapshot"])


def kinds(snapshot: Path) -> set[str]:
    """What the entries of a snapshot are."""
    entries = [path for path in snapshot.rglob("*") if path.is_symlink() or path.is_file()]
    return {"link" if path.is_symlink() else "file" for path in entries}


def assert_right(snapshot: Path) -> None:
    assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()} == FILES.keys()
    for name, content in FILES.items():
        assert (snapshot / name).read_bytes() == (content.data if isinstance(content, Lfs) else content)


def disk_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def revision(machine: Machine) -> Any:
    (found,) = machine.found("model", "ls", "-r", "acme/m")
    return found


@pytest.mark.parametrize("has_daemon", [False, True], ids=["no daemon", "a daemon that was started without it"])
def test_an_add_makes_real_files(machine: Machine, has_daemon: bool) -> None:
    if has_daemon:
        machine.start()
    snapshot = add(machine, HF_HUB_DISABLE_SYMLINKS="1")
    assert kinds(snapshot) == {"file"}
    assert_right(snapshot)
    assert list((snapshot.parents[1] / "blobs").iterdir()) == [], "moved, as huggingface_hub moves a new blob"
    assert revision(machine)["is_complete"] is True
    assert add(machine) == snapshot and kinds(snapshot) == {"file"}, "without the variable nothing is done again"
    assert machine.hfpeer("verify").code == 0


def test_the_endpoint_of_a_daemon_makes_real_files(machine: Machine) -> None:
    machine.environ["HF_HUB_DISABLE_SYMLINKS"] = "ON"
    machine.start()
    endpoint = f"http://{machine.status().listeners['endpoint']}"
    for name, content in FILES.items():
        with urllib.request.urlopen(f"{endpoint}/acme/m/resolve/main/{name}", timeout=30) as response:
            assert response.read() == (content.data if isinstance(content, Lfs) else content)
    snapshot = add(machine)
    assert kinds(snapshot) == {"file"}
    assert_right(snapshot)


def test_real_files_are_shared_with_peers_and_removed_with_their_space(machines: Machines, machine: Machine) -> None:
    machine.environ["HF_HUB_DISABLE_SYMLINKS"] = "true"
    machine.start()
    snapshot = add(machine)
    peer = machines.make("cygnus", peers=[machine.address], HF_HUB_DISABLE_SYMLINKS="yes")
    peer.start()
    peer.wait_until_it_knows(machine)
    there = add(peer, "-v", snapshot.name)
    assert kinds(there) == {"file"}
    assert_right(there)
    machine.do("model", "rm", "-r", "acme/m", "-y", "--force")
    assert not snapshot.exists() and disk_bytes(machine.cache) < 1_000_000


def test_a_revision_of_links_stays_whole_when_another_has_its_blobs_as_files(
    machine: Machine, hub: HubSimulator
) -> None:
    """Only one file differs: the others are blobs to which links of the first revision lead."""
    hub.put_repo("model", "acme/two", FILES)
    first = Path(machine.do("model", "add", "-r", "acme/two")["snapshot"])
    hub.repo("model", "acme/two").commit({"weights.bin": Lfs(NEW)})
    second = Path(machine.do("model", "add", "-r", "acme/two", HF_HUB_DISABLE_SYMLINKS="1")["snapshot"])
    assert first != second
    assert (kinds(first), kinds(second)) == ({"link"}, {"file"})
    assert_right(first)
    assert (second / "weights.bin").read_bytes() == NEW and (second / "big.bin").read_bytes() == LARGE
    (second / "config.json").write_bytes(b'{"edited": 1}')
    assert_right(first)
    found = {one["commit"]: one["is_complete"] for one in machine.found("model", "ls", "-r", "acme/two")}
    assert found[first.name] is True
    machine.do("model", "rm", "-r", "acme/two", "-v", second.name, "-y", "--force")
    assert_right(first)


def test_a_repair_keeps_real_files(machine: Machine) -> None:
    machine.environ["HF_HUB_DISABLE_SYMLINKS"] = "1"
    snapshot = add(machine)
    (snapshot / "weights.bin").write_bytes(bytes(len(OLD)))
    assert machine.hfpeer("verify").code == 7
    machine.do("verify", "--repair")
    assert kinds(snapshot) == {"file"}
    assert_right(snapshot)


def test_a_file_that_is_gone_is_copied_from_the_one_with_the_same_bytes(machine: Machine, hub: HubSimulator) -> None:
    machine.environ["HF_HUB_DISABLE_SYMLINKS"] = "1"
    snapshot = add(machine)
    (snapshot / "big.bin").unlink()
    hub.wait_until_quiet()
    hub.clear()
    assert add(machine) == snapshot and kinds(snapshot) == {"file"}
    assert not hub.requests_for("GET", "*/resolve/*")
    assert_right(snapshot)
    assert (snapshot / "big.bin").stat().st_nlink == 1, "an edit of one file leaves the other as it is"


def test_huggingface_hub_and_hfpeer_go_on_from_each_other(machine: Machine, hub: HubSimulator) -> None:
    machine.environ["HF_HUB_DISABLE_SYMLINKS"] = "1"
    script = "import json, huggingface_hub; print(json.dumps(huggingface_hub.snapshot_download('acme/m', endpoint=%r)))"
    there = Path(machine.python(script % hub.endpoint, HF_HUB_DISABLE_XET="1"))
    hub.wait_until_quiet()
    hub.clear()
    assert add(machine) == there and kinds(there) == {"file"}
    assert not hub.requests_for("GET", "*/resolve/*")
    shutil.rmtree(there.parents[1])
    again = add(machine)
    hub.wait_until_quiet()
    hub.clear()
    assert Path(machine.python(script % hub.endpoint, HF_HUB_DISABLE_XET="1")) == again
    assert kinds(again) == {"file"}
