"""`hfpeer dataset prepare`, and `ls`, `verify`, `rm` with `--prepared`, as users type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.prepared import COMMIT, OLDER, REPO, needs_datasets, place_of, write_set
from hfpeer.config.paths import datasets_cache
from hfpeer.names import RepoId
from hfpeer.node.operations.prepared.building import DatasetsProgram
from hfpeer.prepared.layout import OWN
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main

Run = Callable[..., Any]
LOAD = """
import json, sys, datasets
loaded = datasets.load_dataset(sys.argv[1], *sys.argv[2:], split="train")
print(json.dumps([loaded.num_rows, loaded._fingerprint, loaded.with_format(None)[0]], default=str))
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine of its own, without hubs and without a daemon."""
    return {**os.environ, **machine(tmp_path / "here")}


def machine(folder: Path) -> dict[str, str]:
    return {"HFPEER_HOME": str(folder / "home"), "HF_HOME": str(folder / "hf"), "HFPEER_UPSTREAMS": ""}


@pytest.fixture
def real(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """`real("dataset", "ls")`: runs the command line over a real node in this process; exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words, Invocation(environ=environ))
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return run


def load(environ: dict[str, str], *words: str) -> Any:
    """What `load_dataset` finds without a network: rows, fingerprint, first row."""
    variables = {**environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, *words], env=variables, capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


def published(real: Run, tmp_path: Path, name: str, files: dict[str, bytes]) -> str:
    """Makes a dataset repo of files in the cache of this machine; its commit."""
    for path, body in files.items():
        (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / path).write_bytes(body)
    code, out, err = real("dataset", "publish", str(tmp_path / name), "--as", f"acme/{name}")
    assert code == 0, err
    return str(out.strip())


def lines(word: str, rows: int = 30) -> bytes:
    return "".join(json.dumps({"id": row, "text": f"{word}{row}"}) + "\n" for row in range(rows)).encode()


# Without pyarrow and without `datasets`


def test_ls_shows_sets_and_what_is_wrong(real: Run, environ: dict[str, str]) -> None:
    cache = datasets_cache(environ)
    assert real("dataset", "ls", "--prepared") == (0, "", f"No prepared set is in {cache}.\n")
    folder = write_set(cache, place_of(), {"train": [3]})
    (folder.parent / f"{OLDER}.incomplete").mkdir()
    code, out, err = real("dataset", "ls", "--prepared")
    assert code == 0 and re.search("acme/plain_text +default +cccccccccccc +3 ", out) and "does not load" in out
    assert "a build that did not end" in err and "repair: hfpeer dataset rm --prepared" in err
    code, out, _ = real("dataset", "ls", "--prepared", "-r", str(REPO.full_name), "--json")
    (listed,) = json.loads(out)["sets"]
    assert (listed["repo"], listed["level"], listed["commit"]) == ("acme/PlainText", "unchecked", COMMIT)
    assert [one["kind"] for one in listed["problems"]] == ["unfinished"]


def test_rm_takes_leftovers_or_the_set(real: Run, environ: dict[str, str]) -> None:
    cache = datasets_cache(environ)
    folder = write_set(cache, place_of(), {"train": [3]})
    (folder.parent / f"{OLDER}.incomplete").mkdir()
    (folder / "plain_text-train-00000-of-00002.arrow").write_bytes(b"of a killed build")
    (cache / OWN / "build-1").mkdir(parents=True)
    (cache / OWN / "build-1/part").write_bytes(b"x" * 10)
    _, _, err = real("dataset", "ls", "--prepared")
    assert "2 unfinished folders, 10 B: `hfpeer dataset rm --prepared --leftovers`" in err
    code, out, _ = real("dataset", "rm", "--prepared", "--leftovers", "--json")
    assert code == 0 and json.loads(out)["freed_bytes"] == 27 and len(json.loads(out)["folders"]) == 3
    assert not (cache / OWN).exists() and sorted(path.suffix for path in folder.iterdir()) == [".arrow", ".json"]
    (folder.parent / f"{OLDER}.incomplete").mkdir()
    code, out, _ = real("dataset", "rm", "--prepared", "-r", "acme/PlainText", "--dry-run")
    assert code == 0 and out.startswith(f"{folder}\nWould remove 1 prepared set") and folder.is_dir()
    assert real("dataset", "rm", "--prepared", "-r", "acme/PlainText", "--leftovers")[0] == 0
    assert folder.is_dir() and not (folder.parent / f"{OLDER}.incomplete").exists()
    code, out, _ = real("dataset", "rm", "--prepared", "-r", "acme/PlainText", "--config", "default")
    assert code == 0 and out.startswith("Removed 1 prepared set of datasets/acme/PlainText") and not folder.exists()
    code, _, err = real("dataset", "rm", "--prepared", "-r", "acme/PlainText")
    assert code == 4 and "hfpeer dataset prepare -r acme/PlainText" in err


