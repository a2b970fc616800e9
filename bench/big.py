"""A file above 50 GB through the endpoint of a node that has it, to real clients of several versions, one by one.

    python -m bench.big                                       0.36.2, 1.29.0 and the newest, with and without hf_xet
    python -m bench.big --clients 1.29.0,2.4.0-xet --gib 60

A client is a version of huggingface_hub; `-xet` means with hf_xet out of use. Before 1.33 a file above 50 GB comes by
Xet alone, later over plain HTTP too. Each gets an environment of its own (pip), downloads the whole with
`hf_hub_download`, and what it has is hashed afterwards, outside the time.

Needs free disk below --dir: the file once (clients write its zeros; the node's own copy is sparse) and 4 GB more. Takes
some five minutes a client on a slow disk; a client that takes longer than --minutes is ended. Everything is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hfpeer_cli.commands.node.demo import Machine

GIB = 1 << 30
MIB = 1 << 20
REPO = "bench/big"
NAME = "big.bin"
SPARE_BYTES = 4 * GIB
CLIENTS = "0.36.2,1.29.0,2.4.0,2.4.0-xet"
WAIT_SECONDS = 0.5
CLIENT = """
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download(sys.argv[1], sys.argv[2], revision=sys.argv[3]))
"""


@dataclass(frozen=True)
class Client:
    """A version of huggingface_hub in an environment of its own."""

    version: str
    uses_xet: bool
    python: Path

    @property
    def name(self) -> str:
        return f"huggingface_hub {self.version}, {'with' if self.uses_xet else 'without'} hf_xet"


def make_client(text: str, place: Path) -> Client:
    """`VERSION` or `VERSION-xet`, installed below `place`, once a version."""
    version = text.removesuffix("-xet")
    folder = place / "environments" / version
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = [f"huggingface_hub=={version}", "hf_xet"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return Client(version, version == text, python)


def make_file(path: Path, size_bytes: int, random_bytes: int) -> str:
    """A sparse file with megabytes of noise spread evenly over it, from the first to the last; its sha256."""
    blocks = max(2, random_bytes // MIB)
    step = (size_bytes - MIB) // (blocks - 1)
    digest, zeros, position = hashlib.sha256(), bytes(MIB), 0
    with path.open("wb") as file:
        for number in range(blocks):
            start = number * step if number < blocks - 1 else size_bytes - MIB
            while position < start:
                count = min(MIB, start - position)
                digest.update(zeros[:count])
                position += count
            noise = os.urandom(MIB)
            file.seek(start)
            file.write(noise)
            digest.update(noise)
            position = start + MIB
    assert path.stat().st_size == position == size_bytes
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def publish(machine: Machine, folder: Path, sha256: str) -> str:
    """Puts the file into the node's cache, still sparse, and waits until the node has verified it; the commit."""
    blob = machine.cache / f"models--{REPO.replace('/', '--')}" / "blobs" / sha256
    blob.parent.mkdir(parents=True)
    os.link(folder / NAME, blob)
    machine.do("daemon", "start")
    commit = str(machine.do("model", "publish", str(folder), "--as", REPO)["commit"])
    while machine.do("status")["unverified_files"]:
        time.sleep(WAIT_SECONDS)
    return commit


def download(client: Client, endpoint: str, commit: str, home: Path, timeout_seconds: float) -> tuple[float, Path]:
    """Seconds of the whole download, and the file. Raises CalledProcessError, TimeoutExpired."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    xet = {} if client.uses_xet else {"HF_HUB_DISABLE_XET": "1"}
    environ = {**inherited, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **quiet, **xet}
    began_at = time.monotonic()
    command = [str(client.python), "-c", CLIENT, REPO, NAME, commit]
    ran = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=timeout_seconds)
    return time.monotonic() - began_at, Path(ran.stdout.strip())


def try_client(client: Client, machine: Machine, commit: str, sha256: str, home: Path, timeout_seconds: float) -> str:
    """The verdict for the table."""
    endpoint = f"http://{machine.do('status')['listeners']['endpoint']}"
    try:
        seconds, path = download(client, endpoint, commit, home, timeout_seconds)
        size_bytes = path.stat().st_size
        verdict = "verified" if hash_of(path) == sha256 else "WRONG"
        return f"{seconds:8.0f}{size_bytes / 1e9 / seconds:8.2f}  {verdict}"
    except subprocess.TimeoutExpired:
        return f"{timeout_seconds:8.0f}{'':8}  ended: took too long"
    except subprocess.CalledProcessError as error:
        return f"{'':16}  {(error.stderr.strip().splitlines() or ['?'])[-1]}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def bench(place: Path, names: list[str], size_bytes: int, random_bytes: int, timeout_seconds: float) -> None:
    clients = [make_client(name, place) for name in names]
    folder = place / "model"
    folder.mkdir()
    sha256 = make_file(folder / NAME, size_bytes, random_bytes)
    machine = Machine("big", place / "node")
    try:
        commit = publish(machine, folder, sha256)
        print(f"{size_bytes / 1e9:.1f} GB, warm\n{'':42}{'s':>8}{'GB/s':>8}", flush=True)
        for client in clients:
            found = try_client(client, machine, commit, sha256, place / "client", timeout_seconds)
            print(f"{client.name:42}{found}", flush=True)
    finally:
        machine.do("daemon", "stop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default=CLIENTS, help="versions, separated by commas (default: %(default)s)")
    parser.add_argument("--gib", type=float, default=50.0, help="size of the file (default: %(default)s)")
    parser.add_argument("--random-mib", type=int, default=64, help="how much of it is noise (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each client (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="where (default: the system's temporary folder)")
    options = parser.parse_args()
    size_bytes = int(options.gib * GIB)
    with tempfile.TemporaryDirectory(prefix="hfpeer-big-", dir=options.dir) as name:
        free_bytes = shutil.disk_usage(name).free
        if free_bytes < size_bytes + SPARE_BYTES:
            parser.error(
                f"{name} has {free_bytes / 1e9:.0f} GB free; {(size_bytes + SPARE_BYTES) / 1e9:.0f} are needed"
            )
        bench(Path(name), options.clients.split(","), size_bytes, options.random_mib * MIB, options.minutes * 60)


if __name__ == "__main__":
    main()
