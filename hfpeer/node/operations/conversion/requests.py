"""What is asked of a conversion, and a plan with all that a worker needs to know to make a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpeer.control.operations import AddRequest
from hfpeer.conversion.plan import ConversionPlan
from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.names import MAIN, FilePath, RepoId, Revision


@dataclass(frozen=True)
class Access:
    """From where files may come."""

    is_local_only: bool = False
    uses_peers: bool = True
    trusts_peers: bool = False
    token: str | None = None

    def files(
        self, repo: RepoId, revision: Revision, paths: tuple[FilePath, ...] = (), optional: tuple[FilePath, ...] = ()
    ) -> AddRequest:
        """The request for files of a commit."""
        return AddRequest(
            repo=repo,
            revision=revision,
            files=paths,
            optional=optional,
            is_local_only=self.is_local_only,
            uses_peers=self.uses_peers,
            trusts_peers=self.trusts_peers,
            token=self.token,
        )


@dataclass(frozen=True)
class ConversionRequest:
    """Convert a dataset at a revision into a folder.

    `image_roots` are folders and zips of this machine, or `repo:PATH`. `share` is (K, N): only each Nth part, from K
    on. `jobs` is the number of processes. `python` is the Python whose `datasets` says which files a config is made of.
    """

    repo: RepoId
    folder: Path
    options: ConversionOptions
    revision: Revision = MAIN
    image_roots: tuple[str, ...] = ()
    access: Access = Access()
    jobs: int = 1
    share: tuple[int, int] | None = None
    restarts: bool = False
    python: str | None = None


@dataclass(frozen=True)
class PlannedConversion:
    """A plan, and where its parts go. Any number of workers can make its parts, each with `convert_part`; it can be
    pickled, and has no token in it."""

    plan: ConversionPlan
    folder: str
    image_roots: tuple[str, ...] = ()
    is_local_only: bool = False
    uses_peers: bool = True
    trusts_peers: bool = False

    @property
    def parts(self) -> int:
        """The number of parts."""
        return len(self.plan.parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_json(),
            "folder": self.folder,
            "image_roots": list(self.image_roots),
            "is_local_only": self.is_local_only,
            "uses_peers": self.uses_peers,
            "trusts_peers": self.trusts_peers,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PlannedConversion:
        """Raises InvalidName for anything but a plan of this version."""
        known = {key: value for key, value in document.items() if key not in ("plan", "image_roots")}
        return cls(ConversionPlan.from_json(document["plan"]), image_roots=tuple(document["image_roots"]), **known)
