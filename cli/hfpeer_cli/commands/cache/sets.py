"""The prepared sets in `hfpeer cache`. They lie beside the Hub cache: it shows them, and names the command that removes
them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hfpeer.cache.cleaning.planning.requests import Target
from hfpeer.names import RepoType
from hfpeer_cli.commands.datasets.prepared import leftover_note
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.screen.tables import name, number, words

if TYPE_CHECKING:
    from hfpeer.cache.cleaning.facts import CleanReport
    from hfpeer.names import RepoId
    from hfpeer.prepared.listing import Leftover
    from hfpeer.prepared.results import ListedSet

COLUMNS = (name("PREPARED SET", least=24), number("SIZE"), words("CONTENT"), words(""))


def prepared_in(invocation: Invocation, repo: RepoId | None = None) -> tuple[list[ListedSet], list[Leftover]]:
    """The prepared sets, and what killed builds left, of all datasets or of one."""
    if not invocation.settings.datasets_cache.is_dir():
        return [], []
    from hfpeer.node.operations.prepared.overview import prepared_sets

    return prepared_sets(invocation.settings, repo)


def set_name(one: ListedSet) -> str:
    """`datasets/ORG/NAME CONFIG at COMMIT`."""
    return f"datasets/{one.repo} {one.config_id}" + (f" at {one.commit[:12]}" if one.commit else "")


def set_rows(sets: Sequence[ListedSet]) -> Iterator[Sequence[str]]:
    for one in sets:
        is_broken = any(not problem.is_harmless for problem in one.problems)
        size = human_size(one.size_bytes + one.other_bytes)
        yield set_name(one), size, one.level, "does not load" if is_broken else ""


def set_notes(invocation: Invocation, sets: Sequence[ListedSet], leftovers: Sequence[Leftover]) -> Iterator[str]:
    if sets:
        size = human_size(sum(one.size_bytes + one.other_bytes for one in sets))
        folder = invocation.settings.datasets_cache
        yield f"{counted(len(sets), 'prepared set')} in {folder}, {size}: `hfpeer dataset ls --prepared` says more."
    yield from leftover_note(leftovers)


def sets_beside(invocation: Invocation, targets: Sequence[Target], report: CleanReport | None) -> list[ListedSet]:
    """The prepared sets of what a removal names. Of a revision, those of the commits that went."""
    gone = " ".join(step.id for step in report.steps) if report is not None else ""
    found = {
        one.folder: one
        for target in targets
        for repo in target.repos
        if repo.type is RepoType.DATASET and not target.files
        for one in prepared_in(invocation, repo)[0]
        if target.revision is None or (one.commit and one.commit in gone)
    }
    return list(found.values())


def stay_notes(sets: Sequence[ListedSet]) -> Iterator[str]:
    """That prepared sets stay, with the commands that remove them."""
    for repo in dict.fromkeys(one.repo for one in sets):
        alike = [one for one in sets if one.repo == repo]
        size = human_size(sum(one.size_bytes + one.other_bytes for one in alike))
        stay = "stays" if len(alike) == 1 else "stay"
        yield (
            f"{counted(len(alike), 'prepared set')} of datasets/{repo}, {size}, {stay}: "
            f"`hfpeer dataset rm --prepared -r {repo}` removes {'it' if len(alike) == 1 else 'them'}."
        )
