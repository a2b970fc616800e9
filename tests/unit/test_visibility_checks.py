"""Visibility checks: daily, after a refusal, and again after silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fakes.doors import eventually
from fakes.hub_cache import COMMIT, REPO, git_sha1_of, manifest_of
from hfpeer.cache.store import Store
from hfpeer.errors import HubUnreachable
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.node.upkeep import Upkeep
from hfpeer.resolver import visibility_checks
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.trust.visibility import ASK_AGAIN_SECONDS
from hfpeer.upstream.upstreams import Upstreams, VisibilityAnswer

ORIGIN = "https://origin"
NEW = Commit("d" * 40)


class FakeOrigin:
    endpoint = ORIGIN
    name = "origin"


class FakeHubs:
    """One origin that says `verdict`, or is silent (None), and waits for `gate` before it answers."""

    endpoints = frozenset({ORIGIN})
    origins = (FakeOrigin(),)

    def __init__(self) -> None:
        self.verdict: Visibility | None = Visibility.PUBLIC
        self.asked: list[Commit | None] = []
        self.gate: asyncio.Event | None = None
        self.was_asked = asyncio.Event()

    async def visibility(self, repo: RepoId, commit: Commit | None, *, asks_mirrors: bool) -> list[VisibilityAnswer]:
        self.asked.append(commit)
        self.was_asked.set()
        verdict = self.verdict
        if self.gate is not None:
            await self.gate.wait()
        if verdict is None:
            raise HubUnreachable("It is silent.")
        return [VisibilityAnswer(ORIGIN, True, verdict, commit or COMMIT if verdict is Visibility.PUBLIC else "")]


class Scene:
    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "hub", folder / "home")
        self.hubs = FakeHubs()
        self.now = 1_000_000.0
        self.visibility_checks = VisibilityChecker(self.store, cast(Upstreams, self.hubs), clock=lambda: self.now)
        self.upkeep = Upkeep(
            self.store, cast(Upstreams, self.hubs), self.visibility_checks, self._announce, partial_days=30.0
        )

    async def _announce(self, generation: int) -> None:
        """No discovery."""

    def have(self, commit: Commit, body: bytes = b"abc") -> None:
        manifest = manifest_of({"a": body}, commit)
        self.store.save_manifest(manifest, is_of_origin=True)
        self.store.ingester.ingest_files(REPO, commit, manifest.files, {git_sha1_of(body): body})
        self.store.ingester.sum_up(REPO, commit)

    async def round(self) -> list[Commit | None]:
        """The commits that one round of the upkeep checks."""
        self.hubs.asked.clear()
        await self.upkeep._check_visibility()
        return sorted(self.hubs.asked, key=str)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


async def test_every_commit_is_checked_once_a_day(scene: Scene) -> None:
    for commit in (COMMIT, NEW):
        scene.have(commit)
    assert await scene.round() == sorted([COMMIT, NEW])
    assert scene.store.shared.is_commit_shared(REPO, COMMIT)
    scene.now += ASK_AGAIN_SECONDS - 1
    assert await scene.round() == []
    scene.now += 1
    scene.hubs.verdict = Visibility.PRIVATE
    assert len(await scene.round()) == 1, "one refusal is enough for all commits"
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT) and not scene.store.shared.is_commit_shared(REPO, NEW)
    scene.now += ASK_AGAIN_SECONDS
    scene.hubs.verdict = Visibility.PUBLIC
    assert await scene.round() == sorted([COMMIT, NEW]), "what opens is shared by itself"
    assert scene.store.shared.is_commit_shared(REPO, COMMIT) and scene.store.shared.is_commit_shared(REPO, NEW)


async def test_a_clock_that_went_back_does_not_stop_the_checks(scene: Scene) -> None:
    scene.have(COMMIT)
    await scene.round()
    scene.now -= 10 * ASK_AGAIN_SECONDS
    scene.hubs.verdict = Visibility.PRIVATE
    assert await scene.round() == [COMMIT]
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT)


async def test_commits_are_checked_again_after_the_catalog_was_lost(scene: Scene, tmp_path: Path) -> None:
    scene.have(COMMIT)
    await scene.round()
    scene.store.close()
    (tmp_path / "home" / "catalog.sqlite").unlink()
    again = Scene(tmp_path)
    again.store.scan()
    assert not again.store.shared.is_commit_shared(REPO, COMMIT)
    assert await again.round() == [COMMIT]
    assert again.store.shared.is_commit_shared(REPO, COMMIT)
    again.store.close()
    scene.store = Store(tmp_path / "hub", tmp_path / "home")


async def test_a_commit_that_was_published_here_is_not_checked(scene: Scene) -> None:
    scene.have(COMMIT)
    scene.store.note_published(REPO, COMMIT, "pegasus")
    assert await scene.round() == []


async def test_of_what_was_made_of_other_commits_those_are_checked_also_when_they_are_not_here(scene: Scene) -> None:
    scene.have(COMMIT)
    scene.store.note_published(REPO, COMMIT, "pegasus", f"datasets/acme/one@{NEW} datasets/acme/two@{COMMIT}")
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT)
    assert await scene.round() == sorted([NEW, COMMIT])
    assert scene.store.shared.is_commit_shared(REPO, COMMIT)
    scene.hubs.verdict = Visibility.GATED
    await scene.visibility_checks.check(RepoId.parse("acme/two", "dataset"), COMMIT)
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT)


async def test_silence_changes_nothing_and_delays_the_next_check(scene: Scene) -> None:
    scene.have(COMMIT)
    await scene.visibility_checks.check(REPO, COMMIT)
    scene.hubs.verdict = None
    for _ in range(3):
        with pytest.raises(HubUnreachable):
            await scene.visibility_checks.check(REPO, COMMIT)
    assert len(scene.hubs.asked) == 2
    assert scene.store.shared.is_commit_shared(REPO, COMMIT)
    with pytest.raises(HubUnreachable):
        await scene.visibility_checks.begin(REPO, COMMIT, is_urgent=True)
    assert len(scene.hubs.asked) == 3, "an add asks nevertheless"


async def test_a_refusal_starts_one_check_and_not_one_each(scene: Scene) -> None:
    scene.have(COMMIT)
    await scene.visibility_checks.check(REPO, COMMIT)
    scene.hubs.verdict = Visibility.PRIVATE
    for _ in range(5):
        scene.visibility_checks.note_refusal(REPO)
    await scene.visibility_checks.wait_for_refusal_checks(20.0)
    assert scene.hubs.asked == [COMMIT, COMMIT]
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT)


async def test_a_refusal_soon_after_a_change_starts_a_check_at_once_and_any_other_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed, opened and closed again, all within the time between two questions."""
    scene.have(COMMIT)
    await scene.visibility_checks.check(REPO, COMMIT)
    for verdict in (Visibility.PRIVATE, Visibility.PUBLIC, Visibility.GATED):
        scene.hubs.verdict = verdict
        scene.visibility_checks.note_refusal(REPO)
        await scene.visibility_checks.wait_for_refusal_checks(20.0)
        assert scene.store.shared.is_commit_shared(REPO, COMMIT) is (verdict is Visibility.PUBLIC)
    monkeypatch.setattr(visibility_checks, "REFUSAL_SECONDS", 1.0)
    scene.visibility_checks.note_refusal(REPO)
    await scene.visibility_checks.wait_for_refusal_checks(20.0)
    scene.hubs.verdict = Visibility.PUBLIC
    asked = len(scene.hubs.asked)
    for _ in range(5):
        scene.visibility_checks.note_refusal(REPO)
    assert len(scene.hubs.asked) == asked
    await eventually(lambda: scene.store.shared.is_commit_shared(REPO, COMMIT))
    await asyncio.sleep(0.2)
    assert len(scene.hubs.asked) == asked + 1


