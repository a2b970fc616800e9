"""`add --local-dir`: the words of the command, and a folder that the Hub client's `hf download --local-dir` accepts."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.machine import HFPEER, Machine, Machines
from fakes.stub_node import StubNode
from fakes.waiting import wait_until

Run = Callable[..., Any]
HF = (sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()")
WEIGHTS, ONNX = noise(11_000_000, "weights"), noise(300_000, "onnx")
FILES: dict[str, Content] = {
    "config.json": b"{}",
    "README.md": b"# tiny\n",
    "model.safetensors": Lfs(WEIGHTS),
    "onnx/model.onnx": Lfs(ONNX),
    "onnx/config.json": b"[]",
}
BODIES = {name: content.data if isinstance(content, Lfs) else content for name, content in FILES.items()}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/tiny", FILES)
        hub.put_repo("dataset", "acme/tiny", {"data/train.parquet": Lfs(ONNX)})
        yield hub


@pytest.fixture(scope="module")
def machine(hub: HubSimulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose Hub client has filled the cache, and which finds no hub from then on, unless a test says so."""
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        machine = machines.make("one", upstreams=f"origin={hub.endpoint}")
        machine.environ["HF_ENDPOINT"] = hub.endpoint
        assert machine.run(*HF, "download", "acme/tiny").code == 0
        yield machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plain"


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def download(machine: Machine, folder: Path, tmp_path: Path, *words: str, offline: bool = False) -> None:
    """`hf download --local-dir` of a Hub client with an empty cache."""
    environ = {"HF_HUB_CACHE": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1" if offline else "0"}
    argv = (*HF, "download", "acme/tiny", "--local-dir", str(folder), *words)
    ran = machine.finish(machine.begin(*argv, **environ))
    assert ran.code == 0, ran.err


def files_asked(hub: HubSimulator) -> list[str]:
    """The requests for files or lists of files. Which commit `main` is may be asked."""
    asked = [f"{record.request.method} {record.request.target}" for record in hub.requests]
    return [line for line in asked if "/resolve/" in line or "/tree/" in line or "/repos/" in line]


def test_a_folder_made_offline_is_complete_for_the_hub_client(
    hub: HubSimulator, machine: Machine, folder: Path, tmp_path: Path
) -> None:
    """Acceptance check 12."""
    with hub.down():
        added = machine.do("model", "add", "-r", "acme/tiny", "--local-dir", str(folder))
    assert added["local_dir"]["folder"] == str(folder)
    assert sum(added["local_dir"]["ways"].values()) == len(FILES)
    assert contents(folder) == BODIES
    before = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}

    hub.clear()
    download(machine, folder, tmp_path)
    assert files_asked(hub) == []
    assert hub.requests != []
    hub.clear()
    download(machine, folder, tmp_path, "--revision", added["commit"], offline=True)
    download(machine, folder, tmp_path, offline=True)
    assert hub.requests == []
    assert {path: path.stat().st_ino for path in before} == before
    assert contents(folder) == BODIES

    (folder / "config.json").write_text('{"edited": true}')
    snapshot = Path(added["snapshot"])
    assert (snapshot / "config.json").read_bytes() == b"{}"
    assert machine.hfpeer("verify").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("repo", ["acme/tiny", "acme/tiny@main"])
def test_an_export_to_a_folder_makes_the_same_folder(
    hub: HubSimulator, machine: Machine, folder: Path, tmp_path: Path, repo: str
) -> None:
    hub.clear()
    made = machine.do("export", repo, "--to-folder", str(folder))
    assert hub.requests == []
    assert (made["repo"], made["folder"]) == ("acme/tiny", str(folder))
    assert contents(folder) == BODIES
    download(machine, folder, tmp_path)
    assert files_asked(hub) == []
    (folder / "config.json").write_text('{"edited": true}')
    again = machine.run(*HFPEER, "export", repo, "--to-folder", folder, "--link")
    assert (again.code, again.out) == (0, f"{folder}\n")
    assert "left alone; `hfpeer model add --local-dir DIR -f FILE` replaces one:\n  config.json\n" in again.err
    assert (folder / "config.json").read_text() == '{"edited": true}'


