"""The words for the state of a revision in the cache, and for what peers may have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfpeer_cli.output import natural

if TYPE_CHECKING:
    from hfpeer.control.operations import CachedRevision

STATES = {True: "complete", False: "partial", None: "unlisted"}
"""By whether all files that the list names are here; without a list that is not known."""


def repo_order(cached: CachedRevision) -> tuple[Any, ...]:
    """A key that sorts by name: models first, and m2 before m10."""
    return cached.type != "model", cached.type, natural(cached.repo)


def sharing(cached: CachedRevision) -> str:
    """Whether peers may have it, and why: because of its visibility, or by an override of the owner."""
    if cached.visibility in ("public", "given", "published"):
        why = {"given": "yes, given openly", "published": "yes, published"}
        return why.get(cached.visibility, "yes") if cached.is_shared else "no (forced)"
    return "yes (forced)" if cached.is_shared else f"no, {cached.visibility}"
