"""What each of many small files costs: a publish, an add from a peer, and what follows, beside git, rsync and the Hub's
client in the same run.

    python -m bench.many_files
    python -m bench.many_files --files 100000 --rounds 1

Everything is measured with a tenth of the files, too: the cost of a file should not grow with their number. Two
daemons, on this machine, lie below --dir, by default in memory (/dev/shm), because a disk's mood is not what is
measured; all is removed at the end. `hf download` takes a part of the files (--hf-files); its rate is compared.

A line is a step. `s` is on the clock, `CPU s` is that of the command and of both daemons, or of the other program and
its server. `MB` is the peak of the memory (RSS) of each daemon during the step. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.many_files.references import commit_with_git, copy_with_rsync, download_with_hf
from bench.transfer import REPO, Cost, cpu_seconds_of, measure
from hfpeer_cli.commands.node.demo import COMMAND, Machine

FILES_IN_FOLDER = 1_000
REFERENCES = {
    "publish": ("git add + commit", 3.0),
    "add from a peer": ("rsync -a", 3.5),
}
"""By step: the other program, and at most how many times its seconds are good."""
FILES_PER_SECOND = 4_000
HF_TIMES = 8.0
AGAIN_SECONDS = 2.0
MEMORY_MB = 250
GROWTH = 1.3
"""At most this much more a file may cost among ten times as many."""


@dataclass(frozen=True)
class Measured:
    """The cost of a step over `files` files, and the peak memory of the giver and of the taker."""

    files: int
    cost: Cost
    peaks_mb: tuple[float, ...] = ()

    @property
    def micros(self) -> float:
        """Microseconds on the clock for each file."""
        return self.cost.seconds / self.files * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="files of the larger commit (10,000)")
    parser.add_argument("--file-bytes", type=int, default=418, help="bytes of each file (418)")
    parser.add_argument("--hf-files", type=int, default=1_000, help="at most this many files by `hf download` (1,000)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each step (1)")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    by_size: list[dict[str, Measured]] = []
    for files in (max(1, options.files // 10), options.files):
        rounds = [list(one_round(options, files)) for _ in range(options.rounds)]
        by_size.append({name: median([dict(one)[name] for one in rounds]) for name, _ in rounds[0]})
        print_steps(files, by_size[-1])
    print_growth(*by_size)


def one_round(options: argparse.Namespace, files: int) -> Iterator[tuple[str, Measured]]:
    """Measures each step once, in a folder of its own that is removed."""
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-", dir=options.dir) as name:
        place = Path(name)
        folder = place / "files"
        make_files(folder, files, options.file_bytes)
        yield "git add + commit", Measured(files, commit_with_git(place, folder))
        with two_nodes(place) as (giver, taker):
            yield from nodes_at_work(files, folder, giver, taker)
        yield "rsync -a", Measured(files, copy_with_rsync(place, folder))
        part = place / "part"
        count = min(files, options.hf_files)
        make_files(part, count, options.file_bytes)
        yield "hf download", Measured(count, download_with_hf(place, part))


def nodes_at_work(files: int, folder: Path, giver: Machine, taker: Machine) -> Iterator[tuple[str, Measured]]:
    """The steps of the two daemons."""
    pids = [int(machine.do("status")["pid"]) for machine in (giver, taker)]
    taker.do("peer", "add", giver.do("status")["listeners"]["lan"])
    servers: list[Callable[[], float]] = [lambda pid=pid: cpu_seconds_of(pid) for pid in pids]  # type: ignore[misc]

    answers: list[Any] = []

    def step(machine: Machine, *words: str) -> Measured:
        for pid in pids:
            forget_peak(pid)
        cost = measure(lambda: answers.append(machine.do(*words)), *servers)
        return Measured(files, cost, tuple(peak_mb(pid) for pid in pids))

    yield "publish", step(giver, "model", "publish", str(folder), "--as", REPO)
    yield "publish again", step(giver, "model", "publish", str(folder), "--as", REPO)
    add = ("model", "add", "-r", REPO, "-v", answers[-1]["commit"])
    yield "add from a peer", step(taker, *add)
    yield "add again", step(taker, *add)
    strange = Machine("strange", taker.folder.parent / "strange", uses_mdns=False)
    shutil.copytree(taker.cache, strange.cache, symlinks=True)
    yield "model ls, first", Measured(files, measure(lambda: answers.append(strange.do("model", "ls"))))
    yield "model ls", Measured(files, measure(lambda: answers.append(strange.do("model", "ls"))))
    shutil.rmtree(strange.folder)
    yield "verify --quick", step(taker, "verify", "--quick")
    yield "cache gc", step(taker, "cache", "gc")
    yield "model rm", step(taker, "model", "rm", "-r", REPO, "--force")


def make_files(folder: Path, files: int, file_bytes: int) -> None:
    for number in range(files):
        place = folder / f"part-{number // FILES_IN_FOLDER:03}"
        if number % FILES_IN_FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"{number:06}.bin").write_bytes(os.urandom(file_bytes))


@contextmanager
def two_nodes(place: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a running daemon each."""
    machines = tuple(Machine(name, place / name, uses_mdns=False) for name in ("giver", "taker"))
    try:
        for machine in machines:
            machine.do("daemon", "start")
        yield machines[0], machines[1]
    finally:
        for machine in machines:
            words = [*COMMAND, "daemon", "stop"]
            subprocess.run(words, env=machine.environ, check=False, stdout=subprocess.DEVNULL)


