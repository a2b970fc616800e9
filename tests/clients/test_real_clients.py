"""The main job as Hugging Face's own clients see it: a repo comes from the hub to one machine, and from that machine,
with every upstream off, to the next. On both it is what the Hub client would have put there."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import ZOO_FILES, Content, Executable, HubSimulator, Lfs, Symlink, put_zoo
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines

HF = (sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()")
REPOS = [("model", "acme/zoo"), ("dataset", "acme/answers"), ("space", "acme/zoo-guide"), ("model", "gpt2")]
NAMES = [f"{kind} {name}" for kind, name in REPOS]


def files_of(name: str) -> dict[str, Content]:
    """The zoo, or a few files of which no other repo has any: what is here already would not be fetched."""
    if name == "model acme/zoo":
        return ZOO_FILES
    weights: dict[str, Content] = {
        "config.json": f'{{"it is": "{name}"}}'.encode(),
        "nested/data.bin": Lfs(noise(2_500_000, name)),
    }
    return {**weights, "README.md": f"# {name}\n".encode()}


@dataclass(frozen=True)
class Job:
    """The main job, done: what came from where, and by which machine."""

    hub: HubSimulator
    mirror: HubSimulator
    first: Machine
    second: Machine
    commits: dict[str, str]
    added: dict[str, dict[str, Any]]
    requests_while_off: list[str]

    def machine(self, name: str) -> Machine:
        return {"first": self.first, "second": self.second}[name]


@pytest.fixture(scope="module")
def job(machines: Machines) -> Iterator[Job]:
    with HubSimulator() as hub, HubSimulator(mirror_of=hub) as mirror:
        commits = {
            "model acme/zoo": put_zoo(hub.storage),
            "dataset acme/answers": hub.put_repo("dataset", "acme/answers", files_of("dataset acme/answers")),
            "space acme/zoo-guide": hub.put_repo("space", "acme/zoo-guide", files_of("space acme/zoo-guide")),
            "model gpt2": hub.put_repo("model", "gpt2", files_of("model gpt2")),
        }
        upstreams = f"mirror={mirror.endpoint},origin={hub.endpoint}"
        first = machines.make("first", upstreams=upstreams, HF_ENDPOINT=hub.endpoint)
        first.start()
        second = machines.make("second", upstreams=upstreams, HF_ENDPOINT=hub.endpoint, HFPEER_PEERS=first.address)
        second.start()
        added = {f"first {kind} {name}": first.do(kind, "add", "-r", name) for kind, name in REPOS}
        for simulator in (hub, mirror):
            simulator.wait_until_quiet()
            simulator.clear()
        with hub.down(), mirror.down():
            for kind, name in REPOS:
                commit = commits[f"{kind} {name}"]
                added[f"second {kind} {name}"] = second.do(kind, "add", "-r", name, "-v", commit)
                second.do(kind, "add", "-r", name)
        yield Job(hub, mirror, first, second, commits, added, list(map(str, hub.requests + mirror.requests)))


def expected(name: str) -> dict[str, bytes]:
    """The bytes of every file that a client shows, by path: a link's are its target, a submodule is none."""
    return {path: body for path, content in files_of(name).items() if (body := _body(content)) is not None}


def _body(content: Content) -> bytes | None:
    if isinstance(content, bytes):
        return content
    if isinstance(content, Lfs | Executable):
        return content.data
    return content.target.encode() if isinstance(content, Symlink) else None


def contents(snapshot: str) -> dict[str, bytes]:
    folder = Path(snapshot)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


on_both = pytest.mark.parametrize("where", ["first", "second"])
of_each = pytest.mark.parametrize(("kind", "name"), REPOS, ids=NAMES)

OFFLINE_SNAPSHOT = """
import json, sys, warnings
from huggingface_hub import snapshot_download
warnings.simplefilter("error")
kind, name, revision = sys.argv[1:]
print(json.dumps(snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True)))
"""


@of_each
def test_the_first_machine_gets_it_over_the_internet(job: Job, kind: str, name: str) -> None:
    added = job.added[f"first {kind} {name}"]
    assert added["commit"] == job.commits[f"{kind} {name}"]
    assert set(added["bytes_by_kind"]) <= {"mirror", "origin"}
    assert sum(added["bytes_by_kind"].values()) == added["size_bytes"]


@of_each
def test_the_second_gets_it_from_the_first_with_every_upstream_off(job: Job, kind: str, name: str) -> None:
    added = job.added[f"second {kind} {name}"]
    assert added["bytes_by_source"] == {"first": added["size_bytes"]}
    assert added["wan_saved_bytes"] == added["size_bytes"]


