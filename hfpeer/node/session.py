"""The operations that a command uses: those of the daemon if one answers, else those of a node in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from hfpeer.control.client import ControlClient
from hfpeer.errors import AccessDenied, HfpeerError, NotFound, Unreachable
from hfpeer.net.http1_blocking import run_blocking

if TYPE_CHECKING:
    from hfpeer.config.settings import Settings
    from hfpeer.control.environment import Difference
    from hfpeer.control.operations import Operations

ASKING_HUBS = {"add", "attach", "begin_transfer", "list_commit", "repair", "publish"}
"""The operations whose result depends on the hubs and on the way to them."""
_DEPENDING = {NotFound.exit_code, AccessDenied.exit_code, Unreachable.exit_code}
"""The exit codes of errors that another environment may cause."""
_MAY_MATTER = ("hf_", "hfpeer_", "hugging", "ssl_cert", "requests_ca", "curl_ca", "xdg_cache", "modelscope_")
"""How variables begin that may be in a topic of `control.environment`, in small letters; those of proxies end alike."""


def find_daemon(settings: Settings) -> ControlClient | None:
    """The daemon if one answers, for `run_blocking`, so outside of an event loop. Raises VersionMismatch when it is of
    another version."""
    daemon = ControlClient(settings.places.control_socket, is_blocking=True)
    return daemon if run_blocking(daemon.is_answering()) else None


@asynccontextmanager
async def open_session(settings: Settings, environ: Mapping[str, str] = os.environ) -> AsyncIterator[Operations]:
    """The operations to use: the daemon's, or those of a node that runs until the end of the block. `environ` is the
    environment that `settings` were read from, for the hints of errors.

    Raises VersionMismatch when a daemon of another version answers.
    """
    daemon = ControlClient(settings.places.control_socket)
    if await daemon.is_answering():
        with explaining(daemon, settings, environ):
            yield daemon
    else:
        with explaining(None, settings, environ):
            async with open_node(settings) as node:
                yield node


@contextmanager
def explaining(daemon: ControlClient | None, settings: Settings, environ: Mapping[str, str]) -> Iterator[None]:
    """Adds to the hint of an error what may be its cause: the daemon's environment is another, or HF_ENDPOINT names a
    hub that is not asked."""
    try:
        yield
    except HfpeerError as error:
        if error.exit_code in _DEPENDING:
            found = _causes(error, daemon, settings, environ)
            error.hint = " ".join(filter(None, [error.hint, *map(str, found)])) or None
        raise


def _causes(
    error: HfpeerError, daemon: ControlClient | None, settings: Settings, environ: Mapping[str, str]
) -> list[Difference]:
    if daemon is None:
        return differences(None, settings, environ)
    if daemon.asked.isdisjoint(ASKING_HUBS):
        return [one for one in differences(daemon, settings, environ, only=["cache"]) if one.variables]
    has_token = bool(environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN"))
    is_token_used = error.exit_code != Unreachable.exit_code and (not has_token or "repair" in daemon.asked)
    return differences(daemon, settings, environ, without=[] if is_token_used else ["token"], is_for_work=True)


def differences(
    daemon: ControlClient | None,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    without: Collection[str] = ("token",),
    only: Collection[str] | None = None,
    is_for_work: bool = False,
) -> list[Difference]:
    """How the work of `daemon`, or of a node here, differs from what this environment says. Topics, those of
    `control.environment`, are passed over if they are in `without`, or `only` is given and lacks them. With
    `is_for_work` those are, too, that say how the daemon itself runs."""
    if not _may_differ(daemon, environ):
        return []
    from hfpeer.control.environment import ALL_TOPICS, OF_THE_DAEMON, find_difference, passed_over_hub

    if only is not None:
        without = ALL_TOPICS.keys() - set(only)
    if is_for_work:
        without = {*without, *OF_THE_DAEMON}
    found = [passed_over_hub(settings, environ)]
    if daemon is not None:
        found.insert(0, find_difference(settings, environ, daemon.environment, without=without))
    return [one for one in found if one is not None]


def _may_differ(daemon: ControlClient | None, environ: Mapping[str, str]) -> bool:
    """Whether a variable is set, here or there, that may be in a topic: a comparison costs more than a command's
    start."""
    told = None if daemon is None else daemon.environment
    if isinstance(told, dict) and told.get("variables"):
        return True
    return any(name.lower().startswith(_MAY_MATTER) or name.lower().endswith("_proxy") for name in environ)


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Operations]:
    """A node in this process until the end of the block. It has no doors and no peers: it asks upstreams only."""
    from hfpeer.node.node import Node

    node = Node(settings)
    await node.start(None)
    try:
        yield node
    finally:
        await node.stop()
