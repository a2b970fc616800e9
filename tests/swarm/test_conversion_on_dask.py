"""`hfpeer dataset convert --dask`: a real scheduler, and two machines, each with a worker and a node of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import contents, needs_libraries, rows_in
from fakes.hub import HubSimulator, Lfs
from fakes.machine import HFPEER, Machine, Machines
from fakes.prepared import needs_datasets
from fakes.waiting import wait_until

FILES, ROWS = 6, 200
pytestmark = [
    needs_libraries,
    needs_datasets,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs the extra `dask`"),
]
WORKER = """
import sys
from distributed.cli.dask_worker import main
main(sys.argv[1:])
"""
DIES = """
import os, signal
from pathlib import Path
from hfpeer.node import conversion

convert = conversion.convert_part_here
made = []

def dying(plan, part, snapshot, output, roots):
    def die(rows, done):
        (Path(output.folder).parent / "died").write_text(f"{made[0]} {part.number} {rows}")
        os.kill(os.getpid(), signal.SIGKILL)
    if made:
        convert(plan, part, snapshot, output, roots, die)
    made.append(part.number)
    return convert(plan, part, snapshot, output, roots)

conversion.convert_part_here = dying
"""
"""Makes a worker die in the middle of its second part."""
WAITS = """
import time
from pathlib import Path
from hfpeer.node import conversion

convert = conversion.convert_part_here

def waiting(plan, part, snapshot, output, roots):
    for _ in range(6000):
        if (Path(output.folder).parent / "died").exists():
            break
        time.sleep(0.01)
    return convert(plan, part, snapshot, output, roots)

conversion.convert_part_here = waiting
"""
"""Makes a worker wait in its first part until the other one is dead."""
WRITES_ELSEWHERE = """
from dataclasses import replace
from hfpeer.node import conversion

make = conversion.make_part
conversion.make_part = lambda plan, number: make(replace(plan, folder=f"{plan.folder} of a worker"), number)
"""
"""Makes a worker see another folder below the same path."""
FAILS = """
from hfpeer.node import conversion

def make_part(plan, number):
    raise KeyError("no such thing")

