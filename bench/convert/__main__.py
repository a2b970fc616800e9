"""Measures conversions beside other ways to write JSON Lines, and disturbs them.

    python -m bench.convert --size 1000
    python -m bench.convert --size 1000 --kills 3
    python -m bench.convert --size 1000 --by-two

One run makes text and pictures, and a file with one large row group, and converts each by hfpeer, by `datasets`
(`to_json`, and row by row from a stream), by polars and by duckdb, where they are installed. Each runs in a process of
its own. Printed are CPU seconds, seconds and the peak of anonymous memory of all processes, and the ratios to polars.

With --kills the command `hfpeer dataset convert` is killed at random moments and run again; with --by-two it converts
in two processes, and on a Dask cluster of two workers. Exits with 1 if the bytes differ, or a killed one takes 300 MB.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench.convert.command import Machine, by_two, killed
from bench.convert.content import KINDS, make
from bench.convert.measuring import Cost, measured
from bench.convert.ways import LIBRARY, PROGRAMS

REFERENCE = "polars"
QUIET = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1", "POLARS_VERBOSE": "0"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=200, help="megabytes of text, of pictures, and of the row group")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--ways", default=",".join(PROGRAMS))
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("--kills", type=int, help="kill the command this often, and run it again")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills")
    parser.add_argument("--by-two", action="store_true", help="two processes beside two workers of Dask")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        way, source, target, *names = words.one
        PROGRAMS[way](Path(source), names, Path(target))
        return 0
    is_right = True
    with tempfile.TemporaryDirectory(prefix="bench-convert-", dir=words.folder) as scratch:
        for kind in words.kinds.split(","):
            folder = Path(scratch) / kind
            source = folder / "source"
            source.mkdir(parents=True)
            names = make(kind, source, words.size)
            size = sum((source / name).stat().st_size for name in names) / 1e6
            print(f"{kind}: {len(names)} files of Parquet, {size:.0f} MB", flush=True)
            if words.kills or words.by_two:
                machine = Machine(folder / "machine")
                machine.publish(source, kind)
                if words.kills:
                    is_right &= killed(machine, kind, folder, words.kills, random.Random(words.seed))
                if words.by_two:
                    is_right &= by_two(machine, kind, folder)
            else:
                compare(words.ways.split(","), source, names, folder)
            shutil.rmtree(folder)
    return 0 if is_right else 1


def compare(ways: list[str], source: Path, names: list[str], scratch: Path) -> None:
    """Converts by all ways, one after the other, and prints what each costs."""
    results: dict[str, Cost] = {}
    for way in ways:
        if way in LIBRARY and importlib.util.find_spec(LIBRARY[way]) is None:
            print(f"  {way:18} not installed")
            continue
        # Each has a folder of its own until the end: ext4 makes new files slowly where others were just removed.
        target = scratch / way.replace(" ", "-")
        target.mkdir()
        words = ["-m", "bench.convert", "--one", way, str(source), str(target), *names]
        found = measured(words, {**os.environ, **QUIET})
        if found.code:
            print(f"  {way:18} fails")
            continue
        results[way] = found
        print(f"  {way:18} {found.cpu_seconds:7.1f} CPU s {found.seconds:7.1f} s {found.peak_mb:7.0f} MB", flush=True)
    reference = REFERENCE if REFERENCE in results else "disk"
    if "hfpeer" in results and reference in results:
        ours, theirs = results["hfpeer"], results[reference]
        pairs = {
            "CPU": (ours.cpu_seconds, theirs.cpu_seconds),
            "seconds": (ours.seconds, theirs.seconds),
            "memory": (ours.peak_mb, theirs.peak_mb),
        }
        told = ", ".join(f"{what} {our / max(their, 1e-3):.2f}" for what, (our, their) in pairs.items())
        print(f"  hfpeer to {reference}: {told}")


if __name__ == "__main__":
    sys.exit(main())
