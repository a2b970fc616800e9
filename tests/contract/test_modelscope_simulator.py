"""The ModelScope simulator, driven by ModelScope's own client and by hand: what is built on it is built on rock."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fakes.hub import faults as hub_faults
from fakes.hub.zoo import noise
from fakes.modelscope import ModelScopeSimulator, faults
from fakes.modelscope.storage import PRIVATE
from fakes.modelscope_client import ModelScopeClient, needs_client

WEIGHTS = noise(300_000, "weights")
SHA = hashlib.sha256(WEIGHTS).hexdigest()
CARD = b"# Tiny\n"


@pytest.fixture
def site() -> Iterator[ModelScopeSimulator]:
    with ModelScopeSimulator() as site:
        yield site


@pytest.fixture
def client(site: ModelScopeSimulator, tmp_path: Path) -> ModelScopeClient:
    return ModelScopeClient(site.endpoint, tmp_path, site.token)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(
    site: ModelScopeSimulator,
    method: str,
    target: str,
    body: Any = None,
    *,
    token: str | None = ModelScopeSimulator.token,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request, without redirects, to the API or to the address `target`."""
    url = urlsplit(target if "://" in target else site.endpoint + target)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    sent = {**(headers or {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, f"{url.path}?{url.query}" if url.query else url.path, raw, sent)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def listed(site: ModelScopeSimulator, query: str = "Revision=master&Recursive=True") -> list[dict[str, Any]]:
    files = ask(site, "GET", f"/api/v1/models/team/tiny/repo/files?{query}").document["Data"]["Files"]
    assert isinstance(files, list)
    return files


def commit_of(site: ModelScopeSimulator, *actions: dict[str, Any], branch: str = "master", **options: Any) -> Answer:
    document = {"commit_message": "by hand", "actions": list(actions)}
    return ask(site, "POST", f"/api/v1/repos/models/team/tiny/commit/{branch}", document, **options)


def plain(path: str, data: bytes) -> dict[str, Any]:
    content = base64.b64encode(data).decode()
    return {"action": "create", "path": path, "type": "normal", "size": len(data), "content": content, "sha256": ""}


def lfs(path: str, sha256: str = SHA, size: int = len(WEIGHTS)) -> dict[str, Any]:
    return {"action": "create", "path": path, "type": "lfs", "size": size, "sha256": sha256, "content": ""}


# --- ModelScope's own client ------------------------------------------------------------------------------------


@needs_client
def test_its_client_logs_in_creates_uploads_lists_and_downloads(site: ModelScopeSimulator, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    files = {"README.md": CARD, "model.safetensors": WEIGHTS, "sub/empty.txt": b"", "sub/twin.safetensors": WEIGHTS}
    for path, data in files.items():
        (folder / path).write_bytes(data)
    client = ModelScopeClient(site.endpoint, tmp_path)
    told = client.run(f"""
user = api.login({site.token!r})
api.create_repo("team/tiny", "model", visibility="private", license="MIT")
api.upload_folder("team/tiny", "model", {str(folder)!r}, commit_message="All of it", disable_tqdm=True, use_cache=False)
api.upload_file("team/tiny", "model", b"late", "late.txt", disable_tqdm=True)
listed = sorted(file.path for file in api.list_repo_files("team/tiny", "model") if file.type == "blob")
one = api.download_file("team/tiny", "model", "model.safetensors", local_dir={str(tmp_path / "one")!r})
done([user.username, api.whoami().username, listed, str(one), api.repo_exists("team/tiny", "model")])
""")
    wanted = {path: hashlib.sha256(data).hexdigest() for path, data in {**files, "late.txt": b"late"}.items()}
    assert told[:3] == ["alice", "alice", sorted(wanted)] and told[4] is True
    assert Path(told[3]).read_bytes() == WEIGHTS
    assert site.files("team/tiny") == wanted
    assert site.storage.repos["model", "team/tiny"].visibility == PRIVATE
    assert site.commits("team/tiny")[0].startswith("All of it")
    assert len(site.uploads.all) == 1, "equal files are one blob"
    # A later process finds the stored login.
    assert client.download("team/tiny") == wanted
    snapshot = client.run("""
from modelscope_hub.compat.snapshot_download import snapshot_download
done(snapshot_download("team/tiny"))
""")
    assert (Path(snapshot) / "model.safetensors").read_bytes() == WEIGHTS


@needs_client
def test_its_client_deletes_tags_and_reads_revisions(site: ModelScopeSimulator, client: ModelScopeClient) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a", "b.txt": b"b"})
    told = client.run("""
api.create_repo_tag("team/tiny", "model", "v1")
api.delete_files("team/tiny", "model", ["a.txt"])
done(sorted(each["Revision"] for each in api.list_repo_revisions("team/tiny", "model")))
""")
    assert told == ["master", "v1"] and [*site.files("team/tiny")] == ["b.txt"]
    assert [file["Path"] for file in listed(site, "Revision=v1&Recursive=True")] == ["a.txt", "b.txt"]


@needs_client
@pytest.mark.parametrize("fresh", ["empty", "seeded"])
def test_its_client_makes_a_dataset(site: ModelScopeSimulator, client: ModelScopeClient, fresh: Any) -> None:
    site.behaviour.fresh_repo = fresh
    client.run("""
api.create_repo("alice/rows", "dataset")
api.upload_file("alice/rows", "dataset", b"x" * 200_000, "data/train.parquet", disable_tqdm=True)
done(None)
""")
    assert client.download("alice/rows", "dataset") == site.files("alice/rows", "dataset")
    assert ("README.md" in site.files("alice/rows", "dataset")) == (fresh == "seeded")


@needs_client
@pytest.mark.parametrize("ranges", ["200", "206", "ignored"])
def test_its_client_goes_on_after_a_cut_whatever_ranges_look_like(
    site: ModelScopeSimulator, client: ModelScopeClient, ranges: Any
) -> None:
    site.behaviour.cdn_ranges = ranges
    site.put_repo("model", "team/tiny", {"model.safetensors": WEIGHTS}, lfs=["model.safetensors"])
    site.inject(hub_faults.cut_body_after(100_000), listener="cdn", times=1)
    assert client.download("team/tiny") == {"model.safetensors": SHA}
    assert len(site.requests_for(listener="cdn")) == 2


@needs_client
def test_its_client_sees_more_files_than_a_listing_holds(site: ModelScopeSimulator, client: ModelScopeClient) -> None:
    site.put_repo("model", "team/tiny", {f"d{n % 4}/{n:04}.txt": b"%d" % n for n in range(3600)})
    assert len(listed(site)) == 3000
    told = client.run('done(len([f for f in api.list_repo_files("team/tiny", "model") if f.type == "blob"]))')
    assert told == 3600


# --- By hand ----------------------------------------------------------------------------------------------------


def test_a_listing_is_recursive_only_by_the_exact_key_and_below_a_root(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a", "d/b.txt": b"b", "d/e/c.txt": b"c"})
    assert [each["Path"] for each in listed(site)] == ["a.txt", "d", "d/b.txt", "d/e", "d/e/c.txt"]
    assert [each["Path"] for each in listed(site, "recursive=true")] == ["a.txt", "d"]
    assert [each["Path"] for each in listed(site, "Root=d")] == ["d/b.txt", "d/e"]
    assert listed(site)[1]["Sha256"] == "" and listed(site)[0]["Sha256"] == hashlib.sha256(b"a").hexdigest()


def test_a_dataset_is_listed_in_pages_by_name_and_by_number(site: ModelScopeSimulator) -> None:
    site.put_repo("dataset", "team/rows", {f"{n}.txt": b"" for n in range(5)})
    number = site.storage.repos["dataset", "team/rows"].number
    for name in ("team/rows", number):
        answer = ask(site, "GET", f"/api/v1/datasets/{name}/repo/tree?Recursive=True&PageSize=2&PageNumber=3").document
        assert [each["Path"] for each in answer["Data"]["Files"]] == ["4.txt"] and answer["TotalCount"] == 5


def test_a_repo_shows_itself_only_to_those_who_may_see_it(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"}, visibility=PRIVATE)
    for token in (None, site.foreign_token, site.bad_token):
        answer = ask(site, "GET", "/api/v1/models/team/tiny", token=token)
        assert (answer.status, answer.document["Code"]) == (404, 10010200001)
    assert ask(site, "GET", "/api/v1/models/team/tiny", token=site.read_token).status == 200
    cookie = {"Cookie": f"m_session_id={site.token}"}
    assert ask(site, "GET", "/api/v1/models/team/tiny", token=None, headers=cookie).status == 200
    assert ask(site, "GET", "/api/v1/models/team/other").document["Code"] == 10010205001
    assert ask(site, "GET", "/api/v1/models/team/tiny/repo/files?Revision=v9").document["Code"] == 10990101004


def test_tokens_are_checked_and_a_read_token_cannot_log_in_or_write(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"})
    assert ask(site, "GET", "/openapi/v1/users/me", token=site.bad_token).status == 401
    assert ask(site, "GET", "/openapi/v1/users/me", token=site.read_token).document["data"]["username"] == "alice"
    assert ask(site, "POST", "/api/v1/login", {"AccessToken": site.read_token}).document["Code"] == 10010103009
    refused = commit_of(site, plain("b.txt", b"b"), token=site.read_token)
    assert (refused.status, refused.document["Message"]) == (403, "no write permission to repository")
    assert commit_of(site, plain("b.txt", b"b"), token=site.bad_token).document["Message"] == "user not logged in"
    # A wrong token on a public repo is ignored.
    assert ask(site, "GET", "/api/v1/models/team/tiny", token=site.bad_token).status == 200


def test_a_blob_is_asked_for_once_by_sha256_and_size_over_all_repos(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"})
    site.put_repo("model", "bob/other", {"w.bin": WEIGHTS}, lfs=["w.bin"])
    batch = "/api/v1/repos/models/team/tiny/info/lfs/objects/batch"
    wanted = [{"oid": SHA, "size": len(WEIGHTS)}, {"oid": SHA, "size": 5}]
    objects = ask(site, "POST", batch, {"operation": "upload", "objects": wanted}).document["Data"]["objects"]
    assert [each["size"] for each in objects] == [5]
    assert ask(site, "GET", batch).status == 421


def test_an_upload_is_stored_only_if_length_and_sha256_are_right(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"})
    base = f"{site.site.lfs_endpoint}/api/v1/repos/models/team/tiny/blobs"
    assert ask(site, "PUT", f"{base}/{SHA}/{len(WEIGHTS)}", WEIGHTS, token=None).document["Code"] == 10030000001
    assert ask(site, "PUT", f"{base}/{SHA}/7", WEIGHTS).status == 400
    assert ask(site, "PUT", f"{base}/{SHA}/{len(WEIGHTS)}", b"\0" + WEIGHTS[1:]).status == 400
    assert commit_of(site, lfs("w.bin")).status == 400, "it is not stored yet"
    assert ask(site, "PUT", f"{base}/{SHA}/{len(WEIGHTS)}", WEIGHTS).status == 200
    assert commit_of(site, lfs("w.bin")).status == 200
    site.uploads.cut_after(1000)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(site, "PUT", f"{base}/{SHA}/{len(WEIGHTS)}", WEIGHTS)
    assert site.uploads.all[-1].received_bytes <= 1000 and not site.uploads.all[-1].is_whole


def test_a_commit_is_whole_or_not_at_all(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"})
    before = site.files("team/tiny")
    gone = {"action": "delete", "path": "absent.txt", "type": "normal"}
    for wrong in (gone, lfs("w.bin"), plain("../x", b""), plain("/x", b""), plain("./x", b"")):
        assert commit_of(site, plain("b.txt", b"b"), wrong).status == 400
    assert commit_of(site, plain("b.txt", b"b"), branch="v1").document["Message"].endswith("on a branch")
    many = commit_of(site, *(plain(f"{n}.txt", b"") for n in range(2001)))
    assert many.status == 422 and "2001 > 2000" in many.document["Message"]
    assert site.files("team/tiny") == before
    first = listed(site)[0]["Revision"]
    made = commit_of(site, plain("b.txt", b"b")).document["Data"]["oid"]
    assert [each["Revision"] for each in listed(site)] == [first, made], "only what was touched has the new revision"
    for commit, files in ((first, 1), (made, 2)):
        assert len(listed(site, f"Revision={commit}&Recursive=True")) == files
    log = ask(site, "GET", "/api/v1/models/team/tiny/commits?Ref=master&PageSize=1").document["Data"]
    assert log["Commit"][0]["Id"] == made and log["TotalCount"] == 2
    assert ask(site, "GET", "/api/v1/models/team/tiny/commits?Ref=v9").document["Data"]["Commit"] is None


def test_a_file_is_given_plainly_or_by_a_signed_address_that_takes_no_token(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"abc", "w.bin": WEIGHTS}, lfs=["w.bin"])
    base = "/api/v1/models/team/tiny/repo?Revision=master&FilePath="
    assert ask(site, "GET", base + "a.txt", headers={"Range": "bytes=0-0"}).body == b"abc", "ranges are ignored"
    redirect = ask(site, "GET", base + "w.bin")
    assert redirect.status == 302 and ask(site, "GET", "/models/team/tiny/resolve/master/w.bin").status == 302
    assert ask(site, "HEAD", base + "w.bin").status == 200 and ask(site, "HEAD", base + "absent").status == 404
    address = redirect.headers["location"]
    assert ask(site, "GET", address).status == 400, "a token reached the CDN"
    part = ask(site, "GET", address, token=None, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (200, WEIGHTS[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert part.headers["x-linked-etag"] == f'"{SHA}"'
    assert ask(site, "GET", address, token=None, headers={"Range": "bytes=-5"}).status == 400
    beyond = ask(site, "GET", address, token=None, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert beyond.status == 416
    site.behaviour.signed_url_seconds = -1
    assert ask(site, "GET", address, token=None).status == 403


def test_a_name_is_given_once_and_only_to_those_who_own_the_namespace(site: ModelScopeSimulator) -> None:
    body = {"Path": "team", "Name": "tiny", "Visibility": 1, "License": "mit"}
    assert ask(site, "POST", "/api/v1/models", body).status == 200
    assert ask(site, "POST", "/api/v1/models", body).document["Code"] == 10010101001
    assert ask(site, "POST", "/api/v1/models", {**body, "Path": "other"}).status == 403
    assert ask(site, "POST", "/api/v1/models", {**body, "Name": "x"}, token=site.read_token).status == 403
    assert ask(site, "DELETE", "/api/v1/models/team/tiny").status == 400
    assert ask(site, "GET", "/api/v1/models/team/tiny/repo/files").document["Code"] == 10990101004, "no branch yet"


def test_each_fault_of_its_own_strikes_as_often_as_told(site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"a.txt": b"a"})
    files = "/api/v1/models/team/tiny/repo/files"
    with site.inject(faults.no_files(), path=files, times=1):
        assert ask(site, "GET", files).document["Data"]["Files"] is None
        assert ask(site, "GET", files).document["Data"]["Files"] is not None
    with site.inject(faults.entry_with("a.txt", Sha256=None), path=files):
        assert ask(site, "GET", files).document["Data"]["Files"][0]["Sha256"] is None
    with site.inject(faults.unsuccessful("no"), path="*/commit/*"):
        assert ask(site, "POST", "/api/v1/repos/models/team/tiny/commit/master").document["Success"] is False
    with site.inject(faults.lost_reply(), path="*/commit/*"), pytest.raises(http.client.RemoteDisconnected):
        commit_of(site, plain("b.txt", b"b"))
    assert "b.txt" in site.files("team/tiny")
    with site.inject(faults.html(413), path="*/commit/*"):
        assert commit_of(site, plain("c.txt", b"c")).body.startswith(b"<html>")
    batch = "/api/v1/repos/models/team/tiny/info/lfs/objects/batch"
    wanted = {"operation": "upload", "objects": [{"oid": SHA, "size": len(WEIGHTS)}]}
    with site.inject(faults.hrefs(lambda href: href.replace("localhost", "other.example")), path=batch):
        upload = ask(site, "POST", batch, wanted).document["Data"]["objects"][0]["actions"]["upload"]
        assert "other.example" in upload["href"]
    with site.inject(faults.object_error(), path=batch):
        assert "error" in ask(site, "POST", batch, wanted).document["Data"]["objects"][0]
    with site.inject(faults.foreign_object(), path=batch):
        assert len(ask(site, "POST", batch, wanted).document["Data"]["objects"]) == 2
