"""The hub simulator is driven by the real clients and by hand, to show that what is built on it is built on rock."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from fakes.hub import (
    ZOO_FILES,
    Behaviour,
    Fault,
    HubSimulator,
    Lfs,
    SparseFile,
    Storage,
    faults,
    pointer_text,
    put_many,
    put_zoo,
)

BIG_BYTES = 24_000_000
WEIGHTS = "/acme/zoo/resolve/main/model.safetensors"
PLAIN = "/acme/zoo/resolve/main/config.json"


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    storage = Storage()
    put_zoo(storage)
    put_many(storage)
    put_zoo(storage, "dataset", "acme/zoo")
    put_zoo(storage, "model", "acme/private", visibility="private")
    put_zoo(storage, "model", "acme/gated", visibility="gated")
    put_zoo(storage, "model", "acme/disabled", visibility="disabled")
    storage.put_repo("model", "legacy", {"config.json": b"{}"})
    storage.put_repo("model", "acme/big", {"big.bin": SparseFile(BIG_BYTES)})
    storage.put_repo("model", "acme/before", {"config.json": b"{}"})
    storage.rename_repo("model", "acme/before", "acme/after")
    yield storage
    storage.close()


@pytest.fixture
def hub(storage: Storage) -> Iterator[HubSimulator]:
    with HubSimulator(storage=storage) as hub:
        yield hub


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: Any) -> Reply:
    """One request, redirects not followed, the body as it came (IncompleteRead when cut)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def follow(url: str, method: str = "GET", **headers: Any) -> Reply:
    """As `ask`, through redirects."""
    for _ in range(5):
        reply = ask(url, method, **headers)
        if reply.status not in (302, 307):
            return reply
        parts = urlsplit(url)
        location = reply.headers["Location"]
        url = location if "://" in location else f"{parts.scheme}://{parts.netloc}{location}"
    raise AssertionError(f"too many redirects: {url}")


