"""All that a simulated ModelScope knows, apart from how it answers: users, repos, commits, blobs.

Owns the disk, where the bytes of files lie. Must never know of HTTP.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PRIVATE, INTERNAL, PUBLIC = 1, 3, 5
FIRST_COMMIT_EPOCH_SECONDS = 1_700_000_000
SEED_FILES = {
    ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
    "README.md": b"---\ntasks:\n- other\nlicense: Apache License 2.0\n---\nThe owner has not written a card yet.\n",
}
"""What the server puts into a repo that it makes, in one of the two modes."""


@dataclass(frozen=True)
class User:
    """A user with a token. `tier` is what the token permits: read or write."""

    name: str
    token: str
    tier: str = "write"
    organisations: tuple[str, ...] = ()

    @property
    def namespaces(self) -> frozenset[str]:
        return frozenset((self.name, *self.organisations))


OWNER = User("alice", "ms-alice-may-write-0000-000000000000", "write", ("team",))
READER = User("alice", "ms-alice-may-read-00000-000000000000", "read", ("team",))
STRANGER = User("bob", "ms-bob-has-an-account-0-000000000000")
BAD_TOKEN = "ms-issued-by-no-server-0-000000000000"


@dataclass(frozen=True)
class Entry:
    """A file at a commit; `revision` is the commit that last changed it."""

    path: str
    size_bytes: int
    sha256: str
    is_lfs: bool
    revision: str = ""
    message: str = ""
    committed_at: int = 0


@dataclass(frozen=True)
class Commit:
    """The files after one commit, by path."""

    id: str
    message: str
    at: int
    files: Mapping[str, Entry]


@dataclass
class Repo:
    """A model or a dataset. `readers` are the users that were granted a gated repo."""

    number: int
    type: str
    owner: str
    name: str
    visibility: int
    is_gated: bool = False
    license: str = ""
    readers: set[str] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.name}"

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a commit id stands for."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(commit)

    def files(self, revision: str = "master") -> Mapping[str, Entry]:
        """The files at a revision; none before the first commit."""
        commit = self.find(revision)
        return {} if commit is None else commit.files

    def may_read(self, user: User | None) -> bool:
        if self.visibility == PUBLIC and not self.is_gated:
            return True
        return user is not None and (self.owner in user.namespaces or user.name in self.readers)

    def may_write(self, user: User) -> bool:
        return user.tier == "write" and self.owner in user.namespaces


class CommitRefused(Exception):
    """The commit cannot be made: HTTP status, code and message of the answer."""

    def __init__(self, status: int, message: str, code: int = 10030000001) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Storage:
    """Users, repos and blobs, under a temporary folder."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="modelscope-simulator-"))
        self.users = {user.token: user for user in (OWNER, READER, STRANGER)}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.stored: set[tuple[str, int]] = set()
        """The LFS blobs of all repos, by sha256 and size."""
        self.lock = threading.RLock()
        self._numbers = 0

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    # Blobs

    def path_of(self, sha256: str) -> Path:
        """The file with the bytes of a digest."""
        return self.root / "blobs" / sha256[:2] / sha256

    def new_path(self) -> Path:
        """A file for bytes that are on their way."""
        with self.lock:
            self._numbers += 1
            number = self._numbers
        folder = self.root / "incoming"
        folder.mkdir(exist_ok=True)
        return folder / str(number)

    def store_file(self, path: Path, sha256: str) -> None:
        """Takes a file as the LFS blob of a digest, without looking at its bytes."""
        size_bytes = path.stat().st_size
        target = self.path_of(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        with self.lock:
            self.stored.add((sha256, size_bytes))

    def put_bytes(self, data: bytes) -> str:
        """Keeps the bytes of a plain file; their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path_of(sha256)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return sha256

    # Repos

    def create(
        self,
        type: str,
        repo_id: str,
        *,
        visibility: int = PUBLIC,
        is_gated: bool = False,
        license: str = "",
        is_seeded: bool = False,
    ) -> Repo:
        """A new repo; with `is_seeded` the server puts SEED_FILES into it. Raises KeyError for a name that is taken."""
        owner, _, name = repo_id.partition("/")
        with self.lock:
            if (type, repo_id) in self.repos:
                raise KeyError(repo_id)
            self._numbers += 1
            repo = Repo(self._numbers, type, owner, name, visibility, is_gated, license)
            self.repos[type, repo_id] = repo
        if is_seeded:
            self.put_files(repo, SEED_FILES, message="Initial commit by the server")
        return repo

    def find_repo(self, type: str, repo_id: str) -> Repo | None:
        """The repo of that exact name, or of that number."""
        if "/" in repo_id:
            return self.repos.get((type, repo_id))
        return next((repo for repo in self.repos.values() if (repo.type, str(repo.number)) == (type, repo_id)), None)

    def put_repo(
        self, type: str, repo_id: str, files: Mapping[str, bytes], *, lfs: Iterable[str] = (), **options: Any
    ) -> str:
        """Makes a repo with these files, or adds them to it; `lfs` are the paths of LFS files. The commit's id."""
        repo = self.find_repo(type, repo_id) or self.create(type, repo_id, **options)
        return self.put_files(repo, files, lfs=lfs)

    def put_files(
        self, repo: Repo, files: Mapping[str, bytes], *, lfs: Iterable[str] = (), message: str = "Add files"
    ) -> str:
        """A commit on master with these files; its id."""
        lfs = frozenset(lfs)
        entries = []
        for path, data in files.items():
            sha256 = self.put_bytes(data)
            if path in lfs:
                self.stored.add((sha256, len(data)))
            entries.append(Entry(path, len(data), sha256, path in lfs))
        return self.commit(repo, "master", message, entries, ())

    def commit(self, repo: Repo, branch: str, message: str, changed: Iterable[Entry], deleted: Iterable[str]) -> str:
        """One commit on a branch, whole or not at all; its id. Raises CommitRefused."""
        with self.lock:
            if repo.branches and branch not in repo.branches:
                raise CommitRefused(400, "You can only create or edit files when you are on a branch")
            before = repo.commits[repo.branches[branch]].files if repo.branches else {}
            number = len(repo.log)
            seed = f"{repo.type} {repo.id} {number} {message}"
            commit = hashlib.sha1(seed.encode()).hexdigest()
            at = FIRST_COMMIT_EPOCH_SECONDS + 60 * number
            files = dict(before)
            for path in deleted:
                if path not in files:
                    raise CommitRefused(400, f"invalid commit action: {path} does not exist")
                del files[path]
            for entry in changed:
                if entry.is_lfs and (entry.sha256, entry.size_bytes) not in self.stored:
                    raise CommitRefused(400, f"invalid commit action: object {entry.sha256} is not stored")
                files[entry.path] = replace(entry, revision=commit, message=message, committed_at=at)
            repo.commits[commit] = Commit(commit, message, at, files)
            repo.branches[branch] = commit
            repo.log.append(commit)
            return commit
