"""`hfpeer model follow` and `unfollow`: words, the list, and what is said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.stub_node import StubNode
from hfpeer.control.followed import FollowedRepo
from hfpeer.names import RepoId, Revision

Run = Callable[..., Any]
FOLLOWED = FollowedRepo(
    RepoId.parse("acme/big"), commit="ab" * 20, next_at=time.time() + 7300, limit_bytes=20_000_000_000
)


def test_a_repo_is_followed_as_the_words_say(hfpeer: Run, node: StubNode) -> None:
    words = ("--every", "6h", "--limit", "20GB", "--include", "*.bin")
    ran = hfpeer("model", "follow", "-r", "acme/big", "--rev", "dev", *words)
    assert (ran.code, ran.out) == (0, "Following acme/big at dev, every 6 h.\n")
    wanted = node.calls[-1][1]["wanted"]
    assert wanted == FollowedRepo(RepoId.parse("acme/big"), Revision("dev"), ("*.bin",), (), 21600.0, 20_000_000_000)


@pytest.mark.parametrize("words", [(), ("--ls",)])
def test_what_is_followed_is_listed(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    over = replace(FOLLOWED, repo=RepoId.parse("acme/more"), problem="More than the limit.", next_at=0.0)
    node.followed = [FOLLOWED, over, replace(FOLLOWED, repo=RepoId.parse("acme/set", "dataset"))]
    ran = hfpeer("model", "follow", *words)
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[1] == ["acme/big", "main", "abababababab", "1", "h", "20.0", "GB", "in", "2", "h", "up", "to", "date"]
    assert lines[2][-5:] == ["now", *["More", "than", "the", "limit."]]
    assert len(lines) == 3
    (listed,) = json.loads(hfpeer("--json", "dataset", "follow").out)
    assert (listed["repo"], listed["type"], listed["limit_bytes"]) == ("acme/set", "dataset", 20_000_000_000)


def test_nothing_is_followed(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("model", "follow")
    assert (ran.code, ran.out, "Nothing is followed." in ran.err) == (0, "", True)


def test_unfollow_names_what_ended(hfpeer: Run, node: StubNode) -> None:
    node.followed = [FOLLOWED]
    ran = hfpeer("model", "unfollow", "acme/big")
    assert (ran.code, ran.out) == (0, "No longer following acme/big at main.\n")
    assert hfpeer("model", "unfollow", "acme/other").code == 4


@pytest.mark.parametrize("words", [("--every", "1s"), ("--every", "soon"), ("--limit", "much"), ("--ls",)])
def test_malformed_words_end_before_anything_is_asked(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    assert hfpeer("model", "follow", "acme/big", *words).code == 2
    assert node.sessions == 0
