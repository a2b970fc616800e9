"""The routes that read files: listings with their silent cut, a file or where it is, and the CDN.

Sources: the shapes that modelscope_hub reads (`_legacy_api`, `_download`).
"""

from __future__ import annotations

from typing import Any

from fakes.hub.wire import FileSlice, Request, Response, file_response, text_response

from .site import NO_SUCH_REPO, NO_SUCH_REVISION, Site, refuse, success, token_of
from .storage import Commit, Entry, Repo


def listing(site: Site, request: Request, repo_id: str) -> Response:
    """GET /api/v1/models/{id}/repo/files: no pages, cut without a word. The key `Recursive` is case-sensitive."""
    repo = site.readable(request, "model", repo_id)
    entries = _entries(repo, _commit(repo, request), request)[: site.behaviour.listing_cap]
    return success({"Files": entries or None})


def tree(site: Site, request: Request, repo_id: str) -> Response:
    """GET /api/v1/datasets/{id}/repo/tree: pages."""
    repo = site.readable(request, "dataset", repo_id)
    entries = _entries(repo, _commit(repo, request), request)
    size = max(1, int(request.query_value("PageSize", "100")))
    first = (int(request.query_value("PageNumber", "1")) - 1) * size
    return success({"Files": entries[first : first + size], "TotalCount": len(entries)}, TotalCount=len(entries))


def _commit(repo: Repo, request: Request) -> Commit:
    commit = repo.find(request.query_value("Revision", "master"))
    if commit is None:
        refuse(404, "no tree found at the revision", NO_SUCH_REVISION)
    return commit


def _entries(repo: Repo, commit: Commit, request: Request) -> list[dict[str, Any]]:
    root = request.query_value("Root").strip("/")
    is_recursive = request.query_value("Recursive").lower() in ("true", "1")
    prefix = f"{root}/" if root else ""
    found: dict[str, dict[str, Any]] = {}
    for path, entry in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        folders = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(folders) + 1 if is_recursive else min(2, len(folders) + 1)):
            folder = prefix + "/".join(folders[:depth])
            found.setdefault(folder, _folder(folder, commit))
        if is_recursive or not folders:
            found[path] = _file(entry)
    return list(found.values())


def _folder(path: str, commit: Commit) -> dict[str, Any]:
    shown = {"Name": path.rpartition("/")[2], "Path": path, "Type": "tree", "Size": 0, "Sha256": "", "IsLFS": False}
    return {**shown, "Mode": "16384", "Revision": commit.id, "InCheck": False}


def _file(entry: Entry) -> dict[str, Any]:
    return {
        "Name": entry.path.rpartition("/")[2],
        "Path": entry.path,
        "Type": "blob",
        "Size": entry.size_bytes,
        "Sha256": entry.sha256,
        "IsLFS": entry.is_lfs,
        "Mode": "33188",
        "Revision": entry.revision,
        "CommitMessage": entry.message,
        "CommittedDate": entry.committed_at,
        "CommitterName": "simulator",
        "InCheck": False,
    }


def file(site: Site, request: Request, type: str, repo_id: str) -> Response:
    """GET and HEAD /api/v1/{type}s/{id}/repo: a plain file, or 302 to the CDN. HEAD answers without a redirect."""
    repo = site.readable(request, type, repo_id)
    return _resolved(site, request, repo, request.query_value("Revision", "master"), request.query_value("FilePath"))


def resolve(site: Site, request: Request, type: str, repo_id: str, revision: str, path: str) -> Response:
    """GET /models/{id}/resolve/{revision}/{path}: the site's own address of a file."""
    return _resolved(site, request, site.readable(request, type, repo_id), revision, path)


def _resolved(site: Site, request: Request, repo: Repo, revision: str, path: str) -> Response:
    entry = repo.files(revision).get(path)
    if entry is None:
        if request.method == "HEAD":
            return Response(404)
        refuse(404, "record not found", NO_SUCH_REPO)
    if request.method == "HEAD":
        return Response(200, {"Content-Type": "application/octet-stream"})
    if entry.is_lfs:
        target = site.signed_url(repo, entry.sha256, path)
        return text_response(302, f'<a href="{target}">Found</a>.', {"Location": target})
    stored = site.storage.path_of(entry.sha256)
    if site.behaviour.plain_ranges:
        return file_response(request, stored, entry.size_bytes, {})
    return Response(200, {"Content-Type": "application/octet-stream"}, (FileSlice(stored, 0, entry.size_bytes),))


def cdn(site: Site, request: Request) -> Response:
    """GET /prod/lfs-objects/{2 hex}/{2 hex}/{60 hex}: the bytes of an LFS file, for a valid address."""
    if site.behaviour.cdn_refuses_credentials and token_of(request):
        return text_response(400, "a token reached the CDN")
    if not site.is_signed(request):
        return text_response(403, "<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
    sha256 = "".join(request.segments[-3:])
    path = site.storage.path_of(sha256)
    if not path.is_file():
        return text_response(404, "<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})
    if request.headers.get("range", "").startswith("bytes=-"):
        return text_response(400, "invalid range")
    size_bytes = path.stat().st_size
    headers = {"X-Linked-ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
    mode = site.behaviour.cdn_ranges
    if mode == "ignored":
        request = request.without_header("range")
    answer = file_response(request, path, size_bytes, headers)
    if mode == "200" and answer.status == 206:
        return Response(200, answer.headers, answer.body)
    return answer
