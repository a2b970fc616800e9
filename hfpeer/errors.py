"""Every error hfpeer raises on purpose, and the one table that carries them across the wire.

HfpeerError            internal          exit 1    HTTP 500
├─ InvalidName         bad_name          exit 2    HTTP 400   malformed repo, revision, path, address, setting
├─ NotFound            not_found         exit 4    HTTP 404
│  ├─ RepoNotFound     repo_not_found
│  ├─ RevisionNotFound revision_not_found
│  └─ EntryNotFound    entry_not_found
├─ AccessDenied        access_denied     exit 5    HTTP 403   a token is missing or refused
│  └─ GatedRepo        gated_repo
├─ Unreachable         unreachable       exit 6    HTTP 503
│  ├─ HubUnreachable   hub_unreachable
│  ├─ PeerUnreachable  peer_unreachable
│  └─ NoSourceLeft     no_source_left
├─ CorruptData         corrupt_data      exit 7    HTTP 502   bytes that are not what the commit says
│  └─ ForgedManifest   forged_manifest
├─ StorageError        storage           exit 8    HTTP 507
│  ├─ NoSpace          no_space
│  ├─ BrokenCache      broken_cache
│  └─ Locked           locked                      HTTP 409
└─ DaemonError         daemon            exit 9    HTTP 500   raised by the command line only
   ├─ NotRunning       not_running
   ├─ VersionMismatch  version_mismatch
   └─ AddressInUse     address_in_use

A class exists where somebody acts on the difference. Messages are whole sentences for a person; `hint`
is the next thing to do. Nothing here does input or output.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HfpeerError(Exception):
    """Something went wrong inside hfpeer.

    `message` says what happened and to what, `hint` what to do about it, `facts` are the values both are
    made of (JSON-ready).
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def to_problem(self) -> dict[str, Any]:
        """The error as JSON: `code`, `message`, `hint`, `facts`. `from_problem` is its inverse."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "facts": self.facts}


class InvalidName(HfpeerError):
    """A repo, revision, path, address, port or setting is malformed."""

    code, exit_code, http_status = "bad_name", 2, 400


class NotFound(HfpeerError):
    """What was asked for does not exist at any source that was asked."""

    code, exit_code, http_status = "not_found", 4, 404


class RepoNotFound(NotFound):
    """No source knows the repo."""

    code = "repo_not_found"


class RevisionNotFound(NotFound):
    """The repo exists, but not this revision."""

    code = "revision_not_found"


class EntryNotFound(NotFound):
    """The commit exists and its full listing does not contain this file."""

    code = "entry_not_found"


class AccessDenied(HfpeerError):
    """The hub refuses: a token is missing, wrong, or has no grant."""

    code, exit_code, http_status = "access_denied", 5, 403


class GatedRepo(AccessDenied):
    """The repo is gated and the token has not been granted access."""

    code = "gated_repo"


class Unreachable(HfpeerError):
    """Nobody who could help answers now; a later try may succeed and continues where this one stopped."""

    code, exit_code, http_status = "unreachable", 6, 503


class HubUnreachable(Unreachable):
    """An upstream hub does not answer, or answers with a fault of its own."""

    code = "hub_unreachable"


class PeerUnreachable(Unreachable):
    """A peer does not answer, or not in hfpeer's protocol."""

    code = "peer_unreachable"


class NoSourceLeft(Unreachable):
    """Every source of a blob has failed or lacks it."""

    code = "no_source_left"


class CorruptData(HfpeerError):
    """Bytes do not hash to their digest, and nobody had better ones."""

    code, exit_code, http_status = "corrupt_data", 7, 502


class ForgedManifest(CorruptData):
    """A listing does not fold to the commit it claims to be."""

    code = "forged_manifest"


class StorageError(HfpeerError):
    """The disk or the cache cannot take what should be written."""

    code, exit_code, http_status = "storage", 8, 507


class NoSpace(StorageError):
    """The volume of the cache is full."""

    code = "no_space"


class BrokenCache(StorageError):
    """The cache folder cannot be read or written as it should."""

    code = "broken_cache"


class Locked(StorageError):
    """Another process works on the same thing."""

    code, http_status = "locked", 409


class DaemonError(HfpeerError):
    """The daemon cannot be started, reached or understood."""

    code, exit_code = "daemon", 9


class NotRunning(DaemonError):
    """No daemon answers on the control socket."""

    code = "not_running"


class VersionMismatch(DaemonError):
    """The daemon speaks another protocol version than this command."""

    code = "version_mismatch"


class AddressInUse(DaemonError):
    """A listener's address is taken."""

    code = "address_in_use"


def _tree(root: type[HfpeerError]) -> list[type[HfpeerError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


CODES: dict[str, type[HfpeerError]] = {error.code: error for error in _tree(HfpeerError)}
"""Wire code -> class, for every class of the tree."""


def from_problem(problem: dict[str, Any]) -> HfpeerError:
    """The error that `to_problem` wrote; an unknown code becomes a plain HfpeerError."""
    cls = CODES.get(str(problem.get("code")), HfpeerError)
    facts = problem.get("facts")
    return cls(
        str(problem.get("message", "unknown error")),
        hint=problem.get("hint"),
        **(facts if isinstance(facts, dict) else {}),
    )
