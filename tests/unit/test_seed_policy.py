"""The seed policy: envoys request their shares from seeds, other nodes nothing while new pieces keep arriving."""

from hfpeer.transfer.picker.assignment import Assignment
from hfpeer.transfer.picker.membership import MAX_ENVOYS, MAX_SETTLING_SECONDS, Membership
from hfpeer.transfer.picker.seed_policy import (
    DEPARTED_SECONDS,
    INTENT_SECONDS,
    MAX_INTENTS,
    OWNER_LEFT_PIECES,
    PROMOTED_SECONDS,
    RANDOM_START_PIECES,
    STANDBY_SECONDS,
    TAKE_OVER_SHARE_SECONDS,
    SeedPolicy,
)

COUNT = 64
ALL = (1 << COUNT) - 1
START = MAX_SETTLING_SECONDS


class Part:
    """The seed policy of one node of a swarm of `size`. The other nodes only tell heartbeats."""

    def __init__(self, own_id: str, size: int, count: int = COUNT) -> None:
        self.others = [f"node-{number}" for number in range(size) if f"node-{number}" != own_id]
        self.membership = Membership(own_id, "blob", 1)
        self.shares = Assignment(own_id, "blob", count)
        self.seed_policy = SeedPolicy(self.shares, self.membership)
        self.heartbeat = 1
        self.choose((1 << count) - 1, 0.0)

    def choose(self, unclaimed: int, now: float) -> int:
        self.heartbeat += 1
        self.membership.update(dict.fromkeys(self.others, self.heartbeat), now)
        return self.seed_policy.choose(unclaimed, self.others, (), now)


def parts(size: int) -> list[Part]:
    """Envoys first."""
    found = [Part(f"node-{number}", size) for number in range(size)]
    return sorted(found, key=lambda part: part.membership.own_id not in part.membership.envoys(0.0))


def first_of(pieces: int, count: int) -> int:
    """The first `count` of a set of pieces."""
    first = 0
    for _ in range(count):
        first |= pieces & -pieces
        pieces &= pieces - 1
    return first


def test_envoys_divide_all_pieces_and_other_nodes_ask_for_none() -> None:
    nodes = parts(20)
    shares = [part.choose(ALL, START) for part in nodes]
    assert sum(map(int.bit_count, shares)) == COUNT
    assert sum(map(bool, shares)) <= MAX_ENVOYS
    assert not any(shares[MAX_ENVOYS:])


def test_before_it_knows_the_envoys_a_node_asks_for_no_piece_that_others_may_ask_for() -> None:
    part = Part("node-0", 4)
    assert part.choose(ALL, 0.01) == 0
    assert part.seed_policy.look_again_at is not None
    assert part.choose(ALL, START)


def test_with_many_pieces_a_node_begins_with_any_before_it_knows_the_envoys() -> None:
    count = 4 * RANDOM_START_PIECES
    begun = [Part(f"node-{number}", 4, count).choose((1 << count) - 1, 0.01) for number in range(4)]
    assert all(piece.bit_count() == 1 for piece in begun)
    assert len(set(begun)) == len(begun), "each node another one"
    assert Part("node-0", 4, count).choose((1 << count - 1) - 1, 0.01) == 0, "now they are too few"


def test_a_node_of_a_large_swarm_waits_until_it_knows_the_envoys() -> None:
    assert Part("node-0", 40, 4096).choose((1 << 4096) - 1, 0.01) == 0


def begun(part: Part) -> int:
    """The first pieces of each other's share: those that it will come to soon."""
    shares = part.shares.by_owner(part.others).values()
    return sum(first_of(share, OWNER_LEFT_PIECES) for share in shares) & ~part.choose(ALL, START)


