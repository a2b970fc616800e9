"""Removes prepared sets from the datasets cache, and what killed builds and commands left there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hfpeer.config.settings import Settings
from hfpeer.errors import Locked
from hfpeer.names import RepoId
from hfpeer.node.operations.prepared.overview import select_sets
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.node.operations.prepared.sharing import unshare
from hfpeer.prepared.installation import remove_leftover, remove_leftovers, remove_set, remove_strange_files
from hfpeer.prepared.listing import FoundSet, list_sets
from hfpeer.prepared.results import RemovedSets


def remove_prepared(
    settings: Settings,
    repo: RepoId,
    configs: Sequence[str] = (),
    commit: str = "",
    *,
    leftovers_only: bool = False,
    is_dry_run: bool = False,
) -> RemovedSets:
    """Removes the sets of a repo: all, or those of some configs, or of the commit that begins so. With `leftovers_only`
    only what killed builds left.

    Raises NotFound, Locked while a build runs, BrokenCache.
    """
    chosen = select_sets(settings, repo, configs, commit)
    cache = settings.datasets_cache
    if is_dry_run:
        freed_bytes = sum(leftover_bytes(one) if leftovers_only else one.size_bytes + one.other_bytes for one in chosen)
    else:
        freed_bytes = sum(remove_leftovers(cache, one) if leftovers_only else remove_set(cache, one) for one in chosen)
        for one in chosen:
            if one.record is not None and not leftovers_only:
                unshare(SetPlaces(settings), one.record.manifest)
    folders = () if leftovers_only else tuple(str(one.folder) for one in chosen)
    return RemovedSets(repo.full_name, folders, freed_bytes)


def leftover_bytes(found: FoundSet) -> int:
    """The bytes that killed builds left in the folder of a set and beside it."""
    return found.bytes_of("strange_file", "unfinished")


def remove_all_leftovers(settings: Settings, *, is_dry_run: bool = False) -> RemovedSets:
    """Removes what killed builds and killed commands left for all repos. What a running build uses is kept, and named.

    Raises BrokenCache.
    """
    cache = settings.datasets_cache
    listing = list_sets(cache, settings.cache)
    strange = {one.folder: size_bytes for one in listing.sets if (size_bytes := one.bytes_of("strange_file"))}
    if is_dry_run:
        freed_bytes = sum(strange.values()) + sum(one.size_bytes for one in listing.leftovers)
        return RemovedSets("", (*map(str, strange), *(str(one.path) for one in listing.leftovers)), freed_bytes)
    gone, kept, freed_bytes = list[str](), list[str](), 0
    for one in listing.sets:
        if one.folder in strange:
            with _kept_if_locked(kept, one.folder):
                freed_bytes += remove_strange_files(cache, one)
                gone.append(str(one.folder))
    for left in listing.leftovers:
        with _kept_if_locked(kept, left.path):
            freed_bytes += remove_leftover(cache, left)
            gone.append(str(left.path))
    return RemovedSets("", tuple(gone), freed_bytes, tuple(kept))


@contextmanager
def _kept_if_locked(kept: list[str], path: Path) -> Iterator[None]:
    try:
        yield
    except Locked:
        kept.append(str(path))
