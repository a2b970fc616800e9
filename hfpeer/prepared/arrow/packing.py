"""The sets of a datasets cache as commits that can move, with the files that have their bytes.

A set without media moves as it lies. Of one with media the files are written in the form that is the same everywhere,
into a folder of hfpeer's own, which is removed at the end. Writes nothing into a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfpeer.errors import ForeignPath, NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.prepared.arrow.making import Origin, describe, write_everywhere
from hfpeer.prepared.commits import SET_FILE, commit_of
from hfpeer.prepared.hashing import OnBytes
from hfpeer.prepared.installation import done_with, staging
from hfpeer.prepared.layout import SCRIPTS_HASH_LENGTH
from hfpeer.prepared.listing import FoundSet, list_sets
from hfpeer.prepared.manifest import NO_MEDIA, SetManifest
from hfpeer.prepared.records import read_record

OriginOf = Callable[[RepoId, "Commit | None"], Origin]
"""What is known of the origin of the sets of a commit."""


@dataclass(frozen=True)
class PackedSet:
    """A set that can move: its manifest, its commit, and by digest the files with the bytes."""

    manifest: SetManifest
    commit: Manifest
    files: Mapping[Digest, Path]

    @property
    def source(self) -> str:
        """The commit that it was made of, as `datasets/ORG/NAME@COMMIT`."""
        return f"{self.manifest.repo.api_path}@{self.manifest.commit or ''}"


@contextmanager
def packed_sets(
    cache: Path,
    hub_cache: Path,
    revisions: Sequence[tuple[RepoId, Commit]],
    configs: Sequence[str],
    origin_of: OriginOf,
    on_bytes: OnBytes = lambda count: None,
) -> Iterator[tuple[list[PackedSet], list[str]]]:
    """The sets of these commits, until the end of the block, and a note for each that cannot move. Of a repo with a
    script also those whose commit is not known. With `configs` only these.

    Raises NotFound for a config without a set, ForeignPath for a set that was named and cannot move, CorruptData.
    """
    packed, notes = list[PackedSet](), list[str]()
    with ExitStack() as undo:
        for found in _chosen(cache, hub_cache, revisions, configs):
            why_not = _why_not(found)
            if why_not:
                notes.append(f"The prepared set {found.place} is left out: {why_not}.")
                continue
            try:
                packed.append(_packed(undo, cache, found, origin_of, on_bytes))
            except ForeignPath as error:
                if configs:
                    raise
                notes.append(f"Left out: {error.message}")
        yield packed, notes


def _chosen(
    cache: Path, hub_cache: Path, revisions: Sequence[tuple[RepoId, Commit]], configs: Sequence[str]
) -> list[FoundSet]:
    wanted = {(repo, str(commit)) for repo, commit in revisions}
    repos = dict.fromkeys(repo for repo, _ in revisions)
    here = [one for repo in repos for one in list_sets(cache, hub_cache, repo).sets]
    found = [
        one
        for one in here
        if one.repo is not None
        and ((one.repo, one.place.hash) in wanted or len(one.place.hash) == SCRIPTS_HASH_LENGTH)
        and (not configs or one.place.config_id in configs)
    ]
    missing = sorted({*configs} - {one.place.config_id for one in found})
    if missing or not found:
        names = ", ".join(repo.full_name for repo in repos)
        first = next(iter(repos)).full_name
        raise NotFound(
            f"No prepared set {f'of config {missing[0]} ' if missing else ''}of {names} is in {cache}.",
            hint=f"`hfpeer dataset prepare -r {first}` makes one; `hfpeer dataset ls --prepared` lists them.",
        )
    return found


def _why_not(found: FoundSet) -> str:
    """Why a set cannot move, as the end of a sentence; empty if it can."""
    if found.info is None or not found.is_whole:
        return "it is not whole"
    return next((one.meaning for one in found.problems if one.kind in ("old_layout", "local", "bad_record")), "")


def _packed(undo: ExitStack, cache: Path, found: FoundSet, origin_of: OriginOf, on_bytes: OnBytes) -> PackedSet:
    assert found.repo is not None
    origin = origin_of(found.repo, found.place.commit)
    record = read_record(found.folder)
    if record is not None:
        known = record.manifest
        origin = Origin(origin.repo, origin.snapshot, origin.downloads, known.sources, known.built_with)
    if record is not None and record.manifest.media_paths == NO_MEDIA:
        manifest = record.manifest
    else:
        manifest = describe(found.folder, found.place, origin, on_bytes)
    commit = commit_of(manifest)
    scratch = undo.enter_context(staging(cache, f"pack-{manifest.id[:16]}", is_new=True))
    undo.callback(done_with, scratch)
    (scratch / SET_FILE).write_bytes(manifest.to_json())
    if manifest.media_paths == NO_MEDIA:
        places = {file.path: found.folder / file.path for file in manifest.files}
        if record is None or record.files[-1] != manifest.info:
            write_everywhere(found.folder, scratch / "info", manifest, origin, only_info=True)
            places[manifest.info.path] = scratch / "info" / manifest.info.path
    else:
        write_everywhere(found.folder, scratch / "files", manifest, origin, on_bytes)
        places = {file.path: scratch / "files" / file.path for file in manifest.files}
    places[SET_FILE] = scratch / SET_FILE
    return PackedSet(manifest, commit, {file.digest: places[file.path] for file in commit.files})
