"""Lists the prepared sets of a datasets cache and what is wrong with each. Only reads; needs no pyarrow.

It reads the small `dataset_info.json` of each set and looks at sizes. It opens no Arrow file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfpeer.budgets import MAX_SET_INFO_BYTES
from hfpeer.cache.disk import layout as hub_layout
from hfpeer.cache.snapshots import read_ref
from hfpeer.errors import BadArchive, CorruptData, InvalidName
from hfpeer.names import MAIN, RepoId, RepoType
from hfpeer.prepared.info import SetInfo, parse_info
from hfpeer.prepared.layout import (
    INCOMPLETE,
    INFO,
    OWN,
    SCRIPTS_HASH_LENGTH,
    SetPlace,
    dataset_folder,
    is_derived,
    is_strange,
    shard_names,
)
from hfpeer.prepared.records import SetRecord, read_record

BLOCK_BYTES = 512
"""The unit of `st_blocks`."""
PACKAGED_BUILDERS = frozenset({"parquet", "json", "csv", "text", "arrow", "imagefolder", "audiofolder", "webdataset"})
PROBLEMS: dict[str, str] = {
    "no_info": "it has no dataset_info.json, so loads of this config fail offline",
    "bad_info": "its dataset_info.json cannot be read",
    "no_shard": "a file of a split is missing, so every load of it fails",
    "wrong_size": "a file has another size than its record says",
    "bad_record": "hfpeer's record of it cannot be read",
    "unfinished": "a build that did not end lies beside it, so every offline load of this config fails",
    "strange_file": "a file that belongs to no split: a killed build leaves such, and no program reads them",
    "several_configs": "the commit has several configs: offline, load_dataset needs the name of one",
    "not_newest": "another commit than that of main is newer here: offline, load_dataset takes that one, whatever "
    "`revision` says",
    "old_layout": "datasets 2.15 or older made it, and no newer version finds it",
    "local": "it was built from a local folder: no other machine can find it",
}
"""By kind of problem: what it means, as the end of a sentence."""
HARMLESS = frozenset({"strange_file", "several_configs", "local"})
"""The kinds of problems with which the set still loads."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be. `path` is below the datasets cache."""

    kind: str
    path: str
    size_bytes: int = 0

    @property
    def meaning(self) -> str:
        return PROBLEMS[self.kind]

    @property
    def is_harmless(self) -> bool:
        return self.kind in HARMLESS