conversion.make_part = make_part
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def sources(hub: HubSimulator) -> dict[str, bytes]:
    """The files of the dataset, by path."""
    files = {}
    for number in range(FILES):
        rows = [{"id": number * ROWS + row, "text": os.urandom(200).hex()} for row in range(ROWS)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        files[f"data/train-{number:05}-of-{FILES:05}.jsonl"] = text.encode()
    hub.put_repo("dataset", "acme/many", {path: Lfs(content) for path, content in files.items()})
    return files


@pytest.fixture(scope="module")
def two(machines: Machines, hub: HubSimulator) -> Machine:
    return started(machines, hub, "two")


@pytest.fixture(scope="module")
def three(machines: Machines, hub: HubSimulator, two: Machine) -> Machine:
    three = started(machines, hub, "three", two)
    two.do("peer", "add", three.address)
    two.wait_until_it_knows(three)
    return three


def started(machines: Machines, hub: HubSimulator, name: str, *others: Machine) -> Machine:
    machine = machines.make(name, upstreams=f"origin={hub.endpoint}", peers=[other.address for other in others])
    machine.start()
    for other in others:
        machine.wait_until_it_knows(other)
    return machine


@pytest.fixture(scope="module")
def desk(machines: Machines, hub: HubSimulator, two: Machine, three: Machine) -> Machine:
    """Where the command is typed, and the scheduler runs."""
    return started(machines, hub, "desk", two, three)


@pytest.fixture
def scheduler(desk: Machine, tmp_path: Path) -> str:
    """The address of a scheduler."""
    file = tmp_path / "scheduler.json"
    words = ("--scheduler-file", file, "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
    process = desk.begin(sys.executable, "-m", "distributed.cli.dask_scheduler", *words)
    wait_until(lambda: file.exists() or process.poll() is not None, "the scheduler listens")
    assert process.poll() is None, desk.finish(process)
    return str(json.loads(file.read_text())["address"])


def begin_worker(machine: Machine, scheduler: str, change: str = "") -> subprocess.Popen[str]:
    """A worker with one thread; `change` is Python code that it runs first."""
    words = (scheduler, "--no-nanny", "--nthreads", "1", "--no-dashboard")
    return machine.begin(sys.executable, "-c", change + WORKER, *words)


def convert(machine: Machine, folder: Path, *words: str) -> Any:
    return machine.do("dataset", "convert", "-r", "acme/many", "-o", str(folder), *words)


def wan_bytes(hub: HubSimulator, content: bytes) -> int:
    """The bytes of a file that the hub has sent."""
    return hub.body_bytes_sent(f"*{hashlib.sha256(content).hexdigest()}*")


def test_each_file_crosses_the_wan_once_and_a_worker_that_dies_costs_its_part(
    hub: HubSimulator,
    sources: dict[str, bytes],
    machines: Machines,
    two: Machine,
    three: Machine,
    desk: Machine,
    scheduler: str,
    tmp_path: Path,
) -> None:
    dying, waiting = begin_worker(two, scheduler, DIES), begin_worker(three, scheduler, WAITS)
    shared, died = tmp_path / "shared", tmp_path / "died"
    words = ("dataset", "convert", "-r", "acme/many", "-o", str(shared), "--dask", scheduler)
    command = desk.begin_hfpeer(*words)
    ends = (command, waiting)
    wait_until(lambda: died.exists() or any(one.poll() is not None for one in ends), "a worker dies", 90)
    assert dying.wait(30) == -signal.SIGKILL
    kept, lost, rows = map(int, died.read_text().split())
    made = shared / f"many_train-{kept:05}-of-{FILES:05}.jsonl"
    before = made.stat()
    assert rows
    ran = desk.finish(command)
    assert ran.code == 0, ran.err
    assert (ran.document["rows"], ran.document["parts"], ran.document["is_complete"]) == (FILES * ROWS, FILES, True)
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    assert {path: wan_bytes(hub, content) for path, content in sources.items()} == {
        path: len(content) for path, content in sources.items()
    }
    assert not any(path.resolve().exists() for path in desk.cache.rglob("*.jsonl"))
    assert three.received_bytes()["peer"] >= len(sources[f"data/train-{lost:05}-of-{FILES:05}.jsonl"])

    alone = machines.make("alone", upstreams=f"origin={hub.endpoint}")
    convert(alone, tmp_path / "alone")
    assert contents(tmp_path / "alone") == contents(shared)
    published = {
        machine.name: machine.do("dataset", "publish", str(folder), "--as", "team/many-jsonl")["commit"]
        for machine, folder in ((desk, shared), (alone, tmp_path / "alone"))
    }
    assert len(set(published.values())) == 1
    assert convert(desk, shared, "--dask", scheduler)["kept_parts"] == FILES


def test_what_goes_wrong_in_a_cluster_is_told_in_a_sentence(
    sources: dict[str, bytes], desk: Machine, scheduler: str, tmp_path: Path
) -> None:
    words = ("dataset", "convert", "-r", "acme/many", "-s", "train[:10]", "-o", str(tmp_path / "shared"), "--dask")
    ran = desk.hfpeer(*words, "tcp://127.0.0.1:1")
    assert ran.code == 6 and "The Dask scheduler tcp://127.0.0.1:1 does not answer" in ran.problem["message"]
    command = desk.begin(*HFPEER, *words, scheduler)
    assert command.stderr is not None
    lines = iter(command.stderr.readline, "")
    assert any("has no workers yet" in line for line in lines)
    worker = begin_worker(desk, scheduler, WRITES_ELSEWHERE)
    ran = desk.finish(command)
    assert ran.code == 1 and "1 of them are not in" in ran.err and "the same one on all machines" in ran.err
    worker.kill()
    worker = begin_worker(desk, scheduler, FAILS)
    ran = desk.hfpeer(*words, scheduler)
    assert ran.code == 1 and "No worker of the Dask cluster made part 0" in ran.problem["message"]
    worker.kill()
    begin_worker(desk, scheduler)
    assert desk.do(*words, scheduler)["rows"] == 10
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("datasets: {some: {repo: acme/many, splits: ['train[:10]']}}\nmerge: {all: [some/train]}")
    made = desk.do("dataset", "convert", "--recipe", str(recipe), "-o", str(tmp_path), "--dask", scheduler)
    assert made["datasets"]["some"]["is_complete"] and len(rows_in(tmp_path / "all.jsonl")) == 10
