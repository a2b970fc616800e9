"""Makes the receiver one file: the modules that it needs of this package, with what an old Python lacks.

The file is Python for 3.8 and later and uses the standard library alone. It is made of the very modules that `import`
runs here, so both keep the same rules. Pure but for reading those modules.
"""

from __future__ import annotations

import ast
import functools
import re
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec

from hfpeer.errors import HfpeerError

MAIN = "hfpeer.push.receiver.main"
NO_FILELOCK = "hfpeer.push.receiver.no_filelock"
_OPENING = '''"""The receiver of `hfpeer push`: takes an archive from stdin into a Hugging Face cache."""
import sys
if sys.version_info < (3, 8):
    raise SystemExit("The receiver of hfpeer needs Python 3.8.")
'''
_CLOSING = """
import builtins, dataclasses, functools, hashlib, importlib.abc, importlib.util, typing
if sys.version_info < (3, 10):
    # The modules below are written for Python 3.10.
    _zip, _dataclass = builtins.zip, dataclasses.dataclass
    builtins.zip = lambda *iterables, strict=False: _zip(*iterables)
    dataclasses.dataclass = lambda cls=None, slots=False, **options: _dataclass(cls, **options)
    typing.TypeAlias = typing.Any
    functools.cache = functools.lru_cache(maxsize=None)
if sys.version_info < (3, 9):
    _sha1 = hashlib.sha1
    hashlib.sha1 = lambda body=b"", usedforsecurity=True: _sha1(body)


class _Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name not in SOURCES:
            return None
        is_package = any(other.startswith(name + ".") for other in SOURCES)
        return importlib.util.spec_from_loader(name, self, is_package=is_package)

    def exec_module(self, module):
        name = module.__spec__.name
        exec(compile(SOURCES[name], "<" + name + ">", "exec", dont_inherit=True), module.__dict__)


sys.meta_path.insert(0, _Modules())
if importlib.util.find_spec("filelock") is None:
    import hfpeer.push.receiver.no_filelock
    sys.modules["filelock"] = sys.modules["hfpeer.push.receiver.no_filelock"]
from hfpeer.push.receiver.main import main
sys.exit(main(sys.stdin.buffer))
"""
_HEADER_END = re.compile(r"\s*,?\s*\)?\s*:")


@functools.cache
def receiver_file() -> str:
    """The text of the file: ASCII alone, because CPython reads a long line wrongly where another character lies across
    the end of its buffer."""
    sources = {name: for_old_python(source_of(name)) for name in module_names()}
    return f"{_OPENING}SOURCES = {sources!a}\n{_CLOSING}"


def module_names() -> list[str]:
    """The modules in the file: those that the receiver imports, directly or not."""
    found: set[str] = set()
    todo = [MAIN, NO_FILELOCK]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += _imported(ast.parse(source_of(name)).body)
    return sorted(found)


def source_of(name: str) -> str:
    """The source of a module of this package. Raises HfpeerError."""
    spec = find_spec(name)
    loader = None if spec is None else spec.loader
    source = loader.get_source(name) if isinstance(loader, SourceFileLoader) else None
    if source is None:
        raise HfpeerError(f"The source of {name} is not installed, so no receiver can be made.")
    return source


def _imported(body: list[ast.stmt]) -> list[str]:
    """The modules of this package that statements at the top of a module import when it runs."""
    names = []
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hfpeer"):
            names.append(str(node.module))
            parts = (f"{node.module}.{alias.name}" for alias in node.names)
            names += [part for part in parts if _is_module(part)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("hfpeer")]
        elif isinstance(node, ast.Try):
            names += _imported(node.body)
    return names


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def for_old_python(source: str) -> str:
    """The source without parentheses around the items of `with`, which Python 3.8 does not parse."""
    if "with (" not in source:
        return source
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column_bytes: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column_bytes].decode())

    withs = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With)]
    for node in sorted(withs, key=lambda node: node.lineno, reverse=True):
        items = []
        for item in node.items:
            text = ast.get_source_segment(source, item.context_expr)
            name = item.optional_vars and ast.get_source_segment(source, item.optional_vars)
            items.append(f"{text} as {name}" if name else f"{text}")
        last = node.items[-1].optional_vars or node.items[-1].context_expr
        begin = offset(node.lineno, node.col_offset)
        assert last.end_lineno is not None and last.end_col_offset is not None
        end = _HEADER_END.match(source, offset(last.end_lineno, last.end_col_offset))
        if end is not None and len(node.items) > 1 and source[begin : end.end()].startswith("with ("):
            source = f"{source[:begin]}with {', '.join(items)}:{source[end.end() :]}"
    return source
