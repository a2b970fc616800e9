"""Decides what of a plan must stay: the last copies on the LAN, and what is being read or added. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from hfpeer.cache.cleaning.facts import Kept, RevisionKey, StoredRevision
from hfpeer.cache.cleaning.plan import (
    Facts,
    Plan,
    file_id,
    hub_word,
    kept_leftover,
    key_of,
    name_of_file,
    name_of_revision,
    only,
    revision_id,
)
from hfpeer.names import RepoId


@dataclass(frozen=True)
class Copies:
    """What peers have of blobs, by their digests. `peers` are known, `answered` of them have answered; without any
    known, no blob is protected. `held` are whole at a peer that does not remove them now."""

    peers: int = 0
    answered: int = 0
    held: Collection[str] = ()


def lost(plan: Plan, facts: Facts) -> dict[str, set[str]]:
    """By digest of each blob that the plan takes from this node: the ids of the steps that need it gone."""
    gone = set(plan.revisions)
    of_files = {(one.key, one.digest): one for one in plan.files}
    needed_by: dict[str, set[str]] = defaultdict(set)
    stays = set(facts.elsewhere)
    for blob in facts.blobs:
        for user in blob.users if blob.digest else ():
            if user in gone:
                needed_by[blob.digest].add(revision_id(user))
            elif (user, blob.digest) in of_files:
                needed_by[blob.digest].add(file_id(of_files[user, blob.digest]))
            else:
                stays.add(blob.digest)
    return {digest: ids for digest, ids in needed_by.items() if digest not in stays}


def lost_to_peers(plan: Plan, facts: Facts) -> dict[str, set[str]]:
    """Those of them that peers know to be here, or that this node made: the ids of such revisions, and of their
    files."""
    known = {revision_id(key_of(one)) for one in facts.revisions if _is_known_to_peers(one)}
    found = {digest: {id for id in ids if id.partition("/")[0] in known} for digest, ids in lost(plan, facts).items()}
    return {digest: ids for digest, ids in found.items() if ids}


def protected(plan: Plan, facts: Facts, copies: Copies, *, is_forced: bool) -> Plan:
    """The plan without what must stay. With `is_forced` it is the plan itself."""
    if is_forced:
        return plan
    by_id = {revision_id(key_of(one)): one for one in facts.revisions}
    reasons: dict[str, tuple[str, str]] = {}
    for digest, ids in lost_to_peers(plan, facts).items():
        for id in ids:
            reason = _why_last(digest, by_id[id.partition("/")[0]], copies)
            if reason is not None:
                reasons[id] = reason
    for digest, ids in lost(plan, facts).items():
        if digest in facts.in_use:
            reasons.update(dict.fromkeys(ids, ("in_use", "it is being read now, by a peer or a tool")))
    busy = ("in_use", "an add of this repo is under way")
    is_busy = {id: str(RepoId.parse(one.revision.repo, one.revision.type)) in facts.busy for id, one in by_id.items()}
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
    if one.revision.said_by and one.revision.visibility in ("public", "gated", "private"):
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
