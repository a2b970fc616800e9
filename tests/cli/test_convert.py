"""`hfpeer dataset convert`, as users type it, and the same from Python."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hfpeer
from fakes.conversion import JPEG, contents, needs_libraries, rows_in
from fakes.hub import HubSimulator, Lfs
from hfpeer.errors import AccessDenied, BuildFailed, InvalidName
from hfpeer.node.operations.conversion import planning
from hfpeer.node.operations.prepared import building
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main

Run = Callable[..., Any]
needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the extra `datasets` (the library)"
)
pytestmark = needs_libraries
ROWS = 60
"""Rows of each of the three files of the dataset."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine without hubs and without a daemon, on which a dataset is published."""
    folder = tmp_path_factory.mktemp("machine")
    environ = {"HFPEER_HOME": str(folder / "home"), "HF_HOME": str(folder / "hf"), "HFPEER_UPSTREAMS": ""}
    for number in range(3):
        write_lines(folder / "rows" / "data" / f"train-{number:05}-of-00003.jsonl", number * ROWS, ROWS)
    write_lines(folder / "rows" / "data" / "test-00000-of-00001.jsonl", 0, 5)
    card = "---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: zh\n  data_files: zh.jsonl\n---\n"
    for name in ("en", "zh"):
        write_lines(folder / "two" / f"{name}.jsonl", 0, 3)
    (folder / "two" / "README.md").write_text(card)
    (folder / "script").mkdir()
    (folder / "script" / "script.py").write_text("raise SystemExit(3)")
    for name in ("rows", "two", "script"):
        publish(environ, folder / name, name)
    return environ


def publish(environ: dict[str, str], folder: Path, name: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["dataset", "publish", str(folder), "--as", f"acme/{name}"], Invocation(environ={**os.environ, **environ}))
    assert end.value.code == 0


def write_lines(path: Path, first: int, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": row, "text": f"row {row}"}) for row in range(first, first + rows)]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module", autouse=True)
def python_found_once() -> Iterator[None]:
    """Looks once for a Python with `datasets`. Processes of their own still look for one."""
    found = functools.lru_cache(1)(lambda: building.find_python(os.environ))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "find_python", lambda environ, chosen: found())
        yield


