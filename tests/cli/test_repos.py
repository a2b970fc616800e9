"""model, dataset, space: the commands, and their output on stdout and stderr."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.node import COMMIT as NODE_COMMIT
from fakes.stub_node import COMMIT, TINY, StubNode
from hfpeer.cache.cleaning.facts import CleanReport, Step
from hfpeer.control.operations import AddRequest, Holding, PublishRequest
from hfpeer.names import MAIN, RepoId
from hfpeer.transfer.events import FileProgress, Planned, Progressed, Resolved, SourceFailed

Run = Callable[..., Any]
TINY_ID = RepoId.parse("acme/tiny")


def test_add_prints_only_the_snapshot_on_stdout(hfpeer: Run) -> None:
    ran = hfpeer("model", "add", "-r", "acme/tiny")
    assert (ran.code, ran.out) == (0, f"{TINY.snapshot}\n")


def test_add_without_a_revision_takes_main_and_prints_the_commit_it_pinned(hfpeer: Run, node: StubNode) -> None:
    node.events = [Resolved("acme/tiny", "main", COMMIT, "origin")]
    ran = hfpeer("model", "add", "-r", "acme/tiny")
    assert f"main of acme/tiny is commit {COMMIT[:12]} (origin)." in ran.err
    assert node.calls == [("add", {"request": AddRequest(RepoId.parse("acme/tiny"), MAIN)})]


def test_a_glob_that_matches_no_file_is_told_in_a_pipe_too(hfpeer: Run, node: StubNode) -> None:
    node.events = [Planned("acme/tiny", COMMIT, 1, 2, 0, 0, "origin", True, ("*.safetensor",))]
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--include", "*.json", "--include", "*.safetensor")
    assert (ran.code, ran.err.count("No file matches --include '*.safetensor'.")) == (0, 1)


def test_an_old_answer_about_a_revision_says_its_age(hfpeer: Run, node: StubNode) -> None:
    node.events = [Resolved("acme/tiny", "v1", COMMIT, "origin", 7200, "memory", "silent", "The mirror has none.")]
    err = hfpeer("model", "add", "-r", "acme/tiny", "-v", "v1").err
    assert "v1 of acme/tiny was commit" in err
    assert " 2 h ago, says origin. No hub answers now. The mirror has none." in err


@pytest.mark.parametrize(
    ("voice", "hubs", "age_seconds", "sentence"),
    [
        ("hub", "answered", None, "is commit C (h2)."),
        ("memory", "silent", None, "was commit C at an unknown time, says h2. No hub answers now."),
        ("memory", "not asked", 30, "was commit C 30 s ago, says h2. No hub was asked."),
        ("published here", "no repo", None, "is commit C, published by this node, on no hub."),
        ("published here", "silent", None, "is commit C, published by this node. No hub answers now."),
        ("published", "no repo", 5, "is commit C, published by h2, on no hub."),
        ("published", "silent", 5, "is commit C, published by h2. No hub answers now."),
        ("peer", "silent", 5, "was commit C 5.0 s ago, says h2. No hub answers now."),
        ("peer", "silent", None, "was commit C at an unknown time, says h2. No hub answers now."),
        ("told", "silent", None, "was commit C at an unknown time, as peers said before. No hub answers now."),
        ("cache", "not asked", None, "is commit C: no other in the cache begins so. No hub was asked."),
    ],
)
def test_the_source_of_an_answer_is_named(
    hfpeer: Run, node: StubNode, voice: str, hubs: str, age_seconds: float | None, sentence: str
) -> None:
    node.events = [Resolved("acme/tiny", "main", COMMIT, "h2", age_seconds, voice, hubs)]
    err = hfpeer("model", "add", "-r", "acme/tiny").err
    assert f"main of acme/tiny {sentence}".replace("commit C", f"commit {COMMIT[:12]}") in err


def test_an_answer_of_several_peers_names_them(hfpeer: Run, node: StubNode) -> None:
    node.events = [Resolved("acme/tiny", "main", COMMIT, "h1 and h2", 5, "peer", "silent")]
    assert " 5.0 s ago, say h1 and h2." in hfpeer("model", "add", "-r", "acme/tiny").err


def test_add_sums_up_the_bytes_of_each_source_and_the_wan_traffic_saved(hfpeer: Run) -> None:
    err = hfpeer("model", "add", "-r", "acme/tiny").err
    assert "900.0 kB" in err
    assert re.search(r"pegasus +900\.0 kB +90% +450\.0 kB/s", err)
    assert re.search(r"hf-mirror\.com +100\.0 kB +10% +50\.0 kB/s", err)
    assert "WAN saved: 1.1 MB of 1.2 MB (92%)" in err


def test_add_that_finds_everything_here_says_so(hfpeer: Run, node: StubNode) -> None:
    node.finished = replace(node.finished, bytes_by_source={}, bytes_by_kind={}, reused_bytes=1_200_000)
    assert "all of it was here already" in hfpeer("model", "add", "-r", "acme/tiny").err


def test_nothing_is_drawn_when_stderr_is_no_terminal(hfpeer: Run, node: StubNode) -> None:
    files = (FileProgress("w.bin", 1, 2),)
    node.events = [
        Planned("acme/tiny", COMMIT, 2, 10, 1, 5, "origin", True),
        Progressed(5, 10, 1.0, {"origin": 5}, {"origin": 1.0}, files, 1, 2),
        SourceFailed("origin", "w.bin", "closed the connection"),
    ]
    err = hfpeer("model", "add", "-r", "acme/tiny").err
    assert err.startswith("2 files, 10 B; to fetch: 1 file, 5 B.\n2 files, 1.2 MB in 2.0 s")
    assert "━" not in err


def test_a_liar_is_named_also_when_nothing_is_drawn(hfpeer: Run, node: StubNode) -> None:
    node.events = [SourceFailed("orion", "w.bin", "1 piece was wrong.", was_lying=True)]
    assert "orion gave wrong bytes of w.bin" in hfpeer("model", "add", "-r", "acme/tiny").err


def test_add_passes_on_all_that_was_asked(hfpeer: Run, node: StubNode, environ: dict[str, str]) -> None:
    environ["HF_TOKEN"] = " hf_secret\n"
    words = ["-f", "a.json", "-f", "b/c.bin", "--include", "*.json", "--exclude", "x/*", "--no-peers", "--trust-peers"]
    ran = hfpeer("dataset", "add", "-r", "squad", "-v", "refs/pr/1", *words)
    request = node.calls[0][1]["request"]
    assert ran.code == 0
    assert (str(request.repo), request.revision) == ("datasets/squad", "refs/pr/1")
    assert (request.files, request.include, request.exclude) == (("a.json", "b/c.bin"), ("*.json",), ("x/*",))
    assert (request.uses_peers, request.trusts_peers, request.is_local_only) == (False, True, False)
    assert request.token == "hf_secret"


def test_add_as_json_gives_one_document_and_a_silent_stderr(hfpeer: Run, node: StubNode) -> None:
    node.events = [Resolved("acme/tiny", "main", COMMIT, "origin")]
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--json")
    assert ran.document["snapshot"] == TINY.snapshot
    assert ran.document["wan_saved_bytes"] == 1_100_000
    assert ran.document["bytes_by_kind"] == {"peer": 900_000, "mirror": 100_000}
    assert ran.err == ""


@pytest.mark.parametrize("words", [("--json", "model", "ls"), ("model", "--json", "ls"), ("model", "ls", "--json")])
def test_json_is_understood_wherever_it_stands(hfpeer: Run, words: tuple[str, ...]) -> None:
    assert [revision["repo"] for revision in hfpeer(*words).document] == ["acme/tiny"]


def test_local_only_and_no_peers_exclude_each_other(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("model", "add", "-r", "acme/tiny", "--local-only", "--no-peers")
    assert (ran.code, node.sessions) == (2, 0)


def test_ls_lists_the_repos_of_its_type_only(hfpeer: Run, node: StubNode) -> None:
    node.cached = [TINY, replace(TINY, repo="acme/rows", type="dataset")]
    ran = hfpeer("model", "ls")
    assert "acme/tiny" in ran.out
    assert "acme/rows" not in ran.out
    assert [revision["repo"] for revision in hfpeer("dataset", "ls", "--json").document] == ["acme/rows"]


def test_ls_of_an_empty_cache_says_so_on_stderr(hfpeer: Run, node: StubNode) -> None:
    node.cached = []
    ran = hfpeer("space", "ls")
    assert (ran.code, ran.out) == (0, "")
    assert "No space is in the cache" in ran.err
    assert hfpeer("space", "ls", "--json").document == []


def test_ls_of_a_revision_lists_its_files_and_which_are_missing(hfpeer: Run) -> None:
    ran = hfpeer("model", "ls", "-r", "acme/tiny", "-v", "main")
    lines = ran.out.splitlines()
    assert lines[1].split() == ["config.json", "20", "B"]
    assert lines[2].split() == ["w.bin", "5", "B", "missing"]
    assert "1 of 2 files here; proved by its commit" in ran.err


def test_ls_says_why_a_repo_is_not_shared(hfpeer: Run, node: StubNode) -> None:
    node.cached = [replace(TINY, visibility="gated", is_shared=False)]
    assert "no, gated" in hfpeer("model", "ls").out
    node.cached = [replace(TINY, is_shared=False)]
    assert "no (forced)" in hfpeer("model", "ls").out


def test_rm_says_what_became_free(hfpeer: Run, node: StubNode) -> None:
    step = Step("i", "file", "w.bin of acme/tiny at abababababab", 10, files=1)
    node.cleaned = CleanReport(False, (step,), (), 10)
    ran = hfpeer("model", "rm", "-r", "acme/tiny", "-v", "main", "-f", "w.bin")
    assert ran.out == "Removed w.bin of acme/tiny at abababababab.\n10 B are free again.\n"
    ((name, arguments),) = node.calls
    (target,) = arguments["request"].targets
    assert (name, target.repos, target.revision, target.files) == ("clean", (TINY_ID,), "main", ("w.bin",))


def test_search_names_the_peers_that_have_it(hfpeer: Run, node: StubNode) -> None:
    node.found = [Holding("pegasus", "192.168.1.20:9437", "acme/tiny", COMMIT, ("main",), True)]
    ran = hfpeer("model", "search", "-r", "acme/tiny")
    assert "pegasus" in ran.out and ran.err == "Found 1 revision of acme/tiny at 1 peer.\n"
    other = Holding("cygnus", "192.168.1.21:9437", "acme/tiny", COMMIT, (), False)
    node.found += [other, replace(other, commit="ef" * 20)]
    assert hfpeer("model", "search", "-r", "acme/tiny").err == "Found 2 revisions of acme/tiny at 2 peers.\n"


def test_a_search_that_finds_nothing_says_whom_it_asked(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("model", "search", "-r", "acme/tiny", "-v", "v9")
    assert (ran.code, ran.out) == (4, "")
    assert "None of 1 peer has acme/tiny at v9." in ran.err
    node.picture = replace(node.picture, is_daemon=False, peers=())
    assert "No peer was asked for acme/tiny: no daemon runs." in hfpeer("model", "search", "acme/tiny").err


def test_publish_prints_the_commit_and_how_to_add_it_elsewhere(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    ran = hfpeer("model", "publish", str(tmp_path), "--as", "lab/mine")
    assert ran.out == f"{NODE_COMMIT}\n"
    assert f"hfpeer model add -r lab/mine -v {NODE_COMMIT}" in ran.err
    request = PublishRequest(str(tmp_path), RepoId.parse("lab/mine"))
    assert node.calls == [("publish", {"request": request})]
    hfpeer("model", "publish", str(tmp_path), "--as", "lab/mine", "--force")
    assert node.calls[-1][1]["request"] == replace(request, is_forced=True)


def test_publish_of_a_missing_folder_sends_no_request(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    ran = hfpeer("model", "publish", str(tmp_path / "nowhere"), "--as", "lab/mine")
    assert (ran.code, node.sessions) == (2, 0)


@pytest.mark.parametrize(
    ("words", "word"),
    [(("share",), True), (("share", "--automatic"), None), (("unshare",), False)],
)
def test_share_and_unshare_override_the_visibility(
    hfpeer: Run, node: StubNode, words: tuple[str, ...], word: bool | None
) -> None:
    assert hfpeer("model", *words, "-r", "acme/tiny").code == 0
    assert node.calls == [("share", {"repo": TINY_ID, "is_shared": word})]


def test_an_add_says_that_the_daemon_has_another_cache_than_the_shell(hfpeer: Run) -> None:
    done = hfpeer("model", "add", "-r", "acme/tiny")
    assert "The daemon's cache is not the one of this shell" in done.err


def test_an_add_may_name_a_repo_at_modelscope(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("model", "add", "-r", "acme/tiny", "--modelscope", "team/tiny").code == 0
    assert node.calls[-1][1]["request"].modelscope == "team/tiny"
    assert hfpeer("model", "add", "-r", "acme/tiny", "--modelscope", "tiny").code == 2
    assert hfpeer("space", "add", "-r", "acme/tiny", "--modelscope", "team/tiny").code == 2
    assert hfpeer("model", "add", "-r", "acme/tiny", "--modelscope", "team/tiny", "--local-only").code == 2
    assert [name for name, _ in node.calls] == ["add"]
