"""Verifies the prepared sets of the datasets cache: what each is, what is wrong with it, and how far its content is
known.

The rows are compared with the commit where its files are here and a Python with `datasets` says which they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hfpeer.errors import HfpeerError
from hfpeer.language.amounts import counted
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.prepared.at_peers import Workplace
from hfpeer.node.operations.prepared.building import Python, find_python, plan, refuse_scripts
from hfpeer.node.operations.prepared.overview import repair_of, select_sets
from hfpeer.node.operations.prepared.progress import Telling
from hfpeer.prepared.arrow.extra import has_arrow
from hfpeer.prepared.installation import done_with, staging
from hfpeer.prepared.listing import FoundSet, Problem, list_sets
from hfpeer.prepared.records import Levels
from hfpeer.prepared.results import SetProblem, VerifiedSet
from hfpeer.prepared.verification import NOTED, SetFinding, SetVerdict, SourceFiles, verify_set

EXIT_WRONG, EXIT_BROKEN = 7, 8


@dataclass(frozen=True)
class VerifySetsRequest:
    """Verify the sets of these repos, or of all; of these configs, and the commit that begins so. `is_quick` opens no
    Arrow file."""

    repos: tuple[RepoId, ...] = ()
    configs: tuple[str, ...] = ()
    commit: str = ""
    is_quick: bool = False
    python: str | None = None


def verify_sets(place: Workplace, request: VerifySetsRequest) -> list[VerifiedSet]:
    """Verifies sets, and keeps what it found of their content. Raises NotFound for a repo without any, MissingExtra for
    a chosen Python without `datasets`."""
    settings = place.settings
    if request.repos:
        found = [one for repo in request.repos for one in select_sets(settings, repo, request.configs, request.commit)]
    else:
        found = list(list_sets(settings.datasets_cache, settings.cache).sets)
    python = None if request.is_quick or not has_arrow() else find_python(place.environ, request.python)
    return [_verified(place, one, python, is_quick=request.is_quick) for one in found]


def exit_code_of(sets: Sequence[VerifiedSet]) -> int:
    """The exit code of a command that verified these sets: wrong bytes count more than sets that do not load."""
    codes = {one.exit_code for one in sets}
    return EXIT_WRONG if EXIT_WRONG in codes else EXIT_BROKEN if EXIT_BROKEN in codes else 0


def _verified(place: Workplace, found: FoundSet, python: Python | None, *, is_quick: bool) -> VerifiedSet:
    levels = Levels(place.settings.home)
    finding = levels.of(found.folder, found.record)
    sources, why = (None, "") if is_quick else _sources(place, found, python)
    repo = found.repo
    snapshot = place.snapshot(repo, found.place.commit) if repo else None
    telling = Telling(place.on_event, str(found.place), 2 * found.size_bytes)
    verdict = verify_set(
        found, snapshot, sources, finding.level, is_quick=is_quick, why_no_sources=why, on_bytes=telling.add
    )
    if found.record is not None and verdict.level is not finding.level:
        levels.note(found.folder, found.record, verdict.level, finding.by)
    return _result(found, verdict)


def _sources(place: Workplace, found: FoundSet, python: Python | None) -> tuple[SourceFiles | None, str]:
    """The files that a set is made of; without them, the reason."""
    repo, commit = found.repo, found.place.commit
    if repo is None or commit is None:
        return None, "the commit that it was built from is not known"
    if found.info is None:
        return None, "its dataset_info.json cannot be read"
    manifest = place.manifest(repo, commit)
    add = f"hfpeer dataset add -r {repo.full_name} -v {commit}"
    if manifest is None:
        return None, f"the files of its commit are not here (`{add}`)"
    if python is None:
        return None, "no Python with `datasets` was found that says which files it is made of (`--python`)"
    try:
        return _planned(place, found, python, manifest, commit)
    except HfpeerError as error:
        return None, error.message.rstrip(".")


def _planned(
    place: Workplace, found: FoundSet, python: Python, manifest: Manifest, commit: Commit
) -> tuple[SourceFiles | None, str]:
    refuse_scripts(manifest)
    assert found.info is not None and found.repo is not None
    snapshot = place.settings.cache / found.repo.folder / "snapshots" / commit
    with staging(place.cache, f"plan-{commit[:12]}", is_new=True) as scratch:
        config = found.info.config_name
        planned = plan(python, manifest, snapshot, place.hub_cache, config, scratch, place.answers)
        done_with(scratch)
    if planned.place != found.place:
        return None, "it was made with options of load_dataset that its folder does not tell"
    missing = [path for path in planned.files if not (snapshot / path).is_file()]
    if missing:
        add = f"hfpeer dataset add -r {found.repo.full_name} -v {commit}"
        return None, f"of the files that it is made of {counted(len(missing), 'file')} cannot be found here (`{add}`)"
    return SourceFiles(snapshot, planned.splits, planned.builder, planned.reading), ""


def _result(found: FoundSet, verdict: SetVerdict) -> VerifiedSet:
    record = found.record
    return VerifiedSet(
        found.repo_name,
        found.place.config_id,
        found.place.commit or "",
        found.place.hash,
        str(found.folder),
        found.info.rows if found.info else 0,
        found.size_bytes,
        verdict.level.value,
        verdict.level.meaning,
        record.manifest.made_by if record else "",
        verdict.uncompared,
        tuple(_problem(one, found) for one in verdict.findings),
        EXIT_WRONG if verdict.is_wrong else EXIT_BROKEN if verdict.is_broken else 0,
    )


def _problem(finding: SetFinding, found: FoundSet) -> SetProblem:
    is_harmless = finding.severity == NOTED
    repair = "" if finding.kind == "foreign_text" else repair_of(Problem(finding.kind, finding.path), found)
    return SetProblem(finding.kind, finding.path, finding.meaning, repair, is_harmless)
