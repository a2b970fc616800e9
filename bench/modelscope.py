"""A push to ModelScope beside ModelScope's own `upload_folder`, in one run: bytes, seconds, memory; and after a kill.

    python -m bench.modelscope                    1 GiB in 7 files, 3 rounds
    python -m bench.modelscope --mib 256 --rounds 1

Needs the `modelscope` extra. Everything lies below --dir, by default in memory (/dev/shm), and is removed at the end.
All ways send to a new, empty ModelScope simulator, a process of its own, and take turns; quoted are medians, ratios of
each round's pair, and the CPU and memory of the program alone. The clock runs from the start of the program to its end.
Both ends share this machine's cores. Aim: at most 0.8 of the seconds.

    hfpeer          `hfpeer modelscope push` of a commit whose files the cache has just verified, with a daemon
    without daemon  the same, with the node in the process of the command
    modelscope-hub  `HubApi.upload_folder` of the same files in a plain folder, without its cache of hashes
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fakes
from fakes.modelscope import ModelScopeSimulator
from hfpeer_cli.commands.node.demo import COMMAND, Machine

REPO = "bench/model"
TARGET = "alice/model"
MIB = 1 << 20
FILES = 7
CLIENT = """
import sys
from modelscope_hub import HubApi
api = HubApi()
api.create_repo(sys.argv[1], "model")
api.upload_folder(sys.argv[1], "model", sys.argv[2], use_cache=False, disable_tqdm=True)
"""


@dataclass(frozen=True)
class Turn:
    """One program from its start to its end: seconds, those of CPU, and its largest memory. `sent_bytes` are those of
    the blobs that came to the site."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str
    sent_bytes: int = 0


@dataclass(frozen=True)
class Site:
    """An empty ModelScope in a process of its own."""

    process: subprocess.Popen[str]
    endpoint: str
    token: str

    def end(self) -> int:
        """Ends it; the bytes of all uploads."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        return int(json.loads(out)["received_bytes"])


@contextmanager
def new_site(place: Path) -> Iterator[Site]:
    folder = place / "site"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "fakes.modelscope"],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(fakes.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield Site(process, told["endpoint"], told["token"])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def site_environ(endpoint: str, token: str, place: Path) -> dict[str, str]:
    own = {"MODELSCOPE_ENDPOINT": endpoint, "MODELSCOPE_API_TOKEN": token, "MODELSCOPE_LOG_LEVEL": "ERROR"}
    return {**own, "MODELSCOPE_HOME": str(place / "modelscope"), "MODELSCOPE_CACHE": str(place / "modelscope-cache")}


def run(command: list[str], environ: Mapping[str, str]) -> Turn:
    """Runs a program to its end. Raises CalledProcessError."""
    began_at = time.monotonic()
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began_at
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Turn(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


class Ways:
    """The ways to have the same files at ModelScope. The node has them in its cache, the client in a folder."""

    def __init__(self, place: Path, size_bytes: int) -> None:
        self._place = place
        self._folder = place / "model"
        make_model(self._folder, size_bytes)
        self._node = Machine("pusher", place / "pusher", uses_mdns=False)
        self._commit = str(self._node.do("model", "publish", str(self._folder), "--as", REPO)["commit"])
        self.lfs_bytes = sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))

    def hfpeer(self) -> Turn:
        with new_site(self._place) as site:
            turn = run(*self.push(site.endpoint, site.token))
            return replace(turn, sent_bytes=site.end())

    def hfpeer_with_daemon(self) -> Turn:
        self._node.do("daemon", "start")
        try:
            return self.hfpeer()
        finally:
            self._node.do("daemon", "stop")

    def modelscope_hub(self) -> Turn:
        with new_site(self._place) as site:
            environ = {**os.environ, **site_environ(site.endpoint, site.token, self._place)}
            turn = run([sys.executable, "-c", CLIENT, TARGET, str(self._folder)], environ)
            return replace(turn, sent_bytes=site.end())

    def push(self, endpoint: str, token: str) -> tuple[list[str], dict[str, str]]:
        """The command of a push, and its environment."""
        words = ["--json", "modelscope", "push", "-r", REPO, "-v", self._commit, "--to", TARGET, "--public"]
        return [*COMMAND, *words], {**self._node.environ, **site_environ(endpoint, token, self._place)}

    @property
    def file_bytes(self) -> int:
        return max(path.stat().st_size for path in self._folder.iterdir())


def make_model(folder: Path, size_bytes: int) -> None:
    """FILES large files of noise, and two small ones."""
    folder.mkdir()
    for number in range(FILES):
        with (folder / f"model-{number:05}.safetensors").open("wb") as file:
            for _ in range(size_bytes // FILES // MIB):
                file.write(os.urandom(MIB))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bench\n")
    (folder / "config.json").write_text("{}\n")


def compare(ways: Ways, rounds: int) -> None:
    runs = {"hfpeer": ways.hfpeer_with_daemon, "without daemon": ways.hfpeer, "modelscope-hub": ways.modelscope_hub}
    turns: dict[str, list[Turn]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, one in runs.items():
            turns[name].append(one())
    print(f"{ways.lfs_bytes / MIB:.0f} MiB in {FILES} files, medians of {rounds} rounds")
    print(
        f"{'':16}{'s':>7}{'min':>7}{'max':>7}{'CPU s':>7}{'peak MB':>9}{'sent of LFS bytes':>19}{'of its seconds':>16}"
    )
    for name, found in turns.items():
        seconds = [turn.seconds for turn in found]
        cpu = statistics.median(turn.cpu_seconds for turn in found)
        peak = statistics.median(turn.peak_bytes for turn in found) / 1e6
        pairs = zip(found, turns["modelscope-hub"], strict=True)
        ratio = statistics.median(turn.seconds / its.seconds for turn, its in pairs)
        sent = statistics.median(turn.sent_bytes for turn in found) / ways.lfs_bytes
        print(
            f"{name:16}{statistics.median(seconds):7.2f}{min(seconds):7.2f}{max(seconds):7.2f}"
            f"{cpu:7.2f}{peak:9.0f}{sent:19.4f}{ratio:16.2f}"
        )


def again(ways: Ways) -> None:
    """A second push, and one that is killed at half of its bytes and then goes on."""
    with ModelScopeSimulator() as site:
        command, environ = ways.push(site.endpoint, site.token)
        killed = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        site.uploads.wait_for_bytes(ways.lfs_bytes // 2)
        killed.kill()
        killed.wait()
        run(command, environ)
        twice_bytes = site.uploads.received_bytes - ways.lfs_bytes
        share = twice_bytes / ways.file_bytes
        print(f"killed at 50 %, then again: {twice_bytes / MIB:.1f} MiB sent twice, {share:.2f} of the largest file")
        site.uploads.clear()
        report: dict[str, Any] = json.loads(run(command, environ).output)
        print(f"a second push: {site.uploads.received_bytes} bytes sent, {len(report['commits'])} commits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="MiB of large files (1024)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-", dir=options.dir) as name:
        tempfile.tempdir = name  # the simulator in this process keeps its blobs there
        ways = Ways(Path(name), options.mib * MIB)
        compare(ways, options.rounds)
        again(ways)


if __name__ == "__main__":
    main()
