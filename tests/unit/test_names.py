"""Names are parsed once, print back, agree with the Hub client, and cannot lead out of the cache."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from huggingface_hub.constants import REPO_TYPES_MAPPING
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from hfpeer.errors import InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId, RepoType, Revision

odd = st.text(st.sampled_from("aB9-_./: ~^@{\\\x00\n\u00e9\ud800"), max_size=12)
segments = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_]{0,20}([.-][A-Za-z0-9]{1,5})?", fullmatch=True).filter(
    lambda text: not text.endswith((".git", "-", "."))
)
repo_names = st.one_of(segments, st.tuples(segments, segments).map("/".join))
types = st.sampled_from(RepoType)


@given(repo_names, types)
def test_a_repo_prints_back_in_every_form(name: str, type: RepoType) -> None:
    repo = RepoId.parse(name, type)
    assert repo.full_name == name
    assert RepoId.from_folder(repo.folder) == repo
    assert RepoId.from_api_path(repo.api_path) == repo
    assert repo.folder == repo_folder_name(repo_id=name, repo_type=type.value)


def test_the_types_are_the_hub_clients() -> None:
    assert {type.plural: type.value for type in RepoType}.items() <= REPO_TYPES_MAPPING.items()


@given(odd)
@example("gpt2")
@example("a/b/c")
@example("a--b")
@example("ns/name.git")
@example("-a")
@example("a.")
@example("a\n")
@example("")
@example("a" * 97)
@example("n" * 96 + "/" + "m" * 96)
def test_a_repo_name_we_take_is_one_the_hub_client_takes(text: str) -> None:
    with contextlib.suppress(InvalidName):
        RepoId.parse(text)
        validate_repo_id(text)


@pytest.mark.parametrize("text", ["gpt2", "openai/gpt2", "a/b.c-d_e", "A/1", "a_b/_c_", "x/y" + "z" * 90])
def test_a_name_the_hub_client_takes_is_one_we_take(text: str) -> None:
    validate_repo_id(text)
    assert RepoId.parse(text).full_name == text


@pytest.mark.parametrize("text", ["a//b", "/a", "a/", "a/..", "../a", "a b", "a/b\n", "a/b.git", "a..b"])
def test_a_bad_repo_name_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        RepoId.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "folder", ["models", "models--", "kernels--a--b", "models--a--b--c", "blobs", ".locks", "models--a----b"]
)
def test_a_folder_that_is_no_repo_is_refused(folder: str) -> None:
    with pytest.raises(InvalidName):
        RepoId.from_folder(folder)


def test_a_repo_has_the_url_of_its_type() -> None:
    assert RepoId.parse("a/b").url_path == str(RepoId.parse("a/b")) == "a/b"
    assert RepoId.parse("a/b", "dataset").url_path == "datasets/a/b"


@pytest.mark.parametrize("text", ["main", "refs/pr/3", "v1.0", "feature/x-y", "a" * 40, "deadbee", "a@b", "1.0.0+cu12"])
def test_what_git_takes_as_a_ref_is_a_revision(text: str) -> None:
    assert Revision.parse(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a..b", "../x", "a/../b", "/a", "a/", "a//b", "a.lock", "a/b.lock/c", ".a", "a/.b", "a~1", "a^", "a:b",
     "a?", "a*", "a[b", "a\\b", "a@{1}", "a\x7f", "a\n", "-x", "a.", "@", "a" * 256],
)  # fmt: skip
def test_what_git_refuses_is_no_revision(text: str) -> None:
    with pytest.raises(InvalidName):
        Revision.parse(text)


@given(odd)
def test_a_revision_stays_below_the_refs_folder(text: str) -> None:
    with contextlib.suppress(InvalidName):
        _assert_stays_inside(Revision.parse(text))


@given(odd)
@example("a/\u00e9")
@example("C:x")
def test_a_file_path_stays_below_its_folder(text: str) -> None:
    with contextlib.suppress(InvalidName):
        path = FilePath.parse(text)
        _assert_stays_inside(path)
        path.encode()


def _assert_stays_inside(text: str) -> None:
    place = os.path.normpath(f"/cache/x/{text}")
    assert place.startswith("/cache/x/")
    assert Path("/cache/x", text).as_posix() == place


@pytest.mark.parametrize(
    "text",
    ["a", "a/b.txt", "\u00e9/\u4e2d.bin", "a b", ".gitattributes", "..a", "ab:c", "x" * 255, "a\\b", "a\\..\\b", "C:x",
     "c:/x", "\\\\host\\x", "/".join("a" * 128), "/".join(["a" * 255] * 16)],
)  # fmt: skip
def test_ordinary_paths_are_taken(text: str) -> None:
    assert FilePath.parse(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/a", "a/", "a//b", ".", "..", "a/..", "a/./b", "a\x00", "x" * 256, "é" * 128, "\ud800", "/".join("a" * 129),
     "/".join(["a" * 255] * 16) + "/", "/".join(["ab"] * 1366)],
)  # fmt: skip
def test_a_path_that_is_no_plain_relative_one_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        FilePath.parse(text)
    str(caught.value.to_problem()).encode("utf-8", "strict")


@pytest.mark.parametrize("text", ["a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 40 + "\n", ""])
def test_only_forty_hex_digits_are_a_commit(text: str) -> None:
    with pytest.raises(InvalidName):
        Commit.parse(text)
    if text:
        assert not Revision(text).is_commit


def test_a_commit_has_a_short_form() -> None:
    assert Commit.parse("0123456789" * 4).short == "012345678901"
    assert Revision.parse("a" * 40).is_commit


@given(st.sampled_from([("sha256", 64), ("git-sha1", 40)]), st.data())
def test_a_digest_prints_back_and_is_its_etag(kind: tuple[str, int], data: st.DataObject) -> None:
    hex = data.draw(st.text("0123456789abcdef", min_size=kind[1], max_size=kind[1]))
    digest = Digest.parse(f"{kind[0]}:{hex}")
    assert str(digest) == f"{kind[0]}:{hex}"
    assert Digest.from_etag(f'W/"{hex}"') == Digest.from_etag(hex) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 40,
        "git-sha1:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:" + "A" * 64,
        "sha256:" + "../" * 21 + "a",
        "git-sha1:" + "a" * 40 + "\n",
    ],
)
def test_an_invalid_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        Digest.parse(text)


def test_the_hub_client_refuses_by_the_error_that_we_compare_with() -> None:
    with pytest.raises(HFValidationError):
        validate_repo_id("a--b")
