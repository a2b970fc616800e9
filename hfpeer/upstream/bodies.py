"""Ranges of files from one hub, over blocking keep-alive connections: for worker threads.

A range is asked where the file's redirects ended the last time, so that a large file is resolved once; when that
address is refused, it is resolved anew, once. An answer is given on only if it announces exactly the bytes that
were asked for, unencoded; whatever is wrong is a SourceFault, and bytes that came before it are good as far as HTTP
can say. Whether they are the right bytes is decided by whoever hashes them.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote

import httpx

from hfpeer.errors import AccessDenied, HfpeerError, NotFound
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.upstream.access import (
    MAX_REDIRECTS,
    USER_AGENT,
    Access,
    BadRedirect,
    is_small,
    redirect_target,
    without_cookies,
)
from hfpeer.upstream.api import UNUSABLE_ENVIRONMENT, Timeouts
from hfpeer.upstream.refusals import is_passing, refusal, rest_seconds
from hfpeer.wire import Body, SourceFault

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_MAX_PLACES = 4096


@dataclass(frozen=True)
class WantedRange:
    """Bytes `[start, stop)` of a file of `size_bytes` at a commit; `file_url` is its resolve address."""

    repo: RepoId
    commit: Commit
    file_url: httpx.URL
    start: int
    stop: int
    size_bytes: int


def file_url(access: Access, repo: RepoId, commit: Commit, path: FilePath) -> httpx.URL:
    """The address at which a hub resolves a file."""
    return access.url(f"/{repo.url_path}/resolve/{commit}/{quote(path, safe='/')}")


class Places:
    """Where the redirects of files ended, the most recently found ones. Thread-safe.

    Signed addresses are as good as the token that got them: one memory must serve one identity only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urls: OrderedDict[httpx.URL, httpx.URL] = OrderedDict()

    def find(self, file: httpx.URL) -> httpx.URL | None:
        with self._lock:
            return self._urls.get(file)

    def remember(self, file: httpx.URL, place: httpx.URL) -> None:
        with self._lock:
            self._urls[file] = place
            self._urls.move_to_end(file)
            if len(self._urls) > _MAX_PLACES:
                self._urls.popitem(last=False)

    def forget(self, file: httpx.URL) -> None:
        with self._lock:
            self._urls.pop(file, None)


class Bodies:
    """Opens ranges of a hub's files. Thread-safe; connections are kept and shared."""

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self._name = name
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._is_closed = False

    def open(self, access: Access, places: Places, wanted: WantedRange) -> Body:
        """The bytes of a range. Raises SourceFault; its cause is the hub's refusal, if it is one."""
        if wanted.size_bytes == 0 or wanted.start >= wanted.stop:
            return EmptyBody()
        known = places.find(wanted.file_url)
        if known is not None:
            try:
                response = self._get(access, known, wanted)
                if response.status_code in (200, 206):
                    return self._body(response, wanted)
            except SourceFault:
                places.forget(wanted.file_url)
                raise
            response.close()
            places.forget(wanted.file_url)
        response = self._resolve(access, wanted)
        if response.status_code == 206 and response.request.url != wanted.file_url:
            places.remember(wanted.file_url, response.request.url)
        return self._body(response, wanted)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _resolve(self, access: Access, wanted: WantedRange) -> httpx.Response:
        """The answer at the end of the redirects."""
        url = wanted.file_url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(access, url, wanted)
            try:
                target = redirect_target(response)
            except BadRedirect as error:
                response.close()
                raise SourceFault(str(error)) from error
            if target is None:
                return response
            _leave(response)
            url = target
        raise SourceFault(f"redirects more than {MAX_REDIRECTS} times")

    def _get(self, access: Access, url: httpx.URL, wanted: WantedRange) -> httpx.Response:
        """One answer, its body unread. A kept connection that turns out to be dead is replaced once."""
        client = self._open_client()
        headers = {
            "Range": f"bytes={wanted.start}-{wanted.stop - 1}",
            "Accept-Encoding": "identity",
            **access.headers_for(url),
        }
        request = client.build_request("GET", url, headers=headers)
        try:
            try:
                return client.send(request, stream=True, follow_redirects=False)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                return client.send(request, stream=True, follow_redirects=False)
        except httpx.TimeoutException as error:
            raise SourceFault("is silent", is_unreachable=isinstance(error, httpx.ConnectTimeout)) from error
        except (httpx.RequestError, RuntimeError) as error:
            # httpx raises RuntimeError once the client is closed.
            reason = f"cannot be reached ({str(error) or type(error).__name__})"
            raise SourceFault(reason, is_unreachable=isinstance(error, httpx.ConnectError)) from error

    def _body(self, response: httpx.Response, wanted: WantedRange) -> Body:
        try:
            if response.status_code not in (200, 206):
                self._refuse(response, wanted)
            _check_answer(response, wanted)
            return HttpBody(response, wanted.stop - wanted.start)
        except BaseException:
            response.close()
            raise

    def _refuse(self, response: httpx.Response, wanted: WantedRange) -> NoReturn:
        status, headers = response.status_code, response.headers
        if is_passing(status):
            raise SourceFault(f"answers {status}", retry_after_seconds=rest_seconds(headers))
        if status == 416:
            raise SourceFault("has a file of another size", is_permanent=True)
        if status in (401, 403) and response.request.url.netloc != wanted.file_url.netloc:
            # The hub has just sent us there: it is the address that is refused (expired on the way), not we.
            raise SourceFault(f"sends to an address that answers {status}")
        reason: HfpeerError = refusal(self._name, status, headers, wanted.repo, wanted.commit)
        is_permanent = isinstance(reason, (NotFound, AccessDenied))
        raise SourceFault(f"answers {status}", is_permanent=is_permanent) from reason

    def _open_client(self) -> httpx.Client:
        with self._lock:
            if self._is_closed:
                raise SourceFault("was closed")
            if self._client is None:
                try:
                    self._client = self._new_client()
                except UNUSABLE_ENVIRONMENT as error:
                    raise SourceFault(f"cannot be asked: {error}") from error
            return self._client

    def _new_client(self) -> httpx.Client:
        return httpx.Client(
            timeout=self._timeouts.httpx,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            cookies=without_cookies(),
            headers={"User-Agent": USER_AGENT},
        )


