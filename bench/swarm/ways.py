"""The ways to get a model to many machines: hfpeer, and what people would use instead.

Each sets its servers up outside the timing, begins one fetch, and says afterwards where the files lie and how many
bytes of payload a host gave. Must never measure: that is `trial`'s.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fakes.network.host import Host
from fakes.network.lan import Lan
from fakes.network.namespaces import CannotBuild
from fakes.network.program import HostProgram
from fakes.waiting import wait_until

from .plan import Fetch, Model, Plan

ROOT = Path(__file__).resolve().parents[2]
HFPEER = (sys.executable, "-c", "from hfpeer_cli.main import main; main()")
LAN_PORT, HUB_PORT, NGINX_PORT, TORRENT_PORT = 9437, 8000, 8080, 6881
START_SECONDS, FIND_SECONDS, PUBLISH_SECONDS = 60.0, 60.0, 120.0
SETTLE_SECONDS = 3.0
"""A daemon that has just started looks for peers before it goes to the WAN; in life it has long been running."""
TORRENT_PIECE_BYTES = 1 << 20
OWN_VARIABLES = ("HFPEER_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_")


class Way(ABC):
    """One way, for one run. `place` is a folder of this run; `models` are the plan's, on this machine's disk."""

    name: str

    def __init__(self, lan: Lan, plan: Plan, models: list[Model], place: Path) -> None:
        self.lan, self.plan, self.models, self.place = lan, plan, models, place
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        # This checkout is measured, wherever an installed one may lie.
        paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "cli", "daemon", "tests"))
        # What is installed has been compiled once, and so is this; a shell may forbid to write it beside the source.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        compiled = str(place.parent / "compiled")
        self._environ = {**inherited, "PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": compiled, "PYTHONUNBUFFERED": "1"}

    @classmethod
    def why_not(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        return None

    @abstractmethod
    def set_up(self) -> None:
        """Prepares all that must run before a host wants the model."""

    @abstractmethod
    def begin(self, fetch: Fetch) -> HostProgram:
        """Gives the command."""

    @abstractmethod
    def fetched_folder(self, fetch: Fetch) -> Path:
        """Where the model's files lie after the fetch."""

    @abstractmethod
    def sent_bytes(self, host: Host) -> int | None:
        """Payload that a holder has sent, as its server counts it; None where no server counts."""

    def remarks(self) -> list[str]:
        """Further facts of the run."""
        return []

    def _folder(self, host: Host) -> Path:
        folder = self.place / host.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _holdings(self) -> list[tuple[Host, Model]]:
        pairs = zip(self.plan.holders, self.models, strict=True)
        return [(self.lan.hosts[holder], model) for holder, model in pairs if holder is not None]

    def _host(self, fetch: Fetch) -> Host:
        return self.lan.hosts[fetch.host]


class Hub:
    """The hub simulator beyond the WAN, serving one model; counts what it gave."""

    def __init__(self, way: Way) -> None:
        (model,) = way.models
        assert way.lan.wan is not None, "a LAN without an Internet has no hub"
        host = way.lan.wan.hub
        argv = [sys.executable, "-m", "fakes.hub", "--host", host.ip, "--port", str(HUB_PORT)]
        self._program = host.start(
            [*argv, "--repo-dir", model.folder, "--as", model.repo], way.place / "hub.out", way._environ
        )
        wait_until(lambda: bool(self._lines(1)) or not self._program.is_running(), "the hub", START_SECONDS)
        if not self._lines(1):
            raise CannotBuild(f"the hub did not start: {self._program.said()}")
        address = json.loads(self._lines(1)[0])
        self.endpoint: str = address["endpoint"]
        self.commit: str = address["commit"]

    def _lines(self, count: int) -> list[str]:
        lines = self._program.output.read_text().splitlines()
        return lines if len(lines) >= count else []

    def stop(self) -> int:
        """Ends it; the bytes of all bodies that it sent."""
        self._program.stop()
        lines = self._lines(2)
        return sum(json.loads(lines[1])["body_bytes_sent"].values()) if lines else 0


