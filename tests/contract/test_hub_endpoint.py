"""The endpoint speaks the Hub's protocol: files, listings, info, refs, errors, and what it passes on."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.endpoint import Endpoint, Stage, staged
from fakes.hub import ZOO_FILES, put_many, put_zoo
from fakes.hub.zoo import noise
from fakes.machine import Machines

WEIGHTS = ZOO_FILES["model.safetensors"].data  # type: ignore[union-attr]
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
ODD = "/odd%20names/100%25%20%231.txt"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("endpoint")
    with Machines(folder) as machines, staged(folder, machines) as stage:
        put_zoo(stage.hub.storage)
        put_many(stage.hub.storage)
        stage.hub.put_repo("dataset", "acme/answers", {"data.csv": b"a,b\n1,2\n"})
        stage.hub.put_repo("model", "gpt2", {"config.json": b"{}"})
        yield stage


@pytest.fixture
def ask(stage: Stage) -> Endpoint:
    stage.hub.behaviour.xet_headers = stage.hub.behaviour.xet_trees = False
    return stage.endpoint


@pytest.fixture(scope="module")
def commit(stage: Stage) -> str:
    return stage.hub.repo("model", "acme/zoo").refs()["refs/heads/main"]


# Files


def test_a_name_is_redirected_to_the_commit_that_it_is(ask: Endpoint, commit: str) -> None:
    for method in ("HEAD", "GET"):
        said = ask.ask(method, "/acme/zoo/resolve/main/model.safetensors")
        assert (said.status, said.body) == (307, b"")
        assert said.headers["location"] == f"/acme/zoo/resolve/{commit}/model.safetensors"
        assert said.headers["x-repo-commit"] == commit
        assert said.headers["x-linked-etag"] == f'"{SHA256}"'
        assert said.headers["x-linked-size"] == str(len(WEIGHTS))


def test_the_head_of_a_file_has_all_headers_that_clients_need(ask: Endpoint, commit: str) -> None:
    said = ask.head(f"/acme/zoo/resolve/{commit}/model.safetensors")
    assert said.status == 200
    assert said.headers["x-repo-commit"] == commit
    assert said.headers["etag"] == said.headers["x-linked-etag"] == f'"{SHA256}"'
    assert said.headers["content-length"] == said.headers["x-linked-size"] == str(len(WEIGHTS))
    assert said.headers["accept-ranges"] == "bytes"
    plain = ask.head(f"/acme/zoo/resolve/{commit}/config.json")
    assert len(plain.headers["etag"]) == 42


@pytest.mark.parametrize("path", ["config.json", "empty.txt", "run.sh", "nested/deep/er/file.txt", "model.safetensors"])
def test_a_file_comes_whole(ask: Endpoint, commit: str, path: str) -> None:
    content: Any = ZOO_FILES[path]
    said = ask.get(f"/acme/zoo/resolve/{commit}/{path}")
    assert (said.status, said.is_whole) == (200, True)
    assert said.body == (content if isinstance(content, bytes) else content.data)


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=1000000-1999999", 206, 1_000_000, 2_000_000),
        ("bytes=2999990-", 206, 2_999_990, 3_000_000),
        ("bytes=-7", 206, 2_999_993, 3_000_000),
        ("bytes=0-99999999999999999999999", 206, 0, 3_000_000),
        ("bytes=3000000-", 416, 0, 0),
        ("bytes=5-1", 200, 0, 3_000_000),
        ("pages=1-2", 200, 0, 3_000_000),
    ],
)
def test_ranges(ask: Endpoint, commit: str, asked: str, status: int, start: int, stop: int) -> None:
    said = ask.get(f"/acme/zoo/resolve/{commit}/model.safetensors", Range=asked)
    assert (said.status, said.body) == (status, WEIGHTS[start:stop])
    if status == 206:
        assert said.headers["content-range"] == f"bytes {start}-{stop - 1}/3000000"
        assert said.headers["x-repo-commit"] == commit
    if status == 416:
        assert said.headers["content-range"] == "bytes */3000000"


def test_an_unchanged_file_is_a_304_at_a_commit_and_never_at_a_name(ask: Endpoint, commit: str) -> None:
    known = {"If_None_Match": f'"{SHA256}"'}
    assert ask.head(f"/acme/zoo/resolve/{commit}/model.safetensors", **known).status == 304
    assert ask.head("/acme/zoo/resolve/main/model.safetensors", **known).status == 307


@pytest.mark.parametrize(
    "target",
    [
        "/acme/zoo/resolve/main" + ODD,
        "//acme//zoo/resolve/main/odd%20names//100%25%20%231.txt",
        "/acme/zoo/resolve/dev%2Fexp/config.json",
        "/acme/zoo/resolve/refs%2Fpr%2F1/proposal.md",
        "/acme/zoo/resolve/refs/pr/1/proposal.md",
        "/acme/zoo/resolve/refs%2Fconvert%2Fparquet/data.parquet",
        "/acme/zoo/resolve/v1.0/README.md",
        "/acme/zoo/resolve/main/unicode/na%C3%AFve-%E6%A8%A1%E5%9E%8B-%F0%9F%A4%97.txt?download=true",
        "/datasets/acme/answers/resolve/main/data.csv",
        "/gpt2/resolve/main/config.json",
    ],
)
def test_every_way_to_write_an_address(ask: Endpoint, target: str) -> None:
    said = ask.get(target)
    assert said.status == 307, said
    assert ask.get(said.headers["location"]).status == 200


def test_a_short_commit_leads_to_the_whole_one(ask: Endpoint, commit: str) -> None:
    assert ask.head(f"/acme/zoo/resolve/{commit[:9]}/config.json").headers["x-repo-commit"] == commit


def test_raw_gives_the_git_blob(ask: Endpoint, commit: str) -> None:
    pointer = ask.get(f"/acme/zoo/raw/{commit}/model.safetensors")
    assert pointer.body == f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize 3000000\n".encode()
    assert ask.get("/acme/zoo/raw/main/config.json").body == ZOO_FILES["config.json"]


# The API


def without_xet(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(({k: v for k, v in entry.items() if k != "xetHash"} for entry in said), key=lambda e: e["path"])


@pytest.mark.parametrize("query", ["?recursive=true&expand=false", "?recursive=False", "", "?recursive=True&limit=5"])
@pytest.mark.parametrize("folder", ["", "/nested", "/nested%2Fdeep", "/odd%20names"])
def test_a_listing_equals_the_hubs(stage: Stage, ask: Endpoint, folder: str, query: str) -> None:
    target = f"/api/models/acme/zoo/tree/main{folder}{query}"
    expected = without_xet(pages(Endpoint(stage.hub.endpoint), target))
    assert without_xet(pages(ask, target)) == expected


def pages(ask: Endpoint, target: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        said = ask.get(target)
        assert said.status == 200, said
        found += said.document
        link = said.headers.get("link")
        if link is None:
            return found
        assert link.startswith(f"<{ask.url}/")
        target = link[1 : link.index(">")].removeprefix(ask.url)


def test_a_listing_of_more_than_a_page_is_whole(ask: Endpoint) -> None:
    said = ask.get("/api/models/acme/many/tree/main?recursive=true")
    assert len(said.document) == 1110
    assert "link" not in said.headers


@pytest.mark.parametrize("path", ["nothing", "config.json", "nested/deep/er/file.txt"])
def test_a_missing_folder_is_not_found(ask: Endpoint, path: str) -> None:
    said = ask.get(f"/api/models/acme/zoo/tree/main/{path.replace('/', '%2F')}")
    assert (said.status, said.code) == (404, "EntryNotFound")


def test_an_expanded_listing_has_last_commits_and_is_asked_once(stage: Stage, ask: Endpoint, commit: str) -> None:
    target = f"/api/models/acme/zoo/tree/{commit}?recursive=true&expand=true"
    first = ask.get(target)
    assert all(entry["lastCommit"]["id"] for entry in first.document)
    stage.requests()
    assert ask.get(target).document == first.document
    assert stage.requests() == []


@pytest.mark.parametrize("kind", ["form", "json"])
def test_paths_info_gives_the_entries_that_are_there(ask: Endpoint, commit: str, kind: str) -> None:
    body = {
        "form": b"paths=model.safetensors&paths=nested&paths=no&expand=false",
        "json": b'{"paths":["model.safetensors","nested","no"],"expand":false}',
    }[kind]
    content_type = {"form": "application/x-www-form-urlencoded", "json": "application/json"}[kind]
    target = f"/api/models/acme/zoo/paths-info/{commit}"
    said = ask.ask("POST", target, body, Content_Type=content_type).document
    assert {entry["path"]: entry["type"] for entry in said} == {"model.safetensors": "file", "nested": "directory"}
    assert said[0]["lfs"] == {"oid": SHA256, "size": 3_000_000, "pointerSize": 132}


def test_paths_info_knows_last_commits(ask: Endpoint, commit: str) -> None:
    body = b"paths=nested/deep&paths=config.json&expand=true"
    said = ask.ask("POST", f"/api/models/acme/zoo/paths-info/{commit}", body)
    assert [entry["lastCommit"]["title"] for entry in said.document] == ["Open the zoo", "Open the zoo"]


@pytest.mark.parametrize("query", ["", "?blobs=true", "?expand=downloads&expand=siblings", "?expand=lastModified"])
@pytest.mark.parametrize("rest", ["", "/revision/main", "/revision/v1.0", "/revision/dev%2Fexp"])
def test_info_equals_the_hubs(stage: Stage, ask: Endpoint, rest: str, query: str) -> None:
    target = f"/api/models/acme/zoo{rest}{query}"
    mine, theirs = ask.get(target).document, Endpoint(stage.hub.endpoint).get(target).document
    for document in (mine, theirs):
        if "siblings" in document:
            document["siblings"].sort(key=lambda sibling: sibling["rfilename"])
    assert mine == theirs


def test_refs_and_history(ask: Endpoint, commit: str) -> None:
    refs = ask.get("/api/models/acme/zoo/refs").document
    assert {ref["name"]: ref["targetCommit"] for ref in refs["branches"]}["main"] == commit
    assert "pullRequests" not in refs
    assert ask.get("/api/models/acme/zoo/refs?include_prs=1").document["pullRequests"][0]["ref"] == "refs/pr/1"
    said = ask.get("/api/models/acme/zoo/commits/main")
    assert [entry["title"] for entry in said.document] == ["Open the zoo", "Initial commit"]
    assert said.headers["x-total-count"] == "2"


def test_the_first_request_of_every_client_is_answered_at_once(stage: Stage, ask: Endpoint) -> None:
    stage.requests()
    assert ask.get("/api/agent-harnesses").document["harnesses"] == {}
    assert stage.requests() == []


def test_the_viewer_of_datasets_is_not_here(ask: Endpoint) -> None:
    host = ask.url.removeprefix("http://").replace("127.0.0.1", "datasets-server.localhost")
    assert ask.like(Host=host).get("/info?dataset=acme%2Fanswers").status == 404


# Errors


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/acme/zoo/resolve/main/no.txt", 404, "EntryNotFound"),
        ("/acme/zoo/resolve/nowhere/config.json", 404, "RevisionNotFound"),
        ("/acme/nobody/resolve/main/config.json", 401, "RepoNotFound"),
        ("/api/models/acme/nobody", 401, "RepoNotFound"),
        ("/api/models/acme/nobody/tree/main", 401, "RepoNotFound"),
        ("/api/models/acme/zoo/revision/nowhere", 404, "RevisionNotFound"),
        ("/api/models/acme/zoo/revision/" + "0" * 40, 404, "RevisionNotFound"),
    ],
)
def test_errors_have_the_codes_of_the_hub(ask: Endpoint, target: str, status: int, code: str) -> None:
    for method in ("HEAD", "GET"):
        said = ask.ask(method, target)
        assert (said.status, said.code) == (status, code)
        assert said.headers["x-error-message"]


def test_a_missing_file_names_the_commit_it_is_missing_at(ask: Endpoint, commit: str) -> None:
    assert ask.head("/acme/zoo/resolve/main/no.txt").headers["x-repo-commit"] == commit


# Xet


def test_nothing_leads_a_client_to_xet(stage: Stage, ask: Endpoint, commit: str) -> None:
    stage.hub.behaviour.xet_headers = stage.hub.behaviour.xet_trees = True
    told = [
        ask.head("/acme/zoo/resolve/main/model.safetensors"),
        ask.head(f"/acme/zoo/resolve/{commit}/model.safetensors"),
        ask.get("/api/models/acme/zoo/tree/main?recursive=true"),
        ask.get(f"/api/models/acme/zoo/tree/{commit}/nested?recursive=true&expand=true"),
        ask.ask("POST", f"/api/models/acme/zoo/paths-info/{commit}", b"paths=model.safetensors&expand=true"),
        ask.get("/api/models/acme/zoo?blobs=true"),
    ]
    for said in told:
        assert b"xet" not in said.body.lower()
        assert not [name for name in said.headers if "xet" in name]
        assert "xet" not in said.headers.get("link", "")


# What is passed on


def test_requests_that_only_the_hub_can_answer_are_forwarded(stage: Stage, ask: Endpoint) -> None:
    token = stage.hub.valid_token
    assert ask.get("/api/whoami-v2", Authorization=f"Bearer {token}").document["name"] == "owner"
    assert ask.get("/api/whoami-v2").status == 401
    found = ask.get("/api/models?search=zoo&limit=1")
    assert [model["id"] for model in found.document] == ["acme/zoo"]


def test_links_to_the_hub_lead_to_the_endpoint(ask: Endpoint) -> None:
    said = ask.get("/api/models?limit=1")
    assert said.headers["link"].startswith(f"<{ask.url}/api/models?")


def test_a_batch_of_git_lfs_leads_to_the_endpoint(stage: Stage, ask: Endpoint, commit: str) -> None:
    body = json.dumps({"operation": "download", "objects": [{"oid": SHA256, "size": len(WEIGHTS)}]}).encode()
    said = ask.ask("POST", "/acme/zoo.git/info/lfs/objects/batch", body)
    href = said.document["objects"][0]["actions"]["download"]["href"]
    assert href == f"{ask.url}/acme/zoo/resolve/{commit}/model.safetensors"


def test_a_large_body_passes_through_both_ways(stage: Stage, ask: Endpoint) -> None:
    body = base64.b64encode(noise(3_000_000, "upload"))
    said = ask.ask("POST", "/api/models/acme/zoo/preupload/main", body, Content_Type="application/json")
    assert said.status == 404
    assert stage.hub.requests_for("*/preupload/main")[-1].request.body == body


# Warm and offline


def test_a_second_identical_request_asks_no_hub(stage: Stage, ask: Endpoint, commit: str) -> None:
    targets = [
        f"/acme/zoo/resolve/{commit}/model.safetensors",
        f"/acme/zoo/resolve/{commit}/no.txt",
        f"/api/models/acme/zoo/revision/{commit}",
        f"/api/models/acme/zoo/tree/{commit}?recursive=true",
        f"/api/models/acme/zoo/commits/{commit}",
        "/api/models/acme/zoo",
        "/api/models/acme/zoo?expand=pipeline_tag&expand=likes",
        "/api/models/acme/zoo/refs",
        "/acme/zoo/resolve/main/config.json",
    ]
    first = [ask.get(target) for target in targets]
    stage.requests()
    second = [ask.get(target) for target in targets]
    assert [said.body for said in second] == [said.body for said in first]
    assert stage.requests() == []


def test_a_repo_made_after_it_was_missed_is_found(stage: Stage, ask: Endpoint) -> None:
    assert ask.head("/acme/late/resolve/main/a.txt").status == 401
    stage.hub.put_repo("model", "acme/late", {"a.txt": b"late"})
    token = {"Authorization": f"Bearer {stage.hub.valid_token}"}
    assert ask.head("/acme/late/resolve/main/a.txt", **token).status == 307


def test_a_push_through_the_endpoint_makes_it_ask_for_refs_again(stage: Stage, ask: Endpoint) -> None:
    stage.hub.put_repo("model", "acme/pushed", {"a.txt": b"a"})

    def main() -> str:
        branches = ask.get("/api/models/acme/pushed/refs").document["branches"]
        assert ask.get("/api/models/acme/pushed/revision/main").document["sha"] == branches[0]["targetCommit"]
        return str(branches[0]["targetCommit"])

    before = main()
    new = stage.hub.repo("model", "acme/pushed").commit({"b.txt": b"b"}, "main", message="Pushed")
    assert main() == before, "names are known for a while"
    ask.ask("POST", "/acme/pushed.git/git-receive-pack", b"0000")
    assert main() == new
