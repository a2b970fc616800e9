"""Finds the messages of the source and brings a catalog up to date with them: `just messages`.

A message is a string with a space and a letter that is no docstring, goes to no log, and names no bug of a programmer.
Each becomes a template: `f"{repo} is not in the cache."` is `{repo} is not in the cache.`.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hfpeer.language.catalog import CATALOGS, COUNT, paragraphs_of, read_catalog

PACKAGES = ("cli/hfpeer_cli", "hfpeer", "daemon/hfpeer_daemon")
PAGE = "daemon/hfpeer_daemon/page"
"""The page, with a catalog of its own."""
TO_OTHER_PROGRAMS = (
    *("daemon/hfpeer_daemon/endpoint", "daemon/hfpeer_daemon/http", "daemon/hfpeer_daemon/lan"),
    *(f"{PAGE}/{module}.py" for module in ("live", "routes", "texts")),
)
"""Folders and files whose messages go over HTTP to other programs."""
CLICK_MODULES = ("core", "decorators", "exceptions", "formatting", "parser", "termui", "types")
MIN_LETTERS = 6
"""A template with fewer letters of its own, such as `{a} of {b}`, fits too much to be translated."""

HEADER = """msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"""

WORDS = (
    "model",
    "models",
    "dataset",
    "datasets",
    "space",
    "spaces",
    "repo",
    "repos",
    "file",
    "files",
    "revision",
    "revisions",
    "stop",
    "restart",
    "start",
    "pause",
    "resume",
    "cancel",
    "paused",
    "resumed",
    "cancelled",
    "added",
    "queued",
    "here",
    "behind",
    "ahead of",
    "pinned",
    "in use",
    "stays",
    "stay",
    "it",
    "them",
    " or ",
    "page",
    "none",
    "unknown",
    "done",
    "Settings.",
    "ok",
    "warning",
    "fault",
    "node",
    "state",
    "home",
    "cache",
    "listens",
    "upstreams",
    "holds",
    "received",
    "sent",
    "fetching",
    "peers",
    "note",
    "daemon",
    "addresses",
    "interfaces",
    "disk",
    "clock",
    "proxy",
    "firewall",
    "hubs",
    "alive",
    "gone",
    "known",
    "unresolved",
    "running",
    "waiting",
    "failed",
    "fetched",
    "complete",
    "partial",
    "unlisted",
    "mixed",
    "yes",
    "never",
    "missing",
    "share",
    "rate",
    "from",
    "copy",
    "move",
    "unreadable",
    "checked",
    "rebuilt",
    "agreed",
    "attested",
    "unchecked",
    "in part",
    "no (forced)",
    "yes (forced)",
    "yes, published",
    "yes, given openly",
    "no, unknown",
    "no, private",
    "no, gated",
    "all of it",
    "a part",
    "in all",
    "{count}% of {amount}",
    "{amount} from peers",
    "{amount} from mirrors",
    "{amount} from the origin",
    "{amount} from ModelScope",
    "{amount} in {count} range",
    "{amount} in {count} ranges",
    "{source} lied {time}: {reason}",
    "{count} alive",
    "{count} gone",
    "{count} known",
    "{count} unresolved",
    "elsewhere",
    "for others",
    "also reads",
    "half-fetched",
    "{count} s ago",
    "{count} min ago",
    "{count} h ago",
    "{count} days ago",
    "{count} s",
    "{count} min",
    "{count} h",
    "{count} days",
    "again in {time}",
    "failed ({count})",
    "complete, published",
    "unlisted, published",
    "partial, published",
)
"""Single words that stand in a column, or in the place of a value."""

_LOG_CALLS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_LOGGERS = {"log", "_log", "logger", "logging"}
_BUGS = {
    "AssertionError",
    "AttributeError",
    "KeyError",
    "NotImplementedError",
    "RuntimeError",
    "TypeError",
    "ValueError",
}
_OF_PROGRAMS = {"compile", "text", "Struct", "add_argument", "execute", "executescript", "TypeVar", "NewType", "warn"}
"""Functions whose strings are no messages: patterns, SQL, formats."""
_WORD_CALLS = {"section", "translated_word", "write_heading"}
"""Functions whose strings are shown even if they are single words: headings."""
_COLUMNS = {"name", "exact", "number", "words", "age"}
"""Functions that make a column of a table under a heading of capitals."""


def messages_of(source: str) -> Iterator[str]:
    """The templates of the messages of a module."""
    tree = ast.parse(source)
    left_out = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        elif _is_for_programs(node):
            left_out.update(id(inner) for inner in ast.walk(node))
        elif isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            left_out.update(id(inner) for inner in ast.walk(node.format_spec))
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _is_command(node):
            yield from map(escaped, paragraphs_of(ast.get_docstring(node) or ""))
        elif isinstance(node, ast.Call) and _name_of(node.func) in _WORD_CALLS:
            yield from _headings(node)
        elif isinstance(node, ast.Call) and _name_of(node.func) in _COLUMNS:
            yield from filter(str.isupper, _headings(node))
        elif isinstance(node, ast.Call) and _name_of(node.func) == "counted" and len(node.args) == 2:
            noun = node.args[1]
            if isinstance(noun, ast.Constant) and isinstance(noun.value, str):
                yield from (f"{{{COUNT}}} {noun.value}", f"{{{COUNT}}} {noun.value}s")
        elif id(node) not in left_out | parts:
            template = _template(node) or ""
            # Paragraphs of a page are looked up one by one.
            yield from filter(_is_message, template.split("\n\n"))


def _is_for_programs(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return raised is not None and _name_of(raised) in _BUGS
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr in _LOG_CALLS:
        return _name_of(node.func.value) in _LOGGERS
    return _name_of(node.func) in _OF_PROGRAMS


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = (each.func if isinstance(each, ast.Call) else each for each in function.decorator_list)
    return any(_name_of(call) in {"command", "group"} for call in calls)


def _headings(call: ast.Call) -> Iterator[str]:
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search("[A-Za-z]{2}", node.value):
            yield escaped(node.value)


def escaped(text: str) -> str:
    """A fixed text as a template."""
    return text.replace("{", "{{").replace("}", "}}")


def _template(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return escaped(node.value)
    if not isinstance(node, ast.JoinedStr):
        return None
    template, names, was_value = "", list[str](), False
    for part in node.values:
        if isinstance(part, ast.Constant):
            template += escaped(str(part.value))
            was_value = False
        elif isinstance(part, ast.FormattedValue) and not was_value:
            # Where two values touch, the text does not say where the first one ends: they are one.
            names.append(_placeholder(part.value, names))
            template += f"{{{names[-1]}}}"
            was_value = True
    return template


def _placeholder(value: ast.expr, taken: Iterable[str]) -> str:
    name = re.sub(r"\W+", "_", ast.unparse(value)).strip("_")[:32] or "value"
    name = f"value_{name}" if name == COUNT or name[0].isdigit() else name
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _is_message(template: str) -> bool:
    own = re.sub(r"{[^{}]*}", "", template)
    if "\n" in own.strip("\n") or not re.search(r"[A-Za-z]{2}", own) or " " not in template.strip():
        return False
    return "{" not in template or len(re.findall("[A-Za-z]", own)) >= MIN_LETTERS


def messages_of_click() -> Iterator[str]:
    """The messages of click, which it marks with gettext's `_` and `ngettext`."""
    import click

    folder = Path(click.__file__).parent
    for module in CLICK_MODULES:
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name_of(node.func) in {"_", "ngettext"}:
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield from paragraphs_of(argument.value) if "{" not in argument.value else [argument.value]


