"""`hfpeer demo`: the main job on this machine, with three real daemons, in a temporary folder.

The demo runs the commands that a user types, each in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hfpeer.errors import CorruptData, Unreachable, from_problem
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import Output, counted, human_size, human_time
from hfpeer_cli.screen.tables import age, words

REPO = "hfpeer/demo"
SHARD_BYTES = 64 * 1000 * 1000
SHARDS = 3
COLUMNS = (
    words("BYTES AND TIME"),
    age("FIRST"),
    age("SECOND, UNTIL KILLED"),
    age("SECOND, STARTED AGAIN"),
)
INTRODUCTION = (
    "Three nodes start on this machine, in a temporary folder:",
    "  hub     has a model, and stands in for the Internet",
    "  first   asks a mirror, which is down, and then the hub",
    "  second  knows no hub: it can ask its neighbours only",
    "",
)
KILL_AT = 0.4
"""The part of the model on disk when the second node is killed."""
FIND_SECONDS = 20.0
WATCH_SECONDS = 0.002
COMMAND = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
OWN_VARIABLES = ("HFPEER_", "HF_", "HUGGINGFACE_")


@dataclass(frozen=True)
class Machine:
    """A node of the demo, with a home and a cache of its own. `upstreams` are its hubs."""

    name: str
    folder: Path
    upstreams: str = ""
    uses_mdns: bool = True

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its commands: loopback only, and none of the user's settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        return {
            **inherited,
            "HFPEER_HOME": str(self.folder / "home"),
            "HF_HUB_CACHE": str(self.cache),
            "HFPEER_NAME": self.name,
            "HFPEER_LAN_LISTEN": "127.0.0.1:0",
            "HFPEER_ENDPOINT_LISTEN": "127.0.0.1:0",
            "HFPEER_UPSTREAMS": self.upstreams,
            "HFPEER_PEERS": "",
            "HFPEER_MDNS": str(int(self.uses_mdns)),
        }

    def begin(self, *words: str, shows_progress: bool = False) -> subprocess.Popen[str]:
        """Starts `hfpeer WORDS --json`."""
        errors = None if shows_progress else subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, "--json", *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def do(self, *words: str) -> Any:
        """Runs `hfpeer WORDS --json` and returns its result. Raises the error it ended with."""
        process = self.begin(*words)
        output, errors = process.communicate()
        if process.returncode:
            raise from_problem(json.loads(errors.splitlines()[-1]))
        return json.loads(output) if output.strip() else None

    def present_bytes(self) -> int:
        """Bytes of the model on its disk: whole blobs, and the journalled pieces of partial ones."""
        from hfpeer.cache.partial.files import partial_bytes

        blobs = sum(_size(path) for path in self.cache.glob("models--*/blobs/*"))
        return blobs + partial_bytes(self.cache)


@click.command(
    "demo", cls=Verb, examples=["hfpeer demo", "hfpeer demo --from ~/models/bert-tiny", "hfpeer demo --json"]
)
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Publish this model folder; else one of about 200 MB is made.",
)
@pass_invocation
def demo(invocation: Invocation, folder: Path | None) -> None:
    """See the main job done here: from a hub to one node, from there to another, with a kill -9 in the middle.

    Three real daemons run on loopback. The one called hub publishes a model and stands in for the Internet. The one
    called first has a mirror that is down, and adds the model from the hub. The one called second has no hub: it
    finds first, adds the model by its commit, is killed half-way, starts again and continues with the pieces it has.
    The demo needs no Internet, does not touch your own node and cache, and removes its files.
    """
    with ExitStack() as cleaning:
        place = Path(tempfile.mkdtemp(prefix="hfpeer-demo-"))
        cleaning.callback(shutil.rmtree, place, ignore_errors=True)
        result = _perform(place, folder, invocation.output, cleaning)
    _print_result(result, invocation.output)


def _perform(place: Path, model: Path | None, output: Output, cleaning: ExitStack) -> dict[str, Any]:
    began_at = time.monotonic()
    output.note(INTRODUCTION)
    folder = model or _make_model(place / "model")
    hub = _start(Machine("hub", place / "hub", uses_mdns=False), cleaning)
    hubs = f"mirror={_dead_url(cleaning)},origin=http://{hub.do('status')['listeners']['endpoint']}"
    first = _start(Machine("first", place / "first", hubs), cleaning)
    second = _start(Machine("second", place / "second"), cleaning)
    published = hub.do("model", "publish", str(folder), "--as", REPO)
    commit, size_bytes = published["commit"], published["size_bytes"]
    output.note(
        f"hub     publishes a model: {counted(published['files'], 'file')}, {human_size(size_bytes)}, "
        f"commit {commit[:12]}"
    )
    first_leg = first.do("model", "add", "-r", REPO)
    output.note(f"first   has it from the hub after {human_time(first_leg['seconds'])}; every byte is checked")
    return {
        "commit": commit,
        "files": published["files"],
        "size_bytes": size_bytes,
        "mirror_bytes": int(first_leg["bytes_by_kind"].get("mirror", 0)),
        "origin_bytes": int(first_leg["bytes_by_kind"].get("origin", 0)),
        "origin_seconds": first_leg["seconds"],
        **_pass_on(first, second, folder, commit, size_bytes, output),
        "seconds": time.monotonic() - began_at,
    }


def _pass_on(
    first: Machine, second: Machine, folder: Path, commit: str, size_bytes: int, output: Output
) -> dict[str, Any]:
    """The second leg: from first to second, with the kill in the middle."""
    found_seconds = _wait_for(lambda: _knows(second, "first"), FIND_SECONDS, "second does not find first by mDNS")
    output.note("second  finds first on the LAN by itself (mDNS)")

    kept_bytes = _add_and_kill(second, commit, size_bytes)
    first_bytes = int(first.do("status")["sent_bytes"])
    output.note(
        f"second  gets {human_size(kept_bytes)} of {human_size(size_bytes)} from first; then it is killed (kill -9)"
    )

    second.do("daemon", "start")
    _wait_for(lambda: _knows(second, "first"), FIND_SECONDS, "second does not find first again")
    output.note("second  starts again, and fetches only the rest")
    finished = second.do("model", "add", "-r", REPO, "-v", commit)
    total_bytes = int(first.do("status")["sent_bytes"])

    _compare(folder, Path(finished["snapshot"]))
    output.note("second  has the model: each file is the same as at the hub, byte for byte")
    return {
        "found_seconds": found_seconds,
        "kept_bytes": kept_bytes,
        "first_run_bytes": first_bytes,
        "second_run_bytes": total_bytes - first_bytes,
        "lost_bytes": max(0, first_bytes - kept_bytes),
        "refetched_bytes": max(0, kept_bytes + total_bytes - first_bytes - size_bytes),
        "wan_bytes": sum(finished["bytes_by_kind"].get(kind, 0) for kind in ("mirror", "origin")),
        "add_seconds": finished["seconds"],
    }


def _start(machine: Machine, cleaning: ExitStack) -> Machine:
    cleaning.callback(machine.do, "daemon", "stop")
    machine.do("daemon", "start")
    return machine


def _dead_url(cleaning: ExitStack) -> str:
    """An address without a listener, reserved until the end of the demo."""
    taken = cleaning.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _knows(machine: Machine, other: str) -> bool:
    return any(peer["name"] == other and peer["state"] == "alive" for peer in machine.do("peer", "ls"))


def _wait_for(is_so: Callable[[], bool], seconds: float, complaint: str) -> float:
    """Waits until `is_so` and returns the seconds it took. Raises Unreachable after `seconds`."""
    began_at = time.monotonic()
    while not is_so():
        if time.monotonic() - began_at > seconds:
            raise Unreachable(f"{complaint} within {seconds:.0f} s.", hint="Does this machine allow multicast?")
        time.sleep(0.05)
    return time.monotonic() - began_at


def _add_and_kill(machine: Machine, commit: str, size_bytes: int) -> int:
    """Begins to add, and kills the daemon in the middle. Returns the bytes that were on disk then."""
    pid = int(machine.do("status")["pid"])
    adding = machine.begin("model", "add", "-r", REPO, "-v", commit)
    while adding.poll() is None and machine.present_bytes() < KILL_AT * size_bytes:
        time.sleep(WATCH_SECONDS)
    os.kill(pid, signal.SIGKILL)
    adding.communicate()
    return machine.present_bytes()


def _make_model(folder: Path) -> Path:
    """A folder like a model's, about 200 MB: three shards of noise in safetensors form, and small files."""
    folder.mkdir(parents=True)
    small: Mapping[str, object] = {
        "config.json": {"architectures": ["Demo"], "hidden_size": 4000, "model_type": "demo"},
        "tokenizer.json": {"version": "1.0", "model": {"vocab": {f"token{n}": n for n in range(20_000)}}},
        "model.safetensors.index.json": {"metadata": {"total_size": SHARDS * SHARD_BYTES}},
    }
    for name, document in small.items():
        (folder / name).write_text(json.dumps(document, indent=2))
    (folder / "README.md").write_text("# A model for hfpeer's demo\n\nIts weights are noise.\n")
    for shard in range(1, SHARDS + 1):
        header = json.dumps(
            {f"layer.{shard}": {"dtype": "U8", "shape": [SHARD_BYTES], "data_offsets": [0, SHARD_BYTES]}}
        )
        with (folder / f"model-{shard:05}-of-{SHARDS:05}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header.encode())
            for _ in range(SHARD_BYTES // 1_000_000):
                file.write(os.urandom(1_000_000))
    return folder


def _compare(folder: Path, snapshot: Path) -> None:
    """Raises CorruptData unless every file of the snapshot is the folder's."""
    for path in sorted(snapshot.rglob("*")):
        if path.is_file() and _hash(path) != _hash(folder / path.relative_to(snapshot)):
            raise CorruptData(f"{path.relative_to(snapshot)} is not what the hub published.")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _print_result(result: Mapping[str, Any], output: Output) -> None:
    first, second, wan = (human_size(result[f"{name}_bytes"]) for name in ("first_run", "second_run", "wan"))
    size = human_size(result["size_bytes"])
    rows: Sequence[tuple[str, str, str, str]] = [
        ("from the mirror (down)", human_size(result["mirror_bytes"]), "0 B", "0 B"),
        ("from the hub", human_size(result["origin_bytes"]), "0 B", wan),
        ("from first", "", first, second),
        ("lost by the kill", "", human_size(result["lost_bytes"]), ""),
        ("on disk at the end", size, human_size(result["kept_bytes"]), size),
        ("fetched twice", "", "", human_size(result["refetched_bytes"])),
        ("time of the add", human_time(result["origin_seconds"]), "", ""),
    ]
    output.table(COLUMNS, rows, dict(result))
    output.note(f"Done in {human_time(result['seconds'])}. Nothing is left behind.")
