"""The behaviour of clients under faults: each fault with each of three downloaders, on a hub and nodes of its own.

Right is: a client that ends without an error has the right bytes; after an error the same command gets them; and the
hub gives no more than what was in flight twice.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fakes.endpoint import endpoint_of
from fakes.hub import HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines, Ran
from fakes.waiting import wait_until

from .content import BIG, sha256
from .environments import Environments, NotRun
from .job import Job, Place, Wrong, equal, last_line

SIZE = 12_000_000
SLOW = 3_000_000
"""Bytes per second of a hub whose file takes four seconds."""
IN_FLIGHT = 5 * 1024 * 1024
"""Bytes that four connections may have begun of their pieces when they are cut, and a little more."""
BREAK_AT = 0.4
SECONDS = 90.0
CURL_CANNOT_RESUME = 33
REPO = "acme/faults"

LEGEND = """\
One LFS file of 12 MB, each time with a hub and a node of its own; where something happens midway the hub gives 3 MB a
second. Right is: who ends without an error has the right bytes; who ends with one gets them from the same command,
given again; the hub gives twice only what was in flight, and beside a liar what it gave."""


@dataclass(frozen=True)
class Downloader:
    """A program that downloads one file: its words, and where the file is then."""

    name: str
    environment: str | None
    words: Callable[[Job], list[str | Path]]
    found: Callable[[Job], Path]


@dataclass
class Scene:
    """A hub, perhaps a mirror, a node in front of them, and a downloader at work."""

    hub: HubSimulator
    machines: Machines
    folder: Path
    downloader: Downloader
    interpreter: Path
    place: Place
    node: Machine | None = None
    job: Job | None = None
    saw: list[str] = field(default_factory=list)

    def begin_node(self, upstreams: str = "", patience_seconds: int = 30) -> Machine:
        """The node that the client asks."""
        ways = upstreams or f"origin={self.hub.endpoint}"
        node = self.machines.make("node", upstreams=ways, HFPEER_PATIENCE=str(patience_seconds))
        home = self.folder / "client"
        home.mkdir()
        self.job = Job(self.place, endpoint_of(node).url, node, home, self.interpreter)
        self.node = node
        return node

    def download(self, *meanwhile: Callable[[int], object]) -> Ran:
        """Runs the downloader; `meanwhile` things happen to it or around it, which get its process id."""
        assert self.node is not None and self.job is not None
        process = self.node.begin(*self.downloader.words(self.job), **self.job.environ)
        for happening in meanwhile:
            happening(process.pid)
        ran = self.node.finish(process, SECONDS)
        self.saw.append(_seen(self, ran))
        if ran.code == 0 and not self.is_right:
            raise Wrong("it says that all is well, and has wrong bytes")
        return ran

    def remove_file(self) -> None:
        """The steps of a person when the program can do nothing with what it has."""
        assert self.job is not None
        self.downloader.found(self.job).unlink()
        self.saw.append("the file removed")

    def wait_for_part(self) -> None:
        """Until so much of the file has come to the node."""
        node = self.node
        assert node is not None
        wait_until(lambda: node.present_bytes() >= BREAK_AT * SIZE, "a part of the file is here", 30)

    @property
    def is_right(self) -> bool:
        """Whether the client has the file."""
        assert self.job is not None
        path = self.downloader.found(self.job)
        return path.exists() and sha256(path.read_bytes()) == self.place.digests[BIG]

    @property
    def hub_bytes(self) -> int:
        return self.hub.body_bytes_sent(listener="cdn")


def _hub_dies(scene: Scene) -> None:
    scene.begin_node(patience_seconds=4)
    _slow(scene.hub)
    _must_fail(scene.download(lambda pid: _break(scene)))
    scene.hub.come_back()
    _must_do(scene.download())
    _at_most(scene.hub_bytes, SIZE + IN_FLIGHT)


def _peer_turns_up(scene: Scene) -> None:
    holder = scene.machines.make("holder", upstreams=f"origin={scene.hub.endpoint}")
    given = endpoint_of(holder).get(f"/{REPO}/resolve/{scene.place.commit}/{BIG}")
    equal(sha256(given.body), scene.place.digests[BIG], "what the holder has")
    wait_until(lambda: holder.found("model", "ls", "-r", REPO), "the holder has it")
    scene.hub.clear()
    _slow(scene.hub)
    node = scene.begin_node()
    _must_do(scene.download(lambda pid: _break(scene), lambda pid: node.do("peer", "add", holder.address)))
    _at_most(scene.hub_bytes, 0.9 * SIZE)


def _busy(scene: Scene) -> None:
    scene.begin_node()
    scene.hub.inject(faults.too_many_requests(retry_after="1"), method="GET", path=f"*/{BIG}", times=4)
    _must_do(scene.download())
    _at_most(scene.hub_bytes, SIZE * 1.05)


def _lying_mirror(scene: Scene) -> None:
    with HubSimulator(mirror_of=scene.hub) as mirror:
        mirror.inject(faults.corrupted(100_000, 10), listener="cdn")
        scene.begin_node(f"mirror={mirror.endpoint},origin={scene.hub.endpoint}")
        for _ in range(3):
            ran = scene.download()
            if ran.code == CURL_CANNOT_RESUME:
                # It had wrong bytes, so it was given the whole instead of the rest, and says so.
                scene.remove_file()
            elif ran.code == 0:
                break
    _must_do(ran)
    _at_most(scene.hub_bytes, SIZE + IN_FLIGHT)


def _expiring_address(scene: Scene) -> None:
    scene.begin_node()
    scene.hub.behaviour.signed_url_seconds = 2
    _slow(scene.hub)
    _must_do(scene.download())
    if not any(record.status == 403 for record in scene.hub.requests_for(listener="cdn")):
        raise Wrong("no address expired")
    _at_most(scene.hub_bytes, SIZE * 1.05)


def _killed(scene: Scene) -> None:
    scene.begin_node()
    _slow(scene.hub)
    scene.download(lambda pid: scene.wait_for_part(), lambda pid: os.killpg(pid, signal.SIGKILL))
    _must_do(scene.download())
    _at_most(scene.hub_bytes, SIZE * 1.05)


def _break(scene: Scene) -> None:
    scene.wait_for_part()
    scene.hub.go_down()


def _slow(hub: HubSimulator) -> None:
    hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")


def _must_do(ran: Ran) -> None:
    if ran.code:
        raise Wrong("it ended with an error")


def _must_fail(ran: Ran) -> None:
    if ran.code == 0:
        raise Wrong("it ended without an error")


def _at_most(size: float, bound: float) -> None:
    if size > bound:
        raise Wrong(f"the hub gave {size / SIZE:.2f} of the file")


FAULTS: dict[str, Callable[[Scene], None]] = {
    "the hub dies at 40 %; later it is back": _hub_dies,
    "the hub dies at 40 %; a peer that has the file turns up": _peer_turns_up,
    "429 with Retry-After, four times": _busy,
    "a mirror gives wrong bytes": _lying_mirror,
    "the signed address expires midway": _expiring_address,
    "the client is killed at 40 %, and started again": _killed,
}


def _hf(job: Job) -> list[str | Path]:
    return [job.tool("hf"), "download", job.repo, BIG]


def _curl(job: Job) -> list[str | Path]:
    return ["curl", "-sSfL", "-C", "-", "-o", job.folder / "out", job.url(BIG)]


DOWNLOADERS = (
    Downloader("`hf download` 2", "2.x", _hf, lambda job: job.snapshot / BIG),
    Downloader("`hf download` 0.36", "0.36", _hf, lambda job: job.snapshot / BIG),
    Downloader("`curl -C -`", None, _curl, lambda job: job.folder / "out"),
)


@dataclass(frozen=True)
class Trial:
    """A fault and a downloader."""

    fault: str
    downloader: Downloader

    @property
    def name(self) -> str:
        return f"{self.fault}: {self.downloader.name}"

    @property
    def environment(self) -> str | None:
        return self.downloader.environment


TRIALS = tuple(Trial(fault, downloader) for fault in FAULTS for downloader in DOWNLOADERS)


@dataclass(frozen=True)
class Outcome:
    """`saw` is what each run of the client ended with; `hub_share` the hub's bytes as a part of the file's."""

    trial: Trial
    saw: tuple[str, ...] = ()
    hub_share: float = 0.0
    wrong: str = ""
    not_run: str = ""


def conduct(trials: Iterable[Trial], environments: Environments, folder: Path, at_once: int) -> list[Outcome]:
    """Runs them all. They mostly wait, so twice as many at a time as of others."""
    with ThreadPoolExecutor(2 * at_once) as pool:
        return list(pool.map(partial(_perform, environments, folder), trials))


def _perform(environments: Environments, folder: Path, trial: Trial) -> Outcome:
    began_at = time.monotonic()
    outcome = _outcome(environments, folder / f"fault-{TRIALS.index(trial)}", trial)
    said = outcome.not_run or outcome.wrong or "right"
    print(f"fault {trial.name:72} {time.monotonic() - began_at:5.1f} s  {said}", file=sys.stderr, flush=True)
    return outcome


def _outcome(environments: Environments, folder: Path, trial: Trial) -> Outcome:
    try:
        interpreter = environments.interpreter(trial.environment) if trial.environment else Path(sys.executable)
        if trial.downloader.name.startswith("`curl") and shutil.which("curl") is None:
            raise NotRun("there is no curl on this machine")
    except NotRun as error:
        return Outcome(trial, not_run=str(error))
    folder.mkdir()
    body = noise(SIZE, trial.name)
    with HubSimulator() as hub, Machines(folder) as machines:
        hub.behaviour.xet_headers = hub.behaviour.xet_trees = True
        place = Place(REPO, "model", hub.put_repo("model", REPO, {BIG: Lfs(body)}), {BIG: body})
        scene = Scene(hub, machines, folder, trial.downloader, interpreter, place)
        wrong = _wrong(FAULTS[trial.fault], scene)
        return Outcome(trial, tuple(scene.saw), scene.hub_bytes / SIZE, wrong)


def _wrong(act: Callable[[Scene], None], scene: Scene) -> str:
    try:
        act(scene)
    except Wrong as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a trial that breaks is a failed cell, not a failed run
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def _seen(scene: Scene, ran: Ran) -> str:
    """Exit code and last line, without what differs from run to run."""
    line = last_line(ran).replace(str(scene.folder), "…")
    line = re.sub(r"https?://[\w.:]+", "ENDPOINT", line)
    line = re.sub(r"\b[0-9a-f]{40,64}\b", "…", line)
    line = re.sub(r"\d{4,}", "N", line).replace("|", "\\|")
    return f"exit {ran.code}" + (f": {shortened(line)}" if line and ran.code else "")


def shortened(text: str, length: int = 100) -> str:
    """The text, cut at a word if it is long."""
    return text if len(text) <= length else text[:length].rpartition(" ")[0] + " …"


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The second table as Markdown."""
    found = [LEGEND, "", "| fault | client | result | what it saw, run by run | the hub gave |", "|---" * 5 + "|"]
    found += [
        f"| {outcome.trial.fault} | {outcome.trial.downloader.name} | {_verdict(outcome)} "
        f"| {'; then '.join(outcome.saw)} | {outcome.hub_share:.2f} of the file |"
        for outcome in outcomes
    ]
    return found if outcomes else []


def _verdict(outcome: Outcome) -> str:
    if outcome.not_run:
        return f"not run: {outcome.not_run}"
    return f"✗ {outcome.wrong}" if outcome.wrong else "✓"
