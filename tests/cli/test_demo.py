"""`hfpeer demo`, with a small model: the figures in its table, and no files left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.machine import Machines


@pytest.mark.slow
def test_the_model_comes_from_the_origin_once_and_then_from_a_peer_and_nothing_is_left(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "tiny", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(30_000_000))
    with Machines(tmp_path / "machines") as machines:
        machine = machines.make("visitor", HFPEER_LAN_LISTEN="127.0.0.1:0")
        found = machine.do("demo", "--from", str(folder), TMPDIR=str(temporary))
        assert machine.blobs() == {}, "the visitor's own cache is not touched"
    size_bytes = 30_000_002
    assert found["size_bytes"] == size_bytes
    assert (found["mirror_bytes"], found["origin_bytes"]) == (0, size_bytes)
    assert found["wan_bytes"] == 0
    assert found["refetched_bytes"] == 0
    assert found["first_run_bytes"] + found["second_run_bytes"] >= size_bytes
    assert [path for path in temporary.rglob("*") if not path.is_dir() or "demo" in path.name] == []
