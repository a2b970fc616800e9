"""Makes manifests of sets, and writes sets with the paths of this machine or in the form that is the same everywhere.

A shard without media keeps its bytes. One with media is written anew, and its manifest has the facts of the form that
is the same everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.disk.linking import HardLinks, place_file
from hfpeer.errors import CorruptData, ForeignPath
from hfpeer.names import Digest, FilePath, RepoId
from hfpeer.prepared.arrow.columns import Rewrite
from hfpeer.prepared.arrow.shards import can_name_files, canonical_facts, paths_of, write_shard
from hfpeer.prepared.hashing import OnBytes, hashed
from hfpeer.prepared.info import parse_info, without_machine
from hfpeer.prepared.layout import INFO, SetPlace, shard_names
from hfpeer.prepared.listing import read_info
from hfpeer.prepared.manifest import (
    NO_MEDIA,
    OF_SNAPSHOT,
    BuiltWith,
    SetFile,
    SetManifest,
    SetSplit,
)
from hfpeer.prepared.media import NO_DOWNLOADS, Downloads, Snapshot
from hfpeer.prepared.records import SetRecord


@dataclass(frozen=True)
class Origin:
    """Where a set comes from: the repo, the files of the commit, the files that `datasets` 2 has downloaded, and what
    is recorded of its build. `snapshot` is None if the commit is not known."""

    repo: RepoId
    snapshot: Snapshot | None
    downloads: Downloads = NO_DOWNLOADS
    sources: tuple[tuple[FilePath, Digest], ...] = ()
    built_with: BuiltWith | None = None


def describe(folder: Path, place: SetPlace, origin: Origin, on_bytes: OnBytes = lambda count: None) -> SetManifest:
    """The manifest of a set on the disk. Reads all of it.

    Raises ForeignPath for a path that leads to no file of the commit, CorruptData, OSError.
    """
    text = without_machine(read_info(folder))
    info = parse_info(text)
    rewrite = _everywhere(folder, origin)
    splits, has_paths = [], False
    for split in info.splits:
        shards = []
        for name in shard_names(place.name, split.name, split.shards):
            shards.append(canonical_facts(folder / name, rewrite, on_bytes))
            has_paths = has_paths or _has_paths(folder / name)
        splits.append(SetSplit(split.name, split.rows, tuple(shards)))
    return SetManifest(
        origin.repo,
        place.commit,
        info.config_name,
        place,
        tuple(splits),
        _facts_of(INFO, text),
        origin.sources,
        info.builder,
        origin.built_with,
        info.era,
        OF_SNAPSHOT if has_paths else NO_MEDIA,
    )


def write_everywhere(
    folder: Path,
    target: Path,
    manifest: SetManifest,
    origin: Origin,
    on_bytes: OnBytes = lambda count: None,
    *,
    only_info: bool = False,
) -> None:
    """Writes the files of a manifest to the new folder `target`. Raises CorruptData if the set changed since."""
    target.mkdir(parents=True)
    rewrite = _everywhere(folder, origin)
    for file in [manifest.info] if only_info else manifest.files:
        made = (
            _write_info(folder, target)
            if file.path == INFO
            else write_shard(folder / file.path, target / file.path, rewrite, on_bytes)
        )
        if made != file:
            raise CorruptData(
                f"{folder / file.path} changed while it was read.",
                hint="Run the command again when no program writes to it.",
                path=str(folder / file.path),
            )


def place_here(
    files: Mapping[str, Path],
    target: Path,
    manifest: SetManifest,
    snapshot: Snapshot | None,
    *,
    links: HardLinks = HardLinks.NEVER,
    on_bytes: OnBytes = lambda count: None,
) -> SetRecord:
    """Fills the new folder `target` with a set whose paths are those of this machine, from files in the form that is
    the same everywhere, by name. With `links` a shard that stays as it is may be a hard link.

    The caller has checked the hashes. Raises ForeignPath, CorruptData, OSError.
    """
    target.mkdir(parents=True)
    rewrite = _here(manifest, snapshot)
    placed = []
    for file in manifest.files:
        source = files[file.path]
        if file.path == INFO or not can_name_files(source):
            # `datasets` may write a dataset_info.json anew, in place: that one is never a link.
            place_file(source, target / file.path, HardLinks.NEVER if file.path == INFO else links, on_bytes)
            placed.append(file)
        else:
            placed.append(write_shard(source, target / file.path, rewrite, on_bytes))
    return SetRecord(manifest, tuple(placed))


def place_again(
    folder: Path, target: Path, manifest: SetManifest, origin: Origin, on_bytes: OnBytes = lambda count: None
) -> SetRecord:
    """Fills the new folder `target` with a set of this cache, with paths of this machine. A shard without media is a
    hard link of the one that is there. Raises ForeignPath, CorruptData, OSError."""
    target.mkdir(parents=True)
    everywhere, here = _everywhere(folder, origin), _here(manifest, origin.snapshot)
    placed = []
    for file in manifest.files:
        if file.path == INFO:
            placed.append(_write_info(folder, target))
        elif can_name_files(folder / file.path):
            both: Rewrite = lambda text: here(everywhere(text))  # noqa: E731
            placed.append(write_shard(folder / file.path, target / file.path, both, on_bytes))
        else:
            place_file(folder / file.path, target / file.path, HardLinks.BLOBS, on_bytes)
            placed.append(file)
    return SetRecord(manifest, tuple(placed))


def is_placed_here(folder: Path, names: Iterable[str], snapshot: Snapshot | None) -> bool:
    """Whether every path in the shards leads to the snapshot on this machine. Raises CorruptData."""
    return all(
        snapshot is not None and snapshot.is_here(found.text) for name in names for found in paths_of(folder / name)
    )


def record_as_it_is(folder: Path, manifest: SetManifest, on_bytes: OnBytes = lambda count: None) -> SetRecord:
    """The record of a set whose files stay as they are. Reads those whose bytes the manifest does not have."""
    canonical = manifest.media_paths == NO_MEDIA
    placed = []
    for file in manifest.files:
        is_same = canonical and (folder / file.path).stat().st_size == file.size_bytes and file.path != INFO
        placed.append(file if is_same else hashed(folder / file.path, file.path, on_bytes))
    return SetRecord(manifest, tuple(placed))


def _has_paths(shard: Path) -> bool:
    return next(paths_of(shard), None) is not None


def _everywhere(folder: Path, origin: Origin) -> Rewrite:
    def rewrite(text: str) -> str:
        found = None if origin.snapshot is None else origin.snapshot.everywhere(text, origin.downloads)
        if found is None:
            raise _foreign(folder, text, origin.snapshot)
        return found

    return rewrite


def _here(manifest: SetManifest, snapshot: Snapshot | None) -> Rewrite:
    def rewrite(text: str) -> str:
        found = None if snapshot is None else snapshot.here(text)
        if found is None:
            raise _foreign(manifest.place, text, snapshot)
        return found

    return rewrite


def _foreign(where: object, text: str, snapshot: Snapshot | None) -> ForeignPath:
    of = f"{snapshot.repo} at {snapshot.commit.short}" if snapshot else "a commit: its folder does not tell one"
    return ForeignPath(
        f"The prepared set {where} names a file that is not of {of}: {text[:200]!r}.",
        hint="A program would open it, whatever it is. Build the set here: `hfpeer dataset prepare`.",
        text=text[:1000],
    )


def _write_info(folder: Path, target: Path) -> SetFile:
    text = without_machine(read_info(folder))
    with (target / INFO).open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return _facts_of(INFO, text)


def _facts_of(name: str, text: bytes) -> SetFile:
    import hashlib

    return SetFile(name, len(text), hashlib.sha256(text).hexdigest())


def shard_paths(folder: Path, manifest: SetManifest) -> dict[str, Sequence[Path]]:
    """By split: the shards of a set in a folder."""
    return {split.name: [folder / shard.path for shard in split.shards] for split in manifest.splits}
