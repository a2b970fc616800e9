"""Who is let in to what of a commit, by what hubs and peers say, and what its owner says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fakes.hub_cache import COMMIT, REPO, git_sha1_of, manifest_of
from hfpeer.cache.store import Store
from hfpeer.endpoint.access.admission import Admission
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import Grant, Grants
from hfpeer.endpoint.access.request import AdmissionRequest
from hfpeer.errors import GatedRepo, HfpeerError, HubUnreachable, RepoNotFound, RevisionNotFound
from hfpeer.names import Commit, RepoId, Visibility
from hfpeer.resolver.visibility_checks import VisibilityChecker
from hfpeer.upstream.upstreams import Upstreams, VisibilityAnswer

GUEST = Caller(None, is_local=False)
HERE = Caller(None, is_local=True)
OWNER = Caller("hf_owner")
STRANGER = Caller("hf_stranger")
ORIGIN = "https://origin"
NEW = Commit("d" * 40)


class FakeMirror:
    """A mirror that shows everything to everybody."""

    async def visibility(self, repo: RepoId, commit: Commit | None) -> tuple[Visibility, str]:
        return Visibility.PUBLIC, commit or ""


class Scene:
    """A store, an origin that says `verdict` (None: it is down) and accepts the owner's token at `commits`, and peers
    whose catalogs name `at_peers`. It is the hubs of every caller too."""

    endpoints = frozenset({ORIGIN})
    origins = ()

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "hub", folder / "home")
        self.verdict: Visibility | None = None
        self.at_peers: set[Commit] = set()
        self.published: set[Commit] = set()
        self.commits = {COMMIT, NEW}
        self.mirrors: tuple[FakeMirror, ...] = ()
        self.asked = 0
        self.caller = HERE
        self._folder = folder

    async def visibility(self, repo: RepoId, commit: Commit | None, *, asks_mirrors: bool) -> list[VisibilityAnswer]:
        self.asked += 1
        if self.verdict is None:
            raise HubUnreachable("The hub is down.")
        is_public = self.verdict is Visibility.PUBLIC
        return [VisibilityAnswer(ORIGIN, True, self.verdict, (commit or COMMIT) if is_public else "")]

    async def auth_check(self, repo: RepoId, commit: Commit | None) -> None:
        if self.verdict is None:
            raise HubUnreachable("The hub is down.")
        if self.caller is not OWNER:
            raise RepoNotFound("You cannot see it.")
        if commit is not None and commit not in self.commits:
            raise RevisionNotFound("It has no such commit.")

    async def grant(self, caller: Caller, commit: Commit | None = COMMIT, *, wants_files: bool = True) -> object:
        """What it would be after a restart, when nothing but the disk remembers; or what it is refused with."""

        async def shared(repo: RepoId, commit: Commit | None) -> bool:
            return bool(self.at_peers) if commit is None else commit in self.at_peers

        self.caller = caller
        hubs = cast(Upstreams, self)
        visibility_checks = VisibilityChecker(self.store, hubs)
        grants = Grants(self._folder / "grants.json")
        admission = Admission(
            self.store,
            visibility_checks,
            grants,
            shared,
            offline_seconds=60.0,
            publisher=lambda repo, commit: "h2" if self.published and commit in {None, *self.published} else None,
        )
        try:
            return await admission.admit(AdmissionRequest(caller, REPO, commit, hubs, wants_files))
        except HfpeerError as error:
            return type(error)
        finally:
            await visibility_checks.stop()

    def have(self, body: bytes, commit: Commit = COMMIT, *, is_given: bool = False) -> None:
        """A file of the commit is here."""
        manifest = manifest_of({"a": body}, commit)
        self.store.save_manifest(manifest, is_of_origin=not is_given, is_given=is_given)
        given = {git_sha1_of(body)} if is_given else set()
        self.store.ingester.ingest_files(REPO, commit, manifest.files, {git_sha1_of(body): body}, given)
        self.store.ingester.sum_up(REPO, commit)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


@pytest.mark.parametrize("caller", [HERE, GUEST, OWNER, STRANGER], ids=["local", "guest", "owner", "stranger"])
async def test_a_commit_that_an_origin_lists_to_anonymous_askers_is_open_to_all(scene: Scene, caller: Caller) -> None:
    scene.verdict = Visibility.PUBLIC
    assert await scene.grant(caller) is Grant.ALL
    scene.verdict = None
    assert await scene.grant(caller) is Grant.ALL, "silence ends nothing"
    assert await scene.grant(caller, NEW) is HubUnreachable, "and opens no other commit"


@pytest.mark.parametrize(
    ("said", "refusal"), [(Visibility.PRIVATE, RepoNotFound), (Visibility.GATED, GatedRepo)], ids=["private", "gated"]
)
async def test_a_commit_that_is_not_public_is_for_tokens_that_the_hub_accepts(
    scene: Scene, said: Visibility, refusal: type[HfpeerError]
) -> None:
    scene.verdict = said
    assert await scene.grant(HERE) is refusal
    assert await scene.grant(GUEST) is refusal
    assert await scene.grant(STRANGER) is RepoNotFound
    assert await scene.grant(OWNER) is Grant.ALL
    is_shown = await scene.grant(HERE, wants_files=False) is Grant.ALL
    assert is_shown is (said is Visibility.GATED), "what is said of a gated repo is open"
    scene.verdict = None
    assert await scene.grant(OWNER) is Grant.ALL, "a token once accepted still opens"
    assert await scene.grant(HERE) is refusal


async def test_a_token_opens_only_commits_that_the_hub_has(scene: Scene) -> None:
    """The repo of this name at another hub, which was set before, had other commits."""
    scene.verdict = Visibility.PRIVATE
    scene.commits = {COMMIT}
    assert await scene.grant(OWNER) is Grant.ALL
    assert await scene.grant(OWNER, NEW) is RevisionNotFound


async def test_a_repo_that_the_owner_withholds_is_not_for_other_machines(scene: Scene) -> None:
    scene.verdict = Visibility.PUBLIC
    scene.store.set_share(REPO, False)
    assert await scene.grant(HERE) is Grant.ALL
    assert await scene.grant(GUEST) is RepoNotFound


async def test_a_commit_that_was_published_here_is_open_to_all_and_no_other_of_its_repo(scene: Scene) -> None:
    scene.verdict = Visibility.PRIVATE
    scene.store.note_published(REPO, COMMIT, "pegasus")
    assert [await scene.grant(caller) for caller in (HERE, GUEST)] == [Grant.ALL, Grant.ALL]
    assert [await scene.grant(caller, NEW) for caller in (HERE, GUEST)] == [RepoNotFound, RepoNotFound]
    assert scene.asked == 2, "nobody was asked about what was made here"


@pytest.mark.parametrize("caller", [HERE, GUEST, STRANGER], ids=["local", "guest", "stranger"])
async def test_a_commit_that_a_peer_published_is_open_as_far_as_the_peer_gives_it(scene: Scene, caller: Caller) -> None:
    scene.verdict = Visibility.PRIVATE
    scene.published = {COMMIT}
    assert await scene.grant(caller) is Grant.PUBLISHED_THERE
    assert await scene.grant(caller, None, wants_files=False) is Grant.PUBLISHED_THERE
    assert await scene.grant(caller, NEW) is RepoNotFound
    scene.have(b"from the publisher", is_given=True)
    scene.store.note_published_there(REPO, COMMIT, "h2")
    assert await scene.grant(caller) is Grant.PUBLISHED
    scene.published = set()
    assert await scene.grant(caller) is Grant.PUBLISHED, "also when its publisher is gone"


@pytest.mark.parametrize("caller", [HERE, GUEST, STRANGER], ids=["local", "guest", "stranger"])
async def test_a_peer_that_calls_a_commit_of_a_hub_published_opens_nothing_that_is_here(
    scene: Scene, caller: Caller
) -> None:
    scene.verdict = Visibility.PRIVATE
    scene.have(b"brought with a token")
    scene.published = {COMMIT}
    scene.store.note_published_there(REPO, COMMIT, "h2")
    assert scene.store.publications.of(REPO) == {}
    assert await scene.grant(caller) is Grant.PUBLISHED_THERE, "which gives nothing but what the peer gives"
    blob = scene.store.inventory.find(git_sha1_of(b"brought with a token"))
    assert blob is not None and not scene.store.shared.is_blob_given(blob, REPO)
    assert await scene.grant(caller, None, wants_files=False) is RepoNotFound, "and no names"
    scene.verdict = Visibility.GATED
    assert await scene.grant(caller, NEW) in (GatedRepo, RepoNotFound), "a gated repo is one that the hub knows"


@pytest.mark.parametrize("caller", [HERE, GUEST, STRANGER], ids=["local", "guest", "stranger"])
async def test_while_no_origin_answers_callers_get_what_peers_give(scene: Scene, caller: Caller) -> None:
    assert await scene.grant(caller) is HubUnreachable
    scene.at_peers = {COMMIT}
    assert await scene.grant(caller) is Grant.GIVEN
    assert await scene.grant(caller, NEW) is HubUnreachable
    scene.have(b"found by a scan")
    assert await scene.grant(caller) is Grant.GIVEN, "a peer's word opens nothing that is here"
    scene.at_peers = set()
    assert await scene.grant(caller) is HubUnreachable


@pytest.mark.parametrize("caller", [HERE, GUEST], ids=["local", "guest"])
async def test_files_given_openly_are_passed_on_also_when_their_peer_is_gone(scene: Scene, caller: Caller) -> None:
    scene.have(b"from a peer", is_given=True)
    assert await scene.grant(caller) is Grant.LISTED
    scene.have(b"brought with a token")
    assert await scene.grant(caller) is HubUnreachable, "not all of it was"


@pytest.mark.parametrize("is_down_at_first", [False, True])
async def test_a_peer_does_not_open_a_commit_that_a_hub_hides(scene: Scene, is_down_at_first: bool) -> None:
    scene.at_peers = {COMMIT}
    if is_down_at_first:
        assert await scene.grant(HERE) is Grant.GIVEN
    scene.verdict = Visibility.PRIVATE
    for caller in (HERE, GUEST):
        assert await scene.grant(caller) is RepoNotFound
    assert await scene.grant(OWNER) is Grant.ALL
    scene.have(b"what the owner fetched")
    scene.verdict = None
    for caller in (HERE, GUEST):
        assert await scene.grant(caller) is RepoNotFound, "also while it is down"


async def test_a_mirror_alone_opens_its_own_copy_and_no_file_that_is_here(scene: Scene) -> None:
    scene.mirrors = (FakeMirror(),)
    assert await scene.grant(HERE) is Grant.GIVEN
    scene.have(b"brought with a token")
    assert await scene.grant(HERE) is Grant.GIVEN
    scene.verdict = Visibility.PRIVATE
    assert await scene.grant(HERE) is RepoNotFound


async def test_a_silent_origin_is_not_asked_about_a_token_where_a_mirror_gives_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools send the token that is stored: each of their requests would wait for the origin that cannot be reached."""

    async def unreachable(repo: RepoId, commit: Commit | None) -> None:
        raise AssertionError("it was asked")

    scene.mirrors = (FakeMirror(),)
    monkeypatch.setattr(scene, "auth_check", unreachable)
    assert await scene.grant(OWNER) is Grant.GIVEN


async def test_a_commit_that_becomes_public_is_open_at_the_next_request(scene: Scene) -> None:
    scene.verdict = Visibility.PRIVATE
    assert await scene.grant(HERE) is RepoNotFound
    scene.verdict = Visibility.PUBLIC
    assert await scene.grant(HERE) is Grant.ALL


async def test_a_grant_dated_in_the_future_opens_nothing(tmp_path: Path) -> None:
    now = [5000.0]
    grants = Grants(tmp_path / "grants.json", clock=lambda: now[0])
    grants.accepted("f", REPO, COMMIT)
    now[0] = 4000.0
    assert grants.age_seconds("f", REPO, COMMIT) is None
