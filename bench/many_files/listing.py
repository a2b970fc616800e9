"""The cost of `hfpeer cache ls` over many files, against `hf cache ls`, `find` and `du` in the same run.

    python -m bench.many_files.listing
    python -m bench.many_files.listing --files 20000 200000 --rounds 5

The ways take turns over the same cache of small files. Figures are CPU seconds, the least of the rounds, so that they
hold on a busy machine; the wall time of a quiet one is about the same. *A file* is what a file adds to the cost of an
empty cache: it should be the same however many files there are. Aims: no more than `hf cache ls`; 20,000 files in about
a second.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fakes.hub_cache import download, proved_manifest_of
from hfpeer.names import RepoId

HFPEER = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
HF = (sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()")
FILES_IN_REPO = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[20_000], help="files in the cache (20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-listing-") as folder:
        measure(Path(folder, "compiled"), 1)
        empty = measure(Path(folder, "empty"), options.rounds)
        for files in options.files:
            place = Path(folder, str(files))
            fill(place / "hub", files)
            print_costs(files, measure(place, options.rounds), empty)


def fill(cache: Path, files: int) -> None:
    """Makes a cache of repos with small files, half of them LFS files."""
    for number, start in enumerate(range(0, files, FILES_IN_REPO)):
        names = range(start, min(start + FILES_IN_REPO, files))
        bodies = {f"part-{name % 20}/{name}.{'bin' if name % 2 else 'json'}": b"%d" % name for name in names}
        repo = RepoId.parse(f"acme/many-{number}")
        download(cache, bodies, proved_manifest_of(bodies, repo).commit, repo)


def measure(place: Path, rounds: int) -> dict[str, float]:
    """The CPU seconds of each way, the least of the rounds. The first turn of hfpeer fills its catalog."""
    cache = place / "hub"
    cache.mkdir(parents=True, exist_ok=True)
    environ = {
        **os.environ,
        "HFPEER_HOME": str(place / "home"),
        "HF_HOME": str(place / "hf"),
        "HF_HUB_CACHE": str(cache),
        "HFPEER_UPSTREAMS": "",
        "HFPEER_MDNS": "0",
        "PYTHONPYCACHEPREFIX": str(place.parent / "compiled"),
    }
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    ways = {
        "hfpeer cache ls": (*HFPEER, "cache", "ls"),
        "hfpeer cache du": (*HFPEER, "cache", "du"),
        "hfpeer model ls": (*HFPEER, "model", "ls"),
        "hf cache ls": (*HF, "cache", "ls"),
        "find -ls": ("find", str(cache), "-ls"),
        "du": ("du", "-s", str(cache)),
    }
    costs = {"hfpeer cache ls, first": cpu_seconds(ways["hfpeer cache ls"], environ)}
    for _ in range(rounds):
        for name, words in ways.items():
            costs[name] = min(costs.get(name, float("inf")), cpu_seconds(words, environ))
    return costs


def cpu_seconds(words: Sequence[str], environ: Mapping[str, str]) -> float:
    """The CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=dict(environ), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def print_costs(files: int, costs: Mapping[str, float], empty: Mapping[str, float]) -> None:
    """Prints the seconds of each way, its cost for each file, and its ratio to `hf cache ls`."""
    print(f"{files:,} files        CPU s    a file   of hf cache ls", flush=True)
    for name, seconds in costs.items():
        micros = (seconds - empty[name]) / files * 1e6
        print(f"  {name:<24} {seconds:5.2f}  {micros:5.0f} us   {seconds / costs['hf cache ls']:5.2f}", flush=True)


if __name__ == "__main__":
    main()
