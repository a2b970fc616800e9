"""The ModelScope that a command asks: its address, its token, and the work with it and a node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from hfpeer.errors import AccessDenied
from hfpeer.transfer.events import OnEvent, WaitBegan
from hfpeer_cli.invocation import Invocation

if TYPE_CHECKING:
    from hfpeer.control.operations import Operations
    from hfpeer.modelscope.api import SiteApi
    from hfpeer.modelscope.credentials import Credentials
    from hfpeer.modelscope.repos import SiteUser
    from hfpeer.node.operations.modelscope.pushing import PushParts

T = TypeVar("T")


def endpoint(invocation: Invocation) -> str:
    """The URL of the site."""
    return invocation.settings.modelscope_endpoint


def credentials_of(invocation: Invocation) -> Credentials:
    """The place where ModelScope's tools keep the token."""
    from hfpeer.modelscope.credentials import Credentials

    return Credentials(invocation.environ)


def stored_token(invocation: Invocation) -> str:
    """The token for the site. Raises AccessDenied without one."""
    token = credentials_of(invocation).token(endpoint(invocation))
    if token is None:
        raise AccessDenied(
            f"You are not logged in to {endpoint(invocation)}.", hint="`hfpeer modelscope login` asks for a token."
        )
    return token


def whoami(invocation: Invocation, token: str) -> SiteUser:
    """The account of a token. Raises AccessDenied and HubUnreachable."""
    import asyncio

    from hfpeer.modelscope.repos import whoami as ask_who

    async def ask() -> SiteUser:
        api = _api(invocation, token, invocation.output.note)
        try:
            return await ask_who(api)
        finally:
            await api.aclose()

    return asyncio.run(ask())


def with_site(
    invocation: Invocation, work: Callable[[PushParts], Awaitable[T]], on_event: OnEvent, *, needs_token: bool = True
) -> T:
    """Runs `work` with a node and the site, after the token was checked. Without `needs_token` there may be none. Waits
    that the site asks for are events."""
    from hfpeer.modelscope.repos import whoami as ask_who
    from hfpeer.net.limiter import make_limiter
    from hfpeer.node.operations.modelscope.pushing import PushParts

    token = stored_token(invocation) if needs_token else credentials_of(invocation).token(endpoint(invocation))
    limiter = make_limiter(invocation.settings.wan_up_limit)

    async def with_node(node: Operations) -> T:
        api = _api(invocation, token, lambda sentence: on_event(WaitBegan(sentence)))
        try:
            if token is not None:
                await ask_who(api)
            return await work(PushParts(node, api, limiter))
        finally:
            await api.aclose()

    return invocation.run_in_loop(with_node)


def _api(invocation: Invocation, token: str | None, on_wait: Callable[[str], None]) -> SiteApi:
    from hfpeer.modelscope.access import SiteAccess
    from hfpeer.modelscope.api import SiteApi
    from hfpeer.upstream.connection.clients import Connections

    settings = invocation.settings
    connections = Connections(invocation.environ, proxy=settings.proxy, ca=settings.ca)
    access = SiteAccess(endpoint(invocation), token)
    return SiteApi(access, on_wait=on_wait, connections=connections)
