"""Whatever a ModelScope answers, a push and a comparison end with a report or with one of our errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.commit_node import CommitNode
from fakes.hub import Content, Lfs
from hfpeer.errors import HfpeerError
from hfpeer.modelscope.access import SiteAccess
from hfpeer.modelscope.answers import Answer
from hfpeer.modelscope.api import SiteApi, SiteTimeouts
from hfpeer.modelscope.listing import head_commit, list_files
from hfpeer.modelscope.names import SiteRepo
from hfpeer.modelscope.repos import find_visibility, whoami
from hfpeer.names import RepoId
from hfpeer.node.operations.modelscope.pushing import PushParts, compare_copy, push
from hfpeer.node.operations.modelscope.requests import PushRequest

REPO = RepoId.parse("acme/tiny")
TARGET, ROWS = SiteRepo.parse("team/tiny"), SiteRepo.parse("team/rows", "dataset")
FILES: dict[str, Content] = {"README.md": b"# Tiny\n", "a/model.safetensors": Lfs(b"w" * 2000)}
NAMES = ["Data", "data", "Files", "Path", "Size", "Sha256", "Type", "objects", "oid", "size", "actions", "upload"]
NAMES += ["href", "Commit", "Id", "Code", "code", "Success", "success", "Message", "message", "Visibility", "username"]
WORDS = [
    "blob",
    "tree",
    "README.md",
    "a/model.safetensors",
    "../x",
    "ab" * 32,
    "ab" * 20,
    "branch changed",
    "\0\x1b[2J",
]
WORDS += ["http://[", "http://127.0.0.1:9/api/v1/repos/models/team/tiny/blobs/x/1", "already exists", "licence"]

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=20), st.just(10**40)
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)),
    max_leaves=12,
)
bodies = st.one_of(
    st.binary(max_size=60),
    st.just(b"<html><head><title>502 \xff</title></head></html>"),
    st.just(b"[" * 5000),
    st.builds(lambda data: json.dumps({"Code": 200, "Data": data, "Success": True}).encode(), values),
    st.builds(lambda data: json.dumps({"success": True, "data": data}).encode(), values),
    st.builds(lambda files: json.dumps({"Code": 200, "Data": {"Files": files}}).encode(), st.lists(values)),
    st.builds(lambda objects: json.dumps({"Code": 200, "Data": {"objects": objects}}).encode(), st.lists(values)),
    st.builds(lambda document: json.dumps(document).encode(), values),
)
statuses = st.one_of(
    st.just(200), st.just(200), st.sampled_from([204, 400, 401, 403, 404, 409, 413, 422, 429, 500, 504])
)
headers = st.fixed_dictionaries({}, optional={"retry-after": st.sampled_from(["0", "-1", "1e9", "soon", "9" * 40])})
answers = st.builds(Answer, statuses, headers, bodies)
talks = st.builds(
    lambda right, answer, later: [None] * right + [answer] + later,
    st.integers(0, 8),
    answers,
    st.lists(st.one_of(st.none(), answers), max_size=4),
)
"""The answers to one request after the other; None is the right one, and so is each after the last."""


class FuzzedApi(SiteApi):
    """A site that keeps nothing, and answers as told."""

    def __init__(self, talk: list[Answer | None]) -> None:
        super().__init__(SiteAccess("http://127.0.0.1:9", "a-token"), SiteTimeouts(pause_seconds=0))
        self._talk: Iterator[Answer | None] = iter(talk)

    async def _exchange(self, method: str, url: str, *options: Any, **sent: Any) -> Answer:
        if "content" in sent:
            async for _ in sent["content"]:
                pass
        answer = next(self._talk, None)
        return answer if answer is not None else right_answer(urlsplit(url).path, sent.get("json"))


def right_answer(path: str, document: Any) -> Answer:
    if path.endswith("/objects/batch"):
        place = "http://127.0.0.1:9/api/v1/repos/models/team/tiny/blobs"
        wanted = [
            {**each, "actions": {"upload": {"href": f"{place}/{each['oid']}/{each['size']}"}}}
            for each in document["objects"]
        ]
        return told({"objects": wanted})
    if path.endswith("/repo/files"):
        return told({"Files": []})
    return told({"Visibility": 5, "username": "alice", "oid": "ab" * 20})


def told(data: Any) -> Answer:
    return Answer(200, {}, json.dumps({"Code": 200, "Data": data, "Success": True}).encode())


@pytest.fixture(scope="module")
def node() -> Iterator[CommitNode]:
    with TemporaryDirectory() as folder:
        node = CommitNode(Path(folder))
        node.put_repo(REPO, FILES)
        yield node


@pytest.fixture(autouse=True, scope="module")
def no_rests() -> Iterator[None]:
    async def rest(seconds: float) -> None:
        assert 0 <= seconds <= 900

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfpeer.modelscope.api.rest", rest)
        yield


@settings(max_examples=300)
@given(talk=talks)
def test_a_push_and_a_comparison_end_with_a_report_or_an_error(node: CommitNode, talk: list[Answer | None]) -> None:
    async def run() -> None:
        for work in (push, compare_copy):
            try:
                await work(PushParts(node, FuzzedApi(talk)), PushRequest(REPO, TARGET), lambda event: None)
            except HfpeerError as error:
                assert error.message and error.hint

    asyncio.run(run())


@settings(max_examples=300)
@given(answer=answers)
def test_every_question_ends_with_a_value_or_an_error(answer: Answer) -> None:
    async def run() -> None:
        for question in (
            whoami,
            lambda api: find_visibility(api, TARGET),
            lambda api: head_commit(api, TARGET),
            lambda api: list_files(api, TARGET),
            lambda api: list_files(api, ROWS),
        ):
            try:
                await question(FuzzedApi([answer] * 20))
            except HfpeerError as error:
                assert error.message and error.hint

    asyncio.run(run())
