"""The clients' own environments, built by pip (one by npm) and used again for a day. Never the one that runs this, but
for torch, which is too large to be installed twice."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SCRIPTS = Path(__file__).with_name("scripts")
BUILD_SECONDS = 240
FRESH_SECONDS = 86400
AT_ONCE = 2


class NotRun(Exception):
    """A client cannot be had on this machine, with the reason."""


@dataclass(frozen=True)
class Environment:
    """What pip or npm installs, and what pip takes out again."""

    requirements: tuple[str, ...]
    without: tuple[str, ...] = ()
    manager: Literal["pip", "npm"] = "pip"


ENVIRONMENTS = {
    "2.x": Environment(("huggingface_hub>=2,<3",)),
    "2.x plain": Environment(("huggingface_hub>=2,<3",), without=("hf_xet",)),
    "1.x": Environment(("huggingface_hub==1.29.0",)),
    "1.x plain": Environment(("huggingface_hub==1.29.0",), without=("hf_xet",)),
    "0.36": Environment(("huggingface_hub==0.36.2", "hf_xet<2")),
    "0.36 plain": Environment(("huggingface_hub==0.36.2",), without=("hf_xet",)),
    "datasets": Environment(("datasets",)),
    "JavaScript": Environment(("@huggingface/hub@2",), manager="npm"),
}
RUNNING = "running"
"""The environment that runs this, if it has torch and transformers."""


class Environments:
    """Environments below one folder; `close` waits for those still being built."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._builders = ThreadPoolExecutor(AT_ONCE)
        self._built: dict[str, Future[Path]] = {}

    def begin(self, name: str) -> None:
        """Starts to build an environment, unless that was done before."""
        if name not in self._built:
            build = _running if name == RUNNING else self._build
            self._built[name] = self._builders.submit(build, name)

    def interpreter(self, name: str) -> Path:
        """Its python or node, in its `bin`. Raises NotRun."""
        self.begin(name)
        return self._built[name].result()

    def versions(self, name: str) -> dict[str, str]:
        """Versions of the Hugging Face packages in it. Raises NotRun."""
        interpreter = self.interpreter(name)
        if interpreter.name == "node":
            return _javascript_versions(interpreter.parents[1])
        found: dict[str, str] = json.loads(_run(interpreter, SCRIPTS / "versions.py"))
        return found

    def close(self) -> None:
        self._builders.shutdown(cancel_futures=True)

    def _build(self, name: str) -> Path:
        wanted, folder = ENVIRONMENTS[name], self._folder / name.replace(" ", "-")
        interpreter = folder / "bin" / ("python" if wanted.manager == "pip" else "node")
        marker = folder / "built.json"
        recipe = json.dumps([wanted.requirements, wanted.without, sys.version])
        if not _is_fresh(marker, recipe):
            shutil.rmtree(folder, ignore_errors=True)
            build = _build_python if wanted.manager == "pip" else _build_javascript
            build(wanted, folder, interpreter)
            marker.write_text(recipe)
        return interpreter


def _build_python(wanted: Environment, folder: Path, python: Path) -> None:
    _run(sys.executable, "-m", "venv", folder)
    _run(python, "-m", "pip", "install", "--quiet", *wanted.requirements)
    for package in wanted.without:
        _run(python, "-m", "pip", "uninstall", "--quiet", "--yes", package)


def _build_javascript(wanted: Environment, folder: Path, node: Path) -> None:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise NotRun("there is no npm on this machine")
    node.parent.mkdir(parents=True)
    _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *wanted.requirements)
    node.symlink_to(found)


def _javascript_versions(folder: Path) -> dict[str, str]:
    name = "@huggingface/hub"
    return {name: json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]}


def _is_fresh(marker: Path, recipe: str) -> bool:
    try:
        return marker.read_text() == recipe and time.time() - marker.stat().st_mtime < FRESH_SECONDS
    except OSError:
        return False


def _running(name: str) -> Path:
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise NotRun(f"{package} is not installed: pip install -e '.[models]'")
    return Path(sys.executable)


def _run(*argv: str | Path) -> str:
    """The output of a command. Raises NotRun; the command's errors go to stderr."""
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        ran = subprocess.run(
            list(map(str, argv)), env=environ, text=True, capture_output=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotRun("its environment was not built in time") from error
    if ran.returncode:
        print(ran.stderr.strip()[-500:], file=sys.stderr)
        raise NotRun("its environment could not be built")
    return ran.stdout
