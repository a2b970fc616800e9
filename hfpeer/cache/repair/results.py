"""The report of a repair as plain frozen values that cross the control socket as JSON.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hfpeer.cache.verify.findings import CheckedFolder, Finding, VerifyReport

LEAVE = "leave"
FETCH, TAKE, LINK = "fetch", "take", "link"
COPY, RENAME, SET_ASIDE = "copy", "rename", "set_aside"
WRITE_REF, REMOVE_REF, KEEP_REF = "write_ref", "remove_ref", "keep_ref"
LIST, WRITE_LIST, WRITE_PROOF, REMOVE = "list", "write_list", "write_proof", "remove"
OPEN = "open"
CANNOT = "cannot"

ACTIONS: dict[str, tuple[str, str]] = {
    LEAVE: ("left alone", "leave it alone"),
    FETCH: ("got the missing bytes", "get the missing bytes"),
    TAKE: ("took the bytes from this machine", "take the bytes from this machine"),
    LINK: ("made the link", "make the link"),
    COPY: ("copied the bytes into the repo's folder", "copy the bytes into the repo's folder"),
    RENAME: ("gave the blob its name", "give the blob its name"),
    SET_ASIDE: ("set it aside", "set it aside"),
    WRITE_REF: ("wrote the ref", "write the ref"),
    REMOVE_REF: ("removed the ref", "remove the ref"),
    KEEP_REF: ("left a ref that keeps the revision", "leave a ref that keeps the revision"),
    LIST: ("got the list of the files", "get the list of the files"),
    WRITE_LIST: ("wrote the list anew", "write the list anew"),
    WRITE_PROOF: ("wrote the proof anew", "write the proof anew"),
    REMOVE: ("removed it", "remove it"),
    OPEN: ("gave this user, or the group, the right to it", "give this user, or the group, the right to it"),
    CANNOT: ("could not be mended", "cannot be mended"),
}
"""By action: what was done, and what would be done."""

REPAIRED, PLANNED, FAILED, LEFT = "repaired", "planned", "failed", "left"
"""The outcomes of a finding: it is no more; a dry run; it is still there; there was nothing to mend."""
EXIT_UNREACHABLE = 6


@dataclass(frozen=True)
class RepairedFinding:
    """A finding, what was done about it, and with which outcome.

    `detail` is a sentence: why it is still there and which command or source would help; for a dry run, where the bytes
    would come from. `fetch_bytes` is what is missing of the blob on this machine; a blob that several findings need
    counts for the first.
    """

    finding: Finding
    action: str
    outcome: str
    detail: str = ""
    fetch_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            **self.finding.to_json(),
            "repair": self.action,
            "outcome": self.outcome,
            "detail": self.detail,
            "fetch_bytes": self.fetch_bytes,
            "command": self.finding.repair,
        }


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair. `after` is the verification at its end; for a dry run, at its beginning.

    `bytes_by_source` and `bytes_by_kind` crossed a network, `local_bytes` came from files of this machine.
    `held_back_bytes` would have to come from the WAN, and the user has not agreed to that many.
    `is_unreachable`: something is still wrong only because no source answered. `others` are the cache folders that are
    only read: a repair verifies them too, and changes nothing in them.
    """

    cache: str
    is_dry_run: bool
    findings: tuple[RepairedFinding, ...]
    after: VerifyReport
    bytes_by_source: dict[str, int] = field(default_factory=dict)
    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    local_bytes: int = 0
    held_back_bytes: int = 0
    is_unreachable: bool = False
    seconds: float = 0.0
    others: tuple[CheckedFolder, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all is right now, in the other folders too; 6 if it is not because no source answered; else that of the
        verification, 7 before 8."""
        code = self.after.exit_code
        codes = [EXIT_UNREACHABLE if code and self.is_unreachable else code]
        codes += [folder.exit_code for folder in self.others]
        return min(filter(None, codes), default=0)
