"""Decides what of a plan must stay: pins, the last copies on the LAN, and what is being read or added. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from hfpeer.cache.cleaning.facts import Kept, RevisionKey, StoredRevision
from hfpeer.cache.cleaning.planning.plan import (
    Facts,
    Plan,
    can_be_fetched,
    file_id,
    hub_word,
    kept_leftover,
    key_of,
    name_of_file,
    name_of_revision,
    only,
    repo_of,
    revision_id,
)

ONLY_COPY = "only_copy"
"""The reason why an automatic cleaning keeps what can be had nowhere else."""


@dataclass(frozen=True)
class Copies:
    """The blobs that peers have, by their digests. `peers` are known, `answered` of them have answered; without any
    known, no blob is protected. `held` are whole at a peer that does not remove them now."""

    peers: int = 0
    answered: int = 0
    held: Collection[str] = ()


Ids = frozenset[str]
"""The ids of steps. Most blobs of a revision have the same ones, so those share one set."""
NO_IDS: Ids = frozenset()


def lost(plan: Plan, facts: Facts) -> dict[str, Ids]:
    """By digest of each blob that the plan takes from this node: the ids of the steps that need it gone."""
    gone = {key: revision_id(key) for key in plan.revisions}
    of_files = {(one.key, one.digest): file_id(one) for one in plan.files}
    needed_by: dict[str, Ids] = {}
    stays = set(facts.elsewhere)
    shared: dict[Ids, Ids] = {}
    for blob in facts.blobs:
        if not blob.digest or not blob.users:
            continue
        found = {gone.get(user) or of_files.get((user, blob.digest)) for user in blob.users}
        if None in found:
            stays.add(blob.digest)
        ids = needed_by.get(blob.digest, NO_IDS).union(filter(None, found))
        if ids:
            needed_by[blob.digest] = shared.setdefault(ids, ids)
    return {digest: ids for digest, ids in needed_by.items() if digest not in stays}


def lost_to_peers(plan: Plan, facts: Facts) -> dict[str, Ids]:
    """Those of them that peers know to be here, or that this node made: the ids of such revisions, and of their
    files."""
    known = {revision_id(key_of(one)) for one in facts.revisions if _is_known_to_peers(one)}
    gone = lost(plan, facts)
    told = {ids: frozenset(id for id in ids if id.partition("/")[0] in known) for ids in set(gone.values())}
    return {digest: told[ids] for digest, ids in gone.items() if told[ids]}


@dataclass(frozen=True)
class Care:
    """How much must stay. `is_forced`: the user said that all may go. `is_automatic`: no user has seen the plan, so
    nothing goes that no hub and no peer gives again. `takes_last_copies`: a revision that a hub still gives may go,
    even if no peer has it."""

    is_forced: bool = False
    is_automatic: bool = False
    takes_last_copies: bool = False


CAREFUL = Care()


def protected(plan: Plan, facts: Facts, copies: Copies, care: Care = CAREFUL) -> Plan:
    """The plan without what must stay. With `is_forced` it is the plan itself."""
    if care.is_forced:
        return plan
    by_id = {revision_id(key_of(one)): one for one in facts.revisions}
    reasons: dict[str, tuple[str, str]] = {}
    for digest, ids in lost_to_peers(plan, facts).items():
        for id in ids:
            one = by_id[id.partition("/")[0]]
            reason = None if care.takes_last_copies and can_be_fetched(one) else _why_last(digest, one, copies)
            if reason is not None:
                reasons[id] = reason
    for digest, ids in lost(plan, facts).items():
        if digest in facts.in_use:
            reasons.update(dict.fromkeys(ids, ("in_use", "it is being read now, by a peer or a tool")))
        if care.is_automatic and digest not in copies.held:
            only = {id for id in ids if not can_be_fetched(by_id[id.partition("/")[0]])}
            reasons.update({id: (ONLY_COPY, f"no peer has it, and {hub_word(by_id[id])}") for id in only})
    pinned = ("pinned", "it is pinned")
    reasons.update({revision_id(key): pinned for key in plan.revisions if key in facts.pinned})
    reasons.update({file_id(one): pinned for one in plan.files if one.key in facts.pinned})
    busy = ("in_use", "an add of this repo is under way")
    is_busy = {id: str(repo_of(one)) in facts.busy for id, one in by_id.items()}
    reasons.update({id: busy for key in plan.revisions if is_busy[id := revision_id(key)]})
    reasons.update({file_id(one): busy for one in plan.files if is_busy[revision_id(one.key)]})
    reasons.update({one.path: busy for one in plan.leftovers if one.repo in facts.busy})
    return _without(plan, by_id, reasons)


def _is_known_to_peers(one: StoredRevision) -> bool:
    return one.revision.is_shared or one.revision.is_published_here


def _why_last(digest: str, one: StoredRevision, copies: Copies) -> tuple[str, str] | None:
    """Why a blob must stay, as reason and sentence; None if it may go.

    While no peer answers, a revision that a hub has listed may go: its bytes are not lost.
    """
    if not copies.peers or digest in copies.held:
        return None
    if copies.answered:
        silent = copies.peers - copies.answered
        asked = f"{copies.answered} answered" + (f", {silent} did not" if silent else "")
        return "last_copy", f"the last copy on the LAN, no peer has it ({asked}); {hub_word(one)}"
    if can_be_fetched(one):
        return None
    return "unknown_copies", f"whether a peer has it is unknown, because no peer answers; {hub_word(one)}"


def _without(plan: Plan, by_id: Mapping[str, StoredRevision], reasons: Mapping[str, tuple[str, str]]) -> Plan:
    kept: list[Kept] = []
    kept_repos: set[str] = set()
    going: set[str] = {one.path for one in plan.leftovers if one.path not in reasons}
    kept += [kept_leftover(one, *reasons[one.path]) for one in plan.leftovers if one.path in reasons]

    def judge(id: str, kind: str, name: str, size_bytes: int, key: RevisionKey) -> None:
        if id in reasons:
            kept.append(Kept(id, kind, name, size_bytes, *reasons[id]))
            kept_repos.add(key[0])
        else:
            going.add(id)

    for key in plan.revisions:
        one = by_id[revision_id(key)]
        judge(revision_id(key), "revision", name_of_revision(one), one.revision.size_bytes, key)
    for file in plan.files:
        judge(file_id(file), "file", name_of_file(file), file.size_bytes, file.key)
    rest = only(plan, going)
    return replace(rest, kept=(*plan.kept, *kept), whole_repos=rest.whole_repos - kept_repos)
