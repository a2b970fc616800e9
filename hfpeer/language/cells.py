"""The cells that text takes on a terminal: characters of Chinese take two (Unicode Standard Annex 11)."""

from __future__ import annotations


def is_wide(character: str) -> bool:
    import unicodedata  # English needs none

    return unicodedata.east_asian_width(character) in ("W", "F")


def cells(text: str) -> int:
    """The width of a text in cells of a terminal. An accent of its own takes none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    import unicodedata

    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if is_wide(character) else 1


def padded(text: str, width_cells: int) -> str:
    """The text with spaces after it, up to a width."""
    return text + " " * (width_cells - cells(text))
