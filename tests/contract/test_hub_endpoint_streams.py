"""Files that are given out while they are fetched: in order, to several, from the middle, never wrong to the end."""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Endpoint, Said, Stage, endpoint_of, staged
from fakes.hub import HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.machine import Machines
from fakes.waiting import wait_until

SIZE = 12_000_000
SLOW = 3_000_000.0
"""Bytes per second of a hub whose file takes four seconds."""
IN_FLIGHT = 5 * 1024 * 1024
"""What four connections may have begun of their pieces when they are cut, and a little more."""
LINGERS_BRIEFLY = """
from hfpeer.endpoint.files import streams
streams.LINGER_SECONDS = 2.0
"""
_numbers = count(1)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("streams")) as machines:
        yield machines


@pytest.fixture(scope="module")
def standing(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("clients"), machines) as stage:
        yield stage


class File:
    """A fresh file on the hub and where it is."""

    def __init__(self, hub: HubSimulator, size_bytes: int = SIZE) -> None:
        self.repo = f"acme/file-{next(_numbers)}"
        self.body = noise(size_bytes, self.repo)
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        commit = hub.put_repo("model", self.repo, {"w.bin": Lfs(self.body)})
        self.target = f"/{self.repo}/resolve/{commit}/w.bin"


@pytest.fixture
def stage(standing: Stage) -> Iterator[Stage]:
    standing.hub.clear()
    yield standing
    standing.hub.faults.clear()


def cached(stage: Stage, file: File) -> list[Path]:
    return list(stage.machine.cache.glob(f"*/blobs/{file.sha256}"))


