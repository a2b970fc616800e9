"""Reads ranges of files from one hub over blocking keep-alive connections: for worker threads.

Range requests as in RFC 9110 §14. The target of a file's redirects is cached, so that a large file is resolved once; if
that URL is refused, the file is resolved again, once. A response is used unless it announces other bytes than the
requested ones; what it does not announce counts as right. A response with more is read from its beginning. Every fault
is a SourceFault; bytes that came before it may be kept. The caller checks digests.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol
from urllib.parse import quote

import httpx

from hfpeer.budgets import MAX_REDIRECTS
from hfpeer.errors import HfpeerError
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import Body, SourceFault
from hfpeer.net.http1 import parse_content_range
from hfpeer.net.lru_cache import LruCache
from hfpeer.upstream.access import (
    USER_AGENT,
    Access,
    BadRedirect,
    after_redirect,
    is_small,
    redirect_target,
)
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.connection.certificates import UnusableCertificates
from hfpeer.upstream.connection.clients import Connections, fault_of
from hfpeer.upstream.responses.rate_limit import RateLimit, Rest
from hfpeer.upstream.responses.refusals import is_transient, refusal
from hfpeer.upstream.responses.unpacking import BadEncoding, Inflater, is_encoded, unpacked_portions

_MAX_REDIRECTS = 4096


@dataclass(frozen=True)
class WantedRange:
    """Bytes `[start, stop)` of a file of `size_bytes` at a commit; `file_url` is its resolve URL."""

    repo: RepoId
    commit: Commit
    file_url: httpx.URL
    start: int
    stop: int
    size_bytes: int


def file_url(access: Access, repo: RepoId, commit: Commit, path: FilePath) -> httpx.URL:
    """The URL at which a hub resolves a file."""
    return access.url(f"/{repo.url_path}/resolve/{commit}/{quote(path, safe='/')}")


class RedirectCache:
    """File URL -> the URL where its redirects ended, for the files resolved last. Thread-safe.

    A signed URL gives the rights of the token that got it, so a cache must serve one identity only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urls: LruCache[httpx.URL, httpx.URL] = LruCache(_MAX_REDIRECTS)

    def find(self, file: httpx.URL) -> httpx.URL | None:
        with self._lock:
            return self._urls.get(file)

    def remember(self, file: httpx.URL, target: httpx.URL) -> None:
        with self._lock:
            self._urls.put(file, target)

    def forget(self, file: httpx.URL) -> None:
        with self._lock:
            self._urls.drop(file)


class RangeAccess(Protocol):
    """Gives the headers with which a URL may be asked."""

    def headers_for(self, url: httpx.URL, /) -> dict[str, str]: ...


