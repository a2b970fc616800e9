"""The documents that commands make beside the results of operations: dictionaries, and results with more fields."""

from __future__ import annotations

from typing import Any, TypedDict

from docs.made.schema import OneOf, With
from hfpeer.cache.cleaning.facts import CacheReport, CleanReport
from hfpeer.cache.repair.results import RepairReport
from hfpeer.cache.verify.findings import VerifyReport
from hfpeer.control.followed import FollowedRepo
from hfpeer.node.doctor.findings import Finding as DoctorFinding
from hfpeer.node.operations.cache.folders import ChosenFolder
from hfpeer.node.operations.cache.relocation import CopiedCache
from hfpeer.node.operations.modelscope.results import CopyReport, PushOutcome
from hfpeer.node.operations.modelscope.results import PushReport as SitePush
from hfpeer.node.operations.moving.local_dir import FilledFolder
from hfpeer.prepared.listing import Leftover as SetLeftover
from hfpeer.prepared.results import ListedSet, VerifiedSet
from hfpeer.transfer.events import Finished
from hfpeer.upstream.auth import Account


class Version(TypedDict):
    """The version of hfpeer, of these documents, of the control protocol, and of the protocol between nodes."""

    version: str
    json_version: int
    control_version: int
    protocol_version: int


class Problem(TypedDict):
    """Why a command failed, on stderr: a code, a sentence, what to do, and facts that depend on the code."""

    code: str
    message: str
    hint: str | None
    facts: dict[str, Any]


class _Failed(TypedDict):
    repo: str
    problem: Problem


class FailedRepo(_Failed, total=False):
    """One of several repos that a command could not do. `revision` is there if one was named."""

    revision: str


class Stopped(TypedDict):
    """Whether a daemon was running."""

    was_running: bool


class ForgottenPeer(TypedDict):
    """The peer that was removed."""

    address: str


class Uninstalled(TypedDict):
    """What was removed, and what of hfpeer's home is left because hfpeer did not write it."""

    daemon_was_running: bool
    removed: list[str]
    freed_partial_bytes: int
    left: list[str]
    cache: str


class InstalledCompletion(TypedDict):
    """The file with the completion script of a shell."""

    shell: str
    path: str


class LoggedIn(TypedDict):
    """The account of a token, and the site that it belongs to."""

    user: str
    endpoint: str


class TokenKept(LoggedIn):
    """The account of a token of the Hub. `is_checked` is false for a token that was kept although its hub could not be
    reached; then `user` is empty."""

    is_checked: bool


class LoggedOut(TypedDict):
    """Whether a token was kept."""

    was_logged_in: bool


class SiteAccount(TypedDict):
    """The account of a ModelScope token."""

    user: str
    email: str
    endpoint: str


SetTo = bool | int | float | str | list[str] | None
SettingValue = TypedDict("SettingValue", {"key": str, "value": SetTo, "from": str})
SettingValue.__doc__ = (
    "A setting in force, and where its value comes from. Sizes are in bytes; null: not set, and there is no default."
)
ListedSetting = TypedDict("ListedSetting", {"key": str, "value": SetTo, "from": str, "summary": str})
ListedSetting.__doc__ = "A setting in force, where its value comes from, and what it does."
PortValue = TypedDict("PortValue", {"key": str, "value": int, "from": str})
PortValue.__doc__ = "The port of the LAN door, and where it comes from."


class Have(TypedDict):
    """The blobs of this cache: whole ones, and how many bytes of the others are here from their start."""

    digests: list[str]
    prefixes: dict[str, int]
    cache: str
    free_bytes: int


class WrittenHave(TypedDict):
    """A have-file that was written, and the number of blobs in it."""

    path: str
    blobs: int
    prefixes: int


class NoPlaces(TypedDict):
    """No place of another tool was found."""

    places: list[str]


class LockedRepo(TypedDict):
    """A repo of a lock file."""

    repo: str
    revision: str
    commit: str
    files: int
    size_bytes: int