def test_bytes_flow_before_the_hub_has_given_all(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
    with stage.endpoint.open("GET", file.target) as answer:
        first = answer.read(200_000)
        assert stage.hub.body_bytes_sent(listener="cdn") < SIZE / 2
        assert first + answer.read() == file.body
    wait_until(lambda: cached(stage, file), "the file is in the cache")
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 1.05


def test_a_slow_hub_is_followed_byte_by_byte(stage: Stage) -> None:
    file = File(stage.hub, 2_000_000)
    stage.hub.inject(faults.throttle(150_000, is_shared=True), listener="cdn")
    with stage.endpoint.open("GET", file.target) as answer:
        assert answer.read(100_000) == file.body[:100_000]
    assert stage.hub.body_bytes_sent(listener="cdn") < 1_500_000


def test_a_range_in_the_middle_comes_first(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
    with stage.endpoint.open("GET", file.target) as whole:
        whole.read(1000)
        said = stage.endpoint.get(file.target, Range="bytes=10000000-10099999")
        assert (said.status, said.body) == (206, file.body[10_000_000:10_100_000])
        assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 0.8
        assert whole.read() == file.body[1000:]


def test_many_callers_share_one_transfer(stage: Stage) -> None:
    file = File(stage.hub)
    ranges = [None, None, "bytes=0-", "bytes=3000000-", "bytes=6000000-6999999", "bytes=-100000"]

    def ask(asked: str | None) -> Said:
        return stage.endpoint.get(file.target, **({"Range": asked} if asked else {}))

    with ThreadPoolExecutor(len(ranges)) as pool:
        said = list(pool.map(ask, ranges))
    assert [answer.is_whole for answer in said] == [True] * len(ranges)
    assert [answer.body for answer in said] == [
        file.body,
        file.body,
        file.body,
        file.body[3_000_000:],
        file.body[6_000_000:7_000_000],
        file.body[-100_000:],
    ]
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 1.05


def test_a_client_that_disconnects_stops_no_other_and_loses_nothing(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
    done: list[Said] = []
    other = threading.Thread(target=lambda: done.append(stage.endpoint.get(file.target)))
    with stage.endpoint.open("GET", file.target) as answer:
        other.start()
        answer.read(500_000)
    other.join(30)
    assert done[0].body == file.body
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 1.05


@pytest.mark.slow
def test_a_fetch_without_readers_stops_after_a_while_and_continues_where_it_was(
    machines: Machines, stage: Stage
) -> None:
    machine = machines.make("hasty", upstreams=f"origin={stage.hub.endpoint}")
    machine.start_changed(LINGERS_BRIEFLY)
    endpoint = Endpoint(f"http://{machine.status().listeners['endpoint']}")
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW / 6, is_shared=True), listener="cdn")
    with endpoint.open("GET", file.target) as answer:
        answer.read(1_000_000)
    wait_until(lambda: all(record.is_finished for record in stage.hub.requests), "the fetch has stopped", 25)
    before = stage.hub.body_bytes_sent(listener="cdn")
    assert before < SIZE
    stage.hub.faults.clear()
    assert endpoint.get(file.target).body == file.body
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE + IN_FLIGHT


# Wrong bytes


@pytest.mark.parametrize("at", [0, 5_000_000, SIZE - 1], ids=["first", "middle", "last"])
def test_a_corrupt_transfer_never_makes_a_complete_file(stage: Stage, at: int) -> None:
    file = File(stage.hub)
    fault = stage.hub.inject(faults.corrupted(at), listener="cdn")
    said = stage.endpoint.get(file.target)
    assert not said.is_whole or said.status != 200
    assert len(said.body) < SIZE
    assert cached(stage, file) == []
    stage.hub.faults.clear()
    assert fault is not None
    rest = f"bytes={len(said.body)}-"
    again = stage.endpoint.get(file.target, Range=rest)
    if said.body != file.body[: len(said.body)]:
        assert again.status == 200, "who has wrong bytes must not get only the rest"
    assert again.body == (file.body if again.status == 200 else file.body[len(said.body) :])


def test_a_client_with_wrong_bytes_that_refuses_the_whole_is_never_sent_only_the_rest(stage: Stage) -> None:
    """As `curl -C -` does: it takes nothing but a 206, and comes again with what it had."""
    file = File(stage.hub)
    stage.hub.inject(faults.corrupted(0), listener="cdn")
    said = stage.endpoint.get(file.target)
    assert said.body and said.body[0] != file.body[0]
    stage.hub.faults.clear()
    rest: dict[str, Any] = {"Range": f"bytes={len(said.body)}-"}
    for _ in range(3):
        with stage.endpoint.open("GET", file.target, **rest) as answer:
            assert answer.status == 200
        wait_until(lambda: cached(stage, file), "the file is in the cache")
    assert stage.endpoint.get(file.target).body == file.body
    assert stage.endpoint.get(file.target, **rest).status == 206, "who has been given the whole may have ranges again"


def test_a_lying_mirror_costs_the_caller_a_broken_connection_and_then_the_whole_is_right(
    machines: Machines, tmp_path: Path
) -> None:
    with HubSimulator() as hub, HubSimulator(mirror_of=hub) as mirror:
        machine = machines.make("lied-to", upstreams=f"mirror={mirror.endpoint},origin={hub.endpoint}")
        endpoint = endpoint_of(machine)
        file = File(hub)
        mirror.inject(faults.corrupted(100_000, 10), listener="cdn")
        body, tries = b"", 0
        while len(body) < SIZE and tries < 6:
            tries += 1
            asked = {"Range": f"bytes={len(body)}-"} if body else {}
            said = endpoint.get(file.target, **asked)
            assert said.status in (200, 206)
            body = said.body if said.status == 200 else body + said.body
        assert body == file.body
        machine.stop()


def test_the_end_of_a_file_comes_before_the_rest(stage: Stage) -> None:
    """Readers of zip and parquet files ask for it first."""
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
    assert stage.endpoint.get(file.target, Range="bytes=-65536").body == file.body[-65536:]
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 0.8
    assert cached(stage, file) == []
    assert stage.endpoint.get(file.target).body == file.body
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 1.05


def test_ranges_that_make_a_whole_file_wait_for_all_of_it_in_one_place(stage: Stage) -> None:
    """However the ranges are cut: one of them is not answered to its end before the whole is verified."""
    file = File(stage.hub)
    stage.hub.inject(faults.corrupted(5_000_000), listener="cdn")
    cuts = [0, 1_000_000, 4_000_000, 7_000_000, 11_000_000, SIZE]
    ranges = [f"bytes={start}-{stop - 1}" for start, stop in pairwise(cuts)]
    with ThreadPoolExecutor(len(ranges)) as pool:
        said = list(pool.map(lambda asked: stage.endpoint.get(file.target, Range=asked), ranges))
    assert not all(answer.is_whole and answer.status == 206 for answer in said)
    assert cached(stage, file) == []


@pytest.mark.slow
def test_a_client_that_has_wrong_bytes_from_one_connection_does_not_finish_over_another(
    machines: Machines, tmp_path: Path
) -> None:
    """As aria2 does it; the mirror lies and the origin, which comes back later, does not."""
    with HubSimulator() as hub, HubSimulator(mirror_of=hub) as mirror:
        machine = machines.make("lied-to-twice", upstreams=f"mirror={mirror.endpoint},origin={hub.endpoint}")
        endpoint = endpoint_of(machine)
        file = File(hub, 5 * SIZE)
        late = 4 * SIZE + 1
        assert endpoint.head(file.target).status == 200
        mirror.inject(faults.corrupted(100_000, 10), listener="cdn")
        mirror.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
        with hub.down():
            first = endpoint.get(file.target, Range="bytes=0-999999")
        assert (first.status, first.is_whole) == (206, True) and first.body != file.body[:1_000_000]
        with mirror.down(), endpoint.open("GET", file.target, Range=f"bytes={late}-") as answer:
            second = answer.read(100_000)
            assert second == file.body[late : late + 100_000], "what it got over this connection is right"
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()
        again = endpoint.get(file.target, Range=f"bytes={late}-")
        assert (again.status, again.body) == (200, file.body)
        machine.stop()


# What others put into the cache


def test_a_file_of_another_program_is_verified_before_its_end_is_sent(stage: Stage) -> None:
    file, wrong = File(stage.hub), File(stage.hub)
    for one, body in ((file, file.body), (wrong, b"\0" * SIZE)):
        blobs = stage.machine.cache / f"models--{one.repo.replace('/', '--')}" / "blobs"
        blobs.mkdir(parents=True)
        (blobs / one.sha256).write_bytes(body)
    assert stage.endpoint.get(file.target).body == file.body
    assert stage.hub.body_bytes_sent(listener="cdn") == 0
    said = stage.endpoint.get(wrong.target)
    assert not said.is_whole
    again = stage.endpoint.get(wrong.target, Range=f"bytes={len(said.body)}-")
    assert (again.status, again.body) == (200, wrong.body)


# Hubs that fail


def test_a_hub_that_dies_in_the_middle_costs_only_the_bytes_in_flight(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.inject(faults.throttle(SLOW * 2, is_shared=True), listener="cdn")
    with stage.endpoint.open("GET", file.target) as answer:
        body = answer.read(4_000_000)
        with stage.hub.down():
            pass
        body += answer.read()
    assert body == file.body
    assert stage.hub.body_bytes_sent(listener="cdn") < SIZE * 1.5


@pytest.mark.slow
def test_a_daemon_that_is_killed_goes_on_where_it_was(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "killed") as stage:
        file = File(stage.hub)
        stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
        with stage.endpoint.open("GET", file.target) as answer:
            answer.read(6_000_000)
            stage.machine.kill()
        given = stage.hub.body_bytes_sent(listener="cdn")
        stage.hub.faults.clear()
        endpoint = endpoint_of(stage.machine)
        said = endpoint.get(file.target, Range="bytes=6000000-")
        assert (said.status, said.body) == (206, file.body[6_000_000:])
        assert stage.hub.body_bytes_sent(listener="cdn") - given < SIZE - 3_000_000
        stage.machine.stop()


def test_a_signed_url_that_expires_is_requested_again(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.behaviour.signed_url_seconds = 1
    stage.hub.inject(faults.throttle(SLOW, is_shared=True), listener="cdn")
    said = stage.endpoint.get(file.target)
    stage.hub.behaviour.signed_url_seconds = 3600
    assert said.body == file.body
    assert 403 in {record.status for record in stage.hub.requests_for(listener="cdn")}


def test_a_busy_hub_is_waited_for(stage: Stage) -> None:
    file = File(stage.hub)
    stage.hub.inject(faults.too_many_requests(retry_after="1"), method="GET", path="*/w.bin", times=4)
    assert stage.endpoint.get(file.target).body == file.body


def test_a_file_without_a_source_is_answered_with_retry_later(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "in-vain", HFPEER_PATIENCE="1") as stage:
        file = File(stage.hub)
        assert stage.endpoint.head(file.target).status == 200
        with stage.hub.down():
            said = stage.endpoint.get(file.target)
        assert said.status == 429 or not said.is_whole
        assert said.status != 429 or int(said.headers["retry-after"]) > 0
        assert stage.endpoint.get(file.target).body == file.body
        stage.machine.stop()


def test_a_file_that_only_a_peer_has_streams_from_it(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "holder") as stage:
        file = File(stage.hub)
        assert stage.endpoint.get(file.target).body == file.body
        wait_until(lambda: stage.machine.found("model", "ls", "-r", file.repo), "the holder has it")
        seeker = machines.make("seeker", upstreams=f"origin={stage.hub.endpoint}", peers=[stage.machine.address])
        with stage.hub.down():
            endpoint = endpoint_of(seeker)
            assert endpoint.get(file.target).body == file.body
            assert endpoint.head(file.target.replace("w.bin", "no.bin")).status == 404
            api = f"/api/models/{file.repo}"
            commit = file.target.split("/")[-2]
            assert [entry["path"] for entry in endpoint.get(f"{api}/tree/{commit}").document] == ["w.bin"]
            assert endpoint.get(f"{api}/revision/{commit}").document["siblings"] == [{"rfilename": "w.bin"}]
            assert endpoint.get(api).status == 503, "nobody knows what main is"
        assert seeker.received_bytes() == {"peer": SIZE}
        seeker.stop()
        stage.machine.stop()


@pytest.mark.slow
def test_a_listing_of_all_refs_has_main_from_a_peer(machines: Machines, tmp_path: Path) -> None:
    with staged(tmp_path, machines, "told") as stage:
        file = File(stage.hub)
        assert stage.endpoint.get(f"/api/models/{file.repo}/refs").status == 200
        assert stage.endpoint.get(file.target).body == file.body
        wait_until(lambda: stage.machine.found("model", "ls", "-r", file.repo), "the holder has it")
        asking = machines.make("asking", upstreams=f"origin={stage.hub.endpoint}", peers=[stage.machine.address])
        with stage.hub.down():
            refs = endpoint_of(asking).get(f"/api/models/{file.repo}/refs").document
        assert [(ref["name"], ref["targetCommit"]) for ref in refs["branches"]] == [
            ("main", file.target.split("/")[-2])
        ]
        asking.stop()
        stage.machine.stop()
