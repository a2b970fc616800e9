"""Stores of nodes that export and import archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import DATA, FILES, MODEL, ROWS, Opener, fill
from hfpeer.cache.store import Store


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the store of a node by its name."""
    stores: list[Store] = []

    def open_store(name: str) -> Store:
        stores.append(Store(tmp_path / name / "hub", tmp_path / name / "home"))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def here(opened: Opener) -> Store:
    """A cache with a model and a dataset that have a blob in common."""
    store = opened("here")
    fill(store, MODEL, FILES)
    fill(store, DATA, ROWS)
    return store
