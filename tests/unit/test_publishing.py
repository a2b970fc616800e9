"""A local folder becomes the commit that git and git-lfs would make of it, or is refused with the reason."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hfpeer.budgets import MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_RULES
from hfpeer.cache.store import Store
from hfpeer.control.operations import PublishRequest
from hfpeer.errors import InvalidName, Locked, StorageError
from hfpeer.git.lfs import pointer_text
from hfpeer.git.proof import prove
from hfpeer.names import FilePath, RepoId
from hfpeer.node.operations import publishing
from hfpeer.node.operations.publishing import LFS_THRESHOLD_BYTES, FolderCommit, publish_folder, read_folder
from hfpeer.transfer.events import Event, Progressed

REPO = RepoId.parse("acme/published")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for path, content in {
        "README.md": b"# A model\n",
        "config.json": b"{}\n",
        "empty.txt": b"",
        "a/b": b"1",
        "a.b": b"2",
        "a-b/c": b"3",
        "names/100% #1 模型.txt": b"odd\n",
        "names/back.bin": b"lfs by rule",
        ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "names/link").symlink_to("../README.md")
    (root / "to-folder").symlink_to("names")
    return root


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in IDENTITY.items()}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


IDENTITY = {"NAME": "hfpeer", "EMAIL": "hfpeer@localhost", "DATE": "@0 +0000"}


def commit_by_git(folder: Path) -> str:
    """The commit that git makes of a folder in which LFS files are already replaced by their pointers."""
    git(folder, "init", "-q", "-b", "main")
    git(folder, "-c", "filter.lfs.clean=cat", "add", "-A")
    git(folder, "commit", "-q", "-m", "Published by hfpeer")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_is_the_one_git_makes(folder: Path) -> None:
    large = os.urandom(1 << 16) * 160
    (folder / "large").write_bytes(large)
    commit = read_folder(folder, REPO).manifest
    for path in ("large", "names/back.bin"):
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(pointer_text(hashlib.sha256(content).hexdigest(), len(content)))
    assert commit.commit == commit_by_git(folder)


def test_every_blob_has_a_source_with_its_bytes_and_the_proof_holds(folder: Path) -> None:
    found = read_folder(folder, REPO)
    prove(found.manifest)
    assert not found.manifest.is_attested and found.manifest.repo == REPO
    for file in found.manifest.files:
        content = content_of(found, FilePath(file.path))
        assert len(content) == file.size_bytes
        framed = content if file.is_lfs else b"blob %d\0%b" % (len(content), content)
        assert hashlib.new("sha256" if file.is_lfs else "sha1", framed).hexdigest() == file.digest.hex
    modes = {str(file.path): file.mode for file in found.manifest.files if file.mode != "100644"}
    assert modes == {"run.sh": "100755", "names/link": "120000", "to-folder": "120000"}


def content_of(found: FolderCommit, path: FilePath) -> bytes:
    file = found.manifest.file(path)
    return found.texts[file.digest] if file.digest in found.texts else found.source(file).read_bytes()


def test_the_same_folder_elsewhere_gives_the_same_commit(folder: Path, tmp_path: Path) -> None:
    first = read_folder(folder, REPO).manifest
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy, symlinks=True, copy_function=shutil.copy)
    (copy / "README.md").chmod(0o600)
    second = read_folder(copy, RepoId.parse("other/name", "dataset"), threads=1).manifest
    assert second.commit == first.commit and second.files == first.files


@pytest.mark.parametrize("change", ["content", "name", "exec bit", "link", "new file"])
def test_any_change_gives_another_commit(folder: Path, change: str) -> None:
    before = read_folder(folder, REPO).manifest.commit
    if change == "content":
        (folder / "config.json").write_bytes(b"{ }\n")
    elif change == "name":
        (folder / "config.json").rename(folder / "config2.json")
    elif change == "exec bit":
        (folder / "config.json").chmod(0o755)
    elif change == "link":
        (folder / "names/link").unlink()
        (folder / "names/link").symlink_to("../config.json")
    else:
        (folder / "new").touch()
    assert read_folder(folder, REPO).manifest.commit != before


def test_what_is_not_part_of_the_model_is_left_out(folder: Path) -> None:
    before = read_folder(folder, REPO).manifest.commit
    for path in (".git/HEAD", ".cache/huggingface/download/x.metadata", "a/.git", "a/.cache/huggingface/x"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
    (folder / "empty/folder").mkdir(parents=True)
    assert read_folder(folder, REPO).manifest.commit == before
    (folder / ".cache/other").write_text("x")
    assert read_folder(folder, REPO).manifest.commit != before


@pytest.mark.parametrize(("size", "is_lfs"), [(LFS_THRESHOLD_BYTES, False), (LFS_THRESHOLD_BYTES + 1, True)])
def test_files_over_ten_megabytes_are_lfs_files(tmp_path: Path, size: int, is_lfs: bool) -> None:
    with (tmp_path / "data").open("wb") as file:
        file.truncate(size)
    assert read_folder(tmp_path, REPO).manifest.files[0].is_lfs is is_lfs


def test_gitattributes_decide_in_gits_order(folder: Path) -> None:
    (folder / ".gitattributes").write_text(
        "*.bin filter=lfs\nnames/** filter=lfs\n# *.json filter=lfs\nnames/*.txt -filter\n[broken filter=lfs\n"
    )
    (folder / "names/deep").mkdir()
    (folder / "names/deep/.gitattributes").write_text("*.bin !filter\n/x.txt filter=lfs\n")
    for path in ("names/deep/w.bin", "names/deep/x.txt", "names/deep/y.dat", "top.bin"):
        (folder / path).write_text(path)
    lfs = {str(file.path) for file in read_folder(folder, REPO).manifest.files if file.is_lfs}
    git(folder, "init", "-q")
    paths = [str(file.path) for file in read_folder(folder, REPO).manifest.files if file.mode != "120000"]
    answers = git(folder, "check-attr", "-z", "filter", *paths).split("\0")
    assert lfs == {path for path, value in zip(answers[0::3], answers[2::3], strict=False) if value == "lfs"}
    assert lfs


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "names/../../outside", "door/passwd"])
def test_a_link_that_leaves_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "door").symlink_to("/etc") if target.startswith("door") else None
    (folder / "bad").symlink_to(target)
    with pytest.raises(InvalidName, match="leaves the folder") as caught:
        read_folder(folder, REPO)
    assert caught.value.hint


def test_a_link_through_a_linked_folder_is_judged_by_where_it_ends(folder: Path, tmp_path: Path) -> None:
    """`..` of a linked folder is not where its text says."""
    (tmp_path / "outside").touch()
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/top").symlink_to("../..")
    (folder / "fine").symlink_to("deep/er/top/README.md")
    read_folder(folder, REPO)
    (folder / "bad").symlink_to("deep/er/top/../outside")
    with pytest.raises(InvalidName, match="leaves the folder"):
        read_folder(folder, REPO)


@pytest.mark.parametrize("name", [os.fsdecode(b"no-utf8-\xff"), "/".join("a" * 129)])
def test_a_name_that_no_cache_can_hold_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    with pytest.raises(InvalidName) as caught:
        read_folder(folder, REPO)
    caught.value.message.encode()


def test_a_socket_an_empty_folder_and_a_missing_one_are_refused(folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        with pytest.raises(InvalidName, match="neither a file"):
            read_folder(folder, REPO)
    (tmp_path / "empty/inner").mkdir(parents=True)
    with pytest.raises(InvalidName, match="no file"):
        read_folder(tmp_path / "empty", REPO)
    with pytest.raises(InvalidName, match="no folder"):
        read_folder(tmp_path / "missing", REPO)
    with pytest.raises(InvalidName, match="no folder"):
        read_folder(folder / "README.md", REPO)


def test_a_pointer_whose_file_was_not_fetched_is_refused(folder: Path) -> None:
    (folder / "names/back.bin").write_bytes(pointer_text("ab" * 32, 10_000))
    with pytest.raises(InvalidName, match="LFS pointer") as caught:
        read_folder(folder, REPO)
    assert caught.value.hint == "Run `git lfs pull` first."


@pytest.mark.parametrize("change", ["grown", "rewritten", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read_is_noticed(folder: Path, change: str) -> None:
    """The change is made from inside the reading: when the last byte of the file has been hashed."""
    large = folder / "zz-large"
    large.write_bytes(bytes(3 << 20))
    seen = 0

    def on_bytes(size_bytes: int) -> None:
        nonlocal seen
        seen += size_bytes
        if seen < 2 << 20 or seen - size_bytes >= 2 << 20:
            return
        if change == "grown":
            with large.open("ab") as file:
                file.write(b"x")
        elif change == "rewritten":
            with large.open("r+b") as file:
                file.write(b"x")
        elif change == "replaced":
            (folder / "new").write_bytes(bytes(3 << 20))
            (folder / "new").replace(large)
        else:
            large.unlink()

    with pytest.raises(Locked, match="changed while it was read"):
        read_folder(folder, REPO, on_bytes=on_bytes, threads=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "README.md").chmod(0)
    with pytest.raises(StorageError, match="README"):
        read_folder(folder, REPO)


def test_every_byte_is_reported_once_and_never_from_two_threads_at_once(folder: Path) -> None:
    for number in range(6):
        (folder / f"part-{number}").write_bytes(bytes(3_000_000))
    reported, lock = [], threading.Lock()

    def on_bytes(size_bytes: int) -> None:
        assert lock.acquire(blocking=False)
        time.sleep(0.001)
        reported.append(size_bytes)
        lock.release()

    files = read_folder(folder, REPO, on_bytes=on_bytes).manifest.files
    assert sum(reported) == sum(file.size_bytes for file in files if file.mode != "120000")


ATTRIBUTE_WORDS = ["filter=lfs", "-filter", "!filter", "filter=x", "text", "-text", "lfs", "-lfs", "filter"]
ATTRIBUTE_PATTERNS = ["*.bin", "w*", "/w.bin", "deep/*", "**/w.bin", '"a b.bin"', '"\\167.bin"', '"\\"q"', "a", "deep/"]
ATTRIBUTE_PATTERNS += ["[attr]lfs", "!w.bin", "# *.bin", "\\#x", "[!w]*", '"open', "a\\ b.bin", "x" * 2050]
ATTRIBUTES = st.lists(
    st.tuples(st.sampled_from(ATTRIBUTE_PATTERNS), st.lists(st.sampled_from(ATTRIBUTE_WORDS), max_size=3)), max_size=6
).map(lambda lines: "".join(f"{' '.join([pattern, *words])}\n" for pattern, words in lines))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=ATTRIBUTES, deep=ATTRIBUTES)
@example(top='[attr]lfs filter=lfs\n*.bin lfs\n"a b.bin" !filter\n', deep="w.bin -filter\n")
def test_gitattributes_mean_what_git_says(tmp_path: Path, top: str, deep: str) -> None:
    paths = ["w.bin", "a b.bin", "#x", '"q', "a", "deep/w.bin", "deep/a b.bin", "deep/a"]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".gitattributes").write_text(top)
    (tmp_path / "deep/.gitattributes").write_text(deep)
    git(tmp_path, "init", "-q")
    lfs = {str(file.path) for file in read_folder(tmp_path, REPO).manifest.files if file.is_lfs}
    answers = git(tmp_path, "check-attr", "-z", "filter", *paths).split("\0")
    said = {path for path, value in zip(answers[0::3], answers[2::3], strict=False) if value == "lfs"}
    assert lfs & set(paths) == said


@pytest.mark.timed
def test_no_pattern_of_a_gitattributes_is_slow(tmp_path: Path) -> None:
    (tmp_path / ("a" * 200)).write_text("x")
    (tmp_path / ".gitattributes").write_text(f"{'*a' * 900}b filter=lfs\n" * 500)
    began_at = time.process_time()
    assert not any(file.is_lfs for file in read_folder(tmp_path, REPO).manifest.files)
    assert time.process_time() - began_at < 30.0


def test_gitattributes_have_a_largest_size_and_number_of_rules(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_text("x")
    (tmp_path / ".gitattributes").write_text("w.bin filter=lfs\n" * MAX_ATTRIBUTES_RULES)
    assert read_folder(tmp_path, REPO).manifest.file(FilePath("w.bin")).is_lfs
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/.gitattributes").write_text("w.bin filter=lfs\n")
    with pytest.raises(InvalidName, match="rules about LFS"):
        read_folder(tmp_path, REPO)
    (tmp_path / ".gitattributes").write_text("\n")
    (tmp_path / "deep/.gitattributes").write_bytes(b"#" * (MAX_ATTRIBUTES_BYTES - 1))
    assert read_folder(tmp_path, REPO).manifest.files
    (tmp_path / "deep/.gitattributes").write_bytes(b"#" * MAX_ATTRIBUTES_BYTES)
    with pytest.raises(InvalidName, match="gitattributes to more than"):
        read_folder(tmp_path, REPO)


def test_the_progress_of_a_publication_goes_up_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 100 GB takes minutes to hash and to copy."""
    monkeypatch.setattr(publishing, "EVENT_SECONDS", 0.0)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "big.bin").write_bytes(b"x" * 11_000_000)
    (folder / "small.txt").write_bytes(b"y" * 1000)
    events: list[Event] = []
    store = Store(tmp_path / "hub", tmp_path / "home")
    publish_folder(store, PublishRequest(str(folder), REPO), "pegasus", events.append)
    store.close()
    told = [(event.present_bytes, event.size_bytes) for event in events if isinstance(event, Progressed)]
    assert {size for _, size in told} == {11_001_000}
    second = max(number for number, (present, _) in enumerate(told) if present == 0)
    hashed, copied = [present for present, _ in told[:second]], [present for present, _ in told[second:]]
    for stage in (hashed, copied):
        assert stage == sorted(stage) and len(set(stage)) > 3 and stage[-1] == 11_001_000