def test_a_piece_that_its_owner_will_not_come_to_soon_is_taken_by_its_second_owner_at_once() -> None:
    nodes = parts(4)
    slow, *fast = nodes
    left = slow.choose(ALL, START)
    taken = [part.choose(left, START) for part in fast]
    assert all(piece.bit_count() == 1 for piece in taken)
    assert len(set(taken)) == len(taken), "each node another one"
    assert not sum(taken) & begun(fast[0])
    for part in fast:
        spare = left & part.shares.within(part.others, 2) & ~begun(part)
        assert part.choose(left, START) == spare & -spare, "in file order, for the hash to follow"


def test_a_node_far_ahead_of_another_helps_it_first() -> None:
    slow, *fast = (Part(f"node-{number}", 3, 4 * COUNT) for number in range(3))
    behind = slow.shares.within(slow.others, 1) & (1 << 2 * COUNT) - 1
    ahead = ALL << 2 * COUNT
    for part in fast:
        spare = behind & part.shares.within(part.others, 2) & ~first_of(behind, OWNER_LEFT_PIECES)
        assert part.choose(behind | ahead, START) == spare & -spare != 0, "in file order, for the hash to follow"


def test_a_node_not_far_ahead_keeps_to_its_own_share() -> None:
    part = Part("node-0", 3)
    own = part.shares.within(part.others, 1)
    assert part.choose(ALL, START) == own


def test_over_the_wan_no_node_helps_early() -> None:
    part = Part("node-0", 3, 4 * COUNT)
    own = part.shares.within(part.others, 1) & ALL << 3 * COUNT
    slow = part.shares.by_owner(part.others)["node-1"]
    part.choose(own | slow, START)
    assert part.seed_policy.choose(own | slow, part.others, (), START, is_far=True) == own


def test_a_piece_that_its_owner_will_come_to_soon_is_taken_over_after_an_intent() -> None:
    part = next(
        part for part in parts(4) if (begun(part) & part.shares.within(part.others, 2)).bit_count() >= MAX_INTENTS
    )
    others = begun(part)
    assert part.choose(others, START) == 0
    announced_at = START + TAKE_OVER_SHARE_SECONDS + 0.01
    assert part.choose(others, announced_at) == 0
    intents = part.seed_policy.intents
    assert intents.bit_count() == MAX_INTENTS
    assert intents & others == intents
    taken = part.choose(others, announced_at + INTENT_SECONDS + 0.01)
    assert taken.bit_count() == 1
    assert taken & intents, "one of its intents"


def test_an_intent_is_dropped_when_another_node_claims_its_piece() -> None:
    part = parts(4)[0]
    others = begun(part)
    part.choose(others, START)
    announced_at = START + TAKE_OVER_SHARE_SECONDS + 0.01
    part.choose(others, announced_at)
    claimed = part.seed_policy.intents
    assert part.choose(others & ~claimed, announced_at + INTENT_SECONDS + 0.01) == 0
    assert part.seed_policy.intents & claimed == 0


def test_a_node_that_is_no_envoy_asks_when_no_piece_has_come_for_long() -> None:
    part = parts(20)[-1]
    left = ALL
    for second in range(60):
        left &= left - 1
        assert part.choose(left, START + second) == 0, "others bring piece after piece"
    late = START + 60 + 3 * STANDBY_SECONDS
    assert part.choose(left, late).bit_count() == 1


def test_a_promoted_envoy_begins_when_no_piece_comes() -> None:
    part = parts(20)[-1]
    assert part.choose(ALL, START) == 0
    part.others = []
    now = START + 10.0
    assert part.choose(ALL >> 1, now) == 0, "the piece that was on its way comes"
    assert part.choose(ALL >> 1, now + 3 * PROMOTED_SECONDS).bit_count() == 1
    assert part.choose(ALL >> 1, now + 3 * PROMOTED_SECONDS) == ALL >> 1, "now it is known to be needed"


def test_the_pieces_of_a_leecher_that_left_are_expected_from_others_for_a_while() -> None:
    part = parts(20)[0]
    own = part.choose(ALL, START)
    part.seed_policy.note_left(own)
    assert part.choose(ALL, START) & own == 0
    assert part.choose(ALL, START + DEPARTED_SECONDS + 0.1) == own
