"""Compares the files of a commit with those at ModelScope, and packs the changes into commits. Pure.

The bytes decide, by size and sha256, never a name or a date. A file whose sha256 ModelScope does not tell counts as
different.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hfpeer.budgets import MIB
from hfpeer.modelscope.files import SiteFile, SourceFile

MAX_COMMIT_ACTIONS = 256
"""Changes in one commit. The site takes at most 2000."""
MAX_COMMIT_BYTES = 8 * MIB
"""Bytes of the JSON of one commit."""
OWN_PATHS = frozenset(("README.md", ".gitattributes", "configuration.json"))
"""Files that the site or its tools make in a new repo. A prune leaves them."""
_ACTION_BYTES = 256
"""About the bytes of an action, without its path and its content."""


@dataclass(frozen=True)
class Comparison:
    """The files of a commit beside those of a repo at ModelScope.

    `same` have equal bytes there, `different` others, `absent` are not there, `extra` are there alone.
    """

    same: tuple[SourceFile, ...]
    different: tuple[SourceFile, ...]
    absent: tuple[SourceFile, ...]
    extra: tuple[str, ...]

    @property
    def changed(self) -> tuple[SourceFile, ...]:
        """What a push has to send."""
        return (*self.different, *self.absent)

    @property
    def prunable(self) -> tuple[str, ...]:
        """What a prune removes."""
        return tuple(path for path in self.extra if path not in OWN_PATHS)


def compare(files: Iterable[SourceFile], there: Mapping[str, SiteFile], known: Collection[str]) -> Comparison:
    """Compares `files` with a listing of ModelScope. `known` are all paths of the commit, also of files that were not
    selected: those are not extra."""
    same, different, absent = list[SourceFile](), list[SourceFile](), list[SourceFile]()
    for file in files:
        listed = there.get(file.path)
        if listed is None:
            absent.append(file)
        elif (listed.sha256, listed.size_bytes) == (file.sha256, file.size_bytes):
            same.append(file)
        else:
            different.append(file)
    return Comparison(tuple(same), tuple(different), tuple(absent), tuple(sorted(there.keys() - set(known))))


@dataclass(frozen=True)
class Change:
    """One action of a commit: a file to be there, or a path to be removed."""

    path: str
    file: SourceFile | None = None

    @property
    def size_in_commit_bytes(self) -> int:
        """About the bytes that it takes in the JSON of the commit."""
        content = self.file.size_bytes if self.file is not None and self.file.is_plain_there else 0
        return _ACTION_BYTES + len(self.path.encode()) + 4 * content // 3


def batches(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """The changes in as few commits as fit, with `README.md` in the last: a repo without it is not whole yet."""
    last = [change for change in changes if change.path == "README.md"]
    batch, size_bytes = list[Change](), 0
    for change in [*(change for change in changes if change.path != "README.md"), *last]:
        if batch and (len(batch) == MAX_COMMIT_ACTIONS or size_bytes + change.size_in_commit_bytes > MAX_COMMIT_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(change)
        size_bytes += change.size_in_commit_bytes
    if batch:
        yield batch
