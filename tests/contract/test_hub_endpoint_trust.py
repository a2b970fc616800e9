"""Who gets what at the endpoint, what happens when no hub answers, and what a hostile request can do: nothing."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fakes.endpoint import Endpoint, Said, Stage, endpoint_of, staged
from fakes.hub import Content, HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.machine import Machines
from fakes.waiting import wait_until

SECRET_BYTES = noise(400_000, "secret")
SECRET: dict[str, Content] = {"secret.bin": Lfs(SECRET_BYTES), "config.json": b'{"is": "secret"}'}
OWN_TOKEN = "hf_" + "TheDaemonsOwnUserHasThisToken0000"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("trust")) as machines:
        yield machines


@pytest.fixture(scope="module")
def stage(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The daemon's own user has a token that would open everything; a mirror stands before the origin."""
    with HubSimulator() as hub, HubSimulator(mirror_of=hub) as mirror:
        hub.storage.add_user("owner", OWN_TOKEN)
        upstreams = f"mirror={mirror.endpoint},origin={hub.endpoint}"
        machine = machines.make("trusted", upstreams=upstreams, HF_TOKEN=OWN_TOKEN)
        for visibility in ("private", "gated", "disabled", "public"):
            hub.put_repo("model", f"acme/{visibility}", SECRET, visibility=visibility)
        stage = Stage(hub, machine, endpoint_of(machine), tmp_path_factory.mktemp("callers"))
        yield stage
        assert mirror.requests, "the mirror is in use"
        assert not mirror.requests_with_token(), "no token goes to a mirror"
        assert not hub.requests_with_token(OWN_TOKEN), "the daemon lends its own token to nobody"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def target_of(stage: Stage, repo: str, path: str = "secret.bin") -> str:
    return f"/acme/{repo}/resolve/{stage.hub.repo('model', f'acme/{repo}').refs()['refs/heads/main']}/{path}"


@pytest.mark.parametrize(
    ("repo", "who", "status", "code"),
    [
        ("private", None, 401, "RepoNotFound"),
        ("private", "stranger", 404, "RepoNotFound"),
        ("private", "bad", 401, None),
        ("private", "owner", 200, None),
        ("gated", None, 401, "GatedRepo"),
        ("gated", "stranger", 403, "GatedRepo"),
        ("gated", "owner", 200, None),
        ("public", None, 200, None),
        ("public", "bad", 200, None),
        ("disabled", "owner", 403, None),
    ],
)
def test_files_go_only_to_callers_that_the_hub_accepts(
    stage: Stage, repo: str, who: str | None, status: int, code: str | None
) -> None:
    tokens = {"owner": stage.hub.valid_token, "stranger": stage.hub.foreign_token, "bad": stage.hub.bad_token}
    ask = stage.endpoint.like(**bearer(tokens[who])) if who else stage.endpoint
    # Once cold, and once after the owner has had the files, so that they lie in the cache.
    for _ in range(2):
        for path in ("secret.bin", "config.json"):
            said = ask.get(target_of(stage, repo, path))
            assert (said.status, said.code) == (status, code), said
        stage.endpoint.like(**bearer(stage.hub.valid_token)).get(target_of(stage, repo))


def test_the_exact_messages_for_a_bad_token_and_a_disabled_repo(stage: Stage) -> None:
    bad = stage.endpoint.head(target_of(stage, "private"), **bearer(stage.hub.bad_token))
    assert bad.headers["x-error-message"] == "Invalid credentials in Authorization header"
    disabled = stage.endpoint.head(target_of(stage, "disabled"), **bearer(stage.hub.valid_token))
    assert disabled.headers["x-error-message"] == "Access to this resource is disabled."


def test_metadata_of_a_gated_repo_is_open_and_of_a_private_one_is_not(stage: Stage) -> None:
    assert len(stage.endpoint.get("/api/models/acme/gated/tree/main").document) == 2
    assert stage.endpoint.get("/api/models/acme/gated").document["gated"] == "auto"
    assert stage.endpoint.get("/api/models/acme/private").status == 401
    assert stage.endpoint.get("/api/models/acme/private/refs").status == 401
    assert stage.endpoint.get("/api/models/acme/gated/auth-check").code == "GatedRepo"
    assert stage.endpoint.get("/api/models/acme/gated/auth-check", **bearer(stage.hub.valid_token)).status == 200


