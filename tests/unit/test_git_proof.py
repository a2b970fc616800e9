"""A listing is true exactly if git itself would give the commit its id."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfpeer.errors import ForgedManifest
from hfpeer.git.lfs import parse_pointer, pointer_text
from hfpeer.git.proof import EMPTY_TREE, commit_body, is_file_name, object_id, path_from_git, prove, root_tree
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId

REPO = RepoId.parse("acme/tiny")
SECONDS = 20.0
"""Bounds what takes well below a second; if the cost grew with the square, it would take minutes."""
SUBMODULE = "5ab0d01e" * 5
QUIRKY_POINTERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda text: text.rstrip(b"\n"),
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"oid", b"ext-0-foo sha256:" + b"0" * 64 + b"\noid"),
    lambda text: text.replace(b"git-lfs.github.com", b"hawser.github.com"),
)


class Git:
    """A bare repository that takes one commit after the other."""

    def __init__(self, folder: Path) -> None:
        self._command = ("git", f"--git-dir={folder}")
        self._environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        self.run("init", "-q", "--bare", str(folder))

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = [*self._command, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, env=self._environment).stdout

    def commit(self, entries: dict[bytes, tuple[str, bytes]]) -> tuple[Commit, bytes]:
        """The id and raw text of a commit of path -> (mode, content); a submodule's content is its commit."""
        stream = b"commit refs/heads/main\nmark :1\ncommitter a <a@b> 1700000000 +0100\n" + data(b"one")
        for path, (mode, content) in entries.items():
            stream += b"M %b %b %b\n" % (mode.encode(), content if mode == "160000" else b"inline", quoted(path))
            stream += b"" if mode == "160000" else data(content)
        self.run("fast-import", "--quiet", "--force", stdin=stream)
        commit = self.run("rev-parse", "refs/heads/main").decode().strip()
        return Commit.parse(commit), self.run("cat-file", "commit", commit)


def data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def quoted(path: bytes) -> bytes:
    return b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'


def listed(path: bytes, mode: str, content: bytes) -> ManifestFile | OpaqueEntry:
    """What an honest listing says of a tree entry. A content that is a pointer is an LFS file."""
    name, blob_id = path_from_git(path), object_id("blob", content)
    if mode == "160000":
        return OpaqueEntry(name, mode, content.decode())
    if not is_file_name(name):
        return OpaqueEntry(name, mode, blob_id)
    found = parse_pointer(content)
    if found is None:
        return ManifestFile(FilePath(name), len(content), Digest("git-sha1", blob_id), mode)
    digest, size = found
    is_canonical = content == pointer_text(digest.hex, size)
    return ManifestFile(FilePath(name), size, digest, mode, blob_id, None if is_canonical else content)


def listing(commit: Commit, raw: bytes, entries: dict[bytes, tuple[str, bytes]]) -> Manifest:
    all_listed = [listed(path, mode, content) for path, (mode, content) in entries.items()]
    files = [entry for entry in all_listed if isinstance(entry, ManifestFile)]
    opaque = [entry for entry in all_listed if isinstance(entry, OpaqueEntry)]
    return Manifest(REPO, commit, tuple(sorted(files, key=lambda file: file.path)), tuple(opaque), raw)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("git") / "repo.git")


def lfs_pointers() -> st.SearchStrategy[bytes]:
    def pointer(content: bytes) -> bytes:
        digest = hashlib.sha256(content)
        return pointer_text(digest.hexdigest(), int.from_bytes(digest.digest()[:6], "big"))

    canonical = st.builds(pointer, st.binary(max_size=4))
    return canonical | st.builds(lambda text, quirk: quirk(text), canonical, st.sampled_from(QUIRKY_POINTERS))


