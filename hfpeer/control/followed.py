"""A repo whose new commits this node fetches by itself, as callers see it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.names import MAIN, RepoId, Revision

USUAL_EVERY_SECONDS = 3600.0
SHORTEST_EVERY_SECONDS, LONGEST_EVERY_SECONDS = 300.0, 30 * 86400.0


@dataclass(frozen=True)
class FollowedRepo:
    """`revision` is asked for every `every_seconds`. If more than `limit_bytes` of a new commit are missing, it is not
    fetched; None is no limit. `include` and `exclude` are as in `AddRequest`.

    `commit` is the last one whose add was begun, `seen_commit` what the revision meant last; both are empty before.
    Times are seconds since the epoch. `problem` is a sentence on why the last look did not end with an add.
    """

    repo: RepoId
    revision: Revision = MAIN
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    every_seconds: float = USUAL_EVERY_SECONDS
    limit_bytes: int | None = None
    commit: str = ""
    seen_commit: str = ""
    checked_at: float = 0.0
    next_at: float = 0.0
    problem: str = ""
