"""A request to see a commit, or the refs of a repo, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.endpoint.access.caller import Caller
from hfpeer.names import Commit, RepoId
from hfpeer.upstream.upstreams import Upstreams

Place = tuple[RepoId, "Commit | None"]
"""A commit; or without one, the refs of the repo."""


@dataclass(frozen=True)
class AdmissionRequest:
    """The caller, the commit, and the upstreams, to be asked with the caller's token. Without `commit` the caller wants
    the repo's refs; without `wants_files` it wants metadata only."""

    caller: Caller
    repo: RepoId
    commit: Commit | None
    upstreams: Upstreams
    wants_files: bool

    @property
    def place(self) -> Place:
        return self.repo, self.commit