NAMES = st.sampled_from(
    [
        b"a",
        b"a.b",
        b"a-b",
        b"a0",
        b"ab",
        b"a b",
        b"A",
        b"b",
        "é".encode(),
        "模型".encode(),
        b"back\\slash",
        b"\xff\xfe",
        b"C:x",
        b"n" * 256,
    ]
)
CONTENTS = st.tuples(st.sampled_from(["100644", "100755"]), st.binary(max_size=6) | lfs_pointers())
LINKS = st.tuples(st.just("120000"), st.just(b"../a"))
SUBMODULES = st.tuples(st.just("160000"), st.just(SUBMODULE.encode()))


@st.composite
def repos(draw: st.DrawFn) -> dict[bytes, tuple[str, bytes]]:
    """Random trees full of the names between which git's order is easily got wrong."""
    paths = draw(st.lists(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), min_size=1, max_size=12, unique=True))
    kept = [path for path in paths if not any(other.startswith(path + b"/") for other in paths)]
    return {path: draw(CONTENTS | LINKS | SUBMODULES) for path in kept}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=repos())
def test_an_honest_listing_of_any_git_repo_is_proved(git: Git, entries: dict[bytes, tuple[str, bytes]]) -> None:
    manifest = listing(*git.commit(entries), entries)
    prove(manifest)
    prove(Manifest.from_json(manifest.to_json().encode()))


ENTRIES: dict[bytes, tuple[str, bytes]] = {
    b"README.md": ("100644", b"hello"),
    b"run.sh": ("100755", b"#!/bin/sh"),
    b"link": ("120000", b"README.md"),
    b"onnx/config.json": ("100644", b"{}"),
    b"onnx/model.onnx": ("100644", pointer_text("ab" * 32, 5000)),
    b"onnx.txt": ("100644", b"sorts before the folder"),
    b"quirky.bin": ("100644", pointer_text("cd" * 32, 7).rstrip(b"\n")),
    b"vendor/lib": ("160000", SUBMODULE.encode()),
    b"odd\\name": ("100644", b"cannot be fetched"),
}


@pytest.fixture(scope="module")
def honest(git: Git) -> Manifest:
    return listing(*git.commit(ENTRIES), ENTRIES)


def with_file(manifest: Manifest, path: str, /, **changes: object) -> Manifest:
    changed = [replace(file, **changes) if file.path == path else file for file in manifest.files]  # type: ignore[arg-type]
    return replace(manifest, files=tuple(changed))


def without_file(manifest: Manifest, path: str) -> Manifest:
    return replace(manifest, files=tuple(file for file in manifest.files if file.path != path))


def hidden(manifest: Manifest, path: str) -> Manifest:
    """The file is there for the fold, but nobody would fetch it."""
    file = manifest.by_path[FilePath(path)]
    return replace(without_file(manifest, path), opaque=(*manifest.opaque, OpaqueEntry(path, file.mode, file.blob_id)))


def hidden_folder(manifest: Manifest, folder: str) -> Manifest:
    inside = [file for file in manifest.files if file.path.startswith(folder + "/")]
    tree = root_tree(replace(file, path=FilePath(file.path[len(folder) + 1 :])) for file in inside)
    kept = tuple(file for file in manifest.files if file not in inside)
    return replace(manifest, files=kept, opaque=(*manifest.opaque, OpaqueEntry(folder, "40000", tree)))


def smuggled(manifest: Manifest, path: str) -> Manifest:
    """Hides a file in the name of an opaque entry, by making the tree's own bytes part of the name."""
    first, second = manifest.by_path[FilePath("onnx/config.json")], manifest.by_path[FilePath(path)]
    raw = b"config.json\0" + bytes.fromhex(first.blob_id) + b"100644 model.onnx"
    entry = OpaqueEntry("onnx/" + path_from_git(raw), "100644", second.blob_id)
    return replace(without_file(without_file(manifest, first.path), path), opaque=(*manifest.opaque, entry))