def test_a_private_file_is_not_shared_with_the_lan(stage: Stage, machines: Machines) -> None:
    owner = stage.endpoint.like(**bearer(stage.hub.valid_token))
    assert owner.get(target_of(stage, "private")).status == 200
    wait_until(lambda: stage.machine.found("model", "ls", "-r", "acme/private"), "it is in the cache")
    assert [revision["is_shared"] for revision in stage.machine.found("model", "ls", "-r", "acme/private")] == [False]


def test_offline_a_token_once_accepted_still_opens_and_no_other(stage: Stage) -> None:
    owner = stage.endpoint.like(**bearer(stage.hub.valid_token))
    targets = [target_of(stage, repo) for repo in ("private", "gated")]
    assert [owner.get(target).status for target in targets] == [200, 200]
    wait_until(lambda: len(stage.machine.do("model", "ls")) >= 2, "both are in the cache")
    stage.machine.stop()
    with stage.hub.down():
        endpoint = endpoint_of(stage.machine)
        stage.endpoint.url = endpoint.url
        owner = endpoint.like(**bearer(stage.hub.valid_token))
        assert [owner.get(target).body == SECRET_BYTES for target in targets] == [True, True]
        assert [endpoint.get(target).status for target in targets] == [401, 401]
        stranger = endpoint.like(**bearer("hf_" + "NobodyHasEverSeenThisOne00000000000"))
        assert [stranger.head(target).status for target in targets] == [503, 503]


def test_no_token_is_written_down(stage: Stage) -> None:
    for path in stage.machine.home.rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            assert stage.hub.valid_token.encode() not in body and OWN_TOKEN.encode() not in body, path


# No hub


@pytest.mark.slow
def test_an_outage_is_never_an_absence(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "outage", HFPEER_ENDPOINT_REF_TTL="0.2") as stage:
        commit = stage.hub.put_repo("model", "acme/known", {"a.txt": b"a", "b.txt": b"b"})
        ask = stage.endpoint
        assert ask.get("/acme/known/resolve/main/a.txt").status == 307
        assert ask.get(f"/acme/known/resolve/{commit}/a.txt").body == b"a"
        with stage.hub.down():
            stale = wait_until(lambda: stale_answer(ask), "the answer is stale")
            assert stale is not None
            assert (stale.status, stale.headers["x-repo-commit"]) == (307, commit)
            assert int(stale.headers["age"]) >= 0
            assert ask.get(f"/acme/known/resolve/{commit}/a.txt").body == b"a"
            assert ask.head("/acme/known/resolve/main/no.txt").code == "EntryNotFound"
            assert ask.get("/api/models/acme/known").document["sha"] == commit
            assert ask.get("/api/models/acme/known/refs").document["branches"][0]["targetCommit"] == commit
            assert ask.get("/api/models/acme/known/commits/main").status == 200
            for target in ("/acme/new/resolve/main/a.txt", "/api/models/acme/new", "/acme/known/resolve/dev/a.txt"):
                said = ask.head(target)
                assert (said.status, said.code, said.headers["retry-after"]) == (503, None, "0"), target
            waiting = ask.get("/acme/new/resolve/main/a.txt")
            assert (waiting.status, int(waiting.headers["retry-after"]) > 0) == (429, True)
            assert ask.get("/api/whoami-v2").status == 503
        for status in (500, 503, 404):
            stage.hub.inject(faults.status(status))
            assert ask.head("/acme/other/resolve/main/a.txt").status == 503
            stage.hub.faults.clear()
        stage.machine.stop()


def test_a_node_without_hubs_lets_nobody_wait_for_what_it_does_not_have(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "alone", upstreams="") as stage:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "a.txt").write_bytes(b"a")
        commit = stage.machine.do("model", "publish", str(tmp_path / "own"), "--as", "team/own")["commit"]
        ask = stage.endpoint
        api = ("", "/revision/main", "/tree/main", "/refs", f"/tree/{commit}", "/nothing")
        unknown = ["/acme/new/resolve/main/a.txt", *(f"/api/models/acme/new{path}" for path in api)]
        for target in (*unknown, "/api/whoami-v2", "/api/models?search=new"):
            for said in (ask.get(target), ask.head(target)):
                assert (said.status, said.code, "retry-after" in said.headers) == (404, None, False), target
        assert "no hub is set" in ask.get(unknown[0]).headers["x-error-message"]
        for revision in ("dev", "0" * 40):
            for target in (f"/team/own/resolve/{revision}/a.txt", f"/api/models/team/own/tree/{revision}"):
                assert (ask.head(target).status, ask.head(target).code) == (404, "RevisionNotFound"), target
        assert ask.get(f"/team/own/resolve/{commit}/a.txt").body == b"a"
        stage.machine.stop()