class HfPeer(Way):
    """A daemon on every host, found by mDNS, and `hfpeer model add` on each that wants the model."""

    name = "hfpeer"

    def __init__(self, lan: Lan, plan: Plan, models: list[Model], place: Path) -> None:
        super().__init__(lan, plan, models, place)
        self._hub_endpoint = ""
        self._commits: dict[str, str] = {}
        self._adds: dict[Fetch, HostProgram] = {}

    def use_hub(self, hub: Hub) -> None:
        self._hub_endpoint = f"origin={hub.endpoint}"
        self._commits[self.models[0].repo] = hub.commit

    def set_up(self) -> None:
        daemons = [(host, self._start_daemon(host)) for host in self.lan.hosts]
        for host, daemon in daemons:
            self._wait_for(host, daemon)
        for each, model in self._holdings():
            result = self._do(each, "publish", ("model", "publish", str(model.folder), "--as", model.repo))
            self._commits[model.repo] = json.loads(result)["commit"]
        for host in self.lan.hosts:
            wait_until(partial(self._knows_all, host), f"all peers of {host.name} by mDNS", FIND_SECONDS)
        time.sleep(SETTLE_SECONDS)
        self._sent_before = {host.name: self._sent(host) for host, _ in self._holdings()}

    def begin(self, fetch: Fetch) -> HostProgram:
        host, repo = self._host(fetch), self.models[fetch.model].repo
        argv = [*HFPEER, "--json", "model", "add", "-r", repo, "-v", self._commits[repo]]
        self._adds[fetch] = host.start(argv, self._add_output(fetch), self._environ_of(host))
        return self._adds[fetch]

    def fetched_folder(self, fetch: Fetch) -> Path:
        return Path(json.loads(self._add_output(fetch).read_text())["snapshot"])

    def sent_bytes(self, host: Host) -> int | None:
        fault = self.plan.fault
        if fault is not None and fault.kind == "kill-holder":
            return None
        return self._sent(host) - self._sent_before[host.name]

    def remarks(self) -> list[str]:
        finished = [json.loads(add.output.read_text()) for add in self._adds.values() if add.exit_code == 0]
        failed = {fetch: add for fetch, add in self._adds.items() if add.exit_code and fetch in self.plan.awaited}
        found = [f"{self._host(fetch).name}: {_complaint(add)}" for fetch, add in failed.items()]
        if finished:
            found.append(_account(finished, self.plan.largest_bytes))
        if self.plan.fault is not None and self.plan.fault.kind == "lie":
            lies = self._folder(self.lan.hosts[self.plan.fault.host]) / "lies"
            found.append(f"lies told: {len(lies.read_text().splitlines()) if lies.exists() else 0}")
        return found

    def _wait_for(self, host: Host, daemon: HostProgram) -> None:
        settled = partial(self._answers_or_ended, host, daemon)
        wait_until(settled, f"the daemon of {host.name}", START_SECONDS)
        if not daemon.is_running():
            raise CannotBuild(f"the daemon of {host.name} ended: {daemon.said()}")

    def _knows_all(self, host: Host) -> bool:
        return len(self._peers(host) or ()) >= len(self.lan.hosts) - 1

    def _answers_or_ended(self, host: Host, daemon: HostProgram) -> bool:
        return self._peers(host) is not None or not daemon.is_running()

    def _start_daemon(self, host: Host) -> HostProgram:
        fault = self.plan.fault
        is_liar = fault is not None and fault.kind == "lie" and self.lan.hosts[fault.host] is host
        liar = (sys.executable, "-m", "fakes.liar", str(self._folder(host) / "lies"), str(self.plan.lie_one_in))
        argv = liar if is_liar else (*HFPEER, "daemon", "start", "--foreground")
        return host.start(argv, self._folder(host) / "daemon.out", self._environ_of(host))

    def _environ_of(self, host: Host) -> dict[str, str]:
        folder = self._folder(host)
        return {
            **self._environ,
            "HFPEER_HOME": str(folder / "home"),
            "HF_HUB_CACHE": str(folder / "cache"),
            "HFPEER_NAME": host.name,
            "HFPEER_UPSTREAMS": self._hub_endpoint,
            "HFPEER_PEERS": "",
            "HFPEER_MDNS": "1",
            "HFPEER_ACCEPT_REQUESTS": "lan",
        }

    def _add_output(self, fetch: Fetch) -> Path:
        return self._folder(self._host(fetch)) / f"add-{fetch.model}.out"

    def _do(self, host: Host, what: str, words: tuple[str, ...]) -> str:
        output = self._folder(host) / f"{what}.out"
        return host.run_into([*HFPEER, "--json", *words], output, self._environ_of(host), PUBLISH_SECONDS)

    def _sent(self, host: Host) -> int:
        return int(json.loads(self._do(host, "status", ("status",)))["sent_bytes"])

    def _peers(self, host: Host) -> list[str] | None:
        """The peers that a node finds alive; None while it does not answer."""
        answer = _ask(host, f"http://{host.ip}:{LAN_PORT}/peers")
        return None if answer is None else json.loads(answer)["addresses"]


