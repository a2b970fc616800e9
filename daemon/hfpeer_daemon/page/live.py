"""Keeps pages up to date: sends the fragments of a view that have changed, as server-sent events.

All pages of a kind share one look at the node, at most one a second, however many are open. An open page costs nothing
more while its numbers stay the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from hfpeer.budgets import MAX_OPEN_PAGES
from hfpeer.net.singleflight import SingleFlight
from hfpeer_daemon.page.viewer import Viewer
from hfpeer_daemon.page.views import LIVE_VIEWS, Views

FRESH_SECONDS = 0.9
"""Seconds for which one look at the node serves all pages of a kind."""
RETRY_SECONDS = 5


@dataclass(frozen=True)
class Fragment:
    """A part of a page; `version` changes with its text."""

    name: str
    html: str
    version: str


class Live:
    """The views that stay up to date. Belongs to one event loop. `stopping` ends all streams."""

    def __init__(self, views: Views, stopping: asyncio.Event) -> None:
        self._views = views
        self._stopping = stopping
        self._looks: SingleFlight[tuple[str, Viewer], tuple[Fragment, ...]] = SingleFlight()
        self._fresh: dict[tuple[str, Viewer], tuple[float, tuple[Fragment, ...]]] = {}
        self._open = {True: 0, False: 0}

    async def fragments(self, view: str, viewer: Viewer) -> tuple[Fragment, ...]:
        """The fragments of a view, at most FRESH_SECONDS old."""
        key = (view, viewer)
        at, found = self._fresh.get(key, (float("-inf"), ()))
        if time.monotonic() - at < FRESH_SECONDS:
            return found
        # Shielded: a viewer who goes must not end the look for the others.
        return await asyncio.shield(self._looks.begin(key, lambda: self._look(view, viewer)))

    async def _look(self, view: str, viewer: Viewer) -> tuple[Fragment, ...]:
        context = await LIVE_VIEWS[view].gather(self._views, viewer)
        found = await asyncio.to_thread(_rendered, view, viewer, context)
        self._fresh[view, viewer] = time.monotonic(), found
        return found

    async def events(self, view: str, viewer: Viewer, seen: Collection[str]) -> AsyncIterator[bytes]:
        """The changes of a view from now on, until the daemon stops. `seen` are the versions that the page has. Raises
        the error of a 503 if too many pages are open."""
        if self._open[viewer.is_owner] >= MAX_OPEN_PAGES:
            raise HTTPException(503, "Too many pages are open here.", {"Retry-After": str(RETRY_SECONDS)})
        return self._changes(view, viewer, set(seen))

    async def _changes(self, view: str, viewer: Viewer, seen: set[str]) -> AsyncIterator[bytes]:
        self._open[viewer.is_owner] += 1
        try:
            yield f"retry: {RETRY_SECONDS * 1000}\n\n".encode()
            while not self._stopping.is_set():
                found = await self.fragments(view, viewer)
                for fragment in found:
                    if fragment.version not in seen:
                        data = json.dumps({"name": fragment.name, "html": fragment.html, "version": fragment.version})
                        yield f"data: {data}\n\n".encode()
                seen = {fragment.version for fragment in found}
                try:
                    await asyncio.wait_for(self._stopping.wait(), LIVE_VIEWS[view].every_seconds)
                except asyncio.TimeoutError:
                    pass
        finally:
            self._open[viewer.is_owner] -= 1


def _rendered(view: str, viewer: Viewer, context: dict[str, object]) -> tuple[Fragment, ...]:
    from hfpeer_daemon.page.texts import html_of  # a daemon whose page is never looked at does not need jinja2

    found = []
    for name in LIVE_VIEWS[view].fragments:
        html = html_of(f"fragments/{name}.html", viewer, context)
        found.append(Fragment(name, html, hashlib.sha256(f"{name}\n{html}".encode()).hexdigest()[:12]))
    return tuple(found)
