"""The words of `hfpeer push`, before anything is asked of another machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hfpeer_cli.commands.moving.push import parse_target

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "host", "folder"),
    [
        ("cluster", "cluster", ""),
        ("me@cluster", "me@cluster", ""),
        ("me@cluster:/scratch/hub", "me@cluster", "/scratch/hub"),
        ("cluster:hub", "cluster", "hub"),
        ("cluster:~/hub", "cluster", "~/hub"),
        ("cluster:/a:b", "cluster", "/a:b"),
        ("me@[fd00::2]:/scratch", "me@fd00::2", "/scratch"),
        ("[fd00::2]", "fd00::2", ""),
        ("me@fd00::2", "me@fd00::2", ""),
    ],
)
def test_host_and_folder_are_told_apart(text: str, host: str, folder: str) -> None:
    assert parse_target(text) == (host, folder)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("push", "acme/tiny"), 2, "A push needs a REPO and a HOST"),
        (("push", "acme/tiny", "host:/a", "--cache", "/b"), 2, "named twice"),
        (("push", "acme/tiny", "host", "--ssh", "no-such-program -v"), 4, "acme/tiny"),
        (("push", "acme/../x", "host"), 2, "acme/../x"),
    ],
)
def test_a_mistake_is_a_sentence(hfpeer: Run, words: tuple[str, ...], code: int, said: str) -> None:
    ran = hfpeer(*words)
    assert ran.code == code and said in ran.err, ran.err
