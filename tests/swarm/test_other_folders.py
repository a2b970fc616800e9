"""Real daemons with several cache folders: peers and tools get what lies in a folder that is only read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import snapshot_download

from fakes.hub import HubSimulator
from fakes.machine import Machine, Machines
from fakes.waiting import wait_until

Put = Callable[..., str]
DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download(sys.argv[1], cache_dir=sys.argv[2])))
"""


def picture(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_nlink) for path in folder.rglob("*"))


def test_peers_and_tools_get_what_lies_in_a_folder_that_is_only_read(
    machines: Machines, hub: HubSimulator, upstreams: str, put: Put, tmp_path: Path
) -> None:
    commit = put("acme/shelved", size_bytes=2_000_000)
    share = tmp_path / "share"
    snapshot_download("acme/shelved", endpoint=hub.endpoint, cache_dir=share)
    before = picture(share)
    reader = machines.make("reader", upstreams=upstreams, HFPEER_READ_CACHES=str(share))
    reader.start()
    neighbour = machines.make("neighbour", peers=[reader.address])
    neighbour.start()
    neighbour.wait_until_it_knows(reader)
    wait_until(lambda: reader.status().unverified_files == 0, "the files of the share are verified")
    wait_until(
        lambda: any(one["is_shared"] for one in reader.found("model", "ls", "-r", "acme/shelved")),
        "the hub says public",
    )
    (found,) = reader.found("model", "ls", "-r", "acme/shelved")
    assert (found["commit"], found["cache"], found["is_complete"]) == (commit, str(share), True)

    def has_it() -> bool:
        ran = neighbour.hfpeer("model", "add", "-r", "acme/shelved", "-v", commit)
        return ran.code == 0 and set(ran.document["bytes_by_kind"]) == {"peer"}

    wait_until(has_it, "the neighbour gets it from the reader", 30)
    hub.wait_until_quiet()
    hub.clear()
    endpoint = f"http://{reader.status().listeners['endpoint']}"
    got = reader.python(DOWNLOAD, "acme/shelved", str(tmp_path / "tool"), HF_ENDPOINT=endpoint)
    assert {path.name for path in Path(got).rglob("*") if path.is_file()} >= {"model.safetensors", "config.json"}
    assert not (reader.cache / "models--acme--shelved").exists(), "what is complete there is not copied for a tool"
    added = reader.do("model", "add", "-r", "acme/shelved")
    assert added["bytes_by_source"] == {} and added["copied_bytes"] == added["size_bytes"]
    assert Path(added["snapshot"]).is_relative_to(reader.cache)
    assert picture(share) == before


def test_a_cache_moves_to_another_disk_and_a_session_has_one_of_its_own(
    machines: Machines, upstreams: str, put: Put, tmp_path: Path
) -> None:
    put("acme/nomad")
    machine: Machine = machines.make("nomad", upstreams=upstreams)
    added = machine.do("model", "add", "-r", "acme/nomad")
    del machine.environ["HF_HUB_CACHE"], machine.environ["HF_HOME"]
    machine.environ["HFPEER_READ_CACHES"] = ""
    machine.do("conf", "cache", "set", str(machine.cache))
    moved = machine.do("conf", "cache", "move", str(tmp_path / "disk"))
    assert (
        moved["copied"]["revisions"] == 1 and moved["copied"]["left"] == [] and moved["value"] == str(tmp_path / "disk")
    )
    assert Path(added["snapshot"]).is_dir(), "the old cache stays"
    offline = Path(snapshot_download("acme/nomad", cache_dir=tmp_path / "disk", local_files_only=True))
    assert offline.name == added["commit"]
    assert machine.do("verify")["exit_code"] == 0
    again = machine.do("conf", "cache", "move", str(tmp_path / "disk2"))
    assert again["copied"]["files"] == moved["copied"]["files"]
    beside = machine.do("model", "add", "-r", "acme/nomad", "--cache", str(tmp_path / "session"))
    assert beside["snapshot"].startswith(str(tmp_path / "session")) and beside["bytes_by_source"] == {}
