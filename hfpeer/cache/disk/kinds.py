"""What kind of folder a folder is: a Hub cache, or another one that users take for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hfpeer.errors import InvalidName
from hfpeer.names import RepoId

NO_CACHES = {
    ".cache/huggingface": "a plain folder of `hf download --local-dir`",
    ".git": "a clone by git",
    "manifests": "the models of Ollama",
    "snapshots": "the folder of one repo in a cache: take the folder around it",
    "hub": "a Hugging Face home: its cache is the folder `hub` in it",
}
"""By the name of a folder inside: the kind of a folder that is no cache."""


def repos_in(folder: Path) -> list[RepoId]:
    """The repos of a cache, by the names of their folders; none if the folder cannot be listed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(InvalidName, OSError):
                repo = RepoId.from_folder(entry.name)
                if entry.is_dir():
                    found.append(repo)
    return sorted(found, key=lambda repo: repo.folder)


def is_cache(folder: Path) -> bool:
    """Whether a folder looks like a Hub cache."""
    return bool(repos_in(folder))


def other_kind(folder: Path) -> str:
    """The kind of a folder that is no cache; empty if it may become one."""
    return next((what for mark, what in NO_CACHES.items() if (folder / mark).is_dir()), "")


def is_repo_folder(name: str) -> bool:
    """Whether a folder of this name is a repo of a cache."""
    try:
        RepoId.from_folder(name)
    except InvalidName:
        return False
    return True