def client_environment(hub: HubSimulator, home: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GIT_"))}
    ours = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    return kept | ours | changes


def run(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def run_client(hub: HubSimulator, home: Path, code: str, **changes: str) -> Any:
    """Run code with `from huggingface_hub import *` in a process of its own; what it printed last, as JSON."""
    script = f"import json\nfrom huggingface_hub import *\n{code}"
    output = run([sys.executable, "-c", script], client_environment(hub, home, **changes))
    return json.loads(output.splitlines()[-1])


def hf(hub: HubSimulator, home: Path, *arguments: str, **changes: str) -> str:
    return run([str(Path(sys.executable).with_name("hf")), *arguments], client_environment(hub, home, **changes))


def zoo_content(path: str) -> bytes:
    content = ZOO_FILES[path]
    return content if isinstance(content, bytes) else content.data  # type: ignore[union-attr]


def assert_is_the_zoo(folder: Path) -> None:
    for path in ZOO_FILES:
        if path == "link.txt":
            assert (folder / path).read_bytes() == b"README.md"
        elif path != "vendored/lib":
            assert (folder / path).read_bytes() == zoo_content(path), path


# --- real clients -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hub", "pinned", "direct"])
def test_hf_download_gets_every_file_of_the_zoo_and_cache_verify_agrees(
    hub: HubSimulator, tmp_path: Path, mode: str
) -> None:
    hub.behaviour.resolve_mode = mode
    commit = hub.repo("model", "acme/zoo").refs()["refs/heads/main"]
    hf(hub, tmp_path, "download", "acme/zoo")
    snapshot = tmp_path / "hub/models--acme--zoo/snapshots" / commit
    assert_is_the_zoo(snapshot)
    assert "12" in hf(hub, tmp_path, "cache", "verify", "acme/zoo")
    assert bool(hub.requests_for(listener="cdn")) == (mode == "hub")
    assert not hub.requests_with_token()


def test_cache_verify_finds_bytes_that_were_corrupted_on_the_way(hub: HubSimulator, tmp_path: Path) -> None:
    hub.inject(faults.corrupted(at=1_000_000), listener="cdn")
    hf(hub, tmp_path, "download", "acme/zoo", "model.safetensors")
    with pytest.raises(AssertionError, match="Checksum verification failed"):
        hf(hub, tmp_path, "cache", "verify", "acme/zoo")


def test_the_api_says_the_same_of_files_refs_and_history(hub: HubSimulator, tmp_path: Path) -> None:
    said = run_client(
        hub,
        tmp_path,
        """
api = HfApi()
info = api.model_info("acme/zoo", files_metadata=True)
tree = list(api.list_repo_tree("acme/zoo", recursive=True, expand=True))
refs = api.list_repo_refs("acme/zoo", include_pull_requests=True)
paths = api.get_paths_info("acme/zoo", ["model.safetensors", "nested", "no such"])
print(json.dumps({
    "sha": info.sha,
    "siblings": {s.rfilename: [s.size, s.blob_id, s.lfs and s.lfs.sha256] for s in info.siblings},
    "tree": {f.path: [f.size, f.blob_id, f.lfs and f.lfs.sha256] for f in tree if hasattr(f, "blob_id")},
    "folders": [f.path for f in tree if not hasattr(f, "blob_id")],
    "refs": [r.ref for r in refs.branches + refs.tags + refs.converts + refs.pull_requests],
    "paths": [p.path for p in paths],
    "titles": [c.title for c in api.list_repo_commits("acme/zoo")],
    "models": [m.id for m in api.list_models(search="ZOO")],
    "many": len(list(api.list_repo_tree("acme/many", recursive=True))),
    "dataset": api.dataset_info("acme/zoo", expand=["lastModified"]).sha,
}))""",
    )
    repo = hub.repo("model", "acme/zoo")
    assert said["sha"] == repo.refs()["refs/heads/main"]
    assert said["siblings"] == said["tree"]
    model = zoo_content("model.safetensors")
    pointer = pointer_text(hashlib.sha256(model).hexdigest(), len(model))
    pointer_oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    assert said["tree"]["model.safetensors"] == [len(model), pointer_oid, hashlib.sha256(model).hexdigest()]
    assert "nested/deep/er" in said["folders"]
    assert set(said["refs"]) == set(repo.refs())
    assert said["paths"] == ["model.safetensors", "nested"]
    assert said["titles"] == ["Open the zoo", "Initial commit"]
    assert said["models"] == ["acme/zoo"]
    assert said["many"] == 1110
    assert len(hub.requests_for("/api/models/acme/many/tree/*")) == 2
    assert said["dataset"] is None


def test_every_kind_of_revision_leads_to_its_commit(hub: HubSimulator, tmp_path: Path) -> None:
    repo = hub.repo("model", "acme/zoo")
    main = repo.refs()["refs/heads/main"]
    revisions = {
        "main": main,
        "v1.0": repo.refs()["refs/tags/v1.0"],
        "dev/exp": repo.refs()["refs/heads/dev/exp"],
        "refs/pr/1": repo.refs()["refs/pr/1"],
        "refs/convert/parquet": repo.refs()["refs/convert/parquet"],
        main[:9]: main,
        main: main,
    }
    said = run_client(
        hub,
        tmp_path,
        f"""
print(json.dumps({{name: [HfApi().model_info("acme/zoo", revision=name).sha,
    get_hf_file_metadata(hf_hub_url("acme/zoo", "data.parquet" if "convert" in name else "README.md",
                                    revision=name)).commit_hash] for name in {list(revisions)!r}}}))""",
    )
    assert said == {name: [commit, commit] for name, commit in revisions.items()}


ERRORS = """
def name(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
    return "ok"
"""


def test_each_refusal_becomes_the_client_error_it_becomes_on_the_real_hub(hub: HubSimulator, tmp_path: Path) -> None:
    hub.behaviour.repo_not_found_on_401 = True
    said = run_client(
        hub,
        tmp_path,
        ERRORS
        + f"""
valid, foreign, bad = {hub.valid_token!r}, {hub.foreign_token!r}, {hub.bad_token!r}
file = lambda repo, token: name(hf_hub_download, repo, "config.json", token=token)
print(json.dumps({{
    "private": [file("acme/private", t) for t in (False, foreign, bad, valid)],
    "gated": [file("acme/gated", t) for t in (False, foreign, valid)],
    "gated info": name(model_info, "acme/gated", token=False),
    "auth check": [name(auth_check, "acme/gated", token=t) for t in (False, valid)],
    "missing": [file("acme/missing", t) for t in (False, valid)],
    "disabled": name(model_info, "acme/disabled"),
    "entry": name(hf_hub_download, "acme/zoo", "none.json"),
    "revision": name(hf_hub_download, "acme/zoo", "config.json", revision="none"),
    "renamed": [file(id, False) for id in ("acme/before", "acme/after", "ACME/After")],
    "legacy": file("legacy", False),
    "whoami": [name(whoami, token=t) for t in (valid, foreign, bad)],
}}))""",
    )
    assert said == {
        "private": ["RepositoryNotFoundError", "RepositoryNotFoundError", "HfHubHTTPError", "ok"],
        "gated": ["GatedRepoError", "GatedRepoError", "ok"],
        "gated info": "ok",
        "auth check": ["GatedRepoError", "ok"],
        "missing": ["RepositoryNotFoundError", "RepositoryNotFoundError"],
        "disabled": "DisabledRepoError",
        "entry": "RemoteEntryNotFoundError",
        "revision": "RevisionNotFoundError",
        "renamed": ["ok", "ok", "ok"],
        "legacy": "ok",
        "whoami": ["ok", "ok", "HfHubHTTPError"],
    }


def test_the_client_keeps_its_token_from_the_cdn_and_the_log_can_tell(hub: HubSimulator, tmp_path: Path) -> None:
    hf(hub, tmp_path, "download", "acme/private", "model.safetensors", HF_TOKEN=hub.valid_token)
    with_token = hub.requests_with_token(hub.valid_token)
    assert {record.listener for record in with_token} == {"hub"}
    assert with_token == hub.requests_with_token()
    assert hub.requests_for(listener="cdn")


@pytest.mark.slow
def test_a_cut_body_is_resumed_by_the_client_from_its_last_full_buffer(hub: HubSimulator, tmp_path: Path) -> None:
    cut = hub.inject(faults.cut_body_after(15_000_000), listener="cdn", method="GET", times=1)
    hf(hub, tmp_path, "download", "acme/big")
    first, second = hub.requests_for(listener="cdn", method="GET")
    assert (first.body_bytes_sent, first.was_cut, cut.hits) == (15_000_000, True, 1)
    assert second.request.headers["range"] == f"bytes={10 * 1024 * 1024}-"
    assert "1" in hf(hub, tmp_path, "cache", "verify", "acme/big")


def test_the_client_waits_out_429_and_gives_up_on_503(hub: HubSimulator, tmp_path: Path) -> None:
    hub.inject(faults.too_many_requests(reset_seconds=0), method="GET", path="/api/resolve-cache/*", times=1)
    hub.inject(faults.status(503), method="GET", path="*README.md")
    said = run_client(
        hub,
        tmp_path,
        ERRORS
        + """
print(json.dumps([name(hf_hub_download, "acme/zoo", file) for file in ("config.json", "README.md")]))""",
    )
    assert said == ["ok", "HfHubHTTPError"]
    statuses = [record.status for record in hub.requests_for("/api/resolve-cache/*config.json", "GET")]
    assert statuses == [429, 200]


def test_git_clones_it_with_modes_links_and_submodules(hub: HubSimulator, tmp_path: Path) -> None:
    environment = client_environment(hub, tmp_path)
    run(["git", "clone", "--quiet", f"{hub.endpoint}/acme/zoo", "clone"], environment, tmp_path)
    clone = tmp_path / "clone"
    assert (
        run(["git", "rev-parse", "HEAD"], environment, clone).strip()
        == ask(f"{hub.endpoint}/api/models/acme/zoo").json["sha"]
    )
    listed = run(["git", "ls-files", "-s"], environment, clone)
    assert "100755" in listed and "120000" in listed and "160000" in listed
    assert (clone / "model.safetensors").read_bytes().startswith(b"version https://git-lfs")
    assert (clone / "link.txt").is_symlink() and os.access(clone / "run.sh", os.X_OK)


def test_git_fetches_a_single_commit_without_trees_unless_filters_are_off(hub: HubSimulator, tmp_path: Path) -> None:
    environment = client_environment(hub, tmp_path)
    proposal = hub.repo("model", "acme/zoo").refs()["refs/pr/1"]
    run(["git", "init", "--quiet", "one"], environment, tmp_path)
    fetch = ["git", "fetch", "--quiet", "--depth=1", "--filter=tree:0", f"{hub.endpoint}/acme/zoo.git", proposal]
    run(fetch, environment, tmp_path / "one")
    counted = run(["git", "count-objects", "-v"], environment, tmp_path / "one")
    assert "count: 1\n" in counted or "in-pack: 1\n" in counted
    assert "fetch=shallow wait-for-done filter" in _capabilities(hub)
    hub.behaviour.git_allows_filter = False
    assert "filter" not in _capabilities(hub)
    hub.behaviour.has_git = False
    assert ask(f"{hub.endpoint}/acme/zoo/info/refs?service=git-upload-pack").status == 404


def _capabilities(hub: HubSimulator) -> str:
    url = f"{hub.endpoint}/acme/zoo.git/info/refs?service=git-upload-pack"
    return ask(url, Git_Protocol="version=2").body.decode()


def test_git_needs_a_token_for_private_repos_as_password(hub: HubSimulator, tmp_path: Path) -> None:
    environment = client_environment(hub, tmp_path)
    with pytest.raises(AssertionError, match="could not read Username"):
        run(["git", "ls-remote", f"{hub.endpoint}/acme/private"], environment)
    address = hub.endpoint.replace("http://", f"http://user:{hub.valid_token}@")
    assert "refs/heads/main" in run(["git", "ls-remote", f"{address}/acme/private"], environment)


def test_lfs_batch_gives_addresses_that_serve_the_object(hub: HubSimulator) -> None:
    model = zoo_content("model.safetensors")
    wanted = [{"oid": hashlib.sha256(model).hexdigest(), "size": len(model)}, {"oid": "0" * 64, "size": 1}]
    asked = json.dumps({"operation": "download", "objects": wanted}).encode()
    reply = ask(f"{hub.endpoint}/acme/zoo.git/info/lfs/objects/batch", "POST", asked)
    found, missing = reply.json["objects"]
    assert ask(found["actions"]["download"]["href"]).body == model
    assert missing["error"]["code"] == 404


# --- Xet --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_xet_on_the_client_goes_to_the_cas_and_without_nobody_does(hub: HubSimulator, tmp_path: Path) -> None:
    hub.behaviour.xet_headers = hub.behaviour.xet_trees = True
    hf(hub, tmp_path / "plain", "download", "acme/zoo")
    assert not hub.requests_for(listener="cas")
    assert not hub.requests_for("*xet-read-token*")
    hub.behaviour.has_cas = True
    commit = hub.repo("model", "acme/zoo").refs()["refs/heads/main"]
    hf(hub, tmp_path / "xet", "download", "acme/zoo", HF_HUB_DISABLE_XET="0")
    assert hub.requests_for("*reconstruction*", listener="cas")
    assert_is_the_zoo(tmp_path / "xet/hub/models--acme--zoo/snapshots" / commit)
    hf(hub, tmp_path / "xet", "download", "acme/big", HF_HUB_DISABLE_XET="0")
    assert "1" in hf(hub, tmp_path / "xet", "cache", "verify", "acme/big")


def test_xet_shows_in_headers_and_listings_separately_and_can_be_redacted(hub: HubSimulator) -> None:
    listing = f"{hub.endpoint}/api/models/acme/zoo/tree/main"
    hub.behaviour.xet_headers = True
    assert 'rel="xet-auth"' in ask(hub.endpoint + WEIGHTS, "HEAD").headers["Link"]
    assert b"xetHash" not in ask(listing).body
    hub.behaviour.xet_headers, hub.behaviour.xet_trees = False, True
    assert "X-Xet-Hash" not in ask(hub.endpoint + WEIGHTS, "HEAD").headers
    assert b"xetHash" in ask(listing).body
    hub.behaviour.xet_hashes_redacted = True
    assert b"*" * 64 in ask(listing).body


# --- the wire, by hand ------------------------------------------------------------------------------------------


def test_an_lfs_file_is_a_302_to_a_signed_address_whose_etag_is_not_the_digest(hub: HubSimulator) -> None:
    model = zoo_content("model.safetensors")
    head = ask(hub.endpoint + WEIGHTS, "HEAD")
    digest = f'"{hashlib.sha256(model).hexdigest()}"'
    assert (head.status, head.headers["X-Linked-ETag"], head.headers["X-Linked-Size"]) == (302, digest, str(len(model)))
    assert head.headers["Content-Length"] != head.headers["X-Linked-Size"]
    assert len(head.headers["X-Repo-Commit"]) == 40
    assert head.headers["Location"].startswith(hub.cdn_endpoint)
    served = ask(head.headers["Location"])
    assert (served.status, served.body) == (200, model)
    assert served.headers["ETag"] != digest
    assert served.headers["Accept-Ranges"] == head.headers["Accept-Ranges"] == "bytes"


def test_a_signed_address_expires_and_cannot_be_forged(hub: HubSimulator) -> None:
    good = ask(hub.endpoint + WEIGHTS, "HEAD").headers["Location"]
    assert ask(good.replace("Expires=", "Expires=9")).status == 403
    hub.behaviour.signed_url_seconds = -1
    assert ask(ask(hub.endpoint + WEIGHTS, "HEAD").headers["Location"]).status == 403
    assert ask(good).status == 200


def test_a_plain_file_is_a_relative_307_to_the_resolve_cache(hub: HubSimulator) -> None:
    head = ask(hub.endpoint + PLAIN, "HEAD")
    assert head.status == 307 and head.headers["Location"].startswith("/api/resolve-cache/models/acme/zoo/")
    served = ask(hub.endpoint + head.headers["Location"])
    body = zoo_content("config.json")
    oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    assert (served.status, served.headers["ETag"], served.body) == (200, f'"{oid}"', body)
    assert served.headers["X-Repo-Commit"] == head.headers["X-Repo-Commit"]


def test_pinned_mode_redirects_a_mutable_revision_to_its_commit(hub: HubSimulator) -> None:
    hub.behaviour.resolve_mode = "pinned"
    head = ask(hub.endpoint + WEIGHTS, "HEAD")
    assert head.headers["Location"] == WEIGHTS.replace("main", head.headers["X-Repo-Commit"])
    assert ask(hub.endpoint + head.headers["Location"], "HEAD").headers["Content-Length"] == "3000000"


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "span"),
    [
        ("bytes=0-0", 206, "bytes 0-0/3000000", (0, 1)),
        ("bytes=2999990-", 206, "bytes 2999990-2999999/3000000", (2999990, 3000000)),
        ("bytes=-5", 206, "bytes 2999995-2999999/3000000", (2999995, 3000000)),
        ("bytes=100-99999999", 206, "bytes 100-2999999/3000000", (100, 3000000)),
        ("bytes=3000000-", 416, "bytes */3000000", (0, 0)),
        ("bytes=0-1,5-6", 200, None, (0, 3000000)),
    ],
)
def test_ranges(hub: HubSimulator, asked: str, status: int, content_range: str | None, span: tuple[int, int]) -> None:
    reply = follow(hub.endpoint + WEIGHTS, Range=asked)
    assert (reply.status, reply.headers["Content-Range"]) == (status, content_range)
    assert reply.body == zoo_content("model.safetensors")[slice(*span)]


