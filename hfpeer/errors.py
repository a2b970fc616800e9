"""Every error hfpeer raises on purpose, and the one table that carries them across the wire.

HfpeerError            internal          exit 1    HTTP 500
├─ PushRefused         push_refused      exit 1    HTTP 502   ModelScope does not take a file or a commit
├─ BuildFailed         build_failed                           `datasets` could not build a prepared set
├─ ConversionFailed  conversion_failed                    a file of a dataset cannot be read as what its name says
├─ TransferCancelled   cancelled                   HTTP 409   another command cancelled the transfer
├─ InvalidName         bad_name          exit 2    HTTP 400   malformed repo, revision, path, address, setting
│  └─ BadUsage         bad_usage                              a command line that no command takes
│     └─ UnknownCommand unknown_command
├─ MissingExtra        missing_extra     exit 2    HTTP 501   a library that an extra of hfpeer brings is missing
├─ NotFound            not_found         exit 4    HTTP 404
│  ├─ RepoNotFound     repo_not_found
│  ├─ RevisionNotFound revision_not_found
│  └─ EntryNotFound    entry_not_found
├─ AccessDenied        access_denied     exit 5    HTTP 403   a token is missing or refused
│  ├─ GatedRepo        gated_repo
│  ├─ NameTaken        name_taken                            the name of a publication belongs to another repo
│  └─ RequestRefused   request_refused                        another node does not add what it is asked for
├─ Unreachable         unreachable       exit 6    HTTP 503
│  ├─ HubUnreachable   hub_unreachable
│  │  └─ RateLimited   rate_limited              HTTP 429   a hub limits the requests of this node
│  ├─ PeerUnreachable  peer_unreachable
│  ├─ NoSourceLeft     no_source_left
│  └─ SshFailed        ssh_failed                             the far end of a push cannot be reached by ssh
├─ CorruptData         corrupt_data      exit 7    HTTP 502   bytes that do not have the digest in the commit
│  ├─ ForgedManifest   forged_manifest
│  ├─ BadArchive       bad_archive                            an archive that is damaged, or not what it says
│  ├─ ForeignPath      foreign_path                           a prepared set that names files outside of its commit
│  └─ ContestedName    contested_name              HTTP 409   peers disagree on the commit of a name
├─ StorageError        storage           exit 8    HTTP 507
│  ├─ NoSpace          no_space
│  ├─ BrokenCache      broken_cache
│  ├─ NotThisVolume    not_this_volume                        a file system that cannot hold such a file
│  └─ Locked           locked                      HTTP 409
└─ DaemonError         daemon            exit 9    HTTP 500   raised by the command line only
   ├─ NotRunning       not_running
   ├─ VersionMismatch  version_mismatch
   └─ AddressInUse     address_in_use

A class exists where code or a user acts on the difference. Messages are whole sentences for a person; `hint` is the
next thing to do. Pure.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HfpeerError(Exception):
    """Something went wrong inside hfpeer.

    `message` says what happened and to what, `hint` what to do about it. `facts` are the values in both, ready for
    JSON.
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


class BuildFailed(HfpeerError):
    """The `datasets` library could not build a prepared set."""

    code = "build_failed"


class ConversionFailed(HfpeerError):
    """A file of a dataset cannot be read as what its name says, or its rows do not fit the shape."""

    code = "conversion_failed"


class TransferCancelled(HfpeerError):
    """Another command cancelled the transfer that this one waits for."""

    code, http_status = "cancelled", 409


class InvalidName(HfpeerError):
    """A repo, revision, path, address, port or setting is malformed."""

    code, exit_code, http_status = "bad_name", 2, 400


class BadUsage(InvalidName):
    """A command line has an option, a word or a number of words that its command does not take."""

    code = "bad_usage"


class UnknownCommand(BadUsage):
    """A command line names a command that does not exist."""

    code = "unknown_command"


class PushRefused(HfpeerError):
    """ModelScope does not take a file or a commit, for another reason than the token."""

    code, http_status = "push_refused", 502


class MissingExtra(HfpeerError):
    """A library is missing that an extra of hfpeer brings."""

    code, exit_code, http_status = "missing_extra", 2, 501


class NotFound(HfpeerError):
    """No source that was asked has it."""

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


class NameTaken(AccessDenied):
    """The cache, a hub or a peer knows another repo by the name under which a folder is to be published."""

    code = "name_taken"


class RequestRefused(AccessDenied):
    """A node does not add what another node asks it for: its owner has not allowed it."""

    code = "request_refused"


class Unreachable(HfpeerError):
    """No source answers now; a later try may succeed and continues where this one stopped."""

    code, exit_code, http_status = "unreachable", 6, 503


class HubUnreachable(Unreachable):
    """An upstream hub does not answer, or answers with a fault of its own."""

    code = "hub_unreachable"


class RateLimited(HubUnreachable):
    """A hub limits requests, and the rest that it asks for is not waited for."""

    code, http_status = "rate_limited", 429


class PeerUnreachable(Unreachable):
    """A peer does not answer, or not in hfpeer's protocol."""

    code = "peer_unreachable"


class NoSourceLeft(Unreachable):
    """Every source of a blob has failed or lacks it."""

    code = "no_source_left"


class SshFailed(Unreachable):
    """ssh does not reach the far end of a push, or the link broke; or what arrived there could not be verified."""

    code = "ssh_failed"


class CorruptData(HfpeerError):
    """Bytes do not hash to their digest, and no source has the right ones."""

    code, exit_code, http_status = "corrupt_data", 7, 502


class ForgedManifest(CorruptData):
    """A listing does not fold to the commit that it claims to be of."""

    code = "forged_manifest"


class BadArchive(CorruptData):
    """An archive, or a part of it, is damaged, missing, or not what it says."""

    code = "bad_archive"


class ForeignPath(CorruptData):
    """A prepared set names a file that is not one of its commit."""

    code = "foreign_path"


class ContestedName(CorruptData):
    """Peers disagree on the commit of a name, and no hub can be asked."""

    code, http_status = "contested_name", 409


class StorageError(HfpeerError):
    """The disk or the cache cannot be written."""

    code, exit_code, http_status = "storage", 8, 507


class NoSpace(StorageError):
    """The volume of the cache is full."""

    code = "no_space"


class BrokenCache(StorageError):
    """A file or folder of the cache, or of hfpeer's home, cannot be used."""

    code = "broken_cache"


class NotThisVolume(StorageError):
    """The file system of a volume cannot hold a file of this size or name, or has no links."""

    code = "not_this_volume"


class Locked(StorageError):
    """Another process is writing the same file."""

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
    """Another program listens on an address of the daemon."""

    code = "address_in_use"


def _tree(root: type[HfpeerError]) -> list[type[HfpeerError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


CODES: dict[str, type[HfpeerError]] = {error.code: error for error in _tree(HfpeerError)}
"""By wire code: every class of the tree."""


def from_problem(problem: dict[str, Any]) -> HfpeerError:
    """The error that `to_problem` wrote. An unknown code becomes a plain HfpeerError."""
    cls = CODES.get(str(problem.get("code")), HfpeerError)
    facts = problem.get("facts")
    return cls(
        str(problem.get("message", "unknown error")),
        hint=problem.get("hint"),
        **(facts if isinstance(facts, dict) else {}),
    )
