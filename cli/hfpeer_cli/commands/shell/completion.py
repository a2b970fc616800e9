"""`hfpeer completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from hfpeer.errors import InvalidName, StorageError
from hfpeer_cli.grammar import COMPLETION_VARIABLE, Verb
from hfpeer_cli.grammar.shells import register
from hfpeer_cli.invocation import Invocation

SHELLS = ("bash", "zsh", "fish")
MARK = "# Made by `hfpeer completion --install`."
ZSHRC = "fpath=({folder} $fpath); autoload -Uz compinit; compinit"
"""The line of ~/.zshrc that makes zsh find the script."""


@click.command(
    "completion",
    cls=Verb,
    examples=[
        "hfpeer completion --install",
        'eval "$(hfpeer completion bash)"',
        "hfpeer completion fish > ~/.config/fish/completions/hfpeer.fish",
    ],
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write the script where new shells find it, instead of printing it.")
@click.pass_context
def completion(ctx: click.Context, shell: str | None, install: bool) -> None:
    """Print the completion script of a shell, or install it.

    Without SHELL it is that of your own shell. Words, options, repos, revisions, files, peers and settings are
    completed, from the cache and the daemon; no network is used.
    """
    invocation = ctx.ensure_object(Invocation)
    chosen = shell or shell_of(invocation.environ)
    script = script_of(ctx, chosen)
    if not install:
        click.echo(script, nl=False)
        return
    place = place_of(chosen, invocation.environ)
    _write(place, f"{script.rstrip()}\n{MARK}\n", chosen)
    lines = [f"Completion for {chosen} is in {place}: new shells have it."]
    if chosen == "zsh":
        lines = [f"Completion for zsh is in {place}.", *_zshrc(invocation.environ, place.parent)]
    invocation.output.result(lines, {"shell": chosen, "path": str(place)})


def script_of(ctx: click.Context, shell: str) -> str:
    """The completion script of a shell."""
    from click.shell_completion import get_completion_class

    register()
    script = get_completion_class(shell)
    assert script is not None
    return script(ctx.find_root().command, {}, "hfpeer", COMPLETION_VARIABLE).source()


def shell_of(environ: Mapping[str, str]) -> str:
    """The user's own shell. Raises InvalidName for one without a script."""
    name = Path(environ.get("SHELL", "")).name
    if name not in SHELLS:
        shell = f"the shell {name!r}" if name else "a shell that SHELL does not name"
        raise InvalidName(f"There is no completion for {shell}.", hint=f"Name one: {', '.join(SHELLS)}.")
    return name


def place_of(shell: str, environ: Mapping[str, str]) -> Path:
    """The file in which new shells find the script. Raises InvalidName without a HOME."""
    if not environ.get("HOME"):
        raise InvalidName("HOME is not set.", hint=f"`hfpeer completion {shell}` prints the script.")
    home = Path(environ["HOME"])
    if shell == "fish":
        return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "hfpeer.fish"
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if shell == "bash":
        # Source: the README of bash-completion.
        return Path(environ.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion") / "completions" / "hfpeer"
    return data / "zsh" / "site-functions" / "_hfpeer"


def _zshrc(environ: Mapping[str, str], folder: Path) -> list[str]:
    """Lines on what ~/.zshrc needs, if it does not have it."""
    rc = Path(environ.get("ZDOTDIR") or environ["HOME"]) / ".zshrc"
    try:
        has_it = str(folder) in rc.read_text(encoding="utf-8", errors="replace")
    except OSError:
        has_it = False
    return (
        [] if has_it else [f"Add this line to {rc}, before any other `compinit`:", f"  {ZSHRC.format(folder=folder)}"]
    )


def _write(place: Path, text: str, shell: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{error.filename} cannot be written: {error.strerror}.",
            hint=f"`hfpeer completion {shell}` prints the script.",
        ) from error


def installed(environ: Mapping[str, str]) -> list[Path]:
    """The scripts that `--install` wrote, and that are still as it wrote them."""
    places = [place_of(shell, environ) for shell in SHELLS] if environ.get("HOME") else []
    return [
        place for place in places if place.is_file() and MARK in place.read_text(encoding="utf-8", errors="replace")
    ]
