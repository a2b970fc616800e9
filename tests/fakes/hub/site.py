"""The things that every route of a simulator needs: the storage, the origins' addresses, and how this hub behaves.

Owns signing of CDN addresses and the behaviour switches. Must never answer a request.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import quote

from .storage import Storage
from .wire import Request


@dataclass
class Behaviour:
    """How a hub answers when nothing is broken; may be changed while it runs.

    resolve_mode: `hub` (plain files 307 to resolve-cache, LFS files 302 to the CDN), `pinned` (a mutable
    revision 307 to the same file at its commit, which is served as 200), or `direct` (always 200).
    tree_page_entries: the length of a page of a listing, None for whole listings.
    xet_headers, xet_trees: Xet hashes in resolve answers, and in listings. has_cas: a synthetic CAS serves them.
    repo_not_found_on_401: adds `X-Error-Code: RepoNotFound` to a 401 for a missing repo, which the real hub omits.
    """

    resolve_mode: str = "hub"
    tree_page_entries: int | None = 1000
    xet_headers: bool = False
    xet_trees: bool = False
    xet_hashes_redacted: bool = False
    has_cas: bool = False
    signed_url_seconds: float = 3600
    repo_not_found_on_401: bool = False
    has_git: bool = True
    git_allows_filter: bool = True


class Site:
    """One hub: hub, CDN and CAS origins over one storage."""

    def __init__(self, storage: Storage, behaviour: Behaviour) -> None:
        self.storage = storage
        self.behaviour = behaviour
        self.endpoint = ""
        self.cdn_endpoint = ""
        self.cas_endpoint = ""

    def signed_url(self, sha256: str, file_name: str) -> str:
        """The CDN's address of an LFS object, good for a while."""
        path = f"/repos/{sha256[:2]}/{sha256[2:4]}/{sha256}"
        expires = int(time.time() + self.behaviour.signed_url_seconds)
        disposition = quote(content_disposition(file_name), safe="")
        query = f"response-content-disposition={disposition}&Expires={expires}"
        return f"{self.cdn_endpoint}{path}?{query}&Signature={_sign(path, expires)}&Key-Pair-Id=SIMULATOR"


def signature_problem(request: Request) -> str | None:
    """Why a signed address is refused, or None."""
    expires = request.query_value("Expires", "0")
    good = _sign(request.path, int(expires)) if expires.isdigit() else ""
    if not hmac.compare_digest(request.query_value("Signature"), good):
        return "SignatureDoesNotMatch"
    return "AccessDenied" if int(expires) <= time.time() else None


def _sign(path: str, expires: int) -> str:
    return hmac.new(b"cdn key of the simulator", f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def content_disposition(file_name: str) -> str:
    """The header value for a download of that name."""
    plain = file_name.encode("ascii", "replace").decode().replace('"', "'")
    return f"inline; filename*=UTF-8''{quote(file_name, safe='')}; filename=\"{plain}\";"


def xet_hash(sha256: str) -> str:
    """A made-up Xet hash of an LFS object: 64 hex digits that are not its sha256, and lead back to it."""
    return sha256[::-1]
