"""The grammar of the command line: nouns, verbs, and their help.

Every noun and verb prints its examples with `-h`, and takes `--json` and `--quiet` in any place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from hfpeer_cli.interrupts import Interruptible
from hfpeer_cli.invocation import Invocation

COMPLETION_VARIABLE = "_HFPEER_COMPLETE"
"""Set by the completion script of a shell when it asks for the words that can follow."""

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "failed for another reason than these",
    2: "malformed input; nothing was asked or changed",
    3: "kept: the last copy on the LAN, or in use; --force removes it",
    4: "no such repo, revision, file or peer",
    5: "access denied: a token is missing or refused",
    6: "no source reachable; a later run continues",
    7: "wrong bytes, and no source had better ones",
    8: "disk full, cache broken or locked",
    9: "the daemon does not run, start or understand",
    70: "a bug in hfpeer, with its traceback",
    130: "interrupted; a later run continues",
}
LOG_LEVELS = ("debug", "info", "warning", "error")
ALIASES = {"list": "ls", "remove": "rm", "delete": "rm", "download": "add", "pull": "add"}
"""Words of other programs, and the verbs that they mean here."""


class Verb(click.Command):
    """A command. Its help ends with examples, it takes `--json`, and Ctrl-C raises KeyboardInterrupt.

    An option that takes one value is refused if it is given twice: the last one would hide the others. Parameters may
    have a method `settle`, called when all words are parsed.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.extend(global_options(is_hidden=True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing and args:
            self._refuse_strange_options(ctx, args)
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            settle = getattr(parameter, "settle", None)
            if settle is not None and not ctx.resilient_parsing:
                settle(ctx)
        return rest

    def _refuse_strange_options(self, ctx: click.Context, args: Sequence[str]) -> None:
        try:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except (click.NoSuchOption, click.BadOptionUsage) as error:
            raise bad_option(error, ctx) from None
        seen = set[int]()
        for option in order:
            if isinstance(option, click.Option) and not (option.multiple or option.is_flag or option.count):
                if id(option) in seen:
                    raise click.UsageError(f"{option.opts[0]} is given twice, and takes one value.", ctx)
                seen.add(id(option))

    def invoke(self, ctx: click.Context) -> Any:
        with Interruptible():
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


class Noun(click.Group):
    """A word that groups verbs."""

    command_class = Verb

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.extend(global_options(is_hidden=True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except (click.NoSuchOption, click.BadOptionUsage) as error:
            raise bad_option(error, ctx) from None

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name) or super().get_command(ctx, ALIASES.get(name, name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        refuse_unknown(self, ctx, args, self.meant(ctx, args[0]))
        _, command, rest = super().resolve_command(ctx, args)
        return command.name if command else None, command, rest

    def meant(self, ctx: click.Context, word: str) -> list[str]:
        """The commands below this noun that an unknown word may mean."""
        return of_other_programs(self, ctx, word)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


class NoSuchCommand(click.UsageError):
    """A word names no command; `near` may have been meant."""

    def __init__(self, word: str, near: Sequence[str], ctx: click.Context) -> None:
        from hfpeer.language.near import did_you_mean  # only a mistake needs it

        super().__init__(f"No such command {word!r}.{did_you_mean(near)}", ctx)
        self.facts = {"command": word, "near": list(near)}


def refuse_unknown(group: click.Command, ctx: click.Context, args: Sequence[str], others: Sequence[str] = ()) -> None:
    """Raises NoSuchCommand if the first of `args` is no command of `group`, with those that may have been meant.
    `others` are named even if they are not like it."""
    assert isinstance(group, click.Group)
    if ctx.resilient_parsing or group.get_command(ctx, args[0]) is not None:
        return
    from hfpeer.language.near import near  # only a mistake needs it

    aliases = [alias for alias in ALIASES if group.get_command(ctx, alias) is not None]
    guesses = [*others, *near(args[0], [*group.list_commands(ctx), *aliases])]
    raise NoSuchCommand(args[0], list(dict.fromkeys(guesses)), ctx)


def of_other_programs(group: click.Group, ctx: click.Context, word: str) -> list[str]:
    """The commands of a group that stand for a word of other programs."""
    from hfpeer_cli.grammar.habits import COMMANDS  # only a mistake needs it

    return [command for command in COMMANDS.get(word, ()) if _has(group, ctx, command.split())]


def _has(group: click.Command, ctx: click.Context, words: Sequence[str]) -> bool:
    found: click.Command | None = group
    for word in words:
        found = found.get_command(ctx, word) if isinstance(found, click.Group) else None
    return found is not None


def bad_option(error: click.NoSuchOption | click.BadOptionUsage, ctx: click.Context) -> click.UsageError:
    """The error for an option that does not exist, with those that may have been meant; or for one without its
    value."""
    options = [option for option in ctx.command.get_params(ctx) if isinstance(option, click.Option)]
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error, [name for one in options for name in (*one.opts, *one.secondary_opts)], ctx)
    name = error.option_name
    for option in options:
        if name in option.opts and not option.is_flag:
            return click.UsageError(f"Option {name!r} requires an argument: {name} {option.make_metavar(ctx)}.", ctx)
    error.ctx = error.ctx or ctx
    return error


def _no_such_option(error: click.NoSuchOption, names: Sequence[str], ctx: click.Context) -> click.UsageError:
    from hfpeer.language.near import did_you_mean, near  # only a mistake needs these
    from hfpeer_cli.grammar.habits import ADVICE, OPTIONS

    known = [name for name in OPTIONS.get(error.option_name, ()) if name in names]
    guesses = did_you_mean(known or near(error.option_name, names))
    advice = "" if guesses else ADVICE.get(error.option_name, "")
    sentence = f"No such option {error.option_name!r}.{guesses}"
    return click.UsageError(f"{sentence} {advice}" if advice else sentence, ctx)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Writes the examples below a command's options."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def write_exit_codes(formatter: click.HelpFormatter) -> None:
    """Writes the table of exit codes."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


def global_options(*, is_hidden: bool) -> list[click.Parameter]:
    """`--json`, `--json-lines`, `--quiet` and `--log-level`: the root shows them, and every noun and verb takes them
    too."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember_json,
            help="Print the result, or the problem, as JSON.",
        ),
        click.Option(
            ["--json-lines"],
            is_flag=True,
            expose_value=False,
            callback=_remember_json_lines,
            hidden=is_hidden,
            help="Print progress and result as JSON, an object a line.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_remember_quiet,
            hidden=is_hidden,
            help="Print the bare result only: no progress, no notes; of a list, the names.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LOG_LEVELS),
            expose_value=False,
            callback=_remember_log_level,
            hidden=is_hidden,
            help="Log on stderr, from this level up.",
        ),
    ]


def _remember_json(ctx: click.Context, option: click.Parameter, is_json: bool) -> None:
    if is_json:
        ctx.ensure_object(Invocation).is_json = True


def _remember_json_lines(ctx: click.Context, option: click.Parameter, is_lines: bool) -> None:
    if is_lines:
        invocation = ctx.ensure_object(Invocation)
        invocation.is_json = invocation.is_lines = True


def _remember_quiet(ctx: click.Context, option: click.Parameter, is_quiet: bool) -> None:
    if is_quiet:
        ctx.ensure_object(Invocation).is_quiet = True


def _remember_log_level(ctx: click.Context, option: click.Parameter, level: str | None) -> None:
    if level:
        ctx.ensure_object(Invocation).log_level = level


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