def test_if_range_gives_the_whole_file_when_it_is_another(hub: HubSimulator) -> None:
    hub.behaviour.resolve_mode = "direct"
    etag = ask(hub.endpoint + PLAIN, "HEAD").headers["ETag"]
    assert ask(hub.endpoint + PLAIN, Range="bytes=1-2", If_Range=etag).status == 206
    assert ask(hub.endpoint + PLAIN, Range="bytes=1-2", If_Range='"other"').status == 200


def test_refusals_carry_the_hubs_own_codes(hub: HubSimulator) -> None:
    def refused(path: str, token: str | None = None) -> tuple[int, str | None, str]:
        headers: dict[str, Any] = {"Authorization": f"Bearer {token}"} if token else {}
        reply = ask(hub.endpoint + path, **headers)
        return reply.status, reply.headers["X-Error-Code"], reply.headers["X-Error-Message"]

    file = "resolve/main/config.json"
    nobody = (401, None, "Invalid username or password.")
    assert refused(f"/acme/missing/{file}") == nobody
    assert refused(f"/acme/private/{file}") == nobody
    assert refused("/api/models/acme/private") == nobody
    assert refused(f"/acme/private/{file}", hub.foreign_token) == (404, "RepoNotFound", "Repository not found")
    assert refused(f"/acme/zoo/{file}", hub.bad_token)[::2] == (401, "Invalid credentials in Authorization header")
    assert refused(f"/acme/gated/{file}")[:2] == (401, "GatedRepo")
    assert refused(f"/acme/gated/{file}", hub.foreign_token)[:2] == (403, "GatedRepo")
    assert refused(f"/acme/disabled/{file}") == (403, None, "Access to this resource is disabled.")
    assert refused("/acme/zoo/resolve/main/none") == (404, "EntryNotFound", "Entry not found")
    assert refused("/acme/zoo/resolve/none/config.json") == (404, "RevisionNotFound", "Invalid rev id: none")
    assert refused("/api/models/acme/zoo/tree/main/config.json")[:2] == (404, "EntryNotFound")


