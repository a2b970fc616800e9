"""One node to another over loopback, verified, beside nginx and `hf download`, in one run.

    python -m bench.transfer                      2 GiB in one file, 5 rounds
    python -m bench.transfer --files 2000 --file-bytes 4096

Needs nginx and curl on the PATH. Everything lies below --dir, by default in memory (/dev/shm), because a disk's mood
is not what is measured; it is removed at the end. The ways take turns in every round; quoted are medians, and ratios
of medians. Both ends share this machine's cores, so CPU seconds per GB say as much as the rates.

    hfpeer             `hfpeer model add` on the second node, from the command to the verified, published snapshot
    nginx+curl         the same bytes to a file, nothing verified
    nginx+curl+sha256  the same, then sha256sum
    hf download        the Hub's own client from the same nginx, which answers as a hub does; nothing verified
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfpeer_cli.commands.node.demo import Machine

REPO = "bench/model"
COMMIT = "c" * 40
NGINX_PORT = 18437
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and seconds of CPU of both ends together."""

    seconds: float
    cpu_seconds: float


class Nginx:
    """nginx on loopback, answering as a hub does over `folder`; its files lie in `place`. Stopped with `stop`."""

    def __init__(self, place: Path, folder: Path) -> None:
        place.mkdir()
        configuration = place / "nginx.conf"
        configuration.write_text(_nginx_configuration(place, _lay_out_hub(place, folder)))
        self._process = subprocess.Popen(
            ["nginx", "-c", str(configuration), "-p", str(place), "-g", "daemon off;"],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        _wait_until_it_answers(f"http://127.0.0.1:{NGINX_PORT}/")

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds_of(pid) for pid in family_of(self._process.pid))

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


def _nginx_configuration(place: Path, root: Path) -> str:
    return f"""
{"user root;" if os.getuid() == 0 else ""} worker_processes 2; pid {place}/pid; error_log {place}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; etag off; keepalive_requests 100000;
  default_type application/octet-stream;
  client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  include {place}/etags.conf;
  server {{
    listen 127.0.0.1:{NGINX_PORT};
    location / {{ root {root}; add_header X-Repo-Commit {COMMIT}; add_header ETag $hub_etag; }}
    location /api/ {{ root {root}; default_type application/json; }}
    location = /api/models/{REPO}/tree/{COMMIT} {{ default_type application/json; alias {root}/tree.json; }}
    location = /api/models/{REPO}/revision/main {{ default_type application/json; alias {root}/info.json; }}
    location = /api/models/{REPO}/revision/{COMMIT} {{ default_type application/json; alias {root}/info.json; }}
  }}
}}
"""


def _lay_out_hub(place: Path, folder: Path) -> Path:
    """A document root like a hub: the files at their resolve URLs and the listing; their etags go to etags.conf."""
    root = place / "www"
    files = root / REPO / "resolve" / COMMIT
    files.mkdir(parents=True)
    tree, etags = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, files / name)
        size, etag = path.stat().st_size, _etag(path)
        entry = {"type": "file", "oid": etag, "size": size, "path": name}
        if len(etag) == 64:
            entry |= {"oid": etag[:40], "lfs": {"oid": etag, "size": size, "pointerSize": 134}}
        tree.append(entry)
        etags.append(f'  "/{REPO}/resolve/{COMMIT}/{name}" \'"{etag}"\';')
    (root / "tree.json").write_text(json.dumps(tree))
    siblings = [{"rfilename": entry["path"]} for entry in tree]
    (root / "info.json").write_text(json.dumps({"_id": "1", "id": REPO, "sha": COMMIT, "siblings": siblings}))
    lines = "\n".join(etags)
    maps = f"map_hash_bucket_size 512; map_hash_max_size 65536;\nmap $uri $hub_etag {{\n  default '';\n{lines}\n}}\n"
    (place / "etags.conf").write_text(maps)
    return root


