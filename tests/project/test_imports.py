"""Who may import whom: the contracts hold, and each of them notices when it is broken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BREACHES = {
    "daemon and cli stand beside each other on the core": ("cli/hfpeer_cli/status.py", "import hfpeer_daemon.server"),
    "the core points one way": ("hfpeer/upstream/hubs.py", "import hfpeer.cache.store"),
    "inside the cache too": ("hfpeer/cache/layout.py", "import hfpeer.cache.store"),
    "inside the transfer too": ("hfpeer/transfer/picker.py", "import hfpeer.transfer.fetch"),
    "inside the endpoint too": ("hfpeer/endpoint/facts.py", "import hfpeer.endpoint.refs"),
    "inside the upstreams too": ("hfpeer/upstream/git.py", "import hfpeer.upstream.hub"),
    "inside the peers too": ("hfpeer/peers/bodies.py", "import hfpeer.peers.client"),
    "inside the daemon too": ("daemon/hfpeer_daemon/responses.py", "import hfpeer_daemon.app"),
    "the core knows neither the web framework nor the command line": ("hfpeer/node.py", "import click"),
    "the command line knows no web framework": ("cli/hfpeer_cli/output.py", "import fastapi"),
    "pure modules have no input, no output, no clock, no dice": ("hfpeer/transfer/retry.py", "import time"),
    "sqlalchemy only in the catalogue": ("hfpeer/cache/store.py", "import sqlalchemy"),
    "zeroconf only in the discovery": ("hfpeer/node.py", "import zeroconf"),
    "huggingface_hub only where tokens are": ("hfpeer/download.py", "import huggingface_hub"),
    "dulwich only where git is spoken": ("hfpeer/manifest.py", "import dulwich"),
    "httpx only where somebody is asked": ("hfpeer/settings.py", "import httpx"),
}
"""Name of a contract -> a file and the line in it that breaks it."""


def lint_imports(root: Path) -> dict[str, bool]:
    """Name of a contract -> whether it is kept in the checkout at `root`."""
    places = os.pathsep.join(str(root / folder) for folder in (".", "cli", "daemon"))
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    linted = subprocess.run(
        [*command, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": places, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    verdicts = re.findall(r"^(.+) (KEPT|BROKEN)\b", linted.stdout, re.MULTILINE)
    assert verdicts, linted.stdout + linted.stderr
    assert (linted.returncode == 0) == all(verdict == "KEPT" for _, verdict in verdicts)
    return {name: verdict == "KEPT" for name, verdict in verdicts}


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The sources of a checkout that a test may spoil."""
    for folder in ("hfpeer", "cli", "daemon"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept(root: Path) -> None:
    verdicts = lint_imports(root)
    assert [name for name, is_kept in verdicts.items() if not is_kept] == []
    assert set(verdicts) == set(BREACHES)


def test_every_contract_notices_when_it_is_broken(copy: Path) -> None:
    for path, line in BREACHES.values():
        file = copy / path
        file.write_text(f"{file.read_text()}\n{line}\n")
    assert [name for name, is_kept in lint_imports(copy).items() if is_kept] == []


def test_a_module_without_a_place_in_the_house_is_noticed(copy: Path) -> None:
    (copy / "hfpeer" / "utils.py").touch()
    (copy / "hfpeer" / "cache" / "utils.py").touch()
    broken = {name for name, is_kept in lint_imports(copy).items() if not is_kept}
    assert broken >= {"the core points one way", "inside the cache too"}