def test_a_missing_entry_names_the_commit_it_is_missing_from(hub: HubSimulator) -> None:
    reply = ask(f"{hub.endpoint}/acme/zoo/resolve/main/none", "HEAD")
    assert len(reply.headers["X-Repo-Commit"]) == 40


def test_an_old_name_is_a_relative_307_that_keeps_the_query(hub: HubSimulator) -> None:
    reply = ask(f"{hub.endpoint}//api/models/acme/before/tree/main?recursive=True")
    assert (reply.status, reply.headers["Location"]) == (307, "/api/models/acme/after/tree/main?recursive=True")


def test_raw_is_the_pointer_and_odd_names_are_found(hub: HubSimulator) -> None:
    assert ask(f"{hub.endpoint}/acme/zoo/raw/main/model.safetensors").body.startswith(b"version https://git-lfs")
    odd = follow(f"{hub.endpoint}/acme/zoo/resolve/main/odd%20names/100%25%20%231.txt")
    assert odd.body == zoo_content("odd names/100% #1.txt")
    listed = ask(f"{hub.endpoint}/api/models/acme/zoo/tree/main/nested%2Fdeep?recursive=true").json
    assert [entry["path"] for entry in listed] == ["nested/deep/er", "nested/deep/er/file.txt"]


def test_pages_are_linked_absolutely_and_can_be_switched_off(hub: HubSimulator) -> None:
    url = f"{hub.endpoint}/api/models/acme/many/tree/main?recursive=true"
    first = ask(url)
    link = first.headers["Link"].split(">")[0].strip("<")
    assert link.startswith(hub.endpoint)
    assert len(first.json + ask(link).json) == 1110
    hub.behaviour.tree_page_entries = None
    assert len(ask(url).json) == 1110