class HfPeerOn(HfPeer):
    """The same with one command at the holder, which asks all others."""

    name = "hfpeer add --on"

    def begin(self, fetch: Fetch) -> HostProgram:
        if self._adds:
            program = next(iter(self._adds.values()))
        else:
            host, repo = self._holdings()[0][0], self.models[fetch.model].repo
            argv = [*HFPEER, "--json", "model", "add", "-r", repo, "-v", self._commits[repo], "--on", "all"]
            program = host.start(argv, self._folder(host) / "add-on.out", self._environ_of(host))
        self._adds[fetch] = program
        return program

    def fetched_folder(self, fetch: Fetch) -> Path:
        repo = self.models[fetch.model].repo
        cache = self._folder(self._host(fetch)) / "cache" / f"models--{repo.replace('/', '--')}"
        return cache / "snapshots" / self._commits[repo]

    def remarks(self) -> list[str]:
        rows = json.loads(next(iter(self._adds.values())).output.read_text() or "[]")
        return [f"{row['node']}: {row['state']}, {row['problem']}" for row in rows if row["state"] != "done"]


def _account(finished: Sequence[dict[str, Any]], unit_bytes: int) -> str:
    """Where those that finished say they got it from, together, in copies."""
    by_kind: Counter[str] = Counter()
    for result in finished:
        by_kind.update(result["bytes_by_kind"])
    parts = [f"{kind} {count / unit_bytes:.3f} F" for kind, count in sorted(by_kind.items())]
    refetched = sum(int(result["refetched_bytes"]) for result in finished)
    return f"{len(finished)} adds received: {', '.join(parts)}; fetched twice {refetched / unit_bytes:.3f} F"


def _complaint(add: HostProgram) -> str:
    """The end of a failed command's output: its message, and what it knew of each source."""
    try:
        problem = json.loads(add.errors.read_text().splitlines()[-1])
    except (IndexError, ValueError):
        return add.said()
    return f"{problem['message']} {problem['facts'].get('sources', '')}"


class NginxCurl(Way):
    """Everyone gets it from one nginx with curl. Nothing is verified by it."""

    name = "nginx+curl"

    @classmethod
    def why_not(cls) -> str | None:
        missing = [name for name in ("nginx", "curl") if shutil.which(name) is None]
        return f"{' and '.join(missing)} must be installed" if missing else None

    def set_up(self) -> None:
        for host in dict.fromkeys(host for host, _ in self._holdings()):
            place = self._folder(host) / "nginx"
            place.mkdir()
            configuration = place / "nginx.conf"
            configuration.write_text(_nginx_configuration(place, host.ip, self.models[0].folder.parent))
            argv: list[str | Path] = ["nginx", "-c", configuration, "-p", place, "-g", "daemon off;"]
            host.start(argv, place / "nginx.out", self._environ)
            url = f"http://{host.ip}:{NGINX_PORT}/"
            wait_until(partial(_answers, host, url), "nginx", START_SECONDS)

    def begin(self, fetch: Fetch) -> HostProgram:
        host, model = self._host(fetch), self.models[fetch.model]
        holder = self.lan.hosts[self.plan.holders[fetch.model] or 0]
        base, target = f"http://{holder.ip}:{NGINX_PORT}/{model.name}", self.fetched_folder(fetch)
        target.mkdir()
        listing = "".join(f'url="{base}/{name}"\noutput="{target}/{name}"\n' for name in model.digests)
        listed = self._folder(host) / f"curl-{fetch.model}.txt"
        listed.write_text(f"silent\nfail\n{listing}")
        return host.start(["curl", "-K", listed], self._folder(host) / f"curl-{fetch.model}.out", self._environ)

    def fetched_folder(self, fetch: Fetch) -> Path:
        return self._folder(self._host(fetch)) / f"curl-{fetch.model}"

    def sent_bytes(self, host: Host) -> int | None:
        log = self._folder(host) / "nginx" / "access.log"
        return sum(map(int, log.read_text().split()))


