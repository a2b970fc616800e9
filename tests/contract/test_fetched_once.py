"""Two that want the same file at the same time share one fetch: adds, and readers at the endpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from fakes.endpoint import Said, Stage, staged
from fakes.hub import Lfs, faults
from fakes.hub.zoo import noise
from fakes.machine import Machines, Ran

SECONDS_TO_JOIN = 1.5
"""Seconds in which the second of two fetches asks the hub, if it does."""
_numbers = count(1)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("once")
    with Machines(folder) as machines, staged(folder, machines) as stage:
        yield stage


@pytest.fixture
def stage(standing: Stage) -> Iterator[Stage]:
    standing.hub.clear()
    yield standing
    standing.hub.faults.clear()


class Shared:
    """A file that lies in two repos, whose body the hub holds back until `release`."""

    def __init__(self, stage: Stage, size_bytes: int, *, others: int = 0) -> None:
        self._hub = stage.hub
        number = next(_numbers)
        self.body = noise(size_bytes, f"shared-{number}")
        content: Any = self.body if size_bytes < 1_000_000 else Lfs(self.body)
        more = {f"file-{n}.txt": noise(200, f"{number}-{n}") for n in range(others)}
        self.repos = [f"acme/shared-{number}-{side}" for side in ("one", "two")]
        self.commits = [
            self._hub.put_repo("model", repo, {"w.bin": content, "README.md": repo.encode(), **more})
            for repo in self.repos
        ]
        self.pattern = f"*/shared-{number}-*/resolve/*/w.bin"
        fault = faults.delay(20.0)
        self._pause = fault.pause  # type: ignore[attr-defined]
        self._hub.inject(fault, path=self.pattern, method="GET")

    def add(self, stage: Stage, side: int) -> Callable[[], Ran]:
        process = stage.machine.begin_hfpeer("model", "add", "-r", self.repos[side], "-v", self.commits[side])
        return lambda: stage.machine.finish(process)

    def read(self, stage: Stage, side: int) -> Callable[[], Said]:
        said: list[Said] = []
        target = f"/{self.repos[side]}/resolve/{self.commits[side]}/w.bin"
        thread = threading.Thread(target=lambda: said.append(stage.endpoint.get(target)))
        thread.start()

        def finish() -> Said:
            thread.join(30.0)
            return said[0]

        return finish

    def wait_until_asked(self) -> None:
        self._hub.wait_for_request(self.pattern, "GET")

    def release(self) -> None:
        time.sleep(SECONDS_TO_JOIN)
        self._pause.release()

    @property
    def times(self) -> float:
        """How many times the bytes of the file have left the hub."""
        self._hub.wait_until_quiet()
        if len(self.body) < 1_000_000:
            return len(self._hub.requests_for(self.pattern, "GET"))
        return self._hub.body_bytes_sent(listener="cdn") / len(self.body)

    def lies_in(self, stage: Stage, side: int) -> bool:
        folder = f"models--{self.repos[side].replace('/', '--')}"
        snapshot = stage.machine.cache / folder / "snapshots" / self.commits[side] / "w.bin"
        return snapshot.is_file() and snapshot.read_bytes() == self.body


SIZES = pytest.mark.parametrize("size_bytes", [5_000, 3_000_000], ids=["small", "large"])


@SIZES
def test_an_add_and_then_a_reader_of_the_endpoint(stage: Stage, size_bytes: int) -> None:
    shared = Shared(stage, size_bytes)
    adding = shared.add(stage, 0)
    shared.wait_until_asked()
    reading = shared.read(stage, 0)
    shared.release()
    assert reading().body == shared.body
    assert adding().code == 0
    assert shared.times < 1.2
    assert shared.lies_in(stage, 0)


@SIZES
def test_a_reader_of_the_endpoint_and_then_an_add(stage: Stage, size_bytes: int) -> None:
    shared = Shared(stage, size_bytes)
    reading = shared.read(stage, 0)
    shared.wait_until_asked()
    adding = shared.add(stage, 1)
    shared.release()
    assert reading().body == shared.body
    assert adding().code == 0
    assert shared.times < 1.2
    assert shared.lies_in(stage, 1)


@SIZES
def test_two_adds_of_commits_that_share_it(stage: Stage, size_bytes: int) -> None:
    shared = Shared(stage, size_bytes)
    adding = [shared.add(stage, 0)]
    shared.wait_until_asked()
    adding.append(shared.add(stage, 1))
    shared.release()
    ran = [finish() for finish in adding]
    assert [one.code for one in ran] == [0, 0], ran
    assert shared.times < 1.2
    assert shared.lies_in(stage, 0) and shared.lies_in(stage, 1)


def test_an_add_that_is_ended_leaves_its_files_to_those_that_wait_for_them(stage: Stage) -> None:
    shared = Shared(stage, 5_000, others=20)
    process = stage.machine.begin_hfpeer("model", "add", "-r", shared.repos[0], "-v", shared.commits[0])
    shared.wait_until_asked()
    reading, adding = shared.read(stage, 0), shared.add(stage, 1)
    time.sleep(SECONDS_TO_JOIN)
    process.send_signal(signal.SIGINT)
    stage.machine.finish(process)
    stage.hub.wait_for_request(shared.pattern, "GET", count=2)
    shared.release()
    assert reading().body == shared.body
    assert adding().code == 0
    assert shared.times == 2
    assert shared.lies_in(stage, 1)
