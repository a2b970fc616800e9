"""Machines for real clients; a module's machines live as long as the module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.machine import Machines


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines
