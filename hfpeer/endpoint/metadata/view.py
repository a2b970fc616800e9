"""A revision that a caller was admitted to, as one value: the proof that the caller may see it.

Only `Endpoint` creates it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import Grant
from hfpeer.endpoint.metadata.hub_json import TreeEntries
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.resolver.commits import Resolution


@dataclass(frozen=True)
class AdmittedRevision:
    """The caller, the commit, its listing, and the caller's grant.

    `asked_at` is the time of the answer for the name, in monotonic seconds; None if the revision was a commit id.
    """

    caller: Caller
    resolution: Resolution
    listing: TreeEntries
    asked_at: float | None
    grant: Grant

    @property
    def manifest(self) -> Manifest:
        return self.listing.manifest

    @property
    def repo(self) -> RepoId:
        return self.manifest.repo

    @property
    def commit(self) -> Commit:
        return self.resolution.commit
