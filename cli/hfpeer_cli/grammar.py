"""The grammar of the command line: nouns, verbs, their help, and the words that are parsed before any work begins.

Every noun and verb prints its examples and the exit codes with `-h`, and takes `--json` in any place. A malformed word
raises InvalidName before anything was read, written or asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from hfpeer.errors import InvalidName
from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer.net.address import Address
from hfpeer_cli.amounts import size_bytes
from hfpeer_cli.interrupts import Interruptible
from hfpeer_cli.invocation import Invocation

COMPLETION_VARIABLE = "_HFPEER_COMPLETE"
"""Set by the completion script of a shell when it asks for the words that can follow."""

Parsed = TypeVar("Parsed")

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


class Verb(click.Command):
    """A command. Its help ends with examples and exit codes, it takes `--json`, and Ctrl-C raises KeyboardInterrupt."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.extend(global_options(is_hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        with Interruptible():
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(formatter, self.examples)


class Noun(click.Group):
    """A word that groups verbs."""

    command_class = Verb

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.extend(global_options(is_hidden=True))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(formatter, self.examples)


def write_epilog(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Writes the examples and the exit codes below a command's options."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


def global_options(*, is_hidden: bool) -> list[click.Parameter]:
    """`--json`, `--json-lines` and `--log-level`: the root shows them, and every noun and verb takes them too."""
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
            ["--log-level"],
            type=click.Choice(LOG_LEVELS),
            expose_value=False,
            callback=_remember_log_level,
            hidden=is_hidden,
            help="How much this command logs on stderr.",
        ),
    ]


def _remember_json(ctx: click.Context, option: click.Parameter, is_json: bool) -> None:
    if is_json:
        ctx.ensure_object(Invocation).is_json = True


def _remember_json_lines(ctx: click.Context, option: click.Parameter, is_lines: bool) -> None:
    if is_lines:
        invocation = ctx.ensure_object(Invocation)
        invocation.is_json = invocation.is_lines = True


def _remember_log_level(ctx: click.Context, option: click.Parameter, level: str | None) -> None:
    if level:
        ctx.ensure_object(Invocation).log_level = level


class Word(click.ParamType, Generic[Parsed]):  # type: ignore[type-arg] # generic itself only since click 8.4
    """A word of the command line that is parsed into a value. The parser raises InvalidName."""

    def __init__(self, name: str, parse: Callable[[str], Parsed]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._parse(value) if isinstance(value, str) else value


class RepoWord(Word[RepoId]):
    """A repo of one type; completes to the repos of that type in the cache."""

    def __init__(self, repo_type: RepoType) -> None:
        super().__init__("repo", lambda text: RepoId.parse(text, repo_type))
        self._type = repo_type

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in _cached_names(ctx, self._type) if name.startswith(incomplete)]


def _cached_names(ctx: click.Context, repo_type: RepoType) -> list[str]:
    settings = ctx.ensure_object(Invocation).settings
    prefix = f"{repo_type.plural}--"
    folders = (folder for cache in (settings.cache, *settings.read_caches) for folder in cache.glob(f"{prefix}*"))
    return sorted({folder.name.removeprefix(prefix).replace("--", "/") for folder in folders})


def parse_size(text: str) -> int:
    """A number of bytes: `4GB`, `700MiB`, `4000000000`. Raises InvalidName."""
    found = size_bytes(text)
    if found is None:
        raise InvalidName(f"{text!r} is not a size.", hint="Write 100MB, 4GiB or 4000000000.", value=text)
    return found


SIZE = Word("size", parse_size)
REVISION = Word("revision", Revision.parse)
FILE = Word("path", FilePath.parse)
FOLDER = Word("folder", lambda text: _folder(text))
"""A folder of this machine, which need not exist; variables and ~ are expanded."""
ADDRESS = Word("address", Address.parse)
PORT = click.IntRange(1, 65535)


def _folder(text: str) -> Path:
    from hfpeer.config.keys import expanded  # most commands name no folder

    return expanded(text).absolute()


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
type_option = click.option(
    "--type",
    "type_",
    type=click.Choice([kind.value for kind in RepoType]),
    default=RepoType.MODEL.value,
    help="What a REPO without a prefix is.",
)
"""For commands whose REPO may be of any type."""
