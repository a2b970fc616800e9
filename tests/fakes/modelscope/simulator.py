"""The simulator: three origins (API, LFS uploads, CDN) over one storage, with faults and a log.

Owns routing; `origins` owns their life. Must never hold a route's logic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes.hub.faults import Answer
from fakes.hub.listener import Listener
from fakes.hub.origins import Origins
from fakes.hub.wire import Request, Response

from . import accounts, reading, writing
from .site import Answered, Behaviour, Site, failure, success
from .storage import BAD_TOKEN, OWNER, READER, STRANGER, Storage
from .uploads import Uploads

TYPES = {"models": "model", "datasets": "dataset"}


class ModelScopeSimulator(Origins):
    """A ModelScope on loopback. Use as a context manager.

    The API listens at 127.0.0.1 and the two other origins at `localhost`, so that a cookie or a token that follows a
    redirect is seen.
    """

    token = OWNER.token
    read_token = READER.token
    foreign_token = STRANGER.token
    bad_token = BAD_TOKEN

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        super().__init__()
        self.storage = Storage()
        self.site = Site(self.storage, behaviour or Behaviour())
        answers = {"api": self._answer_api, "lfs": self._answer_lfs, "cdn": self._answer_cdn}
        hosts = {"api": "127.0.0.1", "lfs": "localhost", "cdn": "localhost"}
        self._listeners = {
            name: Listener(
                name,
                self.faults.around(_answering(answer)),
                self.log,
                hosts[name],
                receive=self.site.uploads.receive if name == "lfs" else None,
            )
            for name, answer in answers.items()
        }

    # --- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> ModelScopeSimulator:
        self.come_back()
        self.site.endpoint, self.site.lfs_endpoint, self.site.cdn_endpoint = (
            listener.endpoint for listener in self._listeners.values()
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.storage.close()

    @property
    def endpoint(self) -> str:
        return self._listeners["api"].endpoint

    @property
    def behaviour(self) -> Behaviour:
        """How it answers when nothing is broken; change its fields at any time."""
        return self.site.behaviour

    @property
    def uploads(self) -> Uploads:
        """The uploads that came, and their faults."""
        return self.site.uploads

    # --- content ------------------------------------------------------------------------------------------------

    def put_repo(self, type: str, repo_id: str, files: Mapping[str, bytes], **options: Any) -> str:
        """Storage.put_repo: these files as a new commit; its id."""
        return self.storage.put_repo(type, repo_id, files, **options)

    def files(self, repo_id: str, type: str = "model") -> dict[str, str]:
        """The sha256 of each file on master, by path."""
        return {path: entry.sha256 for path, entry in self.storage.repos[type, repo_id].files().items()}

    def commits(self, repo_id: str, type: str = "model") -> list[str]:
        """The messages of all commits, oldest first."""
        repo = self.storage.repos[type, repo_id]
        return [repo.commits[commit].message for commit in repo.log]

    def clear(self) -> None:
        """Forget all earlier requests and uploads."""
        super().clear()
        self.uploads.clear()

    # --- answering ----------------------------------------------------------------------------------------------

    def _answer_api(self, request: Request) -> Response:
        for method, pattern, route in _API:
            match = re.fullmatch(pattern, request.path)
            if match and request.method in method.split("|"):
                words = {name: TYPES.get(text, text) for name, text in match.groupdict().items()}
                return route(self.site, request, **words)
        if request.method == "DELETE":
            return failure(400, "the current token no longer supports deletion operations")
        if request.path.startswith("/api/v1/repos/") and request.method in ("GET", "HEAD"):
            return failure(421, "mirror self-forwarded loop detected")
        return failure(404, "page not found")

    def _answer_lfs(self, request: Request) -> Response:
        match = re.fullmatch(
            rf"/api/v1/repos/{_TYPE}/{_ID}/blobs/(?P<sha256>[0-9a-f]{{64}})/(?P<size>[0-9]+)", request.path
        )
        if match is None or request.method != "PUT":
            return failure(404, "page not found")
        words = match.groupdict()
        return writing.put(
            self.site, request, TYPES[words["type"]], words["repo_id"], words["sha256"], int(words["size"])
        )

    def _answer_cdn(self, request: Request) -> Response:
        return reading.cdn(self.site, request)


_TYPE, _ID = "(?P<type>models|datasets)", "(?P<repo_id>[^/]+/[^/]+)"
_DATASET_ID = "(?P<repo_id>[^/]+/[^/]+|[0-9]+)"
_API: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "/openapi/v1/users/me", accounts.whoami),
    ("POST", "/api/v1/login", accounts.login),
    ("POST", f"/api/v1/{_TYPE}", accounts.create),
    ("GET", f"/api/v1/{_TYPE}/{_ID}", accounts.info),
    ("GET", f"/openapi/v1/{_TYPE}/{_ID}", accounts.open_info),
    ("GET", f"/api/v1/{_TYPE}/{_ID}/revisions", accounts.revisions),
    ("GET", f"/api/v1/{_TYPE}/{_ID}/commits", accounts.commits),
    ("POST", f"/api/v1/{_TYPE}/{_ID}/repo/tag", accounts.tag),
    ("GET", f"/api/v1/models/{_ID}/repo/files", reading.listing),
    ("GET", f"/api/v1/datasets/{_DATASET_ID}/repo/tree", reading.tree),
    ("GET|HEAD", f"/api/v1/{_TYPE}/{_ID}/repo", reading.file),
    ("GET|HEAD", f"/{_TYPE}/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", reading.resolve),
    ("GET", "/api/v1/repos/internalAccelerationInfo", lambda site, request: success({})),
    ("POST", f"/api/v1/repos/{_TYPE}/{_ID}/info/lfs/objects/batch", writing.batch),
    ("POST", f"/api/v1/repos/{_TYPE}/{_ID}/commit/(?P<branch>.+)", writing.commit),
]
"""Method, pattern and function of each route of the API."""


def _answering(route: Answer) -> Answer:
    """The route, with its early answers and what it could not parse turned into answers."""

    def answer(request: Request) -> Response:
        try:
            return route(request)
        except Answered as answered:
            return answered.response
        except ValueError as error:
            return failure(400, f"invalid parameter: {type(error).__name__}")

    return answer