def test_an_export_of_files_that_are_not_here_says_what_fetches_them(
    hub: HubSimulator, folder: Path, tmp_path: Path
) -> None:
    with Machines(tmp_path / "machines") as machines:
        machine = machines.make("partial", upstreams=f"origin={hub.endpoint}")
        machine.do("model", "add", "-r", "acme/tiny", "-f", "config.json")
        ran = machine.hfpeer("export", "acme/tiny", "--to-folder", str(folder))
    assert (ran.code, ran.problem["code"]) == (4, "not_found")
    assert ran.problem["hint"] == "`hfpeer model add -r acme/tiny -v main` fetches what is missing."
    assert not folder.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["acme/tiny"],
        ["acme/tiny", "--link", "-o", "a.tar"],
        ["acme/tiny", "acme/other", "--to-folder", "x"],
        ["--all", "--to-folder", "x"],
        ["acme/tiny", "--to-folder", "x", "-o", "a.tar"],
        ["acme/tiny", "--to-folder", "x", "--part-size", "1GB"],
    ],
)
def test_an_export_without_one_clear_target_is_malformed(hfpeer: Run, node: StubNode, words: list[str]) -> None:
    ran = hfpeer("export", *words)
    assert ran.code == 2, ran.err
    assert node.calls == []


def test_the_list_of_the_hub_client_is_enough_without_a_network_and_is_not_kept(
    hub: HubSimulator, folder: Path, tmp_path: Path
) -> None:
    with Machines(tmp_path / "machines") as machines:
        machine = machines.make("other", upstreams=f"origin={hub.endpoint}")
        assert machine.run(*HF, "download", "acme/tiny", HF_ENDPOINT=hub.endpoint).code == 0
        hub.clear()
        machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
        assert hub.requests == []
        assert contents(folder) == BODIES
        assert list((machine.home / "manifests").rglob("*.json")) == []
        blob = next(machine.cache.rglob("config.json")).resolve()
        blob.write_bytes(b"[]")
        ran = machine.hfpeer("model", "add", "-r", "acme/tiny", "--local-only")
        assert (ran.code, ran.problem["code"]) == (4, "not_found")
        assert "config.json" in ran.problem["message"]


def test_a_file_that_is_missing_is_the_only_one_that_the_hub_client_fetches(
    hub: HubSimulator, machine: Machine, folder: Path, tmp_path: Path
) -> None:
    machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder), "--exclude", "*.onnx")
    assert contents(folder).keys() == BODIES.keys() - {"onnx/model.onnx"}
    hub.clear()
    download(machine, folder, tmp_path)
    assert {line.split("?")[0].rsplit("/", 1)[1] for line in files_asked(hub) if "/resolve/" in line} == {"model.onnx"}
    assert contents(folder) == BODIES


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["-f", "config.json", "-f", "onnx/config.json"], {"config.json", "onnx/config.json"}),
        (["--include", "*.json"], {"config.json", "onnx/config.json"}),
        (["--include", "onnx/", "--exclude", "*.json"], {"onnx/model.onnx"}),
    ],
)
def test_the_words_that_choose_files_choose_those_of_the_folder(
    machine: Machine, folder: Path, words: list[str], names: set[str]
) -> None:
    machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder), *words)
    assert contents(folder).keys() == names


def test_a_folder_of_the_hub_client_is_taken_as_it_is(
    hub: HubSimulator, machine: Machine, folder: Path, tmp_path: Path
) -> None:
    download(machine, folder, tmp_path)
    added = machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    assert (added["local_dir"]["ways"], added["local_dir"]["right_files"]) == ({}, len(FILES))


