"""How fast a cache is verified: full against `sha256sum` on as many processes as cores, and quick over many files; and
what a repair moves.

    python -m bench.verify
    python -m bench.verify --gib 8 --rounds 5
    python -m bench.verify --only repair --repair-mib 256

The two ways take turns over the same files, which are read into the page cache before each turn, so that hashing is
compared and not the disk. Aims: full at least 0.9 of `sha256sum`; quick over 20,000 files less than a second.

The repairs are of one file of 2 GiB, in memory (/dev/shm) where there is such a folder, with a peer on loopback that
has it and no hub. The reference is an add of the whole file from the same peer. Aims: a flipped byte moves one piece, a
half file its missing half, and with a right copy elsewhere on this disk nothing moves.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.transfer import _make_model
from fakes.hub_cache import REPO, download, proved_manifest_of
from fakes.machine import Machine, Machines
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.partial.hashing import HASH_CHUNK_BYTES
from hfpeer.cache.verify.verification import examine
from hfpeer.names import RepoId

HFPEER = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
GIB = 1 << 30
FILES = 9
"""Large files, of different sizes."""
OTHER = RepoId.parse("acme/other")
SMALL = RepoId.parse("acme/many")
PARTS = ("full", "quick", "repair")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0, help="GiB of large files (4)")
    parser.add_argument("--small", type=int, default=20_000, help="small files (20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    parser.add_argument("--repair-mib", type=int, default=2048, help="MiB of the file that is repaired (2,048)")
    parser.add_argument("--only", choices=PARTS, help="one of the three")
    options = parser.parse_args()
    wanted = [options.only] if options.only else PARTS
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-verify-") as folder:
        if "full" in wanted:
            compare_full(Path(folder, "large"), int(options.gib * GIB), options.rounds)
        if "quick" in wanted:
            measure_quick(Path(folder, "small"), options.small, options.rounds)
    if "repair" in wanted:
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(
            prefix="hfpeer-bench-verify-", dir=memory if memory.is_dir() else None
        ) as name:
            measure_repairs(Path(name), options.repair_mib << 20, options.rounds)


def compare_full(cache: Path, size_bytes: int, rounds: int) -> None:
    """Prints GB per second of both ways, and their ratio."""
    blobs = make_blobs(cache, size_bytes)
    cores = len(os.sched_getaffinity(0))
    total = sum(blob.stat().st_size for blob in blobs)
    rates: dict[str, list[float]] = {"sha256sum": [], "verify": []}
    for _ in range(rounds):
        for name, seconds in (("sha256sum", sha256sum(blobs, cores)), ("verify", verify_full(cache, blobs))):
            rates[name].append(total / seconds / 1e9)
            print(f"  {name:<10} {rates[name][-1]:6.2f} GB/s", flush=True)
    ratio = median(ours / theirs for ours, theirs in zip(rates["verify"], rates["sha256sum"], strict=True))
    print(f"full, {total / 1e9:.1f} GB on {cores} cores: {ratio:.2f} of sha256sum")


def make_blobs(cache: Path, size_bytes: int) -> list[Path]:
    """Writes random blobs with their true names. Their sizes are 1 to FILES parts of the whole."""
    parts = FILES * (FILES + 1) // 2
    folder = cache / REPO.folder / "blobs"
    folder.mkdir(parents=True)
    (cache / REPO.folder / "snapshots").mkdir()
    for number in range(1, FILES + 1):
        path = folder / "new"
        with path.open("wb") as file:
            left = size_bytes * number // parts
            while left > 0:
                left -= file.write(random.randbytes(min(left, HASH_CHUNK_BYTES)))
        named = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        path.rename(folder / named)
    return sorted(folder.iterdir(), key=lambda blob: -blob.stat().st_size)


def warm(blobs: Sequence[Path]) -> None:
    for blob in blobs:
        with blob.open("rb", buffering=0) as file:
            while file.read(HASH_CHUNK_BYTES):
                pass


def sha256sum(blobs: Sequence[Path], processes: int) -> float:
    """Seconds of sha256sum over all blobs, the largest first."""
    warm(blobs)
    names = "\0".join(map(str, blobs)).encode()
    began = time.perf_counter()
    subprocess.run(
        ["xargs", "-0", "-n", "1", "-P", str(processes), "sha256sum"],
        input=names,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def verify_full(cache: Path, blobs: Sequence[Path]) -> float:
    """Seconds of a verification that hashes all blobs."""
    warm(blobs)
    began = time.perf_counter()
    report = examine(cache, Manifests(cache.parent / "home", cache), None).report
    seconds = time.perf_counter() - began
    assert report.hashed_files == len(blobs) and report.exit_code == 0
    return seconds


def measure_quick(cache: Path, files: int, rounds: int) -> None:
    """Prints the seconds of a quick look at a proved repo of many small files: alone, and as a command."""
    bodies = {f"part-{number // 100:04}/{number:06}.json": b"%d" % number for number in range(files)}
    manifest = proved_manifest_of(bodies, SMALL)
    download(cache, bodies, manifest.commit, SMALL)
    write_proof(cache, manifest)
    for _ in range(rounds):
        began = time.perf_counter()
        report = examine(cache, Manifests(cache.parent / "home", cache), None, is_quick=True).report
        alone = time.perf_counter() - began
        assert report.exit_code == 0 and report.revisions[0].grade == "proved"
        command = [*HFPEER, "verify", "--quick", "--cache", str(cache)]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        print(f"quick, {files:,} files: {alone:.2f} s; as a command {time.perf_counter() - began:.2f} s", flush=True)


def measure_repairs(place: Path, size_bytes: int, rounds: int) -> None:
    """Prints the bytes over the wire and the seconds of each repair, beside those of the whole file."""
    folder = place / "model"
    _make_model(folder, 1, size_bytes)
    with Machines(place) as machines:
        peer = machines.make("peer")
        commit = peer.do("model", "publish", str(folder), "--as", str(REPO))["commit"]
        peer.start()
        shutil.rmtree(folder)
        repairs = Repairs(machines.make("here", peers=[peer.address]), peer.address, commit, size_bytes)
        ways = {
            "whole file, by an add": repairs.add_whole,
            "a flipped byte": repairs.flip,
            "half of the file gone": repairs.cut,
            "… a right copy on this disk": repairs.flip_beside_a_copy,
        }
        moved: dict[str, list[tuple[int, float]]] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                moved.setdefault(name, []).append(way())
    whole = median(seconds for _, seconds in moved["whole file, by an add"])
    print(f"repair, one file of {size_bytes:,} bytes, medians of {rounds} rounds")
    for name, found in moved.items():
        seconds = median(seconds for _, seconds in found)
        print(
            f"  {name:<28}{max(size for size, _ in found):>15,} B over the wire{seconds:7.1f} s{seconds / whole:6.2f}x"
        )


class Repairs:
    """Damages the blob of a cache, and repairs it. Each method returns the bytes over the wire, and the seconds."""

    def __init__(self, here: Machine, peer: str, commit: str, size_bytes: int) -> None:
        self._here = here
        self._peer = peer
        self._commit = commit
        self._size_bytes = size_bytes

    def add_whole(self) -> tuple[int, float]:
        shutil.rmtree(self._here.cache, ignore_errors=True)
        return self._run("model", "add", "-r", str(REPO), "-v", self._commit, "--from", self._peer)

    def flip(self) -> tuple[int, float]:
        with self._blob().open("r+b") as file:
            file.seek(self._size_bytes // 3)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        return self._repair()

    def cut(self) -> tuple[int, float]:
        os.truncate(self._blob(), self._size_bytes // 2)
        return self._repair()

    def flip_beside_a_copy(self) -> tuple[int, float]:
        other = self._here.cache / OTHER.folder
        shutil.copytree(self._here.cache / REPO.folder, other, symlinks=True)
        try:
            return self.flip()
        finally:
            shutil.rmtree(other)

    def _blob(self) -> Path:
        (blob,) = (self._here.cache / REPO.folder / "blobs").iterdir()
        return blob

    def _repair(self) -> tuple[int, float]:
        return self._run("verify", "--repair", "--no-wan", str(REPO))

    def _run(self, *words: str) -> tuple[int, float]:
        began = time.perf_counter()
        report = self._here.do(*words)
        seconds = time.perf_counter() - began
        assert self._blob().stat().st_size == self._size_bytes
        return sum(report["bytes_by_kind"].values()), seconds


if __name__ == "__main__":
    main()