def test_not_one_request_reached_an_upstream_meanwhile(job: Job) -> None:
    assert job.requests_while_off == []
    assert set(job.second.received_bytes()) == {"peer"}
    assert set(job.first.received_bytes()) <= {"mirror", "origin"}


@on_both
@of_each
def test_the_hub_client_offline_gives_the_same_path_and_bytes(job: Job, kind: str, name: str, where: str) -> None:
    snapshot = job.added[f"{where} {kind} {name}"]["snapshot"]
    for revision in ("main", job.commits[f"{kind} {name}"]):
        path = job.machine(where).python(OFFLINE_SNAPSHOT, kind, name, revision, HF_HUB_OFFLINE="1")
        assert path == snapshot
    assert contents(snapshot) == expected(f"{kind} {name}")


@on_both
@of_each
def test_hf_cache_verify_finds_every_file_right(job: Job, kind: str, name: str, where: str) -> None:
    machine, commit = job.machine(where), job.commits[f"{kind} {name}"]
    strict = ("--fail-on-missing-files", "--fail-on-extra-files", "--format", "json")
    ran = machine.run(*HF, "cache", "verify", name, "--type", kind, "--revision", commit, *strict)
    assert ran.code == 0, ran.err + ran.out
    assert ran.document["checked"] == len(expected(f"{kind} {name}"))


@on_both
def test_hf_cache_ls_shows_it_without_a_warning(job: Job, where: str) -> None:
    ran = job.machine(where).run(*HF, "cache", "ls", "--format", "json", HF_HUB_OFFLINE="1")
    assert ran.code == 0 and "warn" not in ran.err.lower(), ran.err
    rows = {f"{row['repo_type']} {row['repo_id']}": row for row in ran.document}
    assert set(rows) == {f"{kind} {name}" for kind, name in REPOS}


SCAN = """
import json
from huggingface_hub import scan_cache_dir
found = scan_cache_dir()
print(json.dumps({
    "warnings": list(map(str, found.warnings)),
    "revisions": {f"{repo.repo_type} {repo.repo_id}": {r.commit_hash: sorted(r.refs) for r in repo.revisions}
                  for repo in found.repos},
    "files": {f"{repo.repo_type} {repo.repo_id}": sum(len(r.files) for r in repo.revisions) for repo in found.repos},
}))
"""


@on_both
def test_a_scan_of_the_cache_by_the_hub_client_has_nothing_to_complain_of(job: Job, where: str) -> None:
    found = job.machine(where).python(SCAN)
    assert found["warnings"] == []
    assert found["revisions"] == {name: {commit: ["main"]} for name, commit in job.commits.items()}
    assert found["files"] == {name: len(expected(name)) for name in NAMES}


DOWNLOAD_ONE = """
import json, sys
from huggingface_hub import hf_hub_download
print(json.dumps(hf_hub_download("acme/zoo", sys.argv[1])))
"""


@on_both
@pytest.mark.parametrize("path", ["model.safetensors", "odd names/a b+c&d=e?.txt", "unicode/naïve-模型-🤗.txt"])
def test_hf_hub_download_asks_for_no_body(job: Job, where: str, path: str) -> None:
    job.hub.clear()
    found = job.machine(where).python(DOWNLOAD_ONE, path)
    assert found == f"{job.added[f'{where} model acme/zoo']['snapshot']}/{path}"
    assert {record.method for record in job.hub.requests_for("*/resolve/*")} <= {"HEAD"}
    assert job.hub.requests_for(listener="cdn") == []


def test_the_cache_lies_as_the_hub_client_lays_it(job: Job, machines: Machines) -> None:
    """Beside a cache that `snapshot_download` made of the same hub: the same files, links and refs."""
    third = machines.make("third", HF_ENDPOINT=job.hub.endpoint)
    script = OFFLINE_SNAPSHOT.replace(", local_files_only=True", "")
    for kind, name in REPOS:
        third.python(script, kind, name, "main")
    assert layout(job.second.cache) == layout(third.cache)


def layout(cache: Path) -> dict[str, str]:
    """What every tool reads in a cache: blobs by hash, links by target, refs by text; not locks, tags and listings."""
    found = {}
    for path in sorted(cache.glob("*s--*/**/*")):
        where = str(path.relative_to(cache))
        if path.is_symlink():
            found[where] = f"-> {path.readlink()}"
        elif path.is_file() and path.parts[len(cache.parts) + 1] in ("blobs", "refs"):
            found[where] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_status_is_json_with_what_tests_from_outside_read(job: Job) -> None:
    status = job.second.do("status")
    assert {"node_id", "version", "listeners", "peers", "received_bytes"} <= set(status)
    assert {"lan", "endpoint", "control"} <= set(status["listeners"]), json.dumps(status["listeners"])
    assert [peer["name"] for peer in status["peers"]] == ["first"]
