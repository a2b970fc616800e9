"""A git client's fetch, and the plan of the pack that is sent for it, as two values. Pure.

Source of the terms: gitprotocol-v2 and gitprotocol-pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfpeer.endpoint.metadata.view import AdmittedRevision
from hfpeer.endpoint.packs.pack_cache import CachedPack
from hfpeer.git.objects import GitObject


@dataclass(frozen=True)
class FetchRequest:
    """A fetch of one repo; all object ids are hex.

    `shallow` are commits of the client whose parents it does not have. `depth` is the number of commits to send from
    each branch, None for all. `filter` is as in git rev-list. With `is_done` the client expects the pack now.
    """

    wants: tuple[str, ...] = ()
    haves: frozenset[str] = frozenset()
    shallow: frozenset[str] = frozenset()
    depth: int | None = None
    filter: str | None = None
    is_done: bool = True

    @property
    def is_whole_clone(self) -> bool:
        """Whether the client has nothing and wants the whole history."""
        return not self.haves and not self.shallow and self.depth is None

    @property
    def deepens(self) -> bool:
        """Whether a shallow client asks for more history."""
        return bool(self.shallow) and self.depth is not None and self.depth > 1


@dataclass(frozen=True)
class PackPlan:
    """The pack for a fetch: the objects of the cached pack `base`, then `objects`.

    `shallow` are the commits at which the client's history will begin, `common` those of its commits that are known
    here, `admitted` the revisions that the files belong to. With `is_all` nothing of the history is missing that the
    client asked for. Plans that are `is_costly` need many single small files; a hub's own pack is cheaper.
    """

    objects: Sequence[GitObject]
    shallow: tuple[str, ...]
    common: tuple[str, ...]
    is_all: bool
    admitted: Mapping[str, AdmittedRevision]
    base: CachedPack | None = None
    is_costly: bool = False
