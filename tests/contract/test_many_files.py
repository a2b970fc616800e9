"""Many files cost time in proportion to them: the catalog is asked together for many, and no step repeats another."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from fakes.hub_cache import REPO, proved_manifest_of
from hfpeer.cache.cleaning.facts import RevisionKey
from hfpeer.cache.cleaning.planning.plan import Facts, chosen, steps_of
from hfpeer.cache.cleaning.planning.protection import lost_to_peers
from hfpeer.cache.store import Store
from hfpeer.control.operations import PublishRequest
from hfpeer.node.operations.publishing import publish_folder

FEW, MANY = 100, 600
MORE_STATEMENTS = 8
"""At most this many statements more for MANY files than for FEW: some come once for every 500 keys."""


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that reach the catalog."""
    said: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    engines = (store._catalog.database._reader, store._catalog.database._writer)
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", note)


class Cache:
    """A store, a folder of files, and the commit of it."""

    def __init__(self, place: Path, files: int) -> None:
        self.bodies = {f"part-{number % 7}/{number}.json": b"%d" % number for number in range(files)}
        self.folder = place / "folder"
        for name, body in self.bodies.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(body)
        self.manifest = proved_manifest_of(self.bodies)
        self.store = Store(place / "hub", place / "home")
        self.place = place

    def publish(self) -> None:
        publish_folder(self.store, PublishRequest(str(self.folder), REPO), "pegasus", lambda event: None)

    def ingest(self) -> None:
        self.store.save_manifest(self.manifest)
        bodies = {file.digest: self.bodies[file.path] for file in self.manifest.files}
        self.store.ingester.ingest_files(REPO, self.manifest.commit, self.manifest.files, bodies)
        self.store.ingester.sum_up(REPO, self.manifest.commit)

    def install(self) -> None:
        self.store.ingester.install(REPO, self.manifest.commit, self.manifest.files)

    def look(self) -> None:
        assert self.store.inventory.missing(self.manifest.files) == []
        assert len(self.store.inventory.verified_in(REPO, self.manifest.files)) == len(self.bodies)

    def scan(self) -> None:
        assert self.store.scan().files == len(self.bodies)

    def remove(self) -> None:
        assert self.store.remove(REPO).files == len(self.bodies)
        assert not list((self.place / "hub").rglob("*.lock")), "no lock is made for a blob that no client has locked"

    def facts(self) -> Facts:
        return self.store.cleaner.facts()

    def keys(self) -> list[RevisionKey]:
        return [(REPO.folder, self.manifest.commit)]

    def first_scan(self) -> None:
        self.store.close()
        self.store = Store(self.place / "hub", self.place / "another home")


STEPS: dict[str, Callable[[Cache], tuple[Callable[[], None], ...]]] = {
    "publish": lambda cache: (cache.publish,),
    "publish again": lambda cache: (cache.publish, cache.publish),
    "ingest": lambda cache: (cache.ingest,),
    "install again": lambda cache: (cache.ingest, cache.install),
    "look": lambda cache: (cache.ingest, cache.look),
    "scan": lambda cache: (cache.ingest, cache.scan),
    "first scan": lambda cache: (cache.ingest, cache.first_scan, cache.scan),
    "remove": lambda cache: (cache.ingest, cache.remove),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_catalog_is_asked_together_for_many_files(tmp_path: Path, name: str) -> None:
    statements = []
    for files in (FEW, MANY):
        cache = Cache(tmp_path / str(files), files)
        *before, last = STEPS[name](cache)
        for step in before:
            step()
        with counted(cache.store) as said:
            last()
        statements.append(len(said))
        cache.store.close()
    assert 0 < statements[1] <= statements[0] + MORE_STATEMENTS


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that the objects of some work take at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


WHOLE_STEPS: dict[str, tuple[int, Callable[[Cache], object]]] = {
    "verify --quick": (550, lambda cache: cache.store.verify(is_quick=True)),
    "verify": (550, lambda cache: cache.store.verify(trusts_verdicts=False)),
    "verify again": (550, lambda cache: cache.store.verify()),
    "look at what can go": (500, lambda cache: steps_of(chosen(cache.facts(), cache.keys()), cache.facts())),
    "ask what peers lose": (500, lambda cache: lost_to_peers(chosen(cache.facts(), cache.keys()), cache.facts())),
    "remove": (1100, lambda cache: cache.store.remove(REPO, cache.manifest.commit)),
}
"""Each with at most how many bytes more it takes at a time for each file more. A list of a commit takes 300."""


def test_a_step_over_the_whole_cache_takes_little_memory_for_each_file(tmp_path: Path) -> None:
    peaks: dict[str, list[int]] = {name: [] for name in WHOLE_STEPS}
    for files in (MANY, 3 * MANY):
        cache = Cache(tmp_path / str(files), files)
        cache.ingest()
        cache.install()
        for name, (_, step) in WHOLE_STEPS.items():
            peaks[name].append(peak_bytes(partial(step, cache)))
        cache.store.close()
    costs = {name: (many - few) / (2 * MANY) for name, (few, many) in peaks.items()}
    assert {name: cost for name, cost in costs.items() if cost > WHOLE_STEPS[name][0]} == {}
