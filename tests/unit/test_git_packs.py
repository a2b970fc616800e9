"""Git's objects made of a manifest, packs written and kept, and git's lines."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfpeer.endpoint.gitobjects import CommitObjects, Filter, each_once
from hfpeer.endpoint.gitpack import PackWriter
from hfpeer.endpoint.keptpacks import KeptPacks
from hfpeer.errors import InvalidName
from hfpeer.gitproof import EMPTY_TREE, commit_body, object_id, root_tree
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer_daemon.hub import gitwire

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


def test_parents_stand_in_the_head_of_a_commit_only() -> None:
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
    return gitwire.line("packfile") + gitwire.framed(b"hello", 2) + gitwire.framed(pack, 1, 400) + gitwire.FLUSH


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_a_passing_pack_is_kept_however_it_comes(tmp_path: Path, cuts: list[int]) -> None:
    commit = commit_of(BODIES)
    pack = pack_of(commit, BODIES)
    said, packs = answer(pack), KeptPacks(tmp_path)
    keeper = packs.keep(REPO, ["1" * 40, commit.commit], None)
    assert keeper is not None
    edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    for start, stop in itertools.pairwise(edges):
        keeper.hear(said[start:stop])
    path = keeper.close()
    assert path is not None and path.read_bytes() == pack
    kept = packs.find(REPO, [commit.commit], None)
    assert kept is not None and kept.tips == {"1" * 40, commit.commit}
    assert packs.ids(kept) == {it.id for it in commit.whole(Filter())}
    assert dict(packs.blobs(path, [object_id("blob", b"c\n")])) == {object_id("blob", b"c\n"): b"c\n"}
    assert packs.find(REPO, [commit.commit], "blob:none") is None and packs.find(REPO, ["2" * 40], None) is None


@pytest.mark.parametrize("harm", ["cut", "bit", "error", "shallow", "nonsense"])
def test_a_pack_that_is_not_whole_is_not_kept(tmp_path: Path, harm: str) -> None:
    pack = pack_of(commit_of(BODIES), BODIES)
    said = {
        "cut": answer(pack)[:-30],
        "bit": answer(pack[:40] + b"~" + pack[41:]),
        "error": gitwire.line("packfile") + gitwire.framed(pack) + gitwire.framed(b"no", 3) + gitwire.FLUSH,
        "shallow": gitwire.shallow_info(["1" * 40]) + answer(pack),
        "nonsense": b"<html>",
    }[harm]
    packs = KeptPacks(tmp_path)
    keeper = packs.keep(REPO, ["1" * 40], None)
    assert keeper is not None
    keeper.hear(said)
    assert keeper.close() is None and packs.find(REPO, ["1" * 40], None) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_packs_used_longest_ago_make_room(tmp_path: Path) -> None:
    pack = pack_of(commit_of(BODIES), BODIES)
    packs = KeptPacks(tmp_path, max_bytes=len(pack))
    for tip in ("1" * 40, "2" * 40):
        keeper = packs.keep(REPO, [tip], None)
        assert keeper is not None
        keeper.hear(answer(pack))
        keeper.close()
    assert packs.find(REPO, ["1" * 40], None) is None and packs.find(REPO, ["2" * 40], None) is not None


def test_what_a_client_asks_is_read() -> None:
    head = gitwire.line("command=fetch") + gitwire.line("agent=git/2") + gitwire.DELIMITER
    asked = ["want " + "1" * 40, "have " + "2" * 40, "shallow " + "3" * 40, "deepen 1", "filter blob:none", "done"]
    command = gitwire.read_command(head + b"".join(map(gitwire.line, asked)) + gitwire.FLUSH)
    assert command is not None
    wanted = command.wanted()
    assert (wanted.wants, wanted.haves, wanted.shallow) == (("1" * 40,), {"2" * 40}, {"3" * 40})
    assert (wanted.depth, wanted.filter, wanted.is_done) == (1, "blob:none", True)
    assert gitwire.read_command(b"0000") is None and gitwire.read_old_fetch(b"0000") is None


def test_the_older_protocol_is_read_before_and_after_what_the_client_has() -> None:
    asked = gitwire.line("want " + "1" * 40 + " side-band-64k ofs-delta") + gitwire.line("deepen 1") + gitwire.FLUSH
    first = gitwire.read_old_fetch(asked)
    second = gitwire.read_old_fetch(asked + gitwire.line("have " + "2" * 40) + gitwire.line("done"))
    assert first is not None and not first.has_haves and first.wanted.depth == 1
    assert second is not None and second.has_haves and second.wanted.haves == {"2" * 40} and second.wanted.is_done
    assert "side-band-64k" in second.capabilities


@pytest.mark.parametrize("body", [b"zzzz", b"00", b"0003", b"0009hello0000", b"\xff" * 10])
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidName):
        gitwire.read_command(body)


def test_a_body_that_unpacks_without_end_is_refused() -> None:
    import gzip

    assert gitwire.unpacked(gzip.compress(b"0000"), "gzip") == b"0000"
    with pytest.raises(InvalidName):
        gitwire.unpacked(gzip.compress(bytes(gitwire.MAX_REQUEST_BYTES + 1)), "gzip")
