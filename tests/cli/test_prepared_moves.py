"""Prepared sets from one machine to another in an archive: `export --prepared` and `import`, as users type them.

The sets are written by hand, so that no `datasets` is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.prepared import TEXTS, needs_arrow, place_of, write_arrow, write_arrow_set
from hfpeer.names import RepoId
from hfpeer.prepared.arrow.shards import paths_of
from hfpeer.prepared.layout import INFO
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main

pytestmark = needs_arrow
Run = Callable[..., tuple[int, str, str]]
REPO = RepoId.parse("acme/pics", "dataset")
IMAGE = {"image": {"_type": "Image"}}


class Machine:
    """A machine without hubs and without a daemon, driven in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.hub, self.datasets = folder / "hf/hub", folder / "hf/datasets"
        self.environ = {
            **os.environ,
            "HFPEER_HOME": str(folder / "home"),
            "HF_HOME": str(folder / "hf"),
            "HFPEER_UPSTREAMS": "",
        }
        self._capsys = capsys

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(map(str, words)), Invocation(environ=self.environ))
        out, err = self._capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    def do(self, *words: str | Path) -> Any:
        code, out, err = self.run(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    def publish(self, name: str, files: dict[str, bytes]) -> str:
        """Makes a dataset repo in the cache of this machine; its commit."""
        for path, body in files.items():
            (self.folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name / path).write_bytes(body)
        return str(self.do("dataset", "publish", self.folder / name, "--as", f"acme/{name}")["commit"])

    def shard(self, commit: str, name: str = "pics") -> Path:
        """The only shard of the only set of a repo."""
        (found,) = (self.datasets / f"acme___{name}/default/0.0.0" / commit).glob("*.arrow")
        return found


@pytest.fixture
def there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(tmp_path / "there", capsys)


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(tmp_path / "here", capsys)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "set.tar"


def pictures(machine: Machine, path: str = "") -> str:
    """A dataset of pictures with a set that names them by paths of its machine, or by `path`; its commit."""
    import pyarrow as pa

    commit = machine.publish("pics", {"train/0.png": b"PNG0", "train/1.png": b"PNG1"})
    snapshot = machine.hub / REPO.folder / "snapshots" / commit
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": path or f"{snapshot}/train/{number}.png"} for number in range(2)]
    place = place_of(REPO, commit)
    write_arrow_set(machine.datasets, place, {"train": pa.table({"image": pa.array(rows, media)})}, IMAGE)
    return commit


def texts(machine: Machine, name: str = "texts", rows: int = 100) -> str:
    """A dataset of texts with a set; its commit."""
    import pyarrow as pa

    commit = machine.publish(name, {"train.txt": b"".join(b"row %d\n" % row for row in range(rows))})
    table = pa.table({"text": [f"row {row}" for row in range(rows)]})
    write_arrow_set(
        machine.datasets, place_of(RepoId.parse(f"acme/{name}", "dataset"), commit), {"train": table}, TEXTS
    )
    return commit


def test_pictures_are_found_on_the_other_machine_with_the_first_gone(
    there: Machine, here: Machine, archive: Path
) -> None:
    commit = pictures(there)
    code, out, err = there.run("export", "datasets/acme/pics", "--prepared", "-o", archive)
    assert code == 0, err
    assert f"prepared set default of datasets/acme/pics at {commit[:12]}: 2 rows" in out
    assert "not proved: made by an unknown version of datasets" in out and 'cp -L "$HF_HUB_CACHE/' in err
    assert str(there.folder).encode() not in archive.read_bytes()
    assert not (there.datasets / ".hfpeer").exists()
    shutil.rmtree(there.folder)
    code, out, err = here.run("import", archive)
    assert code == 0, err
    assert f"taken from {archive}" in out and "attested: made by another machine's code" in out
    named = [Path(one.text) for one in paths_of(here.shard(commit))]
    assert [path.read_bytes() for path in named] == [b"PNG0", b"PNG1"]
    assert not list(here.hub.glob("datasets--hfpeer-prepared*")) and not (here.datasets / ".hfpeer").exists()
    (listed,) = here.do("dataset", "ls", "--prepared")["sets"]
    assert (listed["level"], listed["problems"], listed["repo"]) == ("attested", [], "acme/pics")
    assert here.run("dataset", "verify", "--prepared", "-r", "acme/pics")[0] == 0


def test_only_the_files_of_the_splits_move(there: Machine, here: Machine, archive: Path) -> None:
    commit = texts(there)
    folder = there.shard(commit, "texts").parent
    (folder / "texts-train-00000-of-00002.arrow").write_bytes(b"left by a killed build")
    (folder / "cache-1234.arrow").write_bytes(b"of map")
    (folder.parent / f"{commit}_builder.lock").touch()
    (folder.parent / f"{'a' * 40}.incomplete").mkdir()
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    here.do("import", archive)
    placed = here.shard(commit, "texts").parent
    assert sorted(path.name for path in placed.iterdir()) == [".hfpeer.json", INFO, "texts-train.arrow"]
    assert [path.name for path in placed.parent.iterdir() if path.suffix != ".lock"] == [commit]


def test_a_second_import_takes_nothing_and_a_set_that_is_here_stays(
    there: Machine, here: Machine, archive: Path
) -> None:
    commit = texts(there)
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    (first,) = here.do("import", archive)
    assert [one["how"] for one in first["sets"]] == ["taken"] and first["taken_blobs"] == 4
    (again,) = here.do("import", archive)
    assert [one["how"] for one in again["sets"]] == ["here"] and again["taken_blobs"] == 0
    shard = here.shard(commit, "texts")
    inode = shard.stat().st_ino
    other = archive.with_name("other.tar")
    (there.shard(commit, "texts").parent / INFO).write_bytes(
        (there.shard(commit, "texts").parent / INFO).read_bytes() + b" "
    )
    there.do("export", "datasets/acme/texts", "--prepared", "-o", other)
    (kept,) = here.do("import", other)
    assert [one["how"] for one in kept["sets"]] == ["here"] and "stays" in kept["sets"][0]["notes"][0]
    assert shard.stat().st_ino == inode


def test_what_the_user_leaves_out_stays_out(there: Machine, here: Machine, archive: Path) -> None:
    texts(there)
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    (report,) = here.do("import", archive, "--no-prepared")
    assert report["sets"] == [] and report["taken_blobs"] == 1 and not here.datasets.exists()
    (planned,) = here.do("import", archive, "--dry-run")
    assert planned["taken_blobs"] == 3 and not here.datasets.exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "https://example.org/x.png"])
