"""Plans a conversion: finds the files of a config by `datasets`, and cuts the chosen splits into parts.

Files are added and counted only where a slice or a number of samples depends on their rows. `datasets` only names
files, in a process of its own that has no network; it runs no code of the repo.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.kinds import is_repo_folder
from hfpeer.control.operations import Operations
from hfpeer.conversion.card import card_features
from hfpeer.conversion.extra import need_libraries
from hfpeer.conversion.output.output import kept_plan
from hfpeer.conversion.part.part import local_files
from hfpeer.conversion.plan import ConversionPlan, Part, SourceFile
from hfpeer.conversion.request.splits import SplitChoice, Term, highest_rank, parse_splits
from hfpeer.conversion.sources.folder import COLUMNS, PART_FILES, has_labels, is_list, is_zip, media_of
from hfpeer.conversion.sources.kinds import OWN_READERS, can_read, source_of
from hfpeer.conversion.sources.through_datasets import BUILDERS
from hfpeer.errors import ConversionFailed, EntryNotFound, InvalidName, NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, Revision
from hfpeer.node.operations.conversion.progress import ConversionProgress
from hfpeer.node.operations.conversion.requests import ConversionRequest
from hfpeer.node.operations.prepared.building import (
    CARD_FILES,
    BuildPlan,
    find_python,
    no_python,
    plan,
    refuse_scripts,
)
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.system.cancellation import in_thread

HAS_PARQUET = (
    "Many such repos have their files as Parquet in the branch refs/convert/parquet: `-v` takes it. "
    "Else load it where datasets 3.6 or older is installed, and save it there as Parquet."
)
"""How to convert a repo whose rows a script makes."""
MAX_NAMED = 40
"""At most this many splits are named in an error."""


@dataclass(frozen=True)
class Planned:
    """A plan, and the files of the commit that it was made of."""

    plan: ConversionPlan
    manifest: Manifest
    snapshot: Path


async def plan_conversion(
    node: Operations, places: SetPlaces, request: ConversionRequest, progress: ConversionProgress
) -> Planned:
    """Plans a conversion, or takes the plan that an earlier run left in its folder.

    Raises EntryNotFound and InvalidName that name the configs or the splits, InvalidName for a dataset of a script,
    MissingExtra, and the errors of an add.
    """
    need_libraries()
    _refuse_own_folders(request.folder, places)
    manifest, snapshot = await commit_here(node, places, request, progress)
    refuse_scripts(manifest, HAS_PARQUET)
    key = request.options.key(request.repo.full_name, manifest.commit)
    kept = None if request.restarts else await in_thread(kept_plan, request.folder, key)
    if kept is not None:
        return Planned(kept, manifest, snapshot)
    planning = _Planning(node, request, manifest, snapshot, progress)
    return Planned(await planning.run(places), manifest, snapshot)


def _refuse_own_folders(folder: Path, places: SetPlaces) -> None:
    """Raises InvalidName for an output in a cache or in the home of hfpeer: programs would take it for a part of it."""
    around = [real := folder.resolve(), *real.parents]
    own = [one.resolve() for one in (places.hub_cache, places.cache, places.home)]
    inside = next((one for one in around if one in own or is_repo_folder(one.name)), None)
    if inside is not None:
        raise InvalidName(
            f"{folder} is inside {inside}, which is no folder for outputs.", hint="Give another -o.", path=str(folder)
        )


async def commit_here(
    node: Operations, places: SetPlaces, request: ConversionRequest, progress: ConversionProgress
) -> tuple[Manifest, Path]:
    """The list of the files of the commit, and its snapshot, with the card of the repo in it. Raises NotFound, and the
    errors of an add."""
    card = request.access.files(request.repo, request.revision, optional=CARD_FILES)
    finished = await node.add(card, progress.of_add)
    commit = Commit(finished.commit)
    manifest = places.manifest(request.repo, commit)
    if manifest is None:
        raise NotFound(
            f"No list of the files of {request.repo} at {commit.short} is here.",
            hint=f"`hfpeer dataset add -r {request.repo.full_name} -v {commit}` asks a hub or a peer for it.",
        )
    return manifest, Path(finished.snapshot)


class _Planning:
    """The making of one plan."""

    def __init__(
        self,
        node: Operations,
        request: ConversionRequest,
        manifest: Manifest,
        snapshot: Path,
        progress: ConversionProgress,
    ) -> None:
        self._node = node
        self._request = request
        self._manifest = manifest
        self._snapshot = snapshot
        self._progress = progress
        self._rows: dict[str, int] = {}

    async def run(self, places: SetPlaces) -> ConversionPlan:
        """Makes the plan."""
        built = await in_thread(self._files_of_config, places)
        if not can_read(built.builder, built.reading):
            raise ConversionFailed(
                f"The files of {self._manifest.repo} are of the kind {built.builder!r}, and are not read here.",
                hint=f"Files that can be converted: {', '.join(sorted(OWN_READERS | BUILDERS))}.",
                builder=built.builder,
            )
        features = await in_thread(card_features, self._snapshot, built.config_name)
        empty = ConversionPlan(
            self._manifest.repo,
            self._manifest.commit,
            built.config_name,
            built.builder,
            self._request.options,
            (),
            reading={**built.reading, **_reading_of_folders(built)},
            features=features,
        )
        choices = self._choices(built.splits)
        parts: list[Part] = []
        for choice in choices:
            parts += [
                replace(part, number=len(parts) + index)
                for index, part in enumerate(await self._parts_of(empty, choice, built.splits))
            ]
        return replace(empty, parts=tuple(parts))

    def _files_of_config(self, places: SetPlaces) -> BuildPlan:
        python = find_python(os.environ, self._request.python)
        if python is None:
            raise no_python()
        config, answers = self._request.options.config, places.answers
        with tempfile.TemporaryDirectory(prefix="hfpeer-plan-") as scratch:
            return plan(python, self._manifest, self._snapshot, places.hub_cache, config, Path(scratch), answers)

    def _choices(self, splits: Mapping[str, Sequence[FilePath]]) -> tuple[SplitChoice, ...]:
        """What the user chose of the splits; all without a choice. Raises EntryNotFound that names the splits."""
        choices = parse_splits(self._request.options.splits or tuple(splits))
        unknown = next((term.split for one in choices for term in one.terms if term.split not in splits), None)
        if unknown is not None:
            names = list(splits)
            shown = ", ".join(names[:MAX_NAMED]) + (" …" if len(names) > MAX_NAMED else "")
            raise EntryNotFound(
                f"{self._manifest.repo} has no split {unknown!r}.", hint=f"Its splits are: {shown}.", splits=names
            )
        return choices

    async def _parts_of(
        self, empty: ConversionPlan, choice: SplitChoice, splits: Mapping[str, Sequence[FilePath]]
    ) -> list[Part]:
        """The parts of one output, numbered from 0."""
        options = self._request.options
        draws = options.seed is not None
        counts = draws or options.shape == "vlmeval"  # its rows are numbered
        left = None if draws else options.max_samples
        parts: list[Part] = []
        for term in choice.terms:
            found = await self._parts_of_term(empty, choice.name, term, splits[term.split], left, counts_all=counts)
            parts += found
            if left is not None:
                left -= sum(part.take or 0 for part in found)
        if options.seed is not None and options.max_samples is not None:
            ranges = [(part.split, part.row + part.skip, part.row + part.skip + (part.take or 0)) for part in parts]
            rank = await in_thread(highest_rank, options.seed, ranges, options.max_samples)
            parts = [replace(part, highest_rank=rank) for part in parts] if rank else []
        if not parts:  # an empty output is an output too
            first = _groups(splits[choice.terms[0].split], empty.builder in COLUMNS, empty.is_listed)[0]
            parts = [Part(0, choice.name, 0, 1, choice.terms[0].split, self._sources(first), take=0)]
        return [replace(part, index=index, of=len(parts)) for index, part in enumerate(parts)]

    async def _parts_of_term(
        self,
        empty: ConversionPlan,
        output: str,
        term: Term,
        files: Sequence[FilePath],
        left: int | None,
        *,
        counts_all: bool,
    ) -> list[Part]:
        groups = [
            Part(0, output, 0, 0, term.split, self._sources(group))
            for group in _groups(files, is_folder=empty.builder in COLUMNS, is_listed=empty.is_listed)
        ]
        if term.is_whole and left is None and not counts_all:
            return groups
        first, last = 0, None
        if term.needs_total or counts_all:
            total = sum([await self._count(empty, group) for group in groups])
            first, last = term.rows(total)
        else:
            first = 0 if term.first is None else term.first.number
            last = None if term.last is None else max(first, term.last.number)
        if left is not None:
            last = first + left if last is None else min(last, first + left)
        return await self._cut(empty, groups, first, last)

    async def _cut(self, empty: ConversionPlan, groups: Sequence[Part], first: int, last: int | None) -> list[Part]:
        """The parts with rows from `first` on, until `last`. Later files are neither added nor counted."""
        parts: list[Part] = []
        row = 0
        for group in groups:
            if last is not None and row >= last:
                break
            rows = await self._count(empty, group)
            skip = max(0, first - row)
            end = rows if last is None else min(rows, last - row)
            if skip < end:
                parts.append(replace(group, row=row, skip=skip, take=end - skip))
            row += rows
        return parts

    async def _count(self, empty: ConversionPlan, part: Part) -> int:
        """The rows of the files of a part, which are added for that."""
        name = part.files[0].path
        if name not in self._rows and empty.builder in COLUMNS and not empty.is_listed and not is_zip(name):
            self._rows[name] = len(part.files)  # a picture is a row, and need not come to be counted
        if name not in self._rows:
            await add_files(self._node, self._request, empty, part.files, self._progress)
            files = local_files(part, self._snapshot)
            self._rows[name] = await in_thread(source_of(empty, Counter()).count, files)
        return self._rows[name]

    def _sources(self, files: Sequence[FilePath]) -> tuple[SourceFile, ...]:
        listed = [self._manifest.by_path[file] for file in files]
        return tuple(SourceFile(file.path, str(file.digest), file.size_bytes) for file in listed)


def _groups(files: Sequence[FilePath], is_folder: bool, is_listed: bool) -> list[list[FilePath]]:
    """The files of each part: one, or some pictures of a folder."""
    if not is_folder:
        return [[file] for file in files]
    if is_listed:
        return [[file] for file in files if is_list(file)]
    pictures = [FilePath(path) for path in media_of(files)]
    several = [pictures[start : start + PART_FILES] for start in range(0, len(pictures), PART_FILES)]
    return [*several, *([file] for file in files if is_zip(file))]


def _reading_of_folders(built: BuildPlan) -> dict[str, Any]:
    """How folders of pictures are read: by lists, or with labels."""
    if built.builder not in COLUMNS:
        return {}
    lists = [file for file in built.files if is_list(file)]
    if lists:
        return {"lists": lists[0].rpartition(".")[2]}
    return {"labels": has_labels(media_of(built.files)) or any(map(is_zip, built.files))}


async def add_files(
    node: Operations,
    request: ConversionRequest,
    plan: ConversionPlan,
    files: Sequence[SourceFile],
    progress: ConversionProgress,
) -> None:
    """Adds files of the commit by the node. Raises the errors of an add."""
    paths = tuple(FilePath(file.path) for file in files)
    await node.add(request.access.files(plan.repo, Revision(plan.commit), paths), progress.of_add)


def missing_sources(planned: Planned) -> Iterator[SourceFile]:
    """The files of a plan that are not in the snapshot."""
    return (file for file in planned.plan.sources if not (planned.snapshot / file.path).is_file())
