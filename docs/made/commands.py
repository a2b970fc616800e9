"""The page of all commands, made from click's own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

import click

from hfpeer_cli.root import HIDDEN, NOUNS
from hfpeer_cli.root import root as command_line

HEAD = """\
# Commands

Made from the commands themselves by `just reference`; `-h` after a command prints the same. What a command returns:
[exit codes](exit-codes.md). What it prints with `--json`: [JSON](json.md).
"""
EVERYWHERE = {"--json", "--json-lines", "--quiet", "--log-level", "--help"}
"""Options of every command, which stand once at the top."""


def commands_page() -> str:
    """The text of the page."""
    lines = [HEAD, "| command | |", "|---|---|"]
    for noun, (_, summary) in NOUNS.items():
        lines.append(f"| [`hfpeer {noun}`](#{_anchor(f'hfpeer {noun}')}) | {summary} |")
    lines += ["", "Options that every command takes:", "", *_options(_everywhere()), ""]
    told: dict[object, str] = {}
    for path, command in all_commands():
        same = told.setdefault(_content(path, command), path)
        lines += _section(path, command) if same == path else [f"### `hfpeer {path}`", "", _as(same), ""]
    return "\n".join(lines).rstrip() + "\n"


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command but the root, with its words, groups before what is in them."""
    for noun in [*NOUNS, *HIDDEN]:
        command = command_line.get_command(_context(command_line), noun)
        assert command is not None
        yield from _below(noun, command, is_hidden=noun in HIDDEN)


def _below(path: str, command: click.Command, *, is_hidden: bool = False) -> Iterator[tuple[str, click.Command]]:
    if is_hidden or command.hidden:
        return
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(_context(command)):
            yield from _below(f"{path} {name}", command.commands[name])


def _section(path: str, command: click.Command) -> Iterator[str]:
    context = _context(command)
    usage = " ".join([f"hfpeer {path}", *command.collect_usage_pieces(context)])
    yield from (f"{'##' if ' ' not in path else '###'} `hfpeer {path}`", "", "```", usage, "```", "")
    yield from (_prose(inspect.cleandoc(command.help or "")), "")
    if isinstance(command, click.Group):
        yield from ("| command | |", "|---|---|")
        for name in command.list_commands(context):
            one = command.commands[name]
            link = f"[`{path} {name}`](#{_anchor(f'hfpeer {path} {name}')})"
            yield f"| {link} | {_cell(one.get_short_help_str(200))} |"
        yield ""
    own = [option for option in command.params if isinstance(option, click.Option) and not _is_everywhere(option)]
    if own:
        yield from (*_options(own), "")
    examples: Sequence[str] = getattr(command, "examples", ())
    if examples:
        yield from ("```sh", *examples, "```", "")


def _content(path: str, command: click.Command) -> object:
    """What a section says beside its own words and examples; that of a group says which commands are in it."""
    if isinstance(command, click.Group):
        return path
    own = [option for option in command.params if isinstance(option, click.Option) and not _is_everywhere(option)]
    return command.help, tuple(row for row in _options(own) if "`--type " not in row)


def _as(path: str) -> str:
    return f"As [`hfpeer {path}`](#{_anchor(f'hfpeer {path}')})."


def _everywhere() -> list[click.Option]:
    options = (option for option in command_line.params if isinstance(option, click.Option))
    return [option for option in options if _is_everywhere(option)]


def _is_everywhere(option: click.Option) -> bool:
    return not EVERYWHERE.isdisjoint(option.opts)


def _options(options: Sequence[click.Option]) -> Iterator[str]:
    yield from ("| option | |", "|---|---|")
    for option in options:
        record = option.get_help_record(_context(command_line)) or (", ".join(option.opts), option.help or "")
        yield f"| `{record[0].replace('|', '¦')}` | {_cell(record[1])} |".replace("¦", "\\|")


def _context(command: click.Command) -> click.Context:
    """A context as commands have it when they run: click keeps the help option that it makes for the first one."""
    return click.Context(command, help_option_names=command_line.context_settings["help_option_names"])


def _prose(text: str) -> str:
    """Paragraphs of a help, each in lines of its own, so that nothing in them is taken for Markdown but `code`."""
    return "\n\n".join(re.sub(r"\s+", " ", part).replace("<", "&lt;") for part in re.split(r"\n\s*\n", text.strip()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
