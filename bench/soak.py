"""The cost of a long life: two daemons under a steady load, and their memory, descriptors and threads over time.

    python -m bench.soak --minutes 20
    python -m bench.soak --minutes 1 --json

A hub simulator has a number of repos. One daemon adds and removes them again and again, the other takes the same from
it. Meanwhile callers ask all doors of both: files, ranges, listings and refs at the endpoints; catalog, manifests,
pieces, batches and odd requests at the LAN doors. At the end every visible blob is hashed. Exits with 1 if a blob is
wrong, an answer is a 5xx that is not 503, a log has a traceback, or a daemon has `--slack` more descriptors or threads
than at the start.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.kills import faults_in
from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines
from hfpeer.cache.cleaning.planning.requests import Target
from hfpeer.config.paths import Places
from hfpeer.control.client import ControlClient
from hfpeer.control.operations import AddRequest, CleanRequest
from hfpeer.errors import HfpeerError
from hfpeer.names import RepoId

REPOS = 12
SETTLE_SECONDS = 30.0
SAMPLE_SECONDS = 15.0
PAUSE_SECONDS = 0.02
"""Seconds between two questions of one caller."""
CALLER_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """The resources of one daemon at a moment: resident memory in MiB, open descriptors, threads."""

    node: str
    seconds: float
    rss_mib: float
    descriptors: int
    threads: int


@dataclass
class Figures:
    """The events of a run: `statuses` counts answers by status, `operations` adds and removals by outcome."""

    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    tracebacks: int = 0
    blobs: int = 0

    def of(self, node: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.node == node]

    def judge(self, slack: int) -> None:
        """Adds to `faults` what must not be."""
        for status, count in self.statuses.items():
            if status >= 500 and status != 503:
                self.faults.append(f"{count} answers {status}")
        if self.tracebacks:
            self.faults.append(f"{self.tracebacks} tracebacks in the logs")
        for node in dict.fromkeys(sample.node for sample in self.samples):
            first, last = self.of(node)[0], self.of(node)[-1]
            for what in ("descriptors", "threads"):
                grown = getattr(last, what) - getattr(first, what)
                if grown > slack:
                    self.faults.append(f"{node} has {grown} {what} more than at the start")

    def table(self) -> str:
        lines = [f"{'node':<8}{'at':>8}{'RSS MiB':>10}{'fds':>6}{'threads':>9}"]
        for node in dict.fromkeys(sample.node for sample in self.samples):
            own = self.of(node)
            peak = max(own, key=lambda sample: sample.rss_mib)
            lines += [
                f"{node:<8}{sample.seconds:>7.0f}s{sample.rss_mib:>10.1f}{sample.descriptors:>6}{sample.threads:>9}{mark}"
                for sample, mark in ((own[0], "  start"), (peak, "  most memory"), (own[-1], "  end"))
            ]
        answers = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()))
        done = ", ".join(f"{name}: {count:,}" for name, count in sorted(self.operations.items()))
        return "\n".join(
            [
                *lines,
                f"answers by status: {answers}",
                f"operations: {done}",
                f"blobs hashed at the end: {self.blobs}, tracebacks: {self.tracebacks}",
                *(f"WRONG: {fault}" for fault in self.faults),
            ]
        )


class Soak:
    """The load over two machines, until `stop`."""

    def __init__(self, hub: HubSimulator, machines: Sequence[Machine], seed: int) -> None:
        self.figures = Figures()
        self._hub = hub
        self._machines = machines
        self._seed = seed
        self._over = threading.Event()
        self._began_at = time.monotonic()
        self._lock = threading.Lock()
        self._commits: dict[str, str] = {}
        for number in range(REPOS):
            files = {f"texts/{n}.txt": noise(500 + 40 * n, f"{number} {n}") for n in range(12)}
            large = {f"part-{n}.bin": Lfs(noise(1_500_000 * (n + 1), f"large {number} {n}")) for n in range(2)}
            name = f"acme/soak-{number}"
            self._commits[name] = hub.put_repo("model", name, {"config.json": b"{}", **files, **large})
        self._doors = [machine.do("status")["listeners"] for machine in machines]

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._keep_adding, args=(number,)) for number in range(len(self._machines))]
        for number, doors in enumerate(self._doors):
            threads += [
                threading.Thread(
                    target=self._keep_asking, args=(doors["endpoint"], self._endpoint_target, 10 + number)
                ),
                threading.Thread(target=self._keep_asking, args=(doors["lan"], self._lan_target, 20 + number)),
            ]
        for thread in threads:
            thread.start()
        self._over.wait(min(SETTLE_SECONDS, seconds / 2))
        while True:
            self._sample()
            self._hub.clear()
            left = self._began_at + seconds - time.monotonic()
            if left <= 0:
                break
            self._over.wait(min(SAMPLE_SECONDS, left))
        self._over.set()
        for thread in threads:
            thread.join(CALLER_TIMEOUT_SECONDS)
        self._sample()
        self._look()

    def _sample(self) -> None:
        for machine in self._machines:
            pid = machine.pid
            if pid is None:
                self.figures.faults.append(f"the daemon of {machine.name} is gone")
                continue
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            self.figures.samples.append(
                Sample(
                    machine.name,
                    time.monotonic() - self._began_at,
                    int(status["VmRSS"].split()[0]) / 1024,
                    sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
                    int(status["Threads"]),
                )
            )

    def _look(self) -> None:
        for machine in self._machines:
            self.figures.faults += [f"{machine.name}: {fault}" for fault in faults_in(machine.cache)]
            self.figures.blobs += len(machine.blobs())
            self.figures.tracebacks += machine.log.count("Traceback")

    # The load

    def _keep_adding(self, number: int) -> None:
        machine, dice = self._machines[number], random.Random(self._seed + number)
        daemon = ControlClient(Places(machine.home, machine.cache).control_socket)
        while not self._over.is_set():
            repo = RepoId.parse(dice.choice(sorted(self._commits)))
            asyncio.run(self._operate(daemon, repo, is_removal=dice.random() < 0.35))
            self._over.wait(0.3)

    async def _operate(self, daemon: ControlClient, repo: RepoId, *, is_removal: bool) -> None:
        name = "rm" if is_removal else "add"
        try:
            if is_removal:
                await daemon.clean(CleanRequest((Target(str(repo), (repo,)),), is_forced=True))
            else:
                await daemon.add(AddRequest(repo), lambda event: None)
            outcome = "done"
        except HfpeerError as error:
            outcome = error.code
        with self._lock:
            self.figures.operations[f"{name} {outcome}"] += 1

    def _keep_asking(self, door: str, target: Any, seed: int) -> None:
        dice = random.Random(self._seed + seed)
        connection = http.client.HTTPConnection(door, timeout=CALLER_TIMEOUT_SECONDS)
        while not self._over.wait(PAUSE_SECONDS):
            method, path, headers = target(dice)
            try:
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            with self._lock:
                self.figures.statuses[status] += 1
        connection.close()

    def _endpoint_target(self, dice: random.Random) -> tuple[str, str, dict[str, str]]:
        name, commit = dice.choice(list(self._commits.items()))
        file = dice.choice(["config.json", "texts/3.txt", "part-0.bin", "no/such.bin"])
        path = dice.choice(
            [f"/{name}/resolve/main/{file}", f"/{name}/resolve/{commit}/{file}", f"/api/models/{name}",
             f"/api/models/{name}/tree/main?recursive=1", f"/api/models/{name}/refs", "/api/models/acme/nowhere"]
        )  # fmt: skip
        first = dice.randrange(1000)
        headers = {"Range": f"bytes={first}-{first + 5000}"} if dice.random() < 0.5 else {}
        return dice.choice(["GET", "GET", "HEAD"]), path, headers

    def _lan_target(self, dice: random.Random) -> tuple[str, str, dict[str, str]]:
        name, commit = dice.choice(list(self._commits.items()))
        digest = f"sha256:{dice.getrandbits(256):064x}"
        path = dice.choice(
            ["/node", "/catalog", "/peers", f"/manifests/models/{name}/{commit}",
             f"/refs/models/{name}/main", f"/blobs/{digest}/pieces", f"/blobs/{digest}", "/nowhere",
             "/%00", "/manifests/models/../../x", f"/batch?digests={digest}"]
        )  # fmt: skip
        return dice.choice(["GET", "GET", "GET", "HEAD", "POST"]), path, {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slack", type=int, default=24, help="descriptors or threads that may be more at the end")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hfpeer-soak-", ignore_cleanup_errors=True) as folder,
        HubSimulator() as hub,
        Machines(Path(folder)) as machines,
    ):
        first = machines.make("first", upstreams=f"origin={hub.endpoint}")
        first.start()
        second = machines.make("second", upstreams=f"origin={hub.endpoint}", peers=[first.address])
        second.start()
        soak = Soak(hub, [first, second], options.seed)
        soak.run(60 * options.minutes)
        figures = soak.figures
        for machine in (second, first):
            with suppress(HfpeerError):
                machine.stop()
    figures.judge(options.slack)
    print(json.dumps(asdict(figures), indent=2) if options.json else figures.table())
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
