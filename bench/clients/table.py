"""The page of tested clients: its tables as Markdown, and their verdicts read back. Owns the form; decides nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from .situations import SITUATIONS, Cell, Row

HEADINGS = {"cold": "cold", "warm": "warm", "off": "hub off", "peer": "peer only"}
KINDS = ("ref", "info", "listing", "history", "git", "LFS", "file")
INTRODUCTION = """# Tested clients

Real clients with `HF_ENDPOINT` set to a node and nothing else. Made by `python -m bench.clients`; CI runs it and fails
where a verdict below is no longer so. What came was compared, by sha256, with what lies in the repo.
"""
LEGEND = """\
- **cold**: nothing is here, the hub is up. **warm**: the same again, the client's own cache emptied. **hub off**: once
  more, no hub can be reached. **peer only**: on a second node, which has nothing, reaches no hub, and knows the first.
- Behind the tick stands what reached the hub. *ref*: what a branch is now. *info*: what the hub says of a commit.
  *listing*: the files of a commit. *history*: the commits before it. *git*: the proof of that list,
  or what git asks for itself. *file*: contents. The nodes here know for a second what a branch is (`endpoint.ref_ttl`,
  else 60), so that warm runs show that it is asked.
- A row is wrong too when a warm run asks for anything but a ref, when a cold one takes an LFS byte twice, when a client
  goes to the Xet storage round the node, or when a token is sent that nobody gave."""


def document(rows: Sequence[Row], versions: Mapping[str, str], faults: Sequence[str]) -> str:
    """The whole file. `faults` are the lines of the second table, none if it was not made."""
    found = "; ".join(f"{name} {version}" for name, version in versions.items())
    lines = [INTRODUCTION, *([f"Versions: {found}.", ""] if found else [])]
    lines += ["## Situations", "", *_situations(rows), "", LEGEND, "", *_warm_requests(rows), ""]
    lines += ["## Faults", "", *faults] if faults else []
    return "\n".join(lines).rstrip() + "\n"


def _situations(rows: Iterable[Row]) -> list[str]:
    notes: list[str] = []
    lines = ["| client | does | " + " | ".join(HEADINGS.values()) + " |", "|---" * (2 + len(HEADINGS)) + "|"]
    for row in rows:
        name = row.client.name + (_note(notes, row.client.note) if row.client.note else "")
        cells = [_shown(row, situation, notes) for situation in SITUATIONS]
        lines.append("| " + " | ".join([name, row.client.does, *cells]) + " |")
    return [*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]


def _shown(row: Row, situation: str, notes: list[str]) -> str:
    if row.not_run:
        return "not run" + _note(notes, row.not_run)
    cell = row.cells[situation]
    return f"✗{_note(notes, cell.wrong)}" if cell.wrong else f"✓ {_asked(cell)}"


def _asked(cell: Cell) -> str:
    kinds = [*KINDS, *sorted(set(cell.asked) - {*KINDS})]
    return ", ".join(f"{cell.asked[kind]} {kind}" for kind in kinds if cell.asked.get(kind)) or "0"


def _note(notes: list[str], text: str) -> str:
    if text not in notes:
        notes.append(text)
    return f" [{notes.index(text) + 1}]"


def _warm_requests(rows: Iterable[Row]) -> list[str]:
    targets = sorted({target for row in rows if "warm" in row.cells for target in row.cells["warm"].targets})
    return ["Warm, the hub was asked for nothing but:", "", *(f"- `{target}`" for target in targets)] if targets else []


# Verdicts


def verdicts(text: str) -> dict[str, str]:
    """The verdict of each cell of a document's tables, by table, row and column; numbers and remarks left out."""
    found: dict[str, str] = {}
    section = ""
    header: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            section, header = line.lstrip("# "), []
        if not line.startswith("|") or line.startswith("|---"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not header:
            header = cells
            continue
        name = " · ".join(re.sub(r" \[\d+\]", "", cell) for cell in cells[:2])
        for heading, cell in zip(header[2:], cells[2:], strict=False):
            if verdict := re.match(r"✓|✗|not run", cell):
                found[f"{section}: {name}: {heading}"] = verdict[0]
    return found


def drift(committed: str, made: str) -> list[str]:
    """Where the verdicts differ. What was not run now, or is no row now, is no difference."""
    old, new = verdicts(committed), verdicts(made)
    changed = [key for key, verdict in new.items() if verdict != "not run" and old.get(key) != verdict]
    return [f"{key} was {old.get(key, 'not there')}, is {new[key]}" for key in changed]