def test_every_hub_answer_carries_the_rate_limit(hub: HubSimulator) -> None:
    assert ask(f"{hub.endpoint}/api/models/acme/zoo").headers["RateLimit"].startswith('"api";r=')
    assert ask(hub.endpoint + PLAIN).headers["RateLimit"].startswith('"resolvers";r=')


def test_a_claimed_size_above_fifty_gigabytes_takes_no_disk(hub: HubSimulator, tmp_path: Path) -> None:
    size = 60_000_000_000
    hub.put_repo("model", "acme/huge", {"huge.bin": SparseFile(size, "ab" * 32)})
    assert ask(f"{hub.endpoint}/acme/huge/resolve/main/huge.bin", "HEAD").headers["X-Linked-Size"] == str(size)
    assert follow(f"{hub.endpoint}/acme/huge/resolve/main/huge.bin", Range="bytes=-3").body == b"\0\0\0"
    assert hub.storage.objects.lfs_path("ab" * 32).stat().st_blocks == 0
    said = run_client(hub, tmp_path, ERRORS + 'print(json.dumps(name(hf_hub_download, "acme/huge", "huge.bin")))')
    assert said == "ValueError"


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.status(503), {"status": 503}),
        (faults.expired_signature(), {"status": 403}),
        (faults.range_not_satisfiable(), {"status": 416, "range": "bytes */3000000"}),
        (faults.ignored_range(), {"status": 200, "length": 3_000_000, "range": None}),
        (faults.shifted_content_range(7), {"status": 206, "range": "bytes 17-26/3000000"}),
        (faults.shortened(4), {"status": 206, "length": 6}),
        (faults.lengthened(4), {"status": 206, "length": 14}),
        (faults.without_header("ETag"), {"status": 206, "etag": None}),
        (faults.with_header("ETag", '"other"'), {"status": 206, "etag": '"other"'}),
        (faults.gzipped(), {"status": 206, "encoding": "gzip"}),
        (faults.too_many_requests(reset_seconds=3), {"status": 429, "rate": '"resolvers";r=0;t=3'}),
        (faults.too_many_requests(retry_after="9"), {"status": 429, "retry": "9"}),
    ],
)
def test_a_fault_strikes_as_often_as_asked_and_then_no_more(
    hub: HubSimulator, fault: Fault, expected: dict[str, object]
) -> None:
    url = ask(hub.endpoint + WEIGHTS, "HEAD").headers["Location"]
    hub.inject(fault, method="GET", path="/repos/*", listener="cdn", times=1)
    reply = ask(url, Range="bytes=10-19")
    names = {
        "range": "Content-Range",
        "etag": "ETag",
        "encoding": "Content-Encoding",
        "rate": "RateLimit",
        "retry": "Retry-After",
    }
    seen: dict[str, object] = {key: reply.headers[name] for key, name in names.items()}
    seen |= {"status": reply.status, "length": len(reply.body)}
    assert expected.items() <= seen.items()
    again = ask(url, Range="bytes=10-19")
    assert (again.status, again.body) == (206, zoo_content("model.safetensors")[10:20])


