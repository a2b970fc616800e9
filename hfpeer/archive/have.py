"""The have-file: the blobs that a node has, so that an archive for it can leave them out. Pure.

The first line is `hfpeer-have 1`; each other line is a digest, or a digest and the number of bytes that the node has of
it, from its start on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hfpeer.errors import BadArchive, InvalidName
from hfpeer.names import Digest

FIRST_LINE = "hfpeer-have 1"


@dataclass(frozen=True)
class Have:
    """The `whole` blobs of a node, and by digest the first bytes that it has of others."""

    whole: frozenset[Digest] = frozenset()
    prefixes: Mapping[Digest, int] = field(default_factory=dict)

    def of(self, digests: Iterable[Digest]) -> Have:
        """The part of it that is about these blobs."""
        wanted = frozenset(digests)
        kept = {digest: count for digest, count in self.prefixes.items() if digest in wanted}
        return Have(self.whole & wanted, kept)

    def to_text(self) -> str:
        """The have-file; `parse_have` is its inverse."""
        prefixes = [f"{digest} {count}" for digest, count in self.prefixes.items() if digest not in self.whole]
        return "\n".join([FIRST_LINE, *sorted(map(str, self.whole)), *sorted(prefixes), ""])


def parse_have(text: str) -> Have:
    """The blobs that a have-file names. Raises BadArchive."""
    first, *lines = text.splitlines() or [""]
    if first.strip() != FIRST_LINE:
        raise BadArchive("This is no have-file.", hint="`hfpeer have -o FILE` writes one on the target machine.")
    whole, prefixes = set(), {}
    for number, line in enumerate(lines, 2):
        words = line.split()
        try:
            if len(words) == 1:
                whole.add(Digest.parse(words[0]))
            elif words:
                digest, count = words
                prefixes[Digest.parse(digest)] = _count(count)
        except (InvalidName, ValueError) as error:
            raise BadArchive(
                f"Line {number} of the have-file is no digest: {line[:80]!r}.",
                hint="Write it again on the target machine with `hfpeer have -o FILE`.",
            ) from error
    return Have(frozenset(whole), prefixes)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError(f"{text!r} is no number of bytes")
    return int(text)