class EmptyBody:
    """No bytes."""

    def readinto(self, view: memoryview) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class HttpBody:
    """The body of an answer, of exactly `size_bytes`; what an answer to the whole file has beyond them is not read."""

    def __init__(self, response: httpx.Response, size_bytes: int) -> None:
        self._response = response
        self._left_bytes = size_bytes
        self._chunks: Iterator[bytes] = response.iter_raw()
        self._chunk = memoryview(b"")
        self._ends_with_range = response.headers.get("content-length") == str(size_bytes)
        self._is_aborted = False

    def readinto(self, view: memoryview) -> int:
        if self._is_aborted:
            raise SourceFault("was aborted")
        if not len(self._chunk) and self._left_bytes:
            self._chunk = self._next_chunk()
        size = min(len(view), len(self._chunk), self._left_bytes)
        view[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        self._left_bytes -= size
        return size

    def close(self) -> None:
        """Reads to the end of an answer whose end is known, which takes no waiting; any other connection is closed."""
        if self._ends_with_range and not self._left_bytes and not self._is_aborted:
            try:
                next(self._chunks, None)
            except httpx.HTTPError:
                pass
        self._response.close()

    def abort(self) -> None:
        self._is_aborted = True
        stream = self._response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                # Not the method of SSLSocket, which would take the TLS state away from under the reader.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass

    def _next_chunk(self) -> memoryview:
        try:
            chunk = next(self._chunks, b"")
        except httpx.TimeoutException as error:
            raise SourceFault("fell silent") from error
        except (httpx.RequestError, httpx.StreamError) as error:
            raise SourceFault("was aborted" if self._is_aborted else "broke off") from error
        if not chunk:
            raise SourceFault("broke off")
        return memoryview(chunk)


def _check_answer(response: httpx.Response, wanted: WantedRange) -> None:
    """Raises SourceFault unless the answer announces the wanted bytes and nothing else of the file."""
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise SourceFault("sends an encoded body")
    length = response.headers.get("content-length")
    if response.status_code == 200:
        if wanted.start > 0:
            raise SourceFault("ignores ranges")
        if length != str(wanted.size_bytes):
            raise SourceFault("sends a file of another length")
        return
    announced = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if announced is None:
        raise SourceFault("answers a range without saying which")
    first, last, total = map(int, announced.groups())
    if total != wanted.size_bytes:
        raise SourceFault(f"has a file of {total} bytes", is_permanent=True)
    if (first, last) != (wanted.start, wanted.stop - 1):
        raise SourceFault("answers with another range")
    if length not in (None, str(wanted.stop - wanted.start)):
        raise SourceFault("answers a range with another length")


def _leave(response: httpx.Response) -> None:
    """Gives a redirect's connection back."""
    try:
        if is_small(response.headers):
            response.read()
    except httpx.HTTPError:
        pass
    finally:
        response.close()