def test_corruption_keeps_the_length_and_sits_at_a_place_in_the_file(hub: HubSimulator) -> None:
    model = zoo_content("model.safetensors")
    hub.inject(faults.corrupted(at=2_000_000, count=2), listener="cdn")
    whole = follow(hub.endpoint + WEIGHTS).body
    assert [at for at in range(len(model)) if whole[at] != model[at]] == [2_000_000, 2_000_001]
    assert follow(hub.endpoint + WEIGHTS, Range="bytes=0-999999").body == model[:1_000_000]
    part = follow(hub.endpoint + WEIGHTS, Range="bytes=2000001-2000010").body
    assert part[0] != model[2_000_001] and part[1:] == model[2_000_002:2_000_011]


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_ends_the_body_after_exactly_so_many_bytes(hub: HubSimulator, reset: bool) -> None:
    url = ask(hub.endpoint + WEIGHTS, "HEAD").headers["Location"]
    hub.clear()
    hub.inject(faults.cut_body_after(1_234_567, reset), listener="cdn", times=1)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(url)
    assert hub.body_bytes_sent(listener="cdn") == 1_234_567
    assert len(ask(url).body) == 3_000_000
    assert hub.body_bytes_sent(listener="cdn") == 4_234_567


def test_what_a_client_needs_can_be_left_out_of_the_metadata(hub: HubSimulator, tmp_path: Path) -> None:
    hub.inject(faults.without_header("X-Repo-Commit"), path="*config.json")
    hub.inject(faults.without_header("ETag", "X-Linked-ETag"), path="*README.md")
    hub.inject(faults.with_header("Content-Length", "25"), path="*model.safetensors", method="HEAD")
    said = run_client(
        hub,
        tmp_path,
        ERRORS
        + """
files = ("config.json", "README.md", "model.safetensors")
print(json.dumps([name(hf_hub_download, "acme/zoo", file) for file in files]))""",
    )
    assert said == ["LocalEntryNotFoundError", "LocalEntryNotFoundError", "ok"]
    assert ask(hub.endpoint + WEIGHTS, "HEAD").headers["Content-Length"] == "25"


