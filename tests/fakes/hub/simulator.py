"""The simulator: three origins (hub, CDN, CAS) over one storage, with faults and a log.

Owns routing; `origins` owns their life. Must never hold a route's logic.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any

from . import api, cas, gitweb, resolve
from .access import Address, Answered, api_address, file_address, refusal
from .content import Content
from .faults import Answer, throttle
from .injection import InjectedFault
from .listener import Listener
from .origins import Origins
from .repo import Repo
from .site import Behaviour, Site
from .storage import BAD_TOKEN, OWNER, STRANGER, Storage
from .wire import Request, Response

RATE_WINDOW_SECONDS = 300
RATE_QUOTAS = {"api": 500, "resolvers": 3000, "pages": 100}


class HubSimulator(Origins):
    """A Hugging Face Hub on loopback.

    Use as a context manager. `storage` shares the repositories of another simulator, as a mirror does; this one
    then has its own ports, behaviour, faults and log. `port` is the hub's; the CDN and CAS take ephemeral ones.
    """

    valid_token = OWNER.token
    foreign_token = STRANGER.token
    bad_token = BAD_TOKEN

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        storage: Storage | None = None,
        mirror_of: HubSimulator | None = None,
        behaviour: Behaviour | None = None,
    ) -> None:
        super().__init__()
        shared: Storage | None = mirror_of.storage if mirror_of else storage
        self._owns_storage = shared is None
        self.storage: Storage = shared or Storage()
        self._site = Site(self.storage, behaviour or Behaviour())
        self._request_ids = itertools.count(1)
        self._used: dict[str, int] = dict.fromkeys(RATE_QUOTAS, 0)
        self._lock = threading.Lock()
        answers = {"hub": self._answer_hub, "cdn": self._answer_cdn, "cas": self._answer_cas}
        self._listeners = {
            name: Listener(name, self.faults.around(_answering(answer)), self.log, host, port if name == "hub" else 0)
            for name, answer in answers.items()
        }

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> HubSimulator:
        """Listen on all origins."""
        self.come_back()
        self._site.endpoint = self.endpoint
        self._site.cdn_endpoint = self.cdn_endpoint
        self._site.cas_endpoint = self.cas_endpoint
        return self

    def stop(self) -> None:
        """End everything, and remove a storage of one's own."""
        self.end()
        if self._owns_storage:
            self.storage.close()

    def __enter__(self) -> HubSimulator:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def behaviour(self) -> Behaviour:
        """How it answers when nothing is broken; change its fields at any time."""
        return self._site.behaviour

    @property
    def endpoint(self) -> str:
        return self._listeners["hub"].endpoint

    @property
    def cdn_endpoint(self) -> str:
        return self._listeners["cdn"].endpoint

    @property
    def cas_endpoint(self) -> str:
        return self._listeners["cas"].endpoint

    def throttled(self, bytes_per_second: float) -> InjectedFault:
        """In a `with` block the bodies of files come at that rate, all together."""
        return self.inject(throttle(bytes_per_second, is_shared=True), method="GET", listener="cdn")

    # --- content ------------------------------------------------------------------------------------------------

    def put_repo(self, repo_type: str, repo_id: str, files: Mapping[str, Content], **options: Any) -> str:
        """Storage.put_repo: these files, exactly, as a new commit; its id."""
        return self.storage.put_repo(repo_type, repo_id, files, **options)

    def repo(self, repo_type: str, repo_id: str) -> Repo:
        """The repository, for more commits, branches, tags and refs. Raises KeyError."""
        return self.storage.repo(repo_type, repo_id)

    # --- answering ----------------------------------------------------------------------------------------------

    def _answer_hub(self, request: Request) -> Response:
        return self._with_standing_headers(request, _answering(self._route)(request))

    def _answer_cdn(self, request: Request) -> Response:
        return resolve.cdn_object(self._site, request)

    def _answer_cas(self, request: Request) -> Response:
        return cas.cas_route(self._site, request)

    def _with_standing_headers(self, request: Request, response: Response) -> Response:
        bucket = _bucket(request.path)
        quota = RATE_QUOTAS[bucket]
        with self._lock:
            self._used[bucket] += 1
            left = max(1, quota - self._used[bucket])
        standing = {
            "RateLimit": f'"{bucket}";r={left};t={RATE_WINDOW_SECONDS}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={quota};w={RATE_WINDOW_SECONDS}',
            "X-Request-Id": f"Root=1-simulated-{next(self._request_ids)}",
        }
        for name, value in standing.items():
            response = response.with_header(name, value)
        return response

    def _route(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        if parts[0] == "api":
            return self._route_api(request, parts[1:])
        address = file_address(request)
        if address is not None:
            verb = address.rest[0]
            if verb in ("resolve", "raw") and len(address.rest) > 2:
                route = resolve.resolve if verb == "resolve" else resolve.raw
                return route(self._site, request, address)
            if verb in ("info", "git-upload-pack", "git-receive-pack"):
                return gitweb.git_route(self._site, request, address)
        raise refusal(request, 404, "Not found")

    def _route_api(self, request: Request, parts: list[str]) -> Response:
        if parts == ["whoami-v2"]:
            return api.whoami(self._site, request)
        if parts == ["agent-harnesses"]:
            return api.agent_harnesses(self._site, request)
        if len(parts) == 1 and parts[0] in ("models", "datasets", "spaces"):
            return api.repo_listing(self._site, request, parts[0][:-1])
        if parts[:1] == ["resolve-cache"] and len(parts) > 4:
            return resolve.resolve_cache(self._site, request, _cache_address(parts[1:]))
        address = api_address(request)
        if address is None:
            raise refusal(request, 404, "Sorry, we can't find the page you are looking for.")
        return api.repo_route(self._site, request, address)


def _answering(route: Answer) -> Answer:
    """The route, with its early answers and what it could not parse turned into answers."""

    def answer(request: Request) -> Response:
        try:
            return route(request)
        except Answered as answered:
            return answered.response
        except ValueError as error:
            return refusal(request, 400, f"Bad request: {type(error).__name__}").response

    return answer


def _bucket(path: str) -> str:
    if path.startswith("/api/") and not path.startswith("/api/resolve-cache/"):
        return "api"
    return "resolvers" if "/resolve" in path else "pages"


def _cache_address(parts: list[str]) -> Address:
    """`{type}s/{id}/{commit}/{path}` read as a resolve address."""
    kind, names = parts[0], parts[1:]
    length = 1 if len(names[1]) == 40 else 2
    prefix = f"api/resolve-cache/{kind}"
    return Address(prefix, kind[:-1], "/".join(names[:length]), ("", *names[length:]))
