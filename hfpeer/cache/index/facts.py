"""The catalog's tables on trust: answers of hubs on visibility, and marks on the listings of commits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from hfpeer.cache.index.database import Database
from hfpeer.cache.index.schema import FACTS, GIVEN_LISTINGS, LISTED, REVISIONS
from hfpeer.names import Visibility
from hfpeer.trust.visibility import Fact

MAX_FACTS = 20_000
"""At most this many facts about commits that are not in the cache: callers of the endpoint may ask about any."""


class FactTables:
    """Facts on visibility by repo, and two marks of a commit: listed by an origin, and listing given openly."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_repo(self, repo: str | None = None) -> dict[str, list[Fact]]:
        """The facts on visibility by repo; with `repo` only those of that one."""
        query = sa.select(FACTS) if repo is None else sa.select(FACTS).where(FACTS.c.repo == repo)
        found: dict[str, list[Fact]] = defaultdict(list)
        with self._database.reading() as connection:
            for row in connection.execute(query):
                found[row.repo].append(_fact(row))
        return found

    def change(self, repo: str, change: Callable[[list[Fact]], Iterable[Fact]]) -> bool:
        """Replaces the facts of a repo by what `change` makes of them. Returns whether more than dates changed."""
        with self._database.writing() as connection:
            before = [_fact(row) for row in connection.execute(sa.select(FACTS).where(FACTS.c.repo == repo))]
            facts = list(change(before))
            connection.execute(sa.delete(FACTS).where(FACTS.c.repo == repo))
            rows = [{"repo": repo, **vars(fact), "visibility": fact.visibility.value} for fact in facts]
            if rows:
                connection.execute(insert(FACTS), rows)
            if int(connection.scalar(sa.select(sa.func.count()).select_from(FACTS)) or 0) > MAX_FACTS:
                _forget_facts(connection)
        return {_undated(fact) for fact in before} != {_undated(fact) for fact in facts}

    def note_listed(self, repo: str, commit: str) -> None:
        """Marks a commit without a proof as listed by its origin."""
        self._database.execute(insert(LISTED).values(repo=repo, commit=commit).on_conflict_do_nothing())

    def is_listed(self, repo: str, commit: str) -> bool:
        """Whether the origin itself listed the files of a commit that has no proof."""
        query = sa.select(LISTED.c.repo).where(LISTED.c.repo == repo, LISTED.c.commit == commit)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def note_given_listing(self, repo: str, commit: str) -> None:
        """Marks the list of a commit's files as given openly: its paths are no secret."""
        self._database.execute(insert(GIVEN_LISTINGS).values(repo=repo, commit=commit).on_conflict_do_nothing())

    def drop_listed(self, repo: str, commit: str) -> None:
        """Removes both marks of a commit."""
        for table in (LISTED, GIVEN_LISTINGS):
            self._database.execute(sa.delete(table).where(table.c.repo == repo, table.c.commit == commit))


def _fact(row: Any) -> Fact:
    return Fact(row.commit, row.hub, row.is_origin, Visibility(row.visibility), row.asked_at)


def _forget_facts(connection: Connection) -> None:
    """Drops the oldest facts about commits that are not in the cache, until three quarters of MAX_FACTS are left."""
    strange_repo = FACTS.c.repo.not_in(sa.select(REVISIONS.c.repo))
    here = sa.select(REVISIONS.c.repo, REVISIONS.c.commit)
    strange_commit = sa.and_(FACTS.c.commit != "", sa.tuple_(FACTS.c.repo, FACTS.c.commit).not_in(here))
    rowid: sa.ColumnElement[int] = sa.literal_column("rowid")
    query = sa.select(rowid).select_from(FACTS).where(sa.or_(strange_repo, strange_commit))
    oldest = query.order_by(FACTS.c.asked_at.desc()).limit(-1).offset(MAX_FACTS * 3 // 4)
    connection.execute(sa.delete(FACTS).where(rowid.in_(oldest)))


def _undated(fact: Fact) -> tuple[str, str, str]:
    return fact.commit, fact.hub, fact.visibility.value
