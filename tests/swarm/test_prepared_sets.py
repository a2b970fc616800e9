"""Prepared sets between nodes: `hfpeer dataset add --prepared` takes them from a peer that shares them, and `datasets`
loads them without a network."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.machine import HFPEER, Machine, Machines
from fakes.prepared import needs_datasets, place_of, write_arrow, write_arrow_set
from fakes.waiting import wait_until
from hfpeer.config.settings import read_settings
from hfpeer.names import RepoId
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.node.operations.prepared.sharing import share_sets
from hfpeer.prepared.results import PreparedSet

pytestmark = [needs_datasets, pytest.mark.slow]
LINES = RepoId.parse("acme/Lines", "dataset")
ROWS = 12_000
LISTS = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
OLD = """#!/bin/sh
echo '["'$0'", "3.6.0", "17.0.0", "0.36.2"]'
"""
"""A Python that says of its `datasets` that it has version 3.6.0."""
HANGS = """
import signal, sys, time
if "build" in sys.orig_argv:
    signal.signal(signal.SIGALRM, lambda *_: time.sleep(100))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
"""
"""Makes a build hang."""
LOAD = """
import json, sys, datasets
loaded = datasets.load_dataset(sys.argv[1], split="train")
print(json.dumps([loaded.num_rows, loaded[int(sys.argv[2])]]))
"""


def row(number: int) -> dict[str, Any]:
    return {"id": number, "tags": [f"{number:0100}", "x" * 200]}


def share_by_hand(machine: Machine, repo: RepoId, commit: str) -> None:
    """Does on a machine what `dataset prepare` does at its end: lets peers have the set that lies there."""
    places = SetPlaces(read_settings(machine.environ, home=machine.home))
    one = PreparedSet(repo.full_name, commit, "default", "default", "", 0, 0, "built", "rebuilt", "", "", "")
    share_sets(places, [one])


def datasets_of(machine: Machine) -> Path:
    return machine.cache.parent / "datasets"


def set_folder(machine: Machine, commit: str) -> Path:
    return place_of(LINES, commit).folder(datasets_of(machine))


def own_folders(machine: Machine, kind: str) -> list[Path]:
    """The folders in which hfpeer makes a set."""
    return [path for path in datasets_of(machine).glob(f".hfpeer/{kind}-*") if path.is_dir()]


def offered(machine: Machine) -> list[str]:
    """The repos of sets that a stranger on the LAN finds in the catalog."""
    connection = http.client.HTTPConnection(machine.address, timeout=10)
    try:
        connection.request("GET", "/catalog")
        listed = json.loads(connection.getresponse().read())["revisions"]
    finally:
        connection.close()
    return [one["repo"] for one in listed if "hfpeer-prepared" in one["repo"]]


def add_prepared(machine: Machine, *words: str) -> Any:
    (one,) = machine.do("dataset", "add", "--prepared", "-r", "acme/Lines", *words)
    return one


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def commit(hub: HubSimulator) -> str:
    body = "".join(json.dumps(row(number)) + "\n" for number in range(ROWS)).encode()
    return hub.put_repo("dataset", "acme/Lines", {"README.md": b"# lines", "train.jsonl": Lfs(body)})


@pytest.fixture(scope="module")
def giver(machines: Machines, hub: HubSimulator, commit: str) -> Machine:
    """Has the set, and shares it."""
    giver = machines.make("giver", upstreams=f"origin={hub.endpoint}", HFPEER_PREPARED_SHARE="true")
    giver.start()
    (made,) = giver.do("dataset", "prepare", "-r", "acme/Lines")
    assert (made["how"], made["level"], made["rows"]) == ("built", "rebuilt", ROWS)
    return giver


@pytest.fixture
def taker(machines: Machines, hub: HubSimulator, giver: Machine, request: pytest.FixtureRequest) -> Machine:
    """A new machine that knows the giver."""
    return taker_of(machines, hub, request.node.name.removeprefix("test_")[:24], giver)


def taker_of(machines: Machines, hub: HubSimulator, name: str, *givers: Machine) -> Machine:
    taker = machines.make(name, upstreams=f"origin={hub.endpoint}", peers=[giver.address for giver in givers])
    taker.start()
    for giver in givers:
        taker.wait_until_it_knows(giver)
    return taker


def test_a_set_comes_from_a_peer_is_compared_and_loads_offline(
    giver: Machine, taker: Machine, hub: HubSimulator, commit: str
) -> None:
    hub.clear()
    ran = taker.run(*HFPEER, "dataset", "add", "--prepared", "-r", "acme/Lines")
    assert ran.code == 0 and ran.out == f"{set_folder(taker, commit)}\n", ran.err
    assert "taken from giver" in ran.err and "checked: its rows equal those of the proved files" in ran.err
    assert hub.body_bytes_sent("/repos/*") == 0 and not hub.requests_for("*hfpeer-prepared*")
    shard = set_folder(giver, commit) / "lines-train.arrow"
    assert taker.received_bytes()["peer"] > shard.stat().st_size
    assert (set_folder(taker, commit) / shard.name).read_bytes() == shard.read_bytes()
    assert taker.python(LOAD, "acme/Lines", "7", HF_HUB_OFFLINE="1") == [ROWS, row(7)]
    assert not list(taker.cache.glob("*hfpeer-prepared*")) and offered(taker) == []


def test_an_owner_who_stops_sharing_sets_offers_none(giver: Machine) -> None:
    assert offered(giver)
    giver.stop()
    try:
        giver.environ["HFPEER_PREPARED_SHARE"] = "false"
        giver.start()
        assert offered(giver) == []
        giver.stop()
    finally:
        giver.environ["HFPEER_PREPARED_SHARE"] = "true"
        giver.start()


def test_a_set_is_as_visible_as_the_commit_that_it_was_made_of(machines: Machines, hub: HubSimulator) -> None:
    """Public, gated and private by the word of the hub; unknown, because no hub has the repo."""
    import pyarrow as pa

    names = ("Open", "Gated", "Private", "Unknown")
    repos = {name: RepoId.parse(f"acme/{name}", "dataset") for name in names}
    for name in names[:-1]:
        hub.put_repo("dataset", f"acme/{name}", {"train.jsonl": name.encode()})
    hub.repo("dataset", "acme/Gated").gated = "auto"
    hub.repo("dataset", "acme/Private").is_private = True
    owner = machines.make("owner", upstreams=f"origin={hub.endpoint}", HFPEER_PREPARED_SHARE="true")
    owner.start()
    commits = {
        name: owner.do("dataset", "add", "-r", f"acme/{name}", HF_TOKEN=hub.valid_token)["commit"]
        for name in names[:-1]
    }
    commits["Unknown"] = "5" * 40
    (owner.cache / repos["Unknown"].folder / "snapshots" / commits["Unknown"]).mkdir(parents=True)
    for name, repo in repos.items():
        table = {"train": pa.table({"text": [name]})}
        write_arrow_set(datasets_of(owner), place_of(repo, commits[name]), table, {})
        share_by_hand(owner, repo, commits[name])
    wait_until(lambda: offered(owner), "the set of the public repo is offered")
    assert [name.split("/")[2].split("-")[0] for name in offered(owner)] == ["Open"]
    sets = {one["repo"]: one for one in owner.do("dataset", "ls") if "hfpeer-prepared" in one["repo"]}
    shown = {name.split("/")[1].split("-")[0]: one["visibility"] for name, one in sets.items()}
    assert shown == {"Open": "published", "Gated": "gated", "Private": "private", "Unknown": "unknown"}


def test_a_set_that_the_datasets_here_cannot_read_is_told_before_its_shards_move(
    machines: Machines, hub: HubSimulator, giver: Machine, taker: Machine, tmp_path: Path
) -> None:
    """Of a script, so that it cannot be built here; then a newer Python takes it on the word of the peer."""
    import pyarrow as pa

    repo = RepoId.parse("acme/scripted", "dataset")
    commit = hub.put_repo("dataset", "acme/scripted", {"scripted.py": b"raise SystemExit(3)"})
    giver.do("dataset", "add", "-r", "acme/scripted")
    table = {"train": pa.table({"tags": [[os.urandom(500).hex()] for _ in range(500)]})}
    folder = write_arrow_set(datasets_of(giver), place_of(repo, commit), table, {"tags": LISTS})
    share_by_hand(giver, repo, commit)
    old = tmp_path / "python"
    old.write_text(OLD)
    old.chmod(0o755)
    words = ("dataset", "add", "--prepared", "--trust-peers", "-r", "acme/scripted")
    ran = taker.hfpeer(*words, "--python", str(old))
    assert ran.code == 2 and "made by a script" in ran.problem["message"]
    assert f"is not taken: it needs datasets 4.0 or newer, and {old} has 3.6.0." in ran.problem["message"]
    shard = folder / "scripted-train.arrow"
    assert taker.present_bytes() < 20_000 < shard.stat().st_size
    (taken,) = taker.do(*words)
    assert (taken["how"], taken["level"], taken["taken_from"]) == ("taken", "attested", "giver")
    assert (Path(taken["folder"]) / shard.name).read_bytes() == shard.read_bytes()


def test_wrong_bytes_and_wrong_rows_of_peers_are_refused_and_named(
    machines: Machines, hub: HubSimulator, giver: Machine, commit: str, tmp_path: Path
) -> None:
    """One peer changes every second piece that it sends; another has a set with one wrong row."""
    import pyarrow as pa

    liar, wrong = (
        machines.make(name, upstreams=f"origin={hub.endpoint}", HFPEER_PREPARED_SHARE="true")
        for name in ("liar", "wrong")
    )
    for machine in (liar, wrong):
        machine.do("dataset", "add", "-r", "acme/Lines")
        shutil.copytree(set_folder(giver, commit), set_folder(machine, commit))
    (set_folder(wrong, commit) / ".hfpeer.json").unlink()
    with pa.OSFile(str(set_folder(giver, commit) / "lines-train.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    ids = [*range(17), -1, *range(18, ROWS)]
    write_arrow(
        set_folder(wrong, commit) / "lines-train.arrow", table.set_column(0, table.schema.field(0), pa.array(ids))
    )
    for machine in (liar, wrong):
        share_by_hand(machine, LINES, commit)
    lies = tmp_path / "lies"
    liar.start_changed(f"from fakes.liar import lie\nfrom pathlib import Path\nlie(Path({str(lies)!r}), 2)")
    wrong.start()
    victim = taker_of(machines, hub, "victim", liar, wrong)
    victim.do("dataset", "add", "-r", "acme/Lines", "--no-peers")
    made = add_prepared(victim)
    assert (made["how"], made["level"]) == ("built", "rebuilt")
    notes = " ".join(made["notes"])
    assert lies.exists() and "The set of liar is not taken: lines-train.arrow does not hash to" in notes
    assert "The set of wrong is not taken: It is not what the commit gives: split train, row 17, column id" in notes
    assert victim.python(LOAD, "acme/Lines", "17", HF_HUB_OFFLINE="1") == [ROWS, row(17)]


def test_a_set_that_no_peer_has_is_built_and_a_killed_build_leaves_nothing(
    machines: Machines, hub: HubSimulator, commit: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    builder = machines.make("builder", upstreams=f"origin={hub.endpoint}")
    words = ("dataset", "add", "--prepared", "-r", "acme/Lines")
    process = builder.begin(*HFPEER, *words, PYTHONPATH=str(tmp_path))
    wait_until(lambda: builds_below(builder) or process.poll() is not None, "datasets runs")
    os.kill(process.pid, signal.SIGKILL)
    assert builder.finish(process).code == -signal.SIGKILL
    wait_until(lambda: not builds_below(builder), "the build ends with the command that began it")
    assert not list(datasets_of(builder).glob("acme*"))
    made = add_prepared(builder)
    assert (made["how"], made["level"], made["rows"]) == ("built", "rebuilt", ROWS)
    assert made["notes"] == [f"No peer that answers shares a prepared set of {LINES} at {commit[:12]}."]
    assert builder.do("dataset", "ls", "--prepared")["leftovers"] == []


def builds_below(machine: Machine) -> list[int]:
    """The processes that build a set for a machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            cache = next((one for one in variables if one.startswith(b"HF_DATASETS_CACHE=")), b"")
            if cache.partition(b"=")[2].startswith(f"{datasets_of(machine)}/.hfpeer/build".encode()):
                found.append(int(entry.name))
    return found