class RangeClient:
    """Opens ranges of a hub's files. Thread-safe; keeps and shares its connections."""

    def __init__(
        self,
        name: str,
        timeouts: Timeouts,
        hub_url: str,
        connections: Connections,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._name = name
        self._rate_limit = rate_limit or RateLimit(name)
        self._hub_url = hub_url
        self._connections = connections
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._without_ranges: LruCache[httpx.URL, bool] = LruCache(_MAX_REDIRECTS)
        """The files that the hub gives only as a whole."""
        self.takes_ranges = True
        """Whether the hub answered the latest request for a part with that part."""
        self._client: httpx.Client | None = None
        self._is_closed = False

    def open(self, access: RangeAccess, redirects: RedirectCache, wanted: WantedRange) -> Body:
        """The bytes of a range. Raises SourceFault; its cause is the hub's refusal, if there is one. While the hub
        rests, nothing is sent.

        If the hub ignores a range, the first request for that file fails, so that the caller may ask for more at once;
        later ones are read from the beginning of the file.
        """
        if wanted.size_bytes == 0 or wanted.start >= wanted.stop:
            return EmptyBody()
        if (rest := self._rate_limit.rest(wanted.file_url)) is not None:
            _raise_for_rest(rest)
        known = redirects.find(wanted.file_url)
        if known is not None:
            try:
                response = self._get(access, known, wanted)
                if response.status_code in (200, 206):
                    return self._body(response, wanted)
            except SourceFault as fault:
                if fault.retry_after_seconds is None:
                    redirects.forget(wanted.file_url)
                raise
            response.close()
            redirects.forget(wanted.file_url)
        response = self._resolve(access, wanted)
        if response.status_code in (200, 206) and _is_range(response) and response.request.url != wanted.file_url:
            redirects.remember(wanted.file_url, response.request.url)
        return self._body(response, wanted)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _resolve(self, access: RangeAccess, wanted: WantedRange) -> httpx.Response:
        """The response at the end of the redirects."""
        url = wanted.file_url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(access, url, wanted)
            try:
                target = redirect_target(response)
            except BadRedirect as error:
                response.close()
                raise SourceFault(str(error)) from error
            if target is None:
                if response.status_code != 416:
                    return response
                response.close()  # perhaps it has no ranges: then the whole file is given
                return self._get(access, url, wanted, is_part=False)
            _discard(response)
            url = target
        raise SourceFault(f"redirects more than {MAX_REDIRECTS} times")

    def _get(self, access: RangeAccess, url: httpx.URL, wanted: WantedRange, *, is_part: bool = True) -> httpx.Response:
        """One response, its body unread. A dead kept connection is replaced once. Without `is_part` the whole file is
        requested."""
        client = self._open_client()
        headers = {"Accept-Encoding": "identity", **access.headers_for(url)}
        if is_part:
            headers["Range"] = f"bytes={wanted.start}-{wanted.stop - 1}"
        request = client.build_request("GET", url, headers=headers)
        try:
            try:
                response = client.send(request, stream=True, follow_redirects=False)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                response = client.send(request, stream=True, follow_redirects=False)
        except BadRedirect as error:
            raise SourceFault(str(error)) from error
        except (httpx.InvalidURL, ValueError) as error:
            raise SourceFault("redirects to something that is no URL") from error
        except (httpx.RequestError, RuntimeError) as error:
            # httpx raises RuntimeError after the client is closed.
            is_unreachable = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            reason = after_redirect(wanted.file_url, url, fault_of(error)[0])
            raise SourceFault(reason, is_unreachable=is_unreachable) from error
        if (rest := self._rate_limit.note(wanted.file_url, response)) is not None:
            response.close()
            _raise_for_rest(rest)
        return response

    def _body(self, response: httpx.Response, wanted: WantedRange) -> Body:
        try:
            if response.status_code not in (200, 206):
                self._raise_for_status(response, wanted)
            if wanted.stop - wanted.start < wanted.size_bytes:
                self.takes_ranges = not _is_whole(response)
            if not _is_whole(response):
                return HttpBody(response, wanted.stop - wanted.start, _bytes_before(response, wanted))
            _check_whole(response, wanted)
            if wanted.start > 0 and self._is_first_without_ranges(wanted):
                raise SourceFault("ignores ranges", ignores_ranges=True)
            return HttpBody(response, wanted.stop - wanted.start, wanted.start)
        except BaseException:
            response.close()
            raise

    def _is_first_without_ranges(self, wanted: WantedRange) -> bool:
        """Notes that the hub gives a file only as a whole. Whether that is news."""
        with self._lock:
            was_known = self._without_ranges.get(wanted.file_url) is not None
            self._without_ranges.put(wanted.file_url, True)
            return not was_known

    def _raise_for_status(self, response: httpx.Response, wanted: WantedRange) -> NoReturn:
        status, headers = response.status_code, response.headers
        if is_transient(status):
            raise SourceFault(f"answers {status}")
        if status == 416:
            raise SourceFault("has a file of another size", is_permanent=True)
        if response.request.url.netloc != wanted.file_url.netloc:
            # The hub has just redirected here, so this URL is refused (expired meanwhile), not this node.
            raise SourceFault(f"redirects to a URL that answers {status}")
        reason: HfpeerError = refusal(self._name, status, headers, wanted.repo, wanted.commit)
        raise SourceFault(f"answers {status}", is_permanent=True) from reason

    def _open_client(self) -> httpx.Client:
        with self._lock:
            if self._is_closed:
                raise SourceFault("was closed")
            if self._client is None:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
                try:
                    self._client = self._connections.client(self._hub_url, self._timeouts.httpx, limits)
                except UnusableCertificates as error:
                    raise SourceFault(str(error)) from error
                self._client.headers["User-Agent"] = USER_AGENT
            return self._client


class EmptyBody:
    """No bytes."""

    def readinto(self, view: memoryview) -> int:
        return 0

    def pass_over(self, view: memoryview) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class HttpBody:
    """The body of a response, cut to `size_bytes` after the first `skipped_bytes`: a response with the whole file may
    have more."""

    def __init__(self, response: httpx.Response, size_bytes: int, skipped_bytes: int = 0) -> None:
        self._response = response
        self._skipped_bytes = skipped_bytes
        self._remaining_bytes = size_bytes
        self._chunks = _decoded(response)
        self._chunk = memoryview(b"")
        self._ends_with_range = response.headers.get("content-length") == str(size_bytes)
        self._is_aborted = False

    def readinto(self, view: memoryview) -> int:
        while self.pass_over(view):
            pass
        size = self._take(view, self._remaining_bytes)
        self._remaining_bytes -= size
        return size

    def pass_over(self, view: memoryview) -> int:
        size = self._take(view, self._skipped_bytes)
        self._skipped_bytes -= size
        return size

    def _take(self, view: memoryview, most_bytes: int) -> int:
        """The next bytes, at most `most_bytes`."""
        if self._is_aborted:
            raise SourceFault("was aborted")
        if not len(self._chunk) and most_bytes:
            self._chunk = self._next_chunk()
        size = min(len(view), len(self._chunk), most_bytes)
        view[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size

    def close(self) -> None:
        """Reads a body of known length to its end, which takes no waiting; closes the connection of any other."""
        if self._ends_with_range and not self._remaining_bytes and not self._is_aborted:
            try:
                next(self._chunks, None)
            except (httpx.HTTPError, BadEncoding):
                pass
        self._response.close()

    def abort(self) -> None:
        self._is_aborted = True
        stream = self._response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                # Not the method of SSLSocket, which would discard the TLS state that the reader is using.
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
        except BadEncoding as error:
            raise SourceFault(str(error)) from error
        if not chunk:
            raise SourceFault("broke off")
        return memoryview(chunk)


def _raise_for_rest(rest: Rest) -> NoReturn:
    error = rest.error
    raise SourceFault(error.facts["reason"], retry_after_seconds=rest.seconds) from error


def _is_range(response: httpx.Response) -> bool:
    """Whether a response says which range it has. ModelScope's CDN sends ranges with the status 200."""
    return "content-range" in response.headers


def _is_whole(response: httpx.Response) -> bool:
    """Whether a response has the whole file, not a range of it."""
    return response.status_code == 200 and not _is_range(response)


def _check_whole(response: httpx.Response, wanted: WantedRange) -> None:
    """Raises SourceFault if a response with the whole file announces another length. It need not announce any."""
    length = response.headers.get("content-length", "")
    if not is_encoded(response) and length not in ("", str(wanted.size_bytes)):
        raise _other_size(length)


def _bytes_before(response: httpx.Response, wanted: WantedRange) -> int:
    """How many bytes of a response with a part of the file come before the wanted ones. Raises SourceFault if it
    announces a part that does not begin with them or before. It need not announce anything."""
    announced = parse_content_range(response.headers.get("content-range", "").strip())
    start, stop, total = announced or (wanted.start, wanted.stop, None)
    if total not in (None, wanted.size_bytes):
        raise SourceFault("sends a part of an encoded file") if is_encoded(response) else _other_size(str(total))
    # A part that ends early is used as well: the next request is for the rest.
    if not start <= wanted.start < stop or (start < wanted.start and stop < wanted.stop):
        raise SourceFault("sends another range")
    if not is_encoded(response) and response.headers.get("content-length") not in (None, str(stop - start)):
        raise SourceFault("sends a range of another length")
    return wanted.start - start


def _other_size(length: str) -> SourceFault:
    return SourceFault(f"has a file of {length} bytes", is_permanent=True)


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    """The body. Raises BadEncoding, and httpx's errors."""
    if not is_encoded(response):
        return response.iter_raw()
    return unpacked_portions(Inflater(response), response.iter_raw())


def _discard(response: httpx.Response) -> None:
    """Releases the connection of a redirect."""
    try:
        if is_small(response.headers):
            for _ in response.iter_raw():
                pass
    except httpx.HTTPError:
        pass
    finally:
        response.close()
