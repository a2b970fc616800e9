"""Names that may have been meant by a word that is none of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

ALIKE = 0.75
"""The least likeness of two words, by difflib's ratio, at which one may be a slip of the other."""
MIN_BEGINNING = 3
"""A word of at least this many letters may be the beginning of a name."""


def near(word: str, names: Iterable[str]) -> list[str]:
    """At most three names that `word` may be a slip or the beginning of, the likeliest first; options with dashes. Of a
    dotted name its last part is compared too."""
    from difflib import SequenceMatcher  # only a mistake needs it

    bare = word.lstrip("-").lower()
    found = []
    for name in dict.fromkeys(names):
        whole = name.lstrip("-").lower()
        parts = {whole, whole.rpartition(".")[2]}
        likeness = max(SequenceMatcher(None, bare, part).ratio() for part in parts)
        if len(bare) >= MIN_BEGINNING and any(part.startswith(bare) for part in parts):
            likeness = max(likeness, ALIKE)
        if likeness >= ALIKE and name.startswith("-") is word.startswith("-"):
            found.append((-likeness, name))
    return [name for _, name in sorted(found)[:3]]


def did_you_mean(names: Iterable[str]) -> str:
    """A sentence with names, after a space; nothing without names."""
    quoted = [repr(name) for name in names]
    return f" Did you mean {' or '.join(quoted)}?" if quoted else ""
