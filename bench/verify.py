"""How fast a cache is verified: full against `sha256sum` on as many processes as cores, and quick over many files.

    python -m bench.verify
    python -m bench.verify --gib 8 --rounds 5

The two ways take turns over the same files, which are read into the page cache before each turn, so that hashing is
compared and not the disk. Aims: full at least 0.9 of `sha256sum`; quick over 20,000 files less than a second.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from fakes.hub_cache import REPO, download, proved_manifest_of
from hfpeer.cache.manifests import Manifests
from hfpeer.cache.partial.hashing import HASH_CHUNK_BYTES
from hfpeer.cache.proofs import write_proof
from hfpeer.cache.verify.verification import examine
from hfpeer.names import RepoId

HFPEER = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
GIB = 1 << 30
FILES = 9
"""Large files, of different sizes."""
SMALL = RepoId.parse("acme/many")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0, help="GiB of large files (4)")
    parser.add_argument("--small", type=int, default=20_000, help="small files (20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-verify-") as folder:
        compare_full(Path(folder, "large"), int(options.gib * GIB), options.rounds)
        measure_quick(Path(folder, "small"), options.small, options.rounds)


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


if __name__ == "__main__":
    main()
