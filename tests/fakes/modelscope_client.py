"""ModelScope's own client, `modelscope_hub`, as a program of its own that talks to a simulated site."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("modelscope_hub") is None, reason="modelscope-hub is not installed"
)
_HEAD = (
    "import json, sys\nfrom modelscope_hub import HubApi\napi = HubApi()\ndef done(value): print(json.dumps(value))\n"
)


def client_environ(endpoint: str, folder: Path, token: str | None) -> dict[str, str]:
    """An environment in which the client asks `endpoint` and keeps everything below `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELSCOPE_")}
    own = {
        "MODELSCOPE_ENDPOINT": endpoint,
        "MODELSCOPE_HOME": str(folder / "modelscope"),
        "MODELSCOPE_CACHE": str(folder / "modelscope-cache"),
        "MODELSCOPE_LOG_LEVEL": "ERROR",
    }
    return {**kept, **own, **({} if token is None else {"MODELSCOPE_API_TOKEN": token})}


@dataclass(frozen=True)
class ModelScopeClient:
    """Runs lines of Python with `api`, a `HubApi`; without a token the client uses the one that it stored."""

    endpoint: str
    folder: Path
    token: str | None = None

    def run(self, lines: str) -> Any:
        """What the lines hand to `done`. Raises AssertionError with the client's output when they fail."""
        ran = subprocess.run(
            [sys.executable, "-c", _HEAD + lines],
            env=client_environ(self.endpoint, self.folder, self.token),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout.strip().splitlines()[-1])

    def download(self, repo_id: str, repo_type: str = "model", name: str = "download") -> dict[str, str]:
        """Downloads a whole repo; the sha256 of each file by path."""
        target = self.folder / name
        self.run(f"done(str(api.download_repo({repo_id!r}, {repo_type!r}, local_dir={str(target)!r})))")
        return sha256s(target)


def sha256s(folder: Path) -> dict[str, str]:
    """The sha256 of each file below a folder, by its path; not of the client's own files."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in ("._____temp", ".msc", ".mdl", ".mv", ".cache")
    }
