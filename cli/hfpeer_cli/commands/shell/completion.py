"""`hfpeer completion`: the script that makes a shell complete commands and the repos in the cache."""

from __future__ import annotations

import click

from hfpeer_cli.grammar import COMPLETION_VARIABLE, Verb


@click.command(
    "completion",
    cls=Verb,
    examples=[
        'eval "$(hfpeer completion bash)"',
        "hfpeer completion zsh > ~/.zfunc/_hfpeer",
        "hfpeer completion fish > ~/.config/fish/completions/hfpeer.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "hfpeer", COMPLETION_VARIABLE).source())
