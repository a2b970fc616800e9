"""How a run ends: exit codes, what goes to which stream, and what a person is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.program import program, unmeasured
from fakes.stub_node import StubNode
from hfpeer import errors
from hfpeer_cli.grammar import EXIT_CODES
from hfpeer_cli.root import NOUNS, root

Run = Callable[..., Any]
COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]


@pytest.mark.parametrize("error", errors.CODES.values(), ids=errors.CODES)
def test_every_error_ends_with_its_code_a_sentence_and_a_hint(
    hfpeer: Run, node: StubNode, error: type[errors.HfpeerError]
) -> None:
    node.broken = error("It rained.", hint="Take an umbrella.", wet=True)
    ran = hfpeer("model", "ls")
    assert (ran.code, ran.out) == (error.exit_code, "")
    assert ran.err == "Error: It rained.\nHint: Take an umbrella.\n"


def test_with_json_a_problem_is_one_line_of_json_on_stderr(hfpeer: Run, node: StubNode) -> None:
    node.broken = errors.RepoNotFound("No such repo.", hint="Look again.", repo="a/b")
    ran = hfpeer("model", "ls", "--json")
    assert (ran.code, ran.out) == (4, "")
    assert ran.problem == {
        "code": "repo_not_found",
        "message": "No such repo.",
        "hint": "Look again.",
        "facts": {"repo": "a/b"},
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("model", "add", "-r", "a/b/c"), "not a repo name"),
        (("model", "add", "-r", "a b"), "not a repo name"),
        (("model", "add", "-r", "x", "-v", "a..b"), "not a revision"),
        (("model", "add", "-r", "x", "-f", "../../etc/passwd"), "not the path of a file"),
        (("peer", "add", "a b"), "not an address"),
        (("peer", "add", "host:99999"), "not an address"),
        (("peer", "add", "host:0"), "not an address"),
        (("peer", "add", "host", "-p", "0"), "1<=x<=65535"),
        (("conf", "get", "colour"), "no setting 'colour'"),
        (("conf", "set", "mdns", "maybe"), "neither true nor false"),
        (("conf", "port", "set", "seven"), "is not a valid integer"),
        (("model", "ls", "-v", "main"), "-v took 'main' as a revision, and no REPO is left."),
        (("model", "frobnicate"), "No such command"),
        (("frobnicate",), "No such command"),
        (("model", "add"), "Missing argument 'REPO'. Which one? `hfpeer model add ORG/NAME`"),
    ],
)
def test_malformed_input_exits_2_and_sends_no_request(
    hfpeer: Run, node: StubNode, environ: dict[str, str], words: tuple[str, ...], says: str
) -> None:
    ran = hfpeer(*words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert node.sessions == 0
    assert not Path(environ["HFPEER_HOME"]).exists()


def test_malformed_input_is_json_even_when_json_comes_last(hfpeer: Run) -> None:
    assert hfpeer("model", "add", "-r", "a b", "--json").problem["code"] == "bad_name"
    assert "REPO" in hfpeer("model", "add", "--json").problem["message"]


@pytest.mark.parametrize(
    ("words", "code", "facts"),
    [
        (("frobnicate",), "unknown_command", {"command": "frobnicate", "near": []}),
        (("model", "serch", "a/b"), "unknown_command", {"command": "serch", "near": ["search"]}),
        (("help", "serch"), "unknown_command", {"command": "serch", "near": ["search"]}),
        (("conf", "cache", "sett"), "unknown_command", {"command": "sett", "near": ["set"]}),
        (("model", "add"), "bad_usage", {}),
        (("model", "add", "a/b", "--frob"), "bad_usage", {}),
        (("conf", "get"), "bad_usage", {}),
        (("conf", "port", "set", "seven"), "bad_usage", {}),
        (("model", "add", "a b"), "bad_name", {"repo": "a b"}),
    ],
)
def test_a_command_line_that_is_no_command_has_codes_of_its_own(
    hfpeer: Run, words: tuple[str, ...], code: str, facts: dict[str, object]
) -> None:
    ran = hfpeer(*words, "--json")
    assert (ran.code, ran.problem["code"]) == (2, code)
    assert code == "bad_name" or ran.problem["facts"] == facts


def test_malformed_settings_name_the_key_and_where_it_was_set(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["HFPEER_LAN_LISTEN"] = "no where"
    ran = hfpeer("model", "ls")
    assert ran.code == 2
    assert "`lan.listen` (from environment HFPEER_LAN_LISTEN)" in ran.err


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe", "is no text"), (b"[[[", "is not TOML"), (None, "cannot be read: Is a directory.")],
)
def test_damaged_settings_are_a_sentence(
    hfpeer: Run, environ: dict[str, str], content: bytes | None, says: str
) -> None:
    file = Path(environ["HFPEER_HOME"]) / "settings.toml"
    file.parent.mkdir(mode=0o700)
    file.mkdir() if content is None else file.write_bytes(content)
    ran = hfpeer("model", "ls")
    assert ran.code in (2, 8) and says in ran.err and "Errno" not in ran.err


def test_a_bug_keeps_its_traceback_and_exits_70(hfpeer: Run, node: StubNode) -> None:
    node.broken = ZeroDivisionError("one over nought")
    ran = hfpeer("model", "ls")
    assert ran.code == 70
    assert "Traceback" in ran.err
    assert "ZeroDivisionError: one over nought" in ran.err


def test_a_broken_pipe_elsewhere_is_not_taken_for_a_reader_that_left(hfpeer: Run, node: StubNode) -> None:
    node.broken = BrokenPipeError(32, "some socket")
    assert hfpeer("model", "ls").code == 70


def test_the_doctor_examines_a_machine_whose_home_is_broken(hfpeer: Run, node: StubNode) -> None:
    node.broken = errors.BrokenCache("hfpeer could not write to its home: it rained.", hint="Take an umbrella.")
    ran = hfpeer("doctor")
    assert ran.code == 1 and ran.out.startswith("fault    home ") and "Take an umbrella." in ran.out
    assert "disk space" in ran.out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_bug(environ: dict[str, str], closed: str) -> None:
    words = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "conf", "ls"]
    ran = subprocess.run(words, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert bool(ran.stdout) == (not closed.startswith(">&-"))


def test_output_that_a_full_disk_refuses_is_a_sentence(environ: dict[str, str]) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [*COMMAND, "conf", "ls"],
            env=os.environ | environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == errors.StorageError.exit_code
    assert ran.stderr.splitlines() == [
        "Error: The output cannot be written: No space left on device.",
        "Hint: Make room there, or write it elsewhere.",
    ]


def test_no_words_at_all_print_the_help_and_exit_2(hfpeer: Run) -> None:
    ran = hfpeer()
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: hfpeer" in ran.err


def _commands() -> list[tuple[str, ...]]:
    import click

    found: list[tuple[str, ...]] = [()]
    with click.Context(root) as ctx:
        stack: list[tuple[tuple[str, ...], click.Command]] = [((), root)]
        while stack:
            path, command = stack.pop()
            if not isinstance(command, click.Group):
                continue
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                found.append((*path, name))
                stack.append(((*path, name), child))
    return found


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_works_everywhere_with_examples(hfpeer: Run, words: tuple[str, ...], flag: str) -> None:
    ran = hfpeer(*words, flag)
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: {' '.join(('hfpeer', *words))} " in ran.out
    assert "Examples:\n" in ran.out
    assert ("Exit codes:\n" in ran.out) is (words == ())
    assert not re.search(r"[^A-Z\]]\.\.\.", ran.out), "a summary is cut off"
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_help_lists_every_exit_code_that_an_error_has(hfpeer: Run) -> None:
    assert {error.exit_code for error in errors.CODES.values()} < EXIT_CODES.keys()
    out = hfpeer("-h").out
    assert all(re.search(rf"^  {code}  +\w", out, re.MULTILINE) for code in EXIT_CODES)


def test_the_help_of_the_root_matches_the_nouns(hfpeer: Run) -> None:
    out = hfpeer("-h").out
    assert all(re.search(rf"^  {noun} ", out, re.MULTILINE) for noun in NOUNS)


def test_version(hfpeer: Run) -> None:
    assert hfpeer("--version").out == "hfpeer, version 0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    heavy = ["rich", "httpx", "sqlalchemy", "zeroconf", "huggingface_hub", "asyncio", "tomlkit", "dulwich", "fastapi"]
    script = (
        "import sys\nfrom hfpeer_cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(name for name in {heavy!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_command_loads_no_reader_of_settings_where_no_file_sets_any(environ: dict[str, str]) -> None:
    readers = ["tomllib", "tomlkit"]
    script = (
        "import sys\nfrom hfpeer_cli.main import main\ntry:\n    main(['conf', 'ls'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(name for name in {readers!r} if name in sys.modules))"
    )
    env = {**unmeasured(), **environ}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert "lan.allow" in done.stdout
    assert done.stderr == ""


def test_a_reader_that_leaves_is_no_error(environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "conf", "ls"], stdout=writing, stderr=subprocess.PIPE, env={**os.environ, **environ}, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


SLEEPING_ADD = """
import asyncio, sys
from contextlib import asynccontextmanager
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main

class Node:
    async def add(self, request, on_event):
        print("started", flush=True)
        await asyncio.Event().wait()

@asynccontextmanager
async def session(settings):
    yield Node()

main(sys.argv[1:], Invocation(open_session=session))
"""


@pytest.mark.parametrize(("flags", "says"), [((), "continues"), (("--json",), '"interrupted"')])
def test_ctrl_c_exits_130_with_one_line_that_says_that_a_later_run_continues(
    environ: dict[str, str], flags: tuple[str, ...], says: str
) -> None:
    with program(
        [sys.executable, "-c", SLEEPING_ADD, "model", "add", "-r", "a/b", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (130, "")
        assert says in err
        assert err.count("\n") == 1
