"""Stops commands at chosen system calls, and looks whether the same command then ends well.

    python -m bench.kills --at-calls publish add rm --most 100
    python -m bench.kills --at-calls publish add --fault ENOSPC

Each round is a command in a process of its own, on a fresh cache. At the n-th of the calls that change a disk (rename,
link, symlink, fsync, mkdir, pwrite, ftruncate, unlink, flock ...) the process is killed with SIGKILL, or the call fails
with EIO or ENOSPC. Then nothing wrong may be visible, and the same command must end with exit 0 and leave what an
undisturbed one leaves. The calls are those that Python code makes; writes of SQLite and of buffered files are not
counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    os: (
        *("rename", "replace", "link", "symlink", "mkdir", "rmdir", "unlink", "remove"),
        *("fsync", "fdatasync", "pwrite", "ftruncate", "posix_fallocate"),
    ),
    fcntl: ("flock",),
}
COMMANDS = {
    "add": ("model", "add", "-r", "acme/weights"),
    "publish": ("model", "publish", "{folder}/made", "--as", "team/made"),
    "rm": ("model", "rm", "-r", "acme/weights", "--force"),
    "rm-main": ("model", "rm", "-r", "acme/weights", "-v", "main", "--force"),
    "share": ("model", "share", "-r", "acme/weights"),
    "peer": ("peer", "add", "127.0.0.1:9"),
    "conf": ("conf", "set", "name", "renamed"),
    "repair": ("verify", "--repair"),
}
BEGIN_WITH_AN_ADD = {"rm", "rm-main", "share", "repair"}
MAY_END_WITH = {"rm": {0, 4}, "rm-main": {0, 4}}
"""A removal that was killed at its very end has nothing left to do and says so."""
CODE_OF_A_BUG = 70
FAULTS = ("KILL", "EIO", "ENOSPC")
COMMAND_SECONDS = 60.0
ROUND_SECONDS = 30.0
BODIES = {
    "w.bin": bytes(range(256)) * 5000,
    "nested/v.bin": b"v" * 70_000,
    ".gitattributes": b"*.bin filter=lfs\n",
    **{f"texts/{number}.txt": b"%d" % number * 400 for number in range(8)},
}


@dataclass
class Tally:
    """The sum of all rounds of one operation and one fault."""

    operation: str
    fault: str
    rounds: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    """Exit codes of the disturbed runs; those that were killed have -9."""
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        codes = ", ".join(f"{count} x exit {code}" for code, count in sorted(self.codes.items()))
        what = f"{self.operation:<8} {self.fault:<7} {self.rounds:>4} rounds"
        return f"{what}: {codes}; wrong or not mended: {len(self.wrong)}"


def run_rounds(operation: str, fault: str, most: int, endpoint: str, folder: Path) -> Tally:
    """Rounds of one operation, the fault at one call after the other, or at `most` of them, evenly spread.

    `endpoint` is of a hub that has `acme/weights`. No thread may run in this process: it forks.
    """
    tally = Tally(operation, fault)
    begun = folder / "begun"
    begun.mkdir()
    _make_folder(begun / "made")
    if operation in BEGIN_WITH_AN_ADD:
        _expect(_command(begun, endpoint, "add"), 0)
    if operation == "repair":
        _damage(begun / "hub" / "models--acme--weights")
    before = frozenset(faults_in(begun / "hub"))
    whole = _copy(begun, folder / "whole")
    counted = _command(whole, endpoint, operation, "COUNT", 0)
    _expect(counted, 0)
    for module in (whole / "modules").read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(module)  # once for all that are forked
    total = int((whole / "calls").read_text())
    reference = _state(whole)
    for at in sorted({1 + index * total // min(most, total) for index in range(min(most, total))}):
        place = _copy(begun, folder / "round")
        tally.rounds += 1
        try:
            _one_round(tally, place, endpoint, at, counted, reference, before)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return tally


def _one_round(
    tally: Tally,
    place: Path,
    endpoint: str,
    at: int,
    counted: _Ended,
    reference: dict[str, Any],
    before: frozenset[str],
) -> None:
    """`before` are the faults of the cache before the command."""
    disturbed = _command(place, endpoint, tally.operation, tally.fault, at)
    tally.codes[disturbed.code] += 1
    where = f"{tally.operation}, {tally.fault} at call {at} ({disturbed.call(place)})"
    tally.wrong += [f"{where}: {fault}" for fault in faults_in(place / "hub") if fault not in before]
    if disturbed.code in (1, CODE_OF_A_BUG) or "Traceback" in disturbed.errors:
        tally.wrong.append(f"{where}: exit {disturbed.code}: {disturbed.errors[-300:]}")
    again = _command(place, endpoint, tally.operation)
    if again.code not in MAY_END_WITH.get(tally.operation, {0}):
        tally.wrong.append(f"{where}: the same command then: exit {again.code}: {again.errors[-300:]}")
    elif again.code == 0 and again.commit != counted.commit:
        tally.wrong.append(f"{where}: the same command then gives {again.commit}, not {counted.commit}")
    now = _state(place)
    if now != reference:
        differing = sorted(name for name in now.keys() | reference.keys() if now.get(name) != reference.get(name))
        tally.wrong.append(f"{where}: then it differs in {differing[:5]}")


def faults_in(cache: Path) -> list[str]:
    """The wrong blobs and links that others can see in a cache."""
    found = []
    for blob in cache.glob("*--*/blobs/*"):
        if blob.suffix != ".incomplete":
            data = blob.read_bytes()
            right = hashlib.sha256(data) if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % len(data) + data)
            found += [] if right.hexdigest() == blob.name else [f"{blob.name} has other bytes"]
    links = [path for path in cache.glob("*--*/snapshots/**/*") if path.is_symlink()]
    return found + [f"{link.relative_to(cache)} leads nowhere" for link in links if not link.exists()]


def _damage(folder: Path) -> None:
    """Damages a repo of a cache in every way that a repair mends."""
    (snapshot,) = (folder / "snapshots").iterdir()
    with (snapshot / "w.bin").resolve().open("r+b") as blob:
        blob.write(b"?")
    os.truncate((snapshot / "nested" / "v.bin").resolve(), 30_000)
    (snapshot / "texts" / "1.txt").resolve().unlink()
    (snapshot / "texts" / "2.txt").unlink()
    (snapshot / "texts" / "3.txt").unlink()
    (snapshot / "texts" / "3.txt").write_text("an edit")
    copied = (snapshot / "texts" / "4.txt").read_bytes()
    (snapshot / "texts" / "4.txt").unlink()
    (snapshot / "texts" / "4.txt").write_bytes(copied)
    (folder / "refs" / "main").write_text(f"{snapshot.name}\n")
    (folder / "refs" / "gone").write_text("d" * 40)
    (folder / "trees" / f"{snapshot.name}.json").write_text("{")
    (folder / ".hfpeer" / f"{snapshot.name}.json").write_text("{")


def _state(place: Path) -> dict[str, Any]:
    """The state that users see: the cache's files with their contents, and the owner's words. No locks, no
    unfinished files."""
    found: dict[str, Any] = {}
    for path in sorted((place / "hub").glob("*--*/*/**/*")):
        if path.is_file() and path.suffix != ".incomplete":
            found[str(path.relative_to(place))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("shares.json", "settings.toml"):
        path = place / "home" / name
        found[name] = path.read_text() if path.exists() else None
    return found


# One command


@dataclass(frozen=True)
class _Ended:
    """How a command ended. `commit` is what its result names."""

    code: int
    commit: str | None
    errors: str

    def call(self, place: Path) -> str:
        try:
            return (place / "fault").read_text()
        except OSError:
            return "not reached"


def _command(place: Path, endpoint: str, operation: str, fault: str = "", at: int = 0) -> _Ended:
    """One command in a process of its own; with the fault at its call number `at`."""
    output, errors = place / "out", place / "err"
    pid = os.fork()
    if pid == 0:
        code = 71
        try:
            os.setsid()
            for number, path in ((1, output), (2, errors)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ.update(_environ(place, endpoint))
            injected = _inject(place, fault, at)
            try:
                code = _obey([word.format(folder=place) for word in COMMANDS[operation]])
            finally:
                if fault == "COUNT":
                    (place / "calls").write_text(str(injected()))
                    (place / "modules").write_text("\n".join(sys.modules))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = _wait(pid)
    try:
        commit = json.loads(output.read_text()).get("commit")
    except (ValueError, AttributeError):
        commit = None
    return _Ended(code, commit, errors.read_text(errors="replace"))


def _obey(words: list[str]) -> int:
    from hfpeer_cli.main import main

    try:
        main(["--json", *words])
    except SystemExit as end:
        return int(end.code or 0)


def _wait(pid: int) -> int:
    deadline = time.monotonic() + COMMAND_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 124
        time.sleep(0.005)


def _inject(place: Path, fault: str, at: int) -> Callable[[], int]:
    """Makes the call number `at` of CALLS fail in this process, or kill it. Gives a function that returns the number
    of calls."""
    lock, calls = threading.Lock(), 0

    def wrapped(name: str, call: Callable[..., Any], write: Callable[[str], object]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            with lock:
                calls += 1
                is_it = calls == at
            if is_it and fault != "COUNT":
                write(f"{name} {arguments[-1] if arguments else ''}")
                if fault == "KILL":
                    os.kill(os.getpid(), signal.SIGKILL)
                number = getattr(errno, fault)
                raise OSError(number, os.strerror(number))
            return call(*arguments, **keywords)

        return counted

    if fault:
        (place / "fault").unlink(missing_ok=True)
        accessor: Any = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 holds the functions themselves
        for module, names in CALLS.items():
            for name in names:
                if hasattr(module, name):
                    changed = wrapped(name, getattr(module, name), (place / "fault").write_text)
                    setattr(module, name, changed)
                    if accessor is not None and hasattr(accessor, name):
                        setattr(accessor, name, staticmethod(changed))
    return lambda: calls


def _environ(place: Path, endpoint: str) -> dict[str, str]:
    return {
        "HFPEER_HOME": str(place / "home"),
        "HF_HOME": str(place / "hf"),
        "HF_HUB_CACHE": str(place / "hub"),
        "HFPEER_UPSTREAMS": f"origin={endpoint}",
        "HFPEER_MDNS": "0",
    }


def measure(operations: Iterable[str], faults: Iterable[str], most: int) -> list[Tally]:
    """Runs each operation with each fault, at most `most` rounds of each pair, against a hub simulator."""
    from fakes.hub import HubSimulator, Lfs  # not in the process that forks

    tallies = []
    with HubSimulator() as hub:
        files = {name: Lfs(body) if name.endswith(".bin") else body for name, body in BODIES.items()}
        hub.put_repo("model", "acme/weights", files)
        for operation in operations:
            for fault in faults:
                # A process of its own: this one has the threads of the hub, and must not fork.
                command = [sys.executable, "-m", "bench.calls", operation, fault, str(most), hub.endpoint]
                timeout_seconds = ROUND_SECONDS * (most + 5)
                ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=timeout_seconds)
                if not ran.stdout:
                    raise SystemExit(f"The process that was to be disturbed ended with {ran.returncode}.")
                found = json.loads(ran.stdout)
                tallies.append(Tally(**{**found, "codes": Counter({int(k): n for k, n in found["codes"].items()})}))
    return tallies


def _make_folder(folder: Path) -> None:
    for name, body in BODIES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def _copy(begun: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begun, place, symlinks=True)
    return place


def _expect(ended: _Ended, code: int) -> None:
    if ended.code != code:
        raise SystemExit(f"An undisturbed command ended with {ended.code}: {ended.errors}")


def main(arguments: list[str]) -> int:
    """The process that forks: OPERATION FAULT MOST ENDPOINT; prints a line of JSON, the tally."""
    operation, fault, most, endpoint = arguments
    with tempfile.TemporaryDirectory(prefix="hfpeer-calls-", ignore_cleanup_errors=True) as folder:
        tally = run_rounds(operation, fault, int(most), endpoint, Path(folder))
    print(json.dumps({**vars(tally), "codes": dict(tally.codes)}))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