def test_a_folder_that_was_copied_without_its_times_is_fetched_by_neither(
    hub: HubSimulator, machine: Machine, folder: Path, tmp_path: Path
) -> None:
    """Case 11."""
    machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (path.stat().st_mtime + 100,) * 2)
    added = machine.do("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(copy))
    assert (added["local_dir"]["ways"], added["local_dir"]["right_files"]) == ({}, len(FILES))
    hub.clear()
    download(machine, copy, tmp_path)
    assert files_asked(hub) == []


def test_large_lfs_files_become_read_only_hard_links_on_request(machine: Machine, folder: Path) -> None:
    words = ("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder), "--link")
    added = machine.do(*words)
    if "clone" in added["local_dir"]["ways"]:
        pytest.skip("this file system shares blocks")
    assert added["local_dir"]["ways"]["hard_link"] == 1
    large = folder / "model.safetensors"
    assert large.samefile(Path(added["snapshot"]) / "model.safetensors")
    assert stat.S_IMODE(large.stat().st_mode) == 0o444
    assert {path for path in contents(folder) if (folder / path).stat().st_nlink > 1} == {"model.safetensors"}
    assert machine.do(*words)["local_dir"]["right_files"] == len(FILES)
    assert machine.hfpeer("verify").code == 0


def test_an_edited_file_is_named_and_kept_until_it_is_named_by_the_user(machine: Machine, folder: Path) -> None:
    words = ("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    machine.do(*words)
    (folder / "config.json").write_text('{"edited": true}')
    ran = machine.run(*HFPEER, *words)
    assert (ran.code, ran.out) == (0, f"{folder}\n")
    assert "Changed in the folder and left alone; -f FILE replaces one:\n  config.json\n" in ran.err
    assert f"{folder}: 4 files (4 right already)." in ran.err
    ran = machine.run(*HFPEER, *words, "-f", "config.json")
    assert "Changed in the folder and replaced, because -f names it:\n  config.json\n" in ran.err
    assert (folder / "config.json").read_bytes() == b"{}"


def test_a_dataset_is_fetched_and_then_put_into_the_folder(hub: HubSimulator, machine: Machine, folder: Path) -> None:
    ran = machine.run(*HFPEER, "dataset", "add", "-r", "acme/tiny", "--local-dir", folder)
    assert (ran.code, ran.out) == (0, f"{folder}\n")
    assert f"{folder}: 1 file (1 " in ran.err
    assert contents(folder) == {"data/train.parquet": ONNX}


def test_the_daemon_adds_and_the_command_fills_the_folder(machine: Machine, folder: Path) -> None:
    machine.start()
    try:
        machine.do("model", "add", "-r", "acme/tiny", "--local-dir", str(folder))
    finally:
        machine.stop()
    assert contents(folder) == BODIES


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder.write_text(""), "is a file, but has to be a folder"),
        (lambda folder: (folder / "config.json").mkdir(parents=True), "is a folder, but has to be a file"),
        (lambda folder: [folder.mkdir(), (folder / "onnx").symlink_to("/usr")], "is a link to /usr"),
    ],
    ids=["a file", "a folder", "a link"],
)
def test_what_is_in_the_way_ends_with_a_sentence_and_exit_code_8(
    machine: Machine, folder: Path, make: Callable[[Path], Any], sentence: str
) -> None:
    make(folder)
    ran = machine.hfpeer("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    assert (ran.code, ran.problem["code"]) == (8, "broken_cache")
    assert sentence in ran.problem["message"]
    assert "Traceback" not in ran.err


def test_a_full_disk_ends_with_both_numbers_and_exit_code_8(machine: Machine, folder: Path) -> None:
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, -1));"
        "from hfpeer_cli.main import main; main()"
    )
    words = ("--json", "model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    ran = machine.run(sys.executable, "-c", script, *words)
    assert (ran.code, ran.problem["code"]) == (8, "no_space"), ran.err
    assert ran.problem["facts"]["needed_bytes"] >= len(WEIGHTS)
    assert "model.safetensors" not in contents(folder)


def sizes_in(folder: Path) -> list[int]:
    """The sizes of the files of a folder, which come and go meanwhile."""
    sizes = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_wrong(machine: Machine, folder: Path) -> None:
    script = (
        "import os, time; kernel = os.copy_file_range\n"
        "def slowly(old, new, size, *offsets): time.sleep(0.01); return kernel(old, new, 100_000, *offsets)\n"
        "os.copy_file_range = slowly\n"
        "from hfpeer_cli.main import main; main()"
    )
    words = ("model", "add", "-r", "acme/tiny", "--local-only", "--local-dir", str(folder))
    unfinished = folder / ".cache" / "huggingface" / "hfpeer"
    for number, size_bytes in ((signal.SIGKILL, 200_000), (signal.SIGINT, 5_000_000)):
        process = machine.begin(sys.executable, "-c", script, *words)
        wait_until(
            lambda at_least=size_bytes: any(size >= at_least for size in sizes_in(unfinished)),  # type: ignore[misc]
            "no copy began",
        )
        process.send_signal(number)
        ran = machine.finish(process)
        assert ran.code == (-9 if number is signal.SIGKILL else 130)
        assert contents(folder).items() <= BODIES.items()
        assert "model.safetensors" not in contents(folder)
        assert "Traceback" not in ran.err
    assert [path.name for path in unfinished.iterdir()] == ["lock"]
    machine.do(*words)
    assert contents(folder) == BODIES


def test_links_without_a_folder_are_a_malformed_command(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--link")
    assert ran.code == 2
    assert "--link needs --local-dir" in ran.err
    assert node.calls == []
