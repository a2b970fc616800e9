"""The eight jobs of docs/en/guide/modelscope.md, run as written. ModelScope's own client downloads the result."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines, Ran
from fakes.modelscope import ModelScopeSimulator, User
from fakes.modelscope.storage import PRIVATE
from fakes.modelscope_client import ModelScopeClient, needs_client
from fakes.network.program import kill_session

pytestmark = needs_client

PAGE = (Path(__file__).parents[2] / "docs" / "en" / "guide" / "modelscope.md").read_text()
JOBS = dict(re.findall(r"^\| ([^|]+?) \| `(hfpeer modelscope (?:push|verify) [^`]+)` \|$", PAGE, re.MULTILINE))
LIST = next(block for block in PAGE.split("```")[1::2] if block.startswith("\nmicrosoft/"))
WRITER = User("carol", "ms-carol-may-write-0000-000000000000", organisations=("your-org",))
SMALL, MEDIUM, SQUAD = "microsoft/DialoGPT-small", "microsoft/DialoGPT-medium", "rajpurkar/squad"


def files_of(name: str, size_bytes: int) -> dict[str, Content]:
    return {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": f"---\nlicense: mit\n---\n# {name}\n".encode(),
        "config.json": f'{{"name": "{name}"}}'.encode(),
        "model.safetensors": Lfs(noise(size_bytes, name)),
        "onnx/model.onnx": Lfs(noise(300_000, f"onnx of {name}")),
    }


FILES = {
    SMALL: files_of(SMALL, 200_000),
    MEDIUM: files_of(MEDIUM, 2_000_000),
    SQUAD: files_of(SQUAD, 700_000),
    "private-org/model": files_of("private-org/model", 900_000),
}


def sha256s(files: dict[str, Content]) -> dict[str, str]:
    bodies = {path: each.data if isinstance(each, Lfs) else each for path, each in files.items()}
    return {path: hashlib.sha256(data).hexdigest() for path, data in bodies.items() if isinstance(data, bytes)}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", SMALL, FILES[SMALL])
        hub.put_repo("model", MEDIUM, FILES[MEDIUM])
        commit = hub.put_repo("dataset", SQUAD, FILES[SQUAD])
        hub.repo("dataset", SQUAD).set_ref("refs/convert/parquet", commit)
        hub.put_repo("model", "private-org/model", FILES["private-org/model"], visibility="private")
        yield hub


@pytest.fixture(scope="module")
def machine(machines: Machines, hub: HubSimulator) -> Machine:
    machine = machines.make("pusher", upstreams=f"origin={hub.endpoint}")
    machine.start()
    return machine


@dataclass
class Desk:
    """A machine whose user works on the jobs, in a folder with the list of the page, and a ModelScope that is empty."""

    machine: Machine
    site: ModelScopeSimulator
    folder: Path

    def do(self, command: str, **environ: str) -> Ran:
        """Runs a command as the page has it."""
        words = [str(self.folder / word) if word == "models.txt" else word for word in shlex.split(command)[1:]]
        return self.machine.finish(self.begin(*words, **environ))

    def begin(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Starts `hfpeer WORDS`."""
        kept = {"MODELSCOPE_ENDPOINT": self.site.endpoint, "MODELSCOPE_HOME": str(self.folder / "modelscope")}
        return self.machine.begin_hfpeer(*words, **kept, **environ)

    def result(self, command: str, **environ: str) -> Any:
        ran = self.do(command, **environ)
        assert ran.code == 0, ran.err
        return ran.document

    def has(self, target: str, source: str, kind: str = "model") -> None:
        """ModelScope's own client downloads the files of the source from the target."""
        client = ModelScopeClient(self.site.endpoint, self.folder, WRITER.token)
        assert client.download(target, kind, target.replace("/", "-")) == sha256s(FILES[source])

    def log_in(self) -> None:
        self.result(f"hfpeer modelscope login --token {WRITER.token}")


@pytest.fixture
def desk(machine: Machine, hub: HubSimulator, tmp_path: Path) -> Iterator[Desk]:
    hub.clear()
    (tmp_path / "models.txt").write_text(LIST)
    with ModelScopeSimulator() as site:
        site.storage.users[WRITER.token] = WRITER
        desk = Desk(machine, site, tmp_path)
        desk.log_in()
        yield desk


def test_the_page_has_eight_jobs() -> None:
    assert len(JOBS) == 8