class ChangedLock(TypedDict):
    """What a lock file says that is no more so, a sentence each."""

    file: str
    changes: list[str]


class WrittenLock(ChangedLock):
    """A lock file, what changed in it, and the repos that were locked."""

    repos: list[LockedRepo]


class DemoResult(TypedDict):
    """What the demo measured."""

    commit: str
    files: int
    size_bytes: int
    mirror_bytes: int
    origin_bytes: int
    origin_seconds: float
    seconds: float
    found_seconds: float
    kept_bytes: int
    first_run_bytes: int
    second_run_bytes: int
    lost_bytes: int
    refetched_bytes: int
    wan_bytes: int
    add_seconds: float


Leftover = With("SetLeftover", SetLeftover)


class PreparedSets(TypedDict):
    """Prepared sets, and what killed builds left."""

    sets: list[ListedSet]
    leftovers: list[Leftover]  # type: ignore[valid-type]


class CheckedSets(TypedDict):
    """What the verification of prepared sets found, and its exit code."""

    sets: list[VerifiedSet]
    exit_code: int


class ConversionPlan(TypedDict):
    """The parts of a conversion, and what has still to be fetched."""

    format: int
    key: str
    repo: str
    commit: str
    config: str
    builder: str
    reading: dict[str, Any]
    features: Any
    options: dict[str, Any]
    parts: list[dict[str, Any]]
    size_bytes: int
    missing_bytes: int


class FindingDocument(TypedDict):
    """One thing that is wrong in a cache, and what mends it."""

    cache: str
    repo: str
    commit: str
    path: str
    kind: str
    digest: str
    size: int | None
    grade: str
    repair: str
    severity: str
    meaning: str


class RepairedFindingDocument(FindingDocument):
    """A finding with what a repair did, or would do. `command` mends it by hand."""

    outcome: str
    detail: str
    fetch_bytes: int
    command: str


ADDED = With("AddedRevision", Finished, {"wan_saved_bytes": int})
ADDED_TO_FOLDER = With("AddedFolder", Finished, {"wan_saved_bytes": int, "local_dir": FilledFolder})
FOLLOWED = With("FollowedRepo", FollowedRepo, {"repo": str, "type": str})
EXPORTED_FOLDER = With("ExportedFolder", FilledFolder, {"repo": str, "commit": str})
CLEANED = With("CleanReport", CleanReport, {"prepared": list[ListedSet]})
CACHE = With("CacheReport", CacheReport, {"prepared": PreparedSets})
SPACE = With("CacheSpace", CacheReport, {"prepared": PreparedSets}, frozenset({"revisions", "leftovers"}))
VERIFIED = With("VerifyReport", VerifyReport, {"findings": list[FindingDocument], "exit_code": int})
AFTER_REPAIR = With("VerifiedAfterRepair", VerifyReport, {}, frozenset({"findings"}))
REPAIRED = With(
    "RepairReport",
    RepairReport,
    {"findings": list[RepairedFindingDocument], "after": AFTER_REPAIR, "exit_code": int},
)
SYNCED = With("SyncedRevision", Finished)
DOCTOR = With("DoctorFinding", DoctorFinding)
SITE_PUSH = With("SitePushReport", SitePush, {"state": str})
SITE_OUTCOME = With("SitePushOutcome", PushOutcome, {"report": OneOf((SITE_PUSH, type(None)))})
SITE_COPY = With("SiteCopyReport", CopyReport, {"exit_code": int})
FOLDER = With(
    "CacheFolder", ChosenFolder, {"is_first": bool, "from": str, "follows": list[str]}, meaning="A cache folder."
)
ACCOUNT = With("AccountAtHub", Account, {"endpoint": str})


class ChangedCache(SettingValue, total=False):
    """The setting of a cache folder after a change: the folder, what follows from its volume, what was copied there,
    and the folders that a running daemon has until its restart."""

    folder: ChosenFolder
    follows: list[str]
    copied: CopiedCache
    daemon_caches: list[str] | None
