"""Files by revision and path: `/resolve/`, `/raw/`, `/api/resolve-cache/`, and the CDN's signed addresses.

Owns the headers clients read metadata from. Must never hold content in memory.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote, unquote

from .access import Address, readable_repo, refusal, snapshot_at
from .repo import Entry, Repo, Snapshot
from .site import Site, content_disposition, signature_problem, xet_hash
from .wire import Request, Response, file_response, text_response

EXPOSED = "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range"


def resolve(site: Site, request: Request, address: Address) -> Response:
    """`/{id}/resolve/{revision}/{path}`: the file, or where it is."""
    repo, snapshot, entry = _find_file(site, request, address)
    headers = _metadata(site, repo, snapshot, entry)
    revision = unquote(address.rest[1])
    mode = site.behaviour.resolve_mode
    if mode == "hub":
        return _hub_redirect(site, request, repo, snapshot, entry, headers)
    if mode == "pinned" and revision != snapshot.commit:
        pinned = replace(address, rest=("resolve", snapshot.commit, *address.rest[2:]))
        size = {"X-Linked-Size": str(entry.size_bytes)}
        return _redirect(307, pinned.path_for(repo.repo_id), {**headers, **size})
    return _file(request, repo, entry, headers)


def resolve_cache(site: Site, request: Request, address: Address) -> Response:
    """`/api/resolve-cache/{type}s/{id}/{commit}/{path}`: a plain file, at a commit."""
    repo, snapshot, entry = _find_file(site, request, address)
    return _file(request, repo, entry, _metadata(site, repo, snapshot, entry))


def raw(site: Site, request: Request, address: Address) -> Response:
    """`/{id}/raw/{revision}/{path}`: the git blob itself, the pointer of an LFS file."""
    _, snapshot, entry = _find_file(site, request, address)
    path = site.storage.objects.blob_path(entry.oid)
    headers = {
        "X-Repo-Commit": snapshot.commit,
        "ETag": f'"{entry.oid}"',
        "Content-Type": "text/plain; charset=utf-8",
    }
    return file_response(request, path, path.stat().st_size, headers)


def _find_file(site: Site, request: Request, address: Address) -> tuple[Repo, Snapshot, Entry]:
    repo = readable_repo(site, request, address)
    revision, path = unquote(address.rest[1]), "/".join(unquote(part) for part in address.rest[2:])
    snapshot = snapshot_at(request, repo, revision)
    entry = snapshot.entries.get(path)
    if entry is None or not entry.is_file:
        commit = {"X-Repo-Commit": snapshot.commit}
        raise refusal(request, 404, "Entry not found", "EntryNotFound", commit)
    return repo, snapshot, entry


def _metadata(site: Site, repo: Repo, snapshot: Snapshot, entry: Entry) -> dict[str, str]:
    headers = {
        "X-Repo-Commit": snapshot.commit,
        "X-Linked-ETag": f'"{entry.sha256 or entry.oid}"',
        "Accept-Ranges": "bytes",
        "Access-Control-Expose-Headers": EXPOSED,
        "Content-Disposition": content_disposition(entry.path.rpartition("/")[2]),
    }
    if entry.sha256:
        headers |= {"X-Linked-Size": str(entry.size_bytes)}
        headers |= _xet_headers(site, repo, snapshot, entry.sha256) if site.behaviour.xet_headers else {}
    return headers


def _xet_headers(site: Site, repo: Repo, snapshot: Snapshot, sha256: str) -> dict[str, str]:
    xet = xet_hash(sha256)
    token_url = f"{site.endpoint}/api/{repo.repo_type}s/{repo.repo_id}/xet-read-token/{snapshot.commit}"
    rebuild_url = f"{site.cas_endpoint}/v1/reconstructions/{xet}"
    link = f'<{token_url}>; rel="xet-auth", <{rebuild_url}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": xet, "Link": link}


def _hub_redirect(
    site: Site, request: Request, repo: Repo, snapshot: Snapshot, entry: Entry, headers: dict[str, str]
) -> Response:
    if entry.sha256:
        location = site.signed_url(entry.sha256, entry.path.rpartition("/")[2])
        return _redirect(302, location, {**headers, "Cache-Control": "no-store"})
    cache = f"/api/resolve-cache/{repo.repo_type}s/{repo.repo_id}/{snapshot.commit}/{quote(entry.path)}"
    query = f"{quote(request.path, safe='')}=&etag={quote(headers['X-Linked-ETag'], safe='')}"
    return _redirect(307, f"{cache}?{query}", headers)


def _redirect(status: int, location: str, headers: dict[str, str]) -> Response:
    phrase = "Found" if status == 302 else "Temporary Redirect"
    return text_response(status, f"{phrase}. Redirecting to {location}", {**headers, "Location": location})


def _file(request: Request, repo: Repo, entry: Entry, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": headers["X-Linked-ETag"]}
    return file_response(request, repo.content_path(entry), entry.size_bytes, headers)


def cdn_object(site: Site, request: Request) -> Response:
    """The CDN: an LFS object for a valid signed address; its ETag is not the sha256."""
    problem = signature_problem(request)
    sha256 = request.segments[-1]
    if problem is None and not site.storage.objects.has_lfs(sha256):
        problem = "NoSuchKey"
    if problem is not None:
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{problem}</Code></Error>'
        return text_response(403, body, {"Content-Type": "application/xml"})
    path = site.storage.objects.lfs_path(sha256)
    headers = {"ETag": f'"{sha256[::-1][:32]}"', "Cache-Control": "public, max-age=604800, immutable"}
    return file_response(request, path, path.stat().st_size, headers)
