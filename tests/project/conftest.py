"""What the tests of the project as a project share: where it lies, and its packages."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ("hfpeer", "hfpeer_cli", "hfpeer_daemon")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def module_names() -> list[str]:
    """Every module of the three packages, by its dotted name."""
    return sorted(name for package in PACKAGES for name in _modules(package))


@pytest.fixture(scope="session")
def plain_environ() -> dict[str, str]:
    """An environment in which nothing points at this checkout, its interpreter's path or the user's settings."""
    prefixes = ("HF_", "HFPEER_", "HUGGINGFACE_", "PYTHON", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV", "COV")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def _modules(package: str) -> Iterator[str]:
    yield package
    paths = import_module(package).__path__
    yield from (module.name for module in pkgutil.walk_packages(paths, f"{package}."))
