"""All files of docs/ that are made, wholly or in part, from the code."""

from __future__ import annotations

import json
from pathlib import Path

from docs.made.commands import commands_page
from docs.made.documents import JSON_SCHEMA, schema
from docs.made.json_page import commands_table, documents_page
from docs.made.tables import TABLES, as_markdown

COMMANDS = "docs/en/reference/commands.md"
JSON = "docs/en/reference/json.md"
JSON_DOCUMENTS = "docs/en/reference/json-documents.md"


def made_files(root: Path) -> dict[str, str]:
    """Path in the checkout -> text. Tables between `<!-- name -->` and `<!-- /name -->` are put into their page."""
    made = {
        COMMANDS: commands_page(),
        JSON_DOCUMENTS: documents_page(),
        JSON_SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
    }
    pages = [(f"docs/en/{page}", name, f"{as_markdown(told())}\n") for name, (page, told) in TABLES.items()]
    for page, name, rows in [*pages, (JSON, "documents", commands_table())]:
        text = made.get(page) or (root / page).read_text(encoding="utf-8")
        made[page] = _with_rows(text, name, rows)
    return made


def _with_rows(text: str, name: str, rows: str) -> str:
    """The text with new rows below the two head lines of its table."""
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    table, end, after = rest.partition(f"<!-- /{name} -->\n")
    head = "".join(f"{line}\n" for line in table.splitlines()[:2])
    return before + begin + head + rows + end + after
