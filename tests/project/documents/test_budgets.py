"""The table of bounds: each has one name, one value, one sentence, and a row with its test in security.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hfpeer import budgets

SECURITY = "docs/en/reference/security.md"
ROW = re.compile(r"\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| `[^`|]+` \|")


def assigned(root: Path) -> list[tuple[str, str]]:
    """The bounds that the module sets, in order, each with its docstring in one line."""
    body = ast.parse((root / "hfpeer" / "budgets.py").read_text()).body
    found = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = " ".join(str(following.value.value).split())
            found.append((node.targets[0].id, text))
    return [(name, text) for name, text in found if name not in ("KIB", "MIB")]


def written(name: str) -> str:
    """The value of a bound as people write it: `64 KiB`, `10 s`, `1,000`."""
    value = getattr(budgets, name)
    number = f"{value:,}".removesuffix(".0")
    if "BYTES" in name and name != "MIN_BYTES_PER_ITEM":
        unit = "/s" if name.endswith("PER_SECOND") else ""
        for size, word in ((budgets.MIB, "MiB"), (budgets.KIB, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {word}{unit}"
    if name.endswith("_CHARACTERS"):
        return f"{number} characters"
    if name.endswith("_SECONDS"):
        return f"{number} s"
    return number + (" a second" if name.endswith("PER_SECOND") else "")


def test_each_bound_is_set_once_with_a_word_about_it(root: Path) -> None:
    names = [name for name, _ in assigned(root)]
    assert sorted(names) == sorted(set(names))
    assert [name for name, text in assigned(root) if not text] == []
    assert [name for name in names if getattr(budgets, name) <= 0] == []


def test_each_bound_has_a_row_with_its_value_its_sentence_and_its_test(root: Path) -> None:
    rows = {name: (value.strip(), text) for name, value, text in ROW.findall((root / SECURITY).read_text())}
    assert rows == {name: (written(name), text) for name, text in assigned(root)}
