"""The result of a push, as plain frozen values that become JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hfpeer.archive.results import ExportedSet


@dataclass(frozen=True)
class PushedRevision:
    """A revision at the far end: `files` of the `listed_files` of the commit. `kept_refs` are refs there that name
    another commit, as `name commit`."""

    repo: str
    commit: str
    files: int
    listed_files: int
    size_bytes: int
    is_proved: bool
    refs: tuple[str, ...]
    kept_refs: tuple[str, ...]
    visibility: str


@dataclass(frozen=True)
class PushReport:
    """The result of a push to `cache` of `host`.

    `way` is the program that took it there: `hfpeer`, `python` or `tar`. `sent_bytes` are bytes of blobs, with a dry
    run those that would be sent; `present_bytes` were there before. `is_verified`: every sent byte was hashed there.
    `is_present_verified`: also those that were there. `sets` are prepared sets, which no commit proves.
    """

    host: str
    cache: str
    way: str
    revisions: tuple[PushedRevision, ...]
    sent_blobs: int
    sent_bytes: int
    present_bytes: int
    is_verified: bool
    is_present_verified: bool
    is_dry_run: bool
    seconds: float
    notes: tuple[str, ...] = ()
    sets: tuple[ExportedSet, ...] = ()