@pytest.mark.parametrize(
    "target", ["/%00/../..", "/acme/zoo/resolve/main/..%2F..", "/api/models/acme/zoo/tree/main?limit=x"]
)
def test_nonsense_is_refused_without_breaking_the_hub(hub: HubSimulator, target: str) -> None:
    assert 400 <= ask(hub.endpoint + target).status < 500
    assert ask(f"{hub.endpoint}{target}", Range="bytes=" + "9" * 5000 + "-").status < 500


def test_faults_and_the_log_know_a_path_encoded_and_decoded(hub: HubSimulator) -> None:
    hub.inject(faults.status(503), path="*/odd names/100% #1.txt")
    path = "/acme/zoo/resolve/main/odd%20names/100%25%20%231.txt"
    assert ask(hub.endpoint + path).status == 503
    assert hub.requests_for("*odd names*") == hub.requests_for("*odd%20names*") == hub.requests


def test_a_client_that_leaves_in_the_middle_is_seen_to(hub: HubSimulator) -> None:
    url = ask(f"{hub.endpoint}/acme/big/resolve/main/big.bin", "HEAD").headers["Location"]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", url.removeprefix(hub.cdn_endpoint))
    connection.getresponse().read(1000)
    connection.close()
    hub.wait_until_quiet()
    (left,) = hub.requests_for(listener="cdn")
    assert left.was_cut and 1000 <= left.body_bytes_sent < BIG_BYTES


def test_no_answer_at_all(hub: HubSimulator) -> None:
    hub.inject(faults.cut_before_headers(), times=1)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub.endpoint + PLAIN)


def test_a_stall_in_the_middle_of_a_body_lasts_until_it_is_released(hub: HubSimulator) -> None:
    stall = hub.inject(faults.stall_after(1_000_000), listener="cdn", times=1)
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(follow, hub.endpoint + WEIGHTS)
        stall.wait_hit()
        hub.wait_for_body_bytes(1_000_000, "/repos/*")
        assert not download.done() and hub.body_bytes_sent("/repos/*") == 1_000_000
        stall.release()
        assert download.result(20.0).body == zoo_content("model.safetensors")


def test_a_delay_holds_the_headers_back(hub: HubSimulator) -> None:
    with hub.inject(faults.delay(0.2), method="HEAD", times=1):
        start = time.monotonic()
        ask(hub.endpoint + PLAIN, "HEAD")
        assert time.monotonic() - start >= 0.2


def test_stopping_lets_go_of_a_client_in_a_stall(storage: Storage) -> None:
    with HubSimulator(storage=storage) as hub, ThreadPoolExecutor(1) as pool:
        hub.inject(faults.delay())
        waiting = pool.submit(ask, hub.endpoint + PLAIN)
        hub.wait_for_request("*config.json")
        hub.stop()
        assert isinstance(waiting.exception(20.0), OSError | http.client.HTTPException | None)


def test_a_throttle_holds_its_rate_for_one_or_for_all(hub: HubSimulator) -> None:
    url = ask(hub.endpoint + WEIGHTS, "HEAD").headers["Location"]
    hub.inject(faults.throttle(10_000_000, is_shared=True), listener="cdn")
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        assert [len(reply.body) for reply in pool.map(ask, [url, url])] == [3_000_000] * 2
    assert time.monotonic() - start > 0.5