@dataclass(frozen=True)
class FoundSet:
    """A set on the disk. `repo` is None if no folder of the Hub cache has a name that becomes this one in snake case.

    `size_bytes` counts the shards and `dataset_info.json`, `other_bytes` what lies beside them in the folder: results
    of `map`, and leftovers. `disk_bytes` is the space that all of it takes. `changed_at` is the mtime of the folder, by
    which `datasets` chooses.
    """

    place: SetPlace
    folder: Path
    repo: RepoId | None
    info: SetInfo | None
    record: SetRecord | None
    shards: tuple[tuple[str, str], ...]
    """The split and the name of each shard."""
    size_bytes: int
    other_bytes: int
    disk_bytes: int
    changed_at: float
    problems: tuple[Problem, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every file that its splits name is there."""
        return self.info is not None and not any(one.kind in ("no_shard", "wrong_size") for one in self.problems)

    def bytes_of(self, *kinds: str) -> int:
        """The bytes of the files that are problems of these kinds."""
        return sum(one.size_bytes for one in self.problems if one.kind in kinds)

    @property
    def repo_name(self) -> str:
        """The name of the repo; without one the name of its folder."""
        return self.repo.full_name if self.repo else self.place.dataset.replace("___", "/")


@dataclass(frozen=True)
class Leftover:
    """A folder that a killed build, or a killed command of hfpeer, left."""

    path: Path
    size_bytes: int
    changed_at: float
    is_own: bool
    """Whether hfpeer made it."""


@dataclass(frozen=True)
class Listing:
    """All that the datasets cache holds of prepared sets."""

    sets: tuple[FoundSet, ...]
    leftovers: tuple[Leftover, ...] = field(default=())


def list_sets(cache: Path, hub_cache: Path, repo: RepoId | None = None) -> Listing:
    """The sets of all repos, or of one. A cache that is not there is empty."""
    names = _repos(hub_cache)
    folders = [cache / dataset_folder(repo)] if repo else sorted(_folders(cache))
    sets, leftovers = list[FoundSet](), list[Leftover]()
    for folder in folders:
        known = repo or names.get(folder.name)
        of_dataset = list(_sets(cache, folder, known, leftovers))
        sets += _compared(of_dataset, hub_cache)
    if repo is None:
        leftovers += _own_leftovers(cache)
    return Listing(tuple(sets), tuple(leftovers))


def read_set(cache: Path, place: SetPlace, repo: RepoId | None = None) -> FoundSet | None:
    """One set, without a look at others; None if its folder is not there."""
    return _read(cache, place, repo) if place.folder(cache).is_dir() else None


def _repos(hub_cache: Path) -> Mapping[str, RepoId]:
    """By the folder of its sets: each dataset repo of the Hub cache. Names that two repos share are left out."""
    found: dict[str, RepoId | None] = {}
    with contextlib.suppress(OSError):
        for name in sorted(path.name for path in hub_cache.iterdir()):
            if name.startswith(f"{RepoType.DATASET.plural}--"):
                with contextlib.suppress(InvalidName):
                    repo = RepoId.from_folder(name)
                    folder = dataset_folder(repo)
                    found[folder] = None if folder in found else repo
    return {folder: repo for folder, repo in found.items() if repo is not None}


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, without links and without names that begin with a dot."""
    with contextlib.suppress(OSError), os.scandir(folder) as children:
        for child in children:
            if not child.name.startswith(".") and child.is_dir(follow_symlinks=False):
                yield folder / child.name


def _sets(cache: Path, dataset: Path, repo: RepoId | None, leftovers: list[Leftover]) -> Iterator[FoundSet]:
    """The sets of one dataset. A share may be linked at the top: `ORG___name` may be a link, nothing below it."""
    for config in sorted(_folders(dataset)):
        for version in sorted(_folders(config)):
            if config.name in ("downloads",) or version.name.endswith(INCOMPLETE):
                continue
            here, unfinished = list[SetPlace](), list[Path]()
            for folder in sorted(_folders(version)):
                if folder.name.endswith(INCOMPLETE):
                    unfinished.append(folder)
                    continue
                with contextlib.suppress(InvalidName):
                    here.append(SetPlace.parse(dataset.name, config.name, version.name, folder.name))
            left = [Leftover(path, folder_bytes(path), path.stat().st_mtime, False) for path in unfinished]
            leftovers += left
            beside = tuple(Problem("unfinished", str(one.path.relative_to(cache)), one.size_bytes) for one in left)
            for place in here:
                found = _read(cache, place, repo)
                yield replace(found, problems=(*found.problems, *beside))


def _read(cache: Path, place: SetPlace, repo: RepoId | None) -> FoundSet:
    folder = place.folder(cache)
    problems: list[Problem] = []
    record, info = _record(folder, place, problems), _info(folder, place, problems)
    files = _files(folder)
    sizes = {name: facts.st_size for name, facts in files.items()}
    shards: list[tuple[str, str]] = []
    if info is not None:
        try:
            shards = [(one.name, name) for one in info.splits for name in shard_names(place.name, one.name, one.shards)]
        except InvalidName:
            problems.append(Problem("bad_info", f"{place}/{INFO}"))
            info = None
    names = [name for _, name in shards]
    problems += [Problem("no_shard", f"{place}/{name}") for name in names if name not in sizes]
    if record is not None:
        problems += [
            Problem("wrong_size", f"{place}/{file.path}", sizes[file.path])
            for file in record.files
            if sizes.get(file.path, file.size_bytes) != file.size_bytes
        ]
    problems += [
        Problem("strange_file", f"{place}/{name}", size) for name, size in sizes.items() if is_strange(name, names)
    ]
    if place.is_local:
        problems.append(Problem("local", str(place)))
    elif info is not None and len(place.hash) == SCRIPTS_HASH_LENGTH and info.builder in PACKAGED_BUILDERS:
        problems.append(Problem("old_layout", str(place)))
    own = {INFO, *names}
    return FoundSet(
        place,
        folder,
        record.manifest.repo if record is not None else repo,
        info,
        record,
        tuple(shards),
        sum(size for name, size in sizes.items() if name in own),
        sum(size for name, size in sizes.items() if name not in own),
        sum(facts.st_blocks for facts in files.values()) * BLOCK_BYTES,
        folder.stat().st_mtime,
        tuple(problems),
    )


def _record(folder: Path, place: SetPlace, problems: list[Problem]) -> SetRecord | None:
    try:
        record = read_record(folder)
    except BadArchive:
        problems.append(Problem("bad_record", str(place)))
        return None
    if record is not None and record.manifest.place != place:
        problems.append(Problem("bad_record", str(place)))
        return None
    return record


def _info(folder: Path, place: SetPlace, problems: list[Problem]) -> SetInfo | None:
    try:
        return parse_info(read_info(folder))
    except FileNotFoundError:
        problems.append(Problem("no_info", f"{place}/{INFO}"))
    except (OSError, CorruptData):
        problems.append(Problem("bad_info", f"{place}/{INFO}"))
    return None


def read_info(folder: Path) -> bytes:
    """The text of `dataset_info.json`. Raises OSError, and CorruptData for a file that is too large."""
    with open(os.open(folder / INFO, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        text = file.read(MAX_SET_INFO_BYTES + 1)
    if len(text) > MAX_SET_INFO_BYTES:
        raise CorruptData(f"{folder / INFO} has more than {MAX_SET_INFO_BYTES} bytes.", path=str(folder / INFO))
    return text


def _files(folder: Path) -> dict[str, os.stat_result]:
    """The regular files in a folder, with their facts."""
    files = {}
    with contextlib.suppress(OSError), os.scandir(folder) as children:
        for child in children:
            if child.is_file(follow_symlinks=False):
                files[child.name] = child.stat(follow_symlinks=False)
    return dict(sorted(files.items()))


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder. No link is followed."""
    total, waiting = 0, [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as children:
            for child in children:
                if child.is_dir(follow_symlinks=False):
                    waiting.append(Path(child.path))
                elif stat.S_ISREG(child.stat(follow_symlinks=False).st_mode):
                    total += child.stat(follow_symlinks=False).st_size
    return total


def _own_leftovers(cache: Path) -> Iterator[Leftover]:
    for folder in sorted(_folders(cache / OWN)):
        with contextlib.suppress(OSError):
            yield Leftover(folder, folder_bytes(folder), folder.stat().st_mtime, True)


def _compared(sets: list[FoundSet], hub_cache: Path) -> Iterator[FoundSet]:
    """The sets of one dataset with the problems that they make for each other."""
    whole = [one for one in sets if one.info is not None]
    for one in sets:
        problems = list(one.problems)
        if one.info is not None and _configs_beside(one, whole) > 1:
            problems.append(Problem("several_configs", f"{one.place.dataset}/*/{one.place.version}/{one.place.hash}"))
        if one.info is not None and one.place.commit and one.repo and is_hidden(one, whole, hub_cache):
            problems.append(Problem("not_newest", str(one.place)))
        yield replace(one, problems=tuple(problems))


def _configs_beside(one: FoundSet, sets: Iterable[FoundSet]) -> int:
    """The configs that `datasets` finds in the same VERSION/HASH."""
    return sum(
        (other.place.version, other.place.hash) == (one.place.version, one.place.hash)
        and other.info is not None
        and other.info.config_name == other.place.config_id
        for other in sets
    )


def is_hidden(one: FoundSet, sets: Iterable[FoundSet], hub_cache: Path) -> bool:
    """Whether a set is of the commit of main, and a set of another commit with the same config id has a newer
    folder."""
    if one.repo is None or main_of(hub_cache, one.repo) != one.place.commit:
        return False
    return any(
        other.place.config_id == one.place.config_id
        and other.place.hash != one.place.hash
        and other.changed_at > one.changed_at
        for other in sets
    )


def main_of(hub_cache: Path, repo: RepoId) -> str | None:
    """The commit that the Hub cache has for main."""
    found = read_ref(hub_cache, repo, MAIN)
    return None if found is None else str(found[0])


def other_files(found: FoundSet) -> list[Path]:
    """The files in the folder of a set that are results of `map`, `filter` and the like."""
    return [found.folder / name for name in _files(found.folder) if is_derived(name)]


def source_folder(hub_cache: Path, found: FoundSet) -> Path | None:
    """The snapshot that a set was made of, whether it is there or not; None if the set does not tell."""
    if found.repo is None or found.place.commit is None:
        return None
    return hub_layout.snapshot_path(hub_cache, found.repo, found.place.commit)
