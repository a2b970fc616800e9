"""Paths that strangers list: the time to read and to prove a listing grows with its bytes, however deep they are, and
what this system cannot hold is kept, counted and named."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from hfpeer import budgets, manifest
from hfpeer.endpoint.metadata.hub_json import TreeEntries, info
from hfpeer.errors import CorruptData, ForgedManifest
from hfpeer.git import lfs
from hfpeer.git import proof as gitproof
from hfpeer.git.proof import commit_body, folder_trees, object_id, prove, root_tree
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.node.operations.selection import Selection

REPO = RepoId.parse("acme/deep")
BLOB = object_id("blob", b"x")
DEEP = "/".join("d" * 1500)
Paths = Callable[[int], list[str]]


def file_at(path: str) -> ManifestFile:
    return ManifestFile(FilePath(path), 1, Digest("git-sha1", BLOB))


def proved(paths: list[str], *opaque: OpaqueEntry) -> Manifest:
    files = tuple(file_at(path) for path in sorted(paths))
    raw = commit_body(root_tree(files, opaque), author="a <a@b>", time_seconds=1, message="m")
    return Manifest(REPO, Commit(object_id("commit", raw)), files, opaque, raw)


def flat(count: int) -> list[str]:
    return [f"data/part-{number:07}.bin" for number in range(count)]


def deep(count: int) -> list[str]:
    """The same bytes in paths as deep as they may be, that have most folders in common."""
    return [f"{'f/' * 126}{number:07}" for number in range(count // 10)]


def seconds_of(paths: list[str], opaque: tuple[OpaqueEntry, ...] = ()) -> float:
    text = proved(paths, *opaque).to_json()
    began_at = time.process_time()
    found = Manifest.from_json(text)
    prove(found)
    TreeEntries(found).entries  # noqa: B018
    return time.process_time() - began_at


@pytest.mark.timed
@pytest.mark.parametrize("paths", [flat, deep])
def test_twenty_times_the_paths_take_not_much_more_than_twenty_times_as_long(paths: Paths) -> None:
    """A cost that grew with the square would take four hundred times as long."""
    seconds = min(seconds_of(paths(1000)) for _ in range(3))
    assert min(seconds_of(paths(20_000)) for _ in range(2)) < 120 * max(seconds, 0.005)


def test_a_large_listing_takes_little_more_memory_than_what_is_kept_of_it() -> None:
    raw = proved(flat(20_000)).to_json().encode()
    tracemalloc.start()
    found = Manifest.from_json(raw)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.files) == 20_000
    assert kept < 5 * len(raw) and peak < 7 * len(raw)


@pytest.mark.timed
def test_paths_that_are_too_deep_to_be_here_fold_as_fast_as_others() -> None:
    opaque = tuple(OpaqueEntry(f"{DEEP}/{number:05}", "100644", BLOB) for number in range(1000))
    assert seconds_of(["a"], opaque) < 15.0


def test_a_listing_keeps_what_cannot_be_here_and_is_proved_with_it() -> None:
    odd = [OpaqueEntry(path, "100644", BLOB, 1) for path in (DEEP, "n" * 256, "a/\udcff")]
    found = Manifest.from_json(proved(["a/b", "weights\\part1.bin", "C:x", "x:y"], *odd).to_json())
    prove(found)
    assert found.unusable == tuple(odd)
    assert [file.path for file in found.files] == ["C:x", "a/b", "weights\\part1.bin", "x:y"]


def test_the_endpoint_lists_them_as_the_hub_does() -> None:
    sha256 = "ab" * 32
    pointer = object_id("blob", lfs.pointer_text(sha256, 7))
    odd = (OpaqueEntry("n" * 256, "100644", pointer, 7, sha256), OpaqueEntry("a/\udcff", "100644", BLOB, 1))
    found = Manifest.from_json(proved(["a/b"], *odd).to_json())
    prove(found)
    entries = TreeEntries(found).entries
    assert set(entries) == {"a", "a/b", "a/\ufffd", "n" * 256}
    assert entries["n" * 256]["lfs"]["oid"] == sha256
    shown = info(found, {}, with_blobs=True)["siblings"]
    assert [(one["rfilename"], one["size"]) for one in shown] == [("a/b", 1), ("a/\ufffd", 1), ("n" * 256, 7)]
    json.dumps(shown, ensure_ascii=False).encode()
    with pytest.raises(ForgedManifest):
        prove(replace(found, opaque=(replace(odd[0], size_bytes=8), odd[1])))


def test_a_listing_without_git_may_have_names_that_no_tree_has() -> None:
    odd = tuple(OpaqueEntry(path, "100644", BLOB, 1) for path in ("/abs", "a//b", "nul\0", "../up", "\ud800", ""))
    listed = Manifest(REPO, Commit("ab" * 20), (file_at("a"),), odd)
    assert "a" in TreeEntries(Manifest.from_json(listed.to_json())).entries


def test_a_usable_file_is_refused_among_the_unusable_ones() -> None:
    document = json.loads(proved(["a"]).to_json())
    document["opaque"] = [["weights\\part1.bin", "100644", BLOB]]
    with pytest.raises(CorruptData, match="usable file among"):
        Manifest.from_json(json.dumps(document))


def test_a_pattern_asks_for_them_too() -> None:
    found = proved(["a", "b"], OpaqueEntry("b" * 256, "100644", BLOB), OpaqueEntry("sub", "160000", BLOB))
    assert [entry.path for entry in Selection().unusable_of(found)] == ["b" * 256]
    one = Selection(include=("a*",))
    assert (len(one.files_of(found)), one.unusable_of(found)) == (1, [])
    other = Selection(include=("bb*",))
    assert (other.files_of(found), len(other.unusable_of(found)), other.unmatched(found)) == ([], 1, ())
    assert Selection(named=("a",)).unusable_of(found) == []


def test_a_folder_is_no_file_and_no_path_comes_twice() -> None:
    for paths in (["a", "a/b"], ["a", "a.b", "a/b"], ["a/b", "a/b/c/d"], ["a", "a"]):
        document = json.loads(proved(["z"]).to_json())
        document["files"] = [{**document["files"][0], "path": path} for path in paths]
        with pytest.raises(CorruptData, match=r"below a file|twice"):
            Manifest.from_json(json.dumps(document))
        with pytest.raises(ForgedManifest):
            root_tree(map(file_at, paths))
    with pytest.raises(ForgedManifest):
        root_tree([file_at("a")], [OpaqueEntry("a", "40000", gitproof.EMPTY_TREE)])
    assert set(folder_trees(map(file_at, ["a.b", "a/b", "a0", "a/c/d"]))) == {"a", "a/c"}


def test_a_listing_has_a_largest_number_of_files_folders_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = proved(["aa", "b/b"], OpaqueEntry("cc/cc", "160000", BLOB))
    text = found.to_json()
    for module, bound, most in (
        (manifest, "MAX_MANIFEST_FILES", 3),
        (manifest, "MAX_MANIFEST_PATH_BYTES", 10),
        (gitproof, "MAX_TREES", 3),
    ):
        assert getattr(module, bound) == getattr(budgets, bound)
        monkeypatch.setattr(module, bound, most)
        prove(Manifest.from_json(text))
        monkeypatch.setattr(module, bound, most - 1)
        with pytest.raises(CorruptData, match="more than"):
            prove(Manifest.from_json(text))
        monkeypatch.undo()
    monkeypatch.setattr(gitproof, "MAX_FOLDER_PATH_BYTES", 1)
    assert set(folder_trees(found.files, found.opaque)) == {"b"}


@pytest.mark.parametrize(
    "change",
    [
        {"opaque": [[]]},
        {"opaque": [[[]]]},
        {"opaque": "a"},
        {"opaque": [["a" * 300, [], BLOB]]},
        {"files": [[]]},
        {"files": {"path": "a"}},
        {"format_version": "9" * 5000},
        {"format_version": "\ud800\n"},
        {"commit": "9" * 5000},
        {"repo": {"a": 1}},
    ],
)
def test_a_listing_with_one_thing_of_another_kind_is_refused_in_a_short_sentence(change: dict[str, object]) -> None:
    document = json.loads(proved(["a"]).to_json()) | change
    with pytest.raises(CorruptData) as caught:
        Manifest.from_json(json.dumps(document))
    assert len(caught.value.message) < 400 and caught.value.message.isprintable()