NEW_FILE = ManifestFile(FilePath("evil.py"), 4, Digest("git-sha1", "0" * 40))
FORGERIES: dict[str, Callable[[Manifest], Manifest]] = {
    "a renamed file": lambda m: with_file(m, "README.md", path=FilePath("README2.md")),
    "a moved file": lambda m: with_file(m, "onnx/config.json", path=FilePath("config.json")),
    "a file moved into a folder": lambda m: with_file(m, "README.md", path=FilePath("onnx/README.md")),
    "an exec bit more": lambda m: with_file(m, "README.md", mode="100755"),
    "an exec bit less": lambda m: with_file(m, "run.sh", mode="100644"),
    "a link made a file": lambda m: with_file(m, "link", mode="100644"),
    "an unknown mode": lambda m: with_file(m, "link", mode="100600"),
    "another plain digest": lambda m: with_file(m, "README.md", digest=Digest("git-sha1", "1" * 40)),
    "two digests": lambda m: with_file(m, "README.md", pointer_id="1" * 40),
    "another LFS digest": lambda m: with_file(m, "onnx/model.onnx", digest=Digest("sha256", "1" * 64)),
    "another LFS size": lambda m: with_file(m, "onnx/model.onnx", size_bytes=5001),
    "another LFS size beside an odd pointer": lambda m: with_file(m, "quirky.bin", size_bytes=8),
    "another LFS digest beside an odd pointer": lambda m: with_file(m, "quirky.bin", digest=Digest("sha256", "1" * 64)),
    "another odd pointer": lambda m: with_file(m, "quirky.bin", pointer=pointer_text("cd" * 32, 7)),
    "a plain file made LFS": lambda m: with_file(m, "README.md", digest=Digest("sha256", "1" * 64)),
    "a dropped file": lambda m: without_file(m, "README.md"),
    "a dropped link": lambda m: without_file(m, "link"),
    "all files dropped": lambda m: replace(m, files=()),
    "an added file": lambda m: replace(m, files=(*m.files, NEW_FILE)),
    "an added file in a folder": lambda m: replace(m, files=(*m.files, replace(NEW_FILE, path=FilePath("onnx/e.py")))),
    "a file listed twice": lambda m: replace(m, files=(*m.files, m.files[0])),
    "a file below a file": lambda m: replace(m, files=(*m.files, replace(NEW_FILE, path=FilePath("link/evil.py")))),
    "a dropped submodule": lambda m: replace(m, opaque=m.opaque[1:]),
    "an added submodule": lambda m: replace(m, opaque=(*m.opaque, OpaqueEntry("s", "160000", SUBMODULE))),
    "a hidden file": lambda m: hidden(m, "README.md"),
    "a hidden LFS file": lambda m: hidden(m, "onnx/model.onnx"),
    "a hidden folder": lambda m: hidden_folder(m, "onnx"),
    "a smuggled file": lambda m: smuggled(m, "onnx/model.onnx"),
    "an opaque mode": lambda m: replace(m, opaque=(*m.opaque, OpaqueEntry("s", "100644 x\0", SUBMODULE))),
    "an opaque id": lambda m: replace(m, opaque=(*m.opaque, OpaqueEntry("s", "160000", "zz"))),
    "an opaque name without parts": lambda m: replace(m, opaque=(*m.opaque, OpaqueEntry("s//", "160000", SUBMODULE))),
    "an opaque name that is no text": lambda m: replace(m, opaque=(OpaqueEntry("\ud800", "160000", SUBMODULE),)),
    "another commit": lambda m: replace(m, commit=Commit("1" * 40)),
    "a commit object changed": lambda m: replace(m, commit_object=(m.commit_object or b"") + b"\n"),
    "no commit object": lambda m: replace(m, commit_object=None),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_listing_is_refused(honest: Manifest, forgery: str) -> None:
    prove(honest)
    forged = FORGERIES[forgery](honest)
    assert forged != honest
    with pytest.raises(ForgedManifest):
        prove(forged)


def test_a_commit_of_another_tree_cannot_be_swapped_in(git: Git, honest: Manifest) -> None:
    other, raw = git.commit({b"README.md": ("100644", b"other")})
    for forged in (replace(honest, commit_object=raw), replace(honest, commit=other, commit_object=raw)):
        with pytest.raises(ForgedManifest):
            prove(forged)


def test_an_object_that_is_no_commit_cannot_pose_as_one(honest: Manifest) -> None:
    raw = b"author a <a@b> 0 +0000\ntree " + b"0" * 40 + b"\n"
    with pytest.raises(ForgedManifest, match="names no tree"):
        prove(replace(honest, commit=Commit(object_id("commit", raw)), commit_object=raw))


def test_the_refusal_names_repo_and_commit(honest: Manifest) -> None:
    with pytest.raises(ForgedManifest) as caught:
        prove(without_file(honest, "link"))
    assert caught.value.facts == {"repo": "acme/tiny", "commit": str(honest.commit)}
    assert "acme/tiny" in caught.value.message and caught.value.hint


def test_an_empty_folder_and_an_empty_repo_can_be_proved(git: Git) -> None:
    assert root_tree([]) == EMPTY_TREE
    opaque = (OpaqueEntry("a", "40000", EMPTY_TREE), OpaqueEntry("a.b", "100644", "1" * 40))
    wanted = git.run(
        "mktree", "--missing", stdin=f"040000 tree {EMPTY_TREE}\ta\n100644 blob {'1' * 40}\ta.b\n".encode()
    )
    assert root_tree([], opaque) == wanted.decode().strip()


def test_a_commit_made_here_is_the_one_git_makes(git: Git) -> None:
    body = commit_body(EMPTY_TREE, author="hfpeer <hfpeer@localhost>", time_seconds=0, message="Published")
    assert git.run("hash-object", "-t", "commit", "--stdin", stdin=body).decode().strip() == object_id("commit", body)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"version",
        b"version https://example.org/v1\noid sha256:" + b"a" * 64 + b"\nsize 1\n",
        pointer_text("AB" * 32, 1),
        pointer_text("ab" * 31, 1),
        pointer_text("ab" * 32, -1),
        pointer_text("ab" * 32, 1) + b"size 2\n",
        pointer_text("ab" * 32, 1) + b"x" * 1024,
        pointer_text("ab" * 32, 1) + b"\xff",
        pointer_text("ab" * 32, 10**20),
        b"version\n" + pointer_text("ab" * 32, 1),
    ],
)
def test_what_is_no_pointer_is_not_read_as_one(text: bytes) -> None:
    assert parse_pointer(text) is None


