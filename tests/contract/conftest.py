"""Stores of nodes that export and import archives, and caches that are damaged and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import DATA, FILES, MODEL, ROWS, Opener, fill
from fakes.hub import HubSimulator
from fakes.repairs import Scene, download, scene_of
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


@pytest.fixture(scope="module")
def repair_hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


@pytest.fixture(scope="module")
def downloaded_repo(repair_hub: HubSimulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as the Hub client left it. Not to be changed."""
    cache = tmp_path_factory.mktemp("downloaded") / "hub"
    download(repair_hub, cache)
    return cache


@pytest.fixture
def scene(repair_hub: HubSimulator, downloaded_repo: Path, tmp_path: Path) -> Scene:
    """A copy of that cache, to be damaged."""
    return scene_of(repair_hub, downloaded_repo, tmp_path)
