"""Hugging Face's own tools with HF_ENDPOINT set to a node and nothing else: cold, warm, and with the hub off."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Stage, staged
from fakes.hub import ZOO_FILES, Executable, Lfs, Symlink, faults, put_zoo
from fakes.hub.zoo import noise
from fakes.machine import Machines, Ran
from fakes.waiting import wait_until

HF = (sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()")
MODES = ("cold", "warm", "off")
BIG = noise(20_000_000, "big")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def stage(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("tools"), machines) as stage:
        yield stage


def fresh_repo(stage: Stage, name: str) -> str:
    return put_zoo(stage.hub.storage, repo_id=f"acme/{name}")


def in_each_mode(stage: Stage, name: str, do: Any) -> None:
    """Does it cold, then warm, then with the hub off, each with a cache of its own; only the first may ask the hub for
    more than what the branch is."""
    for mode in MODES:
        env = stage.tool(f"{name}-{mode}")
        stage.requests()
        if mode == "off":
            with stage.hub.down():
                do(env)
        else:
            do(env)
        asked = stage.requests()
        assert mode == "cold" or not [line for line in asked if "/resolve/" in line or "/tree/" in line], asked
        assert mode != "off" or asked == []


def expected() -> dict[str, bytes]:
    bodies: dict[str, bytes] = {}
    for path, content in ZOO_FILES.items():
        if isinstance(content, bytes):
            bodies[path] = content
        elif isinstance(content, Lfs | Executable):
            bodies[path] = content.data
        elif isinstance(content, Symlink):
            bodies[path] = content.target.encode()
    return bodies


def contents(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def script(stage: Stage, text: str, env: dict[str, str], *arguments: str) -> Any:
    return stage.machine.python(text, *arguments, **env)


SNAPSHOT = "import json, sys; from huggingface_hub import snapshot_download as s; print(json.dumps(s(sys.argv[1])))"


@pytest.mark.parametrize("xet", ["xet", "no xet"])
def test_snapshot_download(stage: Stage, xet: str) -> None:
    stage.hub.behaviour.xet_headers = stage.hub.behaviour.xet_trees = True
    name = f"snapshot-{xet.replace(' ', '-')}"
    fresh_repo(stage, name)
    more = {"HF_HUB_DISABLE_XET": "1"} if xet == "no xet" else {}

    def do(env: dict[str, Any]) -> None:
        assert contents(script(stage, SNAPSHOT, {**env, **more}, f"acme/{name}")) == expected()

    in_each_mode(stage, name, do)
    assert not stage.hub.requests_for(listener="cas")
    stage.hub.behaviour.xet_headers = stage.hub.behaviour.xet_trees = False


ONE_FILE = """
import json, sys
from huggingface_hub import hf_hub_download, file_exists
path = hf_hub_download(sys.argv[1], "odd names/100% #1.txt")
print(json.dumps([open(path).read(), file_exists(sys.argv[1], "no.txt"), file_exists(sys.argv[1], "run.sh")]))
"""


def test_one_file(stage: Stage) -> None:
    fresh_repo(stage, "one-file")

    def do(env: dict[str, Any]) -> None:
        assert script(stage, ONE_FILE, env, "acme/one-file") == ["percent, hash and space\n", False, True]

    in_each_mode(stage, "one-file", do)


FILE_SYSTEM = """
import json, sys
from huggingface_hub import HfFileSystem
fs = HfFileSystem()
repo = sys.argv[1]
with fs.open(f"{repo}/model.safetensors") as file:
    file.seek(2_000_000); middle = file.read(10).hex()
print(json.dumps([sorted(fs.glob(f"{repo}/**/*.safetensors")), middle, fs.info(f"{repo}/nested")["type"],
                  fs.cat_file(f"{repo}/config.json").decode(), fs.exists(f"{repo}/no.txt")]))
