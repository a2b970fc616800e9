"""The texts in the source of the packages, such as messages and hints. Owns how they are read; asserts nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE_FOLDERS = ("hfpeer", "cli/hfpeer_cli", "daemon/hfpeer_daemon")
A_VALUE = "X"
"""In the place of a value that a message is made with."""


def texts_of_the_program(root: Path) -> Iterator[tuple[str, str]]:
    """The file with the line, and the text, of each string in the packages but the docstrings."""
    for folder in PACKAGE_FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            for line, text in _texts_of(file):
                yield f"{file.relative_to(root)}:{line}", text


def _texts_of(file: Path) -> Iterator[tuple[int, str]]:
    """The line and the text of each string of a module but its docstrings; X stands for what is filled in."""
    tree = ast.parse(file.read_text())
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = (part.value if isinstance(part, ast.Constant) else A_VALUE for part in node.values)
            yield node.lineno, "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | told:
            yield node.lineno, node.value
