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

REPO = "hfpeer/demo"
SHARD_BYTES = 64 * 1000 * 1000
SHARDS = 3
KILL_AT = 0.4
"""The part of the model on disk when cygnus is killed."""
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

    Three real daemons run on loopback. Lyra is the hub: it publishes a model, and its endpoint is the origin of
    pegasus, whose mirror is down. Pegasus adds the model from there. Cygnus, which has no hub, finds pegasus, adds the
    model by its commit, is killed half-way, starts again and continues with the pieces it has. The demo needs no
    Internet, does not touch your own node and cache, and removes its files.
    """
    with ExitStack() as cleaning:
        place = Path(tempfile.mkdtemp(prefix="hfpeer-demo-"))
        cleaning.callback(shutil.rmtree, place, ignore_errors=True)
        result = _perform(place, folder or _make_model(place / "model"), invocation.output, cleaning)
    _print_result(result, invocation.output)


def _perform(place: Path, folder: Path, output: Output, cleaning: ExitStack) -> dict[str, Any]:
    began_at = time.monotonic()
    lyra = _start(Machine("lyra", place / "lyra", uses_mdns=False), cleaning)
    hubs = f"mirror={_dead_url(cleaning)},origin=http://{lyra.do('status')['listeners']['endpoint']}"
    pegasus = _start(Machine("pegasus", place / "pegasus", hubs), cleaning)
    cygnus = _start(Machine("cygnus", place / "cygnus"), cleaning)
    output.note(
        [
            "Three nodes run on this machine. lyra stands in for the Internet: its endpoint is pegasus' origin. "
            "The mirror before it",
            "is down. cygnus has no hub at all.",
        ]
    )

    published = lyra.do("model", "publish", str(folder), "--as", REPO)
    commit, size_bytes = published["commit"], published["size_bytes"]
    output.note(
        f"lyra     published {folder.name}: {counted(published['files'], 'file')}, {human_size(size_bytes)}, "
        f"commit {commit[:12]}"
    )
    first_leg = pegasus.do("model", "add", "-r", REPO)
    output.note(
        f"pegasus  asked the mirror and then the origin for main, and has it in {human_time(first_leg['seconds'])}, "
        "verified"
    )
    return {
        "commit": commit,
        "files": published["files"],
        "size_bytes": size_bytes,
        "mirror_bytes": int(first_leg["bytes_by_kind"].get("mirror", 0)),
        "origin_bytes": int(first_leg["bytes_by_kind"].get("origin", 0)),
        "origin_seconds": first_leg["seconds"],
        **_pass_on(pegasus, cygnus, folder, commit, size_bytes, output),
        "seconds": time.monotonic() - began_at,
    }


def _pass_on(
    pegasus: Machine, cygnus: Machine, folder: Path, commit: str, size_bytes: int, output: Output
) -> dict[str, Any]:
    """The second leg: from pegasus to cygnus, with the kill in the middle."""
    found_seconds = _wait_for(lambda: _knows(cygnus, "pegasus"), FIND_SECONDS, "cygnus does not find pegasus by mDNS")
    output.note("cygnus   found pegasus by mDNS")

    kept_bytes = _add_and_kill(cygnus, commit, size_bytes)
    first_bytes = int(pegasus.do("status")["sent_bytes"])
    output.note(
        f"cygnus   added it, and was killed (SIGKILL) with {human_size(kept_bytes)} of {human_size(size_bytes)} on disk"
    )

    cygnus.do("daemon", "start")
    _wait_for(lambda: _knows(cygnus, "pegasus"), FIND_SECONDS, "cygnus does not find pegasus again")
    output.note("cygnus   started again and goes on from what it had")
    finished = cygnus.do("model", "add", "-r", REPO, "-v", commit)
    total_bytes = int(pegasus.do("status")["sent_bytes"])

    _compare(folder, Path(finished["snapshot"]))
    output.note("cygnus   has the model: every file is the same as in lyra's folder, byte for byte")
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
            raise CorruptData(f"{path.relative_to(snapshot)} is not what lyra published.")


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
        ("from the mirror, which is down", human_size(result["mirror_bytes"]), "0 B", "0 B"),
        ("from the origin, which is lyra", human_size(result["origin_bytes"]), "0 B", wan),
        ("from pegasus", "", first, second),
        ("still on its way when killed", "", human_size(result["lost_bytes"]), ""),
        ("on disk at the end", size, human_size(result["kept_bytes"]), size),
        ("fetched although on disk", "", "", human_size(result["refetched_bytes"])),
        ("time of the add", human_time(result["origin_seconds"]), "", human_time(result["add_seconds"])),
    ]
    output.table(("", "PEGASUS", "CYGNUS, UNTIL THE KILL", "AFTER IT"), rows, dict(result))
    output.note(f"Done in {human_time(result['seconds'])}. Nothing is left behind.")