def test_a_taking_that_is_killed_goes_on_and_shows_no_half_set(taker: Machine, giver: Machine, commit: str) -> None:
    """Killed twice: command and daemon while the set comes, and the command while the set is put in its place."""
    process = taker.begin(*HFPEER, "dataset", "add", "--prepared", "-r", "acme/Lines")
    wait_until(lambda: list(taker.cache.glob("*hfpeer-prepared*")) or process.poll() is not None, "the set comes")
    taker.kill()
    os.kill(process.pid, signal.SIGKILL)
    taker.finish(process)
    assert not list(datasets_of(taker).glob("acme*"))
    taker.start()
    taker.wait_until_it_knows(giver)
    process = taker.begin(*HFPEER, "dataset", "add", "--prepared", "-r", "acme/Lines")
    wait_until(lambda: own_folders(taker, "take") or process.poll() is not None, "the set is put in its place")
    os.kill(process.pid, signal.SIGKILL)
    assert taker.finish(process).code == -signal.SIGKILL
    assert not list(datasets_of(taker).glob("acme*/*/*/*/*"))
    made = add_prepared(taker)
    assert (made["how"], made["level"], made["rows"]) == ("taken", "checked", ROWS)
    assert taker.do("dataset", "ls", "--prepared")["leftovers"] == []
