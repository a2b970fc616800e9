"""The words for what belongs to no revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfpeer_cli.output import human_size

if TYPE_CHECKING:
    from hfpeer.cache.cleaning.facts import Leftover

NOUNS = {
    "partial": ("half-fetched blob", "half-fetched blobs"),
    "unfinished": ("unfinished download", "unfinished downloads"),
    "orphan": ("blob that no revision uses", "blobs that no revision uses"),
    "lost": ("blob of a revision without its names", "blobs of revisions without their names"),
    "shared_blob": ("unused entry of the shared store", "unused entries of the shared store"),
    "temporary": ("temporary file", "temporary files"),
    "stale_list": ("list of a commit that is not here", "lists of commits that are not here"),
    "dangling_ref": ("ref to a commit that is not here", "refs to commits that are not here"),
    "empty": ("empty folder", "empty folders"),
    "pack": ("recorded clone", "recorded clones"),
    "manifest": ("list of a commit that is not here", "lists of commits that are not here"),
    "lock": ("lock of a blob that is not here", "locks of blobs that are not here"),
}
"""By kind of leftover: one of it, and several."""


def several(kind: str, number: int) -> str:
    """`3 empty folders`."""
    one, many = NOUNS[kind]
    return f"{number:,} {one if number == 1 else many}"


def describe(one: Leftover) -> str:
    """A leftover in a few words: what it is, of what, whose."""
    name = one.digest.partition(":")[2][:12] or one.path.rpartition("/")[2]
    words = f"{NOUNS[one.kind][0]} {name}"
    if one.repo:
        words += f" of {one.repo}"
    if one.file:
        words += f", {one.file}"
    if one.kind == "partial":
        words += f": {human_size(one.size_bytes)} of {human_size(one.whole_bytes)}"
    if one.owner:
        words += f" (of user {one.owner})"
    if one.is_in_use:
        words += " (in use)"
    return words
