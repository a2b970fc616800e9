"""Man pages, from the text of the help: `hfpeer(1)`, one for each first word, and one in section 7 for each topic.

The markup is that of man(7), which every `man` understands.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

import hfpeer
from hfpeer_cli.commands.manual.topics import TOPICS, Topic
from hfpeer_cli.grammar import EXIT_CODES

SOURCE = f"hfpeer {hfpeer.__version__}"


def write_pages(root: click.Context, folder: str) -> str:
    """Writes all pages into `man1` and `man7` below a folder, which may be missing. Returns a sentence."""
    place = Path(folder).expanduser()
    pages = dict(all_pages(root))
    for name, text in pages.items():
        path = place / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return f"{len(pages)} man pages in {place}: `man -M {place} hfpeer` shows the first."


def all_pages(root: click.Context) -> Iterator[tuple[str, str]]:
    """The file name and the text of each page."""
    group = root.command
    assert isinstance(group, click.Group)
    names = group.list_commands(root)
    pages = [f"hfpeer-{name}" for name in names]
    yield "hfpeer.1", _root_page(root, pages)
    for name in names:
        command = group.get_command(root, name)
        assert command is not None
        ctx = click.Context(command, parent=root, info_name=name)
        yield f"hfpeer-{name}.1", _command_page(ctx, ["hfpeer(1)", *(f"hfpeer-{topic}(7)" for topic in TOPICS)])
    for name, (summary, make) in TOPICS.items():
        yield f"hfpeer-{name}.7", _topic_page(name, summary, make())


def _root_page(ctx: click.Context, pages: Sequence[str]) -> str:
    group = ctx.command
    assert isinstance(group, click.Group)
    summaries = [(name, _summary(group.get_command(ctx, name))) for name in group.list_commands(ctx)]
    lines = [
        *_head("hfpeer", 1, "all the Hugging Face caches of a LAN as one"),
        *_section("SYNOPSIS", _synopsis(ctx)),
        *_section("DESCRIPTION", _paragraphs(ctx.command.help)),
        *_section("OPTIONS", _options(ctx)),
        *_section("COMMANDS", _terms([(f"hfpeer {name}", summary) for name, summary in summaries])),
        *_section("EXIT STATUS", _terms([(str(code), meaning) for code, meaning in EXIT_CODES.items()])),
    ]
    others = [*(f"{page}(1)" for page in pages), *(f"hfpeer-{topic}(7)" for topic in TOPICS)]
    return _finished([*lines, *_section("SEE ALSO", [_text(", ".join(others))])])


def _command_page(ctx: click.Context, see_also: Sequence[str]) -> str:
    command = ctx.command
    name = ctx.command_path.replace(" ", "-")
    lines = _head(name, 1, _summary(command).rstrip("."))
    if isinstance(command, click.Group):
        verbs = [
            click.Context(verb, parent=ctx, info_name=verb_name)
            for verb_name in command.list_commands(ctx)
            if (verb := command.get_command(ctx, verb_name)) is not None
        ]
        alone = [ctx] if command.invoke_without_command else []
        lines += _section("SYNOPSIS", [line for each in (*alone, *verbs) for line in [*_synopsis(each), ".br"]][:-1])
        lines += _section("DESCRIPTION", _paragraphs(command.help))
        lines += _section("OPTIONS", _options(ctx))
        for each in verbs:
            lines += _section(each.command_path.upper(), _verb(each))
        lines += _examples_section(command)
    else:
        lines += _section("SYNOPSIS", _synopsis(ctx))
        lines += _section("DESCRIPTION", _paragraphs(command.help))
        lines += _section("OPTIONS", _options(ctx))
        lines += _examples_section(command)
    return _finished([*lines, *_section("SEE ALSO", [_text(", ".join(see_also))])])


def _verb(ctx: click.Context) -> Iterator[str]:
    """A verb in the page of its noun. Verbs below it have their own subsections."""
    yield from _synopsis(ctx)
    yield ".PP"
    yield from _paragraphs(ctx.command.help)
    yield from _options(ctx)
    examples = getattr(ctx.command, "examples", ())
    if examples:
        yield from (".PP", *_examples(examples))
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            verb = ctx.command.get_command(ctx, name)
            assert verb is not None
            below = click.Context(verb, parent=ctx, info_name=name)
            yield f".SS {_quoted(below.command_path)}"
            yield from _verb(below)


def _topic_page(name: str, summary: str, topic: Topic) -> str:
    lines = [
        *_head(f"hfpeer-{name}", 7, summary),
        *_section("DESCRIPTION", _paragraphs(topic.text)),
    ]
    for heading, rows in topic.sections.items():
        lines += _section(heading.upper(), _terms(rows))
    lines += _section("EXAMPLES", _examples(topic.examples)) if topic.examples else []
    return _finished([*lines, *_section("SEE ALSO", [_text("hfpeer(1)")])])


# The markup


def _head(name: str, section: int, summary: str) -> list[str]:
    at = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    date = time.strftime("%Y-%m-%d", at)
    return [
        f'.TH {_quoted(name.upper())} {section} "{date}" {_quoted(SOURCE)} "hfpeer"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary[:1].lower() + summary[1:])}",
    ]


def _section(heading: str, lines: Iterable[str]) -> list[str]:
    return [f".SH {_quoted(heading)}", *lines]


def _finished(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _synopsis(ctx: click.Context) -> list[str]:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    return [f".B {_text(ctx.command_path)}", _text(pieces)]


def _paragraphs(text: str | None) -> list[str]:
    lines = list[str]()
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        lines += [_text(" ".join(paragraph.split())), ".PP"]
    return lines[:-1]


def _options(ctx: click.Context) -> list[str]:
    options = (parameter for parameter in ctx.command.get_params(ctx) if isinstance(parameter, click.Option))
    records = (option.get_help_record(ctx) for option in options)
    return _terms([record for record in records if record is not None])


def _terms(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, meaning in rows for line in (".TP", f".B {_text(term)}", _text(meaning or ""))]


def _examples_section(command: click.Command) -> list[str]:
    examples = getattr(command, "examples", ())
    return _section("EXAMPLES", _examples(examples)) if examples else []


def _examples(examples: Sequence[str]) -> Iterator[str]:
    yield from (".nf", ".RS", *map(_text, examples), ".RE", ".fi")


def _summary(command: click.Command | None) -> str:
    assert command is not None
    return command.get_short_help_str(200)


def _text(text: str) -> str:
    """Text that no macro and no escape of roff is seen in."""
    escaped = " ".join(text.split("\n")).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', "\\(dq") + '"'