"""


def test_the_file_system(stage: Stage) -> None:
    fresh_repo(stage, "fs")
    weights: Any = ZOO_FILES["model.safetensors"]

    def do(env: dict[str, Any]) -> None:
        names = ["acme/fs/model.safetensors", "acme/fs/nested/weights/part-00001.safetensors"]
        middle = weights.data[2_000_000:2_000_010].hex()
        config = ZOO_FILES["config.json"].decode()  # type: ignore[union-attr]
        assert script(stage, FILE_SYSTEM, env, "acme/fs") == [names, middle, "directory", config, False]

    in_each_mode(stage, "fs", do)


def test_the_command_line_downloads_and_verifies(stage: Stage) -> None:
    fresh_repo(stage, "cli")

    def do(env: dict[str, Any]) -> None:
        ran = stage.machine.run(*HF, "download", "acme/cli", "--format", "quiet", **env)
        assert ran.code == 0, ran.err
        ran = stage.machine.run(*HF, "cache", "verify", "acme/cli", **env)
        assert ran.code == 0, ran.err
        ran = stage.machine.run(*HF, "models", "info", "acme/cli", "--format", "json", **env)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["id"] == "acme/cli"

    in_each_mode(stage, "cli", do)


ERRORS = """
import json, sys
from huggingface_hub import hf_hub_download, model_info, repo_exists
from huggingface_hub.errors import *
def name(*args, **options):
    try: hf_hub_download(*args, **options)
    except Exception as error: return type(error).__name__
print(json.dumps([name("acme/nobody", "a"), name("acme/errors", "a"), name("acme/errors", "config.json", revision="no"),
                  name("acme/closed", "config.json"), repo_exists("acme/nobody"), repo_exists("acme/errors")]))
"""


def test_errors_are_the_clients_own(stage: Stage) -> None:
    fresh_repo(stage, "errors")
    stage.hub.put_repo("model", "acme/closed", {"config.json": b"{}"}, visibility="gated")
    assert script(stage, ERRORS, stage.tool("errors")) == [
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "GatedRepoError",
        False,
        True,
    ]


IMPATIENT = """
import json, sys, time

def sleep(seconds):
    raise SystemExit(f"it waits for {seconds} s")

time.sleep = sleep
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
calls = [lambda: snapshot_download(sys.argv[1]), lambda: hf_hub_download(sys.argv[1], "config.json"),
         lambda: HfApi().model_info(sys.argv[1]), lambda: list(HfApi().list_models(search="x"))]
if sys.argv[2] == "datasets":
    import datasets
    calls = [lambda: datasets.load_dataset(sys.argv[1]), lambda: datasets.load_dataset(sys.argv[1], streaming=True)]
names = []
for call in calls:
    try: names.append(call())
    except Exception as error: names.append(type(error).__name__)
