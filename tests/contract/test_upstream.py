"""An upstream against a Hub with real git repositories: what it resolves, lists, proves and says when it cannot."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from fakes.hub import ZOO_FILES, Fault, HubSimulator, Lfs, Submodule, faults, pointer_text, put_many, put_zoo
from fakes.hub.git import run_git
from fakes.hub.wire import body_bytes
from hfpeer.errors import (
    AccessDenied,
    ForgedManifest,
    GatedRepo,
    HubUnreachable,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.git.pack_reader import BrokenPack, read_objects
from hfpeer.git.proof import object_id, prove
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId, Revision, Visibility
from hfpeer.upstream import api
from hfpeer.upstream.api import ApiRequest, Timeouts
from hfpeer.upstream.upstream import Upstream

ZOO = RepoId.parse("acme/zoo")
PATIENT = Timeouts(backoff_seconds=0.01)
IMPATIENT = Timeouts(silence_seconds=0.3)
IMPATIENT_WITH_GIT = Timeouts(git_seconds=0.5)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("hfpeer") as guard:
        yield guard


@pytest.fixture
async def upstream(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=PATIENT)
    yield one
    await one.aclose()


@pytest.fixture
async def impatient(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=IMPATIENT)
    yield one
    await one.aclose()


@pytest.fixture
async def with_token(hub: HubSimulator) -> AsyncIterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, token=lambda: hub.valid_token, sends_token=True, timeouts=PATIENT)
    yield one
    await one.aclose()


async def commit_of(upstream: Upstream, repo: RepoId, revision: str = "main") -> Commit:
    return await upstream.resolve(repo, Revision.parse(revision))


# --- resolving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
@pytest.mark.parametrize("name", ["acme/zoo", "zoo"])
async def test_every_kind_of_revision_is_resolved(hub: HubSimulator, upstream: Upstream, kind: str, name: str) -> None:
    main = put_zoo(hub.storage, kind, name)
    refs = hub.repo(kind, name).refs()
    repo = RepoId.parse(name, kind)
    wanted = {
        "main": main,
        "v1.0": refs["refs/tags/v1.0"],
        "dev/exp": refs["refs/heads/dev/exp"],
        "refs/pr/1": refs["refs/pr/1"],
        "refs/convert/parquet": refs["refs/convert/parquet"],
        main[:8]: main,
    }
    assert {revision: await commit_of(upstream, repo, revision) for revision in wanted} == wanted


async def test_a_full_commit_id_is_asked_of_nobody(hub: HubSimulator, upstream: Upstream) -> None:
    assert await commit_of(upstream, ZOO, "a" * 40) == "a" * 40
    assert not hub.requests


async def test_a_renamed_repo_is_found_under_its_old_name(hub: HubSimulator, upstream: Upstream) -> None:
    commit = put_zoo(hub.storage)
    hub.storage.rename_repo("model", "acme/zoo", "acme/park")
    assert await commit_of(upstream, ZOO) == commit
    manifest = await upstream.manifest(ZOO, Commit(commit))
    assert not manifest.is_attested and len(manifest.files) == len(ZOO_FILES) - 1


@pytest.mark.parametrize("names_missing_repos", [False, True])
async def test_what_does_not_exist_is_said_so(hub: HubSimulator, upstream: Upstream, names_missing_repos: bool) -> None:
    put_zoo(hub.storage)
    hub.behaviour.repo_not_found_on_401 = names_missing_repos
    with pytest.raises(RevisionNotFound, match="hub has no revision nope of acme/zoo"):
        await commit_of(upstream, ZOO, "nope")
    with pytest.raises(RepoNotFound, match="hub has no model acme/none"):
        await commit_of(upstream, RepoId.parse("acme/none"))
    with pytest.raises(RevisionNotFound):
        await upstream.manifest(ZOO, Commit("a" * 40))


async def test_a_private_repo_needs_a_token_that_may_see_it(
    hub: HubSimulator, upstream: Upstream, with_token: Upstream
) -> None:
    commit = put_zoo(hub.storage, visibility="private")
    assert await commit_of(with_token, ZOO) == commit
    for other in (upstream, with_token.with_token(hub.foreign_token), with_token.with_token(None)):
        with pytest.raises(RepoNotFound):
            await commit_of(other, ZOO)
    with pytest.raises(AccessDenied, match="does not accept the token") as caught:
        await commit_of(with_token.with_token(hub.bad_token), ZOO)
    assert caught.value.hint and "hfpeer auth login" in caught.value.hint


async def test_a_gated_repo_is_listed_for_everybody_but_its_files_are_not_given(
    hub: HubSimulator, upstream: Upstream, with_token: Upstream
) -> None:
    commit = Commit(put_zoo(hub.storage, visibility="gated"))
    assert await commit_of(upstream, ZOO) == commit
    assert (await upstream.manifest(ZOO, commit)).is_attested
    assert not (await with_token.manifest(ZOO, commit)).is_attested
    await with_token.auth_check(ZOO)
    for other in (upstream, with_token.with_token(hub.foreign_token)):
        with pytest.raises(GatedRepo) as caught:
            await other.auth_check(ZOO)
        assert caught.value.hint and "Ask for access" in caught.value.hint


async def test_a_disabled_repo_is_no_missing_one(hub: HubSimulator, with_token: Upstream) -> None:
    put_zoo(hub.storage, visibility="disabled")
    with pytest.raises(AccessDenied, match="disabled"):
        await commit_of(with_token, ZOO)


OUTAGES: dict[str, Callable[[], Fault]] = {
    "503": lambda: faults.status(503),
    "500": lambda: faults.status(500),
    "a 404 that no hub sends": lambda: faults.status(404),
    "400": lambda: faults.status(400),
    "a long rest": lambda: faults.too_many_requests(retry_after="1000"),
    "closed": faults.cut_before_headers,
    "reset": lambda: faults.cut_before_headers(reset=True),
    "cut": lambda: faults.cut_body_after(10),
    "a hotel's login page": lambda: faults.substituted(b"<html>Log in to the network</html>"),
    "no commit": lambda: faults.substituted(b'{"sha": "main"}'),
    "no object": lambda: faults.substituted(b"[]"),
    "deep nesting": lambda: faults.substituted(b"[" * 100_000),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_is_never_absence(hub: HubSimulator, upstream: Upstream, outage: str) -> None:
    commit = put_zoo(hub.storage)
    with hub.inject(OUTAGES[outage]()), pytest.raises(HubUnreachable, match=r"^hub ") as caught:
        await commit_of(upstream, ZOO)
    assert caught.value.hint
    with hub.inject(OUTAGES[outage]()), pytest.raises(HubUnreachable):
        await upstream.visibility(ZOO)
    with hub.inject(OUTAGES[outage](), path="/api/*"), pytest.raises((HubUnreachable, ForgedManifest)):
        await upstream.manifest(ZOO, Commit(commit))


async def test_silence_is_an_outage(hub: HubSimulator, impatient: Upstream) -> None:
    with hub.inject(faults.delay()), pytest.raises(HubUnreachable, match="is silent"):
        await commit_of(impatient, ZOO)
    assert len(hub.requests) == 1


async def test_nobody_listening_is_an_outage_that_is_over_when_the_hub_is_back(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = put_zoo(hub.storage)
    with hub.down(), pytest.raises(HubUnreachable, match="cannot be reached"):
        await commit_of(upstream, ZOO)
    assert await commit_of(upstream, ZOO) == commit


@pytest.mark.parametrize(
    "fault", [faults.status(503), faults.cut_before_headers(), faults.too_many_requests(0)], ids=["503", "cut", "429"]
)
async def test_a_short_fault_is_waited_out(hub: HubSimulator, upstream: Upstream, fault: Any) -> None:
    commit = put_zoo(hub.storage)
    hub.inject(fault, times=1)
    assert await commit_of(upstream, ZOO) == commit
    assert len(hub.requests) == 2


async def test_the_tries_are_few(hub: HubSimulator, upstream: Upstream) -> None:
    hub.inject(faults.status(503))
    with pytest.raises(HubUnreachable, match="answers 503"):
        await commit_of(upstream, ZOO)
    assert len(hub.requests) == 3


@pytest.mark.parametrize(
    ("location", "reason"),
    [("/api/models/acme/zoo/revision/main", "more than"), (None, "without a Location"), ("ftp://x/", "no http URL")],
)
async def test_a_redirect_to_nowhere_is_an_outage(
    hub: HubSimulator, upstream: Upstream, location: str | None, reason: str
) -> None:
    hub.inject(faults.status(307, headers={"Location": location} if location else {}))
    with pytest.raises(HubUnreachable, match=reason):
        await commit_of(upstream, ZOO)
    assert len(hub.requests) <= 11


# --- manifests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
async def test_a_manifest_is_proved_with_modes_links_and_submodules(
    hub: HubSimulator, upstream: Upstream, kind: str
) -> None:
    commit = Commit(put_zoo(hub.storage, kind))
    manifest = await upstream.manifest(RepoId.parse("acme/zoo", kind), commit)
    prove(manifest)
    files = {str(file.path): file for file in manifest.files}
    assert files.keys() == ZOO_FILES.keys() - {"vendored/lib"}
    assert {path: file.mode for path, file in files.items() if file.mode != "100644"} == {
        "run.sh": "100755",
        "link.txt": "120000",
    }
    assert [(entry.path, entry.mode) for entry in manifest.opaque] == [("vendored/lib", "160000")]
    for path, content in ZOO_FILES.items():
        if isinstance(content, Lfs):
            assert files[path].digest.hex == hashlib.sha256(content.data).hexdigest()
            assert files[path].size_bytes == len(content.data)
        elif isinstance(content, bytes):
            assert files[path].digest.hex == object_id("blob", content) and files[path].size_bytes == len(content)


async def test_a_listing_of_many_pages_is_read_to_its_end_at_our_own_endpoint(
    hub: HubSimulator, upstream: Upstream
) -> None:
    commit = Commit(put_many(hub.storage))
    hub.behaviour.tree_page_entries = 300
    link = "<https://huggingface.co/api/models/acme/many/tree/{}?recursive=true&limit=1000&cursor=eyJvZmZzZXQiOjMwMH0=>"
    hub.inject(faults.with_header("Link", link.format(commit) + '; rel="next"'), path="*/tree/*", times=1)
    manifest = await upstream.manifest(RepoId.parse("acme/many"), commit)
    assert len(manifest.files) == 1100 and not manifest.is_attested
    assert len(hub.requests_for("*/tree/*")) == 4


async def test_pages_without_end_are_left(hub: HubSimulator, upstream: Upstream) -> None:
    commit = Commit(put_many(hub.storage))
    path = f"/api/models/acme/many/tree/{commit}?recursive=true&expand=false"
    hub.inject(faults.with_header("Link", f'<{hub.endpoint}{path}>; rel="next"'), path="*/tree/*")
    assert len((await upstream.manifest(RepoId.parse("acme/many"), commit)).files) == 1100  # by the siblings
    hub.inject(faults.status(404), path="/api/*/revision/*")
    with pytest.raises(HubUnreachable, match="no end"):
        await upstream.manifest(RepoId.parse("acme/many"), commit)


async def test_pages_of_too_many_bytes_are_left(
    hub: HubSimulator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_zoo(hub.storage)
    hub.behaviour.tree_page_entries = 2
    monkeypatch.setattr(api, "MAX_PAGES_BYTES", 300)
    commit = await commit_of(upstream, ZOO)
    hub.inject(faults.status(404), path="/api/*/revision/*")
    with pytest.raises(HubUnreachable, match="no end"):
        await upstream.manifest(ZOO, commit)


async def test_a_truncated_listing_is_completed_by_path(hub: HubSimulator, upstream: Upstream) -> None:
    commit = Commit(put_many(hub.storage))
    hub.inject(faults.truncated_listing(100), path="*/tree/*")
    manifest = await upstream.manifest(RepoId.parse("acme/many"), commit)
    assert len(manifest.files) == 1100 and not manifest.is_attested


async def test_a_listing_that_stays_truncated_is_refused(hub: HubSimulator, upstream: Upstream) -> None:
    commit = Commit(put_many(hub.storage))
    hub.inject(faults.truncated_listing(100), path="*/tree/*")
    hub.inject(faults.substituted(b"[]"), path="*/paths-info/*")
    with pytest.raises(ForgedManifest, match="lacks"):
        await upstream.manifest(RepoId.parse("acme/many"), commit)


def altered(entries: list[dict[str, Any]], forgery: str) -> list[dict[str, Any]]:
    by_path = {entry["path"]: entry for entry in entries}
    plain, large = by_path["config.json"], by_path["model.safetensors"]
    if forgery == "another blob":
        plain["oid"] = "1" * 40
    elif forgery == "another LFS size":
        large["lfs"]["size"] += 1
    elif forgery == "another LFS digest":
        large["lfs"]["oid"] = "1" * 64
    elif forgery == "an added file":
        entries.append({**plain, "path": "evil.py"})
    elif forgery == "a moved file":
        plain["path"] = "nested/config.json"
    elif forgery == "an LFS file made of a plain one":
        plain["lfs"] = large["lfs"]
    return entries


@pytest.mark.parametrize(
    "forgery",
    [
        "another blob",
        "another LFS size",
        "another LFS digest",
        "an added file",
        "a moved file",
        "an LFS file made of a plain one",
    ],
)
async def test_a_forged_listing_is_refused(hub: HubSimulator, upstream: Upstream, forgery: str) -> None:
    commit = Commit(put_zoo(hub.storage))
    entries = await upstream._api.get_pages(question_for_tree(upstream, commit), upstream._access)
    hub.inject(faults.substituted(json.dumps(altered(entries, forgery)).encode()), path="*/tree/*")
    hub.inject(faults.substituted(b"not a pointer"), path="*/raw/*")
    with pytest.raises(ForgedManifest):
        await upstream.manifest(ZOO, commit)


def question_for_tree(upstream: Upstream, commit: Commit) -> Any:
    return ApiRequest(upstream._access.url(f"/api/models/acme/zoo/tree/{commit}?recursive=true"), ZOO)


async def test_a_pointer_that_is_not_canonical_is_kept_in_the_manifest(hub: HubSimulator, upstream: Upstream) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    pointer = pointer_text(digest, len(content)).replace(b"oid", b"x-note hand-made\noid")
    hub.put_repo("model", "acme/zoo", {"real.bin": Lfs(content), "dir/odd name.bin": pointer})
    manifest = await upstream.manifest(ZOO, await commit_of(upstream, ZOO))
    odd = manifest.file(FilePath("dir/odd name.bin"))
    assert (odd.digest.hex, odd.size_bytes, odd.pointer) == (digest, len(content), pointer)
    assert manifest.file(FilePath("real.bin")).pointer is None
    prove(Manifest.from_json(manifest.to_json()))


async def test_a_file_with_an_impossible_name_does_not_keep_the_rest_from_being_proved(
    hub: HubSimulator, upstream: Upstream
) -> None:
    long = "n" * 256
    hub.put_repo("model", "acme/zoo", {"good.txt": b"1", f"dir/{long}": b"2", "a\\b": b"3", "C:x": b"4"})
    manifest = await upstream.manifest(ZOO, await commit_of(upstream, ZOO))
    assert [str(file.path) for file in manifest.files] == ["C:x", "a\\b", "good.txt"]
    assert [(entry.path, entry.size_bytes) for entry in manifest.unusable] == [(f"dir/{long}", 1)]
    assert not manifest.is_attested
    hub.behaviour.has_git = False
    listed = await upstream.manifest(ZOO, manifest.commit)
    assert (listed.files, listed.unusable) == (manifest.files, manifest.unusable)


@pytest.mark.parametrize("why", ["no git", "no filters", "broken pack", "no pack", "git 503", "redirect"])
async def test_without_a_sound_git_the_listing_is_attested(hub: HubSimulator, upstream: Upstream, why: str) -> None:
    commit = Commit(put_zoo(hub.storage))
    proved = await upstream.manifest(ZOO, commit)
    if why == "no git":
        hub.behaviour.has_git = False
    elif why == "no filters":
        hub.behaviour.git_allows_filter = False
    elif why == "broken pack":
        hub.inject(faults.substituted(b"000dpackfile\n0011\x01PACK" + b"x" * 8 + b"0000"), path="*git-upload-pack")
    elif why == "no pack":
        hub.inject(faults.substituted(b"0000"), path="*git-upload-pack")
    elif why == "git 503":
        hub.inject(faults.status(503), path="*/info/refs")
    else:
        hub.inject(faults.status(307, headers={"Location": hub.cdn_endpoint + "/x"}), path="*git-upload-pack")
    attested = await upstream.manifest(ZOO, commit)
    assert attested.is_attested and attested.opaque == ()
    assert [(file.path, file.digest, file.size_bytes) for file in attested.files] == [
        (file.path, file.digest, file.size_bytes) for file in proved.files
    ]


async def test_a_silent_git_is_not_waited_for(hub: HubSimulator) -> None:
    commit = Commit(put_zoo(hub.storage))
    upstream = Upstream("hub", "origin", hub.endpoint, timeouts=IMPATIENT_WITH_GIT)
    with hub.inject(faults.delay(), path="*git-upload-pack"):
        assert (await upstream.manifest(ZOO, commit)).is_attested
    await upstream.aclose()


async def test_another_commits_trees_prove_nothing(hub: HubSimulator, upstream: Upstream) -> None:
    first = Commit(hub.put_repo("model", "acme/zoo", {"a": b"1"}))
    second = Commit(hub.put_repo("model", "acme/zoo", {"a": b"2"}))
    answers: list[bytes] = []

    def replay(request: Any, answer: Any) -> Any:
        whole = answer(request)
        answers.append(body_bytes(whole.body))
        return whole

    hub.inject(replay, path="*git-upload-pack", times=1)
    assert not (await upstream.manifest(ZOO, first)).is_attested
    hub.inject(faults.substituted(answers[0]), path="*git-upload-pack")
    assert (await upstream.manifest(ZOO, second)).is_attested


async def test_a_big_repo_with_deltas_is_proved(hub: HubSimulator, upstream: Upstream) -> None:
    files: dict[str, Any] = {f"folder-{n % 40}/same name {n // 40:03}.json": b"{}" for n in range(4000)}
    put_zoo(hub.storage)
    commit = Commit(hub.put_repo("model", "acme/zoo", {**files, "sub/module": Submodule()}))
    run_git(hub.repo("model", "acme/zoo").git_dir, "repack", "-a", "-d", "-q", "--depth=20", "--window=20")
    manifest = await upstream.manifest(ZOO, commit)
    assert len(manifest.files) == 4000 and not manifest.is_attested


def test_a_pack_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    size, header = 1 << 20, bytearray([0x80 | 2 << 4 | 0])
    rest = size >> 4
    while rest > 0x7F:
        header.append(0x80 | rest & 0x7F)
        rest >>= 7
    header.append(rest)
    pack = b"PACK" + struct.pack(">II", 2, 1) + bytes(header) + zlib.compress(bytes(size))
    pack += hashlib.sha1(pack).digest()
    assert read_objects(pack, size)
    with pytest.raises(BrokenPack, match="more than"):
        read_objects(pack, size - 1)
    for broken in (b"", pack[:30], pack[:12] + b"\xff" * 40, pack[:-25]):
        with pytest.raises(BrokenPack):
            read_objects(broken, size)


# --- visibility -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "visibility"),
    [
        ("public", Visibility.PUBLIC),
        ("gated", Visibility.GATED),
        ("private", Visibility.PRIVATE),
        ("disabled", Visibility.PRIVATE),
    ],
)
async def test_visibility_is_what_a_stranger_sees(
    hub: HubSimulator, with_token: Upstream, state: str, visibility: Visibility
) -> None:
    commit = Commit(put_zoo(hub.storage, visibility=state))
    place = commit if visibility is Visibility.PUBLIC else ""
    assert await with_token.visibility(ZOO, commit) == await with_token.visibility(ZOO) == (visibility, place)
    assert not hub.requests_with_token()


async def test_what_is_said_of_one_commit_is_not_said_of_another(hub: HubSimulator, with_token: Upstream) -> None:
    other = Commit("ab" * 20)
    put_zoo(hub.storage)
    assert await with_token.visibility(ZOO, other) == (Visibility.PRIVATE, other), "it has none of that name"
    head = Commit(hub.repo("model", str(ZOO)).refs()["refs/heads/main"])
    answer = faults.substituted(b'{"private": false, "gated": false, "sha": "%s"}' % other.encode())
    with hub.inject(answer), pytest.raises(HubUnreachable, match="instead of"):
        await with_token.visibility(ZOO, head)


async def test_a_missing_repo_is_not_public(hub: HubSimulator, with_token: Upstream) -> None:
    assert await with_token.visibility(ZOO) == (Visibility.PRIVATE, "")


def test_an_unusable_proxy_setting_is_said_to_be_that(hub: HubSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    upstream = Upstream("hub", "origin", hub.endpoint, timeouts=PATIENT)
    with pytest.raises(HubUnreachable, match="cannot be asked"):
        asyncio.run(upstream.resolve(ZOO, Revision("main")))
