"""Decides what goes, from what lies in a cache. Pure.

A plan is a set of revisions, files and leftovers. `chosen`, `pruned` and `garbage` make one; `protection` takes out
of it what must stay. Nothing is removed here: a budget for the cache can choose revisions in an order of its own, and
use the rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hfpeer.cache.cleaning.facts import (
    DANGLING_REF,
    EMPTY,
    LEFTOVERS,
    LOCK,
    MANIFEST,
    ORPHAN,
    PACK,
    PARTIAL,
    SHARED_BLOB,
    STALE_LIST,
    TEMPORARY,
    UNFINISHED,
    Kept,
    Leftover,
    PruneRules,
    RevisionKey,
    Step,
    StoredBlob,
    StoredRevision,
)
from hfpeer.names import RepoId

HOUR_SECONDS, DAY_SECONDS = 3600.0, 86400.0
YOUNG_SECONDS: dict[str, float] = {
    PARTIAL: HOUR_SECONDS,
    UNFINISHED: HOUR_SECONDS,
    ORPHAN: HOUR_SECONDS,
    SHARED_BLOB: HOUR_SECONDS,
    TEMPORARY: HOUR_SECONDS,
    STALE_LIST: DAY_SECONDS,
    DANGLING_REF: DAY_SECONDS,
    EMPTY: DAY_SECONDS,
    LOCK: DAY_SECONDS,
    PACK: 30 * DAY_SECONDS,
    MANIFEST: 30 * DAY_SECONDS,
}
"""By kind of leftover: seconds after its last change in which it stays, because a process may still use it."""


@dataclass(frozen=True)
class Facts:
    """The facts that a plan is made from. `in_use` are the digests of blobs that are being read, `busy` the names of
    repos with an add under way, `elsewhere` the digests of blobs in other cache folders of this node, `pinned` the
    revisions that the owner has pinned. `now` is in seconds since the epoch."""

    revisions: Sequence[StoredRevision]
    blobs: Sequence[StoredBlob]
    leftovers: Sequence[Leftover]
    now: float
    in_use: Collection[str] = ()
    busy: Collection[str] = ()
    elsewhere: Collection[str] = ()
    pinned: Collection[RevisionKey] = ()


@dataclass(frozen=True)
class FileStep:
    """A file of a revision that goes by itself."""

    key: RevisionKey
    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Plan:
    """The things that go. `whole_repos` are the folders of repos of which everything goes; `remnants` are revisions
    of which an interrupted removal has left only blobs and lists."""

    revisions: tuple[RevisionKey, ...] = ()
    files: tuple[FileStep, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    kept: tuple[Kept, ...] = ()
    whole_repos: frozenset[str] = frozenset()
    remnants: frozenset[RevisionKey] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)
    """By id of a step: why it goes."""


def key_of(one: StoredRevision) -> RevisionKey:
    """The folder of its repo, and its commit."""
    return repo_of(one).folder, one.revision.commit


def repo_of(one: StoredRevision) -> RepoId:
    return RepoId.parse(one.revision.repo, one.revision.type)


def revision_id(key: RevisionKey) -> str:
    """`models--ns--name@commit`."""
    return "@".join(key)


def file_id(one: FileStep) -> str:
    """`models--ns--name@commit/path`."""
    return f"{revision_id(one.key)}/{one.path}"


# What goes


def pruned(facts: Facts, rules: PruneRules) -> Plan:
    """Old revisions, abandoned downloads, and garbage."""
    by_repo: dict[str, list[StoredRevision]] = defaultdict(list)
    for one in facts.revisions:
        by_repo[key_of(one)[0]].append(one)
    gone: list[StoredRevision] = []
    why: dict[str, str] = {}
    for found in by_repo.values():
        newest_first = sorted(found, key=lambda one: (-one.used_at, one.revision.commit))
        for one in newest_first[rules.keep :]:
            unused_seconds = facts.now - one.used_at
            if unused_seconds >= rules.older_than_seconds and (rules.takes_refs or not one.revision.refs):
                gone.append(one)
                why[revision_id(key_of(one))] = "not used" if one.revision.refs else "no ref"
    collected = garbage(facts)
    known = {one.path for one in collected.leftovers}
    old = [
        one
        for one in facts.leftovers
        if one.path not in known
        and (one.kind in (PARTIAL, UNFINISHED) or (one.kind == ORPHAN and one.wanted_by))
        and facts.now - one.changed_at >= max(rules.older_than_seconds, _young_seconds(one))
    ]
    stay = [one for one in collected.kept if one.id not in {leftover.path for leftover in old}]
    going, staying = _split(old)
    return Plan(
        tuple(map(key_of, sorted(gone, key=lambda one: one.used_at))),
        leftovers=(*going, *collected.leftovers),
        kept=(*staying, *stay),
        why={**collected.why, **why, **{one.path: "not touched" for one in going}},
    )


def _young_seconds(one: Leftover) -> float:
    """Seconds in which a download stays, whatever the rules say. Of a partial it is known whether it is in use."""
    return 0.0 if one.kind == PARTIAL else YOUNG_SECONDS[one.kind]


def garbage(facts: Facts) -> Plan:
    """What belongs to no revision, has no use, and is not young."""
    here = {blob.digest for blob in facts.blobs}
    found = [
        one
        for one in facts.leftovers
        if one.kind in YOUNG_SECONDS
        and not (one.kind == PARTIAL and one.digest not in here)
        and one.kind != UNFINISHED
        and not (one.kind == ORPHAN and one.wanted_by)
    ]
    old = [one for one in found if facts.now - one.changed_at >= YOUNG_SECONDS[one.kind]]
    going, staying = _split(old)
    young = [
        kept_leftover(one, "young", "it changed a moment ago: a process may still use it")
        for one in found
        if one not in old and one.disk_bytes
    ]
    return Plan(leftovers=tuple(going), kept=(*staying, *young))


def chosen(
    facts: Facts,
    revisions: Iterable[RevisionKey],
    files: Iterable[FileStep] = (),
    leftovers: Iterable[Leftover] = (),
    whole_repos: Iterable[str] = (),
    remnants: Iterable[RevisionKey] = (),
) -> Plan:
    """What a user names. Only what is in use, or belongs to another user, stays of it."""
    going, staying = _split(leftovers)
    return Plan(
        tuple(dict.fromkeys(revisions)),
        tuple(dict.fromkeys(files)),
        tuple(going),
        tuple(staying),
        frozenset(whole_repos),
        frozenset(remnants) if not staying else frozenset(),
    )


def _split(found: Iterable[Leftover]) -> tuple[list[Leftover], list[Kept]]:
    going: list[Leftover] = []
    staying: list[Kept] = []
    for one in found:
        if one.is_in_use:
            staying.append(kept_leftover(one, "locked", "a process holds its lock"))
        elif one.owner:
            staying.append(kept_leftover(one, "foreign", f"it belongs to user {one.owner}"))
        else:
            going.append(one)
    return going, staying


def kept_leftover(one: Leftover, reason: str, sentence: str) -> Kept:
    return Kept(one.path, one.kind, name_of(one), one.disk_bytes, reason, sentence)


def only(plan: Plan, ids: Collection[str]) -> Plan:
    """The part of a plan with these ids: those that the user has seen."""
    revisions = tuple(key for key in plan.revisions if revision_id(key) in ids)
    cut = {folder for folder, _ in {*plan.revisions} - {*revisions}}
    are_all_seen = all(one.path in ids for one in plan.leftovers)
    return replace(
        plan,
        revisions=revisions,
        whole_repos=plan.whole_repos - cut,
        remnants=plan.remnants if are_all_seen else frozenset(),
        files=tuple(one for one in plan.files if file_id(one) in ids),
        leftovers=tuple(one for one in plan.leftovers if one.path in ids),
    )


def can_be_fetched(one: StoredRevision) -> bool:
    """Whether a hub said last that it gives the revision, to all or to users with access."""
    revision = one.revision
    is_listed = bool(revision.said_by) and revision.visibility in ("public", "gated", "private")
    return is_listed and not revision.published_by


def hub_word(one: StoredRevision) -> str:
    """Whether a revision can be fetched again, by the last answer of a hub."""
    revision = one.revision
    if revision.published_by:
        return "published here; no hub has it" if revision.is_published_here else "published on the LAN; no hub has it"
    if revision.said_by and revision.visibility == "public":
        return f"{revision.said_by} listed it to everybody"
    if revision.said_by and revision.visibility in ("gated", "private"):
        return f"{revision.said_by} gives it only to users with access ({revision.visibility})"
    return "whether a hub has it is unknown"


# Steps and names for people


def steps_of(plan: Plan, facts: Facts) -> tuple[Step, ...]:
    """The steps of a plan, each with the bytes that it frees after those before it."""
    # By the revisions that use them: the bytes that go with the last of these. Most blobs have the same ones.
    together: Counter[frozenset[RevisionKey]] = Counter()
    for blob in facts.blobs:
        together[blob.users] += 0 if blob.has_other_names else blob.size_bytes
    left = {users: set(users) for users in together}
    by_key = {key_of(one): one for one in facts.revisions}
    steps = []
    for key in plan.revisions:
        freed_bytes = 0
        for users, rest in left.items():
            if key in rest:
                rest.remove(key)
                freed_bytes += 0 if rest else together[users]
        one = by_key[key]
        id = revision_id(key)
        notes = (hub_word(one), *(() if one.revision.is_proved else ("its list of files is not proved",)))
        steps.append(
            Step(id, "revision", name_of_revision(one), freed_bytes, plan.why.get(id, ""), notes, one.revision.files)
        )
    named: dict[str, list[StoredBlob]] = {file.digest: [] for file in plan.files}
    for blob in facts.blobs if named else ():
        if blob.digest in named:
            named[blob.digest].append(blob)
    for file in plan.files:
        mine = (blob for blob in named[file.digest] if file.key in blob.users)
        is_freed = all(blob.users == {file.key} and not blob.has_other_names for blob in mine)
        steps.append(Step(file_id(file), "file", name_of_file(file), file.size_bytes if is_freed else 0, files=1))
    steps += [
        Step(one.path, one.kind, name_of(one), one.disk_bytes, plan.why.get(one.path, LEFTOVERS[one.kind]))
        for one in plan.leftovers
    ]
    return tuple(steps)


def name_of_revision(one: StoredRevision) -> str:
    """`ns/name at 123456789abc (main)`."""
    refs = ", ".join(one.revision.refs) or "no ref"
    return f"{repo_of(one)} at {one.revision.commit[:12]} ({refs})"


def name_of_file(one: FileStep) -> str:
    """`config.json of ns/name at 123456789abc`."""
    folder, commit = one.key
    return f"{one.path} of {RepoId.from_folder(folder)} at {commit[:12]}"


def name_of(one: Leftover) -> str:
    """A leftover by its digest, or by the end of its path."""
    return one.digest.partition(":")[2][:12] or "/".join(one.path.rsplit("/", 3)[-2:])
