"""Patterns over foreign names mean what fnmatch and git say, and no pattern and no name makes them slow."""

from __future__ import annotations

import fnmatch
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hfpeer.git.globs import FileGlob, GitPattern

NAMES = st.text("ab/*[]!-^\\?.", max_size=14)
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "?", "/", "[ab]", "[!a]", "[", "]", "-", "[]a]", "[b-a]", "^", "\\"]))
GIT_PIECES = [
    "a",
    "b",
    "*",
    "**",
    "?",
    "/",
    "**/",
    "/**",
    "[ab]",
    "[!a]",
    "[^a]",
    "[",
    "]",
    "-",
    "[]a]",
    "[a-c]",
    "\\a",
]
GIT_PIECES += ["[[:alpha:]]", "[[:nope:]]", "[[:digit:]b]", "[a/b]", "\\*", ".", "é", "[c-a]", "[\\]a]", "[a\\-c]"]
GIT_PATTERNS = st.lists(st.sampled_from(GIT_PIECES), min_size=1, max_size=7).map("".join)
PARTS = st.sampled_from(["a", "b", "c", "ab", "abc", "a.b", "*", "[", "]", "a-", "é", "a]", "\\", "7"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@settings(max_examples=500)
@given(GLOBS.map("".join), NAMES)
@example("[!]a]*", "b")
@example("**a", "a")
def test_a_glob_matches_what_fnmatch_matches(pattern: str, name: str) -> None:
    assert FileGlob(pattern).matches(name) == fnmatch.fnmatchcase(name, pattern)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def git_says(repo: Path, pattern: str, paths: list[str]) -> list[bool]:
    (repo / ".gitattributes").write_text(f"{pattern} filter=lfs\n")
    asking = ["git", "-C", str(repo), "-c", "core.ignoreCase=false", "check-attr", "-z", "--stdin", "filter"]
    said = subprocess.run(asking, input="\0".join(paths).encode() + b"\0", check=True, capture_output=True).stdout
    fields = said.split(b"\0")
    assert [field.decode() for field in fields[0:-1:3]] == paths
    return [value == b"lfs" for value in fields[2::3]]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=GIT_PATTERNS, paths=st.lists(PATHS, min_size=1, max_size=30, unique=True))
@example(pattern="a/**", paths=["a", "a/b", "a/b/c", "b/a/b"])
@example(pattern="**/a", paths=["a", "b/a", "a/b"])
@example(pattern="a/**/b", paths=["a/b", "a/c/b", "a/c/c/b", "ab"])
@example(pattern="/a", paths=["a", "b/a"])
@example(pattern="[a/b]b", paths=["ab", "bb", "a/b"])
@example(pattern="a**/a", paths=["a", "aa", "a/a", "a/a/a", "ab/c/a", "b/a/a"])
@example(pattern="b/a**", paths=["b/a", "b/ab", "b/a/c/d", "a", "b/c"])
@example(pattern="[a]b**/a", paths=["ab/a", "ab/c/a", "abc/a", "abc/d/a"])
@example(pattern="***/b", paths=["b", "a/b", "a/c/b"])
def test_a_pattern_matches_what_git_matches(repo: Path, pattern: str, paths: list[str]) -> None:
    ours = GitPattern(pattern.encode())
    assert [ours.matches(path.encode()) for path in paths] == git_says(repo, pattern, paths)


@pytest.mark.timed
@pytest.mark.parametrize("count", [1000, 2000])
def test_no_pattern_and_no_name_is_slow(count: int) -> None:
    began_at = time.process_time()
    for pattern in ("*a" * count + "b", "*[ab]" * count + "c", "*?" * count + "b", "a*" * count):
        FileGlob(pattern).matches("a" * 4096)
        GitPattern(pattern.encode()).matches(b"a" * 4096)
        GitPattern(b"**/" + b"*a/**/" * (count // 10) + b"b").matches(b"/".join([b"a" * 30] * 120))
    assert time.process_time() - began_at < 10.0
