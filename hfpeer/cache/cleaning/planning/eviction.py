"""Decides which revisions a cache that outgrows its budget gives up: the least recently used first. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from hfpeer.cache.cleaning.facts import Leftover, RevisionKey
from hfpeer.cache.cleaning.planning.plan import Facts, Plan, key_of, repo_of, revision_id, steps_of

SLACK_PART = 20
"""Once a bound is passed, a twentieth of it more is freed, so that not each new file costs a cleaning."""


@dataclass(frozen=True)
class Budget:
    """The bounds of a cache: its own size, and the space that stays free on its volume; None for no bound.
    `takes_last_copies`: they may cost the last copy on the LAN of what a hub still gives."""

    max_bytes: int | None = None
    min_free_bytes: int | None = None
    takes_last_copies: bool = False

    def excess_bytes(self, used_bytes: int, free_bytes: int | None, coming_bytes: int = 0) -> int:
        """How much has to go, so that the cache keeps its bounds with `coming_bytes` more; 0 if nothing."""
        over = [0]
        if self.max_bytes is not None:
            over.append(used_bytes + coming_bytes - self.max_bytes)
        if self.min_free_bytes is not None and free_bytes is not None:
            over.append(self.min_free_bytes + coming_bytes - free_bytes)
        return max(over)

    def slack_bytes(self) -> int:
        """How much more than the excess is freed, if it can be."""
        return (self.max_bytes or self.min_free_bytes or 0) // SLACK_PART


def used_bytes(facts: Facts) -> int:
    """The size of a cache: its blobs, and what else takes space in it."""
    return sum(blob.size_bytes for blob in facts.blobs) + disk_bytes(facts.leftovers)


def disk_bytes(leftovers: Iterable[Leftover]) -> int:
    """The space that leftovers take."""
    return sum(one.disk_bytes for one in leftovers)


def least_recently_used(facts: Facts, spared: Collection[str] = ()) -> list[RevisionKey]:
    """The revisions in the order in which they go. Those of the repos `spared`, by their names, do not."""
    oldest_first = sorted(facts.revisions, key=lambda one: (one.used_at, one.revision.repo, one.revision.commit))
    return [key_of(one) for one in oldest_first if str(repo_of(one)) not in spared]


def evicted(facts: Facts, keys: Sequence[RevisionKey], leftovers: Sequence[Leftover] = ()) -> Plan:
    """The plan that removes leftovers and revisions, with all that is left of a repo of which none stays."""
    left = {key_of(one) for one in facts.revisions} - set(keys)
    stays = {folder for folder, _ in left}
    return Plan(
        tuple(keys),
        leftovers=tuple(leftovers),
        whole_repos=frozenset(folder for folder, _ in keys if folder not in stays),
        why={revision_id(key): "least recently used" for key in keys},
    )


def freed_bytes(plan: Plan, facts: Facts) -> int:
    """The bytes that a plan frees."""
    return sum(step.freed_bytes for step in steps_of(plan, facts))


def enough(keys: Sequence[RevisionKey], facts: Facts, wanted_bytes: int) -> int:
    """How many of the first keys free `wanted_bytes` together; all, if they do not."""
    if wanted_bytes <= 0:
        return 0
    freed = 0
    for count, step in enumerate(steps_of(evicted(facts, keys), facts), 1):
        freed += step.freed_bytes
        if freed >= wanted_bytes:
            return count
    return len(keys)


def first_steps(plan: Plan, facts: Facts, wanted_bytes: int) -> Plan:
    """The leftovers of a plan and its first revisions, which free `wanted_bytes` together; or all of it."""
    of_revisions = wanted_bytes - disk_bytes(plan.leftovers)
    first = plan.revisions[: enough(plan.revisions, facts, of_revisions)]
    return replace(evicted(facts, first, plan.leftovers), kept=plan.kept)
