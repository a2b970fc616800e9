"""A lock file is the same text for the same lock, and reads back as what was locked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, RepoType, Revision
from hfpeer.resolver.lock_file import HEAD, LockedFile, LockedRepo, lock_text, read_lock

paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\\"), min_size=1, max_size=20).filter(
    lambda text: text.strip(". ") == text and len(text.encode()) < 200
)


def locked(name: str, *files: LockedFile, type: RepoType = RepoType.MODEL, **facts: tuple[str, ...]) -> LockedRepo:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return LockedRepo(RepoId.parse(name, type), Revision("main"), Commit("ab" * 20), ordered, **facts)


def file(path: str, size_bytes: int = 3) -> LockedFile:
    return LockedFile(FilePath(path), size_bytes, Digest("sha256", "cd" * 32))


@given(st.lists(paths, unique=True, max_size=5))
def test_every_name_comes_back(names: list[str]) -> None:
    try:
        files = [file(FilePath.parse(name)) for name in names]
    except InvalidName:
        return
    one = locked("acme/m", *files, include=("*.json", '"a\\b"'))
    assert read_lock(lock_text([one]), "x") == (one,)


def test_the_order_does_not_matter() -> None:
    one, two = locked("acme/b", file("b"), file("a")), locked("acme/a", type=RepoType.DATASET)
    assert lock_text([one, two]) == lock_text([two, one])
    assert lock_text([one]).splitlines()[-3:] == [
        f'  {{ path = "a", size = 3, digest = "sha256:{"cd" * 32}" }},',
        f'  {{ path = "b", size = 3, digest = "sha256:{"cd" * 32}" }},',
        "]",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no toml [", "is no lock file"),
        ("", "has the format None"),
        ("format = 2", "has the format 2"),
        (HEAD + '[[repo]]\nname = "a/b"', "is no lock file: 'files'"),
        (HEAD + 'repo = "x"', "is no lock file"),
        (lock_text([locked("acme/m", file("a"))]).replace('"a"', '"../a"'), "../a"),
        (lock_text([locked("acme/m", file("a"))]).replace("ab" * 20, "main"), "main"),
        (lock_text([locked("acme/m", file("a"))]).replace("size = 3", 'size = "x"'), "is no lock file"),
    ],
)
def test_a_text_that_is_none_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidName, match=said) as caught:
        read_lock(text, "models.lock")
    assert caught.value.hint
