"""The root of the command line, and the one place where an error becomes a sentence and an exit code.

Nouns are imported only when they are used, so that `hfpeer --help` is instant. No other module of the command line
turns an HfpeerError into output.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TextIO

import click

import hfpeer
from hfpeer.errors import BadUsage, HfpeerError, StorageError, UnknownCommand
from hfpeer_cli.grammar.verbs import (
    ALIASES,
    COMPLETION_VARIABLE,
    NoSuchCommand,
    bad_option,
    global_options,
    of_other_programs,
    pass_invocation,
    refuse_unknown,
    write_examples,
    write_exit_codes,
)
from hfpeer_cli.interrupts import EXIT_INTERRUPTED, was_interrupted
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.language.chosen import choose_language, translated, translated_word
from hfpeer_cli.output import Output

EXIT_OF_A_BUG = 70
EXIT_BROKEN_PIPE = 141

_REFUSED_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

NOUNS: dict[str, tuple[str, str]] = {
    "add": ("repos.nouns:add", "Bring repos into the cache; a model if nothing else is said."),
    "ls": ("repos.nouns:ls", "List the repos in the cache."),
    "rm": ("repos.nouns:rm", "Take repos out of the cache."),
    "search": ("repos.nouns:search", "Find peers that have a repo."),
    "model": ("repos.nouns:model", "Models: add, ls, rm, search, publish, share."),
    "dataset": ("repos.nouns:dataset", "The same for datasets; also prepare and convert them."),
    "space": ("repos.nouns:space", "The same for spaces."),
    "lock": ("repos.locking:lock", "Pin repos, and the digests of their files, in a lock file."),
    "sync": ("repos.locking:sync", "Bring all files of a lock file into the cache."),
    "cache": ("cache.noun:cache", "All that lies in the cache: list it, its space, remove what is old."),
    "daemon": ("node.daemon:daemon", "The node that runs in the background: start, stop, logs."),
    "peer": ("node.peer:peer", "Other nodes on the LAN."),
    "transfers": ("transfers.noun:transfers", "Adds that run in the daemon: list, pause, resume, cancel."),
    "history": ("transfers.history:history", "What was fetched, when, for whom and from where."),
    "env": ("shell.environment:env", "The environment in which Hugging Face tools ask this node."),
    "run": ("shell.environment:run", "Run one command in that environment."),
    "auth": ("auth:auth", "Your Hugging Face token, kept by huggingface_hub."),
    "conf": ("conf:conf", "Settings."),
    "demo": ("node.demo:demo", "See the main job done on this machine, in a minute."),
    "why": ("repos.why:why", "Where the bytes of a cached file came from, and what went wrong."),
    "verify": ("checking.verify:verify", "Say what is wrong in the cache, on a stick or in a copy."),
    "export": ("moving.archive:export", "Write revisions to one archive, for a machine without a network."),
    "import": ("moving.archive:import_", "Take an archive, or a copy of a cache, and check every byte."),
    "push": ("moving.push:push", "Bring revisions into the cache of another machine, over ssh."),
    "have": ("moving.archive:have", "List the blobs of this cache, for an export that leaves them out."),
    "modelscope": ("modelscope.commands:modelscope", "ModelScope: log in, push repos there, compare them."),
    "adopt": ("moving.adopt:adopt", "Use the files that other tools keep on this machine, instead of fetching them."),
    "doctor": ("node.doctor:doctor", "What keeps this node from working, and what mends it."),
    "status": ("node.status:status", "What this node is, holds and does."),
    "completion": ("shell.completion:completion", "Completion of commands and names for your shell."),
    "uninstall": ("node.uninstall:uninstall", "Stop the daemon and remove what is hfpeer's own."),
    "help": ("manual.help:help_", "The help of a command or of a topic."),
}
"""The first word after `hfpeer`: where it is defined, and its line in the help."""
HIDDEN = {"version": "manual.help:version"}
"""Commands that the help does not list."""
PLURALS = {"models": "model", "datasets": "dataset", "spaces": "space", "peers": "peer"}
"""Words that are taken for a noun; alone they list what there is of it."""
VERB_NOUNS = ("daemon", "auth", "cache", "peer", "model", "conf", "transfers")
"""Nouns among whose verbs an unknown first word is looked for."""


class Root(click.Group):
    """`hfpeer` itself. It knows its nouns by name and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, PLURALS.get(name, name))
        place = NOUNS[name][0] if name in NOUNS else HIDDEN.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(f"hfpeer_cli.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        if name in NOUNS:
            command.short_help = NOUNS[name][1]
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except (click.NoSuchOption, click.BadOptionUsage) as error:
            raise bad_option(error, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in PLURALS and not any(word in ("-h", "--help") or word[:1] != "-" for word in args[1:]):
            args = [args[0], "ls", *args[1:]]
        refuse_unknown(self, ctx, args, self._meant(ctx, args[0]))
        _, command, rest = super().resolve_command(ctx, args)
        return command.name if command else None, command, rest

    def _meant(self, ctx: click.Context, word: str) -> list[str]:
        """The commands that an unknown first word may mean: it is a word of other programs, a verb of nouns, a topic of
        the help, or a setting."""
        if self.get_command(ctx, word) is not None:
            return []
        from hfpeer.config.settings import KEYS
        from hfpeer_cli.commands.manual.topics import TOPICS

        nouns = ((noun, self.get_command(ctx, noun)) for noun in VERB_NOUNS)
        verbs = [f"{name} {word}" for name, noun in nouns if isinstance(noun, click.Group) and word in noun.commands]
        return [
            *of_other_programs(self, ctx, word),
            *verbs[:3],
            *([f"conf set {word}"] if word in KEYS else []),
            *([f"help {word}"] if word in TOPICS else []),
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in NOUNS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(
            formatter,
            [
                "hfpeer daemon start",
                "hfpeer add sentence-transformers/all-MiniLM-L6-v2",
                "hfpeer add datasets/rajpurkar/squad Qwen/Qwen3-0.6B@main",
                "hfpeer --json status",
            ],
        )
        write_exit_codes(formatter)
        from hfpeer_cli.commands.manual.topics import TOPICS  # only the help names them

        with formatter.section("More"):
            formatter.write_text(f"hfpeer help {'|'.join(TOPICS)}")


@click.group(
    cls=Root,
    params=global_options(is_hidden=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(hfpeer.__version__, "-V", "--version", prog_name="hfpeer")
@pass_invocation
def root(invocation: Invocation) -> None:
    """All the Hugging Face caches of a LAN as one.

    A model crosses the Internet once; then every machine gets it from its neighbours, verified against the pinned
    commit, into the standard Hugging Face cache.
    """


def run(words: Sequence[str], invocation: Invocation | None = None) -> int:
    """Runs one command line and returns its exit code."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        from hfpeer_cli.grammar.shells import register

        register()
        return shell_complete(root, {}, "hfpeer", COMPLETION_VARIABLE, instruction)
    invocation = invocation or Invocation()
    _speak(choose_language(invocation.environ))
    return _exit_code(list(words), invocation)


def _speak(language: str) -> None:
    """Makes help pages those of a language."""
    click.Context.formatter_class = click.HelpFormatter
    if language != "en":
        from hfpeer_cli.language.help_pages import TranslatedHelp

        click.Context.formatter_class = TranslatedHelp


def _exit_code(words: list[str], invocation: Invocation) -> int:
    try:
        _obey(words, invocation)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        _note_json(words, invocation)
        return _answer_usage(error, invocation.output)
    except HfpeerError as error:
        _note_json(words, invocation)
        invocation.complain(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(words, invocation)
    except Exception as error:  # noqa: BLE001 - any other error is a bug, and is shown with its traceback
        if was_interrupted(error):
            return _interrupted(words, invocation)
        if isinstance(error, BrokenPipeError) and _is_reader_gone():
            return EXIT_BROKEN_PIPE
        refusal = _unwritable(error) if isinstance(error, OSError) else None
        if refusal is not None:
            with suppress(OSError):  # stderr may go to the same file
                invocation.complain(refusal)
            return refusal.exit_code
        import traceback  # slow to import, and only needed for a bug

        traceback.print_exc()
        click.echo("This is a bug in hfpeer; the lines above say where.", err=True)
        return EXIT_OF_A_BUG


def _interrupted(words: Sequence[str], invocation: Invocation) -> int:
    _note_json(words, invocation)
    invocation.output.interrupted(invocation.when_interrupted)
    return EXIT_INTERRUPTED


def _obey(words: list[str], invocation: Invocation) -> None:
    with root.make_context("hfpeer", words.copy(), obj=invocation) as ctx:
        root.invoke(ctx)
    sys.stdout.flush()


def _note_json(words: Sequence[str], invocation: Invocation) -> None:
    """Looks for `--json` itself: the parser may have stopped at a malformed word before it."""
    ours = words[: words.index("--")] if "--" in words else words
    invocation.is_lines = invocation.is_lines or "--json-lines" in ours
    invocation.is_json = invocation.is_json or invocation.is_lines or "--json" in ours


def _answer_usage(error: click.UsageError, output: Output) -> int:
    if output.is_json:
        where = error.ctx.command_path if error.ctx else "hfpeer"
        message, hint = error.format_message(), f"`{where} -h` shows how."
        if isinstance(error, NoSuchCommand):
            output.problem(UnknownCommand(message, hint=hint, **error.facts).to_problem())
        else:
            output.problem(BadUsage(message, hint=hint).to_problem())
    elif isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    else:
        _show(error)
    return error.exit_code


def _show(error: click.UsageError) -> None:
    """Shows what is wrong with a malformed command line, as click does, in the language of the command."""
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(
            translated(f"Try '{error.ctx.command_path} {error.ctx.help_option_names[0]}' for help.") + "\n", err=True
        )
    click.echo(f"{translated_word('Error:')} {translated(error.format_message())}", err=True)


def _is_reader_gone() -> bool:
    """Whether a pipe that we write to has no reader any more (`hfpeer model ls | head -1`). The rest of the output then
    goes to /dev/null."""
    broken = [stream for stream in (sys.stdout, sys.stderr) if _is_broken_pipe(stream)]
    for stream in broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(broken)


def _is_broken_pipe(stream: TextIO) -> bool:
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except OSError:
        return False
    return bool(poll.poll(0))


def _unwritable(error: OSError) -> StorageError | None:
    """The problem of output that goes to a file on a full disk; None if the error came from anywhere else."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    wrote = at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("click", "hfpeer_cli")
    if not wrote or error.filename is not None or error.errno not in _REFUSED_WRITES:
        return None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # what is left of the output goes to /dev/null, else Python complains at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return StorageError(
        f"The output cannot be written: {error.strerror or error}.", hint="Make room there, or write it elsewhere."
    )
