"""`hfpeer push` over loopback beside `tar | ssh tar`, in one run: its three ways, in CPU seconds and on the clock.

    python -m bench.push                      1 GiB in four files, 3 rounds
    python -m bench.push --mib 256 --rounds 1

Needs sshd, ssh, ssh-keygen, tar and sha256sum. The far end is a real sshd on loopback; everything lies below --dir, by
default in memory (/dev/shm), and is removed at the end. The ways take turns in every round, each into an empty cache;
quoted are medians, and ratios to the first line. Aim: at most 1.3 of its CPU seconds.

    tar|ssh tar        `tar c | ssh far tar x` of the same repo, with the cipher that push asks for; nothing is verified
    … and sha256sum    the same, then sha256sum of each blob there, as a careful user does it
    … default cipher   the first, with the cipher that ssh takes by itself
    hfpeer             an hfpeer at the far end takes the revision; each way of push hashes every byte there
    hfpeer by a pipe   the same where ssh may lead no socket there: an archive goes into `hfpeer import`
    python             a Python there runs the receiver
    tar                sh, tar, sha256sum and openssl there

CPU seconds are those of both ends: the command here with all its children, as `wait` counts them, and sshd with all
that it has started, as /proc counts them once the session has ended. A push has a part that does not grow with the
bytes: several commands over one connection, and the start of Python at the far end.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.transfer import REPO, TICKS, Cost, _make_model, measure
from fakes.machine import Machine, Machines
from fakes.sshd import FarHost, far_host
from fakes.waiting import wait_until
from hfpeer.names import RepoId
from hfpeer.push.ssh import FAST_CIPHER

AIM = 1.3
"""At most this much of the CPU seconds of the reference."""
REFERENCE = "tar|ssh tar"
END_SECONDS = 60.0
CLOSED = ("AllowTcpForwarding no", "AllowStreamLocalForwarding no")
"""Settings of an sshd that leads no socket."""


class Ways:
    """The ways to bring the revision of a cache to the far end."""

    def __init__(self, here: Machine, far: FarHost) -> None:
        self._here = here
        self._far = far
        self._folder = RepoId.parse(REPO).folder

    def copy(self, *options: str, then: str = "true") -> Cost:
        """By `tar | ssh tar`, then a command in the repo's folder there."""
        self._far.set_programs("tar", "sha256sum", "xargs")
        cache, folder = shlex.quote(str(self._far.cache)), shlex.quote(self._folder)
        there = shlex.quote(f"mkdir -p {cache} && tar -C {cache} -xf - && cd {cache}/{folder}/blobs && {then}")
        ssh = shlex.join([*shlex.split(self._far.ssh), *options, "far"])
        command = f"tar -C {shlex.quote(str(self._here.cache))} -cf - {folder} | {ssh} {there}"
        return self._measure(lambda: subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL))

    def push(self, way: str) -> Cost:
        python = sys.executable if way == "python" else None
        self._far.set_programs("tar", "sha256sum", "openssl", python=python, hfpeer=way == "hfpeer")

        def work() -> None:
            report = self._here.do("push", REPO, "far", "--ssh", self._far.ssh, "--way", way)
            assert report["way"] == way and report["is_verified"], report

        return self._measure(work)

    def _measure(self, work: Callable[[], object]) -> Cost:
        cost = measure(lambda: (work(), None)[1], self._far_cpu_seconds)
        blobs = self._far.cache / self._folder / "blobs"
        assert {path.name: path.stat().st_size for path in blobs.iterdir()} == self._here.blobs()
        shutil.rmtree(self._far.cache)
        return cost

    def _far_cpu_seconds(self) -> float:
        """CPU seconds of sshd and of all that it has started, once its sessions have ended."""
        wait_until(lambda: not self._far.sessions(), "the session ends", END_SECONDS)
        fields = Path(f"/proc/{self._far.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="MiB in all (1,024)")
    parser.add_argument("--files", type=int, default=4, help="files of the same size (4)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    parser.add_argument("--only", help="only the ways with this in their name, and the first")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    size_bytes = (options.mib << 20) // options.files
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-push-", dir=options.dir) as name:
        place = Path(name)
        _make_model(place / "model", options.files, size_bytes)
        with Machines(place) as machines, far_host(place / "far") as far, far_host(place / "closed", CLOSED) as closed:
            here = machines.make("here")
            here.do("model", "publish", str(place / "model"), "--as", REPO)
            shutil.rmtree(place / "model")
            ways, closed_ways = Ways(here, far), Ways(here, closed)
            same = [word for option in (FAST_CIPHER, "Compression=no") for word in ("-o", option)]
            named: dict[str, Callable[[], Cost]] = {
                REFERENCE: lambda: ways.copy(*same),
                "… and sha256sum": lambda: ways.copy(*same, then="ls | xargs sha256sum"),
                "… default cipher": ways.copy,
                "hfpeer": lambda: ways.push("hfpeer"),
                "hfpeer by a pipe": lambda: closed_ways.push("hfpeer"),
                "python": lambda: ways.push("python"),
                "tar": lambda: ways.push("tar"),
            }
            if options.only:
                named = {name: way for name, way in named.items() if name == REFERENCE or options.only in name}
            for _ in range(options.rounds):
                for name, way in named.items():
                    costs.setdefault(name, []).append(way())
    _print(costs, options.files * size_bytes)


def _print(costs: dict[str, list[Cost]], total_bytes: int) -> None:
    first = costs[REFERENCE]
    print(f"{total_bytes / 2**20:.0f} MiB, medians of {len(first)} rounds, CPU of both ends")
    print(f"{'':20}{'s':>8}{'CPU s':>8}{'CPU s/GB':>10}{'clock':>8}{'CPU':>7}")
    for name, found in costs.items():
        seconds, cpu_seconds = median(found)
        clock = statistics.median(one.seconds / other.seconds for one, other in zip(found, first, strict=True))
        cpu = statistics.median(one.cpu_seconds / other.cpu_seconds for one, other in zip(found, first, strict=True))
        per_gb = cpu_seconds / (total_bytes / 1e9)
        missed = "  over the aim" if cpu > AIM and not name.startswith(("tar|", "…")) else ""
        print(f"{name:20}{seconds:8.2f}{cpu_seconds:8.2f}{per_gb:10.2f}{clock:7.2f}x{cpu:6.2f}x{missed}")


def median(found: list[Cost]) -> tuple[float, float]:
    return statistics.median(one.seconds for one in found), statistics.median(one.cpu_seconds for one in found)


if __name__ == "__main__":
    main()
