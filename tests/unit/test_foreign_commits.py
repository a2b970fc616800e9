"""Commits that strangers wrote: what is shown of them takes one pass over them, and they have a largest size."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from hfpeer.budgets import MAX_ATTRIBUTES_LINE_BYTES, MAX_COMMIT_BYTES, MAX_COMMIT_LINE_CHARACTERS
from hfpeer.endpoint.metadata.hub_json import history, info
from hfpeer.errors import CorruptData
from hfpeer.git.attributes import lfs_rules
from hfpeer.git.proof import object_id
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId

REPO = RepoId.parse("acme/zoo")
TREE = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"


def manifest_of(author: bytes, message: bytes = b"a\n\nb\n") -> Manifest:
    raw = TREE + b"author %b\ncommitter %b\n\n%b" % (author, author, message)
    return Manifest(REPO, Commit(object_id("commit", raw)), (), (), raw)


def shown(author: bytes) -> tuple[str, str]:
    (one,) = history(manifest_of(author))
    assert info(manifest_of(author), {}, with_blobs=False)["lastModified"] == one["date"]
    return one["authors"][0]["user"], one["date"]


@pytest.mark.parametrize(
    ("author", "name", "date"),
    [
        (b"Ada Lovelace <ada@x.org> 86400 +0100", "Ada Lovelace", "1970-01-02T00:00:00.000Z"),
        (b"\xc3\x89mile <e@x> 0 +0000", "Émile", "1970-01-01T00:00:00.000Z"),
        (b"a > b <a@b> 1 +0000", "a > b", "1970-01-01T00:00:01.000Z"),
        (b"a <b <c@d> 1 +0000", "a", "1970-01-01T00:00:01.000Z"),
        (b"<a@b> 1 +0000", "", "1970-01-01T00:00:01.000Z"),
        (b"a <a@b> 99999999999999999 +0000", "a", "9999-12-31T23:59:59.000Z"),
        (b"a <a@b> -1 +0000", "a", "1970-01-01T00:00:00.000Z"),
        (b"nobody", "", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_an_author_is_read_as_git_reads_it(author: bytes, name: str, date: str) -> None:
    assert shown(author) == (name, date)


def test_a_line_up_to_its_bound_is_shown_and_a_longer_one_is_nobody() -> None:
    rest = b" <a@b> 1 +0000"
    longest = b"a" * (MAX_COMMIT_LINE_CHARACTERS - len(rest))
    assert shown(longest + rest) == (longest.decode(), "1970-01-01T00:00:01.000Z")
    assert shown(b"a" + longest + rest) == ("", "1970-01-01T00:00:00.000Z")


@pytest.mark.timed
@pytest.mark.parametrize(
    "line", [lambda n: b" <abc" * (n // 5), lambda n: b" <" * (n // 2), lambda n: b"> " * (n // 2), lambda n: b"<" * n]
)
def test_no_line_takes_more_than_one_pass(line: Callable[[int], bytes]) -> None:
    began_at = time.process_time()
    for author in (line(MAX_COMMIT_BYTES // 3), line(MAX_COMMIT_LINE_CHARACTERS)):
        shown(author)
    assert time.process_time() - began_at < 5.0


def test_a_commit_has_a_largest_size() -> None:
    plain = manifest_of(b"a <a@b> 1 +0000", b"")
    assert plain.commit_object is not None
    room = MAX_COMMIT_BYTES - len(plain.commit_object)
    assert Manifest.from_json(manifest_of(b"a <a@b> 1 +0000", b"x" * room).to_json()).commit_object is not None
    document = json.loads(plain.to_json())
    document["commit_object"] = base64.b64encode(plain.commit_object + b"x" * (room + 1)).decode()
    with pytest.raises(CorruptData, match="commit object"):
        Manifest.from_json(json.dumps(document))


def test_a_line_of_a_gitattributes_counts_up_to_its_bound() -> None:
    for size, rules in ((MAX_ATTRIBUTES_LINE_BYTES - 1, 2), (MAX_ATTRIBUTES_LINE_BYTES, 1)):
        text = b"*.bin filter=lfs".ljust(size - 2) + b"-x\n*.pt filter=lfs\n"
        assert len(lfs_rules(text, {})) == rules