@pytest.fixture
def real(machine: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """`real("-r", "acme/rows")`: runs `hfpeer dataset convert` in this process; exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["dataset", "convert", *words], Invocation(environ={**os.environ, **machine}))
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


@pytest.fixture
def in_python(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same machine for calls from Python."""
    for name, value in machine.items():
        monkeypatch.setenv(name, value)
    yield


def ids(file: Path) -> list[int]:
    return [row["id"] for row in rows_in(file)]


# Without `datasets`


def test_without_the_libraries_a_sentence_says_how_to_get_them(
    real: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfpeer.conversion.extra.has", lambda name: False)
    code, _, err = real("-r", "acme/rows", "-o", str(tmp_path))
    assert code == 2 and "needs pyarrow and orjson" in err and "pip install 'hfpeer[datasets]'" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-s", "train["), "names no split"),
        (("--part", "2/2"), "no share of the parts"),
        (("--rename", "a"), "renames no column"),
        (("--format", "xml"), "Use one of: jsonl, parquet"),
        (("--seed", "1"), "--max-samples too"),
        (("--images", "embed"), "Only Parquet"),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_is_asked(
    real: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, _, err = real("-r", "acme/rows", "-o", str(tmp_path / "out"), *words)
    assert code == 2 and said in err and not (tmp_path / "out").exists()


def test_a_dataset_of_a_script_is_refused_and_nothing_of_it_runs(real: Run, tmp_path: Path) -> None:
    code, _, err = real("-r", "acme/script", "-o", str(tmp_path / "out"))
    assert code == 2 and "made by a script, script.py" in err and "refs/convert/parquet" in err


@pytest.mark.parametrize("place", ["hf/hub/datasets--acme--rows/out", "hf/datasets/out", "home/out"])
def test_an_output_in_a_cache_or_in_the_home_is_refused(real: Run, machine: dict[str, str], place: str) -> None:
    folder = Path(machine["HFPEER_HOME"]).parent / place
    code, _, err = real("-r", "acme/rows", "-o", str(folder))
    assert code == 2 and "is no folder for outputs" in err and not folder.exists()


# With `datasets`


@pytest.mark.slow
@needs_datasets
def test_a_dataset_becomes_lines_once_and_again_changes_nothing(real: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, out, err = real("-r", "acme/rows", "-o", str(folder), "--rename", "text=query")
    assert code == 0, err
    assert out == f"{folder}\n" and "185 rows of acme/rows" in err
    names = [f"rows_train-{number:05}-of-00003.jsonl" for number in range(3)]
    assert sorted(contents(folder)) == sorted(["conversion.json", "rows_test.jsonl", *names])
    assert [row for name in names for row in rows_in(folder / name)] == [
        {"id": row, "query": f"row {row}"} for row in range(3 * ROWS)
    ]
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    code, out, _ = real("-r", "acme/rows", "-o", str(folder), "--rename", "text=query", "--json")
    document = json.loads(out)
    assert (document["rows"], document["kept_parts"], document["is_complete"]) == (185, 4, True)
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before
    code, _, err = real("-r", "acme/rows", "-o", str(folder))
    assert code == 2 and "has another conversion" in err and "--restart" in err
    (folder / names[0]).write_text("spoiled")
    assert real("-r", "acme/rows", "-o", str(folder), "--rename", "text=query")[0] == 0
    assert ids(folder / names[0]) == list(range(ROWS))
    (folder / names[1]).unlink()
    assert real("-r", "acme/rows", "-o", str(folder), "--rename", "text=query")[0] == 0
    assert ids(folder / names[1]) == list(range(ROWS, 2 * ROWS))


@pytest.mark.slow
@needs_datasets
def test_datasets_is_asked_once_about_a_commit_and_each_version_for_itself(
    real: Run, machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(number: int) -> int:
        return int(real("acme/two", "-c", "en", "-o", str(tmp_path / str(number)))[0])

    assert convert(1) == 0

    def ask(*arguments: object) -> None:
        raise BuildFailed("datasets was asked")

    monkeypatch.setattr(building.DatasetsProgram, "plan", ask)
    assert convert(2) == 0
    python = building.find_python(os.environ)
    assert python is not None
    monkeypatch.setattr(planning, "find_python", lambda environ, chosen: replace(python, datasets="0.0.1"))
    assert convert(3) == 1


@pytest.mark.slow
@needs_datasets
def test_slices_samples_and_draws(real: Run, tmp_path: Path) -> None:
    def convert(name: str, *words: str) -> Path:
        code, _, err = real("-r", "acme/rows", "-o", str(tmp_path / name), "--single", *words)
        assert code == 0, err
        return tmp_path / name

    folder = convert("slices", "-s", "train[50:70]", "-s", "end=train[-10%:]", "-s", "test+train[:2]")
    assert ids(folder / "rows_train.jsonl") == list(range(50, 70))
    assert ids(folder / "rows_end.jsonl") == list(range(162, 180))
    assert ids(folder / "rows_test+train.jsonl") == [0, 1, 2, 3, 4, 0, 1]
    folder = convert("first", "-s", "train", "--max-samples", "70")
    assert ids(folder / "rows_train.jsonl") == list(range(70))
    drawn = ids(convert("drawn", "-s", "train", "--max-samples", "9", "--seed", "1") / "rows_train.jsonl")
    assert len(drawn) == 9 and drawn == sorted(drawn) and drawn != list(range(9))
    for share in ("0/2", "1/2"):
        code, _, err = real(
            *("-r", "acme/rows", "-o", str(tmp_path / "parts"), "--single", "-s", "train"),
            *("--max-samples", "9", "--seed", "1", "--part", share),
        )
        assert code == 0, err
    assert contents(tmp_path / "parts") == contents(tmp_path / "drawn")


@pytest.mark.slow
@needs_datasets
def test_configs_and_splits_that_there_are_are_named(real: Run, tmp_path: Path) -> None:
    code, _, err = real("-r", "acme/two", "-o", str(tmp_path))
    assert code == 2 and "2 configs and no default" in err and "en, zh" in err
    code, _, err = real("-r", "acme/rows", "-s", "dev", "-o", str(tmp_path))
    assert code == 4 and "no split 'dev'" in err and "Its splits are: " in err and "train" in err
    code, _, err = real("-r", "acme/two", "-c", "zh", "-o", str(tmp_path / "zh"), "--local-only")
    assert code == 0 and ids(tmp_path / "zh" / "two_train.jsonl") == [0, 1, 2]
    code, out, _ = real("-r", "acme/rows", "-s", "train[:70]", "-o", str(tmp_path / "none"), "--plan", "--json")
    document = json.loads(out)
    assert [(part["skip"], part["take"]) for part in document["parts"]] == [(0, 60), (0, 10)]
    assert document["missing_bytes"] == 0 and not (tmp_path / "none").exists()


@pytest.mark.slow
@needs_datasets
def test_python_gives_the_same_bytes_part_by_part_and_in_processes(tmp_path: Path, in_python: None) -> None:
    report = hfpeer.convert_dataset("acme/rows", tmp_path / "whole", columns=["id"])
    assert (report.rows, report.parts, report.is_complete) == (185, 4, True)
    plan = hfpeer.plan_conversion("acme/rows", tmp_path / "parts", columns=["id"])
    for number in reversed(range(plan.parts)):
        hfpeer.convert_part(plan, number)
    hfpeer.convert_dataset("acme/rows", tmp_path / "jobs", columns=["id"], jobs=2, local_files_only=True)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts") == contents(tmp_path / "jobs")
    assert hfpeer.convert_dataset("acme/rows", tmp_path / "one", splits="test", columns="id").rows == 5
    assert hfpeer.plan_conversion("acme/rows", tmp_path / "one", splits="test", columns="id").parts == 1
    with pytest.raises(InvalidName, match="jobs is 0"):
        hfpeer.convert_dataset("acme/rows", tmp_path / "none", jobs=0)


@pytest.mark.slow
@needs_datasets
def test_killed_at_any_part_it_goes_on_and_gives_the_same_bytes(
    machine: dict[str, str], real: Run, tmp_path: Path
) -> None:
    assert real("-r", "acme/rows", "-o", str(tmp_path / "whole"))[0] == 0
    killed = tmp_path / "killed"
    for jobs in ("1", "2"):
        words = ["dataset", "convert", "-r", "acme/rows", "--jobs", jobs, "-o"]
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED_AFTER_A_PART, *words, str(killed)],
            env={**os.environ, **machine},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.wait(200) == -signal.SIGKILL
        assert not (killed / "conversion.json").exists()
    code, out, err = real("-r", "acme/rows", "-o", str(killed), "--json")
    assert code == 0, err
    assert json.loads(out)["kept_parts"] >= 2
    assert contents(killed) == contents(tmp_path / "whole")


@pytest.mark.slow
@needs_datasets
def test_folders_of_pictures_and_tars_as_datasets_finds_them(
    real: Run, machine: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    for label in ("cat", "dog"):
        for number in range(3):
            (folder / "train" / label).mkdir(parents=True, exist_ok=True)
            (folder / "train" / label / f"{number}.jpg").write_bytes(JPEG + f"{label}{number}".encode())
    publish(machine, folder, "pictures")
    code, out, err = real("-r", "acme/pictures", "-s", "train[2:4]", "-o", str(tmp_path / "some"))
    assert code == 0, err
    rows = rows_in(tmp_path / "some" / "pictures_train.jsonl")
    made = [(row["label"], (tmp_path / "some" / row["image"]).read_bytes()[4:]) for row in rows]
    assert made == [("cat", b"cat2"), ("dog", b"dog0")]
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "train-000.tar", "w") as tar:
        for name in ("1.jpg", "1.txt", "2.jpg", "2.txt"):
            (tmp_path / name).write_bytes(JPEG + name.encode() if name.endswith("jpg") else b"text")
            tar.add(tmp_path / name, name)
    publish(machine, tmp_path / "tars", "tars")
    code, out, err = real("-r", "acme/tars", "-o", str(tmp_path / "of tars"), "--format", "imagefolder", "--json")
    assert code == 0 and json.loads(out[out.index("{") :])["pictures"] == 2, err
    rows = rows_in(tmp_path / "of tars" / "train" / "metadata.jsonl")
    assert (tmp_path / "of tars" / "train" / rows[1]["jpg_file_name"]).read_bytes() == JPEG + b"2.jpg"


RECIPE = """
output: OUTPUT
modes: {fast_dev: {max_samples: 7}, paper: {}}
defaults: {single: true}
datasets:
  rows: {repo: acme/rows, splits: [train, test]}
  chinese: {repo: "${OUR_TWO:-acme/two}", config: zh}
merge:
  both/both_train: [rows/train, chinese/train]
"""


@pytest.mark.slow
@needs_datasets
def test_a_recipe_makes_all_in_one_go_in_the_mode_that_is_asked(real: Run, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("OUTPUT", str(tmp_path / "data")))
    code, out, err = real("--recipe", str(file), "--mode", "fast_dev", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert {name: one["rows"] for name, one in document["datasets"].items()} == {"rows": 12, "chinese": 3}
    assert ids(tmp_path / "data" / "rows" / "rows_train.jsonl") == list(range(7))
    assert ids(tmp_path / "data" / "both" / "both_train.jsonl") == [*range(7), *range(3)]
    code, out, err = real("--recipe", str(file), "--mode", "paper", "-o", str(tmp_path / "paper"))
    assert code == 0 and f"merged both/both_train.jsonl: {3 * ROWS + 3} rows." in err
    (tmp_path / "mine" / "both").mkdir(parents=True)
    (tmp_path / "mine" / "both" / "both_train.jsonl").write_text("mine")
    code, _, err = real("--recipe", str(file), "-o", str(tmp_path / "mine"))
    assert code == 2 and "no conversion made it" in err and len(contents(tmp_path / "mine")) == 1
    code, _, err = real("--recipe", str(file), "--mode", "slow")
    assert code == 2 and "Its modes are: fast_dev, paper" in err
    code, _, err = real("--recipe", str(file), "--seed", "1")
    assert code == 2 and "--seed does not go with --recipe" in err
    assert real("--mode", "paper", "-r", "acme/two", "-o", str(tmp_path))[0] == 2
    assert real("-r", "acme/two")[0] == 2


# From a hub


@pytest.mark.slow
@needs_datasets
def test_only_the_files_that_are_needed_come_and_then_no_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"data/train-{number:05}-of-00003.jsonl" for number in range(3)]
    lines = "".join(json.dumps({"id": row}) + "\n" for row in range(ROWS)).encode()
    with HubSimulator() as hub:
        files = {name: Lfs(lines + f'{{"id": {number}}}\n'.encode()) for number, name in enumerate(names)}
        commit = hub.put_repo("dataset", "acme/remote", files)
        monkeypatch.setenv("HFPEER_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HFPEER_UPSTREAMS", f"origin={hub.endpoint}")
        report = hfpeer.convert_dataset("acme/remote", tmp_path / "ten", max_samples=10)
        assert (report.rows, report.commit) == (10, commit)
        asked = [name for name in names if any(f"/{name}" in record.path for record in hub.requests)]
        assert asked == names[:1]
        hfpeer.convert_dataset("acme/remote", tmp_path / "all")
        hub.put_repo("dataset", "acme/gated", {"train.jsonl": Lfs(lines)}, visibility="gated")
        with pytest.raises(AccessDenied):
            hfpeer.convert_dataset("acme/gated", tmp_path / "gated")
        assert not (tmp_path / "gated").exists() or not list((tmp_path / "gated").glob("*.jsonl"))
    again = hfpeer.convert_dataset("acme/remote", tmp_path / "again", local_files_only=True)
    assert again.rows == 3 * (ROWS + 1) and again.fetched_bytes == 0
    assert contents(tmp_path / "all") == contents(tmp_path / "again")


KILLED_AFTER_A_PART = """
import os, signal, sys
from hfpeer.node.operations.conversion.progress import ConversionProgress
from hfpeer_cli.main import main

def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

ConversionProgress.part_done = killed
main(sys.argv[1:])
"""
"""The command line, killed when it has made a part."""
