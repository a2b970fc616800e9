"""Installs a set that came as a commit: from an archive, over ssh or from a peer.

The commit proves the bytes of the set; its content is attested until a check has shown it. A set that is whole and here
already stays. The commit is removed from the Hub cache afterwards, unless the owner shares sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from hfpeer.cache.disk.linking import HardLinks
from hfpeer.cache.store import Store
from hfpeer.errors import BadArchive, BrokenCache
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.node.operations.prepared.places import SetPlaces, result_of
from hfpeer.node.operations.prepared.progress import Telling
from hfpeer.node.operations.prepared.sharing import share
from hfpeer.prepared.arrow.extra import need_arrow
from hfpeer.prepared.arrow.making import place_here
from hfpeer.prepared.commits import SET_FILE, set_of
from hfpeer.prepared.installation import done_with, install, staging
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import FoundSet, list_sets, read_set
from hfpeer.prepared.manifest import SetManifest
from hfpeer.prepared.records import Levels, finding_of, write_record
from hfpeer.prepared.results import PreparedSet
from hfpeer.transfer.events import OnEvent

Check = Callable[[FoundSet], Level]
"""Says how far the content of a set is known. Raises CorruptData for a wrong one."""


def manifest_in(store: Store, repo: RepoId, commit: Commit) -> tuple[Manifest, SetManifest]:
    """The commit of a set in the Hub cache, and its set manifest. Raises BadArchive, BrokenCache."""
    manifest = store.manifests.load(repo, commit)
    listed = manifest.by_path.get(SET_FILE) if manifest is not None else None
    if manifest is None or listed is None:
        raise BadArchive(f"The commit {commit.short} of {repo} is no prepared set.", commit=str(commit))
    return manifest, set_of(manifest, _blob(store, repo, listed.digest).read_bytes())


def take_set(
    places: SetPlaces,
    store: Store,
    repo: RepoId,
    commit: Commit,
    level: Level,
    by: str,
    on_event: OnEvent,
    *,
    check: Check | None = None,
    notes: tuple[str, ...] = (),
) -> PreparedSet:
    """Installs a set whose commit is whole in the Hub cache. `by` names the machine, or the archive, that gave it.
    `check` is called with the set before other programs see it; it gives the level, or raises.

    Raises MissingExtra without pyarrow, ForeignPath for a set that names files outside of its commit, BadArchive,
    Locked, NoSpace, BrokenCache.
    """
    need_arrow()
    commit_manifest, manifest = manifest_in(store, repo, commit)
    here = read_set(places.cache, manifest.place, manifest.repo)
    levels = Levels(places.home)
    if here is not None and here.info is not None and here.is_whole:
        known = levels.of(here.folder, here.record)
        is_same = here.record is not None and here.record.manifest.id == manifest.id
        notes = notes if is_same else (*notes, _other(manifest))
        result = result_of(places, manifest, here.folder, "here", known.level, notes=notes)
    else:
        telling = Telling(on_event, f"set {manifest.place.config_id}", manifest.size_bytes)
        snapshot = places.snapshot(manifest.repo, manifest.commit)
        files = {str(file.path): _blob(store, repo, file.digest) for file in commit_manifest.files}
        with staging(places.cache, f"take-{manifest.id[:16]}", is_new=True) as scratch:
            made = manifest.place.folder(scratch)
            record = place_here(files, made, manifest, snapshot, links=HardLinks.BLOBS, on_bytes=telling.add)
            write_record(made, record)
            found = read_set(scratch, manifest.place, manifest.repo)
            if check is not None and found is not None:
                level = check(found)
            folder = install(places.cache, places.hub_cache, manifest.repo, manifest.place, made)
            done_with(scratch)
        levels.note(folder, record, level, by)
        result = result_of(places, manifest, folder, "taken", level, taken_from=by, notes=notes)
    if places.shares:
        share(store, commit_manifest, manifest, places.node_name, is_built_here=False)
    else:
        store.remove(repo, commit)
    return result


def sets_here(places: SetPlaces, ids: Iterable[str]) -> dict[str, PreparedSet]:
    """By id: those of these sets that are whole in the datasets cache."""
    wanted, known = set(ids), Levels(places.home).all()
    here = {}
    for one in list_sets(places.cache, places.hub_cache).sets if wanted else ():
        if one.record is not None and one.is_whole and one.record.manifest.id in wanted:
            level = finding_of(known, one.folder, one.record).level
            here[one.record.manifest.id] = result_of(places, one.record.manifest, one.folder, "here", level)
    return here


def _blob(store: Store, repo: RepoId, digest: Digest) -> Path:
    found = store.inventory.find(digest, repo)
    if found is None or not found.is_verified:
        raise BrokenCache(
            f"The blob {digest} of a prepared set is not in the cache.", hint="Run the same command again."
        )
    return found.path


def _other(manifest: SetManifest) -> str:
    rm = f"hfpeer dataset rm --prepared -r {manifest.repo.full_name} --config {manifest.place.config_id}"
    made = f"the new one was made by {manifest.made_by}"
    return f"Another set of the same commit is here and stays; {made}. `{rm}` removes that one."