def all_messages(root: Path) -> dict[str, list[str]]:
    """The template of each message, in the order of the source, with the files that have it."""
    found = dict[str, list[str]]()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            name = str(file.relative_to(root))
            if name.startswith(TO_OTHER_PROGRAMS) or name.endswith("language/extraction.py"):
                continue
            for message in messages_of(file.read_text(encoding="utf-8")):
                if name not in found.setdefault(message, []):
                    found[message].append(name)
    for word in WORDS:
        found.setdefault(word, []).append("cli/hfpeer_cli")
    for message in dict.fromkeys(messages_of_click()):
        found.setdefault(message, []).append("click")
    return found


def page_messages(root: Path) -> dict[str, list[str]]:
    """The texts of the page, which its templates mark with `t`, with the templates that have them."""
    from jinja2 import Environment
    from jinja2.ext import extract_from_ast

    found = dict[str, list[str]]()
    for file in sorted((root / PAGE / "templates").rglob("*.html")):
        source = Environment().parse(file.read_text(encoding="utf-8"))
        for _, _, text in extract_from_ast(source, gettext_functions=("t",)):
            first = text[0] if isinstance(text, tuple) else text
            names = found.setdefault(str(first), [])
            if (name := str(file.relative_to(root))) not in names:
                names.append(name)
    return found


def update(messages: Mapping[str, Sequence[str]], catalog: Path) -> tuple[int, int]:
    """Brings a catalog up to date: new messages without a translation, none of messages that are gone. Gives the counts
    of messages and of those without a translation."""
    before = read_catalog(catalog.read_text(encoding="utf-8")) if catalog.exists() else {}
    entries = [HEADER.format(language=catalog.stem)]
    for message, files in messages.items():
        entries.append(f"#: {' '.join(files)}\nmsgid {_quoted(message)}\nmsgstr {_quoted(before.get(message, ''))}\n")
    catalog.write_text("\n".join(entries), encoding="utf-8")
    return len(messages), sum(not before.get(message) for message in messages)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main() -> int:
    """Updates the catalogs; the exit code is 1 where a message has no translation."""
    root = CATALOGS.parents[1]
    found = {CATALOGS: all_messages(root), root / PAGE: page_messages(root)}
    counts = [update(messages, file) for folder, messages in found.items() for file in sorted(folder.glob("*.po"))]
    for messages, untranslated in counts:
        print(f"{messages} messages, {untranslated} without a translation")
    return int(any(untranslated for _, untranslated in counts))


if __name__ == "__main__":
    sys.exit(main())