def test_cache_shows_sets_and_a_removal_names_those_that_stay(
    real: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    commit = published(real, tmp_path, "lines", {"train.jsonl": lines("a")})
    repo = RepoId.parse("acme/lines", "dataset")
    folder = write_set(datasets_cache(environ), place_of(repo, commit), {"train": [3000]})
    (folder.parent / f"{OLDER}.incomplete").mkdir()
    rm = "`hfpeer dataset rm --prepared -r acme/lines` removes it."
    code, out, err = real("cache", "ls")
    assert (
        code == 0 and re.search(f"datasets/acme/lines default at {commit[:12]} +3\\.", out) and "does not load" in out
    )
    assert "1 prepared set in " in err and "1 unfinished folder, 0 B" in err
    document = json.loads(real("cache", "ls", "--json")[1])
    assert [one["repo"] for one in document["prepared"]["sets"]] == ["acme/lines"] and document["revisions"]
    code, out, err = real("cache", "du")
    assert "\nPREPARED SET" in out and re.search(f"datasets/acme/lines default at {commit[:12]} +1 ", out)
    (shown,) = json.loads(real("cache", "du", "--json")[1])["prepared"]["sets"]
    assert shown["disk_bytes"] == sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    code, _, err = real("cache", "rm", f"datasets/acme/lines@{OLDER}", "datasets/acme/lines", "--dry-run")
    assert "1 prepared set of datasets/acme/lines, 3." in err and f"stays: {rm}" in err
    document = json.loads(real("dataset", "rm", "-r", "acme/lines", "--json")[1])
    assert [one["folder"] for one in document["prepared"]] == [str(folder)] and folder.is_dir()
    code, _, err = real("cache", "rm", "datasets/acme/lines")
    assert code == 4 and "Not in the cache: datasets/acme/lines." in err and rm in err


def test_hfpeer_verify_prepared_is_the_same_command(real: Run, environ: dict[str, str]) -> None:
    folder = write_set(datasets_cache(environ), place_of(), {"train": [3]})
    assert real("verify", "--prepared", "--quick") == real("dataset", "verify", "--prepared", "--quick")
    (folder / "plain_text-train.arrow").unlink()
    whole = real("dataset", "verify", "--prepared", "--quick", "-r", "acme/PlainText")
    assert whole[0] == 8
    for word in ("acme/PlainText", "datasets/acme/PlainText"):
        assert real("verify", "--prepared", "--quick", word) == whole
    code, _, err = real("verify", "--prepared", "--repair")
    assert code == 2 and "hfpeer dataset prepare" in err


def test_quick_verify_opens_no_arrow_file(real: Run, environ: dict[str, str]) -> None:
    folder = write_set(datasets_cache(environ), place_of(), {"train": [3]})
    code, out, _ = real("dataset", "verify", "--prepared", "--quick")
    assert code == 0 and "right" in out and "quick: names and sizes only" in out
    (folder / "plain_text-train.arrow").unlink()
    code, out, _ = real("dataset", "verify", "--prepared", "--quick", "--json")
    assert (code, json.loads(out)["exit_code"]) == (8, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls", "--prepared", "-r", "a/b", "-v", "main"), "--revision does not go with --prepared"),
        (("rm", "-r", "a/b", "--leftovers"), "give --prepared too"),
        (("rm",), "Missing argument 'REPO'"),
        (("rm", "--prepared"), "Missing argument 'REPO'"),
        (("rm", "--prepared", "--leftovers", "--config", "en"), "needs a REPO"),
        (("rm", "--prepared", "-r", "a/b", "-f", "x"), "--file does not go with --prepared"),
        (("verify",), "Give --prepared"),
        (("verify", "--prepared", "--config", "en"), "needs a REPO"),
    ],
)
def test_a_mistake_is_a_sentence(real: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = real("dataset", *words)
    assert code == 2 and said in err


def test_without_pyarrow_a_sentence_says_how_to_get_it(real: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.prepared.arrow.extra.has_arrow", lambda: False)
    code, _, err = real("dataset", "prepare", "-r", "acme/x")
    assert code == 2 and "needs pyarrow" in err and "pip install 'hfpeer[datasets]'" in err


def test_models_and_spaces_have_no_prepared_sets(real: Run) -> None:
    assert real("model", "ls", "--prepared")[0] == 2 and real("space", "prepare", "-r", "a/b")[0] == 2


# With `datasets`


@pytest.mark.slow
@needs_datasets
def test_prepare_builds_what_load_dataset_finds_and_does_it_once(
    real: Run, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    start = DatasetsProgram._start

    def counted(*words: Any) -> None:
        started.append(words)
        start(*words)

    monkeypatch.setattr(DatasetsProgram, "_start", counted)
    commit = published(real, tmp_path, "Lines", {"train.jsonl": lines("a")})
    code, out, err = real("dataset", "add", "--prepared", "-r", "acme/Lines")  # it asks peers before it builds
    assert code == 0, err
    assert len(started) == 1, "to start `datasets` takes seconds"
    folder = datasets_cache(environ) / "acme___lines" / "default" / "0.0.0" / commit
    assert out == f"{folder}\n" and "30 rows" in err and "rebuilt: built here from the proved files" in err
    assert sorted(path.name for path in folder.iterdir()) == [".hfpeer.json", "dataset_info.json", "lines-train.arrow"]
    rows, _, first = load(environ, "acme/Lines")
    assert (rows, first) == (30, {"id": 0, "text": "a0"})
    inode = (folder / "lines-train.arrow").stat().st_ino
    code, out, err = real("dataset", "prepare", "-r", "acme/Lines", "--json")
    (document,) = json.loads(out)
    assert (document["how"], document["level"]) == ("here", "rebuilt")
    assert (folder / "lines-train.arrow").stat().st_ino == inode
    assert not (datasets_cache(environ) / ".hfpeer").exists()
    assert len(started) == 1


@pytest.mark.slow
@needs_datasets
def test_a_changed_byte_is_named_by_verify_and_mended_by_prepare(
    real: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    published(real, tmp_path, "lines", {"train.jsonl": lines("a")})
    code, out, err = real("dataset", "prepare", "-r", "acme/lines")
    assert code == 0, err
    shard = Path(out.strip()) / "lines-train.arrow"
    shard.write_bytes(shard.read_bytes().replace(b"a17", b"b17"))
    assert load(environ, "acme/lines")[0] == 30
    code, out, _ = real("dataset", "verify", "--prepared", "-r", "acme/lines")
    assert code == 7 and "wrong_bytes" in out and "split train, row 17, column text" in out and "unchecked" in out
    info = shard.with_name("dataset_info.json")
    whole = info.read_bytes()
    for damaged in (b"{", b"[]", b"[" * 100_000):
        info.write_bytes(damaged)
        code, out, _ = real("dataset", "verify", "--prepared", "-r", "acme/lines")
        assert code == 7 and "its dataset_info.json cannot be read" in out
    info.write_bytes(whole)
    code, _, err = real("dataset", "prepare", "-r", "acme/lines")
    assert code == 0 and "is wrong and was replaced" in err
    code, out, _ = real("dataset", "verify", "--prepared")
    assert code == 0 and "checked: its rows equal" in out


@pytest.mark.slow
@needs_datasets
def test_configs_that_there_are_and_scripts_that_are_not_run_are_named(real: Run, tmp_path: Path) -> None:
    card = b"---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: zh\n  data_files: zh.jsonl\n---\n"
    published(real, tmp_path, "two", {"README.md": card, "en.jsonl": lines("e"), "zh.jsonl": lines("z")})
    code, _, err = real("dataset", "prepare", "-r", "acme/two")
    assert code == 2 and "2 configs and no default" in err, err
    assert "takes: en, zh" in err
    code, _, err = real("dataset", "prepare", "-r", "acme/two", "--config", "fr")
    assert code == 4 and "no config 'fr'" in err and "takes: en, zh" in err
    published(real, tmp_path, "script", {"script.py": b"raise SystemExit(3)", "a.txt": b"not the data"})
    code, _, err = real("dataset", "prepare", "-r", "acme/script")
    assert code == 2 and "made by a script, script.py" in err and "--trust-peers" in err
    code, _, err = real("dataset", "prepare", "-r", "acme/two", "--python", "/bin/true")
    assert code == 2 and "no Python with `datasets`" in err
