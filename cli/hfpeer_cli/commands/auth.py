"""`hfpeer auth`: the user's Hugging Face token. huggingface_hub stores it; hfpeer does not."""

from __future__ import annotations

import sys

import click

from hfpeer.errors import HubUnreachable
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.screen.terminal import on_screen


@click.group("auth", cls=Noun, no_args_is_help=True, examples=["hfpeer auth login", "hfpeer auth whoami"])
def auth() -> None:
    """Your Hugging Face token.

    huggingface_hub keeps it, so that every Hugging Face tool finds it; hfpeer sends it to the origin only.
    """


@auth.command(
    "login",
    examples=["hfpeer auth login", "hfpeer auth login < token.txt", "hfpeer auth login --unchecked < token.txt"],
)
@click.option("--token", metavar="TOKEN", help="The token; asked for without echo, or read from a pipe, if not given.")
@click.option("--unchecked", is_flag=True, help="Keep it also if the origin cannot be reached to check it.")
@pass_invocation
def login(invocation: Invocation, token: str | None, unchecked: bool) -> None:
    """Check a token with the origin and keep it.

    If the origin cannot be reached, --unchecked keeps the token without a check.
    """
    from hfpeer.upstream.auth import keep_unchecked
    from hfpeer.upstream.auth import login as log_in

    endpoint = origin(invocation)
    token = token or _ask_token(endpoint)
    try:
        user = log_in(token, endpoint).user
    except HubUnreachable as error:
        if not unchecked and not _wants_unchecked(invocation, error):
            error.hint = f"{error.hint or ''} `hfpeer auth login --unchecked` keeps the token all the same.".strip()
            raise
        keep_unchecked(token)
        text = f"The token is kept, but not checked: {endpoint} could not be reached."
        invocation.output.result(text, {"user": "", "endpoint": endpoint, "is_checked": False})
        return
    text = f"Logged in to {endpoint} as {user}."
    invocation.output.result(text, {"user": user, "endpoint": endpoint, "is_checked": True})


def _wants_unchecked(invocation: Invocation, error: HubUnreachable) -> bool:
    """Asks at a terminal whether the token is kept although the origin cannot be reached."""
    if invocation.output.is_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    invocation.output.note(error.message)
    return click.confirm(on_screen("Keep the token unchecked?"), err=True)


@auth.command("logout", examples=["hfpeer auth logout"])
@pass_invocation
def logout(invocation: Invocation) -> None:
    """Take every token off this machine."""
    from hfpeer.upstream.auth import logout as log_out

    was_logged_in = log_out()
    text = "Logged out: no token is kept on this machine." if was_logged_in else "You were not logged in."
    invocation.output.result(text, {"was_logged_in": was_logged_in})


@auth.command("whoami", examples=["hfpeer auth whoami"])
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Say whose token it is."""
    from hfpeer.upstream.auth import whoami as ask_who

    endpoint = origin(invocation)
    account = ask_who(endpoint)
    invocation.output.result(account.user, {**account.to_json(), "endpoint": endpoint})
    if account.organizations:
        invocation.output.note(f"Member of {', '.join(account.organizations)}.")


def origin(invocation: Invocation) -> str:
    """The endpoint a token belongs to: the origin, else the first mirror, if mirrors may see tokens. Raises
    HubUnreachable when the settings name none."""
    settings = invocation.settings
    for kind in ("origin", "mirror") if settings.sends_token_to_mirrors else ("origin",):
        for upstream in settings.upstreams:
            if upstream.kind == kind:
                return upstream.url
    raise HubUnreachable(
        "There is no origin among the upstreams, and a token belongs to an origin.",
        hint="`hfpeer conf get upstreams` shows them; `hfpeer conf reset upstreams` takes the usual ones.",
    )


def _ask_token(endpoint: str) -> str:
    if not sys.stdin.isatty():
        token = sys.stdin.readline().strip()
    else:
        token = str(click.prompt(on_screen(f"Token of {endpoint}/settings/tokens"), hide_input=True, err=True)).strip()
    if not token:
        raise click.UsageError("No token was given: use --token, or pipe it in.")
    return token
