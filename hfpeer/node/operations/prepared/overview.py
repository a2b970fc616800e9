"""Lists the prepared sets of the datasets cache, with the repair of each problem. Light: `cache ls` needs it too."""

from __future__ import annotations

from collections.abc import Sequence

from hfpeer.config.settings import Settings
from hfpeer.errors import NotFound
from hfpeer.names import RepoId
from hfpeer.prepared.info import reader_of
from hfpeer.prepared.listing import FoundSet, Leftover, Problem, list_sets
from hfpeer.prepared.records import Finding, Levels, finding_of
from hfpeer.prepared.results import ListedSet, SetProblem


def prepared_sets(settings: Settings, repo: RepoId | None = None) -> tuple[list[ListedSet], list[Leftover]]:
    """The prepared sets of all repos or of one, and the leftovers of killed builds. Reads no Arrow file."""
    listing = list_sets(settings.datasets_cache, settings.cache, repo)
    known = Levels(settings.home).all()
    sets = [listed(one, finding_of(known, one.folder, one.record)) for one in listing.sets]
    return sets, list(listing.leftovers)


def listed(found: FoundSet, finding: Finding) -> ListedSet:
    """A set as commands show it."""
    info, record = found.info, found.record
    return ListedSet(
        found.repo_name,
        info.config_name if info else "",
        found.place.config_id,
        found.place.commit or "",
        found.place.hash,
        info.rows if info else 0,
        len(found.shards),
        found.size_bytes,
        found.other_bytes,
        found.disk_bytes,
        found.changed_at,
        str(found.folder),
        info.builder if info else "",
        str(record.manifest.built_with or "") if record else "",
        reader_of(info.needs) if info else "",
        finding.level.value,
        finding.by,
        tuple(
            SetProblem(one.kind, one.path, one.meaning, repair_of(one, found), one.is_harmless)
            for one in found.problems
        ),
    )


def repair_of(problem: Problem, found: FoundSet) -> str:
    """The command, or the sentence, that mends a problem; empty where there is nothing to mend."""
    name = f"-r {found.repo_name}"
    again = f"hfpeer dataset prepare {name}" + (f" -v {found.place.commit}" if found.place.commit else "")
    mend = f"{again} --config {found.place.config_id}"
    remove = f"hfpeer dataset rm --prepared {name} --config {found.place.config_id}"
    repairs = {
        "unfinished": f"hfpeer dataset rm --prepared {name} --leftovers, if no build is running",
        "strange_file": f"hfpeer dataset rm --prepared {name} --leftovers",
        "several_configs": f"load_dataset({found.repo_name!r}, CONFIG)",
        "not_newest": mend,
        "old_layout": remove,
        "local": "",
        "foreign_path": mend,
        "no_media": mend,
        "bad_record": mend,
    }
    return repairs.get(problem.kind, f"{remove}, then {mend}")


def select_sets(settings: Settings, repo: RepoId, configs: Sequence[str] = (), commit: str = "") -> list[FoundSet]:
    """The sets of a repo: all, or those of some config ids and of the commit, or hash, that begins so. Raises
    NotFound."""
    found = list(list_sets(settings.datasets_cache, settings.cache, repo).sets)
    chosen = [
        one for one in found if (not configs or one.place.config_id in configs) and one.place.hash.startswith(commit)
    ]
    missing = sorted({*configs} - {one.place.config_id for one in chosen})
    if not chosen or missing:
        of = f" of config {', '.join(missing)}" if missing else ""
        at = f" at {commit[:12]}" if commit else ""
        here = sorted({f"{one.place.config_id} at {one.place.hash[:12]}" for one in found})
        make = f"hfpeer dataset prepare -r {repo.full_name}"
        raise NotFound(
            f"No prepared set{of} of {repo}{at} is in {settings.datasets_cache}.",
            hint=f"There are: {', '.join(here[:20])}." if here else f"Make one: `{make}`.",
            repo=str(repo),
        )
    return chosen
