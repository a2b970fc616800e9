"""The things that every route of a simulator needs: the storage, the addresses, the behaviour, envelopes and access.

Owns how a success and a refusal look. Must never answer a route.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Literal, NoReturn
from urllib.parse import quote

from fakes.hub.wire import Request, Response, json_response

from .storage import Repo, Storage, User
from .uploads import Uploads

NO_SUCH_REPO, NO_ACCESS, NO_SUCH_REVISION = 10010205001, 10010200001, 10990101004
NOT_LOGGED_IN = 10030000001


@dataclass
class Behaviour:
    """How the site answers when nothing is broken; may be changed while it runs.

    `fresh_repo`: a new repo has no branch at all, or files that the server made. `cdn_ranges`: the answer to a range is
    200 with a `Content-Range`, 206, or the whole file. `cdn_refuses_credentials`: 400 for a request with a token, to
    catch leaks. `href_host`: the origin in the addresses of uploads, if not the LFS listener's.
    """

    fresh_repo: Literal["empty", "seeded"] = "empty"
    cdn_ranges: Literal["200", "206", "ignored"] = "200"
    plain_ranges: bool = False
    cdn_refuses_credentials: bool = True
    signed_url_seconds: float = 1500
    listing_cap: int = 3000
    max_actions: int = 2000
    href_host: str = ""


class Site:
    """One ModelScope: the API, the LFS host and the CDN over one storage."""

    def __init__(self, storage: Storage, behaviour: Behaviour) -> None:
        self.storage = storage
        self.uploads = Uploads(storage)
        self.behaviour = behaviour
        self.endpoint = ""
        self.lfs_endpoint = ""
        self.cdn_endpoint = ""

    def signed_url(self, repo: Repo, sha256: str, path: str) -> str:
        """The CDN's address of an LFS file, good for a while."""
        issued = int(time.time())
        place = f"/prod/lfs-objects/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}"
        name = quote(path.rpartition("/")[2], safe="")
        query = f"auth_key={issued}-0-0-simulated&filename={name}&namespace={repo.owner}&repository={repo.name}"
        return f"{self.cdn_endpoint}{place}?{query}&revision=master&tag=model"

    def is_signed(self, request: Request) -> bool:
        """Whether the address of a file at the CDN is valid now."""
        issued = request.query_value("auth_key").partition("-")[0]
        return issued.isdigit() and time.time() < int(issued) + self.behaviour.signed_url_seconds

    # Access

    def user(self, request: Request) -> User | None:
        """The user of the token in a request. A wrong token counts as none."""
        return self.storage.users.get(token_of(request))

    def readable(self, request: Request, type: str, repo_id: str) -> Repo:
        """The repo, if it exists and the asker may read it. Raises Answered."""
        repo = self.storage.find_repo(type, repo_id)
        if repo is None:
            refuse(404, "record not found", NO_SUCH_REPO)
        if not repo.may_read(self.user(request)):
            refuse(404, "no access to the repository", NO_ACCESS)
        return repo

    def writable(self, request: Request, type: str, repo_id: str) -> tuple[Repo, User]:
        """The repo, if the asker may write it. Raises Answered."""
        user = self.logged_in(request)
        repo = self.storage.find_repo(type, repo_id)
        if repo is None or not (repo.may_read(user)):
            refuse(404, "record not found", NO_SUCH_REPO)
        if not repo.may_write(user):
            refuse(403, "no write permission to repository")
        return repo, user

    def logged_in(self, request: Request) -> User:
        """The user of the token. Raises Answered."""
        user = self.user(request)
        if user is None:
            refuse(400, "user not logged in", NOT_LOGGED_IN)
        return user


def token_of(request: Request) -> str:
    """The token in the headers of a request, or ""."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    if bearer:
        return bearer
    try:
        cookies = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookies.get("m_session_id")
    return found.value if found is not None else ""


class Answered(Exception):
    """The answer is known before the end of a route."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def success(data: Any = None, **more: Any) -> Response:
    """An answer of the older API."""
    document = {"Code": 200, "Data": data, "Message": "success", "RequestId": "simulated", "Success": True}
    return json_response({**document, **more})


def failure(status: int, message: str, code: int | None = None) -> Response:
    """A refusal of the older API."""
    return json_response(
        {"Code": code or status, "Data": None, "Message": message, "RequestId": "simulated", "Success": False}, status
    )


def refuse(status: int, message: str, code: int | None = None) -> NoReturn:
    raise Answered(failure(status, message, code))


def open_success(data: Any) -> Response:
    """An answer of the newer API."""
    return json_response({"success": True, "data": data, "request_id": "simulated"})


def open_failure(status: int, code: str, message: str) -> Response:
    """A refusal of the newer API."""
    return json_response({"success": False, "code": code, "message": message, "request_id": "simulated"}, status)