def test_a_branch_can_move_between_head_and_get(hub: HubSimulator) -> None:
    hub.put_repo("model", "acme/moving", {"a.bin": Lfs(b"old")})
    repo = hub.repo("model", "acme/moving")
    hub.inject(faults.afterwards(lambda: repo.commit({"a.bin": Lfs(b"new!")})), method="HEAD", times=1)
    url = f"{hub.endpoint}/acme/moving/resolve/main/a.bin"
    head = ask(url, "HEAD")
    assert (head.headers["X-Linked-Size"], follow(url).body) == ("3", b"new!")
    assert head.headers["X-Repo-Commit"] != ask(url, "HEAD").headers["X-Repo-Commit"]


def test_a_truncated_listing_looks_complete(hub: HubSimulator) -> None:
    hub.inject(faults.truncated_listing(3), path="/api/models/*/tree/*")
    reply = ask(f"{hub.endpoint}/api/models/acme/many/tree/main?recursive=true")
    assert len(reply.json) == 3 and reply.headers["Link"] is None


def test_a_hub_that_is_down_refuses_connections_and_comes_back_on_its_port(hub: HubSimulator) -> None:
    endpoint = hub.endpoint
    with hub.down(), pytest.raises(ConnectionRefusedError):
        ask(endpoint + PLAIN)
    assert hub.endpoint == endpoint and ask(endpoint + PLAIN).status == 307


def test_going_down_cuts_a_download_in_the_middle(hub: HubSimulator) -> None:
    hub.inject(faults.stall_after(500_000), listener="cdn")
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(follow, hub.endpoint + WEIGHTS)
        hub.wait_for_body_bytes(500_000, "/repos/*")
        hub.go_down("cdn")
        assert isinstance(download.exception(20.0), http.client.IncompleteRead)
        hub.faults.clear()


# --- the rest ---------------------------------------------------------------------------------------------------


def test_a_mirror_serves_the_same_content_with_its_own_faults_and_log(hub: HubSimulator) -> None:
    with HubSimulator(mirror_of=hub, behaviour=Behaviour(resolve_mode="direct")) as mirror:
        mirror.inject(faults.status(503), path="*config.json")
        assert ask(mirror.endpoint + PLAIN).status == 503
        assert follow(hub.endpoint + PLAIN).status == 200
        assert ask(mirror.endpoint + WEIGHTS).body == follow(hub.endpoint + WEIGHTS).body
        assert len(mirror.requests) == 2
    assert follow(hub.endpoint + PLAIN).status == 200


def test_the_same_files_make_the_same_commit() -> None:
    commits = []
    for _ in range(2):
        with HubSimulator() as hub:
            commits.append(put_zoo(hub.storage))
    assert commits[0] == commits[1]


def test_commits_add_and_delete_on_top_of_what_is_there(hub: HubSimulator) -> None:
    hub.put_repo("dataset", "acme/grown", {"a.txt": b"a", "b.txt": b"b"}, lfs_patterns=("b.*",))
    commit = hub.repo("dataset", "acme/grown").commit({"a.txt": None, "c.txt": b"c"})
    listed = ask(f"{hub.endpoint}/api/datasets/acme/grown/tree/{commit}").json
    assert {entry["path"]: "lfs" in entry for entry in listed} == {"b.txt": True, "c.txt": False}


def test_sixteen_connections_are_kept_alive_side_by_side(hub: HubSimulator) -> None:
    parts = urlsplit(hub.endpoint)

    def work(_: int) -> int:
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        for _ in range(20):
            connection.request("GET", "/api/models/acme/zoo")
            assert connection.getresponse().read()
        connection.close()
        return 20

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, range(16))) == 320
    assert (len(hub.requests), hub.connections_accepted) == (320, 16)


def test_it_listens_on_ipv6_too(storage: Storage) -> None:
    with HubSimulator("::1", storage=storage) as hub:
        assert hub.endpoint.startswith("http://[::1]:")
        assert follow(hub.endpoint + WEIGHTS).body == zoo_content("model.safetensors")
        hub.wait_until_quiet()


def test_the_command_serves_a_folder_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/hello.txt").write_bytes(b"hello\n")
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "fakes.hub", "--repo-dir", str(tmp_path), "--as", "me/folder"]
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())
            url = f"{address['endpoint']}/me/folder/resolve/{address['commit']}/sub/hello.txt"
            with urlopen(url, timeout=10) as reply:
                assert reply.read() == b"hello\n"
        finally:
            process.terminate()
        assert json.loads(process.stdout.readline())["body_bytes_sent"]["hub"] >= 6
        assert process.wait(10) == 0