@pytest.mark.parametrize("has_hub", [True, False], ids=["with-hub", "alone"])
def test_an_expanded_listing_of_what_was_published_has_its_commit(
    machines: Machines, tmp_path: Path, has_hub: bool
) -> None:
    options = {} if has_hub else {"upstreams": ""}
    with staged(tmp_path, machines, f"publisher-{has_hub}", **options) as stage:
        (tmp_path / "own" / "folder").mkdir(parents=True)
        (tmp_path / "own" / "folder" / "a.txt").write_bytes(b"a")
        commit = stage.machine.do("model", "publish", str(tmp_path / "own"), "--as", "team/own")["commit"]
        expected = {"id": commit, "title": "Published by hfpeer", "date": "1970-01-01T00:00:00.000Z"}
        for query in ("expand=true&recursive=true", "expand=true&recursive=true&limit=10"):
            entries = stage.endpoint.get(f"/api/models/team/own/tree/main?{query}").document
            assert {entry["path"]: entry["lastCommit"] for entry in entries} == {
                "folder": expected,
                "folder/a.txt": expected,
            }
        said = stage.endpoint.ask("POST", "/api/models/team/own/paths-info/main", b"paths=folder/a.txt&expand=true")
        assert [entry["lastCommit"] for entry in said.document] == [expected]
        assert "lastCommit" not in stage.endpoint.get("/api/models/team/own/tree/main").document[0]
        stage.machine.stop()


def stale_answer(ask: Endpoint) -> Said | None:
    said = ask.head("/acme/known/resolve/main/a.txt")
    return said if "x-hf-warning" in said.headers else None


def test_old_answers_can_be_refused(machines: Machines, tmp_path: Path) -> None:
    rules = {"HFPEER_ENDPOINT_REF_TTL": "0.2", "HFPEER_ENDPOINT_STALE_REFS": "refuse"}
    with staged(tmp_path, machines, "strict", **rules) as stage:
        commit = stage.hub.put_repo("model", "acme/known", {"a.txt": b"a"})
        assert stage.endpoint.head("/acme/known/resolve/main/a.txt").status == 307
        with stage.hub.down():
            target = "/acme/known/resolve/main/a.txt"
            wait_until(lambda: stage.endpoint.head(target).status == 503, "the answer is too old")
            assert stage.endpoint.head(target).code is None
            assert stage.endpoint.head(f"/acme/known/resolve/{commit}/a.txt").status == 200
        stage.machine.stop()


def test_a_silent_hub_costs_a_known_name_only_seconds(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "silent", HFPEER_ENDPOINT_REF_TTL="0.2") as stage:
        commit = stage.hub.put_repo("model", "acme/known", {"a.txt": b"a"})
        assert stage.endpoint.head("/acme/known/resolve/main/a.txt").status == 307
        fault = stage.hub.inject(faults.delay())
        try:
            said = stage.endpoint.head("/acme/known/resolve/main/a.txt")
            assert said.headers["x-repo-commit"] == commit
        finally:
            fault.fault.pause.release()  # type: ignore[attr-defined]
        stage.machine.stop()


def test_a_branch_that_moves_is_followed_after_a_while(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "moving", HFPEER_ENDPOINT_REF_TTL="0.5") as stage:
        first = stage.hub.put_repo("model", "acme/moving", {"a.txt": b"a"})
        assert stage.endpoint.head("/acme/moving/resolve/main/a.txt").headers["x-repo-commit"] == first
        second = stage.hub.put_repo("model", "acme/moving", {"a.txt": b"b"})

        def now() -> bool:
            return stage.endpoint.head("/acme/moving/resolve/main/a.txt").headers["x-repo-commit"] == second

        wait_until(now, "the new commit is seen", 10)
        stage.machine.stop()


# Hostile requests

CANARY = b"nobody may read this"


@pytest.fixture(scope="module")
def target(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("fuzz"), machines, "target") as stage:
        stage.hub.put_repo("model", "acme/zoo", {"a.txt": b"a", "dir/b.bin": Lfs(noise(300_000))})
        for place in (stage.machine.home, stage.machine.cache, stage.machine.cache / "models--acme--zoo"):
            place.mkdir(parents=True, exist_ok=True)
            (place / "canary").write_bytes(CANARY)
        yield stage


