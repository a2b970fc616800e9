"""The Hub endpoint of a node: how fast a warm file, a file one hop away and small questions are answered.

    python -m bench.endpoint                      2 GiB through `hf download`, 3 rounds; then latencies
    python -m bench.endpoint --file-bytes 268435456 --rounds 1

Needs nginx and curl on the PATH. Everything lies below --dir, by default in memory (/dev/shm), and is removed at the
end. Quoted are medians. Client and servers share this machine's cores.

    nginx   `hf download` from nginx that answers as a hub does
    warm    the same from the endpoint of a node that has the file
    hop     the same from the endpoint of a node whose peer has it: fetched, verified and streamed meanwhile
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bench.transfer import COMMIT, NGINX_PORT, REPO, Cost, Nginx, _make_model, cpu_seconds_of, measure
from hfpeer_cli.commands.node.demo import Machine

CONNECTIONS = 16
LISTED_FILES = 10_000


class Downloads:
    """`hf download` of one folder from nginx, a warm endpoint, and one that is a hop away."""

    def __init__(self, place: Path, folder: Path) -> None:
        self._place = place
        self._nginx = Nginx(place / "nginx", folder)
        self._giver, self._taker = Machine("giver", place / "giver"), Machine("taker", place / "taker")
        for machine in (self._giver, self._taker):
            machine.do("daemon", "start")
        self._commit = self._giver.do("model", "publish", str(folder), "--as", REPO)["commit"]
        self._taker.do("peer", "add", self._giver.do("status")["listeners"]["lan"])

    def nginx(self) -> Cost:
        return self._download(f"http://127.0.0.1:{NGINX_PORT}", COMMIT, self._nginx.cpu_seconds)

    def warm(self) -> Cost:
        return self._download(endpoint_of(self._giver), self._commit, cpu_of(self._giver))

    def hop(self) -> Cost:
        cost = self._download(endpoint_of(self._taker), self._commit, cpu_of(self._giver), cpu_of(self._taker))
        time.sleep(0.5)  # what came is being installed
        self._taker.do("model", "rm", "-r", REPO, "--force")
        return cost

    def stop(self) -> None:
        self._nginx.stop()
        for machine in (self._giver, self._taker):
            machine.do("daemon", "stop")

    def _download(self, endpoint: str, commit: str, *servers: Callable[[], float]) -> Cost:
        environ = client_environ(endpoint, self._place / "hf")
        hf = Path(sys.executable).with_name("hf")

        def work() -> None:
            command = [str(hf), "download", REPO, "--revision", commit, "--quiet"]
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        cost = measure(work, *servers)
        shutil.rmtree(self._place / "hf")
        return cost


def endpoint_of(machine: Machine) -> str:
    return f"http://{machine.do('status')['listeners']['endpoint']}"


def cpu_of(machine: Machine) -> Callable[[], float]:
    pid = int(machine.do("status")["pid"])
    return lambda: cpu_seconds_of(pid)


def client_environ(endpoint: str, home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**inherited, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **quiet}


def bench_downloads(place: Path, rounds: int, file_bytes: int) -> None:
    _make_model(place / "model", 1, file_bytes)
    downloads = Downloads(place, place / "model")
    ways = {"nginx": downloads.nginx, "warm": downloads.warm, "hop": downloads.hop}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    try:
        for number in range(rounds + 1):
            for name, way in ways.items():
                cost = way()
                if number:  # the first round warms up
                    costs[name].append(cost)
    finally:
        downloads.stop()
    nginx = statistics.median(cost.seconds for cost in costs["nginx"])
    print(f"hf download of {file_bytes / 2**20:.0f} MiB, medians of {rounds} rounds")
    print(f"{'':10}{'s':>8}{'min':>8}{'max':>8}{'GB/s':>8}{'CPU s/GB':>10}{'of nginx':>10}")
    for name, found in costs.items():
        seconds = [cost.seconds for cost in found]
        median = statistics.median(seconds)
        cpu = statistics.median(cost.cpu_seconds for cost in found) / (file_bytes / 1e9)
        rate = file_bytes / 1e9 / median
        print(
            f"{name:10}{median:8.2f}{min(seconds):8.2f}{max(seconds):8.2f}{rate:8.2f}{cpu:10.2f}{nginx / median:9.2f}x"
        )


# Latency


def bench_latency(place: Path, requests: int) -> None:
    folder = place / "many"
    folder.mkdir()
    for number in range(LISTED_FILES):
        path = folder / f"shard-{number % 100:02}" / f"file-{number:05}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n")
    machine = Machine("teller", place / "teller")
    machine.do("daemon", "start")
    try:
        commit = machine.do("model", "publish", str(folder), "--as", REPO)["commit"]
        endpoint = endpoint_of(machine)
        questions = {
            "HEAD of a file at a commit": (f"HEAD /{REPO}/resolve/{commit}/shard-00/file-00000.txt", requests),
            "HEAD of a file on main": (f"HEAD /{REPO}/resolve/main/shard-00/file-00000.txt", requests),
            "GET of a small file": (f"GET /{REPO}/resolve/{commit}/shard-00/file-00000.txt", requests),
            f"listing of {LISTED_FILES} files": (f"GET /api/models/{REPO}/tree/{commit}?recursive=true", 10),
        }
        print(f"\nwarm, over {CONNECTIONS} connections at once")
        print(f"{'':32}{'p50 ms':>8}{'p95 ms':>8}{'max ms':>8}{'req/s':>9}")
        for name, (line, count) in questions.items():
            ask_all(endpoint, line, 1)
            took, seconds = ask_all(endpoint, line, count)
            took.sort()
            p50, p95 = took[len(took) // 2], took[int(len(took) * 0.95)]
            print(f"{name:32}{p50 * 1e3:8.1f}{p95 * 1e3:8.1f}{took[-1] * 1e3:8.1f}{len(took) / seconds:9.0f}")
        lone = sorted(ask_one(endpoint, questions["HEAD of a file at a commit"][0], 200))
        print(f"{'HEAD over one connection':32}{lone[100] * 1e3:8.1f}{lone[190] * 1e3:8.1f}{lone[-1] * 1e3:8.1f}")
    finally:
        machine.do("daemon", "stop")


def ask_all(endpoint: str, line: str, count: int) -> tuple[list[float], float]:
    """Seconds of each answer, and of all, when every connection asks `count` times."""
    took: list[float] = []
    threads = [threading.Thread(target=lambda: took.extend(ask_one(endpoint, line, count))) for _ in range(CONNECTIONS)]
    began_at = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, time.monotonic() - began_at


def ask_one(endpoint: str, line: str, count: int) -> list[float]:
    """Seconds of each answer over one kept connection. Raises ValueError for one that is no success."""
    host = urlsplit(endpoint)
    request = f"{line} HTTP/1.1\r\nHost: {host.netloc}\r\nUser-Agent: bench\r\n\r\n".encode()
    took = []
    with socket.create_connection((host.hostname or "", host.port or 80)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began_at = time.monotonic()
            connection.sendall(request)
            read_answer(connection, has_body=not line.startswith("HEAD"))
            took.append(time.monotonic() - began_at)
    return took


def read_answer(connection: socket.socket, *, has_body: bool) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, body = received.partition(b"\r\n\r\n")
    if head.split(b" ")[1] not in (b"200", b"307"):
        raise ValueError(head.decode("latin-1"))
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = (int(lengths[0].split(b":")[1]) if has_body else 0) - len(body)
    while left > 0:
        left -= len(connection.recv(min(left, 1 << 20)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file-bytes", type=int, default=2 << 30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200, help="of each kind, over each connection")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-", dir=options.dir) as name:
        bench_downloads(Path(name), options.rounds, options.file_bytes)
        bench_latency(Path(name), options.requests)


if __name__ == "__main__":
    main()