print(json.dumps(names))
"""
"""Asks for a repo that nobody has, and must not sleep in between."""


def test_at_a_node_without_hubs_nobody_waits_for_an_unknown_repo(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "alone", upstreams="") as alone:
        env = alone.tool("impatient")
        kinds = ["hub", *(["datasets"] if importlib.util.find_spec("datasets") else [])]
        said = {kind: script(alone, IMPATIENT, env, "acme/nobody", kind) for kind in kinds}
        assert said["hub"] == ["LocalEntryNotFoundError"] * 2 + ["HfHubHTTPError"] * 2
        assert set(said.get("datasets", ())) <= {"FileNotFoundError", "ConnectionError", "DatasetNotFoundError"}
        snapshot = script(alone, ONE_FILE_LEFT, env, "acme/nobody")
        assert Path(snapshot).read_text() == "{}", "what the client has itself serves, as without a network"
        alone.machine.stop()


ONE_FILE_LEFT = """
import json, os, sys
from pathlib import Path
from huggingface_hub import constants, hf_hub_download
repo = Path(constants.HF_HUB_CACHE, "models--" + sys.argv[1].replace("/", "--"))
(repo / "snapshots" / ("a" * 40)).mkdir(parents=True)
(repo / "refs").mkdir()
(repo / "refs" / "main").write_text("a" * 40)
(repo / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
print(json.dumps(hf_hub_download(sys.argv[1], "config.json")))
"""


# One cache for the tool and the node

SAME_CACHE = "import json, sys; from huggingface_hub import snapshot_download as s; print(json.dumps(s(sys.argv[1])))"


def test_a_tool_with_the_nodes_own_cache_neither_waits_nor_stores_twice(stage: Stage) -> None:
    files = {f"{name}.bin": Lfs(noise(3_000_000, name)) for name in "abcdefgh"}
    stage.hub.put_repo("model", "acme/same", {**files, "config.json": b"{}", "big.bin": Lfs(BIG)})
    env = {**stage.tool("same"), "HF_HUB_CACHE": str(stage.machine.cache)}
    stage.hub.clear()
    began_at = time.monotonic()
    snapshot = Path(script(stage, SAME_CACHE, env, "acme/same"))
    assert time.monotonic() - began_at < 20
    assert snapshot.is_relative_to(stage.machine.cache)
    assert (snapshot / "big.bin").read_bytes() == BIG
    wait_until(lambda: not list(stage.machine.cache.glob(".locks/.hfpeer/*/data")), "no partial is left")
    blobs = list((stage.machine.cache / "models--acme--same" / "blobs").iterdir())
    assert len(blobs) == 10 and not [blob for blob in blobs if blob.suffix]
    assert all(path.is_symlink() for path in snapshot.iterdir())
    ran = stage.machine.run(*HF, "cache", "verify", "acme/same", **env)
    assert ran.code == 0, ran.err
    wait_until(lambda: stage.machine.found("model", "ls", "-r", "acme/same")[0]["is_complete"], "the node has it too")
    assert stage.hub.body_bytes_sent(listener="cdn") < 1.05 * (24_000_000 + len(BIG))


# Other tools


def test_curl_with_ranges(stage: Stage, tmp_path: Path) -> None:
    stage.hub.put_repo("model", "acme/curl", {"big.bin": Lfs(noise(5_000_000, "curl"))})
    whole = noise(5_000_000, "curl")

    def do(env: dict[str, Any]) -> None:
        url = f"{stage.endpoint.url}/acme/curl/resolve/main/big.bin"
        for asked, part in (("1000000-1999999", whole[1_000_000:2_000_000]), ("-5", whole[-5:]), ("0-", whole)):
            out = tmp_path / "out"
            ran = stage.machine.run("curl", "-sSfL", "-r", asked, "-o", out, url, **env)
            assert ran.code == 0, ran.err
            assert out.read_bytes() == part
            out.unlink()

    in_each_mode(stage, "curl", do)


@pytest.mark.skipif(shutil.which("aria2c") is None, reason="there is no aria2c")
def test_aria2_with_several_connections(stage: Stage, tmp_path: Path) -> None:
    stage.hub.put_repo("model", "acme/aria", {"big.bin": Lfs(noise(20_000_000, "aria"))})

    def do(env: dict[str, Any]) -> None:
        folder = Path(env["HF_HOME"])
        url = f"{stage.endpoint.url}/acme/aria/resolve/main/big.bin"
        ran = stage.machine.run("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", folder, "-o", "big.bin", url, **env)
        assert ran.code == 0, ran.out + ran.err
        assert (folder / "big.bin").read_bytes() == noise(20_000_000, "aria")

    in_each_mode(stage, "aria", do)


def git(stage: Stage, *words: str, **env: Any) -> Ran:
    lfs = {
        "filter.lfs.smudge": "git-lfs smudge -- %f",
        "filter.lfs.clean": "git-lfs clean -- %f",
        "filter.lfs.process": "git-lfs filter-process",
        "filter.lfs.required": "true",
    }
    settings = [word for name, value in lfs.items() for word in ("-c", f"{name}={value}")]
    return stage.machine.run("git", *settings, *words, GIT_TERMINAL_PROMPT="0", **env)


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="there is no git-lfs")
def test_git_clones_with_its_large_files(stage: Stage, tmp_path: Path) -> None:
    commit = fresh_repo(stage, "git")
    ran = git(stage, "clone", f"{stage.endpoint.url}/acme/git", str(tmp_path / "clone"))
    assert ran.code == 0, ran.err
    weights: Any = ZOO_FILES["model.safetensors"]
    assert (tmp_path / "clone" / "model.safetensors").read_bytes() == weights.data
    head = stage.machine.run("git", "-C", tmp_path / "clone", "rev-parse", "HEAD").out.strip()
    assert head == commit


def test_a_killed_tool_that_starts_again_costs_the_hub_nothing_twice(stage: Stage) -> None:
    body = noise(12_000_000, "killed")
    stage.hub.put_repo("model", "acme/killed", {"big.bin": Lfs(body)})
    env = stage.tool("killed")

    stage.hub.clear()
    stage.hub.inject(faults.throttle(4e6, is_shared=True), listener="cdn")
    began = stage.machine.begin(*HF, "download", "acme/killed", **env)
    stage.hub.wait_for_body_bytes(5_000_000, "/repos/*", 30)
    began.kill()
    began.communicate()
    stage.hub.faults.clear()
    snapshot = Path(script(stage, SNAPSHOT, env, "acme/killed"))
    assert hashlib.sha256((snapshot / "big.bin").read_bytes()).digest() == hashlib.sha256(body).digest()
    assert stage.hub.body_bytes_sent(listener="cdn") < len(body) * 1.05