class Torrent(Way):
    """BitTorrent through libtorrent: the holder seeds, everyone is told of everyone."""

    name = "libtorrent"

    @classmethod
    def why_not(cls) -> str | None:
        return None if find_spec("libtorrent") else "the package libtorrent must be installed (extra `bench`)"

    def set_up(self) -> None:
        (model,) = self.models
        self._torrent = self.place / "model.torrent"
        making = [sys.executable, "-m", "bench.swarm.torrent", "make", model.folder, self._torrent]
        subprocess.run([*map(str, making), str(TORRENT_PIECE_BYTES)], env=self._environ, check=True, timeout=120)
        for host, _ in self._holdings():
            seeding = self._begin(host, model.folder.parent, "--seed")
            wait_until(seeding.is_done, "the seed", START_SECONDS)

    def begin(self, fetch: Fetch) -> HostProgram:
        host = self._host(fetch)
        return self._begin(host, self._folder(host))

    def _begin(self, host: Host, save: Path, *more: str) -> HostProgram:
        others = ",".join(f"{other.ip}:{TORRENT_PORT}" for other in self.lan.hosts if other is not host)
        folder = self._folder(host)
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "bench.swarm.torrent",
            "run",
            self._torrent,
            save,
            f"{host.ip}:{TORRENT_PORT}",
        ]
        done_marker, sent = folder / "torrent.done", folder / "torrent.sent"
        argv += ["--others", others, "--done", done_marker, "--sent", sent, *more]
        return host.start(argv, folder / "torrent.out", self._environ, done_marker)

    def fetched_folder(self, fetch: Fetch) -> Path:
        return self._folder(self._host(fetch)) / self.models[fetch.model].name

    def sent_bytes(self, host: Host) -> int | None:
        with suppress(OSError, ValueError):
            return int((self._folder(host) / "torrent.sent").read_text())
        return None


class HfDownload(Way):
    """Everyone gets it from the WAN with `hf download`. Nothing is verified by it."""

    name = "hf download"

    def use_hub(self, hub: Hub) -> None:
        self._hub = hub

    def set_up(self) -> None:
        pass

    def begin(self, fetch: Fetch) -> HostProgram:
        host, model = self._host(fetch), self.models[fetch.model]
        environ: Mapping[str, str] = {
            **self._environ,
            "HF_ENDPOINT": self._hub.endpoint,
            "HF_HOME": str(self._folder(host) / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        hf = Path(sys.executable).with_name("hf")
        argv: list[str | Path] = [hf, "download", model.repo, "--revision", self._hub.commit, "--quiet"]
        return host.start(argv, self._folder(host) / "hf.out", environ)

    def fetched_folder(self, fetch: Fetch) -> Path:
        home, model = self._folder(self._host(fetch)) / "hf" / "hub", self.models[fetch.model]
        return home / f"models--{model.repo.replace('/', '--')}" / "snapshots" / self._hub.commit

    def sent_bytes(self, host: Host) -> int | None:
        return None


WAYS: dict[str, type[Way]] = {way.name: way for way in (HfPeer, HfPeerOn, NginxCurl, Torrent, HfDownload)}


def _answers(host: Host, url: str) -> bool:
    return _ask(host, url) is not None


def _ask(host: Host, url: str) -> str | None:
    """The body, asked inside a host's network; None without an answer."""
    argv = ["ip", "netns", "exec", host.namespace, "curl", "-s", "--max-time", "3", url]
    asked = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    return asked.stdout if asked.returncode == 0 else None


def _nginx_configuration(place: Path, ip: str, root: Path) -> str:
    return f"""
{"user root;" if os.getuid() == 0 else ""} worker_processes 1; pid {place}/pid; error_log {place}/error.log crit;
events {{ worker_connections 256; }}
http {{
  log_format bytes '$body_bytes_sent'; access_log {place}/access.log bytes;
  sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server {{ listen {ip}:{NGINX_PORT}; location / {{ root {root}; }} }}
}}
"""
