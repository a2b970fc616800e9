"""`hfpeer dataset convert --dask` on a real scheduler with two workers, each with a node of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import hfpeer
from fakes.conversion import contents, needs_libraries
from fakes.hub import HubSimulator, Lfs

FILES, ROWS = 6, 50
pytestmark = [
    needs_libraries,
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("distributed", "datasets")),
        reason="needs the extras `dask` and `datasets`",
    ),
]


def environ_of(folder: Path, hub: HubSimulator) -> dict[str, str]:
    """A machine of its own, with the hub."""
    return {
        **os.environ,
        "HFPEER_HOME": str(folder / "home"),
        "HF_HOME": str(folder / "hf"),
        "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        files = {}
        for number in range(FILES):
            rows = [{"id": number * ROWS + row, "text": "x" * row} for row in range(ROWS)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            files[f"data/train-{number:05}-of-{FILES:05}.jsonl"] = Lfs(text.encode())
        hub.put_repo("dataset", "acme/many", files)
        yield hub


def test_parts_are_made_by_workers_and_one_that_dies_costs_its_part(
    hub: HubSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "scheduler.json"
    with ExitStack() as stack:

        def start(machine: str, *words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env=environ_of(tmp_path / machine, hub),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=tmp_path,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = ("--scheduler-file", str(address))
        start("one", "distributed.cli.dask_scheduler", *file, "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        workers = [
            start(machine, "distributed.cli.dask_worker", *file, "--no-nanny", "--nthreads", "1", "--no-dashboard")
            for machine in ("two", "three")
        ]
        while not address.exists():
            time.sleep(0.05)
        scheduler = json.loads(address.read_text())["address"]
        shared = tmp_path / "shared"
        words = ["dataset", "convert", "-r", "acme/many", "-o", str(shared), "--dask", scheduler, "--json"]
        main = "from hfpeer_cli.main import main; main()"
        environ = environ_of(tmp_path / "one", hub)
        command = subprocess.Popen([sys.executable, "-c", main, *words], env=environ, stdout=subprocess.PIPE)
        stack.callback(command.kill)
        while command.poll() is None and not list(shared.glob("*.jsonl")):
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        out, _ = command.communicate(timeout=240)
        report = json.loads(out)
        assert command.returncode == 0 and (report["rows"], report["is_complete"]) == (FILES * ROWS, True)
    assert not list((tmp_path / "one" / "hf").rglob("*.jsonl"))
    for name, value in environ_of(tmp_path / "four", hub).items():
        monkeypatch.setenv(name, value)
    hfpeer.convert_dataset("acme/many", tmp_path / "alone")
    assert contents(tmp_path / "alone") == contents(shared)
