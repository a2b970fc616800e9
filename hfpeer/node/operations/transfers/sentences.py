"""Sentences on transfers, for the log and for the terminals of followers: one line each. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.control.asker import Asker
from hfpeer.control.transfers import HistoryEntry, TransferProblem
from hfpeer.language.amounts import counted
from hfpeer.names import RepoId
from hfpeer.node.operations.transfers.transfer import Transfer
from hfpeer.transfer.events import Planned, SourceFailed


def named(transfer: Transfer) -> str:
    """The transfer in a sentence: its id, its repo, and its commit or revision."""
    at = transfer.commit[:12] or transfer.request.revision
    where = "" if transfer.request.node is None else f" on {transfer.request.node.name}"
    return f"transfer {transfer.id} ({transfer.request.repo} at {at}{where})"


def began(transfer: Transfer) -> str:
    return f"{named(transfer)} begins, for {asker(transfer.request.asked_by)}"


def planned(transfer: Transfer, event: Planned) -> str:
    kept = f", {event.kept_bytes:,} of them here already" if event.kept_bytes else ""
    whole = f"{counted(event.files, 'file')}, {event.size_bytes:,} bytes"
    missing = f"{counted(event.missing_files, 'file')}, {event.missing_bytes:,} bytes{kept}"
    return f"{named(transfer)} has {whole}; to fetch: {missing}"


def done(transfer: Transfer) -> str:
    return f"{named(transfer)} is done after {transfer.seconds:.1f} s; {came(transfer.bytes_by_kind)}"


def source_failed(transfer: Transfer, event: SourceFailed) -> str:
    what = "gave wrong bytes of" if event.was_lying else "failed with"
    return f"{named(transfer)}: {event.source} {what} {event.path}: {event.reason}"


def failed(transfer: Transfer, problem: TransferProblem, wait_seconds: float | None) -> str:
    then = "" if wait_seconds is None else f" It is tried again in {wait_seconds:.0f} s."
    return f"{named(transfer)} failed: {problem.message}{then}"


def fetched_for_caller(entry: HistoryEntry) -> str:
    files = counted(entry.files, "file")
    place = f"{entry.repo} at {entry.commit[:12]}"
    return f"endpoint: fetched {files} of {place} for {asker(entry.asked_by)}; {came(entry.bytes_by_kind)}"


def came(by_kind: Mapping[str, int]) -> str:
    """The bytes of each kind of source."""
    parts = [f"{size_bytes:,} bytes from {kind}" for kind, size_bytes in by_kind.items() if size_bytes]
    return ", ".join(parts) or "no byte came over a network"


def asker(asked_by: Asker) -> str:
    return str(asked_by) or "an unknown caller"


def paused_notice(id: int) -> str:
    """For followers of a transfer that another command has paused."""
    return f"Paused. `hfpeer transfers resume {id}` goes on."


def retry_notice(message: str, wait_seconds: float) -> str:
    """For followers of a transfer that is tried again by itself."""
    return f"{message} Trying again in {wait_seconds:.0f} s."


def token_problem(id: int, repo: RepoId) -> TransferProblem:
    """For a transfer that needs a token which no longer is in memory."""
    return TransferProblem(
        "access_denied",
        f"It was begun with the token of a command, which is not written to the disk, and the login of this node does "
        f"not open {repo}.",
        f"Give the token again: `HF_TOKEN=… hfpeer {repo.type.value} add {repo.full_name}`. Or log in with "
        f"`hfpeer auth login`, then `hfpeer transfers resume {id}`.",
        5,
    )
