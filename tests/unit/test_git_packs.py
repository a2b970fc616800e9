"""Git's objects made of a manifest, packs written and kept, and git's lines."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfpeer.budgets import MAX_GUEST_UNPACKED_BYTES, MAX_UNPACKED_BYTES
from hfpeer.endpoint.fetch_request import FetchRequest, PackPlan
from hfpeer.endpoint.packs.pack_cache import PackCache
from hfpeer.errors import InvalidName
from hfpeer.git.objects import CommitObjects, Filter, each_once
from hfpeer.git.pack_writer import PackWriter
from hfpeer.git.proof import EMPTY_TREE, commit_body, object_id, root_tree
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer_daemon.endpoint.git.git_protocol import (
    DELIMITER,
    FLUSH,
    MAX_DATA_BYTES,
    FetchResponse,
    GitRequest,
    framed,
    line,
    read_request,
    shallow_info,
    unpacked,
)

REPO = RepoId.parse("acme/zoo")
BODIES = {"a.txt": b"a\n", "b/c.txt": b"c\n", "b/d/e.txt": b"a\n", "large.txt": b"x" * 5000}
POINTED = Digest("sha256", "ab" * 32)


def plain(path: str, body: bytes) -> ManifestFile:
    return ManifestFile(FilePath(path), len(body), Digest("git-sha1", object_id("blob", body)))


def commit_of(bodies: dict[str, bytes], *opaque: OpaqueEntry) -> CommitObjects:
    files = tuple(plain(path, body) for path, body in sorted(bodies.items()))
    raw = commit_body(root_tree(files, opaque), author="a <a@b>", time_seconds=1, message="parent " + "1" * 40)
    commit = Commit(object_id("commit", raw))
    return CommitObjects(Manifest(REPO, commit, files, opaque, raw))


def pack_of(commit: CommitObjects, bodies: dict[str, bytes]) -> bytes:
    """Small blobs whole, others in pieces."""
    objects = each_once(commit.whole(Filter()))
    by_id = {object_id("blob", body): body for body in bodies.values()}
    writer = PackWriter()
    pieces = [writer.start(len(objects))]
    for each in objects:
        body = each.body if each.body is not None else by_id[each.id]
        if len(body) < 1000:
            pieces.append(writer.whole(each.kind, body))
        else:
            chunks = (body[start : start + 700] for start in range(0, len(body), 700))
            pieces += [writer.begin(each.kind, len(body)), *map(writer.more, chunks), writer.end()]
    return b"".join([*pieces, writer.finish()])


def test_git_takes_the_pack_of_a_commit_and_misses_nothing(tmp_path: Path) -> None:
    commit = commit_of(BODIES, OpaqueEntry("hollow", "40000", EMPTY_TREE), OpaqueEntry("sub", "160000", "1" * 40))
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    pack = pack_of(commit, BODIES)
    subprocess.run([*git, "index-pack", "--stdin", "--strict"], input=pack, check=True, capture_output=True)
    found = subprocess.run([*git, "rev-list", "--objects", commit.commit], check=True, capture_output=True, text=True)
    assert {line.split()[0] for line in found.stdout.splitlines()} == {it.id for it in commit.whole(Filter())}
    assert len(commit.trees) == 4 and len(commit.blobs) == 3


def test_parents_are_read_from_the_head_of_a_commit_only() -> None:
    assert commit_of(BODIES).parents == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, 3 + 3),
        ("blob:none", 3),
        ("blob:limit=2", 3),
        ("blob:limit=3", 3 + 2),
        ("blob:limit=5k", 6),
        ("tree:0", 0),
    ],
)
def test_a_filter_leaves_out_what_git_would(text: str | None, kept: int) -> None:
    taken = Filter.parse(text)
    assert taken is not None
    assert len(list(commit_of(BODIES).whole(taken))) == 1 + kept


@pytest.mark.parametrize("text", ["tree:2", "sparse:oid=x", "combine:blob:none+tree:0", "blob:limit=x"])
def test_a_filter_that_is_not_understood_is_not_guessed(text: str) -> None:
    assert Filter.parse(text) is None


def test_a_single_tree_brings_what_is_below_it_as_far_as_the_filter_goes() -> None:
    commit = commit_of(BODIES)
    tree = root_tree([plain("c.txt", b"c\n"), plain("d/e.txt", b"a\n")])
    assert [it.kind for it in commit.single(tree, Filter())].count("blob") == 2
    assert [it.id for it in commit.single(tree, Filter(0, has_trees=False))] == [tree]
    assert list(commit.single("0" * 40, Filter())) == []


def answer(pack: bytes) -> bytes:
    return line("packfile") + framed(b"hello", 2) + framed(pack, 1, 400) + FLUSH


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_a_passing_pack_is_recorded_in_chunks_of_any_size(tmp_path: Path, cuts: list[int]) -> None:
    commit = commit_of(BODIES)
    pack = pack_of(commit, BODIES)
    said, packs = answer(pack), PackCache(tmp_path)
    recorder = packs.record(REPO, ["1" * 40, commit.commit], None)
    assert recorder is not None
    edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    for start, stop in itertools.pairwise(edges):
        recorder.write(said[start:stop])
    path = recorder.close()
    assert path is not None and path.read_bytes() == pack
    kept = packs.find(REPO, [commit.commit], None)
    assert kept is not None and kept.tips == frozenset({"1" * 40, commit.commit})
    assert packs.ids(kept) == frozenset(it.id for it in commit.whole(Filter()))
    assert dict(packs.blobs(path, [object_id("blob", b"c\n")])) == {object_id("blob", b"c\n"): b"c\n"}
    assert packs.find(REPO, [commit.commit], "blob:none") is None and packs.find(REPO, ["2" * 40], None) is None


@pytest.mark.parametrize("harm", ["cut", "bit", "error", "shallow", "nonsense"])
def test_an_incomplete_pack_is_not_recorded(tmp_path: Path, harm: str) -> None:
    pack = pack_of(commit_of(BODIES), BODIES)
    said = {
        "cut": answer(pack)[:-30],
        "bit": answer(pack[:40] + b"~" + pack[41:]),
        "error": line("packfile") + framed(pack) + framed(b"no", 3) + FLUSH,
        "shallow": shallow_info(["1" * 40]) + answer(pack),
        "nonsense": b"<html>",
    }[harm]
    packs = PackCache(tmp_path)
    recorder = packs.record(REPO, ["1" * 40], None)
    assert recorder is not None
    recorder.write(said)
    assert recorder.close() is None and packs.find(REPO, ["1" * 40], None) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_packs_used_longest_ago_make_room(tmp_path: Path) -> None:
    pack = pack_of(commit_of(BODIES), BODIES)
    packs = PackCache(tmp_path, max_bytes=len(pack))
    for tip in ("1" * 40, "2" * 40):
        recorder = packs.record(REPO, [tip], None)
        assert recorder is not None
        recorder.write(answer(pack))
        recorder.close()
    assert packs.find(REPO, ["1" * 40], None) is None and packs.find(REPO, ["2" * 40], None) is not None


def test_a_fetch_request_is_read() -> None:
    head = line("command=fetch") + line("agent=git/2") + DELIMITER
    asked = ["want " + "1" * 40, "have " + "2" * 40, "shallow " + "3" * 40, "deepen 1", "filter blob:none", "done"]
    request = read_request(head + b"".join(map(line, asked)) + FLUSH, 2)
    fetch = request.fetch
    assert (request.command, fetch.wants) == ("fetch", ("1" * 40,))
    assert (fetch.haves, fetch.shallow) == (frozenset({"2" * 40}), frozenset({"3" * 40}))
    assert (fetch.depth, fetch.filter, fetch.is_done) == (1, "blob:none", True)
    assert not read_request(b"0000", 2).command and not read_request(b"0000", 0).command


def test_the_older_protocol_is_read_before_and_after_what_the_client_has() -> None:
    asked = line("want " + "1" * 40 + " side-band-64k ofs-delta") + line("deepen 1") + FLUSH
    first = read_request(asked, 0)
    second = read_request(asked + line("have " + "2" * 40) + line("done"), 0)
    assert not first.haves_sent and first.fetch.depth == 1
    assert second.haves_sent and second.fetch.haves == frozenset({"2" * 40}) and second.fetch.is_done
    assert second.frame_bytes == MAX_DATA_BYTES


def respond(version: Literal[0, 2], fetch: FetchRequest, plan: PackPlan, *, haves_sent: bool = True) -> FetchResponse:
    return FetchResponse(GitRequest(version, "fetch", fetch=fetch, frame_bytes=None, haves_sent=haves_sent), plan)


def test_a_response_says_in_both_versions_what_is_common_and_where_history_begins() -> None:
    one, two = "1" * 40, "2" * 40
    plan = PackPlan((), shallow=(one,), common=(two,), is_all=False, admitted={})
    fetch = FetchRequest((one,), haves=frozenset({two}), depth=1)
    assert respond(2, fetch, plan).without_pack is None and respond(0, fetch, plan).without_pack is None
    assert respond(2, fetch, plan).head == line("shallow-info") + line(f"shallow {one}") + DELIMITER + line("packfile")
    assert respond(0, fetch, plan).head == line(f"shallow {one}") + FLUSH + line(f"ACK {two}")
    waiting = replace(fetch, is_done=False)
    assert respond(2, waiting, plan).without_pack == line("acknowledgments") + line(f"ACK {two}") + FLUSH
    assert respond(2, waiting, replace(plan, is_all=True)).without_pack is None, "the pack follows at once"
    assert respond(0, waiting, plan).without_pack == line(f"shallow {one}") + FLUSH + line("NAK")
    assert respond(0, waiting, plan, haves_sent=False).without_pack == line(f"shallow {one}") + FLUSH


@pytest.mark.parametrize("body", [b"zzzz", b"00", b"0003", b"0009hello0000", b"\xff" * 10])
def test_a_malformed_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidName):
        read_request(body, 2)


def test_a_body_that_unpacks_without_end_is_refused() -> None:
    assert unpacked(gzip.compress(b"0000"), "gzip") == b"0000"
    with pytest.raises(InvalidName):
        unpacked(gzip.compress(bytes(MAX_UNPACKED_BYTES + 1)), "gzip")


def test_a_sweep_removes_files_of_a_killed_process_and_no_pack_that_is_being_written(
    tmp_path: Path,
) -> None:
    pack = pack_of(commit_of(BODIES), BODIES)
    packs = PackCache(tmp_path)
    coming = packs.record(REPO, ["1" * 40], None)
    assert coming is not None
    left = tmp_path / REPO.folder / "left.incomplete"
    left.touch()
    for path in left.parent.glob("*.incomplete"):
        os.utime(path, (1, 1))
    packs.sweep()
    assert not left.exists()
    coming.write(answer(pack))
    made = coming.close()
    assert made is not None and made.read_bytes() == pack


@pytest.mark.parametrize("most_bytes", [MAX_GUEST_UNPACKED_BYTES, MAX_UNPACKED_BYTES])
def test_a_body_unpacks_to_its_bound_and_no_further(most_bytes: int) -> None:
    assert len(unpacked(gzip.compress(bytes(most_bytes)), "gzip", most_bytes)) == most_bytes
    with pytest.raises(InvalidName):
        unpacked(gzip.compress(bytes(most_bytes + 1)), "gzip", most_bytes)
