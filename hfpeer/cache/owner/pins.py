"""The owner's pins: revisions that no cleaning removes by itself. `pins.txt` in the home, a pattern a line.

A pattern is `ORG/NAME`, `datasets/ORG/NAME` or one with `*`, and perhaps `@REV`: a branch, a tag, or the first digits
of a commit. The file is the only copy, and is read at each use: it is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hfpeer.cache.disk.os_errors import MOVES_HOME, translated
from hfpeer.cache.snapshots import write_file
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.names import RepoId, RepoType
from hfpeer.system.ownership import make_own_folder, read_own

_PATTERN = re.compile(r"[\w.*?-]+(/[\w.*?-]+)?(@\S+)?")


@dataclass(frozen=True)
class Pin:
    """A pattern of repos of one type, and perhaps of one revision."""

    type: RepoType
    name: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str, type: RepoType | None = None) -> Pin:
        """Reads a pattern; `type` is that of one without a prefix. Raises InvalidName."""
        rest = text.strip()
        for kind in RepoType:
            if rest.startswith(f"{kind.plural}/"):
                type, rest = kind, rest.removeprefix(f"{kind.plural}/")
        if not _PATTERN.fullmatch(rest):
            raise InvalidName(
                f"{text!r} is no pattern of repos.", hint="Write ORG/NAME, ORG/*, or one of them with @REV.", value=text
            )
        name, _, revision = rest.partition("@")
        return cls(type or RepoType.MODEL, name, revision)

    def fits(self, repo: RepoId, commit: str, refs: Iterable[str]) -> bool:
        """Whether a revision is pinned by this pattern."""
        if repo.type != self.type or not fnmatchcase(repo.full_name, self.name):
            return False
        is_commit = len(self.revision) >= MIN_DIGITS and commit.startswith(self.revision)
        return not self.revision or self.revision in refs or is_commit

    def __str__(self) -> str:
        prefix = "" if self.type is RepoType.MODEL else f"{self.type.plural}/"
        return f"{prefix}{self.name}" + (f"@{self.revision}" if self.revision else "")


MIN_DIGITS = 6
"""The least number of digits that name a commit."""


class Pins:
    """The pins of a node, below its `home`. Raises BrokenCache if their file cannot be read or written."""

    def __init__(self, home: Path) -> None:
        self._path = home / "pins.txt"

    def all(self) -> list[Pin]:
        with translated("read the pins", self._path, elsewhere=MOVES_HOME):
            try:
                lines = read_own(self._path).decode().splitlines()
            except FileNotFoundError:
                return []
            except UnicodeDecodeError as error:
                raise self._damaged("it is no text") from error
        try:
            return [Pin.parse(line) for line in lines if line.strip() and not line.startswith("#")]
        except InvalidName as error:
            raise self._damaged(error.message.rstrip(".")) from error

    def _damaged(self, reason: str) -> BrokenCache:
        """Nothing is unpinned for a line that cannot be read: what it named might be removed."""
        return BrokenCache(
            f"The pins cannot be read: {reason} ({self._path}).",
            hint="Mend the file, or delete it and pin again: `hfpeer model pin`.",
            path=str(self._path),
        )

    def add(self, pins: Iterable[Pin]) -> None:
        self._write(dict.fromkeys([*self.all(), *pins]))

    def remove(self, pins: Iterable[Pin]) -> list[Pin]:
        """Removes pins. Gives those that were there."""
        gone = set(pins)
        known = self.all()
        self._write(pin for pin in known if pin not in gone)
        return [pin for pin in known if pin in gone]

    def _write(self, pins: Iterable[Pin]) -> None:
        with translated("write the pins", self._path, elsewhere=MOVES_HOME):
            make_own_folder(self._path.parent)
            write_file(self._path, "".join(f"{pin}\n" for pin in pins), 0o600, is_synced=True)
