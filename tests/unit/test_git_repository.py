"""Clones that git made are read as git reads them, and broken or hostile ones within bounds."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import zlib
from pathlib import Path

import pytest

from fakes.places import GIT_ENVIRONMENT, put, sha256
from hfpeer import budgets
from hfpeer.git import repository as module
from hfpeer.git.lfs import pointer_text
from hfpeer.git.repository import NoRepository, Repository
from hfpeer.names import Commit, RepoId

REPO = RepoId.parse("acme/tiny")
WEIGHTS = os.urandom(5_000)
FILES = {
    "config.json": b"{}",
    "deep/er/odd name\u00e9.txt": b"text\n" * 500,
    "empty.txt": b"",
    "model.bin": pointer_text(sha256(WEIGHTS), len(WEIGHTS)),
    "odd.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 7",
}


def git(folder: Path, *words: str) -> str:
    environ = {
        **GIT_ENVIRONMENT,
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, env=environ, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for path, body in FILES.items():
        put(folder / path, body)
    (folder / "link").symlink_to("config.json")
    (folder / "config.json").chmod(0o755)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    git(folder, "remote", "add", "origin", "https://user:secret@huggingface.co/acme/tiny")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    return folder


def check(clone: Path) -> None:
    with Repository(clone) as repository:
        commit = repository.head()
        manifest = repository.manifest(REPO, commit)
        assert commit == git(clone, "rev-parse", "HEAD")
        found = {str(file.path): file for file in manifest.files}
        assert set(found) >= set(FILES) and found["link"].mode == "120000" and found["config.json"].mode == "100755"
        assert (found["model.bin"].digest.hex, found["model.bin"].size_bytes) == (sha256(WEIGHTS), len(WEIGHTS))
        assert found["odd.bin"].pointer == FILES["odd.bin"] and found["odd.bin"].size_bytes == 7
        for path in ("config.json", "deep/er/odd name\u00e9.txt", "empty.txt"):
            assert repository.read(found[path].digest.hex, "blob", 10_000) == FILES[path]
            assert repository.size(found[path].digest.hex) == found[path].size_bytes == len(FILES[path])


def test_loose_objects_are_read(clone: Path) -> None:
    check(clone)


def test_packs_with_deltas_are_read(clone: Path) -> None:
    rows = [os.urandom(30).hex() for _ in range(400)]
    for number in range(12):
        rows[number * 7] = f"changed {number}"
        put(clone / "deep/er/large.txt", "\n".join(rows))
        for inner in range(30):
            put(clone / f"many/{inner}.txt", f"{inner} {number}")
        git(clone, "add", "-A")
        git(clone, "commit", "-qm", f"{number}")
    git(clone, "gc", "-q", "--aggressive", "--prune=now")
    git(clone, "pack-refs", "--all")
    assert "chain length" in git(clone, "verify-pack", "-v", str(next((clone / ".git/objects/pack").glob("*.idx"))))
    check(clone)
    with Repository(clone) as repository:
        for line in git(clone, "cat-file", "--batch-check", "--batch-all-objects").splitlines():
            id, kind, size = line.split()
            assert repository.size(id) == int(size)
            body = repository.read(id, kind, 100_000)
            assert body is not None
            assert hashlib.sha1(f"{kind} {size}\0".encode() + body).hexdigest() == id
            assert repository.read(id, kind, int(size) - 1) is None


@pytest.mark.parametrize("kind", ["worktree", "bare", "borrowed", "detached", "submodule"])
def test_every_kind_of_clone_is_read(clone: Path, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    if kind == "worktree":
        git(clone, "worktree", "add", "-q", "-b", "side", str(other))
    elif kind == "bare":
        git(tmp_path, "clone", "-q", "--bare", str(clone), str(other))
    elif kind == "borrowed":
        git(tmp_path, "clone", "-q", "--shared", "--no-checkout", str(clone), str(other))
    elif kind == "detached":
        git(clone, "checkout", "-q", "--detach")
        other = clone
    else:
        git(tmp_path, "clone", "-q", "--separate-git-dir", str(tmp_path / "away"), str(clone), str(other))
    check(other)


def test_what_the_remote_had_is_told_and_its_password_is_the_callers_to_keep(clone: Path) -> None:
    put(clone / "more.txt", "local")
    git(clone, "add", "-A")
    told = git(clone, "rev-parse", "HEAD")
    with Repository(clone) as repository:
        assert [name for name, _ in repository.told(Commit(told))] == ["main"]
        assert repository.remote_urls() == ["https://user:secret@huggingface.co/acme/tiny"]
    git(clone, "commit", "-qm", "local")
    with Repository(clone) as repository:
        assert list(repository.told(repository.head())) == []


def test_missing_objects_make_no_list(clone: Path) -> None:
    blob = git(clone, "rev-parse", "HEAD:config.json")
    (clone / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with Repository(clone) as repository, pytest.raises(NoRepository, match=r"config\.json"):
        repository.manifest(REPO, repository.head())
    with pytest.raises(NoRepository):
        Repository(clone / "deep")


def test_wrong_objects_are_noticed(clone: Path) -> None:
    tree = git(clone, "rev-parse", "HEAD^{tree}")
    other = git(clone, "rev-parse", "HEAD:deep")
    place = clone / ".git/objects" / tree[:2] / tree[2:]
    place.chmod(0o644)
    place.write_bytes((clone / ".git/objects" / other[:2] / other[2:]).read_bytes())
    with Repository(clone) as repository, pytest.raises(NoRepository):
        repository.manifest(REPO, repository.head())


def test_an_object_that_unpacks_to_any_size_is_left(clone: Path) -> None:
    bomb = b"blob 5\0" + bytes(5_000_000)
    id = "ab" * 20
    put(clone / ".git/objects/ab" / id[2:], zlib.compress(bomb))
    with Repository(clone) as repository:
        assert repository.read(id, "blob", 1000) is None
    put(clone / ".git/objects/ab" / id[2:], zlib.compress(b"blob 9999999999999999999999\0"))
    with Repository(clone) as repository:
        assert repository.read(id, "blob", 1000) is None


def test_a_clone_that_unpacks_to_too_much_has_no_list(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(module)["MAX_UNPACKED_CLONE_BYTES"] == budgets.MAX_UNPACKED_CLONE_BYTES
    git(clone, "gc", "-q", "--prune=now")
    with Repository(clone) as repository:
        left = repository._left_bytes
        repository.manifest(REPO, repository.head())
        used = left - repository._left_bytes
    for most, is_read in ((used, True), (used - 1, False)):
        monkeypatch.setattr(module, "MAX_UNPACKED_CLONE_BYTES", most)
        with Repository(clone) as repository:
            if is_read:
                repository.manifest(REPO, repository.head())
            else:
                with pytest.raises(NoRepository, match="more than"):
                    repository.manifest(REPO, repository.head())


def test_a_chain_of_deltas_has_an_end(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(module)["MAX_DELTA_DEPTH"] == budgets.MAX_DELTA_DEPTH
    body = os.urandom(3000)
    for number in range(6):
        put(clone / "large.bin2", body + bytes([number]) * 40 * number)
        git(clone, "add", "-A")
        git(clone, "commit", "-qm", f"{number}")
    git(clone, "repack", "-qadf", "--depth=50", "--window=50")
    ids = [git(clone, "rev-parse", f"HEAD~{number}:large.bin2") for number in range(6)]
    with Repository(clone) as repository:
        assert all(repository.read(id, "blob", 100_000) for id in ids)
    monkeypatch.setattr(module, "MAX_DELTA_DEPTH", 0)
    with Repository(clone) as repository:
        read = [repository.read(id, "blob", 100_000) for id in ids]
    assert None in read and any(read)


def test_spoiled_clones_raise_nothing_else(clone: Path) -> None:
    git(clone, "gc", "-q", "--prune=now")
    dice = random.Random(5)
    files = [path for path in (clone / ".git").rglob("*") if path.is_file() and "hooks" not in path.parts]
    for path in files:
        path.chmod(0o644)
    bodies = {path: path.read_bytes() for path in files}
    for _ in range(300):
        path = dice.choice(files)
        body = bytearray(bodies[path])
        for _ in range(dice.randint(1, 4)):
            if body and dice.random() < 0.7:
                body[dice.randrange(len(body))] = dice.randrange(256)
            else:
                del body[dice.randrange(len(body) + 1) :]
        path.write_bytes(body)
        try:
            with Repository(clone) as repository:
                commit = repository.head()
                manifest = repository.manifest(REPO, commit)
                list(repository.told(commit))
                repository.remote_urls()
                for file in manifest.files:
                    repository.read(file.blob_id, "blob", 10_000)
        except NoRepository:
            pass
        path.write_bytes(bodies[path])
