"""The interpreters on this machine that can run the receiver of a push, the oldest first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

VERSIONS = range(8, 15)


@cache
def pythons() -> dict[str, str]:
    """By version, such as "3.8": the path of an interpreter. This one is always there."""
    found = {}
    for minor in VERSIONS:
        version = f"3.{minor}"
        kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
        candidates = [*kept, Path(shutil.which(f"python{version}") or "/none")]
        if sys.version_info[:2] == (3, minor):
            candidates.insert(0, Path(sys.executable))
        path = next((str(path) for path in candidates if _runs(path)), None)
        if path is not None:
            found[version] = path
    return found


def oldest() -> str:
    """The path of the oldest interpreter."""
    return next(iter(pythons().values()))


def _runs(path: Path) -> bool:
    """Whether it is an interpreter: a shim of a version that is not chosen is none."""
    if not path.exists():
        return False
    return subprocess.run([path, "-c", "import fcntl, zlib"], capture_output=True, check=False).returncode == 0
