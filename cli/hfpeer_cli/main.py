"""The way in: the root of the command line, and the one place where an error becomes a sentence and an exit code.

Nouns are imported only when they are used, so that `hfpeer --help` is instant. Nobody else catches HfpeerError.
"""

from __future__ import annotations

import gc
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, TextIO

import click

import hfpeer
from hfpeer.errors import HfpeerError, InvalidName
from hfpeer_cli.grammar import global_options, pass_invocation, write_epilog
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import Output

COMPLETION_VARIABLE = "_HFPEER_COMPLETE"
EXIT_OF_A_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_NOBODY_READS = 141

NOUNS: dict[str, tuple[str, str]] = {
    "model": ("repos:model", "Models: add them, list, remove, find at peers, publish."),
    "dataset": ("repos:dataset", "The same for datasets."),
    "space": ("repos:space", "The same for spaces."),
    "daemon": ("daemon:daemon", "The node that runs in the background: start, stop, logs."),
    "peer": ("peer:peer", "Other nodes on the LAN."),
    "env": ("environment:env", "The environment in which Hugging Face tools ask this node."),
    "run": ("environment:run", "Run one command in that environment."),
    "auth": ("auth:auth", "Your Hugging Face token, kept by huggingface_hub."),
    "conf": ("conf:conf", "Settings."),
    "demo": ("demo:demo", "See the main job done on this machine, in a minute."),
    "why": ("why:why", "Where the bytes of a cached file came from, and what went wrong."),
    "status": ("status:status", "What this node is, holds and does."),
    "completion": ("completion:completion", "Completion of commands and repos for your shell."),
    "uninstall": ("uninstall:uninstall", "Stop the daemon and remove what is hfpeer's own."),
}
"""What follows `hfpeer`: where it is defined, and its line in the help."""


class Root(click.Group):
    """`hfpeer` itself: knows its nouns by name and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in NOUNS:
            return None
        module, _, attribute = NOUNS[name][0].partition(":")
        command = getattr(import_module(f"hfpeer_cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in NOUNS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(
            formatter,
            [
                "hfpeer daemon start",
                "hfpeer model add -r sentence-transformers/all-MiniLM-L6-v2",
                "hfpeer --json status",
            ],
        )


@click.group(
    cls=Root,
    params=global_options(is_hidden=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(hfpeer.__version__, prog_name="hfpeer")
@pass_invocation
def root(invocation: Invocation) -> None:
    """All the Hugging Face caches of a LAN as one.

    A model crosses the Internet once; then every machine gets it from its neighbours, verified against the pinned
    commit, into the standard Hugging Face cache.
    """


def main(arguments: Sequence[str] | None = None, invocation: Invocation | None = None) -> NoReturn:
    """Runs one command line and exits with its code. `arguments` are `sys.argv[1:]` if not given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(root, {}, "hfpeer", COMPLETION_VARIABLE, instruction))
    exit_code = _exit_code(words, invocation or Invocation())
    if arguments is None:
        # This process is the command's own, and ends: do not go through all that is alive, looking for garbage.
        gc.freeze()
    sys.exit(exit_code)


def _exit_code(words: list[str], invocation: Invocation) -> int:
    try:
        _obey(words, invocation)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        return _answer_usage(error, _output(words))
    except HfpeerError as error:
        _output(words).problem(error.to_problem())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _output(words).interrupted(invocation.when_interrupted)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door: whatever is left is a bug, and is shown whole
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return EXIT_NOBODY_READS
        import traceback  # which reads and parses sources: what no bug meets need not wait for it

        traceback.print_exc()
        click.echo("This is a bug in hfpeer; the lines above say where.", err=True)
        return EXIT_OF_A_BUG


def _obey(words: list[str], invocation: Invocation) -> None:
    with root.make_context("hfpeer", words.copy(), obj=invocation) as ctx:
        root.invoke(ctx)
    sys.stdout.flush()


def _output(words: Sequence[str]) -> Output:
    """Where a problem goes. A word can be malformed before the parser has come to a later `--json`."""
    return Output(is_json="--json" in words)


def _answer_usage(error: click.UsageError, output: Output) -> int:
    if output.is_json:
        where = error.ctx.command_path if error.ctx else "hfpeer"
        output.problem(InvalidName(error.format_message(), hint=f"`{where} -h` shows how.").to_problem())
    elif isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    else:
        error.show()
    return error.exit_code


def _nobody_reads() -> bool:
    """Whether a reader of our output has gone (`hfpeer model ls | head -1`); then what is left is dropped."""
    deserted = [stream for stream in (sys.stdout, sys.stderr) if _is_deserted(stream)]
    for stream in deserted:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(deserted)


def _is_deserted(stream: TextIO) -> bool:
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except OSError:
        return False
    return bool(poll.poll(0))