async def test_an_answer_from_before_a_refusal_is_not_recorded_after_it(scene: Scene) -> None:
    """Questions about one repo go one after the other, so that a slow old yes does not undo a quick new no."""
    for commit in (COMMIT, NEW):
        scene.have(commit)
    scene.hubs.gate = asyncio.Event()
    slow = scene.visibility_checks.begin(REPO, COMMIT)
    await scene.hubs.was_asked.wait()
    scene.hubs.verdict = Visibility.PRIVATE
    quick = scene.visibility_checks.begin(REPO, NEW)
    scene.hubs.gate.set()
    await asyncio.gather(slow, quick)
    assert not scene.store.shared.is_commit_shared(REPO, COMMIT) and not scene.store.shared.is_commit_shared(REPO, NEW)


async def test_simultaneous_checks_of_a_commit_are_one_request(scene: Scene) -> None:
    scene.have(COMMIT)
    verdicts = await asyncio.gather(*(scene.visibility_checks.check(REPO, COMMIT) for _ in range(10)))
    assert scene.hubs.asked == [COMMIT]
    assert all(verdict.is_public for verdict in verdicts)


async def test_stopping_ends_a_check_without_an_answer(scene: Scene) -> None:
    scene.hubs.gate = asyncio.Event()
    asking = scene.visibility_checks.begin(REPO, COMMIT)
    await asyncio.sleep(0)
    await asyncio.wait_for(scene.visibility_checks.stop(), 20.0)
    assert asking.cancelled()
