"""Gathers what each view of the page shows, by the operations that the commands call, and leaves out what a visitor may
not see: repos that peers may not see either, paths, names of users, and sentences on problems."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from hfpeer.config.settings import KEYS, Settings, find_key, setting_text
from hfpeer.control.operations import CachedRevision, Operations, Provenance
from hfpeer.control.transfers import HistoryEntry, TransferStatus
from hfpeer.errors import AccessDenied, NotFound
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer_daemon.page.summaries import by_day, by_repo, matrix, repo_name
from hfpeer_daemon.page.viewer import Viewer

DAYS = 30
"""Days of the history that its chart has."""
MAX_ENTRIES, MAX_REPOS, MAX_FILES = 50, 1000, 500
"""At most this many entries of the history, cached repos, and files of a revision are listed."""
LIMITS = ("limit.wan_down", "limit.lan_down", "limit.lan_up")

Context = dict[str, Any]
Gather = Callable[["Views", Viewer], Awaitable[Context]]


class Views:
    """What the page shows of one node."""

    def __init__(self, node: Operations, settings: Settings) -> None:
        self._node = node
        self._settings = settings

    async def node(self, viewer: Viewer) -> Context:
        """This node: its cache, disk, rates, the transfers that run now, its hubs."""
        status = await self._node.status()
        seen = await self._seen(viewer)
        running = [one for one in status.transfers if seen(one)]
        return {
            "status": status,
            "notes": status.notes if viewer.is_owner else (),
            "running": running,
            "hidden": len(status.transfers) - len(running),
            "rate": sum(one.rate_bytes_per_second for one in status.transfers),
            "limits": {name: setting_text(self._settings, find_key(name)) for name in LIMITS},
            "max_cache_bytes": self._settings.max_cache_bytes,
            "min_free_bytes": self._settings.min_free_bytes,
            "month": max(status.peer_bytes_by_month, default=""),
        }

    async def lan(self, viewer: Viewer) -> Context:
        """The peers, and which machine has which repo."""
        status = await self._node.status()
        peers = list(status.peers)
        if not viewer.is_owner:
            peers = [replace(peer, note="") for peer in peers]
        answering = [peer for peer in peers if peer.node_id]
        here, at_peers = await self._revisions(viewer), await self._node.search(None)
        return {
            "status": status,
            "peers": peers,
            "matrix": matrix(here, at_peers, answering, status.name),
        }

    async def repos(self, viewer: Viewer) -> Context:
        """The cached revisions, those used last first."""
        found = await self._revisions(viewer)
        found.sort(key=lambda one: -one.used_at)
        rows = [(repo_name(one.repo, one.type), one) for one in found[:MAX_REPOS]]
        return {"rows": rows, "left_out": max(0, len(found) - MAX_REPOS)}

    async def history(self, viewer: Viewer) -> Context:
        """What came: by day, by repo, and the last adds."""
        entries, seen = await self._node.history(), await self._seen(viewer)
        shown = [entry for entry in entries if seen(entry)]
        return {
            "days": by_day(shown, date.fromtimestamp(time.time()), DAYS),
            "repos": by_repo(shown),
            "entries": shown[: -MAX_ENTRIES - 1 : -1],
            "peer_bytes": sum(entry.saved_bytes for entry in shown),
            "all_bytes": sum(sum(entry.bytes_by_kind.values()) for entry in shown),
        }

    async def settings(self, viewer: Viewer) -> Context:
        """Every setting. Raises AccessDenied for a visitor."""
        if not viewer.is_owner:
            raise AccessDenied(
                "Only the user of this daemon sees its settings.", hint="`hfpeer conf ls` shows those of your own."
            )
        settings, origins = self._settings, self._settings.origins
        rows = [(key.name, setting_text(settings, key), origins[key.name], key.summary) for key in KEYS.values()]
        return {"rows": rows}

    async def repo(self, viewer: Viewer, name: str, commit: str, file: str) -> Context:
        """Where the bytes of a revision, or of one file of it, came from. Raises NotFound for one that is not in the
        cache or that the viewer may not see, InvalidName for a name that no repo, commit or file can have."""
        repo, wanted = RepoId.from_api_path(name), Commit.parse(commit)
        found = [one for one in await self._revisions(viewer, repo) if one.commit == wanted]
        if not found:
            raise NotFound(f"{repo} is not in the cache.", hint="`hfpeer cache ls` lists what is there.")
        files = await self._node.why(repo, Revision(wanted), (FilePath.parse(file),) if file else ())
        if not viewer.is_owner:
            files = [_without_paths(one) for one in files]
        return {
            "repo": str(repo),
            "revision": found[0] if viewer.is_owner else replace(found[0], snapshot="", cache="", also_in=()),
            "api_path": repo.api_path,
            "files": files[:MAX_FILES],
            "left_out": max(0, len(files) - MAX_FILES),
            "shows_file": bool(file),
        }

    async def _revisions(self, viewer: Viewer, repo: RepoId | None = None) -> list[CachedRevision]:
        found = await self._node.list_revisions(repo)
        return list(found) if viewer.is_owner else [one for one in found if one.is_shared]

    async def _seen(self, viewer: Viewer) -> Callable[[TransferStatus | HistoryEntry], bool]:
        """Whether the viewer may see a transfer or an entry of the history. A visitor sees those of commits that are in
        the cache and shared."""
        if viewer.is_owner:
            return lambda one: True
        shared = {(repo_name(one.repo, one.type), one.commit) for one in await self._revisions(viewer)}
        return lambda one: (one.repo, one.commit) in shared


@dataclass(frozen=True)
class View:
    """A view that stays up to date: its fragments, and the seconds between two looks at the node."""

    gather: Gather
    fragments: tuple[str, ...]
    every_seconds: float


LIVE_VIEWS = {
    "node": View(Views.node, ("notes", "figures", "running", "hubs"), 1.0),
    "lan": View(Views.lan, ("peers", "matrix"), 5.0),
    "repos": View(Views.repos, ("repos",), 5.0),
    "history": View(Views.history, ("days", "sums", "entries"), 5.0),
}


def nothing_there() -> NotFound:
    """The error for an address that no view has."""
    return NotFound("There is nothing at this address.")


def _without_paths(file: Provenance) -> Provenance:
    """A file's story without the paths and interfaces of this machine, and without the reasons of failures."""
    if file.fetch is None:
        return replace(file, cache="")
    given = tuple(
        replace(one, name="" if one.kind == "local" else one.name, address="", interface="")
        for one in file.fetch.contributions
    )
    failures: Sequence[Any] = tuple(replace(one, reason="") for one in file.fetch.failures)
    return replace(file, cache="", fetch=replace(file.fetch, contributions=given, failures=tuple(failures)))
