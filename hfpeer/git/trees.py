"""Lists every leaf below a tree of git, within bounds, from tree objects that are read by a function. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dulwich.objects import parse_tree

from hfpeer.budgets import MAX_MANIFEST_FILES, MAX_MANIFEST_PATH_BYTES, MAX_REPEATED_ENTRIES, MAX_TREES
from hfpeer.git.proof import EMPTY_TREE, SUBMODULE_MODE, TREE_MODE
from hfpeer.manifest import FILE_MODES
from hfpeer.system.cancellation import check_stop


class BrokenTree(Exception):
    """A tree is missing, malformed, or beyond a bound. The text says which."""


@dataclass(frozen=True)
class GitEntry:
    """A leaf of the tree: a file, a submodule or an empty tree. `mode` as in `git.proof`, `object_id` in hex."""

    path: bytes
    mode: str
    object_id: str


def leaves(read: Callable[[str], bytes | None], root: str) -> Iterator[GitEntry]:
    """Every entry below a tree, except trees that are not empty. `read` gives the body of a tree by its id, None for
    one that it does not have.

    Raises BrokenTree, and ObjectFormatException for a body that is no tree.
    """
    waiting: list[tuple[bytes, str]] = [(b"", root)]
    trees = entries = path_bytes = repeated = 0
    met: set[str] = set()
    while waiting:
        folder, tree = waiting.pop()
        trees += 1
        body = b"" if tree == EMPTY_TREE else read(tree)
        if body is None:
            raise BrokenTree("its git leaves out a tree")
        is_repeated = tree in met
        met.add(tree)
        for name, mode, entry_id in _parse_tree(body):
            entries += 1
            repeated += is_repeated
            path_bytes += len(folder) + len(name)
            is_too_much = entries > MAX_MANIFEST_FILES + MAX_TREES or path_bytes > MAX_MANIFEST_PATH_BYTES
            if is_too_much or repeated > MAX_REPEATED_ENTRIES:
                raise BrokenTree("its tree is too large")
            if mode == TREE_MODE and entry_id != EMPTY_TREE:
                waiting.append((folder + name + b"/", entry_id))
            else:
                yield GitEntry(folder + name, mode, entry_id)
        if trees > MAX_TREES:
            raise BrokenTree("its tree is too large")
        check_stop()


def _parse_tree(body: bytes) -> Iterator[tuple[bytes, str, str]]:
    """(name, mode, id in hex) of each entry. Raises BrokenTree for a mode that only broken tools wrote."""
    for name, mode, entry_id in parse_tree(body, 20, strict=True):
        text = f"{mode:o}"
        if text not in FILE_MODES and text not in (TREE_MODE, SUBMODULE_MODE):
            raise BrokenTree(f"a tree has an entry of mode {text}")
        yield name, text, entry_id.decode("ascii")
