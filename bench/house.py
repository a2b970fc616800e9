"""Counts that show whether a newcomer finds the way: folders, import chains, classes, locks, sentences.

    python -m bench.house
    python -m bench.house --root ../older-checkout

Files per folder, and the longest import chain inside each; the chains of a few packages as wholes; the largest classes
by lines and by attributes; the `with` blocks that take another object's lock; and the odd constructions in docstrings
and comments, which tests/project/test_language.py defines. Reads the sources only; imports nothing of them.
"""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from project.test_language import odd_and_words

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"hfpeer": "hfpeer", "hfpeer_daemon": "daemon/hfpeer_daemon", "hfpeer_cli": "cli/hfpeer_cli"}
"""Package -> its folder."""
WHOLES = ("hfpeer.transfer", "hfpeer.endpoint", "hfpeer.cache", "hfpeer.peers", "hfpeer_daemon")
"""Packages whose import chain is counted through all their folders, too."""
LARGEST = 8
LOCK_NAMES = ("lock", "condition", "changed", "mutex")
"""Ends of the names of locks."""


@dataclass(frozen=True)
class ClassSize:
    """`attributes` are those that its methods set on `self`, and its annotated fields."""

    name: str
    lines: int
    attributes: int


@dataclass(frozen=True)
class House:
    """The sources of one checkout: module name -> syntax tree."""

    trees: Mapping[str, ast.Module]
    packages: frozenset[str]

    @classmethod
    def read(cls, root: Path) -> House:
        trees, packages = {}, set()
        for package, place in PLACES.items():
            for file in sorted((root / place).rglob("*.py")):
                parts = [package, *file.relative_to(root / place).with_suffix("").parts]
                if parts[-1] == "__init__":
                    parts.pop()
                    packages.add(".".join(parts))
                trees[".".join(parts)] = ast.parse(file.read_text())
        return cls(trees, frozenset(packages))

    def folders(self) -> dict[str, list[str]]:
        """Folder -> its modules, without `__init__`."""
        found = defaultdict(list)
        for module in self.trees:
            if module not in self.packages:
                found[module.rpartition(".")[0]].append(module)
        return dict(sorted(found.items()))

    def imports(self, module: str) -> set[str]:
        """The modules of this checkout that a module imports when it runs; not those for type checkers alone."""
        found = set()
        for node in _running(self.trees[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found & self.trees.keys() - self.packages - {module}

    def longest_chain(self, modules: Iterable[str]) -> list[str]:
        """The longest chain of modules of which each imports the next; each module is in it once."""
        inside = frozenset(modules)
        edges = {module: self.imports(module) & inside for module in inside}
        under_way: set[str] = set()

        def longest(chains: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
            return max(chains, key=lambda found: len(found), default=())

        @cache
        def chain(module: str) -> tuple[str, ...]:
            under_way.add(module)
            rests = [chain(other) for other in sorted(edges[module]) if other not in under_way]
            under_way.discard(module)
            return module, *longest(rests)

        return list(longest(map(chain, sorted(inside))))

    def classes(self) -> Iterator[ClassSize]:
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    yield ClassSize(f"{module}.{node.name}", lines, len(set(_attributes(node))))

    def foreign_locks(self) -> dict[str, int]:
        """Module -> number of `with` blocks that take the lock of an object other than `self`."""
        found = {}
        for module, tree in self.trees.items():
            blocks = [node for node in ast.walk(tree) if isinstance(node, (ast.With, ast.AsyncWith))]
            taken = [item for block in blocks for item in block.items if _is_foreign_lock(item.context_expr)]
            if taken:
                found[module] = len(taken)
        return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without the bodies of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _running(node)


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    for below in ast.walk(node):
        match below:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name
    for field in node.body:
        match field:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _is_foreign_lock(taken: ast.expr) -> bool:
    if not isinstance(taken, ast.Attribute) or not taken.attr.lower().endswith(LOCK_NAMES):
        return False
    return not (isinstance(taken.value, ast.Name) and taken.value.id in ("self", "cls"))


def report(root: Path) -> Iterator[str]:
    """The lines to print."""
    house = House.read(root)
    yield f"{'folder':<34}{'files':>6}{'longest import chain':>22}"
    for folder, modules in house.folders().items():
        yield f"{folder:<34}{len(modules):>6}{len(house.longest_chain(modules)):>22}"
    yield f"\n{'package, all its folders':<34}{'files':>6}{'longest import chain':>22}"
    for whole in WHOLES:
        modules = [module for module in house.trees if module.startswith(f"{whole}.") and module not in house.packages]
        chain = house.longest_chain(modules)
        yield f"{whole:<34}{len(modules):>6}{len(chain):>22}"
        yield "    " + " > ".join(module.removeprefix(f"{whole}.") for module in chain)
    classes = list(house.classes())
    yield f"\n{'largest classes':<64}{'lines':>6}{'attributes':>12}"
    for one in sorted(classes, key=lambda one: -one.lines)[:LARGEST]:
        yield f"{one.name:<64}{one.lines:>6}{one.attributes:>12}"
    yield f"\n{'classes with most attributes':<64}{'lines':>6}{'attributes':>12}"
    for one in sorted(classes, key=lambda one: -one.attributes)[:LARGEST]:
        yield f"{one.name:<64}{one.lines:>6}{one.attributes:>12}"
    locks = house.foreign_locks()
    yield f"\nblocks that take another object's lock: {sum(locks.values())}"
    yield from (f"    {module} {count}" for module, count in locks.items())
    odd, words = odd_and_words(root)
    yield f"\nodd constructions: {1000 * len(odd) / words:.1f} per 1,000 words ({len(odd)} in {words:,})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    print(*report(parser.parse_args().root), sep="\n")


if __name__ == "__main__":
    main()
