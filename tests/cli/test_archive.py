"""`hfpeer export`, `have` and `import` as users type them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.hub.zoo import noise
from fakes.hub_cache import proved_manifest_of
from hfpeer.archive import parts
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId, Revision
from hfpeer_cli.commands.moving.archive import parse_size

Run = Callable[..., Any]
REPO = RepoId.parse("acme/tiny")
FILES = {"config.json": b"{}", "weights.bin": noise(1_200_000, "weights")}
COMMIT = proved_manifest_of(FILES, REPO).commit


@pytest.fixture
def archive(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> Path:
    """An archive of the cache of `environ`."""
    store = Store(Path(environ["HF_HUB_CACHE"]), Path(environ["HFPEER_HOME"]))
    manifest = proved_manifest_of(FILES, REPO)
    store.save_manifest(manifest)
    store.ingester.ingest_many(REPO, {file.digest: FILES[file.path] for file in manifest.files})
    store.ingester.install(REPO, manifest.commit, manifest.files)
    store.refs.write(REPO, Revision("main"), manifest.commit, "huggingface")
    store.close()
    return tmp_path / "tiny.tar"


def elsewhere(environ: dict[str, str], tmp_path: Path) -> Path:
    """From now on the command line works on another machine's cache."""
    environ.update(HFPEER_HOME=str(tmp_path / "there/home"), HF_HUB_CACHE=str(tmp_path / "there/hub"))
    return tmp_path / "there/hub"


def test_export_and_import_say_what_they_did(
    hfpeer: Run, environ: dict[str, str], archive: Path, tmp_path: Path
) -> None:
    ran = hfpeer("export", "acme/tiny@main", "-o", str(archive))
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"acme/tiny at {COMMIT[:12]} (main): 2 files, 1.2 MB, proved\n{archive}\n")
    assert f"There: hfpeer import {archive}" in ran.err and "tar xf" in ran.err
    cache = elsewhere(environ, tmp_path)
    planned = hfpeer("import", str(archive), "--dry-run")
    assert "Would take 2 blobs, 1.2 MB" in planned.out and not cache.exists()
    ran = hfpeer("import", str(archive), "-v", COMMIT)
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"acme/tiny at {COMMIT[:12]}: proved, 2 of 2 files, 1.2 MB\n  refs: main\nTook 2 blobs")
    assert (layout.snapshot_path(cache, REPO, COMMIT) / "weights.bin").read_bytes() == FILES["weights.bin"]
    (report,) = hfpeer("import", str(archive), "--json").document
    assert report["taken_blobs"] == 0 and report["revisions"][0]["refs"] == ["main"]


def test_a_folder_as_target_names_the_archive(hfpeer: Run, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    ran = hfpeer("export", "--all", "-o", str(tmp_path / "stick"), "--json")
    (path,) = ran.document["paths"]
    assert Path(path).name == f"models--acme--tiny@{COMMIT[:12]}.tar" and Path(path).is_file()


def test_parts_that_the_volume_needs_are_told(
    hfpeer: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_SIZES", (1_000_000,))
    monkeypatch.setattr(parts, "max_file_bytes", lambda folder: 1_100_000)
    (tmp_path / "stick").mkdir()
    ran = hfpeer("export", "acme/tiny", "-o", str(tmp_path / "stick"))
    first, second = sorted((tmp_path / "stick").iterdir())
    assert ran.code == 0 and f"{first} to {second}\n" in ran.out
    assert "bytes, so the archive is in 2 parts.\n" in ran.out
    assert f"There: hfpeer import {str(first).removesuffix('000')}*" in ran.err


def test_damage_ends_with_exit_code_7_and_the_rest_is_taken(
    hfpeer: Run, environ: dict[str, str], archive: Path, tmp_path: Path
) -> None:
    hfpeer("export", "acme/tiny", "-o", str(archive), "--part-size", "1MB")
    first, second = sorted(tmp_path.glob("tiny.tar.*"))
    second.write_bytes(b"X" + second.read_bytes()[1:])
    cache = elsewhere(environ, tmp_path)
    ran = hfpeer("import", str(second), str(first))
    assert ran.code == 7
    assert "DAMAGED  models--acme--tiny/blobs/" in ran.out and str(second) in ran.out
    assert "Copy the damaged parts again" in ran.err
    assert (layout.snapshot_path(cache, REPO, COMMIT) / "config.json").read_bytes() == b"{}"
    assert not layout.refs_folder(cache, REPO).exists()


def test_a_have_file_makes_the_next_archive_small(
    hfpeer: Run, environ: dict[str, str], archive: Path, tmp_path: Path
) -> None:
    have = tmp_path / "have.txt"
    assert hfpeer("have", "-o", str(have)).out == f"2 blobs in {have}.\n"
    assert hfpeer("have").out == have.read_text()
    ran = hfpeer("export", "acme/tiny", "-o", str(archive), "--have", str(have))
    assert "0 blobs, 2 blobs left out" in ran.out and "without hfpeer" not in ran.err
    assert hfpeer("import", str(archive)).code == 0
    cache = elsewhere(environ, tmp_path)
    ran = hfpeer("import", str(archive))
    assert ran.code == 7 and "leaves out 2 blobs" in ran.err and not cache.exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("export", "-o", "x.tar"), 2, "Nothing to export is named"),
        (("export", "acme/tiny", "-o", "-", "--part-size", "4GB"), 2, "A pipe has no parts"),
        (("export", "acme/tiny", "-o", "x.tar", "--part-size", "3"), 2, "not the size of a part"),
        (("export", "acme/none", "-o", "x.tar"), 4, "acme/none"),
        (("import", "none.tar"), 4, "There is no file none.tar"),
        (("import", "."), 4, "no archive, and is no cache"),
    ],
)
def test_a_mistake_is_a_sentence(
    hfpeer: Run,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ran = hfpeer(*words)
    assert (ran.code, said in ran.err) == (code, True), ran.err


@pytest.mark.slow
def test_through_a_pipe(environ: dict[str, str], archive: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; from hfpeer_cli.main import main; main(sys.argv[1:])"]
    here = {**os.environ, **environ}
    cache = elsewhere(environ, tmp_path)
    there = {**os.environ, **environ}
    made = subprocess.run([*program, "export", "acme/tiny", "-o", "-"], env=here, capture_output=True, check=True)
    taken = subprocess.run([*program, "import", "-"], env=there, input=made.stdout, capture_output=True, check=False)
    assert taken.returncode == 0, taken.stderr.decode()
    assert layout.ref_path(cache, REPO, Revision("main")).read_text() == COMMIT


def test_sizes_of_parts() -> None:
    assert [parse_size(text) for text in ("4GB", "700 MiB", "4000000000", "1.5g")] == [
        4 * 10**9,
        700 * 2**20,
        4 * 10**9,
        15 * 10**8,
    ]
    for bad in ("", "x", "10", "-4GB", "4XB"):
        with pytest.raises(InvalidName):
            parse_size(bad)
