"""Which document each command prints with `--json`, and the schema of all. Tests hold outputs of `tests/cli` to it."""

from __future__ import annotations

from typing import Any, Literal

from docs.made import shapes
from docs.made.schema import ArrayOf, OneOf, Schema, With, schema_of
from hfpeer.adoption.results import AdoptReport, Forgotten
from hfpeer.archive.results import ExportReport, ImportReport
from hfpeer.cache.records import CachedRevision, Provenance
from hfpeer.control.results import HistoryEntry, Holding, NodeStatus, PeerStatus, Published, TransferStatus
from hfpeer.conversion.results import ConversionReport, RecipeReport
from hfpeer.prepared.results import PreparedSet, RemovedSets
from hfpeer.push.results import PushReport
from hfpeer.transfer.events import KINDS
from hfpeer_cli.commands.repos.dry_run import PlannedAdd
from hfpeer_cli.output import JSON_VERSION

JSON_SCHEMA = f"docs/schemas/hfpeer-json-{JSON_VERSION}.json"
SEVERAL = frozenset({"add", "rm", "search", "share", "unshare", "why", "publish", "prepare", "convert", "ls", "sync"})
"""Verbs that take several repos; with more than one, the documents of all are one array."""
_REVISIONS = OneOf((list[CachedRevision], CachedRevision))
_ADDED = (shapes.ADDED, shapes.ADDED_TO_FOLDER)
_ADDED_OR_QUEUED = (*_ADDED, TransferStatus, PlannedAdd)
_OF_REPOS: dict[str, Any] = {
    "add": OneOf((*_ADDED_OR_QUEUED, list[TransferStatus])),
    "ls": _REVISIONS,
    "rm": shapes.CLEANED,
    "search": list[Holding],
    "publish": Published,
    "share": list[CachedRevision],
    "unshare": list[CachedRevision],
    "follow": ArrayOf(shapes.FOLLOWED),
    "unfollow": ArrayOf(shapes.FOLLOWED),
    "pin": list[str],
    "unpin": list[str],
}
DOCUMENTS: dict[str, Any] = {
    **{verb: kind for verb, kind in _OF_REPOS.items() if verb in ("add", "ls", "rm", "search")},
    **{f"model {verb}": kind for verb, kind in _OF_REPOS.items()},
    **{f"dataset {verb}": kind for verb, kind in _OF_REPOS.items()},
    "dataset add": OneOf((*_ADDED_OR_QUEUED, list[TransferStatus], list[PreparedSet])),
    "dataset ls": OneOf((_REVISIONS, shapes.PreparedSets)),
    "dataset rm": OneOf((shapes.CLEANED, RemovedSets)),
    "dataset verify": shapes.CheckedSets,
    "dataset prepare": list[PreparedSet],
    "dataset convert": OneOf((ConversionReport, RecipeReport, shapes.ConversionPlan)),
    **{f"space {verb}": kind for verb, kind in _OF_REPOS.items()},
    "cache ls": shapes.CACHE,
    "cache du": shapes.SPACE,
    **{f"cache {verb}": shapes.CLEANED for verb in ("rm", "prune", "gc")},
    **{f"daemon {verb}": NodeStatus for verb in ("start", "restart", "status")},
    "daemon stop": shapes.Stopped,
    "peer add": PeerStatus,
    "peer ls": list[PeerStatus],
    "peer rm": shapes.ForgottenPeer,
    "transfers": list[TransferStatus],
    **{f"transfers {verb}": list[TransferStatus] for verb in ("pause", "resume", "cancel", "move")},
    "transfers attach": OneOf((shapes.ADDED, list[TransferStatus])),
    "history": list[HistoryEntry],
    "env": dict[str, str],
    "auth login": shapes.TokenKept,
    "auth logout": shapes.LoggedOut,
    "auth whoami": shapes.ACCOUNT,
    "conf ls": list[shapes.ListedSetting],
    "conf get": shapes.SettingValue,
    **{f"conf {verb}": OneOf((shapes.SettingValue, shapes.ChangedCache)) for verb in ("set", "reset")},
    "conf port get": shapes.PortValue,
    **{f"conf port {verb}": shapes.SettingValue for verb in ("set", "reset")},
    "conf cache get": shapes.SettingValue,
    "conf cache ls": ArrayOf(shapes.FOLDER),
    **{f"conf cache {verb}": shapes.ChangedCache for verb in ("set", "move", "add", "rm", "reset")},
    "demo": shapes.DemoResult,
    "why": list[Provenance],
    "verify": OneOf((shapes.VERIFIED, shapes.REPAIRED, shapes.CheckedSets)),
    "export": OneOf((ExportReport, shapes.EXPORTED_FOLDER)),
    "import": list[ImportReport],
    "push": PushReport,
    "have": OneOf((shapes.Have, shapes.WrittenHave)),
    "modelscope login": shapes.LoggedIn,
    "modelscope logout": shapes.LoggedOut,
    "modelscope whoami": shapes.SiteAccount,
    "modelscope push": OneOf((shapes.SITE_PUSH, ArrayOf(shapes.SITE_OUTCOME))),
    "modelscope verify": shapes.SITE_COPY,
    "adopt": OneOf((AdoptReport, Forgotten, shapes.NoPlaces)),
    "lock": shapes.WrittenLock,
    "sync": OneOf((shapes.SYNCED, shapes.ChangedLock, list[TransferStatus])),
    "status": NodeStatus,
    "doctor": ArrayOf(shapes.DOCTOR),
    "completion": shapes.InstalledCompletion,
    "uninstall": shapes.Uninstalled,
    "version": shapes.Version,
}
"""Words of a command -> the type of its document, or the types that it may be."""


EVENT = OneOf(tuple(With(event.__name__, event, {"event": Literal[name]}) for name, event in KINDS.items()))
"""What stands behind `event` in a line of `--json-lines`."""


def schema() -> Schema:
    """The schema of an object with a document for each command, by which each is found: `properties["model ls"]`."""
    found: dict[str, Schema] = {}
    properties = {command: schema_of(kind, found) for command, kind in [*DOCUMENTS.items(), ("event", EVENT)]}
    schema_of(shapes.Problem, found)
    schema_of(shapes.FailedRepo, found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What hfpeer prints with --json, version {JSON_VERSION}, by the words of the command",
        "type": "object",
        "properties": properties,
        "$defs": dict(sorted(found.items())),
    }