def raw(endpoint: Endpoint, request: bytes) -> tuple[int, bytes]:
    """The status of an answer to these very bytes, 0 for none; and all of it."""
    host = urlsplit(endpoint.url)
    with socket.create_connection((host.hostname or "", host.port or 80), 20) as connection:
        connection.sendall(request)
        answer = bytearray()
        try:
            while chunk := connection.recv(1 << 16):
                answer += chunk
        except ConnectionResetError:
            pass
    head = bytes(answer).split(b"\r\n", 1)[0].split(b" ")
    return (int(head[1]) if len(head) > 1 and head[1].isdigit() else 0), bytes(answer)


PARTS = [
    *[
        "..",
        ".",
        "%2e%2e",
        "%2E%2E%2F",
        "..%2f..%2f",
        "%252e%252e",
        "%00",
        "a%00b",
        "%ff%fe",
        "%c0%af",
        "\\",
        "%5c..%5c",
    ],
    *["canary", "models--acme--zoo", "blobs", "refs", "main", "resolve", "raw", "tree", "api", "models", "acme", "zoo"],
    *["a.txt", "dir", "b.bin", "C:x", "~", "%0d%0aX: y", "é".encode().decode("latin-1"), "%F0%9F%A4%97", "%ED%A0%80"],
    *[
        "x" * 300,
        "revision",
        "paths-info",
        "commits",
        "refs%2Fpr%2F1",
        "info",
        "git-upload-pack",
        "",
        "//",
        "?",
        "#",
        "%",
    ],
    *["objects", "lfs", "batch", "auth-check", "datasets", "spaces", "0" * 40, "-", "--", ".git", "*", "resolve-cache"],
]
HEADERS = [
    *["Range: bytes=0-", "Range: bytes=-0", "Range: bytes=99999999999999999999-", "Range: bytes=1-2,4-5", "Range: x"],
    *['If-Range: "x"', "If-None-Match: *", 'If-None-Match: "\xff"', "Content-Length: 0", "Authorization: Basic !!!"],
    *["Authorization: Bearer ", "Content-Type: application/json", "Accept-Encoding: gzip", "Expect: 100-continue"],
    *["User-Agent: hf_hub/99999.9; x", "Cookie: a=b", "Range: bytes=5-2", "X-Forwarded-For: 10.0.0.1"],
]
BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"paths": 7}',
    b'{"objects":[{"oid":{},"size":"x"}]}',
    b"paths=%00&paths=..",
    b"\xff" * 40,
    b"[" * 5000,
]
QUERIES = [
    "",
    "?",
    "?recursive=maybe&limit=-1",
    "?cursor=%00",
    "?cursor=bnVsbA==",
    "?limit=" + "9" * 400,
    "?expand=%ff",
    "?p=x",
]


@pytest.mark.slow
def test_no_request_breaks_the_endpoint_or_reads_beside_the_cache(target: Stage) -> None:
    dice = random.Random(20240)
    host = urlsplit(target.endpoint.url).netloc
    for number in range(1500):
        start = dice.choice(
            ["", "/acme/zoo/resolve/main", "/api/models/acme/zoo/tree/main", "/acme/zoo/raw/main", "/api"]
        )
        path = start + "/" + "/".join(dice.choices(PARTS, k=dice.randint(1, 5))) + dice.choice(QUERIES)
        method = dice.choice(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
        body = dice.choice(BODIES) if method in ("POST", "PUT") else b""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host}",
            "Connection: close",
            *dice.sample(HEADERS, dice.randint(0, 2)),
        ]
        if body:
            lines = [line for line in lines if not line.startswith("Content-Length")] + [f"Content-Length: {len(body)}"]
        request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        status, answer = raw(target.endpoint, request)
        assert status != 500, (number, request, answer[:300])
        assert CANARY not in answer, (number, request)
    assert target.endpoint.head("/acme/zoo/resolve/main/a.txt").status == 307
    assert "Traceback" not in target.machine.log
    assert not [path for path in target.machine.home.parent.rglob("*") if path.name in ("passwd", "etc")]


@pytest.mark.parametrize(
    "path",
    [
        "/acme/zoo/resolve/main/../../../canary",
        "/acme/zoo/resolve/main/%2e%2e%2f%2e%2e%2fcanary",
        "/acme/zoo/resolve/main/..%2f..%2fcanary",
        "/acme/zoo/resolve/..%2f..%2fcanary/x",
        "/..%2f..%2fetc/passwd/resolve/main/x",
    ],
)
def test_a_path_never_leaves_its_repo(target: Stage, path: str) -> None:
    said = target.endpoint.get(path)
    assert 400 <= said.status < 500 and CANARY not in said.body


def test_a_web_page_gets_in_under_no_name_of_its_own(target: Stage) -> None:
    assert target.endpoint.get("/acme/zoo/resolve/main/a.txt", Host="evil.example").status == 403
