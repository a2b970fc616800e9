"""The company that fetches a blob: few ask holders, everybody knows the same ones, and the dead are forgotten."""

import random

from hfpeer.transfer.company import (
    LIFETIME_SECONDS,
    MAX_ENVOYS,
    MAX_MEMBERS,
    MAX_REMEMBERED,
    MAX_SETTLING_SECONDS,
    SETTLING_SECONDS,
    Company,
)


def company_of(count: int) -> list[Company]:
    members = [Company(f"node-{number}", "blob", 1) for number in range(count)]
    for member in members:
        member.stand(True)
    return members


def tell(speaker: Company, listener: Company, now: float) -> None:
    listener.hear(speaker.told(now), now)


def gossip(members: list[Company], now: float, rounds: int = 6, neighbours: int = 4) -> None:
    dice = random.Random(1)
    for _ in range(rounds):
        for member in members:
            for other in dice.sample(members, neighbours):
                tell(other, member, now)


def test_all_come_to_know_the_same_envoys_though_each_hears_few() -> None:
    members = company_of(200)
    gossip(members, 0.0)
    assert len({member.envoys(0.0) for member in members}) == 1
    assert len(members[0].envoys(0.0)) == MAX_ENVOYS


def test_what_is_told_does_not_grow_with_the_company() -> None:
    members = company_of(200)
    gossip(members, 0.0)
    assert all(len(member.told(0.0)) == MAX_MEMBERS for member in members)


def test_one_that_beats_no_more_is_forgotten_by_all_though_all_repeat_its_name() -> None:
    members = company_of(40)
    gossip(members, 0.0)
    dead = members[0].envoys(0.0)[0]
    living = [member for member in members if member.own_id != dead]
    for second in range(1, int(LIFETIME_SECONDS) + 3):
        gossip(living, float(second))
    assert all(dead not in member.envoys(second) for member in living)
    assert all(len(member.envoys(second)) == MAX_ENVOYS for member in living), "another takes its part"


def test_who_broke_off_counts_no_longer_until_it_beats_again() -> None:
    here, there = company_of(2)
    tell(there, here, 0.0)
    last = there.told(0.0)["node-1"]
    here.left("node-1")
    assert here.envoys(0.0) == ("node-0",)
    here.hear({"node-1": last + 1}, 0.1)
    assert here.envoys(0.1) == ("node-0",), "others had heard one more beat"
    here.hear({"node-1": last + 2}, 2.1)
    assert set(here.envoys(2.1)) == {"node-0", "node-1"}


def test_one_that_can_ask_no_holder_is_no_envoy() -> None:
    here, there = company_of(2)
    there.stand(False)
    tell(there, here, 0.0)
    assert here.envoys(0.0) == ("node-0",)
    assert there.envoys(0.0) == ()


def test_a_fellow_that_has_said_nothing_yet_counts_but_is_not_passed_on() -> None:
    here = company_of(1)[0]
    here.meet("fellow", 0.0)
    assert set(here.envoys(0.0)) == {"node-0", "fellow"}
    assert set(here.told(0.0)) == {"node-0"}
    assert here.envoys(LIFETIME_SECONDS + 0.1) == ("node-0",)


def test_envoys_follow_each_other_and_others_need_not() -> None:
    members = company_of(30)
    gossip(members, 0.0)
    envoys = set(members[0].envoys(0.0))
    for member in members:
        assert set(member.to_follow(0.0)) == (envoys - {member.own_id} if member.own_id in envoys else set())


def test_a_newcomer_waits_until_it_hears_of_nobody_new_but_not_for_ever() -> None:
    calm, busy = company_of(2)
    assert not calm.is_settled(0.0)
    assert calm.is_settled(SETTLING_SECONDS)
    now, number = 0.0, 0
    while not busy.is_settled(now):
        busy.hear({f"new-{number}": 1}, now)
        now, number = now + SETTLING_SECONDS / 2, number + 1
        assert now <= 2 * MAX_SETTLING_SECONDS
    assert now > SETTLING_SECONDS


def test_invented_members_fill_no_memory() -> None:
    here = company_of(1)[0]
    for second in range(100):
        here.hear({f"ghost-{second}-{number}": 1 << 62 for number in range(32)}, float(second))
    assert len(here._members) <= MAX_REMEMBERED
    assert len(here.told(99.0)) <= MAX_MEMBERS
