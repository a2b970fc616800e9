"""The house keeps its order: honest names, a word at every door, and no work when a module is only imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import tomlkit

PACKAGE_FOLDERS = ("hfpeer", "cli/hfpeer_cli", "daemon/hfpeer_daemon")
DRAWERS = re.compile(
    r"(^|_)(utils?|common|helpers?|misc|base|managers?|handlers?|controllers?|services?|cmds?|tools?)(_|$)"
)
"""Names that say nothing about what is inside."""
HEAVY = {
    *("asyncio", "dns", "dulwich", "fastapi", "httpx", "huggingface_hub", "rich", "sqlalchemy", "uvicorn"),
    "zeroconf",
}
OF_EXTRAS = {"datasets", "distributed", "orjson", "pandas", "pyarrow", "redis"}
"""Libraries that an extra brings. They are imported where they are used, after a look whether they are there."""
MAX_MODULES_OF_HELP = 130
"""At most this many modules are loaded for `--help`, beside the interpreter's own: what takes time is loading."""

LIST_MODULES = "import sys; print(*sorted(sys.modules))"
HELP_IN_PROCESS = """
import contextlib, io, sys
from hfpeer_cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    main(["--help"])
assert "Usage: hfpeer" in shown.getvalue()
"""
WATCHED_IMPORT = """
import importlib, os, sys, threading

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
           "os.putenv", "os.system", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.bind", "socket.connect",
           "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect", "signal.signal", "urllib.Request"}
seen = []

def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes and arguments[0] != os.devnull or event in CHANGES:
        seen.append((event, str(arguments)[:200]))

def bring(names):
    for name in names:
        importlib.import_module(name)

libraries, _, modules = " ".join(sys.argv[1:]).partition(" -- ")
bring(libraries.split())  # what other people's libraries do is theirs
sys.addaudithook(watch)
bring(modules.split())
print(*seen, sep="\\n", end="")
print(*[thread.name for thread in threading.enumerate()][1:], end="")
"""


def source_files(root: Path) -> list[Path]:
    return sorted(file for folder in PACKAGE_FOLDERS for file in (root / folder).rglob("*.py"))


def imported_libraries(root: Path) -> set[str]:
    imported = {name for file in source_files(root) for name in _imported(file)}
    return imported - set(sys.stdlib_module_names) - {Path(folder).name for folder in PACKAGE_FOLDERS}


def run_python(code: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-B", "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=60).stdout


def test_no_name_is_a_drawer(root: Path) -> None:
    folders = ("hfpeer", "cli", "daemon", "tests", "bench")
    files = [file.relative_to(root) for folder in folders for file in (root / folder).rglob("*.py")]
    names = {part.removesuffix(".py") for file in files for part in file.parts}
    assert [name for name in sorted(names) if DRAWERS.search(name)] == []


def test_every_module_says_what_it_is(root: Path) -> None:
    silent = [file for file in source_files(root) if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []


def test_every_file_is_python_3_10(root: Path) -> None:
    for file in source_files(root):
        ast.parse(file.read_text(), filename=str(file), feature_version=(3, 10))


def test_the_architecture_names_every_room_of_the_core(root: Path) -> None:
    text = (root / "ARCHITECTURE.md").read_text()
    house = set(re.findall(r"[a-z_]+", text.partition("## The house")[2].partition("## The main path")[0]))
    core = root / "hfpeer"
    rooms = {file.stem for file in core.glob("*.py")} | {file.parent.name for file in core.glob("*/__init__.py")}
    assert rooms - house == {"__init__"}


def test_every_library_that_is_imported_is_declared(root: Path) -> None:
    declared = tomlkit.parse((root / "pyproject.toml").read_text()).unwrap()["project"]["dependencies"]
    brought = {Path(file).parts[0].removesuffix(".py") for name in declared for file in files(_name(name)) or ()}
    assert imported_libraries(root) - brought == OF_EXTRAS


def test_importing_any_module_changes_nothing_and_starts_nothing(
    root: Path, module_names: list[str], tmp_path: Path
) -> None:
    words = [*(imported_libraries(root) - OF_EXTRAS), "--", *module_names]
    assert run_python(WATCHED_IMPORT, *words, cwd=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_importing_hfpeer_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = run_python(f"import hfpeer; {LIST_MODULES}", cwd=tmp_path).split()
    assert "hfpeer" in loaded and (HEAVY | OF_EXTRAS).isdisjoint(loaded)


def test_the_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = set(run_python(f"{HELP_IN_PROCESS}\n{LIST_MODULES}", cwd=tmp_path).split())
    assert "hfpeer_cli.main" in loaded and (HEAVY | OF_EXTRAS).isdisjoint(loaded)
    # What an interpreter loads by itself is not counted: in a run with coverage that is much more.
    by_itself = set(run_python(LIST_MODULES, cwd=tmp_path).split())
    assert len(loaded - by_itself) <= MAX_MODULES_OF_HELP, sorted(loaded - by_itself)


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found.group()
