"""All that a simulated hub knows, apart from how it answers: repositories, their old names, users.

Owns the disk. Several simulators may share one storage: that is how a mirror is made. Must never know of HTTP.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import git
from .content import LFS_THRESHOLD_BYTES, Content
from .objects import ObjectStore
from .repo import Repo

REPO_TYPES = ("model", "dataset", "space")
VISIBILITIES = ("public", "private", "gated", "disabled")


@dataclass(frozen=True)
class User:
    """A user with a token."""

    name: str
    token: str
    organisations: tuple[str, ...] = ()


OWNER = User("owner", "hf_" + "OwnerMaySeeEverythingHere000000000", ("acme",))
STRANGER = User("stranger", "hf_" + "StrangerHasAnAccountNothingElse000")
BAD_TOKEN = "hf_" + "NobodyEverIssuedThisToken000000000"


class Storage:
    """Repositories and users under one folder, a temporary one unless given."""

    def __init__(self, root: Path | None = None) -> None:
        self._is_temporary = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="hub-simulator-"))
        self.objects = ObjectStore(self.root / "objects")
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renames: dict[tuple[str, str], str] = {}
        self.users: dict[str, User] = {user.token: user for user in (OWNER, STRANGER)}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove the folder if it was temporary."""
        if self._is_temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def put_repo(
        self,
        repo_type: str,
        repo_id: str,
        files: Mapping[str, Content],
        revision: str = "main",
        *,
        lfs_patterns: tuple[str, ...] = (),
        lfs_threshold_bytes: int = LFS_THRESHOLD_BYTES,
        visibility: str = "public",
        readers: tuple[str, ...] = (OWNER.name,),
        message: str = "Initial commit",
    ) -> str:
        """Make exactly these files the content of a branch, creating the repository if needed; the commit id.

        `visibility` is public, private, gated or disabled; `readers` are the users with access to a private
        or gated one. A file is LFS if it is over the threshold, matches a pattern, or is wrapped in Lfs.
        """
        assert repo_type in REPO_TYPES and visibility in VISIBILITIES, (repo_type, visibility)
        repo = self._repo_or_new(repo_type, repo_id)
        repo.is_private = visibility == "private"
        repo.gated = "auto" if visibility == "gated" else None
        repo.is_disabled = visibility == "disabled"
        repo.readers = set(readers)
        return repo.commit(
            files,
            revision,
            replaces_all=True,
            lfs_patterns=lfs_patterns,
            lfs_threshold_bytes=lfs_threshold_bytes,
            message=message,
        )

    def repo(self, repo_type: str, repo_id: str) -> Repo:
        """The repository of that exact name. Raises KeyError."""
        return self.repos[repo_type, repo_id]

    def find_repo(self, repo_type: str, repo_id: str) -> Repo | None:
        """The repository of that name, or that had it, or that has it except for the case."""
        repo_id = self.renames.get((repo_type, repo_id), repo_id)
        if (repo_type, repo_id) in self.repos:
            return self.repos[repo_type, repo_id]
        wanted = (repo_type, repo_id.lower())
        return next((repo for (kind, name), repo in self.repos.items() if (kind, name.lower()) == wanted), None)

    def rename_repo(self, repo_type: str, old_id: str, new_id: str) -> None:
        """Give a repository another name; the old one is redirected from now on."""
        repo = self.repos.pop((repo_type, old_id))
        repo.repo_id = new_id
        self.repos[repo_type, new_id] = repo
        self.renames[repo_type, old_id] = new_id

    def delete_repo(self, repo_type: str, repo_id: str) -> None:
        """Make a repository missing."""
        del self.repos[repo_type, repo_id]

    def add_user(self, name: str, token: str, organisations: tuple[str, ...] = ()) -> User:
        """Make a token valid."""
        self.users[token] = User(name, token, organisations)
        return self.users[token]

    def _repo_or_new(self, repo_type: str, repo_id: str) -> Repo:
        with self._lock:
            if (repo_type, repo_id) not in self.repos:
                folder = hashlib.sha256(f"{repo_type} {repo_id}".encode()).hexdigest()[:16]
                git_dir = self.root / "git" / f"{folder}-{len(self.repos)}.git"
                git.create_repository(git_dir)
                self.repos[repo_type, repo_id] = Repo(repo_type, repo_id, git_dir, self.objects)
            return self.repos[repo_type, repo_id]
