"""completion: the script, and the completions that a shell gets from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]


def complete(environ: dict[str, str], *words: str) -> list[str]:
    """The completions of bash for the last of `words`."""
    request = {"_HFPEER_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=os.environ | environ | request, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(hfpeer: Run, shell: str) -> None:
    ran = hfpeer("completion", shell)
    assert ran.code == 0
    assert "_HFPEER_COMPLETE" in ran.out


def test_nouns_and_verbs_are_completed(environ: dict[str, str]) -> None:
    assert complete(environ, "hfpeer", "mo") == ["model", "modelscope"]
    assert complete(environ, "hfpeer", "model", "se") == ["search"]


def test_repos_are_completed_from_the_cache_by_type(environ: dict[str, str]) -> None:
    for folder in ("models--acme--tiny", "models--gpt2", "datasets--acme--rows"):
        (Path(environ["HF_HUB_CACHE"]) / folder).mkdir(parents=True)
    assert complete(environ, "hfpeer", "model", "ls", "-r", "") == ["acme/tiny", "gpt2"]
    assert complete(environ, "hfpeer", "model", "ls", "-r", "ac") == ["acme/tiny"]
    assert complete(environ, "hfpeer", "dataset", "rm", "-r", "ac") == ["acme/rows"]
    assert complete(environ, "hfpeer", "space", "rm", "-r", "") == []
