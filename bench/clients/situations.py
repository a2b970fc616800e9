"""Every client in four situations, and what of it reached the hub.

The first node stands before the hub: *cold* when it has nothing, *warm* when the client comes again with an empty
cache, *off* when the hub is gone too. *Peer* is a second node that has nothing, reaches no hub, and knows the first.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fakes.endpoint import endpoint_of
from fakes.hub import Content, HubSimulator, RecordedRequest
from fakes.machine import Machine, Machines

from .content import bodies, folder_content, zoo
from .environments import Environments, NotRun
from .job import Job, Place, Wrong
from .rows import Client

KINDS = {"revision": "info", "tree": "listing", "paths-info": "listing", "commits": "history", "resolve": "file"}
"""The purpose of a request about a commit, by the verb of its path."""
SITUATIONS = ("cold", "warm", "off", "peer")
OWNER = "acme"
REF_SECONDS = 1
"""How long the nodes know what a branch is: short, so that the warm runs show what is asked again."""
MOST_ONCE = 1.05
"""A cold run may ask the hub for so much of the LFS files' bytes."""
_REPO = re.compile(rf"/{OWNER}/([a-z0-9-]+)(?:\.git)?(/.*)?$")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Cell:
    """The result of a client in a situation. `asked` counts what reached the hub, by kind; `targets` are the
    requests as templates; `wrong` says what was wrong."""

    asked: Mapping[str, int] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    wrong: str = ""


@dataclass
class Row:
    """A client with its cells by situation; without any, `not_run` says why."""

    client: Client
    cells: dict[str, Cell] = field(default_factory=dict)
    not_run: str = ""


class Stand:
    """The hub, two nodes, and a place on the hub for each client."""

    def __init__(self, hub: HubSimulator, machines: Machines, environments: Environments, folder: Path) -> None:
        self.hub = hub
        self._environments = environments
        self._folder = folder
        self._storing = threading.Lock()
        self._places: dict[str, Place] = {}
        self._machines = machines
        self._nodes: dict[str, tuple[Machine, str]] = {}

    def node(self, name: str, *peers: str) -> Machine:
        """Starts a node; the clients of now are told to ask it."""
        machine = self._machines.make(
            name, upstreams=f"origin={self.hub.endpoint}", peers=peers, HFPEER_ENDPOINT_REF_TTL=str(REF_SECONDS)
        )
        self._nodes[name] = machine, endpoint_of(machine).url
        return machine

    def job(self, client: Client, situation: str) -> Job:
        """Raises NotRun."""
        client.require()
        interpreter = self._environments.interpreter(client.environment) if client.environment else Path(sys.executable)
        machine, url = self._nodes["second" if situation == "peer" else "first"]
        place = self._places.get(client.slug) or self._put(client, interpreter)
        folder = self._folder / situation / client.slug
        folder.mkdir(parents=True)
        return Job(place, url, machine, folder, interpreter)

    def perform(self, client: Client, situation: str) -> str:
        """Runs a client and gives what was wrong, if anything. Raises NotRun."""
        job = self.job(client, situation)
        try:
            client.act(job)
        except Wrong as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  a client that breaks its own act is a failed cell, not a failed run
            return f"{type(error).__name__}: {error}"[:200]
        finally:
            shutil.rmtree(job.folder, ignore_errors=True)
        return ""

    def slug_of(self, record: RecordedRequest) -> str | None:
        """The client whose repo a request is about; None for another repo."""
        if record.listener != "hub":
            digest = record.path.rpartition("/")[2]
            return next((slug for slug, place in self._places.items() if digest in place.digests.values()), None)
        found = _REPO.search(unquote(record.path))
        return found[1] if found else None

    def lfs_bytes(self, slug: str) -> int:
        return sum(len(data) for path, data in self._places[slug].files.items() if len(data) > 10_000)

    def _put(self, client: Client, interpreter: Path) -> Place:
        repo = f"{OWNER}/{client.slug}"
        files, expected = self._made(client, interpreter) if client.made_by else (zoo(client.slug), None)
        files = {path: content for path, content in files.items() if path not in client.leaves_out}
        with self._storing:
            self.hub.put_repo(client.kind, repo, {"README.md": b"# Nothing yet\n"})
            commit = self.hub.put_repo(client.kind, repo, files)
            place = self._places[client.slug] = Place(repo, client.kind, commit, dict(bodies(files)), expected)
        return place

    def _made(self, client: Client, interpreter: Path) -> tuple[dict[str, Content], object]:
        script, *words = client.made_by
        made, home = self._folder / "made" / client.slug, self._folder / "home"
        home.mkdir(exist_ok=True)
        machine, url = self._nodes["first"]
        maker = Job(Place("", client.kind, "", {}), url, machine, home, interpreter, {"HF_HUB_OFFLINE": "1"})
        expected = maker.script(script, *words, str(made))
        return folder_content(made), expected


