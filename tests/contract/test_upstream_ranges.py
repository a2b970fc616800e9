"""Ranges of files from a hub: exactly the bytes that were asked for, or a fault that says what was wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fakes.hub import ZOO_FILES, Fault, HubSimulator, Lfs, faults, put_zoo
from fakes.hub.wire import Request, Response, body_bytes
from hfpeer.errors import EntryNotFound, GatedRepo
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.net.body import Body, SourceFault
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.upstream import Upstream

ZOO = RepoId.parse("acme/zoo")
LARGE = FilePath("model.safetensors")
PLAIN = FilePath("config.json")
IMPATIENT = Timeouts(connect_seconds=5, silence_seconds=0.3)


def content_of(path: str) -> bytes:
    content = ZOO_FILES[path]
    assert isinstance(content, (Lfs, bytes))
    return content.data if isinstance(content, Lfs) else content


WEIGHTS = content_of(LARGE)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def commit(hub: HubSimulator) -> Commit:
    return Commit(put_zoo(hub.storage))


@pytest.fixture
def upstream(hub: HubSimulator) -> Iterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint)
    yield one
    one.close()


@pytest.fixture
def impatient(hub: HubSimulator) -> Iterator[Upstream]:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=IMPATIENT)
    yield one
    one.close()


class Range:
    """A range being read: `got` is what came, also when a fault ended it."""

    def __init__(self, upstream: Upstream, commit: Commit, path: FilePath, start: int, stop: int) -> None:
        self._upstream, self._commit, self._path, self._start, self._stop = upstream, commit, path, start, stop
        self.got = bytearray()

    def open(self) -> Body:
        size_bytes = len(content_of(self._path)) if self._path in ZOO_FILES else self._stop
        return self._upstream.open_range(ZOO, self._commit, self._path, self._start, self._stop, size_bytes=size_bytes)

    def read(self, view_bytes: int = 1 << 20) -> bytes:
        body, buffer = self.open(), memoryview(bytearray(view_bytes))
        try:
            while count := body.readinto(buffer):
                self.got += buffer[:count]
            assert body.readinto(buffer) == 0
        finally:
            body.close()
        return bytes(self.got)


@pytest.mark.parametrize("mode", ["hub", "pinned", "direct"])
@pytest.mark.parametrize("view_bytes", [1000, 1 << 20])
def test_any_range_of_any_file_is_exact(
    hub: HubSimulator, upstream: Upstream, commit: Commit, mode: str, view_bytes: int
) -> None:
    hub.behaviour.resolve_mode = mode
    for start, stop in ((0, len(WEIGHTS)), (0, 1), (1, 70_000), (len(WEIGHTS) - 1, len(WEIGHTS)), (123_456, 2_345_678)):
        assert Range(upstream, commit, LARGE, start, stop).read(view_bytes) == WEIGHTS[start:stop]
    for path, content in ZOO_FILES.items():
        if isinstance(content, bytes):
            assert Range(upstream, commit, FilePath(path), 0, len(content)).read(view_bytes) == content


def test_a_large_file_is_resolved_once_and_its_connections_are_kept(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    for start in range(0, 2_000_000, 200_000):
        Range(upstream, commit, LARGE, start, start + 200_000).read()
    assert len(hub.requests_for("*/resolve/*")) == 1
    assert len(hub.requests_for(listener="cdn")) == 10
    assert hub.connections_accepted == 2
    assert all(record.request.headers["accept-encoding"] == "identity" for record in hub.requests)


def test_eight_threads_share_one_upstream(upstream: Upstream, commit: Commit) -> None:
    starts = range(0, len(WEIGHTS), 100_000)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda s: Range(upstream, commit, LARGE, s, min(s + 100_000, len(WEIGHTS))).read(), starts)
        assert b"".join(parts) == WEIGHTS


def test_an_empty_file_needs_no_request(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    assert Range(upstream, commit, FilePath("empty.txt"), 0, 0).read() == b""
    assert not hub.requests


def gzipped_file() -> Fault:
    """A part of the encoded file, which has another size."""
    return lambda request, answer: faults.with_header("Content-Encoding", "gzip")(
        request, lambda asked: faults.with_header("Content-Range", "bytes 1000-199999/200777")(asked, answer)
    )


WRONG_ANSWERS: dict[str, tuple[Callable[[], Fault], str, bool | None]] = {
    "200 to a range": (faults.ignored_range, "ignores ranges", False),
    "another range": (faults.shifted_content_range, "another range", False),
    "another total": (lambda: faults.with_header("Content-Range", "bytes 1000-199999/5"), "has a file of 5", True),
    "a shorter body": (faults.shortened, "another length", False),
    "a longer body": (faults.lengthened, "another length", False),
    "a part of a file in gzip": (gzipped_file, "encoded", False),
    "416": (faults.range_not_satisfiable, "another size", True),
    "503": (lambda: faults.status(503), "answers 503", False),
    "404 of no hub": (lambda: faults.status(404), "answers 404", None),
    "451": (lambda: faults.status(451), "answers 451", None),
    "no redirect target": (lambda: faults.status(302), "without a Location", False),
    "a redirect elsewhere": (lambda: faults.status(302, headers={"Location": "file:///etc/passwd"}), "no http", False),
    "a broken redirect": (lambda: faults.status(302, headers={"Location": "http://x:port/"}), "Invalid URL", False),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
@pytest.mark.parametrize("mode", ["hub", "direct"])
def test_a_wrong_answer_gives_no_byte(
    hub: HubSimulator, upstream: Upstream, commit: Commit, wrong: str, mode: str
) -> None:
    hub.behaviour.resolve_mode = mode
    make, reason, is_permanent = WRONG_ANSWERS[wrong]
    hub.inject(make(), listener="cdn" if mode == "hub" else "hub", method="GET")
    wanted = Range(upstream, commit, LARGE, 1000, 200_000)
    with pytest.raises(SourceFault, match=reason) as caught:
        wanted.read()
    # What a redirect leads to may be right the next time; the hub itself has said its last word.
    assert wanted.got == b"" and caught.value.is_permanent is (
        mode == "direct" if is_permanent is None else is_permanent
    )


def part(first: int, stop: int) -> Fault:
    """206 with this part of the file, whatever range was asked."""

    def fault(request: Request, answer: faults.Answer) -> Response:
        headers = {**request.headers, "range": f"bytes={first}-{stop - 1}"}
        return answer(replace(request, headers=headers))

    return fault


ODD_PARTS: dict[str, Fault] = {
    "no Content-Range": faults.without_header("Content-Range"),
    "an unknown total": faults.with_header("Content-Range", "bytes 1000-199999/*"),
    "nothing but the total": faults.with_header("Content-Range", f"bytes */{len(WEIGHTS)}"),
    "the unit in capitals": faults.with_header("Content-Range", f"Bytes 1000-199999/{len(WEIGHTS)}"),
    "gzip": faults.gzipped(),
    "more than was asked for": part(500, 200_500),
    "whole blocks": part(0, 262_144),
}


@pytest.mark.parametrize("odd", ODD_PARTS)
def test_a_part_that_has_the_wanted_bytes_is_used(
    hub: HubSimulator, upstream: Upstream, commit: Commit, odd: str
) -> None:
    hub.inject(ODD_PARTS[odd], listener="cdn", method="GET")
    assert Range(upstream, commit, LARGE, 1000, 200_000).read() == WEIGHTS[1000:200_000]


def test_a_part_that_ends_early_gives_what_it_has(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    hub.inject(part(1000, 90_000), listener="cdn", method="GET")
    wanted = Range(upstream, commit, LARGE, 1000, 200_000)
    with pytest.raises(SourceFault, match="broke off"):
        wanted.read()
    assert wanted.got == WEIGHTS[1000:90_000]


def test_a_hub_that_refuses_every_range_is_asked_for_the_whole_file(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    refuse = faults.range_not_satisfiable()
    hub.inject(
        lambda request, answer: refuse(request, answer) if "range" in request.headers else answer(request),
        listener="cdn",
    )
    assert Range(upstream, commit, LARGE, 0, len(WEIGHTS)).read() == WEIGHTS
    assert Range(upstream, commit, LARGE, 0, 1000).read() == WEIGHTS[:1000]
    assert not upstream.takes_ranges


def test_a_source_that_was_wrong_once_is_right_the_next_time(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    for make, _, _ in WRONG_ANSWERS.values():
        with hub.inject(make(), listener="cdn"), pytest.raises(SourceFault):
            Range(upstream, commit, LARGE, 1000, 200_000).read()
        assert Range(upstream, commit, LARGE, 1000, 200_000).read() == WEIGHTS[1000:200_000]


def chunked(request: Request, answer: faults.Answer) -> Response:
    """The whole file in chunks, so that no length is announced."""
    response = faults.ignored_range()(request, answer).without_header("content-length")
    body = body_bytes(response.body)
    return replace(response, body=(), stream=(body[at : at + 70_000] for at in range(0, len(body), 70_000)))


def whole_gzipped(request: Request, answer: faults.Answer) -> Response:
    return faults.gzipped()(request, lambda asked: faults.ignored_range()(asked, answer))


@pytest.mark.parametrize("fault", [faults.ignored_range(), chunked, whole_gzipped], ids=["plain", "chunked", "gzip"])
@pytest.mark.parametrize("mode", ["hub", "direct"])
def test_a_whole_file_is_read_on_from_the_range(
    hub: HubSimulator, upstream: Upstream, commit: Commit, fault: Fault, mode: str
) -> None:
    hub.behaviour.resolve_mode = mode
    hub.inject(fault, listener="cdn" if mode == "hub" else "hub", method="GET")
    assert Range(upstream, commit, LARGE, 0, 100_000).read() == WEIGHTS[:100_000]
    assert Range(upstream, commit, LARGE, 0, len(WEIGHTS)).read() == WEIGHTS
    with pytest.raises(SourceFault, match="ignores ranges") as caught:
        Range(upstream, commit, LARGE, 5000, 100_000).read()
    assert caught.value.ignores_ranges and not caught.value.is_permanent
    for start, stop in ((5000, 100_000), (len(WEIGHTS) - 1, len(WEIGHTS))):
        assert Range(upstream, commit, LARGE, start, stop).read() == WEIGHTS[start:stop]
    body, view = Range(upstream, commit, LARGE, 300_000, 300_010).open(), memoryview(bytearray(100_000))
    passed_over = 0
    while size_bytes := body.pass_over(view):
        passed_over += size_bytes
    assert passed_over == 300_000 and body.readinto(view) == 10 and view[:10] == WEIGHTS[300_000:300_010]
    body.close()


def test_a_whole_file_without_a_length_that_ends_early_broke_off(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    hub.inject(
        lambda request, answer: chunked(request, lambda asked: faults.shortened()(asked, answer)), listener="cdn"
    )
    with pytest.raises(SourceFault, match="broke off"):
        Range(upstream, commit, LARGE, 0, len(WEIGHTS)).read()


def test_an_encoded_file_that_has_no_end_is_a_fault(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    hub.inject(
        lambda request, answer: faults.shortened(20)(request, lambda asked: whole_gzipped(asked, answer)),
        listener="cdn",
    )
    with pytest.raises(SourceFault, match=r"without an end|broke off"):
        Range(upstream, commit, LARGE, 0, len(WEIGHTS)).read()


@pytest.mark.parametrize("reset", [False, True])
def test_what_came_before_a_break_stays_good(
    hub: HubSimulator, upstream: Upstream, commit: Commit, reset: bool
) -> None:
    hub.inject(faults.cut_body_after(1_000_000, reset), listener="cdn", times=1)
    wanted = Range(upstream, commit, LARGE, 500, len(WEIGHTS))
    with pytest.raises(SourceFault, match="broke off") as caught:
        wanted.read()
    assert not caught.value.is_permanent
    assert wanted.got == WEIGHTS[500 : 500 + len(wanted.got)]
    if not reset:
        assert len(wanted.got) == 1_000_000
    rest = Range(upstream, commit, LARGE, 500 + len(wanted.got), len(WEIGHTS)).read()
    assert bytes(wanted.got) + rest == WEIGHTS[500:]


def test_a_body_of_unknown_length_that_ends_early_broke_off(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    def chunked(request: Request, answer: Callable[[Request], Response]) -> Response:
        response = answer(request)
        return replace(response, stream=(part for part in [body_bytes(response.body)[:-1]]), body=())

    hub.inject(chunked, listener="cdn", times=1)
    wanted = Range(upstream, commit, LARGE, 10, 1000)
    with pytest.raises(SourceFault, match="broke off"):
        wanted.read()
    assert wanted.got == WEIGHTS[10:999]
    assert Range(upstream, commit, LARGE, 10, 1000).read() == WEIGHTS[10:1000]


def test_an_expired_address_is_resolved_anew(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    Range(upstream, commit, LARGE, 0, 1000).read()
    hub.inject(faults.expired_signature(), listener="cdn", times=1)
    assert Range(upstream, commit, LARGE, 1000, 2000).read() == WEIGHTS[1000:2000]
    assert len(hub.requests_for("*/resolve/*")) == 2


def test_an_address_that_stays_expired_is_resolved_anew_only_once(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    Range(upstream, commit, LARGE, 0, 1000).read()
    hub.inject(faults.expired_signature(), listener="cdn")
    with pytest.raises(SourceFault, match="answers 403") as caught:
        Range(upstream, commit, LARGE, 1000, 2000).read()
    assert not caught.value.is_permanent, "the hub did not refuse: a later address may do"
    assert len(hub.requests_for("*/resolve/*")) == 2 and len(hub.requests_for(listener="cdn")) == 3


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (faults.too_many_requests(reset_seconds=7), 8),
        (faults.too_many_requests(retry_after="12"), 12),
        (faults.too_many_requests(retry_after="nonsense"), 1),
        (faults.status(503, headers={"Retry-After": "3"}), 3),
    ],
    ids=["RateLimit", "Retry-After", "nonsense", "503"],
)
@pytest.mark.parametrize("listener", ["hub", "cdn"])
def test_the_rest_that_a_hub_asks_for_is_passed_on(
    hub: HubSimulator, upstream: Upstream, commit: Commit, fault: Fault, seconds: float, listener: str
) -> None:
    with hub.inject(fault, listener=listener), pytest.raises(SourceFault) as caught:
        Range(upstream, commit, LARGE, 0, 10).read()
    assert caught.value.retry_after_seconds == seconds and not caught.value.is_permanent


def test_silence_ends_after_the_timeout(hub: HubSimulator, impatient: Upstream, commit: Commit) -> None:
    wanted = Range(impatient, commit, LARGE, 0, len(WEIGHTS))
    with hub.inject(faults.stall_after(100_000), listener="cdn"), pytest.raises(SourceFault, match="fell silent"):
        wanted.read()
    assert wanted.got == WEIGHTS[:100_000]
    with hub.inject(faults.delay()), pytest.raises(SourceFault, match="is silent"):
        wanted.read()


def test_nobody_listening_is_a_passing_fault(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    Range(upstream, commit, LARGE, 0, 10).read()
    with hub.down():
        with pytest.raises(SourceFault, match="cannot be reached") as caught:
            Range(upstream, commit, LARGE, 10, 20).read()
        assert caught.value.is_unreachable and not caught.value.is_permanent
    assert Range(upstream, commit, LARGE, 10, 20).read() == WEIGHTS[10:20]


def test_a_kept_connection_that_died_is_replaced(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    Range(upstream, commit, PLAIN, 0, 22).read()
    hub.inject(faults.cut_before_headers(), times=1)
    assert Range(upstream, commit, PLAIN, 0, 22).read() == content_of(PLAIN)


def test_a_redirect_loop_ends(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    hub.inject(faults.status(302, headers={"Location": f"/acme/zoo/resolve/{commit}/{LARGE}"}))
    with pytest.raises(SourceFault, match="redirects more than"):
        Range(upstream, commit, LARGE, 0, 10).read()
    assert len(hub.requests) <= 11


def test_a_refusal_names_its_reason(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    with pytest.raises(SourceFault) as caught:
        Range(upstream, commit, FilePath("missing.bin"), 0, 10).read()
    assert caught.value.is_permanent and isinstance(caught.value.__cause__, EntryNotFound)
    put_zoo(hub.storage, visibility="gated")
    with pytest.raises(SourceFault) as caught:
        Range(upstream, commit, LARGE, 0, 10).read()
    assert caught.value.is_permanent and isinstance(caught.value.__cause__, GatedRepo)


def test_abort_ends_a_read_that_blocks_in_another_thread(hub: HubSimulator, upstream: Upstream, commit: Commit) -> None:
    hub.inject(faults.stall_after(100_000), listener="cdn")
    body = Range(upstream, commit, LARGE, 0, len(WEIGHTS)).open()
    buffer = memoryview(bytearray(1 << 20))
    ended: list[str] = []
    got = 0
    while got < 100_000:
        got += body.readinto(buffer)

    def read() -> None:
        try:
            body.readinto(buffer)
        except SourceFault as fault:
            ended.append(fault.reason)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    body.abort()
    reader.join(20.0)
    assert ended == ["was aborted"]
    with pytest.raises(SourceFault, match="was aborted"):
        body.readinto(buffer)
    body.close()


def test_a_body_that_is_closed_early_costs_only_its_own_connection(
    hub: HubSimulator, upstream: Upstream, commit: Commit
) -> None:
    body = Range(upstream, commit, LARGE, 0, len(WEIGHTS)).open()
    body.readinto(memoryview(bytearray(10)))
    body.close()
    assert Range(upstream, commit, LARGE, 0, len(WEIGHTS)).read() == WEIGHTS


def test_a_closed_upstream_opens_nothing(upstream: Upstream, commit: Commit) -> None:
    upstream.close()
    with pytest.raises(SourceFault, match="was closed"):
        Range(upstream, commit, LARGE, 0, 10).read()
