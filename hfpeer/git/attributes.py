"""Tells which files are LFS files by the `.gitattributes` files of a folder, as git reads them. Pure.

Source: gitattributes(5) and git's `attr.c`. Only the attribute `filter` counts here. Macros count in the top folder
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfpeer.budgets import MAX_ATTRIBUTES_LINE_BYTES
from hfpeer.git.globs import GitPattern

NAME = ".gitattributes"
_MACRO = b"[attr]"
_BLANKS = b" \t\r\n"
_ESCAPES = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b"\\": 92, b'"': 34}


@dataclass(frozen=True)
class LfsRule:
    """A line about `filter`: whether the files it matches are LFS files."""

    pattern: GitPattern
    is_lfs: bool


def lfs_macros(text: bytes) -> dict[bytes, bool]:
    """The macros about `filter` that a top folder's `.gitattributes` defines."""
    found: dict[bytes, bool] = {}
    for line in _lines(text):
        if line.startswith(_MACRO):
            name, *attributes = line[len(_MACRO) :].split() or [b""]
            is_lfs = _about_filter(attributes, {})
            if is_lfs is not None:
                found[name] = is_lfs
    return found


def lfs_rules(text: bytes, macros: Mapping[bytes, bool]) -> list[LfsRule]:
    """The rules of one `.gitattributes`, in order. A later rule outweighs an earlier one."""
    rules = []
    for line in _lines(text):
        pattern, rest = _unquoted(line) if line.startswith(b'"') else _first_word(line)
        is_lfs = _about_filter(rest.split(), macros)
        if is_lfs is not None and pattern and not pattern.startswith((b"!", _MACRO)):
            rules.append(LfsRule(GitPattern(pattern), is_lfs))
    return rules


def is_lfs(path: bytes, rules: Mapping[bytes, Sequence[LfsRule]]) -> bool:
    """Whether a file is an LFS file. `rules` maps a folder's path (without a slash at its end) to its rules. The last
    rule that matches decides; rules of deeper folders come before those of upper ones."""
    folder = path
    while folder:
        folder = folder.rpartition(b"/")[0]
        below = path[len(folder) + 1 :] if folder else path
        for rule in reversed(rules.get(folder, ())):
            if rule.pattern.matches(below):
                return rule.is_lfs
    return False


def _lines(text: bytes) -> list[bytes]:
    stripped = (line.lstrip(_BLANKS).rstrip(b"\r") for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return [line for line in stripped if line and not line.startswith(b"#") and len(line) < MAX_ATTRIBUTES_LINE_BYTES]


def _about_filter(attributes: Sequence[bytes], macros: Mapping[bytes, bool]) -> bool | None:
    """Whether the last attribute about `filter` makes LFS files; None if there is none."""
    for attribute in reversed(attributes):
        if attribute.lstrip(b"-!").partition(b"=")[0] == b"filter":
            return attribute == b"filter=lfs"
        if attribute in macros:
            return macros[attribute]
    return None


def _first_word(line: bytes) -> tuple[bytes, bytes]:
    word, *rest = line.split(None, 1)
    return word, rest[0] if rest else b""


def _unquoted(line: bytes) -> tuple[bytes, bytes]:
    """A pattern in quotes, with C's escapes, and the rest of the line; no pattern if the quotes are broken."""
    pattern, at = bytearray(), 1
    while at < len(line) and line[at : at + 1] != b'"':
        if line[at : at + 1] != b"\\":
            pattern += line[at : at + 1]
            at += 1
        elif line[at + 1 : at + 2] in _ESCAPES:
            pattern.append(_ESCAPES[line[at + 1 : at + 2]])
            at += 2
        else:
            octal = line[at + 1 : at + 4]
            if len(octal) != 3 or octal[:1] not in b"0123" or not set(octal) <= set(b"01234567"):
                return b"", b""
            pattern.append(int(octal, 8))
            at += 4
    return (bytes(pattern), line[at + 1 :]) if at < len(line) else _first_word(line)
