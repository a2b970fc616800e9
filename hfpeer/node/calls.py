"""How a call of a Python function becomes work of a node: its settings, its token, and the event loop it runs in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hfpeer.config.keys import UpstreamSetting, is_switched_on
from hfpeer.config.settings import Settings, over_cache, read_settings
from hfpeer.errors import AccessDenied
from hfpeer.upstream.auth import environment_token

T = TypeVar("T")


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the environment forbids requests, as huggingface_hub reads it."""
    return any(is_switched_on(environ, name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def token_of(token: bool | str | None) -> str | None:
    """The token of a request. None: the node uses the one that the user stored. Empty: the request is anonymous."""
    if isinstance(token, str):
        return token
    if token is False:
        return ""
    found = environment_token(os.environ)
    if token is True and not found and not _has_stored_token():
        raise AccessDenied("token=True, but you are not logged in.", hint="`hfpeer auth login` asks for a token.")
    return found


def _has_stored_token() -> bool:
    from hfpeer.upstream.upstream import stored_token

    return stored_token() is not None


def settings_of(cache_dir: str | Path | None, endpoint: str | None) -> Settings:
    """The settings in force, with the cache and the endpoint of a call.

    Another cache or endpoint makes another node: it gets a home of its own below the first one, because a catalog
    describes one cache. No daemon has that home.
    """
    settings = read_settings(os.environ)
    cache = settings.cache if cache_dir is None else Path(cache_dir).expanduser().resolve()
    upstreams = settings.upstreams if endpoint is None else (UpstreamSetting("origin", endpoint.rstrip("/")),)
    if (cache.resolve(), upstreams) == (settings.cache.resolve(), settings.upstreams):
        return settings
    return over_cache(settings, cache, endpoint)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, in a thread of its own where this one already runs an event loop."""
    return _run_in_thread(work) if _is_loop_running() else asyncio.run(work)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = concurrent.futures.Future()

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="hfpeer-download") as pool:
        outcome = pool.submit(asyncio.run, supervised())
        try:
            return outcome.result()
        except BaseException:
            # Ctrl-C comes to this thread, not to the pool's: cancel the work there, because the pool waits for it.
            if not outcome.done():
                loop, task = started.result()
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)
            raise
