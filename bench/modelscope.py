"""A push to ModelScope beside ModelScope's own `upload_folder`, in one run: bytes, seconds, memory; and after a kill.

    python -m bench.modelscope                    1 GiB in 8 files, 3 rounds
    python -m bench.modelscope --mib 256 --rounds 1

Needs the `modelscope` extra. Everything lies below --dir, by default in memory (/dev/shm), and is removed at the end.
Both ways send to a new, empty ModelScope simulator, a process of its own, and take turns; quoted are medians. The clock
runs from the start of the program to its end. Both ends share this machine's cores. Aims: at most 0.8 of the seconds.

    hfpeer          `hfpeer modelscope push` of a commit whose files the cache has just verified
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.modelscope import ModelScopeSimulator
from hfpeer_cli.commands.demo import COMMAND, Machine

REPO = "bench/model"
TARGET = "alice/model"
MIB = 1 << 20
FILES = 8
CLIENT = """
import sys
from modelscope_hub import HubApi
api = HubApi()
api.create_repo(sys.argv[1], "model")
api.upload_folder(sys.argv[1], "model", sys.argv[2], use_cache=False, disable_tqdm=True)
"""


@dataclass(frozen=True)
class Turn:
    """One program from its start to its end: seconds, its largest memory, and the bytes of blobs that it sent."""

    seconds: float
    peak_bytes: int
    sent_bytes: int
    output: str = ""


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
        env={**os.environ, "TMPDIR": str(folder)},
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


def run(command: list[str], environ: Mapping[str, str]) -> tuple[float, int, str]:
    """Seconds, peak memory and output of a program. Raises CalledProcessError."""
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
    return seconds, usage.ru_maxrss * 1024, output


class Ways:
    """The two ways to have the same files at ModelScope. The node has them in its cache, the client in a folder."""

    def __init__(self, place: Path, size_bytes: int) -> None:
        self._place = place
        self._folder = place / "model"
        make_model(self._folder, size_bytes)
        self._node = Machine("pusher", place / "pusher", uses_mdns=False)
        self._commit = str(self._node.do("model", "publish", str(self._folder), "--as", REPO)["commit"])
        self.lfs_bytes = sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))

    def hfpeer(self) -> Turn:
        with new_site(self._place) as site:
            seconds, peak_bytes, output = run(*self.push(site.endpoint, site.token))
            return Turn(seconds, peak_bytes, site.end(), output)

    def modelscope_hub(self) -> Turn:
        with new_site(self._place) as site:
            environ = {**os.environ, **site_environ(site.endpoint, site.token, self._place)}
            seconds, peak_bytes, output = run([sys.executable, "-c", CLIENT, TARGET, str(self._folder)], environ)
            return Turn(seconds, peak_bytes, site.end(), output)

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
    turns: dict[str, list[Turn]] = {"hfpeer": [], "modelscope-hub": []}
    for _ in range(rounds):
        turns["hfpeer"].append(ways.hfpeer())
        turns["modelscope-hub"].append(ways.modelscope_hub())
    print(f"{ways.lfs_bytes / MIB:.0f} MiB in {FILES} files, medians of {rounds} rounds")
    print(f"{'':16}{'s':>7}{'min':>7}{'max':>7}{'peak MB':>9}{'sent of LFS bytes':>19}")
    for name, found in turns.items():
        seconds = [turn.seconds for turn in found]
        peak = statistics.median(turn.peak_bytes for turn in found) / 1e6
        sent = statistics.median(turn.sent_bytes for turn in found) / ways.lfs_bytes
        print(
            f"{name:16}{statistics.median(seconds):7.2f}{min(seconds):7.2f}{max(seconds):7.2f}{peak:9.0f}{sent:19.4f}"
        )
    pairs = zip(turns["hfpeer"], turns["modelscope-hub"], strict=True)
    print(f"seconds of hfpeer: {statistics.median(ours.seconds / its.seconds for ours, its in pairs):.2f} of its own")


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
        _, _, output = run(command, environ)
        report: dict[str, Any] = json.loads(output)
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
