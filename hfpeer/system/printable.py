"""Makes foreign text safe for a terminal and a log. Pure."""

from __future__ import annotations

_SPACES = frozenset(" \u00a0\u3000")


def printable(text: str) -> str:
    r"""The text in one line, with escapes such as `\x1b`, `\n`, `\u202e` for characters that a terminal obeys or hides.

    File names, messages of hubs and peers, and requests may contain control sequences, or fake lines of a log.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _SPACES
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def printable_lines(text: str) -> str:
    """The same for each line of a text."""
    return "\n".join(map(printable, text.split("\n")))
