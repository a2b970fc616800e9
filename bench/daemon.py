"""How light the node is: its help, its start, its rest, and a start over a cache that is already full.

    python -m bench.daemon
    python -m bench.daemon --files 10000 --repos 50 --rounds 10 --json

Prints each figure beside its target, and the CPU time of a start, which a busy machine changes little. The full cache
is laid out as the Hub client does it: blobs, links, refs; nothing of it is known to the node before. Everything lies
below a temporary folder and is removed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfpeer.config.paths import Places
from hfpeer.control.client import ControlClient
from hfpeer.control.operations import Operations
from hfpeer_cli.commands.node.demo import Machine

HELP = (sys.executable, "-c", "from hfpeer_cli.main import main; main()", "--help")
IDLE_SECONDS = 5.0
VERIFY_TIMEOUT_SECONDS = 120.0
COMMIT = "c" * 40
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """One measured value; at most `target` of its unit is good."""

    name: str
    value: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        verdict = "" if self.target is None else "ok" if self.value <= self.target else "MISSED"
        aim = "" if self.target is None else f"(target {self.target:g}) {verdict}"
        return f"{self.name:<44}{self.value:>8.1f} {self.unit:<3}{aim}".rstrip()


def measure(files: int, repos: int, rounds: int) -> Iterator[Figure]:
    """Every figure, as soon as it is known."""
    yield Figure("hfpeer --help", 1000 * help_seconds(rounds), "ms", 150)
    with machine() as empty:
        seconds, cpu_seconds = start(empty, 5)
        yield Figure("hfpeer daemon start", 1000 * seconds, "ms", 1500)
        yield Figure("  its CPU time, command and daemon", 1000 * cpu_seconds, "ms")
        time.sleep(IDLE_SECONDS)
        yield Figure("idle memory, RSS", memory_bytes(empty) / 1e6, "MB", 120)
    with machine() as full:
        fill(full.cache, files, repos)
        yield Figure(f"hfpeer daemon start, {files:,} files unseen before", 1000 * start(full, 1)[0], "ms", 1500)
        ready_at = time.monotonic()
        with asked_again_and_again(full.do("status")["listeners"]["lan"]) as slowest:
            found = sum(revision.files for revision in ask(full, lambda node: node.list_revisions()))
            indexed_seconds = time.monotonic() - ready_at
            assert found == files, found
            verified_seconds = seconds_until_verified(full, ready_at)
        yield Figure("from ready until they are indexed", 1000 * indexed_seconds, "ms", 2000)
        yield Figure("from ready until they are hashed", 1000 * verified_seconds, "ms")
        yield Figure("slowest GET /node meanwhile", 1000 * slowest[0], "ms")
        yield Figure("memory after that, RSS", memory_bytes(full) / 1e6, "MB")
        yield Figure("hfpeer daemon start, all of them known", 1000 * start(full, 1)[0], "ms", 1500)


def help_seconds(rounds: int) -> float:
    """The median time of `hfpeer --help` as a process; a first one is left out."""
    times = []
    for _ in range(rounds + 1):
        began_at = time.perf_counter()
        subprocess.run(HELP, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began_at)
    return statistics.median(times[1:])


def start(node: Machine, rounds: int) -> tuple[float, float]:
    """Medians of `hfpeer daemon start`, in seconds: until the node answers, and of CPU. It runs afterwards."""
    times, cpu_times = [], []
    for _ in range(rounds):
        node.do("daemon", "stop")
        began_at, cpu_before = time.perf_counter(), _cpu_seconds_of_children()
        pid = node.do("daemon", "start")["pid"]
        times.append(time.perf_counter() - began_at)
        cpu_times.append(_cpu_seconds_of_children() - cpu_before + _cpu_seconds(pid))
    return statistics.median(times), statistics.median(cpu_times)


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(node: Machine) -> int:
    """The resident memory of the daemon."""
    lines = Path(f"/proc/{node.do('status')['pid']}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def seconds_until_verified(node: Machine, since: float) -> float:
    while ask(node, lambda daemon: daemon.status()).unverified_files:
        if time.monotonic() - since > VERIFY_TIMEOUT_SECONDS:
            raise TimeoutError("the files are not hashed in time")
        time.sleep(0.1)
    return time.monotonic() - since


def ask(node: Machine, question: Callable[[Operations], Any]) -> Any:
    """Asks the daemon without the time that a command takes to start."""

    async def asking() -> Any:
        home = Path(node.environ["HFPEER_HOME"])
        daemon = ControlClient(Places(home, node.cache).control_socket)
        return await question(daemon)

    return asyncio.run(asking())


@contextmanager
def asked_again_and_again(address: str) -> Iterator[list[float]]:
    """Asks the LAN door who it is, every few milliseconds while the block runs; gives the slowest answer's seconds."""
    slowest, is_over = [0.0], threading.Event()

    def keep_asking() -> None:
        connection = http.client.HTTPConnection(address, timeout=30)
        while not is_over.wait(0.005):
            began_at = time.perf_counter()
            connection.request("GET", "/node")
            connection.getresponse().read()
            slowest[0] = max(slowest[0], time.perf_counter() - began_at)
        connection.close()

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        yield slowest
    finally:
        is_over.set()
        asking.join()


@contextmanager
def machine() -> Iterator[Machine]:
    """A node with an empty home and cache; stopped, killed if need be, and removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="hfpeer-bench-"))
    node = Machine("bench", place)
    try:
        yield node
    finally:
        subprocess.run(
            [sys.executable, "-c", "from hfpeer_cli.main import main; main()", "daemon", "stop"],
            env=node.environ,
            check=False,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(place, ignore_errors=True)


def fill(cache: Path, files: int, repos: int) -> None:
    """Makes a cache of `files` small files in `repos` models, as the Hub client leaves them."""
    for repo in range(repos):
        folder = cache / f"models--bench--model-{repo}"
        snapshot = folder / "snapshots" / COMMIT
        (folder / "blobs").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
        for number in range(repo, files, repos):
            body = f"file {number} of {repo}\n".encode() * 40
            name = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            (folder / "blobs" / name).write_bytes(body)
            link = snapshot / f"part-{number % 7}" / f"file-{number}.json"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../../blobs/{name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000, help="files in the full cache (default 10,000)")
    parser.add_argument("--repos", type=int, default=50, help="models they are spread over (default 50)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of --help (default 10)")
    parser.add_argument("--json", action="store_true", help="one JSON array at the end instead of lines")
    options = parser.parse_args()
    figures = []
    for figure in measure(options.files, options.repos, options.rounds):
        figures.append(figure)
        if not options.json:
            print(figure, flush=True)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
