"""Kills a node in the middle of transfers, again and again, and counts what that costs.

    python -m bench.kills --kills 200

A process of its own adds a repo from a throttled hub simulator and gets SIGKILL at a random moment; then it is started
again, until the repo is there, and the next round begins with an empty cache. After every kill each blob that is
visible must hash to its name and no snapshot link may dangle. The cost of a kill is the bytes that the hub has sent
since the last start and the disk does not have: at most the pieces in flight, one on each connection, and the bytes in
sockets. Exits with 1 if anything is wrong or a kill has cost more.

    python -m bench.kills --at-calls add publish rm --most 100
    python -m bench.kills --at-calls add publish --fault EIO ENOSPC

With --at-calls a command is killed, or a call of it fails, at one chosen system call after the other, on a fresh cache
each time. Then nothing wrong may be visible, and the same command must end with exit 0 and leave what an undisturbed
one leaves. See `bench/calls.py` for which calls and commands there are.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.calls import COMMANDS, FAULTS, measure
from fakes.hub import HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.waiting import wait_until
from hfpeer.cache.disk.layout import partials_folder
from hfpeer.cache.partial.blob import open_partial
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import AddRequest
from hfpeer.names import Digest, RepoId, Revision
from hfpeer.node.node import Node
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES
from hfpeer.transfer.fetch.workers import MAX_WORKERS
from hfpeer.transfer.snapshot import LARGE_AT_ONCE
from hfpeer.transfer.sources.tiers import Tier

ROOT = Path(__file__).resolve().parent.parent
REPO = RepoId.from_api_path("models/acme/weights")
LARGE_BYTES = (16 * MIB, 16 * MIB + 1, 12 * MIB - 1, 700_000)
SMALL_FILES = 40
SOCKET_BYTES = 512 * 1024
"""Bytes that may be in the sockets of one connection: the hub sends less than this at a time, and the node reads at
once."""
LONGEST_RUN_SECONDS = 2.0

LARGE_CONNECTIONS = LARGE_AT_ONCE * min(MAX_WORKERS, Tier.ORIGIN.blob_requests)
BOUND_BYTES = LARGE_CONNECTIONS * (PIECE_SIZE_BYTES + SOCKET_BYTES) + Tier.ORIGIN.bundle_requests * MAX_BATCH_BLOB_BYTES


@dataclass
class Figures:
    """The cost of all rounds. Bytes are payload: bodies of files, without headers and listings."""

    kills: int = 0
    rounds: int = 0
    payload_bytes: int = 0
    sent_bytes: int = 0
    costs: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.faults and max(self.costs, default=0) <= BOUND_BYTES

    def table(self) -> str:
        costs = sorted(self.costs) or [0]
        rows = [
            ("kills", f"{self.kills}"),
            ("transfers completed", f"{self.rounds}"),
            ("payload", f"{self.payload_bytes:,} B"),
            ("sent by the hub", f"{self.sent_bytes:,} B ({self.sent_bytes / max(1, self.payload_bytes):.3f} of it)"),
            ("fetched again per kill, mean", f"{sum(costs) // len(costs):,} B"),
            ("fetched again per kill, median", f"{costs[len(costs) // 2]:,} B"),
            ("fetched again per kill, most", f"{costs[-1]:,} B"),
            (f"bound: {LARGE_CONNECTIONS} connections, a piece and a socket each", f"{BOUND_BYTES:,} B"),
            ("wrong or dangling in the cache", f"{len(self.faults)}"),
        ]
        return "\n".join(f"{name:<56}{value:>34}" for name, value in rows)


def run(kills: int, seed: int, bytes_per_second: float) -> Figures:
    """Rounds of transfers until there have been `kills` kills. The same seed kills after the same times."""
    dice, figures = random.Random(seed), Figures()
    with throttled_hub(bytes_per_second) as (hub, commit):
        while figures.kills < kills:
            with tempfile.TemporaryDirectory(prefix="hfpeer-kills-", ignore_cleanup_errors=True) as folder:
                one_round(hub, commit, Path(folder), kills, dice, figures)
    return figures


@contextmanager
def throttled_hub(bytes_per_second: float) -> Iterator[tuple[HubSimulator, str]]:
    """A hub with one repo of large and small files, and the repo's commit."""
    files = {f"part-{n}.safetensors": Lfs(noise(size, f"part {n}")) for n, size in enumerate(LARGE_BYTES)}
    texts = {f"texts/{n}.txt": noise(4096, f"text {n}") for n in range(SMALL_FILES)}
    with HubSimulator() as hub:
        hub.inject(faults.throttle(bytes_per_second, is_shared=True), listener="cdn")
        yield hub, hub.put_repo("model", "acme/weights", {**files, **texts})


