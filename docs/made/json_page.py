"""The parts of the pages on JSON that follow from the schema: the table of commands, and the fields of documents."""

from __future__ import annotations

from docs.made.documents import DOCUMENTS, JSON_SCHEMA, schema
from docs.made.schema import Schema

HEAD = f"""\
# JSON documents

The fields of what commands print with `--json`, made from the code by `just reference`. The same as JSON Schema:
`{JSON_SCHEMA}`. How to use them, and which command prints which: [JSON](json.md).
"""


def commands_table() -> str:
    """A row for each command that prints JSON, with its document."""
    documents: dict[str, Schema] = schema()["properties"]
    return "".join(f"| `hfpeer {command}` | {_type(documents[command])} |\n" for command in DOCUMENTS)


def documents_page() -> str:
    """A section for each kind of object, with its fields."""
    lines = [HEAD]
    for name, one in sorted(schema()["$defs"].items()):
        lines += [f"## {name}", "", one["description"], "", "| field | type |", "|---|---|"]
        lines += [f"| `{field}` | {_type(kind, is_here=True)} |" for field, kind in one["properties"].items()]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _type(kind: Schema, *, is_here: bool = False) -> str:
    """A type in words: `array of [Step](…)`, `string or null`."""
    if "$ref" in kind:
        name = str(kind["$ref"]).rpartition("/")[2]
        return f"[{name}]({'' if is_here else 'json-documents.md'}#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(_type(one, is_here=is_here) for one in kind["anyOf"])
    if "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind["enum"])
    if "prefixItems" in kind:
        return f"array of {' and '.join(_type(one, is_here=is_here) for one in kind['prefixItems'])}"
    if "items" in kind:
        return f"array of {_type(kind['items'], is_here=is_here)}"
    if isinstance(kind.get("additionalProperties"), dict):
        return f"object of {_type(kind['additionalProperties'], is_here=is_here)}"
    return str(kind.get("type", "any"))
