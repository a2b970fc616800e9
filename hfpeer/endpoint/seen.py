"""What a caller was shown of a revision, as one value: who asked, which commit it is, and what is under it.

Whoever holds one has been admitted for it; it is made by the endpoint alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.endpoint.answers import Listing
from hfpeer.endpoint.callers import Caller
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.resolving import Resolution


@dataclass(frozen=True)
class Seen:
    """A revision that a caller may see: what its name meant, and what it holds. `asked_at` is on the monotonic clock;
    None when nobody had to be asked."""

    caller: Caller
    resolution: Resolution
    listing: Listing
    asked_at: float | None

    @property
    def manifest(self) -> Manifest:
        return self.listing.manifest

    @property
    def repo(self) -> RepoId:
        return self.manifest.repo

    @property
    def commit(self) -> Commit:
        return self.resolution.commit