def conduct(clients: Iterable[Client], environments: Environments, folder: Path, at_once: int) -> list[Row]:
    """Runs them all, `at_once` at a time, one situation after the other."""
    rows = [Row(client) for client in clients]
    with HubSimulator() as hub, Machines(folder / "nodes") as machines:
        hub.behaviour.xet_headers = hub.behaviour.xet_trees = True
        stand = Stand(hub, machines, environments, folder)
        first = stand.node("first")
        for situation in SITUATIONS:
            if situation == "off":
                hub.go_down()
            if situation == "peer":
                stand.node("second", first.address).wait_until_it_knows(first)
            _phase(stand, situation, rows, at_once)
    return rows


def _phase(stand: Stand, situation: str, rows: list[Row], at_once: int) -> None:
    time.sleep(REF_SECONDS)
    stand.hub.clear()
    with ThreadPoolExecutor(at_once) as pool:
        wrong = list(pool.map(lambda row: _try(stand, situation, row), rows))
    stand.hub.wait_until_quiet()
    asked: dict[str | None, list[RecordedRequest]] = {}
    for record in stand.hub.requests:
        asked.setdefault(stand.slug_of(record), []).append(record)
    for row, said in zip(rows, wrong, strict=True):
        if not row.not_run:
            row.cells[situation] = _cell(stand, situation, row, said, asked.get(row.client.slug, []))


def _try(stand: Stand, situation: str, row: Row) -> str:
    began_at = time.monotonic()
    if row.not_run:
        return ""
    try:
        wrong = stand.perform(row.client, situation)
    except NotRun as error:
        row.not_run, wrong = str(error), ""
    said = f"not run: {row.not_run}" if row.not_run else wrong or "right"
    name = f"{row.client.name}: {row.client.does}"
    print(f"{situation:5} {name:62} {time.monotonic() - began_at:5.1f} s  {said}", file=sys.stderr, flush=True)
    return wrong


def _cell(stand: Stand, situation: str, row: Row, wrong: str, records: list[RecordedRequest]) -> Cell:
    asked = Counter(kind_of(record) for record in records)
    if not wrong and asked["xet"]:
        wrong = "it went round the node, to the Xet storage"
    if not wrong and any(record.authorization for record in records):
        wrong = "a token was sent that nobody gave"
    given = sum(record.body_bytes_sent for record in records if record.listener == "cdn")
    if not wrong and situation == "cold" and given > stand.lfs_bytes(row.client.slug) * MOST_ONCE:
        wrong = f"the hub gave {given:,} B of {stand.lfs_bytes(row.client.slug):,}"
    if not wrong and situation != "cold" and set(asked) - {"ref"}:
        wrong = f"the hub was asked for more than what a branch is: {', '.join(sorted(set(asked) - {'ref'}))}"
    return Cell(asked, frozenset(map(template, records)), wrong)


def kind_of(record: RecordedRequest) -> str:
    """The purpose of a request to the hub."""
    if record.listener != "hub":
        return {"cdn": "file", "cas": "xet"}[record.listener]
    if record.path.startswith("/api/resolve-cache/"):
        return "file"
    found = _REPO.search(unquote(record.path))
    rest = (found[2] or "" if found else record.path).strip("/").split("/")
    verb, revision = rest[0], (rest[1:] or [""])[0]
    if verb in ("info", "git-upload-pack"):
        return "LFS" if revision == "lfs" else "git"
    if verb in ("", "refs") or (verb in ("revision", "resolve") and not _COMMIT.fullmatch(revision)):
        return "ref"
    return KINDS.get(verb, verb)


def template(record: RecordedRequest) -> str:
    """A request without what differs from repo to repo."""
    path = unquote(record.path) if record.listener == "hub" else "/(signed address)"
    path = _COMMIT.sub("COMMIT", re.sub(rf"/{OWNER}/[a-z0-9-]+", "/ID", path))
    return f"{record.method} " + re.sub(r"(/resolve/[^/]+)/.*", r"\1/…", path)
