"""What goes and what stays, decided from facts alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from fakes.stub_node import TINY
from hfpeer.cache.cleaning.facts import Leftover, PruneRules, StoredBlob, StoredRevision
from hfpeer.cache.cleaning.planning.plan import DAY_SECONDS, Facts, FileStep, Plan, chosen, garbage, pruned, steps_of
from hfpeer.cache.cleaning.planning.protection import Care, Copies, lost, protected
from hfpeer.cache.cleaning.planning.requests import parse_target
from hfpeer.errors import InvalidName
from hfpeer.names import RepoId

NOW = 1_000 * DAY_SECONDS
FOLDER = "models--acme--tiny"
A, B, C = ((FOLDER, letter * 40) for letter in "abc")
BIG, SMALL, BOTH = (f"sha256:{letter * 64}" for letter in "123")


def revision(key: tuple[str, str], age_days: float, *refs: str, **facts: object) -> StoredRevision:
    row = replace(TINY, commit=key[1], refs=refs, size_bytes=100, said_by="https://hub", **facts)  # type: ignore[arg-type]
    return StoredRevision(row, 0, NOW - age_days * DAY_SECONDS)


def blob(digest: str, size_bytes: int, *users: tuple[str, str], outside: bool = False) -> StoredBlob:
    return StoredBlob(digest, size_bytes, size_bytes, frozenset(users), outside)


def left(kind: str, age_days: float, **facts: object) -> Leftover:
    path = str(facts.pop("path", f"/cache/{kind}"))
    return replace(Leftover(kind, path, 10, 4096, NOW - age_days * DAY_SECONDS), **facts)  # type: ignore[arg-type]


FACTS = Facts(
    (revision(A, 90), revision(B, 40, "v1"), revision(C, 1, "main")),
    (blob(BIG, 1000, A), blob(BOTH, 500, A, B), blob(SMALL, 7, C)),
    (),
    NOW,
)


def removed(plan: Plan) -> list[str]:
    return [commit[0] for _, commit in plan.revisions]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (PruneRules(), "a"),
        (PruneRules(100 * DAY_SECONDS), ""),
        (PruneRules(takes_refs=True), "ab"),
        (PruneRules(takes_refs=True, keep=2), "a"),
        (PruneRules(0, keep=3, takes_refs=True), ""),
        (PruneRules(0, takes_refs=True), "abc"),
    ],
)
def test_a_ref_the_last_use_and_a_number_to_keep_protect_a_revision(rules: PruneRules, gone: str) -> None:
    assert removed(pruned(FACTS, rules)) == list(gone)


def test_a_step_frees_what_no_later_step_needs_and_no_other_name_holds() -> None:
    facts = replace(FACTS, blobs=(*FACTS.blobs, blob("sha256:" + "4" * 64, 9000, A, outside=True)))
    steps = steps_of(chosen(facts, [A, B]), facts)
    assert [step.freed_bytes for step in steps] == [1000, 500]
    assert [step.freed_bytes for step in steps_of(chosen(facts, [A]), facts)] == [1000]


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (left("orphan", 1), True),
        (left("orphan", 0.01), False),
        (left("orphan", 90, wanted_by="c" * 40), False),
        (left("lost", 900), False),
        (left("partial", 90, digest="sha256:" + "9" * 64), False),
        (left("partial", 1, digest=BIG), True),
        (left("partial", 1, digest=BIG, is_in_use=True), False),
        (left("unfinished", 90), False),
        (left("temporary", 1), True),
        (left("temporary", 1, owner="eve"), False),
        (left("stale_list", 0.5), False),
        (left("stale_list", 2), True),
        (left("lock", 2), True),
        (left("manifest", 2), False),
        (left("pack", 31), True),
        (left("temporary", -5), False),
    ],
)
def test_garbage_is_old_of_no_use_and_free(one: Leftover, goes: bool) -> None:
    assert bool(garbage(replace(FACTS, leftovers=(one,))).leftovers) is goes


def test_prune_takes_downloads_that_were_not_touched_for_the_same_time() -> None:
    found = (
        left("partial", 31, path="/p1", digest="sha256:" + "9" * 64),
        left("partial", 3, path="/p2", digest="sha256:" + "8" * 64),
        left("unfinished", 31, path="/u1"),
        left("unfinished", 31, path="/u2", is_in_use=True),
        left("orphan", 31, path="/o1", wanted_by="c" * 40),
        left("temporary", 1, path="/t1"),
    )
    plan = pruned(replace(FACTS, leftovers=found), PruneRules())
    assert {one.path for one in plan.leftovers} == {"/p1", "/u1", "/o1", "/t1"}
    assert [one.reason for one in plan.kept] == ["locked"]


# The last copy


def kept(plan: Plan) -> list[tuple[str, str]]:
    return [(one.id[-3], one.reason) for one in plan.kept]


@pytest.mark.parametrize(
    ("copies", "reasons"),
    [
        (Copies(0), []),
        (Copies(2, 2, {BIG, BOTH}), []),
        (Copies(2, 2, {BOTH}), [("a", "last_copy")]),
        (Copies(2, 1, {BIG}), [("a", "last_copy"), ("b", "last_copy")]),
        (Copies(2, 0), []),
    ],
)
def test_the_last_copy_of_a_blob_keeps_its_revisions(copies: Copies, reasons: list[tuple[str, str]]) -> None:
    plan = protected(chosen(FACTS, [A, B]), FACTS, copies)
    assert kept(plan) == reasons
    assert protected(chosen(FACTS, [A, B]), FACTS, copies, Care(is_forced=True)).revisions == (A, B)


def test_while_no_peer_answers_only_what_no_hub_has_stays() -> None:
    mine = revision(A, 90, visibility="published", is_published_here=True, published_by="me", is_shared=True)
    facts = replace(FACTS, revisions=(mine, *FACTS.revisions[1:]))
    plan = protected(chosen(facts, [A, B]), facts, Copies(3, 0))
    assert kept(plan) == [("a", "unknown_copies")]
    assert "published here; no hub has it" in plan.kept[0].sentence
    assert protected(chosen(facts, [A, B]), facts, Copies(0)).kept == (), "a single machine cleans"


def test_a_blob_that_another_revision_needs_is_not_lost() -> None:
    assert lost(chosen(FACTS, [A]), FACTS).keys() == {BIG}
    copy = replace(FACTS, blobs=(*FACTS.blobs, blob(BIG, 1000, C)))
    assert lost(chosen(copy, [A]), copy).keys() == set(), "a copy lies in another repo or revision"


def test_what_is_not_shared_is_no_copy_that_the_lan_knows() -> None:
    facts = replace(FACTS, revisions=(revision(A, 90, is_shared=False), *FACTS.revisions[1:]))
    assert protected(chosen(facts, [A]), facts, Copies(2, 2)).revisions == (A,)


def test_a_file_is_protected_like_a_revision() -> None:
    file = FileStep(A, "big.bin", BIG, 1000)
    plan = protected(chosen(FACTS, [], [file]), FACTS, Copies(1, 1))
    assert ([one.kind for one in plan.kept], plan.files) == (["file"], ())
    assert [step.freed_bytes for step in steps_of(chosen(FACTS, [], [file]), FACTS)] == [1000]


def test_what_is_read_or_added_now_stays() -> None:
    facts = replace(FACTS, in_use={BIG})
    assert kept(protected(chosen(facts, [A, B]), facts, Copies())) == [("a", "in_use")]
    busy = replace(FACTS, busy={"acme/tiny"}, leftovers=(left("orphan", 2, repo="acme/tiny"),))
    plan = protected(chosen(busy, [A], leftovers=busy.leftovers), busy, Copies())
    assert (plan.revisions, plan.leftovers, {one.reason for one in plan.kept}) == ((), (), {"in_use"})


def test_a_repo_of_which_something_stays_is_not_removed_as_a_whole() -> None:
    plan = chosen(FACTS, [A, B, C], whole_repos=[FOLDER])
    assert protected(plan, FACTS, Copies(1, 1, {BOTH, SMALL})).whole_repos == frozenset()
    assert protected(plan, FACTS, Copies(1, 1, {BIG, BOTH, SMALL})).whole_repos == {FOLDER}


def test_ten_times_the_blobs_take_not_much_more_than_ten_times_the_steps() -> None:
    def facts_of(number: int) -> Facts:
        keys = [(f"models--acme--m{repo}", f"{repo:040x}") for repo in range(number // 40)]
        rows = [revision(key, 90) for key in keys]
        rows = [replace(row, revision=replace(row.revision, repo=f"acme/m{repo}")) for repo, row in enumerate(rows)]
        blobs = [blob(f"sha256:{n:064x}", 1, keys[n % len(keys)]) for n in range(number)]
        return Facts(rows, blobs, (), NOW)

    class Counting(frozenset[str]):
        asked = 0

        def __contains__(self, item: object) -> bool:
            Counting.asked += 1
            return super().__contains__(item)

    counts = []
    for number in (400, 4000):
        facts, Counting.asked = facts_of(number), 0
        held: Collection[str] = Counting(one.digest for one in facts.blobs)
        plan = protected(pruned(facts, PruneRules()), facts, Copies(1, 1, held))
        assert len(plan.revisions) == number // 40
        counts.append(Counting.asked)
    assert counts[1] <= 10 * counts[0]


# Words


@pytest.mark.parametrize(
    ("word", "repos", "revision_", "files", "hex"),
    [
        ("acme/tiny", ["models/acme/tiny"], None, (), ""),
        ("gpt2@v1", ["models/gpt2"], "v1", (), ""),
        ("datasets/acme/rows@refs/pr/1", ["datasets/acme/rows"], "refs/pr/1", (), ""),
        ("dataset/acme/rows", ["datasets/acme/rows"], None, (), ""),
        ("model/gpt2", ["models/gpt2", "models/model/gpt2"], None, (), ""),
        ("hf://acme/tiny", ["models/acme/tiny"], None, (), ""),
        ("hf://models/acme/tiny@main/onnx/model.onnx", ["models/acme/tiny"], "main", ("onnx/model.onnx",), ""),
        ("hf://datasets/acme/rows/train.parquet", ["datasets/acme/rows"], None, ("train.parquet",), ""),
        ("hf://acme/tiny@refs%2Fpr%2F1/a.json", ["models/acme/tiny"], "refs/pr/1", ("a.json",), ""),
        ("475236b755f6", ["models/475236b755f6"], None, (), "475236b755f6"),
        ("sha256:" + "ab" * 32, [], None, (), "ab" * 32),
    ],
)
def test_the_words_of_hf_cache_and_of_hfpeer_name_what_goes(
    word: str, repos: list[str], revision_: str | None, files: tuple[str, ...], hex: str
) -> None:
    target = parse_target(word)
    assert [repo.api_path for repo in target.repos] == repos
    assert (target.revision, target.files, target.hex) == (revision_, files, hex)


def test_a_repo_without_a_prefix_is_of_the_given_type() -> None:
    assert parse_target("acme/rows", "dataset").repos == (RepoId.parse("acme/rows", "dataset"),)


@pytest.mark.parametrize("word", ["", "../etc", "a/b/c", "hf://", "hf://acme/tiny/../x", "sha256:xyz", "a b"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InvalidName):
        parse_target(word)
