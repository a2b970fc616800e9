"""The command `hfpeer dataset convert` over datasets that a machine of its own has published: killed and run again, and
by two processes beside a Dask cluster of two workers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.convert.measuring import Cost, measured
from hfpeer.cache.partial.hashing import hash_file

MAIN = "from hfpeer_cli.main import main; main()"
START_SECONDS = 60.0
"""Seconds for which a scheduler and its workers are waited for."""
MOST_MB = 300.0
"""A conversion in one process may take this much memory, whatever it converts."""


class Machine:
    """A machine without hubs, and the datasets on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        own = {"HFPEER_HOME": str(folder / "home"), "HF_HOME": str(folder / "hf")}
        alone = {"HFPEER_UPSTREAMS": "", "HFPEER_MDNS": "0"}
        self.environ = {**os.environ, **own, **alone}

    def publish(self, source: Path, name: str) -> None:
        words = [sys.executable, "-c", MAIN, "dataset", "publish", str(source), "--as", f"bench/{name}"]
        subprocess.run(words, env=self.environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def convert(self, name: str, target: Path, *words: str, **measuring: object) -> Cost:
        command = ("-c", MAIN, "dataset", "convert", "-r", f"bench/{name}", "-o", str(target), "--local-only", *words)
        return measured([*command], self.environ, **measuring)  # type: ignore[arg-type]


def killed(machine: Machine, name: str, scratch: Path, kills: int, dice: random.Random) -> bool:
    """Converts undisturbed, then kills the command at random moments and runs it again, until it ends. Prints what that
    cost; whether all bytes are the same, and the memory stays bounded."""
    whole, disturbed = scratch / "whole", scratch / "disturbed"
    once = machine.convert(name, whole)
    expected, rows = sums(whole), json.loads((whole / "conversion.json").read_text())["rows"]
    shutil.rmtree(whole)
    done: list[int] = []
    peak = once.peak_mb
    for _ in range(10 * kills):
        if len(done) == kills:
            break
        moment = dice.uniform(0, once.seconds)
        cost = machine.convert(name, disturbed, stop=lambda seconds, moment=moment: seconds >= moment)
        peak = max(peak, cost.peak_mb)
        if cost.code == -signal.SIGKILL:
            done.append(len(list(disturbed.glob("*.jsonl"))))
        else:  # it was quicker
            shutil.rmtree(disturbed, ignore_errors=True)
    last = machine.convert(name, disturbed)
    peak = max(peak, last.peak_mb)
    is_same = last.code == 0 and sums(disturbed) == expected
    shutil.rmtree(disturbed)
    print(
        f"  {len(done)} kills: {'the same' if is_same else 'OTHER'} bytes of {len(expected):,} files, {rows:,} rows; "
        f"parts that were done then: {done}; peak {peak:.0f} MB; "
        f"{once.seconds:.1f} s undisturbed, {last.seconds:.1f} s the last run",
        flush=True,
    )
    return is_same and peak < MOST_MB


def by_two(machine: Machine, name: str, scratch: Path) -> bool:
    """Converts in one process, in two, and by two workers of Dask. Prints what each costs; whether all bytes are the
    same."""
    found = {}
    target = scratch / "out"
    with cluster(machine, scratch) as (address, workers):
        ways: dict[str, tuple[Sequence[str], Sequence[int]]] = {
            "--jobs 1": ((), ()),
            "--jobs 2": (("--jobs", "2"), ()),
            "--dask, 2 workers": (("--dask", address), workers),
        }
        for way, (words, helpers) in ways.items():
            cost = machine.convert(name, target, *words, helpers=helpers)
            found[way] = sums(target) if cost.code == 0 else {}
            shutil.rmtree(target, ignore_errors=True)
            print(f"  {way:18} {cost.cpu_seconds:7.1f} CPU s {cost.seconds:7.1f} s {cost.peak_mb:7.0f} MB", flush=True)
    return all(found["--jobs 1"] and one == found["--jobs 1"] for one in found.values())


@contextmanager
def cluster(machine: Machine, scratch: Path) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and two workers; its address, and their processes."""
    file = scratch / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:

        def start(program: str, *words: str) -> int:
            command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(file), *words]
            process = subprocess.Popen(command, env=machine.environ, **quiet)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            return int(process.pid)

        start("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        wait_for(file)
        words = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0")
        workers = [start("dask_worker", *words, "--local-directory", str(scratch / f"dask-{n}")) for n in (1, 2)]
        address = str(json.loads(file.read_text())["address"])
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(2, timeout=START_SECONDS)
        yield address, workers
    file.unlink()


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the scheduler of Dask does not start")
        time.sleep(0.05)


def sums(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of every file below a folder, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hash_file(path, "sha256", path.stat().st_size) for path in files}
