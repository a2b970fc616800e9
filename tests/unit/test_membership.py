"""The membership of a swarm: all members know the same few envoys, and dead members are forgotten."""

import random

from hfpeer.transfer.picker.membership import (
    LIFETIME_SECONDS,
    MAX_ENVOYS,
    MAX_MEMBERS,
    MAX_REMEMBERED,
    MAX_SETTLING_SECONDS,
    SETTLING_SECONDS,
    Membership,
)


def swarm_of(count: int) -> list[Membership]:
    members = [Membership(f"node-{number}", "blob", 1) for number in range(count)]
    for member in members:
        member.set_candidate(True)
    return members


def tell(speaker: Membership, listener: Membership, now: float) -> None:
    listener.update(speaker.heartbeats(now), now)


def gossip(members: list[Membership], now: float, rounds: int = 6, neighbours: int = 4) -> None:
    dice = random.Random(1)
    for _ in range(rounds):
        for member in members:
            for other in dice.sample(members, neighbours):
                tell(other, member, now)


def test_all_members_come_to_know_the_same_envoys_though_each_follows_few() -> None:
    members = swarm_of(200)
    gossip(members, 0.0)
    assert len({member.envoys(0.0) for member in members}) == 1
    assert len(members[0].envoys(0.0)) == MAX_ENVOYS


def test_the_told_heartbeats_do_not_grow_with_the_swarm() -> None:
    members = swarm_of(200)
    gossip(members, 0.0)
    assert all(len(member.heartbeats(0.0)) == MAX_MEMBERS for member in members)


def test_a_dead_member_is_forgotten_by_all_though_all_repeat_its_heartbeat() -> None:
    members = swarm_of(40)
    gossip(members, 0.0)
    dead = members[0].envoys(0.0)[0]
    living = [member for member in members if member.own_id != dead]
    for second in range(1, int(LIFETIME_SECONDS) + 3):
        gossip(living, float(second))
    assert all(dead not in member.envoys(second) for member in living)
    assert all(len(member.envoys(second)) == MAX_ENVOYS for member in living), "another takes its part"


def test_a_member_that_left_does_not_count_until_its_heartbeat_grows() -> None:
    here, there = swarm_of(2)
    tell(there, here, 0.0)
    last = there.heartbeats(0.0)["node-1"]
    here.note_left("node-1")
    assert here.envoys(0.0) == ("node-0",)
    here.update({"node-1": last + 1}, 0.1)
    assert here.envoys(0.1) == ("node-0",), "others had heard one more beat"
    here.update({"node-1": last + 2}, 2.1)
    assert set(here.envoys(2.1)) == {"node-0", "node-1"}


def test_a_node_that_can_ask_no_seed_is_no_envoy() -> None:
    here, there = swarm_of(2)
    there.set_candidate(False)
    tell(there, here, 0.0)
    assert here.envoys(0.0) == ("node-0",)
    assert there.envoys(0.0) == ()


def test_a_leecher_without_a_heartbeat_counts_but_is_not_told_of() -> None:
    here = swarm_of(1)[0]
    here.note_leecher("leecher", 0.0)
    assert set(here.envoys(0.0)) == {"node-0", "leecher"}
    assert set(here.heartbeats(0.0)) == {"node-0"}
    assert here.envoys(LIFETIME_SECONDS + 0.1) == ("node-0",)


def test_envoys_follow_each_other_and_others_need_not() -> None:
    members = swarm_of(30)
    gossip(members, 0.0)
    envoys = set(members[0].envoys(0.0))
    for member in members:
        assert set(member.to_follow(0.0)) == (envoys - {member.own_id} if member.own_id in envoys else set())


def test_a_new_node_waits_until_the_envoys_are_settled_but_not_for_ever() -> None:
    calm, busy = swarm_of(2)
    assert not calm.is_settled(0.0)
    assert calm.is_settled(SETTLING_SECONDS)
    now, number = 0.0, 0
    while not busy.is_settled(now):
        busy.update({f"new-{number}": 1}, now)
        now, number = now + SETTLING_SECONDS / 2, number + 1
        assert now <= 2 * MAX_SETTLING_SECONDS
    assert now > SETTLING_SECONDS


def test_invented_members_fill_no_memory() -> None:
    here = swarm_of(1)[0]
    for second in range(100):
        here.update({f"ghost-{second}-{number}": 1 << 62 for number in range(32)}, float(second))
    assert len(here._members) <= MAX_REMEMBERED
    assert len(here.heartbeats(99.0)) <= MAX_MEMBERS
