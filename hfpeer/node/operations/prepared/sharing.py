"""Sets that peers may have: their commits in the Hub cache, by hard links where the volume has them.

Peers see a set only while the owner shares sets, and while they may see the commit that it was made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hfpeer.cache.disk.linking import HardLinks
from hfpeer.cache.store import Store
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.prepared.arrow.packing import PackedSet, packed_sets
from hfpeer.prepared.commits import commit_of, set_ref, set_repo
from hfpeer.prepared.levels import Level
from hfpeer.prepared.manifest import SetManifest
from hfpeer.prepared.results import PreparedSet


@contextmanager
def opened_store(places: SetPlaces) -> Iterator[Store]:
    """The Hub cache of this machine until the end of the block, also while a daemon runs."""
    store = Store(places.hub_cache, places.home, places.settings.read_caches, makes_links=places.settings.makes_links)
    try:
        yield store
    finally:
        store.close()


def share_sets(places: SetPlaces, sets: Sequence[PreparedSet]) -> None:
    """Lets peers have these sets of one repo. Raises NoSpace, BrokenCache, CorruptData."""
    wanted = {(RepoId.parse(one.repo, "dataset"), Commit(one.commit)) for one in sets if one.commit}
    if not wanted:
        return
    built = {one.config_id for one in sets if one.level == Level.REBUILT}
    configs = tuple(one.config_id for one in sets)
    with (
        opened_store(places) as store,
        packed_sets(places.cache, places.hub_cache, sorted(wanted), configs, places.origin) as (packed, _),
    ):
        for one in packed:
            _publish(places, store, one, is_built_here=one.manifest.place.config_id in built)


def _publish(places: SetPlaces, store: Store, packed: PackedSet, *, is_built_here: bool) -> None:
    manifest = packed.commit
    for digest, path in packed.files.items():
        # Only shards: `datasets` may write a dataset_info.json anew, in place.
        links = HardLinks.BLOBS if path.suffix == ".arrow" else HardLinks.NEVER
        store.inventory.adopt(path, digest, manifest.repo, links)
    store.save_manifest(manifest)
    share(store, manifest, packed.manifest, places.node_name, is_built_here=is_built_here)
    store.ingester.install(manifest.repo, manifest.commit, manifest.files)


def share(store: Store, commit: Manifest, manifest: SetManifest, by: str, *, is_built_here: bool) -> None:
    """Lets peers have the commit of a set, which is in the Hub cache."""
    source = f"{manifest.repo.api_path}@{manifest.commit or ''}"
    store.note_published(commit.repo, commit.commit, by, source)
    store.name_published(commit.repo, set_ref(manifest, is_built_here=is_built_here), commit.commit)


def unshare(places: SetPlaces, manifest: SetManifest) -> None:
    """Takes the commit of a set out of the Hub cache, if it is there. Raises BrokenCache."""
    forget(places, manifest.repo, commit_of(manifest).commit)


def forget(places: SetPlaces, source: RepoId, commit: Commit) -> None:
    """The same for the commit of a set of a dataset."""
    repo = set_repo(source)
    if (places.hub_cache / repo.folder / "snapshots" / commit).exists():
        with opened_store(places) as store:
            store.remove(repo, commit)
