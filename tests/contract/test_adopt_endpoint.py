"""Adopted files through a daemon and its endpoint: the hub gives the lists, and none of the bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Stage, staged
from fakes.hub import Lfs
from fakes.hub.zoo import noise
from fakes.machine import Machines
from fakes.places import put, put_all
from fakes.waiting import wait_until

_numbers = count(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("adopt")
    with Machines(folder) as machines, staged(folder, machines) as stage:
        yield stage


class Adopted:
    """A repo whose files lie in a folder that the node of a stage has adopted."""

    def __init__(self, stage: Stage, *, is_adopted: bool = True) -> None:
        number = next(_numbers)
        self._stage = stage
        self.name = f"acme/adopted-{number}"
        self.files = {"config.json": b'{"n": %d}' % number, "w.safetensors": noise(3_000_000, f"adopted-{number}")}
        content: dict[str, Any] = {
            "config.json": self.files["config.json"],
            "w.safetensors": Lfs(self.files["w.safetensors"]),
        }
        self.commit = stage.hub.put_repo("model", self.name, content)
        self.place = put_all(stage.folder / f"place-{number}", self.files)
        if is_adopted:
            self.adopt()

    def adopt(self) -> None:
        ran = self._stage.machine.hfpeer("adopt", str(self.place))
        assert ran.code == 0 and ran.document["files"] == 2, ran.err
        self._stage.hub.clear()

    def get(self, path: str, **headers: str) -> bytes:
        said = self._stage.endpoint.get(f"/{self.name}/resolve/{self.commit}/{path}", **headers)
        assert said.status in (200, 206) and said.is_whole, said
        return said.body

    @property
    def bytes_sent(self) -> int:
        """Bytes of files that left the hub."""
        self._stage.hub.wait_until_quiet()
        asked = self._stage.hub.requests_for("*", "GET", "cdn") + self._stage.hub.requests_for("*/resolve/*", "GET")
        return sum(one.body_bytes_sent for one in asked if one.status in (200, 206))

    @property
    def snapshot(self) -> Path:
        return self._stage.machine.cache / f"models--{self.name.replace('/', '--')}" / "snapshots" / self.commit


def test_the_endpoint_gives_adopted_files_and_installs_them(stage: Stage) -> None:
    adopted = Adopted(stage)
    before = {path: path.stat() for path in adopted.place.iterdir()}
    assert adopted.get("config.json") == adopted.files["config.json"]
    weights = adopted.files["w.safetensors"]
    assert adopted.get("w.safetensors", Range="bytes=1000-1999") == weights[1000:2000]
    assert adopted.get("w.safetensors") == weights
    assert adopted.bytes_sent == 0
    wait_until(lambda: all((adopted.snapshot / path).exists() for path in adopted.files))
    assert all((adopted.snapshot / path).read_bytes() == body for path, body in adopted.files.items())
    assert {path: path.stat().st_mtime_ns for path in before} == {path: s.st_mtime_ns for path, s in before.items()}


def test_an_add_through_the_daemon_fetches_nothing(stage: Stage) -> None:
    adopted = Adopted(stage)
    ran = stage.machine.hfpeer("model", "add", "-r", adopted.name)
    assert ran.code == 0 and ran.document["adopted_bytes"] == sum(map(len, adopted.files.values()))
    assert adopted.bytes_sent == 0


def test_a_file_that_was_edited_after_its_adoption_never_reaches_a_client(stage: Stage) -> None:
    adopted = Adopted(stage)
    source = adopted.place / "w.safetensors"
    before = source.stat()
    with source.open("r+b") as file:
        file.write(b"EDITED")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert adopted.get("w.safetensors") == adopted.files["w.safetensors"]
    assert adopted.bytes_sent >= 3_000_000


def test_a_file_that_is_gone_or_was_replaced_is_fetched(stage: Stage) -> None:
    adopted = Adopted(stage)
    (adopted.place / "config.json").unlink()
    put(adopted.place / "w.safetensors", b"x")
    for path, body in adopted.files.items():
        assert adopted.get(path) == body


def test_what_was_not_adopted_is_fetched_as_ever(stage: Stage) -> None:
    adopted = Adopted(stage, is_adopted=False)
    for path, body in adopted.files.items():
        assert adopted.get(path) == body
    assert adopted.bytes_sent >= 3_000_000