def _etag(path: Path) -> str:
    """As a hub gives it: sha256 of a large file, git's blob id of a small one."""
    size = path.stat().st_size
    digest = hashlib.sha256() if size > 10_000_000 else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def measure(work: Callable[[], None], *servers: Callable[[], float]) -> Cost:
    """Runs `work`, whose processes are our children; `servers` tell the CPU seconds of those that are not."""
    before = [server() for server in servers]
    own = _children_cpu()
    began_at = time.monotonic()
    work()
    seconds = time.monotonic() - began_at
    spent = sum(server() - old for server, old in zip(servers, before, strict=True))
    return Cost(seconds, spent + _children_cpu() - own)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_seconds_of(pid: int) -> float:
    """The CPU seconds of a process, with those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def family_of(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *map(int, children)]


def _wait_until_it_answers(url: str) -> None:
    for _ in range(200):
        if subprocess.run(["curl", "-s", "-o", "/dev/null", url], check=False).returncode == 0:
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing answers at {url}")


def hf_command(home: Path) -> tuple[list[str], dict[str, str]]:
    """`hf download` from nginx into an empty `home`, and its environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environ = {
        **inherited,
        "HF_ENDPOINT": f"http://127.0.0.1:{NGINX_PORT}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    hf = Path(sys.executable).with_name("hf")
    return [str(hf), "download", REPO, "--revision", COMMIT, "--quiet"], environ


class Ways:
    """The four ways, over one model folder."""

    def __init__(self, place: Path, folder: Path) -> None:
        self._place = place
        self._names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
        self._nginx = Nginx(place / "nginx", folder)
        self._giver, self._taker = Machine("giver", place / "giver"), Machine("taker", place / "taker")
        self._giver.do("daemon", "start")
        self._taker.do("daemon", "start")
        self._commit = self._giver.do("model", "publish", str(folder), "--as", REPO)["commit"]
        self._taker.do("peer", "add", self._giver.do("status")["listeners"]["lan"])
        self._pids = [int(machine.do("status")["pid"]) for machine in (self._giver, self._taker)]

    def hfpeer(self) -> Cost:
        def work() -> None:
            self._taker.do("model", "add", "-r", REPO, "-v", self._commit)

        cost = measure(work, *(lambda pid=pid: cpu_seconds_of(pid) for pid in self._pids))
        self._taker.do("model", "rm", "-r", REPO, "--force")
        return cost

    def curl(self, *, digests: bool = False) -> Cost:
        target = self._place / "curl"
        target.mkdir()
        base = f"http://127.0.0.1:{NGINX_PORT}/{REPO}/resolve/{COMMIT}"
        listing = "".join(f'url="{base}/{name}"\noutput="{target}/{name}"\n' for name in self._names)
        (self._place / "curl.txt").write_text(f"silent\nfail\ncreate-dirs\n{listing}")

        def work() -> None:
            subprocess.run(["curl", "-K", str(self._place / "curl.txt")], check=True)
            if digests:
                names = [str(target / name) for name in self._names]
                subprocess.run(["sha256sum", *names], check=True, stdout=subprocess.DEVNULL)

        cost = measure(work, self._nginx.cpu_seconds)
        shutil.rmtree(target)
        return cost

    def curl_and_sha256(self) -> Cost:
        return self.curl(digests=True)

    def hf_download(self) -> Cost:
        home = self._place / "hf"
        command, environ = hf_command(home)

        def work() -> None:
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        cost = measure(work, self._nginx.cpu_seconds)
        shutil.rmtree(home)
        return cost

    def stop(self) -> None:
        self._nginx.stop()
        for machine in (self._giver, self._taker):
            machine.do("daemon", "stop")


def _make_model(folder: Path, files: int, file_bytes: int) -> None:
    folder.mkdir()
    for number in range(files):
        with (folder / f"part-{number:05}.bin").open("wb") as file:
            for start in range(0, file_bytes, 1 << 20):
                file.write(os.urandom(min(1 << 20, file_bytes - start)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--file-bytes", type=int, default=2 << 30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    total_bytes = options.files * options.file_bytes
    with tempfile.TemporaryDirectory(prefix="hfpeer-bench-", dir=options.dir) as name:
        place = Path(name)
        _make_model(place / "model", options.files, options.file_bytes)
        ways = Ways(place, place / "model")
        named = {
            "nginx+curl": ways.curl,
            "nginx+curl+sha256": ways.curl_and_sha256,
            "hf download": ways.hf_download,
            "hfpeer": ways.hfpeer,
        }
        costs: dict[str, list[Cost]] = {name: [] for name in named}
        try:
            for number in range(options.rounds + 1):
                for name, way in named.items():
                    cost = way()
                    if number:  # the first round warms up
                        costs[name].append(cost)
        finally:
            ways.stop()
    _print(costs, options.files, total_bytes)


def _print(costs: dict[str, list[Cost]], files: int, total_bytes: int) -> None:
    medians = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}
    print(f"{files} files, {total_bytes / 2**20:.0f} MiB, medians of {len(costs['hfpeer'])} rounds")
    print(f"{'':20}{'s':>8}{'min':>8}{'max':>8}{'GB/s':>8}{'files/s':>9}{'CPU s/GB':>10}{'hfpeer is':>11}")
    for name, found in costs.items():
        seconds = [cost.seconds for cost in found]
        cpu = statistics.median(cost.cpu_seconds for cost in found) / (total_bytes / 1e9)
        median, ratio = medians[name], medians[name] / medians["hfpeer"]
        print(
            f"{name:20}{median:8.2f}{min(seconds):8.2f}{max(seconds):8.2f}{total_bytes / 1e9 / median:8.2f}"
            f"{files / median:9.0f}{cpu:10.2f}{ratio:10.2f}x"
        )


if __name__ == "__main__":
    main()