def one_round(hub: HubSimulator, commit: str, folder: Path, kills: int, dice: random.Random, figures: Figures) -> None:
    """One transfer into an empty cache, killed until it is done."""
    cache = folder / "hub"
    figures.rounds += 1
    figures.payload_bytes += sum(LARGE_BYTES) + SMALL_FILES * 4096
    kept_bytes, is_done = 0, False
    while not is_done:
        hub.clear()
        seconds = dice.uniform(0.0, LONGEST_RUN_SECONDS) if figures.kills < kills else None
        is_done = start_and_kill(folder, hub, commit, seconds)
        hub.wait_until_quiet()
        sent_bytes = hub.body_bytes_sent(listener="cdn")
        sent_bytes += hub.body_bytes_sent("*/resolve-cache/*/texts/*", listener="hub")
        figures.sent_bytes += sent_bytes
        figures.faults += faults_in(cache)
        now_kept = kept(cache)
        if not is_done:
            figures.kills += 1
            figures.costs.append(sent_bytes - (now_kept - kept_bytes))
        kept_bytes = now_kept
    if kept_bytes != sum(LARGE_BYTES) + SMALL_FILES * 4096:
        figures.faults.append(f"a finished transfer has {kept_bytes} bytes")


def start_and_kill(folder: Path, hub: HubSimulator, commit: str, seconds: float | None) -> bool:
    """Starts a node that adds the repo and kills it `seconds` after its first request. Whether it was done before."""
    environ = {
        **os.environ,
        "HFPEER_HOME": str(folder / "home"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        "HFPEER_MDNS": "0",
    }
    node = subprocess.Popen(
        [sys.executable, "-m", "bench.kills", "--add", commit], cwd=ROOT, env=environ, start_new_session=True
    )
    wait_until(lambda: hub.requests or node.poll() is not None, "the node asks the hub or ends")
    try:
        code = node.wait(seconds)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
        return False
    if code != 0:
        raise SystemExit(f"The node that was not killed ended with {code}.")
    return True


async def add(commit: str) -> None:
    """The work of the process that is killed."""
    node = Node(read_settings(os.environ, home=Path(os.environ["HFPEER_HOME"])))
    try:
        await node.add(AddRequest(repo=REPO, revision=Revision(commit)), lambda event: None)
    finally:
        await node.stop()


def blobs(cache: Path) -> list[Path]:
    """Blobs as the Hub client sees them, without files that end in `.incomplete`."""
    return [path for path in cache.glob("*--*/blobs/*") if path.suffix != ".incomplete"]


def faults_in(cache: Path) -> list[str]:
    """The wrong blobs and links that others can see in a cache."""
    found = [f"{blob.name} has other bytes" for blob in blobs(cache) if not is_right(blob)]
    links = [path for path in cache.glob("*--*/snapshots/**/*") if path.is_symlink()]
    return found + [f"{link} leads nowhere" for link in links if not link.exists()]


def is_right(blob: Path) -> bool:
    data = blob.read_bytes()
    right = hashlib.sha256(data) if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % len(data) + data)
    return right.hexdigest() == blob.name


def kept(cache: Path) -> int:
    """The bytes that the next run will not fetch: visible blobs, and what the journals of partials vouch for."""
    total = sum(blob.stat().st_size for blob in blobs(cache))
    for data in partials_folder(cache).glob("*/data"):
        if data.stat().st_size:
            partial = open_partial(cache, Digest.parse(f"sha256:{data.parent.name}"), data.stat().st_size)
            total += partial.present.total
            partial.close()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mib-per-second", type=float, default=24.0, help="what the hub sends, over all connections")
    parser.add_argument("--at-calls", nargs="+", choices=COMMANDS, help="these commands, at chosen system calls")
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=["KILL"], help="with --at-calls: what happens")
    parser.add_argument("--most", type=int, default=100, help="with --at-calls: rounds of each, evenly spread")
    parser.add_argument("--add", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.at_calls:
        tallies = measure(options.at_calls, options.fault, options.most)
        for tally in tallies:
            print(tally.line(), *tally.wrong, sep="\n    ")
        sys.exit(1 if any(tally.wrong for tally in tallies) else 0)
    if options.add:
        asyncio.run(add(options.add))
        return
    began_at = time.monotonic()
    figures = run(options.kills, options.seed, options.mib_per_second * MIB)
    print(figures.table())
    print(*figures.faults, f"{time.monotonic() - began_at:.0f} s, seed {options.seed}", sep="\n")
    sys.exit(0 if figures.is_good else 1)


if __name__ == "__main__":
    main()
