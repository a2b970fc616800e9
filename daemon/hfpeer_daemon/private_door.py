"""The door of one push: a LAN door on a Unix socket that only this user can open, for the pushed revisions alone.

`python -m hfpeer_daemon.private_door` reads one line of JSON from stdin: `socket`, the path to listen at, and
`revisions`, pairs of a repo and a commit. It prints `ready`, and ends with its stdin, so it never outlives the push.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hfpeer.budgets import MAX_BATCHES
from hfpeer.cache.store import Store
from hfpeer.config.settings import Settings, read_settings
from hfpeer.names import Commit, RepoId
from hfpeer.push.provider import PushProvider
from hfpeer_daemon.app import lan_app
from hfpeer_daemon.http.connections import DoorBudgets
from hfpeer_daemon.http.door import Door
from hfpeer_daemon.http.listeners import listen_unix
from hfpeer_daemon.http.zero_copy import zero_copy_protocol
from hfpeer_daemon.lan.upload_slots import UploadSlots

SPARE_THREADS = 4
"""Threads in addition to those that send: for opening files and for reading batches."""


def main() -> int:
    """Serves until stdin ends."""
    # Ctrl-C in a terminal goes to the push, which closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.loads(sys.stdin.readline())
    settings = read_settings(os.environ)
    revisions = [(RepoId.from_api_path(repo), Commit.parse(commit)) for repo, commit in request["revisions"]]
    asyncio.run(_serve(make_provider(settings, revisions), Path(request["socket"])))
    return 0


def make_provider(settings: Settings, revisions: Sequence[tuple[RepoId, Commit]]) -> PushProvider:
    """The provider of these revisions of the cache. Only verified blobs are given."""
    store = Store(settings.cache, settings.home, settings.read_caches)
    try:
        found = [store.manifests.load(repo, commit) for repo, commit in revisions]
        manifests = [manifest for manifest in found if manifest is not None]
        places = store.inventory.places(digest for manifest in manifests for digest in manifest.sizes)
        best = {digest: store.inventory.best(rows) for digest, rows in places.items()}
    finally:
        store.close()
    verified = {digest: blob for digest, blob in best.items() if blob is not None and blob.is_verified}
    return PushProvider(settings.name, manifests, verified)


async def _serve(provider: PushProvider, path: Path) -> None:
    listener = listen_unix(path)
    slots, stopping = UploadSlots(max_per_peer=32), asyncio.Event()
    threads = ThreadPoolExecutor(slots.max_active + MAX_BATCHES + SPARE_THREADS, "hfpeer-push")
    budgets = DoorBudgets.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    app = lan_app(provider, threads, slots, stopping)
    door = Door(app, listener, zero_copy_protocol(threads), limits=[budgets.lan_local])
    serving = asyncio.ensure_future(door.serve_door())
    await asyncio.wait([serving, asyncio.ensure_future(door.is_open.wait())], return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    asked = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([serving, asked], return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    slots.close()
    door.close()
    await serving
    await asyncio.to_thread(threads.shutdown)


if __name__ == "__main__":
    sys.exit(main())
