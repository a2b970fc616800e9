"""A program that runs beside the test, and never outlives it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def unmeasured() -> dict[str, str]:
    """This environment for a program whose loaded modules are looked at: coverage would load its own into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@contextmanager
def program(argv: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program until the end of the block; takes the options of subprocess.Popen. If it still runs then, it is killed,
    and its pipes are closed."""
    with subprocess.Popen(argv, **options) as started:
        try:
            yield started
        finally:
            started.kill()
