"""What a push to ModelScope would do: the comparison, the commits, the list, who may see it, where the token goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.config.keys import site_url
from hfpeer.errors import AccessDenied, HfpeerError, HubUnreachable, InvalidName
from hfpeer.modelscope.access import SiteAccess
from hfpeer.modelscope.answers import Answer, Transient, refusal
from hfpeer.modelscope.files import MAX_PARSED_BYTES, MAX_PLAIN_BYTES, SiteFile, SourceFile, read_entries
from hfpeer.modelscope.names import SiteRepo, SiteVisibility, parse_branch
from hfpeer.modelscope.plan import MAX_COMMIT_ACTIONS, MAX_COMMIT_BYTES, Change, batches, compare
from hfpeer.names import RepoId, RepoType, Revision
from hfpeer.node.operations.modelscope.requests import (
    PushRequest,
    Wish,
    check_target,
    is_private_there,
    read_list,
)

A, B = "a" * 64, "b" * 64
REPO, TARGET = RepoId.parse("acme/tiny"), SiteRepo.parse("team/tiny")
REQUEST = PushRequest(REPO, TARGET)


def test_files_are_compared_by_size_and_sha256_both_ways() -> None:
    files = [SourceFile(path, 5, A, True) for path in ("same", "other bytes", "other size", "untold", "absent")]
    there = {
        "same": SiteFile("same", 5, A),
        "other bytes": SiteFile("other bytes", 5, B),
        "other size": SiteFile("other size", 6, A),
        "untold": SiteFile("untold", 5, None),
        "not selected": SiteFile("not selected", 5, A),
        "gone": SiteFile("gone", 5, A),
        "README.md": SiteFile("README.md", 5, A),
    }
    found = compare(files, there, [*(file.path for file in files), "not selected"])
    assert [file.path for file in found.same] == ["same"]
    assert [file.path for file in found.different] == ["other bytes", "other size", "untold"]
    assert [file.path for file in found.absent] == ["absent"]
    assert found.extra == ("README.md", "gone") and found.prunable == ("gone",)


@pytest.mark.parametrize(
    ("path", "size", "is_lfs", "is_plain"),
    [
        ("a.txt", MAX_PLAIN_BYTES, False, True),
        ("a.txt", MAX_PLAIN_BYTES + 1, False, False),
        ("a.txt", 10, True, False),
        ("empty.bin", 0, True, True),
        ("README.md", MAX_PARSED_BYTES, True, True),
        ("deep/Config.json", 2 * MAX_PLAIN_BYTES, False, True),
        ("README.md", MAX_PARSED_BYTES + 1, False, False),
    ],
)
def test_a_file_is_plain_there_as_at_the_hub_unless_it_is_large_or_the_site_reads_it(
    path: str, size: int, is_lfs: bool, is_plain: bool
) -> None:
    assert SourceFile(path, size, A, is_lfs).is_plain_there is is_plain


@given(st.lists(st.integers(0, MAX_PLAIN_BYTES), max_size=40), st.integers(0, 600))
def test_commits_hold_all_changes_once_within_their_limits_and_the_readme_last(sizes: list[int], removed: int) -> None:
    changes = [Change("README.md", SourceFile("README.md", 5, A, False))]
    changes += [Change(f"{n}", SourceFile(f"{n}", size, A, False)) for n, size in enumerate(sizes)]
    changes += [Change(f"gone {n}") for n in range(removed)]
    groups = [*batches(changes)]
    flat = [change for group in groups for change in group]
    assert flat[-1].path == "README.md" and sorted(flat, key=str) == sorted(changes, key=str)
    for group in groups:
        assert len(group) <= MAX_COMMIT_ACTIONS
        assert sum(change.size_in_commit_bytes for change in group) <= MAX_COMMIT_BYTES


def test_a_list_has_two_names_a_line_with_comments_and_may_have_a_revision() -> None:
    text = "# models\n\nacme/tiny team/tiny # the small one\n gpt2\tteam/gpt2 v1.0 \ndatasets/acme/rows team/rows\n"
    assert read_list(text.splitlines(), RepoType.MODEL) == [
        (REPO, Revision("main"), TARGET),
        (RepoId.parse("gpt2"), Revision("v1.0"), SiteRepo.parse("team/gpt2")),
        (RepoId.parse("acme/rows", "dataset"), Revision("main"), SiteRepo.parse("team/rows", "dataset")),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("acme/tiny", "Line 1 of the list: It has 1 words"),
        ("# x\nacme/tiny a b c", "Line 2 of the list: It has 4 words"),
        ("acme/tiny ../x", "Line 1 of the list: '../x' is not the name"),
        ("a--b/tiny team/x", "Line 1 of the list: 'a--b/tiny' is not a repo name"),
        ("spaces/acme/x team/x", "Line 1 of the list: team/x cannot be a space"),
        ("acme/a team/x\nacme/b team/x", "Lines 1 and 2 of the list push to the same repo"),
        ("# nothing", "The list has no repo"),
    ],
)
def test_a_malformed_list_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(InvalidName) as refused:
        read_list(text.splitlines(), RepoType.MODEL)
    assert refused.value.message.startswith(complaint) and refused.value.hint


@pytest.mark.parametrize(
    ("visibility", "wish", "has_permission", "is_private"),
    [
        ("public", None, False, False),
        ("public", "private", False, True),
        ("public", "public", False, False),
        ("unknown", None, False, True),
        ("unknown", "public", False, None),
        ("unknown", "public", True, False),
        ("given", None, False, True),
        ("given", "public", False, None),
        ("published", None, False, True),
        ("published", "public", False, False),
        ("gated", None, False, None),
        ("gated", None, True, True),
        ("gated", "public", True, False),
        ("gated", "public", False, None),
        ("private", "private", False, None),
        ("private", None, True, True),
    ],
)
def test_only_what_a_hub_shows_to_all_becomes_public_without_the_word_of_the_user(
    visibility: str, wish: Wish | None, has_permission: bool, is_private: bool | None
) -> None:
    request = replace(REQUEST, wish=wish, has_permission=has_permission)
    if is_private is None:
        with pytest.raises(AccessDenied) as refused:
            is_private_there(request, visibility)
        assert refused.value.hint and "--with-permission" in refused.value.hint
    else:
        assert is_private_there(request, visibility) is is_private


@pytest.mark.parametrize(
    ("there", "is_private", "is_refused"),
    [
        (None, True, False),
        ("private", True, False),
        ("public", True, True),
        ("internal", True, True),
        ("unknown", True, True),
        ("public", False, False),
        ("private", False, False),
    ],
)
def test_what_is_to_be_private_does_not_go_into_a_repo_that_others_see(
    there: SiteVisibility | None, is_private: bool, is_refused: bool
) -> None:
    error = check_target(REQUEST, "modelscope.cn", there, "gated", is_private=is_private)
    assert (error is not None) is is_refused


@pytest.mark.parametrize(
    ("endpoint", "url", "is_sent"),
    [
        ("https://modelscope.cn", "https://modelscope.cn/api/v1/models/a/b", True),
        ("https://modelscope.cn", "https://www.modelscope.cn/api/v1/models/a/b", True),
        ("https://www.modelscope.cn", "https://modelscope.cn/x", True),
        ("https://modelscope.cn", "http://modelscope.cn/x", False),
        ("https://modelscope.cn", "https://modelscope.ai/x", False),
        ("https://modelscope.cn", "https://cdn-lfs-cn-1.modelscope.cn/x", False),
        ("https://modelscope.cn", "https://modelscope.cn.evil.example/x", False),
        ("https://modelscope.cn", "https://modelscope.cn:8443/x", False),
        ("http://127.0.0.1:80", "http://127.0.0.1:81/x", False),
    ],
)
def test_the_token_goes_to_the_api_of_its_site_only(endpoint: str, url: str, is_sent: bool) -> None:
    assert bool(SiteAccess(endpoint, "secret").headers_for(url)) is is_sent
    assert SiteAccess(endpoint, None).headers_for(url) == {}
    assert "secret" not in repr(SiteAccess(endpoint, "secret"))


@pytest.mark.parametrize(
    ("endpoint", "href", "is_sent"),
    [
        ("https://modelscope.cn", f"https://lfs.modelscope.cn/api/v1/repos/models/team/tiny/blobs/{A}/5", True),
        ("https://modelscope.cn", f"https://lfs.modelscope.cn/api/v1/repos/models/team/tiny/blobs/{A}/5?x=1", True),
        ("https://modelscope.cn", f"http://lfs.modelscope.cn/api/v1/repos/models/team/tiny/blobs/{A}/5", False),
        ("https://modelscope.cn", f"https://lfs.modelscope.ai/api/v1/repos/models/team/tiny/blobs/{A}/5", False),
        ("https://modelscope.cn", f"https://evil.example/api/v1/repos/models/team/tiny/blobs/{A}/5", False),
        ("https://modelscope.cn", f"https://lfs.modelscope.cn/api/v1/repos/models/team/tiny/blobs/{B}/5", False),
        ("https://modelscope.cn", f"https://lfs.modelscope.cn/api/v1/repos/models/team/other/blobs/{A}/5", False),
        ("https://modelscope.cn", f"https://lfs.modelscope.cn/api/v1/repos/models/team/tiny/blobs/{A}/50", False),
        ("https://modelscope.cn", "https://[", False),
        ("https://ms.example", f"https://ms.example:9/api/v1/repos/models/team/tiny/blobs/{A}/5", True),
        ("https://ms.example", f"https://lfs.ms.example/api/v1/repos/models/team/tiny/blobs/{A}/5", False),
        ("http://127.0.0.1:1", f"http://localhost:2/api/v1/repos/models/team/tiny/blobs/{A}/5", True),
        ("http://127.0.0.1:1", f"http://192.168.0.1/api/v1/repos/models/team/tiny/blobs/{A}/5", False),
    ],
)
def test_a_blob_goes_only_to_its_own_address_at_its_site(endpoint: str, href: str, is_sent: bool) -> None:
    access = SiteAccess(endpoint, "secret")
    if is_sent:
        assert "secret" in str(access.upload_headers(href, TARGET, A, 5))
    else:
        with pytest.raises(HubUnreachable):
            access.upload_headers(href, TARGET, A, 5)


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b"null", b'{"Data":{"Files":5}}', b"\xff\xfe{"]))
def test_any_body_has_a_meaning(body: bytes) -> None:
    for status in (200, 204, 302, 400, 401, 403, 404, 409, 413, 422, 429, 500, 504):
        answer = Answer(status, {}, body)
        if not answer.is_success:
            found = refusal("modelscope.cn", answer, "team/tiny", "write")
            assert isinstance(found, (Transient, HfpeerError)) and str(found)
        try:
            read_entries(answer.data)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize("text", ["", "tiny", "a/b/c", "../b", "a/..", "a b/c", "a/.b", "模型/x"])
def test_a_malformed_name_at_modelscope_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        SiteRepo.parse(text)


def test_branches_and_addresses_are_parsed() -> None:
    assert parse_branch("feature/x-1") == "feature/x-1"
    for branch in ("", ".x", "a b", "a/../b", "a//b", "x/", "?x"):
        with pytest.raises(InvalidName):
            parse_branch(branch)
    assert (
        site_url("modelscope.ai/") == "https://modelscope.ai" and site_url("http://127.0.0.1:9") == "http://127.0.0.1:9"
    )
    for url in ("", "https://", "ftp://x", "https://me:secret@modelscope.cn", "https://x:y"):
        with pytest.raises(InvalidName):
            site_url(url)
