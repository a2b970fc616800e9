"""Who is let in to what when only peers speak for a repo, or its owner withholds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hfpeer.cache.store import Store
from hfpeer.endpoint.callers import Admission, Caller, Verdicts
from hfpeer.endpoint.once import Once
from hfpeer.errors import HubUnreachable, RepoNotFound
from hfpeer.names import RepoId, Visibility
from hfpeer.upstream.hubs import Hubs

REPO = RepoId.parse("acme/zoo")
GUEST = Caller(None, is_local=False)
HERE = Caller(None, is_local=True)


class Scene:
    """A store, a hub that says `verdict` (None: it is down), and peers that share the repo or not."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "hub", folder / "home")
        self.verdict: Visibility | None = None
        self.is_shared_by_peers = True
        self._folder = folder

    async def visibility(self, repo: RepoId) -> tuple[Visibility, str]:
        if self.verdict is None:
            raise HubUnreachable("The hub is down.")
        return self.verdict, "hub"

    async def lets_in(self, caller: Caller) -> bool:
        """Whether it would after a restart: nothing but the disk remembers."""

        async def shared(repo: RepoId) -> bool:
            return self.is_shared_by_peers

        verdicts = Verdicts(self._folder / "verdicts.json")
        admission = Admission(self.store, verdicts, Once(), shared, offline_seconds=1.0)
        try:
            await admission.admit(caller, REPO, cast(Hubs, self), wants_files=True)
        except (RepoNotFound, HubUnreachable):
            return False
        return True


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


async def test_what_a_hub_lists_to_anybody_is_for_guests_even_if_nobody_asked_before(scene: Scene) -> None:
    scene.verdict = Visibility.PUBLIC
    assert await scene.lets_in(GUEST)


async def test_what_the_owner_withholds_is_not_for_guests(scene: Scene) -> None:
    scene.verdict = Visibility.PUBLIC
    scene.store.set_share(REPO, False)
    assert await scene.lets_in(HERE)
    assert not await scene.lets_in(GUEST)


async def test_with_no_hub_guests_get_what_peers_share_also_once_it_is_here(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await scene.lets_in(GUEST)
    monkeypatch.setattr(scene.store, "revisions", lambda repo: cast(Any, ["it has come"]))
    assert await scene.lets_in(GUEST)
    scene.is_shared_by_peers = False
    assert not await scene.lets_in(GUEST)


async def test_a_peers_word_does_not_open_to_guests_what_was_here_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.store, "revisions", lambda repo: cast(Any, ["it was here"]))
    assert not await scene.lets_in(GUEST)


async def test_a_peers_word_does_not_open_to_guests_what_a_hub_hides(scene: Scene) -> None:
    assert await scene.lets_in(GUEST)
    scene.verdict = Visibility.PRIVATE
    assert await scene.lets_in(HERE)
    assert not await scene.lets_in(GUEST)
