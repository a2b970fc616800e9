"""The levels of trust in the content of a prepared set, in words for people. Pure.

No level says *proved*: that word is for files that a commit lists. A prepared set is made from such files by the code
of some machine.
"""

from __future__ import annotations

from enum import Enum


class Level(str, Enum):
    """What is known of the content of a set, by this node's own work or by the word of others."""

    CHECKED = "checked"
    """Its rows were compared with the proved files of the commit, here."""
    REBUILT = "rebuilt"
    """A build here, from the proved files, gave the same bytes."""
    AGREED = "agreed"
    """Several other nodes say that they built the same bytes."""
    ATTESTED = "attested"
    """One other machine says what it is."""
    UNCHECKED = "unchecked"
    """A program on this machine, or a copy, left it in the cache; nothing is known of it."""

    @property
    def meaning(self) -> str:
        """The level as a sentence without a full stop."""
        return _MEANINGS[self]

    @property
    def is_own_work(self) -> bool:
        """Whether this node found it out itself, without the word of another machine."""
        return self in (Level.CHECKED, Level.REBUILT)


_MEANINGS = {
    Level.CHECKED: "its rows equal those of the proved files of the commit: compared here",
    Level.REBUILT: "built here from the proved files of the commit",
    Level.AGREED: "made by other machines' code, not compared here: several nodes say that they built the same bytes",
    Level.ATTESTED: "made by another machine's code, not compared here: it rests on that machine's word",
    Level.UNCHECKED: "a program on this machine, or a copy, left it here: nothing is known of its content",
}
