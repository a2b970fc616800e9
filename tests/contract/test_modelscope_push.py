"""A push to ModelScope: what is sent, what happens after every fault, and that nothing is sent twice or lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.commit_node import CommitNode
from fakes.hub import Content, Fault, HubSimulator, Lfs
from fakes.hub import faults as hub_faults
from fakes.hub.zoo import noise
from fakes.modelscope import ModelScopeSimulator, faults
from fakes.modelscope.storage import PRIVATE
from fakes.modelscope.uploads import Upload
from fakes.waiting import wait_until
from hfpeer.budgets import MAX_SITE_LISTINGS
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import Operations
from hfpeer.errors import (
    AccessDenied,
    CorruptData,
    HfpeerError,
    HubUnreachable,
    NameTaken,
    PushRefused,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.modelscope import api as api_module
from hfpeer.modelscope import listing as listing_module
from hfpeer.modelscope import uploads as uploads_module
from hfpeer.modelscope.access import SiteAccess
from hfpeer.modelscope.api import SiteApi, SiteTimeouts
from hfpeer.modelscope.listing import list_files
from hfpeer.modelscope.names import SiteRepo
from hfpeer.modelscope.repos import whoami
from hfpeer.modelscope.uploads import SiteBlob
from hfpeer.names import RepoId, Revision
from hfpeer.net.limiter import Limiter
from hfpeer.net.rates import parse_schedule
from hfpeer.node.operations.modelscope.push_list import push_list
from hfpeer.node.operations.modelscope.pushing import PushParts, compare_copy, push
from hfpeer.node.operations.modelscope.requests import PushLimits, PushRequest
from hfpeer.node.operations.modelscope.results import CopyReport, PushOutcome, PushReport
from hfpeer.node.session import open_node
from hfpeer.transfer.events import Event, Progressed

WEIGHTS, OTHER = noise(1_500_000, "weights"), noise(900_000, "other")
CARD = b"---\nlicense: mit\n---\n# Tiny\n"
FILES: dict[str, Content] = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": CARD,
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": Lfs(WEIGHTS),
    "sub/other.safetensors": Lfs(OTHER),
    "twin.safetensors": Lfs(WEIGHTS),
}
SHA = hashlib.sha256(WEIGHTS).hexdigest()
LFS_BYTES = len(WEIGHTS) + len(OTHER)
REPO = RepoId.parse("acme/tiny")
FAST = SiteTimeouts(connect_seconds=5, silence_seconds=5, answer_seconds=5, pause_seconds=0.01)
HUB_TOKEN = HubSimulator.valid_token


def sha256s(files: Mapping[str, Content]) -> dict[str, str]:
    bodies = {path: each.data if isinstance(each, Lfs) else each for path, each in files.items()}
    return {path: hashlib.sha256(data).hexdigest() for path, data in bodies.items() if isinstance(data, bytes)}


@dataclass
class Bench:
    """A ModelScope, and a node with the repo that is pushed."""

    site: ModelScopeSimulator
    session: Callable[[], AbstractAsyncContextManager[Operations]]
    node: CommitNode
    token: str = ModelScopeSimulator.token
    waits: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    limiter: Limiter | None = None

    def run(self, work: Callable[[PushParts], Any]) -> Any:
        async def main() -> Any:
            api = SiteApi(SiteAccess(self.site.endpoint, self.token), FAST, self.waits.append)
            try:
                async with self.session() as node:
                    return await work(PushParts(node, api, self.limiter))
            finally:
                await api.aclose()

        return asyncio.run(main())

    def push(self, target: str = "team/tiny", **options: Any) -> PushReport:
        request = self._request(target, options)
        report = self.run(lambda parts: push(parts, request, self.events.append))
        assert isinstance(report, PushReport)
        return report

    def verify(self, target: str = "team/tiny", **options: Any) -> CopyReport:
        request = self._request(target, options)
        report = self.run(lambda parts: compare_copy(parts, request, self.events.append))
        assert isinstance(report, CopyReport)
        return report

    def push_list(self, targets: Mapping[str, str], limits: PushLimits) -> list[PushOutcome]:
        requests = [PushRequest(RepoId.parse(repo), SiteRepo.parse(target)) for repo, target in targets.items()]
        outcomes = self.run(lambda parts: push_list(parts, requests, limits, self.events.append))
        assert isinstance(outcomes, list)
        return outcomes

    def _request(self, target: str, options: dict[str, Any]) -> PushRequest:
        repo = options.pop("repo", REPO)
        return PushRequest(repo, SiteRepo.parse(target, repo.type), **{"token": "", **options})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """With a node that stands for any: it has the commit, and adds write into a folder."""
    node = CommitNode(tmp_path)
    node.put_repo(REPO, FILES)

    @asynccontextmanager
    async def session() -> AsyncIterator[Operations]:
        yield node

    with ModelScopeSimulator() as site:
        yield Bench(site, session, node)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/tiny", FILES)
        yield hub


@pytest.fixture
def real(hub: HubSimulator, tmp_path: Path) -> Iterator[Bench]:
    """With a real node, which fetches from a hub into a cache."""
    environ = {
        "HFPEER_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
    }
    with ModelScopeSimulator() as site:
        yield Bench(site, lambda: open_node(read_settings(environ)), CommitNode(tmp_path))


# --- What is sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", ["empty", "seeded"])
def test_a_push_brings_every_file_with_its_bytes_and_a_second_one_sends_nothing(real: Bench, fresh: Any) -> None:
    real.site.behaviour.fresh_repo = fresh
    report = real.push(message="Hello")
    assert real.site.files("team/tiny") == sha256s(FILES)
    assert real.site.commits("team/tiny")[-1] == "Hello" and len(report.commits) == 1
    assert (report.is_created, report.visibility, report.state) == (True, "public", "pushed")
    assert (report.sent_blobs, report.sent_bytes, report.wire_bytes) == (2, LFS_BYTES, LFS_BYTES)
    assert real.site.uploads.received_bytes == LFS_BYTES, "equal files are one blob"
    assert report.replaced == (() if fresh == "empty" else (".gitattributes", "README.md"))
    assert real.site.storage.repos["model", "team/tiny"].license == "mit"
    progress = [event for event in real.events if isinstance(event, Progressed)][-1]
    assert progress.present_bytes == progress.size_bytes == LFS_BYTES and progress.files_done == 2

    real.site.clear()
    again = real.push()
    assert (again.state, again.sent_bytes, again.same_files) == ("up to date", 0, len(FILES))
    assert real.site.requests_for(method="PUT") == real.site.requests_for("*/commit/*") == []


def test_a_new_commit_sends_what_is_new_names_what_is_gone_and_removes_it_only_with_prune(bench: Bench) -> None:
    bench.push()
    bench.site.clear()
    later = {**FILES, "new.safetensors": Lfs(noise(5000))}
    bench.node.put_repo(REPO, {path: content for path, content in later.items() if path != "config.json"})
    dry = bench.push(is_dry_run=True, prunes=True)
    assert (dry.sent_bytes, dry.pruned, dry.state) == (5000, ("config.json",), "planned")
    assert bench.site.requests_for(method="PUT") == bench.site.requests_for("*/commit/*") == []
    kept = bench.push()
    assert (kept.sent_bytes, kept.extra, kept.pruned) == (5000, ("config.json",), ())
    assert "config.json" in bench.site.files("team/tiny")
    pruned = bench.push(prunes=True)
    assert (pruned.sent_bytes, pruned.extra, pruned.pruned) == (0, (), ("config.json",))
    assert "config.json" not in bench.site.files("team/tiny")


def test_a_prune_leaves_what_modelscope_itself_makes(bench: Bench) -> None:
    bench.site.put_repo("model", "team/tiny", {"configuration.json": b"{}", "old.txt": b"x"})
    report = bench.push(prunes=True)
    assert report.pruned == ("old.txt",) and report.extra == ("configuration.json",)
    assert "configuration.json" in bench.site.files("team/tiny")


def test_wrong_bytes_under_the_right_name_are_found_and_replaced(bench: Bench) -> None:
    bench.push()
    repo = bench.site.storage.repos["model", "team/tiny"]
    bench.site.storage.put_files(repo, {"config.json": b"[]", "model.safetensors": OTHER}, lfs=["model.safetensors"])
    assert bench.verify().different == ("config.json", "model.safetensors") and bench.verify().exit_code == 7
    bench.site.uploads.clear()
    report = bench.push()
    assert report.replaced == ("config.json", "model.safetensors")
    assert bench.site.files("team/tiny") == sha256s(FILES)
    assert bench.site.uploads.received_bytes == 0, "the right blob is stored there"
    assert report.stored_blobs == 1 and bench.verify().exit_code == 0


def test_a_blob_that_any_repo_has_stored_there_is_neither_fetched_nor_sent(real: Bench, hub: HubSimulator) -> None:
    real.site.put_repo("model", "bob/copy", {"w.bin": WEIGHTS}, lfs=["w.bin"])
    dry = real.push(is_dry_run=True)
    assert not dry.is_stored_known and ("model", "team/tiny") not in real.site.storage.repos
    report = real.push()
    assert (report.stored_bytes, report.sent_bytes) == (len(WEIGHTS), len(OTHER))
    assert not hub.requests_for("*model.safetensors") and not hub.requests_for("*twin.safetensors")
    assert real.site.files("team/tiny") == sha256s(FILES)


def test_a_selection_is_pushed_alone_and_the_rest_is_not_extra(bench: Bench) -> None:
    bench.push()
    report = bench.push("team/part", include=("*.safetensors",), exclude=("sub/*",))
    assert sorted(bench.site.files("team/part")) == ["model.safetensors", "twin.safetensors"]
    assert report.files == 2 and bench.push("team/part", files=(), include=("*.json",)).extra == ()


def test_a_dataset_is_pushed_page_by_page(bench: Bench) -> None:
    files: dict[str, Content] = {f"d{n % 3}/{n:03}.txt": b"%d" % n for n in range(450)}
    rows = RepoId.parse("acme/rows", "dataset")
    bench.node.put_repo(rows, files)
    report = bench.push("team/rows", repo=rows)
    assert bench.site.files("team/rows", "dataset") == sha256s(files) and len(report.commits) == 2
    assert bench.verify("team/rows", repo=rows).exit_code == 0
    assert max(int(r.request.query_value("PageNumber")) for r in bench.site.requests_for("*/repo/tree")) == 3


def test_a_comparison_names_every_difference_and_changes_nothing(bench: Bench) -> None:
    bench.site.put_repo("model", "team/tiny", {"README.md": b"other", "config.json": b"{}", "only-there.txt": b""})
    with bench.site.inject(faults.entry_with("config.json", Sha256=None), path="*/repo/files"):
        report = bench.verify()
    assert report.different == ("README.md", "config.json") and report.untold == ("config.json",)
    assert report.extra == ("only-there.txt",) and "model.safetensors" in report.absent
    assert bench.site.requests_for(method="POST") == bench.site.requests_for(method="PUT") == []
    assert not [path for path in bench.node.added if path.endswith(".safetensors")], (
        "the sha256 of an LFS file needs no bytes"
    )


def test_large_blobs_are_sent_one_by_one_so_that_a_kill_wastes_one_of_them_at_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "IN_FLIGHT_BYTES", LFS_BYTES - 1)
    begun: list[int] = []
    count = faults.before(lambda: begun.append(len(bench.site.uploads.all)))
    with bench.site.inject(count, listener="lfs"):
        bench.site.uploads.bytes_per_second = 10 * LFS_BYTES
        bench.push()
    assert begun == [1, 2], "the second began after the first had arrived"


@pytest.mark.parametrize("uploads", [None, 2])
def test_small_blobs_or_as_many_as_the_user_says_are_sent_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, uploads: int | None
) -> None:
    if uploads is not None:
        monkeypatch.setattr(uploads_module, "IN_FLIGHT_BYTES", 1)
    both = faults.before(lambda: bench.site.uploads.wait_for_bytes(LFS_BYTES))
    with bench.site.inject(both, listener="lfs"):
        assert bench.push(uploads=uploads).sent_bytes == LFS_BYTES, "no answer came before both blobs had"


def test_only_what_was_not_verified_within_a_day_is_hashed_while_it_is_sent(
    real: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[Any] = []

    def counted() -> Any:
        hashes.append(hashlib.sha256())
        return hashes[-1]

    monkeypatch.setattr(uploads_module, "sha256", counted)
    real.push()
    assert not hashes, "the add has just hashed them"
    monkeypatch.setattr(uploads_module, "VERIFIED_SECONDS", 0)
    real.site.storage.stored.clear()
    assert real.push("team/again").sent_bytes == LFS_BYTES and len(hashes) == 2


@pytest.mark.parametrize(
    ("name", "age_seconds", "changed_seconds", "is_verified"),
    [
        (SHA, 60, -1, True),
        (SHA, 60, 1, False),
        (SHA, 90_000, -1, False),
        ("edited", 60, -1, False),
        (SHA, -5, -9, False),
    ],
)
def test_a_verification_counts_for_the_same_unchanged_file_for_a_day(
    tmp_path: Path, name: str, age_seconds: float, changed_seconds: float, is_verified: bool
) -> None:
    (tmp_path / name).write_bytes(WEIGHTS)
    verified_at = time.time() - age_seconds
    facts = os.stat_result((*(tmp_path / name).stat()[:9], verified_at + changed_seconds))
    upload = uploads_module.Upload(SiteBlob(SHA, len(WEIGHTS)), tmp_path / name, "model.safetensors", verified_at)
    assert upload.is_verified(name, facts) is is_verified


def test_uploads_obey_the_limit_and_hold_no_blob_in_memory(bench: Bench) -> None:
    bench.limiter = Limiter(parse_schedule("8mbit"))
    quanta: list[int] = []
    reserve = bench.limiter.reserve

    def noted(size_bytes: int) -> float:
        quanta.append(size_bytes)
        return reserve(size_bytes) / 50

    bench.limiter.reserve = noted  # type: ignore[method-assign]
    bench.push()
    assert sum(quanta) == LFS_BYTES and max(quanta) <= 30_000


# --- Who may see it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", ["gated", "private"])
def test_a_repo_that_is_not_public_needs_the_word_of_the_user_and_becomes_private(
    bench: Bench, visibility: str
) -> None:
    bench.node.visibility = visibility
    with pytest.raises(AccessDenied, match=visibility):
        bench.push()
    assert bench.site.requests_for(method="POST") == []
    report = bench.push(has_permission=True)
    assert report.visibility == "private"
    assert bench.site.storage.repos["model", "team/tiny"].visibility == PRIVATE
    bench.site.put_repo("model", "team/open", {"a.txt": b""})
    with pytest.raises(AccessDenied, match="is public, and acme/tiny is"):
        bench.push("team/open", has_permission=True)
    assert bench.site.files("team/open").keys() == {"a.txt"}
    assert bench.push("team/open", has_permission=True, wish="public").visibility == "public"


def test_no_token_of_one_side_reaches_the_other_or_any_cdn(real: Bench, hub: HubSimulator) -> None:
    hub.put_repo("model", "acme/tiny", FILES, visibility="private")
    with pytest.raises(AccessDenied, match="is private at the Hub"):
        real.push(token=HUB_TOKEN)
    real.push(token=HUB_TOKEN, has_permission=True)
    for record in real.site.requests:
        assert HUB_TOKEN not in f"{record.request.target} {record.request.headers}"
    for hub_record in hub.requests:
        assert real.site.token not in f"{hub_record.request.target} {hub_record.request.headers}"
    assert hub.requests_with_token(HUB_TOKEN)
    assert all(real.site.token in str(record.request.headers) for record in real.site.requests_for(method="PUT"))


def test_nothing_is_created_against_the_users_word(bench: Bench) -> None:
    with pytest.raises(RepoNotFound, match="--no-create"):
        bench.push(creates=False)
    with pytest.raises(RevisionNotFound, match="the branch master only"):
        bench.push(branch="dev")
    with pytest.raises(RepoNotFound):
        bench.verify()
    assert not bench.site.storage.repos
    bench.push()
    with pytest.raises(RevisionNotFound, match="no such branch"):
        bench.push(branch="dev")


@pytest.mark.parametrize(
    ("token", "error", "said"),
    [
        (ModelScopeSimulator.read_token, AccessDenied, "does not let this token write"),
        (ModelScopeSimulator.foreign_token, AccessDenied, "does not let this token write"),
        (ModelScopeSimulator.bad_token, AccessDenied, "does not accept the token"),
    ],
)
def test_a_token_that_may_not_write_is_told_and_tried_once(
    bench: Bench, token: str, error: type[HfpeerError], said: str
) -> None:
    bench.site.put_repo("model", "team/tiny", {"a.txt": b""})
    bench.token = token
    with pytest.raises(error, match=said) as refused:
        bench.push()
    assert refused.value.hint and len(bench.site.requests_for(method="POST")) == 1
    with pytest.raises(error):
        bench.push("team/new")


# --- Faults -----------------------------------------------------------------------------------------------------

LIST, BATCH, PUT, COMMIT = "*/repo/files", "*/objects/batch", "*/blobs/*", "*/commit/*"


@pytest.mark.parametrize(
    ("path", "fault", "times"),
    [
        (LIST, hub_faults.status(500), 2),
        (LIST, faults.html(502, "Bad Gateway"), 1),
        (LIST, faults.refused(429, "too many"), 1),
        (LIST, faults.refused(404, "Error 1461: max_prepared_stmt_count", 10010205001), 2),
        (LIST, hub_faults.cut_before_headers(), 1),
        (BATCH, hub_faults.status(500), 2),
        (BATCH, faults.html(504, "Gateway Time-out"), 1),
        (PUT, hub_faults.status(500), 1),
        (PUT, faults.html(502, "Bad Gateway"), 2),
        (PUT, faults.empty_success(), None),
        (PUT, faults.lost_reply(), 1),
        (PUT, hub_faults.cut_before_headers(reset=True), 1),
        (COMMIT, faults.refused(409, "branch changed, please retry", 10030000001), 2),
        (COMMIT, faults.refused(400, "commit rejected by repository policy", 10030000001), 1),
        (COMMIT, faults.refused(429, "Commit frequency limit exceeded"), 1),
        (COMMIT, faults.html(504, "Gateway Time-out"), 1),
        (COMMIT, hub_faults.status(500), 3),
        (COMMIT, faults.lost_reply(), 1),
    ],
)
def test_a_fault_of_a_moment_is_waited_out(bench: Bench, path: str, fault: Fault, times: int | None) -> None:
    bench.push("team/first", files=(), include=("*.json",))
    with bench.site.inject(fault, path=path, times=times) as injected:
        report = bench.push()
    assert injected.hits and bench.site.files("team/tiny") == sha256s(FILES)
    assert len(bench.site.commits("team/tiny")) == 1, "no commit was made twice"
    assert report.sent_bytes + report.stored_bytes == LFS_BYTES


@pytest.mark.parametrize(
    ("path", "fault", "error", "said"),
    [
        (LIST, hub_faults.status(500), HubUnreachable, "answers status 500"),
        (LIST, faults.html(404, "Not Found"), RepoNotFound, "has no repo team/tiny that this token may see"),
        (LIST, hub_faults.substituted(b"<html>"), HubUnreachable, "does not answer like a ModelScope"),
        (LIST, faults.altered(lambda document: document.update(Data={"Files": [1]})), HubUnreachable, "no path"),
        (LIST, faults.altered(lambda document: document.update(Data=5)), HubUnreachable, "is no array"),
        (BATCH, faults.object_error(), PushRefused, "refuses the blob"),
        (BATCH, faults.foreign_object(), HubUnreachable, "a blob that was not asked for"),
        (BATCH, faults.hrefs(lambda href: href.replace("localhost", "other.example")), HubUnreachable, "other.example"),
        (BATCH, faults.hrefs(lambda href: href[:-70] + "ab" * 32 + "/5"), HubUnreachable, "not the blob's address"),
        (PUT, faults.html(413), PushRefused, "takes no message of this size"),
        (PUT, hub_faults.status(500), HubUnreachable, "answers status 500"),
        (PUT, faults.unsuccessful("disk full"), PushRefused, "disk full"),
        (PUT, faults.refused(400, "user not logged in", 10030000001), AccessDenied, "does not accept the token"),
        (COMMIT, faults.refused(400, "user not logged in", 10030000001), AccessDenied, "does not accept the token"),
        (COMMIT, faults.refused(403, "no write permission to repository"), AccessDenied, "does not let this token"),
        (COMMIT, faults.refused(400, "You can only create … when you are on a branch"), PushRefused, "on a branch"),
        (COMMIT, faults.refused(422, "commit request exceeds actions limit: 9 > 2"), PushRefused, "actions limit"),
        (COMMIT, faults.refused(400, "invalid commit action"), PushRefused, "invalid commit action"),
        (COMMIT, faults.html(413), PushRefused, "takes no message of this size"),
        (COMMIT, faults.unsuccessful("could not commit"), PushRefused, "could not commit"),
    ],
)
def test_a_lasting_fault_ends_in_a_sentence_and_the_same_command_goes_on(
    bench: Bench, path: str, fault: Fault, error: type[HfpeerError], said: str
) -> None:
    bench.push("team/first", files=(), include=("*.json",))
    bench.site.put_repo("model", "team/tiny", {"README.md": b"mine"})
    with bench.site.inject(fault, path=path), pytest.raises(error, match=said) as refused:
        bench.push()
    assert refused.value.hint and refused.value.message.endswith(".")
    assert bench.site.files("team/tiny").keys() == {"README.md"}, "nothing was committed"
    arrived = bench.site.uploads.received_bytes
    bench.site.uploads.clear()
    bench.push()
    assert bench.site.files("team/tiny") == sha256s(FILES)
    if path == COMMIT:
        assert (arrived, bench.site.uploads.received_bytes) == (LFS_BYTES, 0), "no stored blob was sent again"


def test_a_refused_blob_is_named_with_its_path_and_size(bench: Bench) -> None:
    too_large = bench.site.inject(faults.html(413), path=f"*/blobs/*/{len(WEIGHTS)}")
    with too_large, pytest.raises(PushRefused, match=r"safetensors \(1,500,000 bytes\)"):
        bench.push()
    assert bench.site.files("team/tiny") == {}


def test_an_upload_that_is_cut_begins_anew_and_the_others_are_not_sent_again(bench: Bench) -> None:
    bench.site.uploads.cut_after(700_000, path=f"/{len(WEIGHTS)}")
    report = bench.push()
    assert bench.site.files("team/tiny") == sha256s(FILES)
    assert report.sent_bytes == LFS_BYTES and report.wire_bytes >= LFS_BYTES
    sizes = sorted((upload.size_bytes, upload.is_whole) for upload in bench.site.uploads.all)
    assert sizes == [(len(OTHER), True), (len(WEIGHTS), False), (len(WEIGHTS), True)]


def test_the_wait_that_the_site_asks_for_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(api_module, "rest", sleep)
    fault = faults.refused(429, "Commit frequency limit exceeded", retry_after="30")
    with bench.site.inject(fault, path=COMMIT, times=1):
        bench.push()
    assert 30 in slept
    assert [line for line in bench.waits if "Commit frequency limit exceeded" in line and "in 30 s" in line]


def test_the_rests_of_one_request_have_a_largest_sum(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(api_module, "rest", sleep)
    fault = faults.refused(429, "slow down", retry_after="100000")
    with bench.site.inject(fault, path=COMMIT), pytest.raises(HubUnreachable, match="limits the rate"):
        bench.push()
    assert slept[-3:] == [300, 300, 300] and sum(slept) < 910


def test_a_repo_that_appears_meanwhile_is_used_and_one_that_is_hidden_is_told(bench: Bench) -> None:
    appear = faults.before(lambda: bench.site.storage.create("model", "team/tiny"))
    with bench.site.inject(appear, path="/api/v1/models", method="POST", times=1):
        report = bench.push()
    assert (report.state, report.is_created, report.visibility) == ("pushed", False, "public")
    bench.site.put_repo("model", "bob/tiny", {"a.txt": b""}, visibility=PRIVATE)
    taken = faults.refused(400, "该名称已被注册使用，请重新命名", 10010101001)
    hidden = bench.site.inject(taken, path="/api/v1/models", method="POST")
    with hidden, pytest.raises(NameTaken, match="already, and this token may not see it"):
        bench.push("bob/tiny")


def test_a_public_repo_that_appears_meanwhile_gets_nothing_that_is_to_be_private(bench: Bench) -> None:
    appear = faults.before(lambda: bench.site.storage.create("model", "team/tiny"))
    appearing = bench.site.inject(appear, path="/api/v1/models", method="POST", times=1)
    with appearing, pytest.raises(AccessDenied, match="is public, and --private was said"):
        bench.push(wish="private")
    assert bench.site.files("team/tiny") == {} and not bench.site.uploads.all


def test_a_commit_that_is_too_large_for_the_site_is_made_in_parts(bench: Bench) -> None:
    bench.site.behaviour.max_actions = 3
    report = bench.push()
    assert len(report.commits) == 3 and bench.site.files("team/tiny") == sha256s(FILES)
    too_large = bench.site.inject(faults.html(413), path=COMMIT)
    with too_large, pytest.raises(PushRefused, match=r"\.gitattributes: .* takes no message of this size"):
        bench.push("team/small")


def test_files_are_updated_where_the_site_tells_that_from_creating(bench: Bench) -> None:
    bench.site.put_repo("model", "team/tiny", {"config.json": b"old"})

    def fault(request: Any, answer: Any) -> Any:
        actions = json.loads(request.body)["actions"]
        if any(each["path"] == "config.json" and each["action"] == "create" for each in actions):
            return faults.refused(400, "A file with this name already exists")(request, answer)
        return answer(request)

    with bench.site.inject(fault, path=COMMIT):
        bench.push()
    assert bench.site.files("team/tiny") == sha256s(FILES)


def test_a_file_whose_sha256_the_site_does_not_tell_is_named_and_no_failure(bench: Bench) -> None:
    with bench.site.inject(faults.entry_with("config.json", Sha256=None), path=LIST):
        report = bench.push()
    assert [note for note in report.notes if "no sha256 of 1 file" in note and "config.json" in note]


def test_a_licence_that_the_site_does_not_take_becomes_other(bench: Bench) -> None:
    refused = faults.refused(400, "the License is invalid")
    with bench.site.inject(refused, path="/api/v1/models", method="POST", times=1):
        bench.push()
    assert bench.site.storage.repos["model", "team/tiny"].license == "other"


def test_a_foreign_commit_meanwhile_is_noticed(bench: Bench) -> None:
    bench.push()
    bench.node.put_repo(REPO, {**FILES, "config.json": b'{"a": 1}'})
    repo = bench.site.storage.repos["model", "team/tiny"]

    def meddle() -> None:
        bench.site.storage.put_files(repo, {"config.json": b"meddled"})

    meddling = bench.site.inject(hub_faults.afterwards(meddle), path=COMMIT, times=1)
    with meddling, pytest.raises(PushRefused, match=r"other bytes of 1 file of team/tiny: config\.json"):
        bench.push()
    assert bench.push().replaced == ("config.json",)


def test_a_blob_that_went_bad_in_the_cache_is_never_stored_there(bench: Bench) -> None:
    bench.push("team/first")
    bad = bench.node.snapshot(REPO) / "model.safetensors"
    bad.write_bytes(WEIGHTS[:-1] + b"\0")
    bench.site.storage.stored.clear()
    bench.site.uploads.clear()
    with pytest.raises(CorruptData, match="have changed since they came"):
        bench.push("team/second")
    assert SHA not in {sha for sha, _ in bench.site.storage.stored} and bench.site.files("team/second") == {}

    def of_weights() -> list[Upload]:
        return [upload for upload in bench.site.uploads.all if upload.size_bytes == len(WEIGHTS)]

    wait_until(lambda: bool(of_weights()), "the site has the begin of the upload")
    (upload,) = of_weights()
    assert upload.received_bytes < len(WEIGHTS), "its last part was held back"
    bad.unlink()
    assert bench.push("team/second").state == "pushed" and bench.site.files("team/second") == sha256s(FILES)


def test_redirects_within_the_site_are_followed_and_no_others(bench: Bench) -> None:
    moved = f"{bench.site.endpoint}/openapi/v1/users/me"
    there = hub_faults.status(302, headers={"Location": moved})
    elsewhere = hub_faults.status(302, headers={"Location": "http://localhost:9/steal"})
    with bench.site.inject(there, path="/openapi/*", times=1):
        assert bench.run(lambda parts: whoami(parts.api)).name == "alice"
    with bench.site.inject(elsewhere, path="/openapi/*"), pytest.raises(HubUnreachable, match="redirects a question"):
        bench.run(lambda parts: whoami(parts.api))


def test_a_site_that_is_down_is_told(bench: Bench) -> None:
    bench.site.go_down()
    with pytest.raises(HubUnreachable, match="cannot be reached") as refused:
        bench.push()
    assert refused.value.exit_code == 6


# --- Listings ---------------------------------------------------------------------------------------------------


def listed(bench: Bench) -> dict[str, Any]:
    files = bench.run(lambda parts: list_files(parts.api, SiteRepo.parse("team/tiny")))
    assert isinstance(files, dict)
    return files


def test_a_listing_that_the_site_cuts_is_asked_for_folder_by_folder(bench: Bench) -> None:
    bench.site.behaviour.listing_cap = 30
    files = {f"d{n % 4}/e{n % 3}/{n:04}.txt": b"" for n in range(100)} | {"top.txt": b""}
    bench.site.put_repo("model", "team/tiny", files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_module, "LISTING_CAP", 30)
        with bench.site.inject(faults.refused(403, "access denied"), path=LIST, times=None) as denied:
            denied.remaining = 0
        assert listed(bench).keys() == files.keys()
        bench.site.put_repo("model", "team/tiny", {f"flat/{n:04}.txt": b"" for n in range(31)})
        with pytest.raises(PushRefused, match="the folder 'flat' has 30 entries or more"):
            listed(bench)


def test_a_listing_has_a_largest_number_of_requests(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "LISTING_CAP", 1)
    monkeypatch.setattr(listing_module, "MAX_SITE_LISTINGS", 3)
    assert MAX_SITE_LISTINGS >= 1000
    bench.site.put_repo("model", "team/tiny", {"a/b/c/d/e.txt": b""})
    with pytest.raises(HfpeerError):
        listed(bench)


def test_a_denial_after_a_success_is_a_fault_of_a_moment(bench: Bench) -> None:
    bench.site.put_repo("dataset", "team/rows", {f"{n:03}.txt": b"" for n in range(250)})
    repo = SiteRepo.parse("team/rows", "dataset")
    hits = 0

    def fault(request: Any, answer: Any) -> Any:
        nonlocal hits
        if request.query_value("PageNumber") == "2" and hits < 2:
            hits += 1
            return faults.refused(403, "access denied")(request, answer)
        return answer(request)

    with bench.site.inject(fault, path="*/repo/tree"):
        assert len(bench.run(lambda parts: list_files(parts.api, repo))) == 250 and hits == 2


def test_a_page_that_repeats_is_no_listing(bench: Bench) -> None:
    bench.site.put_repo("dataset", "team/rows", {f"{n:03}.txt": b"" for n in range(450)})

    def first_page(request: Any, answer: Any) -> Any:
        from dataclasses import replace

        return answer(replace(request, target=request.target.replace("PageNumber=2", "PageNumber=1")))

    with bench.site.inject(first_page, path="*/repo/tree"), pytest.raises(HubUnreachable, match="a page of a listing"):
        bench.run(lambda parts: list_files(parts.api, SiteRepo.parse("team/rows", "dataset")))


# --- Lists ------------------------------------------------------------------------------------------------------


def test_repos_of_a_list_are_pushed_at_once_and_skipped_by_size_or_if_they_are_there(bench: Bench) -> None:
    bench.node.put_repo(RepoId.parse("acme/small"), {"a.txt": b"a"})
    targets = {"acme/tiny": "team/tiny", "acme/small": "team/small"}
    outcomes = bench.push_list(targets, PushLimits(min_bytes=1_000_000, jobs=2))
    assert [one.state for one in outcomes] == ["pushed", "skipped"] and "1 bytes are less" in outcomes[1].reason
    outcomes = bench.push_list(targets, PushLimits(max_bytes=1_000_000, jobs=2))
    assert [one.state for one in outcomes] == ["skipped", "pushed"]
    outcomes = bench.push_list(targets, PushLimits(skips_existing=True))
    assert [one.state for one in outcomes] == ["skipped", "skipped"] and "already" in outcomes[0].reason
    assert [one.state for one in bench.push_list(targets, PushLimits())] == ["up to date", "up to date"]


def test_a_failure_in_a_list_stops_it_unless_told_otherwise(bench: Bench) -> None:
    targets = {"acme/none": "team/none", "acme/tiny": "team/tiny"}
    outcomes = bench.push_list(targets, PushLimits())
    assert [one.state for one in outcomes] == ["failed", "not begun"] and outcomes[0].exit_code == 4
    outcomes = bench.push_list(targets, PushLimits(keeps_going=True))
    assert [one.state for one in outcomes] == ["failed", "pushed"]
    assert outcomes[0].problem is not None and outcomes[0].problem["hint"]


def test_a_commit_of_another_revision_is_pushed(real: Bench, hub: HubSimulator) -> None:
    first = hub.repo("model", "acme/tiny").refs()["refs/heads/main"]
    hub.repo("model", "acme/tiny").commit({"late.txt": b"late"})
    assert real.push(revision=Revision(first)).commit == first
    assert real.site.files("team/tiny") == sha256s(FILES)
