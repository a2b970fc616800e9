"""`hfpeer cache`: what it prints, at 80 columns and as JSON."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.stub_node import TINY, StubNode
from hfpeer.cache.cleaning.facts import (
    CacheReport,
    CleanReport,
    Kept,
    Leftover,
    Place,
    PruneRules,
    RepoUsage,
    Step,
    StoredRevision,
    Usage,
)
from hfpeer.cache.cleaning.planning.requests import CleanRequest
from hfpeer_cli.commands.cache import listing

Run = Callable[..., Any]
NOW = 1_800_000_000.0
DAY = 86400.0
GB = 1_000_000_000
QWEN = StoredRevision(replace(TINY, repo="Qwen/Qwen3-0.6B", size_bytes=1_500_000_000), 1_500_000_000, NOW - 3600 * 3)
OLD = StoredRevision(
    replace(QWEN.revision, commit="9" * 40, refs=(), visibility="unknown", is_shared=False), 12_000, NOW - 40 * DAY
)
SQUAD = StoredRevision(
    replace(
        TINY,
        repo="rajpurkar/squad",
        type="dataset",
        is_complete=False,
        is_shared=False,
        visibility="gated",
        refs=("v1",),
    ),
    12_100_000,
    NOW - 2 * DAY,
)
PARTIAL = Leftover(
    "partial",
    "/cache/.locks/.hfpeer/" + "ab" * 32,
    40_000_000,
    GB,
    NOW - 5 * DAY,
    digest="sha256:" + "ab" * 32,
    repo="Qwen/Qwen3-0.6B",
    file="model.safetensors",
    whole_bytes=GB,
)
LOCKS = [Leftover("lock", f"/cache/.locks/x/{n}.lock", 0, 0, NOW - n * DAY) for n in range(3)]
REPORT = CacheReport(
    "/cache",
    (
        Place("cache", "/cache", 12, 2 * GB, (Usage("lists", 10, 4096), Usage("models", 2, 2 * GB - 4096))),
        Place("home", "/home/me/hfpeer", 3, 4_000_000, (Usage("catalog", 3, 4_000_000),)),
        Place("datasets", "/hf/datasets", 3, 5_000_000, (Usage("datasets", 3, 5_000_000),)),
    ),
    (
        RepoUsage("Qwen/Qwen3-0.6B", 1_500_012_000, 3, 2_000_000_000),
        RepoUsage("datasets/rajpurkar/squad", 12_100_000, 3, 13_000_000),
        *(RepoUsage(f"acme/repo-{n}", n, 3, n * 1_000_000) for n in range(12)),
    ),
    (QWEN, OLD, SQUAD),
    (PARTIAL, *LOCKS),
    1,
    1_000_000,
    5 * GB,
    10 * GB,
)


@pytest.fixture(autouse=True)
def _report(node: StubNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.stored = REPORT
    monkeypatch.setattr(listing, "time", SimpleNamespace(time=lambda: NOW))


def widths(ran: Any) -> int:
    return max(map(len, f"{ran.out}{ran.err}".splitlines()))


def test_ls_lists_the_repos_of_all_types_and_then_what_belongs_to_none(hfpeer: Run) -> None:
    ran = hfpeer("cache", "ls")
    lines = ran.out.splitlines()
    assert lines[1].split("  ")[0] == "Qwen/Qwen3-0.6B" and "1.5 GB" in lines[1] and "3 h" in lines[1]
    assert lines[2].startswith("datasets/rajpurkar/squad") and "partial" in lines[2] and "no, gated" in lines[2]
    assert "half-fetched blob abababababab of Qwen/Qwen3-0.6B, model.safetensors: 40.0 MB of 1.0 GB" in ran.out
    assert "3 locks of blobs that are not here" in ran.out
    assert "2 repos, 3 revisions. /cache takes 2.0 GB, 5.0 GB are free." in ran.err


def test_ls_with_revisions_shows_each_below_its_repo_with_its_own_bytes(hfpeer: Run) -> None:
    lines = hfpeer("cache", "ls", "--revisions").out.splitlines()
    assert lines[1].strip() == "Qwen/Qwen3-0.6B"
    assert lines[3].split()[:5] == ["999999999999", "1.5", "GB", "12.0", "kB"] and " none " in lines[3]
    assert max(map(len, lines[:7])) <= 80


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "Qwen/Qwen3-0.6B"), ("size", "Qwen/Qwen3-0.6B"), ("age", "datasets/rajpurkar/squad")]
)
def test_ls_sorts(hfpeer: Run, sort: str, first: str) -> None:
    assert hfpeer("cache", "ls", "--sort", sort).out.splitlines()[1].startswith(first)


@pytest.mark.parametrize(
    ("expression", "commits"),
    [
        ("size>1GB", [QWEN, OLD]),
        ("own<=12kB", [OLD]),
        ("used>30d", [OLD]),
        ("accessed<1d", [QWEN]),
        ("type=dataset", [SQUAD]),
        ("type!=datasets", [QWEN, OLD]),
        ("refs=none", [OLD]),
        ("refs=v1", [SQUAD]),
        ("state=partial", [SQUAD]),
        ("shared=no", [OLD, SQUAD]),
        ("name=Qwen/*", [QWEN, OLD]),
    ],
)
def test_ls_filters_as_hf_cache_does(hfpeer: Run, expression: str, commits: list[StoredRevision]) -> None:
    found = hfpeer("cache", "ls", "--json", "--filter", expression).document["revisions"]
    assert [one["revision"]["commit"] for one in found] == [one.revision.commit for one in commits]


@pytest.mark.parametrize("expression", ["size>many", "colour=red", "used>soon", "refs>main", "size"])
def test_a_filter_that_says_nothing_is_refused_before_anything_is_asked(
    hfpeer: Run, node: StubNode, expression: str
) -> None:
    ran = hfpeer("cache", "ls", "--filter", expression)
    assert (ran.code, node.sessions) == (2, 0)
    assert "is not a filter" in ran.err and "size>1GB" in ran.err


def test_du_adds_up_and_fits(hfpeer: Run) -> None:
    ran = hfpeer("cache", "du")
    assert ran.out.splitlines()[1:5] == [
        "  models                                  2  2.0 GB",
        "  links, refs, lists, locks, folders     10  4.1 kB",
        "/cache                                   12  2.0 GB",
        "hfpeer's own data: /home/me/hfpeer        3  4.0 MB",
    ]
    assert "prepared datasets: /hf/datasets" in ran.out
    assert "acme/repo-11" in ran.out and "acme/repo-1 " not in ran.out
    assert "4 smaller repos" in ran.err and "5.0 GB of 10.0 GB are free" in ran.err
    assert widths(ran) <= 80
    assert "acme/repo-1 " in hfpeer("cache", "du", "--repos").out


def test_du_as_json_has_bytes(hfpeer: Run) -> None:
    document = hfpeer("cache", "du", "--json").document
    assert document["places"][0]["disk_bytes"] == 2 * GB and document["free_bytes"] == 5 * GB
    assert "revisions" not in document


# rm, prune, gc

ID = f"models--Qwen--Qwen3-0.6B@{'9' * 40}"
STEP = Step(
    ID,
    "revision",
    "Qwen/Qwen3-0.6B at 999999999999 (no ref)",
    1_500_000_000,
    "no ref",
    ("https://huggingface.co listed it to everybody", "its list of files is not proved"),
    12,
)
HALF = Step("/cache/.locks/.hfpeer/ab", "partial", "abababababab", GB, "not touched")
LOCKED = [Step(f"/cache/.locks/x/{n}.lock", "lock", f"x/{n}.lock", 0) for n in range(60)]
NO_PEER = "the last copy on the LAN, no peer has it"
LAST = Kept("k", "revision", "acme/tiny at 5a0d5a0d5a0d (main)", 5, "last_copy", NO_PEER)
YOUNG = [Kept(f"y{n}", "temporary", "t", 5, "young", "it changed a moment ago") for n in range(2)]


def cleaned(*steps: Step, kept: Sequence[Kept] = (), **facts: Any) -> CleanReport:
    return replace(CleanReport(False, steps, tuple(kept), sum(step.freed_bytes for step in steps)), **facts)


def requests(node: StubNode) -> list[CleanRequest]:
    return [arguments["request"] for name, arguments in node.calls if name == "clean"]


def test_a_dry_run_lists_what_would_go_and_why(hfpeer: Run, node: StubNode) -> None:
    node.cleaned = cleaned(STEP, HALF, *LOCKED, kept=YOUNG, lan="2 of 3 known peers answered.")
    ran = hfpeer("cache", "prune", "--dry-run")
    assert ran.code == 0
    assert ran.out.splitlines()[:4] == [
        "  1.5 GB  Qwen/Qwen3-0.6B at 999999999999 (no ref): no ref",
        "            https://huggingface.co listed it to everybody",
        "            its list of files is not proved",
        "  1.0 GB  half-fetched blob abababababab: not touched",
    ]
    assert "and 10 more" in ran.out
    assert "2.5 GB would be free again. Nothing was removed." in ran.err
    assert "Kept 2 temporary files: it changed a moment ago." in ran.err
    assert "2 of 3 known peers answered." in ran.err
    assert widths(ran) <= 80
    assert requests(node) == [CleanRequest(prune=PruneRules(), is_dry_run=True)]


def test_prune_passes_its_rules_on(hfpeer: Run, node: StubNode) -> None:
    hfpeer("cache", "prune", "-y", "--all", "--keep", "2", "--older-than", "2 weeks", "--force")
    assert requests(node) == [CleanRequest(prune=PruneRules(14 * DAY, 2, True), is_forced=True)]


@pytest.mark.parametrize("words", [("prune",), ("prune", "--json")])
def test_prune_without_a_terminal_needs_a_yes(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    ran = hfpeer("cache", *words)
    assert (ran.code, node.calls) == (2, [])
    assert "--yes" in ran.err


@pytest.mark.parametrize("word", ["soon", "-1d"])
def test_a_time_that_is_none_is_refused(hfpeer: Run, node: StubNode, word: str) -> None:
    assert (hfpeer("cache", "prune", "-y", "--older-than", word).code, node.calls) == (2, [])


def test_rm_takes_several_words_and_says_what_went(hfpeer: Run, node: StubNode) -> None:
    node.cleaned = cleaned(STEP, HALF)
    ran = hfpeer("cache", "rm", "Qwen/Qwen3-0.6B@main", "abababababab", "--type", "model")
    assert (ran.code, ran.out) == (
        0,
        "Removed Qwen/Qwen3-0.6B at 999999999999 (no ref).\nRemoved 1 half-fetched blob.\n2.5 GB are free again.\n",
    )
    (request,) = requests(node)
    assert [target.word for target in request.targets] == ["Qwen/Qwen3-0.6B@main", "abababababab"]


def test_a_word_that_names_nothing_is_refused_before_anything_is_asked(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("cache", "rm", "acme/tiny", "a/b/c/d")
    assert (ran.code, node.calls) == (2, [])
    assert "hf://ORG/NAME/FILE" in ran.err


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (cleaned(STEP), 0),
        (cleaned(kept=[LAST]), 3),
        (cleaned(STEP, kept=[LAST]), 3),
        (cleaned(kept=[replace(LAST, reason="locked")]), 8),
        (cleaned(STEP, missing=("acme/other",)), 4),
    ],
)
@pytest.mark.parametrize("words", [("cache", "rm", "acme/tiny"), ("model", "rm", "-r", "acme/tiny")])
def test_the_exit_code_says_whether_all_of_it_is_gone(
    hfpeer: Run, node: StubNode, report: CleanReport, code: int, words: tuple[str, ...]
) -> None:
    node.cleaned = report
    assert hfpeer(*words).code == code


def test_the_last_copy_is_named_with_the_word_that_removes_it(hfpeer: Run, node: StubNode) -> None:
    node.cleaned = cleaned(kept=[LAST], lan="1 of 1 known peers answered.")
    ran = hfpeer("cache", "rm", "acme/tiny")
    assert ran.out == "Nothing was removed.\n"
    assert ran.err.splitlines() == [
        "Kept acme/tiny at 5a0d5a0d5a0d (main): the last copy on the LAN, no peer has it.",
        "--force of `rm` and `prune` removes it all the same.",
        "1 of 1 known peers answered.",
    ]


def test_gc_asks_nothing_and_counts_what_went(hfpeer: Run, node: StubNode) -> None:
    node.cleaned = cleaned(*LOCKED, Step("catalog", "catalog", "3 records of fetches", 0))
    ran = hfpeer("cache", "gc")
    assert ran.out.splitlines()[:2] == ["Removed 60 locks of blobs that are not here.", "Dropped 3 records of fetches."]
    assert requests(node) == [CleanRequest(collects_garbage=True)]


def test_json_has_every_step_and_its_id(hfpeer: Run, node: StubNode) -> None:
    node.cleaned = cleaned(STEP, *LOCKED, kept=[LAST])
    document = hfpeer("cache", "rm", "acme/tiny", "--json").document
    assert document["steps"][0]["id"] == ID and len(document["steps"]) == 61
    assert document["kept"][0]["reason"] == "last_copy"


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("n", False), ("", False)])
@pytest.mark.parametrize("words", ["cache prune", "cache rm acme/tiny", "model rm -r acme/tiny"])
def test_at_a_terminal_it_lists_asks_and_removes_only_what_was_shown(
    hfpeer: Run, node: StubNode, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool, words: str
) -> None:
    node.cleaned = cleaned(STEP)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    ran = hfpeer(*words.split())
    assert "Qwen/Qwen3-0.6B at 999999999999" in ran.err and "Remove this, 1.5 GB?" in ran.err
    first, *rest = requests(node)
    assert first.is_dry_run
    assert [(one.is_dry_run, one.only) for one in rest] == ([(False, (ID,))] if goes else [])
