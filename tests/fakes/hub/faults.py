"""Everything that can go wrong between a client and a hub, as wrappers around the right answer.

A fault takes the request and a function that gives the right answer, and returns what is sent instead. Owns
breaking. Must never know a route, nor choose which request to strike.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from .wire import (
    ConnectionCut,
    Request,
    Response,
    body_bytes,
    body_length,
    cut_body,
    text_response,
)

Answer = Callable[[Request], Response]
Fault = Callable[[Request, Answer], Response]
LONGEST_PAUSE_SECONDS = 120.0


class Pause:
    """A wait that ends when released, or after `seconds`."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = LONGEST_PAUSE_SECONDS if seconds is None else seconds
        self._released = threading.Event()

    def wait(self) -> None:
        self._released.wait(self._seconds)

    def release(self) -> None:
        self._released.set()


def _altered(alter: Callable[[Response], Response]) -> Fault:
    return lambda request, answer: alter(answer(request))


# --- the connection ---------------------------------------------------------------------------------------------


def cut_body_after(size_bytes: int, reset: bool = False) -> Fault:
    """Close (or reset) the connection after that many bytes of the body."""

    def cut() -> None:
        raise ConnectionCut(reset)

    return _altered(lambda response: replace(response, marks=(*response.marks, (size_bytes, cut))))


def cut_before_headers(reset: bool = False) -> Fault:
    """Close (or reset) the connection without an answer."""

    def fault(request: Request, answer: Answer) -> Response:
        raise ConnectionCut(reset)

    return fault


def delay(seconds: float | None = None) -> Fault:
    """Be silent before the headers, for that long or until released."""
    pause = Pause(seconds)

    def fault(request: Request, answer: Answer) -> Response:
        pause.wait()
        return answer(request)

    fault.pause = pause  # type: ignore[attr-defined]
    return fault


def stall_after(size_bytes: int, seconds: float | None = None) -> Fault:
    """Be silent after that many bytes of the body, for that long or until released; then go on."""
    pause = Pause(seconds)

    def fault(request: Request, answer: Answer) -> Response:
        response = answer(request)
        return replace(response, marks=(*response.marks, (size_bytes, pause.wait)))

    fault.pause = pause  # type: ignore[attr-defined]
    return fault


def throttle(bytes_per_second: float, is_shared: bool = False) -> Fault:
    """Send bodies at that rate: each, or all of them together."""
    shared = _Pacer(bytes_per_second)
    chunk_bytes = int(min(max(bytes_per_second / 50, 1), 256 * 1024))

    def slow_down(response: Response) -> Response:
        pacer = shared if is_shared else _Pacer(bytes_per_second)
        return replace(response, pace=pacer.wait, chunk_bytes=chunk_bytes)

    return _altered(slow_down)


class _Pacer:
    """Lets bytes through at a rate."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, size_bytes: int) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + size_bytes / self._rate
        time.sleep(self._free_at - now)


# --- status -----------------------------------------------------------------------------------------------------


def status(code: int, text: str = "", headers: dict[str, str] | None = None) -> Fault:
    """Answer with that status, whatever was asked: 503, 500, 404 without an error code..."""
    return lambda request, answer: text_response(code, text or f"status {code} on purpose", headers)


def too_many_requests(reset_seconds: int | None = None, retry_after: str | None = None) -> Fault:
    """429, with the Hub's `RateLimit` header or with `Retry-After`, or with neither."""
    headers = {}
    if reset_seconds is not None:
        headers["RateLimit"] = f'"resolvers";r=0;t={reset_seconds}'
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return status(429, "We had to rate limit you", headers)


def range_not_satisfiable() -> Fault:
    """416, whatever range was asked."""

    def fault(request: Request, answer: Answer) -> Response:
        whole = answer(request.without_header("range"))
        return text_response(416, "", {"Content-Range": f"bytes */{body_length(whole.body)}"})

    return fault


def expired_signature() -> Fault:
    """403 as the CDN answers an address that is no longer valid."""
    body = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>'
    return status(403, body, {"Content-Type": "application/xml"})


# --- headers ----------------------------------------------------------------------------------------------------


def without_header(*names: str) -> Fault:
    """Leave headers out, such as X-Repo-Commit, or ETag and X-Linked-ETag."""

    def strip(response: Response) -> Response:
        for name in names:
            response = response.without_header(name)
        return response

    return _altered(strip)


def with_header(name: str, value: str) -> Fault:
    """Send a header with another value: a Content-Length on a redirect's HEAD, a Location, a Link..."""
    return _altered(lambda response: response.with_header(name, value))


def shifted_content_range(by_bytes: int = 1) -> Fault:
    """206 that claims to be another range than asked for; the bytes are those asked for."""

    def shift(response: Response) -> Response:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.header("content-range") or "")
        if match is None:
            return response
        start, last, size = map(int, match.groups())
        return response.with_header("Content-Range", f"bytes {start + by_bytes}-{last + by_bytes}/{size}")

    return _altered(shift)


# --- bodies -----------------------------------------------------------------------------------------------------


def ignored_range() -> Fault:
    """200 with the whole file, whatever range was asked."""
    return lambda request, answer: answer(request.without_header("range"))


def gzipped() -> Fault:
    """The body compressed, as a careless proxy does."""

    def compress(response: Response) -> Response:
        squeezed = replace(response, body=(gzip.compress(body_bytes(response.body), 1),))
        return squeezed.without_header("content-length").with_header("Content-Encoding", "gzip")

    return _altered(compress)


def corrupted(at: int = 0, count: int = 1) -> Fault:
    """Bytes [at, at + count) of the *file* inverted, length unchanged; a range without them stays right."""

    def corrupt(response: Response) -> Response:
        match = re.match(r"bytes (\d+)-", response.header("content-range") or "")
        first = int(match.group(1)) if match else 0
        size = body_length(response.body)
        start, stop = (min(max(offset - first, 0), size) for offset in (at, at + count))
        flipped = bytes(byte ^ 0xFF for byte in body_bytes(cut_body(response.body, start, stop)))
        before, after = cut_body(response.body, 0, start), cut_body(response.body, stop, size)
        return replace(response, body=(*before, flipped, *after))

    return _altered(lambda response: corrupt(response) if response.status in (200, 206) else response)


def shortened(by_bytes: int = 1) -> Fault:
    """A body that ends early, with a Content-Length to match."""
    return _altered(
        lambda response: replace(
            response.without_header("content-length"),
            body=cut_body(response.body, 0, body_length(response.body) - by_bytes),
        )
    )


def lengthened(by_bytes: int = 1) -> Fault:
    """A body with bytes too many, with a Content-Length to match."""
    return _altered(
        lambda response: replace(response.without_header("content-length"), body=(*response.body, b"\0" * by_bytes))
    )


def truncated_listing(keep: int) -> Fault:
    """A JSON array that ends after `keep` entries, with no next page."""

    def truncate(response: Response) -> Response:
        entries = json.loads(body_bytes(response.body))[:keep]
        return replace(response.without_header("link"), body=(json.dumps(entries).encode(),))

    return _altered(truncate)


def substituted(data: bytes) -> Fault:
    """Another body, the same headers except the length: a forged listing, a foreign file."""
    return _altered(lambda response: replace(response.without_header("content-length"), body=(data,)))


def afterwards(action: Callable[[], object]) -> Fault:
    """The right answer; but before it is sent something happens, such as the branch moving."""

    def fault(request: Request, answer: Answer) -> Response:
        response = answer(request)
        action()
        return response

    return fault
