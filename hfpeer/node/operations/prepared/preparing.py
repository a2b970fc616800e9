"""Makes a set ready for `load_dataset`: finds it right, mends its paths, takes it from a peer, or builds it.

The files of the commit come from the node, proved. The rest is done in this process and in a Python of the user's
choice, so that neither pyarrow nor `datasets` enters a daemon.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hfpeer.control.operations import AddRequest
from hfpeer.errors import CorruptData, HfpeerError, InvalidName, NotFound, Unreachable
from hfpeer.manifest import Manifest
from hfpeer.names import MAIN, Commit, FilePath, RepoId, Revision
from hfpeer.node.operations.prepared.at_peers import KnownSet, Workplace, fetch, look_at, offers
from hfpeer.node.operations.prepared.building import (
    CARD_FILES,
    BuildPlan,
    DatasetsProgram,
    Python,
    find_python,
    known_plan,
    no_python,
    refuse_scripts,
)
from hfpeer.node.operations.prepared.places import result_of
from hfpeer.node.operations.prepared.progress import Telling
from hfpeer.node.operations.prepared.sharing import forget, opened_store, share_sets
from hfpeer.node.operations.prepared.taking import take_set
from hfpeer.prepared.arrow.comparison import COMPARABLE
from hfpeer.prepared.arrow.extra import need_arrow
from hfpeer.prepared.arrow.making import Origin, describe, is_placed_here, place_again, record_as_it_is
from hfpeer.prepared.commits import set_repo
from hfpeer.prepared.downloads import read_downloads
from hfpeer.prepared.installation import done_with, install, settle, staging
from hfpeer.prepared.layout import SetPlace, dataset_folder
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import FoundSet, read_set
from hfpeer.prepared.manifest import SetManifest
from hfpeer.prepared.records import Levels, SetRecord, write_record
from hfpeer.prepared.results import PreparedSet
from hfpeer.prepared.verification import SetVerdict, SourceFiles, verify_set


@dataclass(frozen=True)
class PrepareRequest:
    """Prepare these configs of a repo at a revision; none means its default config. `python` is the Python to build
    with, if the user chose one. With `prefers_peers` a peer that shares the set is asked before a build."""

    repo: RepoId
    revision: Revision = MAIN
    configs: tuple[str, ...] = ()
    python: str | None = None
    prefers_peers: bool = False
    is_local_only: bool = False
    uses_peers: bool = True
    trusts_peers: bool = False
    token: str | None = None

    def files(self, paths: Sequence[FilePath] = (), optional: tuple[FilePath, ...] = ()) -> AddRequest:
        """The request for files of the commit."""
        return AddRequest(
            repo=self.repo,
            revision=self.revision,
            files=tuple(paths),
            optional=optional,
            is_local_only=self.is_local_only,
            uses_peers=self.uses_peers,
            trusts_peers=self.trusts_peers,
            token=self.token,
        )


def prepare(place: Workplace, request: PrepareRequest) -> list[PreparedSet]:
    """Prepares sets, and shares them with peers if the owner does. Raises MissingExtra, BuildFailed, InvalidName and
    EntryNotFound that name the configs, and the errors of an add."""
    need_arrow()
    python = find_python(place.environ, request.python)
    finished = place.add(request.files(optional=CARD_FILES))
    commit = Commit(finished.commit)
    manifest = place.manifest(request.repo, commit)
    if manifest is None:
        raise NotFound(
            f"No list of the files of {request.repo} at {commit.short} is here.",
            hint=f"`hfpeer dataset add -r {request.repo.full_name} -v {commit}` asks a hub or a peer for it.",
        )
    pinned = replace(request, revision=Revision(commit))
    snapshot = Path(finished.snapshot)
    sets = [_Preparing(place, pinned, manifest, snapshot, python).run(config) for config in request.configs or ("",)]
    if place.shares:
        share_sets(place, sets)
    return sets


class _Preparing:
    """Prepares one config of one commit."""

    def __init__(
        self, place: Workplace, request: PrepareRequest, manifest: Manifest, snapshot: Path, python: Python | None
    ) -> None:
        self._place = place
        self._request = request
        self._manifest = manifest
        self._snapshot = snapshot
        self._python = python
        self._notes: list[str] = []
        self._config = ""
        self._undo = contextlib.ExitStack()
        self._program: DatasetsProgram | None = None

    def run(self, config: str) -> PreparedSet:
        """Finds the set here, at peers, or builds it, in the order that the request says."""
        self._config = config
        with self._undo:
            return self._run(config)

    def _run(self, config: str) -> PreparedSet:
        known = self._known(config)
        if known is not None:
            return known
        why_no_build = self._why_no_build()
        planned = None if why_no_build is not None else self._plan(config)
        if planned is not None:
            found = read_set(self._place.cache, planned.place, self._manifest.repo)
            if found is not None and found.info is not None and found.is_whole:
                self._end_program()
                self._place.add(self._request.files(planned.files))
                kept = self._kept(found, planned)
                if kept is not None:
                    return kept
        if self._asks_peers and (self._request.prefers_peers or why_no_build is not None):
            taken = self._from_peers(config if planned is None else planned.place.config_id, planned)
            if taken is not None:
                return taken
        if planned is None:
            assert why_no_build is not None
            raise type(why_no_build)(
                " ".join([why_no_build.message, *self._notes]), hint=why_no_build.hint, **why_no_build.facts
            )
        self._place.add(self._request.files(planned.files))
        return self._built(planned)

    @property
    def _asks_peers(self) -> bool:
        return self._request.uses_peers and not self._request.is_local_only

    @property
    def _trusts(self) -> bool:
        return self._request.trusts_peers or self._place.settings.trusts_attested

    def _why_no_build(self) -> HfpeerError | None:
        """The error for a set that cannot be built here; None if it can."""
        try:
            refuse_scripts(self._manifest)
        except InvalidName as error:
            return error
        return no_python() if self._python is None else None

    def _plan(self, config: str) -> BuildPlan:
        """The plan of a config. The program that makes it waits: perhaps it has to build the set, too."""
        assert self._python is not None
        known = known_plan(self._python, self._manifest, config, self._place.answers)
        return known or self._started(self._python, config).plan(self._place.answers)

    def _end_program(self) -> None:
        """Ends the program where a build is not the next step: what goes on then may take long, and may be killed."""
        self._undo.close()
        self._program = None

    def _started(self, python: Python, config: str) -> DatasetsProgram:
        """The program, until the end of this work."""
        name = f"build-{self._manifest.commit[:12]}-{hashlib.sha256(config.encode()).hexdigest()[:12]}"
        scratch = self._undo.enter_context(staging(self._place.cache, name, is_new=True))
        self._undo.callback(done_with, scratch)
        program = DatasetsProgram(python, self._manifest, self._snapshot, self._place.hub_cache, config, scratch)
        self._program = self._undo.enter_context(program)
        return program

    # A set of peers

    def _from_peers(self, config: str, planned: BuildPlan | None) -> PreparedSet | None:
        """Takes the set from peers that share it; None, and notes why, if none is good."""
        repo, commit = self._manifest.repo, self._manifest.commit
        found = offers(self._place, repo, commit, config, is_script=planned is None)
        configs = sorted({one.config_slug for one in found})
        if len(configs) > 1:
            raise InvalidName(
                f"Peers share sets of {len(configs)} configs of {repo}: name one.",
                hint=f"`--config` takes: {', '.join(configs[:30])}.",
                configs=configs,
            )
        if found:
            self._end_program()
        for offer in found:
            try:
                known = look_at(self._place, repo, offer)
                taken = self._taken(known, planned)
            except (CorruptData, Unreachable) as error:
                self._notes.append(f"The set of {offer.named} is not taken: {error.message}")
                taken = None
            if taken is not None:
                return taken
            if not self._place.shares:
                forget(self._place, repo, offer.commit)
        if not found:
            self._notes.append(f"No peer that answers shares a prepared set of {repo} at {commit.short}.")
        return None

    def _taken(self, known: KnownSet, planned: BuildPlan | None) -> PreparedSet | None:
        offer, repo = known.offer, self._manifest.repo
        refusal = known.unreadable_by(self._python)
        can_check = planned is not None and planned.place == known.manifest.place and planned.builder in COMPARABLE
        if not refusal and not can_check and not self._trusts:
            refusal = "nothing here can compare it with the commit; `--trust-peers` takes it on their word"
        if refusal:
            self._notes.append(f"The set of {offer.named}, made by {known.manifest.made_by}, is not taken: {refusal}.")
            return None
        if can_check and planned is not None:
            self._place.add(self._request.files(planned.files))
        elif known.manifest.sources:
            self._place.add(self._request.files(tuple(path for path, _ in known.manifest.sources)))
        fetch(self._place, repo, offer)
        check = None if planned is None or not can_check else partial(self._checked, planned)
        with opened_store(self._place) as store:
            return take_set(
                self._place,
                store,
                set_repo(repo),
                offer.commit,
                offer.level,
                offer.named,
                self._place.on_event,
                check=check,
                notes=tuple(self._notes),
            )

    def _checked(self, planned: BuildPlan, found: FoundSet) -> Level:
        """Compares the rows of a set of peers with the commit, before it is installed. Raises CorruptData."""
        verdict = self._verify(found, planned, Level.ATTESTED)
        wrong = next((one for one in verdict.findings if one.severity == "wrong"), None)
        if wrong is not None:
            raise CorruptData(f"It is not what the commit gives: {wrong.meaning}.")
        if verdict.level is not Level.CHECKED and not self._trusts:
            raise CorruptData(f"It could not be compared with the commit: {verdict.uncompared}.")
        return verdict.level

    # A set that is there

    def _known(self, config: str) -> PreparedSet | None:
        """A set of the config whose content this node has found right, if nothing has changed since. Its shards are not
        read again: `verify` does that."""
        if not config:
            return None
        with contextlib.suppress(InvalidName):
            where = SetPlace.parse(dataset_folder(self._manifest.repo), config, "0.0.0", self._manifest.commit)
            found = read_set(self._place.cache, where, self._manifest.repo)
            if found is None or found.record is None or any(not one.is_harmless for one in found.problems):
                return None
            level = Levels(self._place.home).of(found.folder, found.record).level
            snapshot = self._place.snapshot(self._manifest.repo, self._manifest.commit)
            names = [name for _, name in found.shards]
            if level.is_own_work and is_placed_here(found.folder, names, snapshot):
                settle(self._place.cache, self._place.hub_cache, self._manifest.repo)
                return self._result(found.record.manifest, found.folder, "here", level)
        return None

    def _kept(self, found: FoundSet, planned: BuildPlan) -> PreparedSet | None:
        """Checks a set that is there, and mends its paths; None if its content is wrong, so that it has to be built."""
        levels = Levels(self._place.home)
        known = levels.of(found.folder, found.record)
        origin = self._origin(planned)
        mended = not is_placed_here(found.folder, [name for _, name in found.shards], origin.snapshot)
        if mended:
            record = self._mend(found, origin)
            found = read_set(self._place.cache, found.place, self._manifest.repo) or found
        else:
            record = found.record or self._recorded(found, origin)
        if known.level.is_own_work and not mended:
            settle(self._place.cache, self._place.hub_cache, self._manifest.repo)
            return self._result(record.manifest, found.folder, "here", known.level)
        verdict = self._verify(found, planned, known.level)
        if verdict.is_wrong:
            wrong = next(one for one in verdict.findings if one.severity == "wrong")
            self._notes.append(f"The set that was here is wrong and was replaced: {wrong.meaning}.")
            return None
        level = verdict.level
        if level is not known.level or mended:
            levels.note(found.folder, record, level, f"datasets {planned.python.datasets}")
        if verdict.uncompared:
            self._notes.append(f"Its rows were not compared with the commit: {verdict.uncompared}.")
        settle(self._place.cache, self._place.hub_cache, self._manifest.repo)
        return self._result(record.manifest, found.folder, "mended" if mended else "here", level)

    def _mend(self, found: FoundSet, origin: Origin) -> SetRecord:
        """Writes a set anew with the paths of this machine. The results of `map` in its folder are kept."""
        telling = Telling(self._place.on_event, f"paths of {found.place.config_id}", 2 * found.size_bytes)
        manifest = describe(found.folder, found.place, origin, telling.add)
        with staging(self._place.cache, f"mend-{manifest.id[:16]}", is_new=True) as scratch:
            made = scratch / found.place.hash
            record = place_again(found.folder, made, manifest, origin, telling.add)
            self._install(made, record, keeps_derived=True)
            done_with(scratch)
        return record

    def _recorded(self, found: FoundSet, origin: Origin) -> SetRecord:
        """Makes the record of a set that another program left."""
        telling = Telling(self._place.on_event, found.place.config_id, found.size_bytes)
        record = record_as_it_is(found.folder, describe(found.folder, found.place, origin, telling.add))
        write_record(found.folder, record)
        return record

    def _verify(self, found: FoundSet, planned: BuildPlan, known: Level) -> SetVerdict:
        size_bytes = found.size_bytes + sum(self._manifest.by_path[path].size_bytes for path in planned.files)
        telling = Telling(self._place.on_event, f"check of {found.place.config_id}", size_bytes)
        snapshot = self._place.snapshot(self._manifest.repo, self._manifest.commit)
        sources = SourceFiles(self._snapshot, planned.splits, planned.builder, planned.reading)
        return verify_set(found, snapshot, sources, known, on_bytes=telling.add)

    # A build

    def _built(self, planned: BuildPlan) -> PreparedSet:
        telling = Telling(self._place.on_event, f"build of {planned.place.config_id}", self._manifest.size_bytes)
        running = self._program
        if running is None:  # the plan was known
            running = self._started(planned.python, self._config)
            running.plan(self._place.answers)
        built, folder, built_with = running.build(telling.reached)
        origin = Origin(
            self._manifest.repo,
            self._place.snapshot(self._manifest.repo, self._manifest.commit),
            read_downloads(running.scratch),
            self._origin(built).sources,
            built_with,
        )
        manifest = describe(folder, built.place, origin)
        made = running.scratch / built.place.hash
        record = place_again(folder, made, manifest, origin)
        target = self._install(made, record)
        Levels(self._place.home).note(target, record, Level.REBUILT, str(built_with))
        return self._result(manifest, target, "built", Level.REBUILT)

    # Both

    def _origin(self, planned: BuildPlan) -> Origin:
        repo, commit = self._manifest.repo, self._manifest.commit
        sources = tuple((path, self._manifest.by_path[path].digest) for path in planned.files)
        return Origin(repo, self._place.snapshot(repo, commit), read_downloads(self._place.cache), sources)

    def _install(self, made: Path, record: SetRecord, *, keeps_derived: bool = False) -> Path:
        write_record(made, record)
        return install(
            self._place.cache,
            self._place.hub_cache,
            self._manifest.repo,
            record.manifest.place,
            made,
            keeps_derived=keeps_derived,
        )

    def _result(self, manifest: SetManifest, folder: Path, how: str, level: Level) -> PreparedSet:
        return result_of(self._place, manifest, folder, how, level, notes=tuple(self._notes))
