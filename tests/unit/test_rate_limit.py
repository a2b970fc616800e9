"""The rests that a hub asks for: how long, for which requests, and the listeners that are told."""

from __future__ import annotations

import httpx
import pytest

from hfpeer.budgets import MAX_HEARD_LIMITS, MAX_RATE_LIMIT_SECONDS
from hfpeer.errors import CorruptData, RateLimited
from hfpeer.peers.protocol.messages import NodeMessage
from hfpeer.upstream.responses.rate_limit import HEARD_AGAIN_SECONDS, TRIAL_SECONDS, RateLimit, Rest, Rests
from hfpeer.upstream.upstream import Upstream
from hfpeer.upstream.upstreams import Upstreams

API, FILE, GIT = (
    httpx.URL("https://hub.test" + path)
    for path in ("/api/models/acme/m", "/acme/m/resolve/main/a.txt", "/acme/m.git/info/refs")
)
NOON = "Mon, 05 Jan 2026 12:00:00 GMT"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> RateLimit:
    return RateLimit("hub", clock)


def answer(status: int = 429, /, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def seconds(limit: RateLimit, url: httpx.URL = API) -> float:
    rest = limit.rest(url)
    return rest.seconds if rest is not None else 0.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "55"}, 55.0),
        ({"Retry_After": "Mon, 05 Jan 2026 12:02:00 GMT", "Date": NOON}, 120.0),
        ({"Retry_After": "Monday, 05-Jan-26 12:02:00 GMT", "Date": NOON}, 120.0),
        ({"Retry_After": "Mon Jan  5 12:02:00 2026", "Date": NOON}, 120.0),
        ({"RateLimit": '"api";r=0;t=55', "Retry_After": "5"}, 56.0),
        ({"RateLimit": '"fixed window";r=0;t=200'}, 201.0),
        ({"RateLimit": '"api";r=3;t=200', "Retry_After": "5"}, 5.0),
        ({"RateLimit": "limit=100, remaining=0, reset=4", "Retry_After": "9"}, 5.0),
        ({"RateLimit_Limit": "100", "RateLimit_Remaining": "0", "RateLimit_Reset": "4"}, 5.0),
        ({"RateLimit": "limit=100, remaining=7, reset=4", "Retry_After": "9"}, 9.0),
        ({"Retry_After": "86400"}, MAX_RATE_LIMIT_SECONDS),
        ({"Retry_After": "Mon, 05 Jan 2099 12:02:00 GMT", "Date": NOON}, MAX_RATE_LIMIT_SECONDS),
        ({"Retry_After": "0"}, 0.25),
        ({"Retry_After": "Mon, 05 Jan 2026 11:00:00 GMT", "Date": NOON}, 0.25),
        ({"Retry_After": "nonsense"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_hub_rests_for_as_long_as_it_asks(limit: RateLimit, headers: dict[str, str], expected: float) -> None:
    assert limit.note(API, answer(429, **headers)) is not None
    assert seconds(limit) == expected


def test_a_date_without_the_time_of_its_sender_is_read_by_the_clock_of_this_machine(limit: RateLimit) -> None:
    limit.note(API, answer(Retry_After="Mon, 05 Jan 2099 12:02:00 GMT"))
    assert seconds(limit) == MAX_RATE_LIMIT_SECONDS


def test_only_a_429_or_a_503_that_says_how_long_is_a_rest(limit: RateLimit) -> None:
    for response in (answer(200, RateLimit='"api";r=0;t=55'), answer(503), answer(404, Retry_After="9")):
        assert limit.note(API, response) is None
    assert limit.rest(API) is None and limit.longest is None
    assert limit.note(API, answer(503, Retry_After="9")) is not None


def test_the_bucket_that_is_used_up_rests_and_any_other_limit_is_of_the_whole_hub(limit: RateLimit) -> None:
    limit.note(API, answer(RateLimit='"api";r=0;t=99'))
    assert [seconds(limit, url) for url in (API, FILE, GIT)] == [100.0, 0.0, 0.0]
    limit.note(FILE, answer(Retry_After="60"))
    assert [seconds(limit, url) for url in (API, FILE, GIT)] == [100.0, 60.0, 60.0]
    limit.note(GIT, answer(RateLimit='"of a proxy";r=0;t=199'))
    assert [seconds(limit, url) for url in (API, FILE, GIT)] == [200.0] * 3
    assert limit.longest is not None and limit.longest.seconds == 200.0


def test_rests_of_unknown_length_grow_until_a_request_is_answered(limit: RateLimit, clock: Clock) -> None:
    found = []
    for _ in range(4):
        limit.note(API, answer())
        limit.note(API, answer())  # beside the first
        found.append(seconds(limit))
        clock.now += found[-1]
    assert found == [1.0, 2.0, 4.0, 8.0]
    limit.note(API, answer(200))
    limit.note(API, answer())
    assert seconds(limit) == 1.0


def test_a_hub_that_asks_for_no_rest_again_and_again_is_asked_more_and_more_seldom(
    limit: RateLimit, clock: Clock
) -> None:
    for _ in range(5):
        limit.note(API, answer(Retry_After="0"))
        clock.now += seconds(limit)
    limit.note(API, answer(Retry_After="0"))
    assert seconds(limit) == 8.0


def test_a_listener_is_told_once_of_each_rest_that_lasts(limit: RateLimit, clock: Clock) -> None:
    told: list[Rest] = []
    limit.note(API, answer(Retry_After="30"))
    with limit.telling(told.append):
        assert not told, "no request has met it"
        for url in (API, FILE, API):
            limit.rest(url)
        limit.note(API, answer(Retry_After="30"))
        assert [rest.seconds for rest in told] == [30.0]
        clock.now += 31
        limit.note(API, answer(Retry_After="1"))
        limit.note(API, answer(Retry_After="60"))
        assert [rest.seconds for rest in told] == [30.0, 60.0]
    limit.note(API, answer(Retry_After="600"))
    assert len(told) == 2


async def test_a_request_waits_for_short_rests_and_for_longer_ones_within_what_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("hfpeer.upstream.responses.rate_limit.asyncio.sleep", sleep)

    def limited(seconds: float) -> RateLimited:
        return Rest("hub", seconds, 0.0).error

    impatient = Rests(0.0)
    with pytest.raises(RateLimited):
        await impatient.after(limited(3.5))
    for rests, lengths in ((Rests(0.0), [3.0, 3.0, 3.0]), (Rests(600.0), [300.0, 250.0, 50.0])):
        slept.clear()
        for length in lengths:
            await rests.after(limited(length))
        assert slept == lengths
        with pytest.raises(RateLimited):
            await rests.after(limited(1.0))


# What peers say


def test_what_a_peer_says_makes_one_request_try_it_while_the_others_wait(limit: RateLimit, clock: Clock) -> None:
    limit.heard(600)
    assert seconds(limit) == 0, "the request that tries it"
    assert 0 < seconds(limit) <= TRIAL_SECONDS and 0 < seconds(limit, FILE) <= TRIAL_SECONDS
    assert limit.longest is None, "it is not passed on, nor told to people"
    limit.note(API, answer(429, Retry_After="300"))
    assert seconds(limit) == 300


def test_a_peer_that_lies_delays_one_moment_and_is_not_heard_for_a_while(limit: RateLimit, clock: Clock) -> None:
    limit.heard(3600)
    assert seconds(limit) == 0 and seconds(limit) > 0
    limit.note(API, answer(200))
    assert seconds(limit) == seconds(limit, FILE) == 0
    limit.heard(3600)
    assert seconds(limit) == seconds(limit) == 0
    clock.now += HEARD_AGAIN_SECONDS
    limit.heard(3600)
    assert seconds(limit) == 0 and seconds(limit) > 0


def test_a_trial_without_an_answer_holds_nobody_up(limit: RateLimit, clock: Clock) -> None:
    limit.heard(600)
    assert seconds(limit) == 0
    clock.now += TRIAL_SECONDS
    assert seconds(limit) == 0, "another one tries it"
    clock.now += 600
    assert seconds(limit) == seconds(limit) == 0


async def test_waiting_for_a_trial_is_no_failure(limit: RateLimit) -> None:
    limit.heard(600)
    assert limit.rest(API) is None
    rest = limit.rest(API)
    assert rest is not None
    limit.note(API, answer(200))
    await Rests(0).after(rest.error)
    assert limit.rest(API) is None


async def test_nodes_know_the_hub_that_limits_one_of_them_and_learn_no_other_name(clock: Clock) -> None:
    tells, hears = (
        Upstreams([Upstream("hub", "origin", "https://hub.test"), Upstream(name, "mirror", f"https://{name}.test")])
        for name in ("inner", "other")
    )
    for upstream in tells:
        upstream.rate_limit.note(API, answer(429, Retry_After="600"))
    told = NodeMessage.from_json(NodeMessage("n", "n", "1", 1, 1, limits=tells.limits).to_json()).limits
    assert sorted(told.values()) == [600, 600] and "inner" not in str(told)
    hears.hear_limits(told)
    (hub, other) = hears
    assert hub.rate_limit.rest(API) is None and hub.rate_limit.rest(API) is not None
    assert other.rate_limit.rest(API) is None and other.rate_limit.rest(API) is None
    assert hears.limits == {}
    for upstreams in (tells, hears):
        await upstreams.aclose()


def test_a_peer_tells_of_few_hubs() -> None:
    document = NodeMessage("n", "n", "1", 1, 1, limits={f"{number:032x}": 60 for number in range(100)}).to_json()
    assert len(NodeMessage.from_json(document).limits) == MAX_HEARD_LIMITS
    document.pop("limits")
    assert NodeMessage.from_json(document).limits == {}, "an older node"
    odds: tuple[object, ...] = ({"a": -1}, {"a": "b"}, {"a" * 65: 1}, [])
    for odd in odds:
        with pytest.raises(CorruptData):
            NodeMessage.from_json({**document, "limits": odd})
