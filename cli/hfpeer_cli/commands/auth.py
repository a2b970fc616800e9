"""`hfpeer auth`: the user's Hugging Face token. huggingface_hub stores it; hfpeer does not."""

from __future__ import annotations

import sys

import click

from hfpeer.errors import HubUnreachable
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import on_screen


@click.group("auth", cls=Noun, no_args_is_help=True, examples=["hfpeer auth login", "hfpeer auth whoami"])
def auth() -> None:
    """Your Hugging Face token.

    huggingface_hub keeps it, so that every Hugging Face tool finds it; hfpeer sends it to the origin only.
    """


@auth.command("login", examples=["hfpeer auth login", "hfpeer auth login < token.txt"])
@click.option("--token", metavar="TOKEN", help="The token; asked for without echo, or read from a pipe, if not given.")
@pass_invocation
def login(invocation: Invocation, token: str | None) -> None:
    """Check a token with the origin and keep it."""
    from hfpeer.upstream.auth import login as log_in

    endpoint = origin(invocation)
    user = log_in(token or _ask_token(endpoint), endpoint).user
    invocation.output.result(f"Logged in to {endpoint} as {user}.", {"user": user, "endpoint": endpoint})


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
    """The endpoint a token belongs to. Raises HubUnreachable when the settings name no origin."""
    for upstream in invocation.settings.upstreams:
        if upstream.kind == "origin":
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