def test_a_set_that_names_a_file_outside_of_its_commit_does_not_move(there: Machine, archive: Path, path: str) -> None:
    pictures(there, path)
    code, out, _ = there.run("export", "datasets/acme/pics", "--prepared", "-o", archive)
    assert code == 0 and "Left out: The prepared set" in out and path in out
    code, _, err = there.run("export", "datasets/acme/pics", "--prepared", "--config", "default", "-o", archive)
    assert code == 7 and "names a file that is not of datasets/acme/pics" in err


def test_a_hostile_set_is_refused_and_the_rest_is_taken(
    there: Machine, here: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfpeer.prepared.media import Snapshot

    commit = pictures(there, "/etc/passwd")
    with monkeypatch.context() as lenient:
        lenient.setattr(Snapshot, "everywhere", lambda self, text, downloads=None: text)
        there.do("export", "datasets/acme/pics", "--prepared", "-o", archive)
    code, out, err = here.run("import", archive)
    assert code == 7 and "NOT TAKEN  a prepared set" in out and "'/etc/passwd'" in err
    assert not (here.datasets / "acme___pics").exists()
    assert (here.hub / REPO.folder / "snapshots" / commit / "train/0.png").read_bytes() == b"PNG0"


def test_a_damaged_shard_is_named_and_the_repaired_archive_goes_on(
    there: Machine, here: Machine, archive: Path
) -> None:
    commit = texts(there)
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(b"row 50", b"row 5X", 2))
    code, out, _ = here.run("import", archive)
    assert code == 7 and "DAMAGED" in out and not (here.datasets / "acme___texts").exists()
    archive.write_bytes(whole)
    (report,) = here.do("import", archive)
    assert [one["how"] for one in report["sets"]] == ["taken"] and here.shard(commit, "texts").is_file()


def test_a_changed_byte_in_a_recorded_set_ends_the_export(there: Machine, here: Machine, archive: Path) -> None:
    commit = texts(there)
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    here.do("import", archive)
    shard = here.shard(commit, "texts")
    shard.write_bytes(shard.read_bytes().replace(b"row 50", b"row 5X"))
    code, _, err = here.run("export", "datasets/acme/texts", "--prepared", "-o", archive.with_name("b.tar"))
    assert code == 7 and "its bytes have another hash" in err
    code, out, _ = here.run("dataset", "verify", "--prepared", "-r", "acme/texts")
    assert code == 7 and "wrong_bytes" in out and "unchecked" in out


