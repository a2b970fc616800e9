"""Names and globs that select files of a commit, and what is said when they select none."""

from __future__ import annotations

import pytest

from hfpeer.errors import EntryNotFound
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.node.operations.selection import Selection

PATHS = ("README.md", "config.json", "model.safetensors", "onnx/model.onnx")
MANIFEST = Manifest(
    RepoId.parse("acme/m"),
    Commit("c" * 40),
    tuple(ManifestFile(FilePath(path), 1, Digest("sha1", f"{number:040x}")) for number, path in enumerate(PATHS)),
)
EMPTY = Manifest(RepoId.parse("acme/empty"), Commit("d" * 40), ())


@pytest.mark.parametrize(
    ("selection", "said", "near"),
    [
        (Selection(include=("*.safetensor",)), "matches '*.safetensor'", "model.safetensors"),
        (Selection(include=("MODEL.safetensors",)), "matches 'MODEL.safetensors'", "model.safetensors"),
        (Selection(include=("nope*", "readme*")), "matches 'nope*' or 'readme*'", "README.md"),
        (Selection(include=("",)), "matches ''", ""),
        (Selection(include=("*.json",), exclude=("*",)), "matches '*.json' and is not excluded", "config.json"),
        (Selection(exclude=("*",)), "`--exclude` leaves no file", ""),
        (Selection(named=("confg.json",)), "no file 'confg.json'", "config.json"),
        (Selection(named=("config.json", "model.onnx")), "no file 'model.onnx'", "onnx/model.onnx"),
    ],
)
def test_what_selects_nothing_is_an_error_that_names_what_is_near(selection: Selection, said: str, near: str) -> None:
    with pytest.raises(EntryNotFound) as caught:
        selection.files_of(MANIFEST)
    hint = caught.value.hint or ""
    assert said in caught.value.message
    assert (f"Near to it: {near}" in hint) if near else "Near to it" not in hint
    assert "`hfpeer model ls -r acme/m -v cccccccccccc` lists all." in hint


def test_globs_in_one_word_are_told_apart() -> None:
    with pytest.raises(EntryNotFound) as caught:
        Selection(include=("*.gguf,*.bin",)).files_of(MANIFEST)
    assert (caught.value.hint or "").startswith("Each glob has an --include of its own. ")


def test_a_glob_that_matches_nothing_beside_another_is_told() -> None:
    selection = Selection(include=("*.json", "*.safetensor"))
    assert [file.path for file in selection.files_of(MANIFEST)] == ["config.json"]
    assert selection.unmatched(MANIFEST) == ("*.safetensor",)


def test_a_commit_without_files_is_no_error() -> None:
    assert Selection(include=("*.json",)).files_of(EMPTY) == []


def test_an_optional_file_need_not_be_there() -> None:
    assert [file.path for file in Selection(optional=("README.md", ".none")).files_of(MANIFEST)] == ["README.md"]
    assert Selection(optional=(".none",)).files_of(MANIFEST) == []
    assert not Selection(optional=(".none",)).unmatched(MANIFEST)