def test_one_repo(desk: Desk) -> None:
    report = desk.result(JOBS["one repo"])
    assert (report["state"], report["visibility"], report["sent_bytes"]) == ("pushed", "public", 2_300_000)
    assert desk.site.uploads.received_bytes == 2_300_000
    desk.has("your-org/DialoGPT-medium", MEDIUM)


def test_a_private_one(desk: Desk, hub: HubSimulator) -> None:
    ran = desk.do(JOBS["a private one"])
    assert ran.code == 4, "without a token of the Hub there is no such repo"
    report = desk.result(JOBS["a private one"], HF_TOKEN=hub.valid_token)
    assert report["visibility"] == "private"
    assert desk.site.storage.repos["model", "your-org/model"].visibility == PRIVATE
    desk.has("your-org/model", "private-org/model")
    assert hub.requests_with_token(hub.valid_token) and not hub.requests_with_token(WRITER.token)
    assert not desk.site.requests_with_token(hub.valid_token)


def test_only_compare(desk: Desk) -> None:
    assert desk.do(JOBS["only compare"]).code == 4
    desk.result(JOBS["one repo"])
    desk.site.clear()
    report = desk.result(JOBS["only compare"])
    assert (report["same_files"], report["exit_code"]) == (5, 0)
    assert {record.method for record in desk.site.requests} == {"GET"}


def test_a_message_of_your_own(desk: Desk) -> None:
    desk.result(JOBS["a message of your own"])
    assert desk.site.commits("your-org/DialoGPT-medium") == ["From HF"]
    desk.has("your-org/DialoGPT-medium", MEDIUM)


@pytest.mark.parametrize("job", ["many, from a list", "several at once"])
def test_many_from_a_list(desk: Desk, job: str) -> None:
    outcomes = desk.result(JOBS[job])
    assert [one["state"] for one in outcomes] == ["pushed"] * 3
    desk.has("your-org/DialoGPT-small", SMALL)
    desk.has("your-org/DialoGPT-medium", MEDIUM)
    desk.has("your-org/squad", SQUAD, "dataset")


def test_only_large_ones(desk: Desk) -> None:
    outcomes = desk.result(JOBS["only large ones"].replace("100MB", "1MB"))
    assert [one["state"] for one in outcomes] == ["skipped", "pushed", "pushed"]
    assert desk.site.storage.repos.keys() == {("model", "your-org/DialoGPT-medium"), ("dataset", "your-org/squad")}
    desk.has("your-org/DialoGPT-medium", MEDIUM)


def test_only_what_is_new(desk: Desk, hub: HubSimulator) -> None:
    desk.result(JOBS["many, from a list"])
    desk.site.clear()
    assert [one["state"] for one in desk.result(JOBS["only what is new"])] == ["up to date"] * 3
    assert not desk.site.uploads.all and not desk.site.requests_for("*/commit/*")
    later = {**FILES[SMALL], "new.safetensors": Lfs(noise(50_000, "new"))}
    hub.repo("model", SMALL).commit({"new.safetensors": later["new.safetensors"]})
    outcomes = desk.result(JOBS["only what is new"])
    assert [one["state"] for one in outcomes] == ["pushed", "up to date", "up to date"]
    assert desk.site.uploads.received_bytes == 50_000
    client = ModelScopeClient(desk.site.endpoint, desk.folder, WRITER.token)
    assert client.download("your-org/DialoGPT-small") == sha256s(later)


def test_a_push_that_was_killed_goes_on_and_sends_one_file_again_at_most(desk: Desk, hub: HubSimulator) -> None:
    files: dict[str, Content] = {f"{n}.safetensors": Lfs(noise(1_000_000, f"shard {n}")) for n in range(6)}
    hub.put_repo("model", "acme/shards", files)
    command = "hfpeer modelscope push -r acme/shards --to your-org/shards --uploads 1"
    desk.site.uploads.bytes_per_second = 3_000_000
    running = desk.begin(*shlex.split(command)[1:])
    desk.site.uploads.wait_for_bytes(3_000_000)
    kill_session(running)
    desk.site.uploads.bytes_per_second = None
    report = desk.result(command)
    assert report["stored_bytes"] >= 2_000_000 and report["stored_bytes"] + report["sent_bytes"] == 6_000_000
    assert 6_000_000 <= desk.site.uploads.received_bytes <= 7_000_000
    assert sum(upload.is_whole for upload in desk.site.uploads.all) == 6, "no stored blob came again"
    client = ModelScopeClient(desk.site.endpoint, desk.folder, WRITER.token)
    assert client.download("your-org/shards") == sha256s(files)