def test_plain_tar_makes_a_cache_and_the_printed_command_the_set(there: Machine, here: Machine, archive: Path) -> None:
    commit = texts(there)
    told = there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    here.hub.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(here.hub, filter="tar")
    assert (here.hub / "datasets--acme--texts/snapshots" / commit / "train.txt").is_file()
    (packed,) = told["sets"]
    target = here.datasets / packed["folder"]
    target.mkdir(parents=True)
    for path in (here.hub / packed["snapshot"]).iterdir():
        shutil.copy(path, target)
    (listed,) = here.do("dataset", "ls", "--prepared")["sets"]
    assert (listed["rows"], listed["commit"], listed["level"]) == (100, commit, "unchecked")
    assert all(one["is_harmless"] for one in listed["problems"])


def test_a_set_of_a_script_moves_without_a_commit(there: Machine, here: Machine, archive: Path) -> None:
    import pyarrow as pa

    there.publish("scripted", {"scripted.py": b"raise SystemExit(3)"})
    repo = RepoId.parse("acme/scripted", "dataset")
    folder = write_arrow_set(there.datasets, place_of(repo, "5" * 64), {"train": pa.table({"text": ["a"]})}, TEXTS)
    (folder / INFO).write_bytes((folder / INFO).read_bytes().replace(b'"parquet"', b'"scripted"'))
    told = there.do("export", "datasets/acme/scripted", "--prepared", "-o", archive)
    assert [one["commit"] for one in told["sets"]] == [""]
    (report,) = here.do("import", archive)
    (taken,) = report["sets"]
    assert (taken["how"], taken["level"], taken["commit"]) == ("taken", "attested", "")
    assert Path(taken["folder"]).name == "5" * 64


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("export", "acme/m", "--prepared", "-o", "x"), 4, "acme/m"),
        (("export", "datasets/acme/texts", "--config", "en", "-o", "x"), 2, "Give `--prepared` too"),
        (
            ("export", "datasets/acme/texts", "--prepared", "--config", "fr", "-o", "x"),
            4,
            "No prepared set of config fr",
        ),
    ],
)
def test_a_mistake_is_a_sentence(there: Machine, words: tuple[str, ...], code: int, said: str) -> None:
    texts(there)
    ended, _, err = there.run(*words)
    assert ended == code and said in err


def test_without_pyarrow_the_files_come_and_the_sets_wait(
    there: Machine, here: Machine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = texts(there)
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    with monkeypatch.context() as without:
        without.setattr("hfpeer.prepared.arrow.extra.has_arrow", lambda: False)
        code, out, err = here.run("import", archive)
    assert code == 2 and "needs pyarrow" in err and "proved, 1 of 1 file" in out
    (report,) = here.do("import", archive)
    assert report["taken_blobs"] == 0 and here.shard(commit, "texts").is_file()


def test_a_large_shard_shares_its_bytes_with_no_copy(there: Machine, here: Machine, archive: Path) -> None:
    """After an import the set is there once: no blob of the Hub cache has its bytes too."""
    import pyarrow as pa

    commit = texts(there)
    write_arrow(there.shard(commit, "texts"), pa.table({"text": ["x" * 1000] * 100}))
    there.do("export", "datasets/acme/texts", "--prepared", "-o", archive)
    here.do("import", archive)
    shard = here.shard(commit, "texts")
    assert shard.stat().st_nlink == 1
    large = [path for path in here.hub.rglob("*") if path.is_file() and path.stat().st_size > 50_000]
    assert large == []


def test_an_archive_with_a_repo_of_sets_that_is_none_is_refused(there: Machine, here: Machine, archive: Path) -> None:
    from hfpeer.prepared.commits import set_repo

    name = set_repo(REPO)
    (there.folder / "none").mkdir(parents=True)
    (there.folder / "none/a.txt").write_bytes(b"x")
    there.do("dataset", "publish", there.folder / "none", "--as", name.full_name)
    there.do("export", f"datasets/{name.full_name}", "-o", archive)
    code, _, err = here.run("import", archive)
    assert code == 7 and "is no prepared set" in err and not here.datasets.exists()