def forget_peak(pid: int) -> None:
    """Begins the count of the peak memory of a process anew."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The peak of the resident memory of a process since then."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e6


def median(found: list[Measured]) -> Measured:
    """The medians of the seconds, and the largest peaks."""
    seconds = statistics.median(one.cost.seconds for one in found)
    cpu_seconds = statistics.median(one.cost.cpu_seconds for one in found)
    peaks = tuple(max(peaks) for peaks in zip(*(one.peaks_mb for one in found), strict=True))
    return Measured(found[0].files, Cost(seconds, cpu_seconds), peaks)


def print_steps(files: int, steps: dict[str, Measured]) -> None:
    print(f"\n{files:,} files{'':11}{'s':>8}{'CPU s':>8}{'files/s':>9}{'us each':>9}{'MB':>10}", flush=True)
    for name, one in steps.items():
        peaks = "/".join(f"{peak:.0f}" for peak in one.peaks_mb)
        rate = one.files / one.cost.seconds
        print(
            f"{name:20}{one.cost.seconds:8.2f}{one.cost.cpu_seconds:8.2f}{rate:9.0f}{one.micros:9.0f}{peaks:>10}"
            f"  {'; '.join(verdicts(name, one, steps))}".rstrip(),
            flush=True,
        )


def verdicts(name: str, one: Measured, steps: dict[str, Measured]) -> Iterator[str]:
    """The figures of a step that have an aim."""
    if name in REFERENCES:
        other, most = REFERENCES[name]
        yield aim(f"{one.cost.seconds / steps[other].cost.seconds:.2f} x {other}", f"at most {most:g}")
    if name == "add from a peer":
        yield aim(f"{one.files / one.cost.seconds:.0f} files/s", f"at least {FILES_PER_SECOND:,}")
        yield aim(f"{steps['hf download'].micros / one.micros:.1f} x hf download", f"at least {HF_TIMES:g}")
    if name == "add again":
        yield aim(f"{one.cost.seconds:.2f} s", f"at most {AGAIN_SECONDS:g}")
    if one.peaks_mb:
        yield aim(f"{max(one.peaks_mb):.0f} MB", f"at most {MEMORY_MB}")


def aim(figure: str, bound: str) -> str:
    return f"{figure} ({bound})"


def print_growth(few: dict[str, Measured], many: dict[str, Measured]) -> None:
    print(f"\n{'the cost of a file':20}  CPU   clock   among ten times as many (at most {GROWTH:g})")
    for name, one in many.items():
        before = few[name]
        cpu = (one.cost.cpu_seconds / one.files) / (before.cost.cpu_seconds / before.files)
        print(f"{name:20}{cpu:5.2f}{one.micros / before.micros:8.2f}", flush=True)


if __name__ == "__main__":
    main()
