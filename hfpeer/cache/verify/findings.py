"""The findings of a verification as plain frozen values that cross the control socket as JSON, and their kinds.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

PROVED, LISTED, NAMED = "proved", "listed", "named"
"""How the files of a revision are known: by a manifest that folds to the commit; by a list that a hub gave; by the
names of the blobs alone, which prove the bytes but not that a name in the snapshot belongs to them."""
WRONG, BROKEN, NOTED = "wrong", "broken", "noted"
"""How bad a finding is: bytes are wrong; a tool may not find right bytes; nothing to mend, but good to know."""
EXIT_WRONG, EXIT_BROKEN = 7, 8

KINDS: dict[str, tuple[str, str]] = {
    "wrong_bytes": (WRONG, "its bytes do not have its digest"),
    "wrong_size": (WRONG, "it has another size than the commit says"),
    "lfs_pointer": (WRONG, "an LFS pointer lies there instead of the file"),
    "no_link": (BROKEN, "the bytes are here, but the name in the snapshot is missing"),
    "no_place": (BROKEN, "the bytes are here, but this volume has no links, so no tool finds them"),
    "no_bytes": (BROKEN, "the name in the snapshot leads to a blob that is missing"),
    "shared_store": (BROKEN, "the bytes are in the shared store of the cache it came from"),
    "empty_revision": (BROKEN, "the snapshot has no files, and no list says which it should have"),
    "wrong_link": (BROKEN, "the name in the snapshot leads to another blob than the commit says"),
    "absolute_link": (BROKEN, "the link is absolute: it breaks when the cache moves"),
    "outside_link": (BROKEN, "the link leads out of the repo's folder"),
    "copy": (BROKEN, "a copy lies where a link should be: the same bytes are here twice"),
    "unreadable": (BROKEN, "this user cannot read it"),
    "closed": (NOTED, "it is another user's, who lets this user not read it"),
    "ref_text": (BROKEN, "the ref has more than a commit in it, so the Hub client does not find the repo"),
    "ref_malformed": (BROKEN, "the ref has no commit in it"),
    "ref_dangling": (BROKEN, "the ref leads to a commit that is not here, so `hf cache` hides the repo"),
    "ref_missing": (BROKEN, "this node knows the ref, but its file is missing"),
    "bad_listing": (BROKEN, "the Hub client's list of the commit cannot be used"),
    "bad_proof": (BROKEN, "the file that should prove the commit does not"),
    "false_absence": (BROKEN, "a note says that the commit has no such file, but it has"),
    "not_here": (NOTED, "the commit has this file, the cache does not"),
    "no_ref": (NOTED, "no ref leads to this revision, so `hf cache prune` takes it"),
    "orphan": (NOTED, "no snapshot needs this blob"),
    "unfinished": (NOTED, "a download that did not end"),
    "foreign": (NOTED, "neither the commit nor a Hub client knows it; it is left alone"),
    "changing": (NOTED, "it changed while it was hashed"),
    "second_name": (NOTED, "it has a second name outside of the cache and can be written through it"),
    "not_group_writable": (NOTED, "the group of the cache cannot write there, or read its lists"),
}
"""By kind of finding: how bad it is, and what it means, as the end of a sentence."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, and its repair.

    `path` is that of the file in the repo; without a commit, that below the repo's folder, or without a repo below the
    folder `cache`. `digest` and `size_bytes` are of the bytes that should be there, else of those that are. `repair` is
    a command, or a sentence where no command does it.
    """

    repo: str
    commit: str
    path: str
    kind: str
    digest: str
    size_bytes: int
    grade: str
    repair: str
    detail: str = ""
    cache: str = ""

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]

    @property
    def meaning(self) -> str:
        """The finding as the end of a sentence."""
        return self.detail or KINDS[self.kind][1]

    def to_json(self) -> dict[str, Any]:
        return {
            "cache": self.cache,
            "repo": self.repo,
            "commit": self.commit,
            "path": self.path,
            "kind": self.kind,
            "digest": self.digest,
            "size": self.size_bytes,
            "grade": self.grade,
            "repair": self.repair,
            "severity": self.severity,
            "meaning": self.meaning,
        }


@dataclass(frozen=True)
class VerifiedRevision:
    """A revision in a cache folder, and its grade. `listed_files` is None if no list is known; `files` and `size_bytes`
    are of those here."""

    repo: str
    type: str
    commit: str
    refs: tuple[str, ...]
    grade: str
    files: int
    listed_files: int | None
    size_bytes: int
    cache: str = ""


@dataclass(frozen=True)
class CheckedFolder:
    """A cache folder, with how many findings it has of each severity. `away` is why it was passed over."""

    cache: str
    wrong: int = 0
    broken: int = 0
    noted: int = 0
    away: str = ""

    @property
    def exit_code(self) -> int:
        return EXIT_WRONG if self.wrong else EXIT_BROKEN if self.broken else 0


@dataclass(frozen=True)
class VerifyReport:
    """The result of a verification. `hashed_*` count the blobs that were hashed now, `known_*` those whose earlier
    verdict holds, because they have not changed since; both are 0 if it was quick. `folders` are all that it looked at,
    and those that it passed over, the first before all."""

    cache: str
    is_quick: bool
    revisions: tuple[VerifiedRevision, ...]
    findings: tuple[Finding, ...]
    hashed_files: int = 0
    hashed_bytes: int = 0
    known_files: int = 0
    known_bytes: int = 0
    seconds: float = 0.0
    folders: tuple[CheckedFolder, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all is right, 7 for wrong bytes, 8 if only the structure is broken."""
        severities = {finding.severity for finding in self.findings}
        return EXIT_WRONG if WRONG in severities else EXIT_BROKEN if BROKEN in severities else 0


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by repo and revision, the worst first."""
    rank = {WRONG: 0, BROKEN: 1, NOTED: 2}
    return tuple(sorted(findings, key=lambda one: (one.repo, one.commit, rank[one.severity], one.kind, one.path)))


def folder_of(cache: str, findings: Iterable[Finding]) -> CheckedFolder:
    """A cache folder with the numbers of its findings."""
    found = Counter(finding.severity for finding in findings)
    return CheckedFolder(cache, found[WRONG], found[BROKEN], found[NOTED])


def repair_command(cache: str, repo: str = "") -> str:
    """The command that repairs a cache folder into which an add does not write."""
    return f"hfpeer verify --repair --cache {quote(cache)} {repo}".rstrip()


def elsewhere(report: VerifyReport) -> VerifyReport:
    """The report on a cache folder into which an add does not write: a repair that names an add names its folder
    instead."""
    findings = (
        replace(one, repair=repair_command(report.cache, one.repo)) if one.repair.startswith("hfpeer ") else one
        for one in report.findings
    )
    return replace(report, findings=tuple(findings))


def together(first: VerifyReport, others: Sequence[VerifyReport]) -> VerifyReport:
    """The reports on several cache folders as one."""
    all_of = (first, *others)
    return replace(
        first,
        revisions=tuple(revision for report in all_of for revision in report.revisions),
        findings=tuple(finding for report in all_of for finding in report.findings),
        hashed_files=sum(report.hashed_files for report in all_of),
        hashed_bytes=sum(report.hashed_bytes for report in all_of),
        known_files=sum(report.known_files for report in all_of),
        known_bytes=sum(report.known_bytes for report in all_of),
        seconds=sum(report.seconds for report in all_of),
        folders=tuple(folder for report in all_of for folder in report.folders),
    )
