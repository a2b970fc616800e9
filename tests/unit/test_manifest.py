"""A manifest survives its codec, and an invalid document is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfpeer.cache.disk import layout
from hfpeer.errors import CorruptData, EntryNotFound
from hfpeer.manifest import JSON_ITEMS, Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId

COMMIT = Commit("c" * 40)
REPO = RepoId.parse("acme/tiny")
hexes = st.text("0123456789abcdef", min_size=40, max_size=40)
paths = st.from_regex(r"[a-z\u00e9\u4e2d ]{1,8}(/[a-z.]{2,8}x){0,2}", fullmatch=True).map(FilePath.parse)


@st.composite
def files(draw: st.DrawFn) -> ManifestFile:
    path, size, mode = draw(paths), draw(st.integers(0, 1 << 62)), draw(st.sampled_from(["100644", "100755", "120000"]))
    if draw(st.booleans()):
        pointer = draw(st.none() | st.binary(max_size=20))
        return ManifestFile(path, size, Digest("sha256", draw(hexes) + "0" * 24), mode, draw(hexes), pointer)
    return ManifestFile(path, size, Digest("git-sha1", draw(hexes)), mode)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    unique = (lambda file: file.path, lambda file: file.digest)
    listed = sorted(draw(st.lists(files(), max_size=6, unique_by=unique)), key=lambda file: file.path)
    folders = {file.path.rsplit("/", depth)[0] for file in listed for depth in range(1, file.path.count("/") + 1)}
    assume(folders.isdisjoint(file.path for file in listed))
    opaque = draw(st.lists(st.builds(OpaqueEntry, paths.map(str), st.just("160000"), hexes), max_size=2))
    return Manifest(REPO, COMMIT, tuple(listed), tuple(opaque), draw(st.none() | st.binary(max_size=50)))


@given(manifests())
def test_a_manifest_survives_its_codec(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json().encode()) == manifest


@pytest.mark.parametrize("count", [0, 1, JSON_ITEMS, JSON_ITEMS + 1])
def test_its_parts_are_the_text_that_a_json_library_writes(count: int) -> None:
    names = [f'{n:05} "\\\t\u4e2d\U0001f600' for n in range(count)]
    files = tuple(plain(name, n, f"{n:040x}") for n, name in enumerate(names))
    manifest = Manifest(REPO, COMMIT, files, (), b"commit")
    assert len(list(manifest.json_parts())) == 2 + -(-count // JSON_ITEMS)
    assert manifest.to_json() == json.dumps(json.loads(manifest.to_json()), separators=(",", ":"))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert layout.tree_text(files) == json.dumps(json.loads(layout.tree_text(files)))


def one(**changes: Any) -> dict[str, Any]:
    document = json.loads(Manifest(REPO, COMMIT, (plain("a"),)).to_json())
    document["files"][0] |= changes
    return dict(document)


def plain(path: str, size: int = 3, hex: str = "a" * 40) -> ManifestFile:
    return ManifestFile(FilePath(path), size, Digest("git-sha1", hex))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../a"},
        {"path": "/etc/passwd"},
        {"path": 7},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"size_bytes": 1.0},
        {"size_bytes": 1 << 64},
        {"mode": "040000"},
        {"mode": "160000"},
        {"digest": "md5:00"},
        {"digest": None},
        {"digest": "sha256:" + "a" * 64, "blob_id": "../x"},
        {"digest": "sha256:" + "a" * 64},
        {"pointer": "not base64!"},
        {"pointer": 7},
        {"pointer": "\u00e9"},
    ],
)
def test_a_file_with_a_bad_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptData):
        Manifest.from_json(json.dumps(one(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"repo": "models/../x"},
        {"repo": None},
        {"commit": "main"},
        {"commit": 1},
        {"files": None},
        {"files": {"a": 1}},
        {"opaque": [["a", "160000"]]},
        {"opaque": [["a", "160000", "zz"]]},
        {"commit_object": "%"},
        {"format_version": 2},
    ],
)
def test_a_document_with_a_bad_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptData):
        Manifest.from_json(json.dumps(one() | changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '"x"', "[" * 100_000, b"\xff\xfe", b"\xff", '{"format_version":NaN}', "1" * 5000]
)
def test_text_that_is_no_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(CorruptData):
        Manifest.from_json(text)


keys = st.sampled_from(["format_version", "repo", "commit", "files", "opaque", "commit_object", "path", "size_bytes"])
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
documents = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=10)


@given(documents)
def test_any_other_json_is_refused_and_nothing_else_is_raised(document: object) -> None:
    with pytest.raises(CorruptData):
        Manifest.from_json(json.dumps(document))


def test_a_path_that_occurs_twice_is_refused() -> None:
    document = one()
    document["files"] *= 2
    with pytest.raises(CorruptData):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("other", ["a/b", "a/b/c"])
def test_a_file_that_is_a_folder_of_another_is_refused(other: str) -> None:
    listed = Manifest(REPO, COMMIT, (plain("a"), plain(other)))
    with pytest.raises(CorruptData):
        Manifest.from_json(listed.to_json())


def test_one_digest_with_two_sizes_is_refused() -> None:
    with pytest.raises(CorruptData):
        Manifest.from_json(Manifest(REPO, COMMIT, (plain("a", 3), plain("b", 4))).to_json())


def test_files_come_sorted_whatever_the_document_says() -> None:
    document = json.loads(Manifest(REPO, COMMIT, (plain("a"), plain("b"))).to_json())
    document["files"].reverse()
    assert [file.path for file in Manifest.from_json(json.dumps(document)).files] == ["a", "b"]


def test_a_shared_blob_counts_once() -> None:
    manifest = Manifest(REPO, COMMIT, (plain("a"), plain("b"), plain("c", 5, "b" * 40)))
    assert manifest.size_bytes == 8
    assert list(manifest.sizes) == [Digest("git-sha1", "a" * 40), Digest("git-sha1", "b" * 40)]


def test_a_file_that_is_not_listed_is_known_not_to_be_there() -> None:
    manifest = Manifest(REPO, COMMIT, (plain("a"),))
    assert manifest.file(FilePath("a")).size_bytes == 3
    with pytest.raises(EntryNotFound):
        manifest.file(FilePath("b"))


def test_a_manifest_without_its_commit_object_is_attested() -> None:
    manifest = Manifest(REPO, COMMIT, (), commit_object=b"tree ...")
    assert not manifest.is_attested
    assert replace(manifest, commit_object=None).is_attested