@pytest.mark.timed
def test_a_hundred_thousand_files_are_proved_in_seconds() -> None:
    paths = (f"data/{number % 300:03d}/part {number}.bin" for number in range(100_000))
    files = tuple(ManifestFile(FilePath(path), 1, Digest("git-sha1", "1" * 40)) for path in paths)
    assert seconds_to_prove(files) < SECONDS


@pytest.mark.timed
def test_a_deep_tree_is_proved_in_seconds_and_without_recursion() -> None:
    deep = "d/" * 2000
    files = tuple(ManifestFile(FilePath(f"{deep}{number}"), 1, Digest("git-sha1", "1" * 40)) for number in range(1000))
    assert seconds_to_prove(files) < SECONDS


def test_a_listing_made_to_burn_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.git.proof.MAX_TREES", 100_000)
    files = (
        ManifestFile(FilePath(f"{number}/{'d/' * 2000}f"), 1, Digest("git-sha1", "1" * 40)) for number in range(60)
    )
    with pytest.raises(ForgedManifest, match="folders"):
        root_tree(files)


def seconds_to_prove(files: tuple[ManifestFile, ...]) -> float:
    raw = commit_body(root_tree(files), author="a <a@b>", time_seconds=0, message="m")
    manifest = Manifest(REPO, Commit(object_id("commit", raw)), files, (), raw)
    started = time.thread_time()
    prove(manifest)
    return time.thread_time() - started
