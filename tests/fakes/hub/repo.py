"""One simulated repository: a bare git repository, its LFS files, and its visibility.

Owns commits, refs and what a commit holds. Must never know of HTTP.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path

from . import git
from .content import (
    LFS_THRESHOLD_BYTES,
    Content,
    Executable,
    Lfs,
    LocalFile,
    SparseFile,
    Submodule,
    Symlink,
    pointer_text,
    read_pointer,
)
from .objects import ObjectStore

FIRST_COMMIT_EPOCH_SECONDS = 1_700_000_000
SECONDS_BETWEEN_COMMITS = 3600
LARGEST_POINTER_BYTES = 1024


@dataclass(frozen=True)
class Entry:
    """A file or folder at a commit; `oid` is git's, `size_bytes` the content's."""

    path: str
    mode: str
    oid: str
    size_bytes: int = 0
    sha256: str | None = None
    pointer_size_bytes: int = 0

    @property
    def is_file(self) -> bool:
        return self.mode in ("100644", "100755", "120000")

    @property
    def is_folder(self) -> bool:
        return self.mode == "040000"


@dataclass(frozen=True)
class CommitFacts:
    """A commit as the log of its repository tells it; `date` as the Hub writes dates."""

    commit: str
    author: str
    date: str
    title: str
    message: str


@dataclass(frozen=True)
class Snapshot:
    """Everything a commit holds, by path, folders and gitlinks included."""

    facts: CommitFacts
    tree: str
    entries: Mapping[str, Entry]

    @property
    def commit(self) -> str:
        return self.facts.commit

    @property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.is_file]


class Repo:
    """A model, dataset or space. `readers` are the users with access when it is not open to all."""

    def __init__(self, repo_type: str, repo_id: str, git_dir: Path, objects: ObjectStore) -> None:
        self.repo_type = repo_type
        self.repo_id = repo_id
        self.git_dir = git_dir
        self.is_private = False
        self.gated: str | None = None
        self.is_disabled = False
        self.readers: set[str] = set()
        self._objects = objects
        self._lock = threading.RLock()
        self._refs: dict[str, str] | None = None
        self._snapshots: dict[str, Snapshot] = {}
        self._commits_made = 0

    def commit(
        self,
        files: Mapping[str, Content | None],
        revision: str = "main",
        *,
        parent: str | None = None,
        replaces_all: bool = False,
        lfs_patterns: tuple[str, ...] = (),
        lfs_threshold_bytes: int = LFS_THRESHOLD_BYTES,
        message: str = "Upload files",
    ) -> str:
        """Add a commit to a branch (or full ref) and return its id; None deletes a path.

        The parent is the ref's present commit unless given. Equal calls in equal order give equal ids.
        """
        with self._lock:
            ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
            epoch = FIRST_COMMIT_EPOCH_SECONDS + SECONDS_BETWEEN_COMMITS * self._commits_made
            draft = git.CommitDraft(ref, parent or self.refs().get(ref), message, "simulator", epoch, replaces_all)
            for path, content in files.items():
                draft.files[path] = self._git_content(path, content, lfs_patterns, lfs_threshold_bytes)
            self._commits_made += 1
            commit = draft.write(self.git_dir)
            self.refresh()
            return commit

    def create_branch(self, name: str, commit: str) -> None:
        """Create or move a branch."""
        self.set_ref(f"refs/heads/{name}", commit)

    def create_tag(self, name: str, commit: str) -> None:
        """Create or move a tag."""
        self.set_ref(f"refs/tags/{name}", commit)

    def set_ref(self, ref: str, commit: str) -> None:
        """Create or move any ref, such as `refs/pr/1` or `refs/convert/parquet`."""
        git.run_git(self.git_dir, "update-ref", ref, commit)
        self.refresh()

    def delete_ref(self, ref: str) -> None:
        git.run_git(self.git_dir, "update-ref", "-d", ref)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was read of the refs: call it after writing to `git_dir` from outside."""
        with self._lock:
            self._refs = None

    def refs(self) -> dict[str, str]:
        """Full ref name -> commit."""
        with self._lock:
            if self._refs is None:
                self._refs = git.list_refs(self.git_dir)
            return self._refs

    def find_commit(self, revision: str) -> str | None:
        """The commit a branch, tag, full ref, or full or short id stands for."""
        refs = self.refs()
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in refs:
                return refs[ref]
        if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
            return None
        return self._commit_by_id(revision)

    def _commit_by_id(self, abbreviation: str) -> str | None:
        if abbreviation in self._snapshots:
            return abbreviation
        try:
            wanted = f"{abbreviation}^{{commit}}"
            return git.run_git(self.git_dir, "rev-parse", "--verify", "--quiet", wanted).decode().strip()
        except RuntimeError:
            return None

    def snapshot(self, commit: str) -> Snapshot:
        """The content of a commit; read from git once."""
        with self._lock:
            if commit not in self._snapshots:
                self._snapshots[commit] = self._read_snapshot(commit)
            return self._snapshots[commit]

    def log(self, commit: str) -> list[CommitFacts]:
        """The commits that lead to one, newest first."""
        output = git.run_git(self.git_dir, "log", "-z", "--format=%H%x01%an%x01%ct%x01%s%x01%b", commit).decode()
        return [_commit_facts(line) for line in output.split("\0") if line]

    def content_path(self, entry: Entry) -> Path:
        """The file that holds an entry's content: the LFS object, or the git blob's bytes."""
        return self._objects.lfs_path(entry.sha256) if entry.sha256 else self._objects.blob_path(entry.oid)

    def _git_content(
        self, path: str, content: Content | None, patterns: tuple[str, ...], threshold_bytes: int
    ) -> tuple[str, bytes] | None:
        if content is None:
            return None
        if isinstance(content, Symlink):
            return "120000", content.target.encode()
        if isinstance(content, Submodule):
            return "160000", content.commit.encode()
        if isinstance(content, SparseFile):
            return "100644", pointer_text(*self._objects.put_sparse(content.size_bytes, content.sha256))
        is_matched = any(fnmatchcase(path, pattern) for pattern in patterns)
        if isinstance(content, LocalFile):
            return self._local_file(content.path, is_matched, threshold_bytes)
        mode = "100755" if isinstance(content, Executable) else "100644"
        data = content if isinstance(content, bytes) else content.data
        if is_matched or isinstance(content, Lfs) or len(data) > threshold_bytes:
            return mode, pointer_text(*self._objects.put_bytes(data))
        return mode, data

    def _local_file(self, path: Path, is_matched: bool, threshold_bytes: int) -> tuple[str, bytes]:
        if is_matched or path.stat().st_size > threshold_bytes:
            return "100644", pointer_text(*self._objects.put_file(path))
        return "100644", path.read_bytes()

    def _read_snapshot(self, commit: str) -> Snapshot:
        lines = git.list_tree(self.git_dir, commit)
        blobs = {line.oid: line.size_bytes for line in lines if line.kind == "blob"}
        self._objects.add_blobs(self.git_dir, [oid for oid in blobs if not self._objects.has_blob(oid)])
        entries = {line.path: self._entry(line) for line in lines}
        tree = git.run_git(self.git_dir, "rev-parse", f"{commit}^{{tree}}").decode().strip()
        return Snapshot(self.log(commit)[0], tree, entries)

    def _entry(self, line: git.TreeLine) -> Entry:
        if line.mode in ("100644", "100755") and line.size_bytes <= LARGEST_POINTER_BYTES:
            pointer = read_pointer(self._objects.blob_path(line.oid).read_bytes())
            if pointer is not None:
                return Entry(line.path, line.mode, line.oid, pointer[1], pointer[0], line.size_bytes)
        return Entry(line.path, line.mode, line.oid, line.size_bytes)


def _commit_facts(line: str) -> CommitFacts:
    commit, author, epoch, title, message = line.split("\x01")
    date = datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return CommitFacts(commit, author, date, title, message.strip())
