"""The lock file: which commit each repo is pinned to, and the size and digest of each file. Pure.

It is TOML, in a stable order, so that it can lie in a git repository: the same lock is the same text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, RepoType, Revision

FILE_NAME = "models.lock"
FORMAT = 1
HEAD = """\
# Pins each repo to a commit, and each of its files to a size and a digest.
# `hfpeer lock` writes this file, `hfpeer sync` makes a machine have these files, `hfpeer lock --check` compares.
format = 1
"""


@dataclass(frozen=True)
class LockedFile:
    """A file of a locked repo."""

    path: FilePath
    size_bytes: int
    digest: Digest


@dataclass(frozen=True)
class LockedRepo:
    """A repo, the revision that was asked for, its commit then, and the files that `include` and `exclude` select, in
    the order of their paths."""

    repo: RepoId
    revision: Revision
    commit: Commit
    files: tuple[LockedFile, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def lock_text(repos: Sequence[LockedRepo]) -> str:
    """The text of a lock file, the repos in the order of their types and names."""
    parts = [HEAD]
    for one in sorted(repos, key=lambda one: (one.repo.type.value, one.repo.full_name)):
        facts: dict[str, Any] = {
            "type": one.repo.type.value,
            "name": one.repo.full_name,
            "revision": str(one.revision),
            "commit": str(one.commit),
            **({"include": list(one.include)} if one.include else {}),
            **({"exclude": list(one.exclude)} if one.exclude else {}),
        }
        lines = ["[[repo]]", *(f"{key} = {_toml(value)}" for key, value in facts.items()), "files = ["]
        for file in sorted(one.files, key=lambda file: file.path):
            digest = _toml(str(file.digest))
            lines.append(f"  {{ path = {_toml(file.path)}, size = {file.size_bytes}, digest = {digest} }},")
        parts.append("\n".join([*lines, "]\n"]))
    return "\n".join(parts)


def read_lock(text: str, name: str) -> tuple[LockedRepo, ...]:
    """The repos of a lock file; `name` is shown to people. Raises InvalidName for a text that is none."""
    try:
        document = _parsed(text)
        if document.get("format") != FORMAT:
            raise InvalidName(
                f"{name} has the format {document.get('format')!r}, and this hfpeer reads {FORMAT}.",
                hint="Upgrade hfpeer, or make the file again: `hfpeer lock REPO`.",
            )
        return tuple(map(_repo, document.get("repo", [])))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidName(
            f"{name} is no lock file: {error}.", hint="`hfpeer lock REPO -o FILE` makes one.", file=name
        ) from error


def _repo(entry: Mapping[str, Any]) -> LockedRepo:
    files = [
        LockedFile(FilePath.parse(file["path"]), int(file["size"]), Digest.parse(file["digest"]))
        for file in entry["files"]
    ]
    return LockedRepo(
        RepoId.parse(entry["name"], RepoType(entry["type"])),
        Revision.parse(entry["revision"]),
        Commit.parse(entry["commit"]),
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(map(str, entry.get("include", ()))),
        tuple(map(str, entry.get("exclude", ()))),
    )


def _parsed(text: str) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib.loads(text)
    import tomlkit

    return tomlkit.parse(text).unwrap()


def _toml(value: str | list[str]) -> str:
    """A basic string of TOML, or an array of them: JSON's, but for the character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
