"""What peers say that they have is kept in little memory, and within budgets per host and in all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.budgets import (
    CATALOG_BYTES_PER_SECOND,
    MAX_CATALOGS_BYTES,
    MAX_HOST_CATALOG_BURST_BYTES,
    MAX_HOST_CATALOG_BYTES,
    MAX_REVISION_REFS,
    MAX_REVISIONS_OF_REPO,
)
from hfpeer.errors import CorruptData
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.protocol.messages import CatalogMessage, RevisionMessage
from hfpeer.peers.table.catalogs import Catalog, Catalogs

COMMITS = st.integers(0, 40).map(lambda number: Commit(f"{number:040x}"))
REVISIONS = st.builds(
    RevisionMessage,
    repo=st.sampled_from(["models/a/b", "models/a/bb", "models/a", "datasets/a/b", "models/a/b.c"]).map(
        RepoId.from_api_path
    ),
    commit=COMMITS,
    is_complete=st.booleans(),
    files=st.integers(0, 5),
    size_bytes=st.integers(0, 1 << 50),
    refs=st.dictionaries(st.sampled_from(["main", "refs/pr/1", "é"]).map(Revision.parse), st.floats(0, 1e10)),
    is_published=st.booleans(),
)


def sized(size_bytes: int, generation: int = 1) -> Catalog:
    """A catalog of about so many bytes."""
    count = size_bytes // 120
    revisions = (RevisionMessage(RepoId.parse("a/b"), Commit(f"{n:040x}"), True, 1, 1, {}) for n in range(count))
    return Catalog(generation, revisions)


@given(st.lists(REVISIONS, max_size=30), COMMITS)
def test_a_catalog_gives_back_what_went_in(revisions: list[RevisionMessage], commit: Commit) -> None:
    message = CatalogMessage(7, tuple(revisions))
    catalog = Catalog.from_json(json.dumps(message.to_json()).encode())
    assert (catalog.generation, len(catalog)) == (7, len(revisions))
    assert sorted(map(repr, catalog)) == sorted(map(repr, revisions))
    for repo in {revision.repo for revision in revisions} | {RepoId.parse("a/none")}:
        assert {revision.commit for revision in catalog.of_repo(repo)} == {
            revision.commit for revision in revisions if revision.repo == repo
        }
    assert (commit in catalog.commits) == any(revision.commit == commit for revision in revisions)


def test_of_one_repo_no_more_is_looked_at_than_its_bound() -> None:
    assert len(sized(120 * (MAX_REVISIONS_OF_REPO + 9)).of_repo(RepoId.parse("a/b"))) == MAX_REVISIONS_OF_REPO


def test_a_revision_has_a_largest_number_of_names() -> None:
    refs: dict[str, float] = {Revision(f"r{number}"): 1.0 for number in range(MAX_REVISION_REFS + 5)}
    message = CatalogMessage(1, (RevisionMessage(RepoId.parse("a/b"), Commit("a" * 40), True, 1, 1, refs),))
    (revision,) = Catalog.from_json(json.dumps(message.to_json()).encode())
    assert len(revision.refs) == MAX_REVISION_REFS


@pytest.mark.parametrize(
    "document", [{}, [], {"generation": 1, "revisions": [{}]}, {"generation": -1, "revisions": []}]
)
def test_nonsense_is_no_catalog(document: Any) -> None:
    with pytest.raises(CorruptData):
        Catalog.from_json(json.dumps(document).encode())


def test_many_nodes_of_one_host_share_its_part() -> None:
    catalogs, third = Catalogs(), sized(MAX_HOST_CATALOG_BYTES // 3)
    kept = [catalogs.keep(f"n{number}", "10.0.0.1", third, is_static=False) for number in range(33)]
    assert kept == [[]] * 3 + [None] * 30
    assert catalogs.size_bytes <= MAX_HOST_CATALOG_BYTES
    assert catalogs.keep("other", "10.0.0.2", third, is_static=False) == []
    assert catalogs.keep("n0", "10.0.0.1", sized(1000), is_static=False) == []
    assert catalogs.keep("n9", "10.0.0.1", third, is_static=False) == []


def test_all_catalogs_together_have_a_bound_and_the_host_with_the_most_gives_way() -> None:
    catalogs, whole = Catalogs(), sized(MAX_HOST_CATALOG_BYTES - 200_000)
    hosts = MAX_CATALOGS_BYTES // whole.size_bytes
    for number in range(hosts):
        assert catalogs.keep(f"n{number}", f"10.0.0.{number}", whole, is_static=False) == []
    assert catalogs.keep("one more", "10.0.1.1", whole, is_static=False) is None
    gone = catalogs.keep("honest", "10.0.1.2", sized(3_000_000), is_static=False)
    assert gone is not None and len(gone) == 1
    assert catalogs.get(gone[0]) is None and catalogs.get("honest") is not None
    assert catalogs.size_bytes <= MAX_CATALOGS_BYTES


def test_the_owners_peers_come_first() -> None:
    catalogs, whole = Catalogs(), sized(MAX_HOST_CATALOG_BYTES - 200_000)
    for number in range(MAX_CATALOGS_BYTES // whole.size_bytes):
        catalogs.keep(f"n{number}", f"10.0.0.{number}", whole, is_static=False)
    most = MAX_CATALOGS_BYTES // whole.size_bytes
    statics = [catalogs.keep(f"s{number}", "10.0.1.1", whole, is_static=True) for number in range(6)]
    assert [gone is not None for gone in statics] == [number < most for number in range(6)]
    assert catalogs.size_bytes <= MAX_CATALOGS_BYTES
    assert catalogs.keep("late", "10.0.0.1", whole, is_static=False) is None


def test_catalogs_of_one_host_are_read_up_to_a_rate() -> None:
    catalogs, host = Catalogs(), "10.0.0.1"
    catalogs.note_read(host, MAX_HOST_CATALOG_BURST_BYTES // 2, 0)
    assert not catalogs.is_over_rate(host, 0)
    catalogs.note_read(host, MAX_HOST_CATALOG_BURST_BYTES, 0)
    seconds = MAX_HOST_CATALOG_BURST_BYTES / 2 / CATALOG_BYTES_PER_SECOND
    assert catalogs.is_over_rate(host, seconds - 1) and not catalogs.is_over_rate(host, seconds + 1)
    assert not catalogs.is_over_rate("10.0.0.2", 0)
