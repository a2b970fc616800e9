"""completion: the scripts, and the completions that a shell gets from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpeer.config.settings import KEYS

Run = Callable[..., Any]
COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]
COMMIT, OLD = "5a0d" * 10, "ab12" * 10


@pytest.fixture
def cache(environ: dict[str, str]) -> Path:
    """Some repos; acme/tiny has a branch, another ref, an old commit, and files."""
    folder = Path(environ["HF_HUB_CACHE"])
    for name in ("models--acme--tiny", "models--gpt2", "datasets--acme--rows", "spaces--acme--app"):
        (folder / name / "refs").mkdir(parents=True)
    tiny = folder / "models--acme--tiny"
    (tiny / "refs" / "main").write_text(COMMIT)
    (tiny / "refs" / "refs" / "pr").mkdir(parents=True)
    (tiny / "refs" / "refs" / "pr" / "1").write_text(COMMIT)
    for commit, names in ((COMMIT, ("config.json", "onnx/model.onnx")), (OLD, ("old.bin",))):
        for name in names:
            path = tiny / "snapshots" / commit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def complete(environ: dict[str, str], line: str) -> list[str]:
    """What bash is offered at the end of a command line."""
    request = {"_HFPEER_COMPLETE": "bash_complete", "_HFPEER_LINE": line}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=os.environ | environ | request, check=True)
    assert done.stderr == ""
    return [value.partition(",")[2] for value in done.stdout.splitlines() if value]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(hfpeer: Run, environ: dict[str, str], shell: str) -> None:
    ran = hfpeer("completion", shell)
    assert ran.code == 0
    assert "_HFPEER_COMPLETE" in ran.out
    environ["SHELL"] = f"/usr/bin/{shell}"
    assert hfpeer("completion").out == ran.out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hfpeer mo", ["model", "modelscope"]),
        ("hfpeer model se", ["search"]),
        ("hfpeer add --loc", ["--local-dir", "--local-only"]),
        ("hfpeer model ls -r ", ["acme/tiny", "gpt2"]),
        ("hfpeer model ls ac", ["acme/tiny"]),
        ("hfpeer dataset rm ac", ["acme/rows"]),
        ("hfpeer rm gpt2 da", ["datasets/acme/rows"]),
        ("hfpeer why ", ["acme/tiny", "gpt2", "datasets/acme/rows", "spaces/acme/app"]),
        ("hfpeer add acme/tiny@", ["acme/tiny@main", "acme/tiny@refs/pr/1", f"acme/tiny@{OLD}"]),
        ("hfpeer add acme/tiny@ma", ["acme/tiny@main"]),
        ("hfpeer model add acme/tiny -v ", ["main", "refs/pr/1", OLD]),
        ("hfpeer model add -r acme/tiny --rev re", ["refs/pr/1"]),
        ("hfpeer model add acme/tiny -f ", ["config.json", "onnx/model.onnx"]),
        (f"hfpeer rm acme/tiny@{OLD} -f ", ["old.bin"]),
        ("hfpeer why acme/tiny on", ["onnx/model.onnx"]),
        ("hfpeer conf get mdn", ["mdns"]),
        ("hfpeer conf set limit.wan", ["limit.wan_down", "limit.wan_up"]),
        ("hfpeer peer rm ", ["10.9.8.7:9437"]),
        ("hfpeer add x --from 10", ["10.9.8.7:9437"]),
        ("hfpeer add x --on al", ["all"]),
        ("hfpeer help ex", ["export", "exit-codes"]),
        ("hfpeer help model pu", ["publish"]),
        ("hfpeer add nobody/nothing -f ", []),
        ("hfpeer space rm x", []),
    ],
)
def test_everything_that_has_a_name_is_completed(
    environ: dict[str, str], cache: Path, line: str, offered: list[str]
) -> None:
    environ["HFPEER_PEERS"] = "10.9.8.7"
    assert complete(environ, line) == offered


def test_every_key_is_offered(environ: dict[str, str]) -> None:
    assert complete(environ, "hfpeer conf get ") == list(KEYS)


@pytest.fixture
def shell_path(tmp_path: Path, environ: dict[str, str], cache: Path) -> dict[str, str]:
    """The environment of a shell in which `hfpeer` is the command of this checkout."""
    program = tmp_path / "bin" / "hfpeer"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom hfpeer_cli.main import main\nmain()\n")
    program.chmod(0o755)
    return os.environ | environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def of_shell(environ: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "last", "offered"),
    [
        ("hfpeer model ls ac", "ac", ["acme/tiny"]),
        ("hfpeer add acme/tiny@ma", "ma", ["main"]),  # bash cuts words at @
        ("hfpeer peer rm 10.9.8.7:94", "94", ["9437"]),  # and at colons
        ("hfpeer add --loc", "--loc", ["--local-dir", "--local-only"]),
    ],
)
def test_bash_completes(shell_path: dict[str, str], line: str, last: str, offered: list[str]) -> None:
    shell_path["HFPEER_PEERS"] = "10.9.8.7"
    script = f"""
        eval "$(hfpeer completion bash)"
        COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDBREAKS=$' \\t\\n"><=;|&(:@'
        _hfpeer_completion hfpeer {last} x
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert of_shell(shell_path, "bash", "--norc", "-c", script) == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_with_meanings_that_have_commas(shell_path: dict[str, str]) -> None:
    def offered(line: str) -> list[str]:
        return of_shell(
            shell_path, "fish", "--no-config", "-c", f"hfpeer completion fish | source; complete -C '{line}'"
        )

    assert offered("hfpeer model ls ac") == ["acme/tiny"]
    assert offered("hfpeer add acme/tiny@ma")[0].partition("\t")[0] == "acme/tiny@main"
    assert "--rev\tA branch, a tag, refs/pr/N or a commit id; also as REPO@REV." in offered("hfpeer add --rev")
    (key,) = offered("hfpeer conf get endpoint.nam")
    assert key.startswith("endpoint.names\tnames of this machine, beside its own, ")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(shell_path: dict[str, str]) -> None:
    script = """
        compdef() { }
        compadd() { print -l -- ${(P)${@[-1]}} }
        _describe() { print -l -- ${(P)3} }
        eval "$(hfpeer completion zsh)"
        words=(hfpeer conf get endpoint.nam) CURRENT=4; _hfpeer_completion
        words=(hfpeer model ls ac) CURRENT=4; _hfpeer_completion
    """
    key, repo = of_shell(shell_path, "zsh", "-f", "-c", script)
    assert key.startswith("endpoint.names:names of this machine, beside its own")
    assert repo == "acme/tiny"


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", ".local/share/bash-completion/completions/hfpeer"),
        ("zsh", ".local/share/zsh/site-functions/_hfpeer"),
        ("fish", ".config/fish/completions/hfpeer.fish"),
    ],
)
def test_install_writes_the_script_where_new_shells_look_and_uninstall_removes_it(
    hfpeer: Run, environ: dict[str, str], tmp_path: Path, shell: str, place: str
) -> None:
    environ |= {"HOME": str(tmp_path / "me"), "SHELL": f"/bin/{shell}"}
    path = tmp_path / "me" / place
    ran = hfpeer("completion", "--install")
    assert (ran.code, str(path) in ran.out) == (0, True)
    assert path.read_text().startswith(hfpeer("completion", shell).out.rstrip())
    assert ("before any other `compinit`" in ran.out) is (shell == "zsh")
    assert hfpeer("completion", shell, "--install", "--json").document == {"shell": shell, "path": str(path)}
    assert hfpeer("uninstall", "-y").code == 0
    assert not path.exists()


def test_a_script_of_the_user_is_not_removed(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {"HOME": str(tmp_path), "SHELL": "/bin/fish"}
    path = tmp_path / ".config/fish/completions/hfpeer.fish"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    hfpeer("uninstall", "-y")
    assert path.exists()


def test_a_shell_without_a_script_is_refused(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["SHELL"] = "/bin/tcsh"
    ran = hfpeer("completion")
    assert (ran.code, ran.err) == (
        2,
        "Error: There is no completion for the shell 'tcsh'.\nHint: Name one: bash, zsh, fish.\n",
    )
