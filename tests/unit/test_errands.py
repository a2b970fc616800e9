"""Who asks a holder for what: envoys their shares, others nothing while new pieces come round."""

from hfpeer.transfer.company import MAX_ENVOYS, MAX_SETTLING_SECONDS, Company
from hfpeer.transfer.errands import (
    INTENT_SECONDS,
    MAX_INTENTS,
    OUTSIDER_SECONDS,
    OWNER_LEFT_PIECES,
    PROMOTED_SECONDS,
    RUMOUR_SECONDS,
    SAFE_PIECES,
    TAKE_OVER_SHARE_SECONDS,
    Errands,
)
from hfpeer.transfer.shares import Shares

COUNT = 64
ALL = (1 << COUNT) - 1
START = MAX_SETTLING_SECONDS


class Part:
    """One node of a company of `size`, at whose errands one looks; the others only beat."""

    def __init__(self, own_id: str, size: int, count: int = COUNT) -> None:
        self.others = [f"node-{number}" for number in range(size) if f"node-{number}" != own_id]
        self.company = Company(own_id, "blob", 1)
        self.shares = Shares(own_id, "blob", count)
        self.errands = Errands(self.shares, self.company)
        self.beat = 1
        self.choose((1 << count) - 1, 0.0)

    def choose(self, unclaimed: int, now: float) -> int:
        self.beat += 1
        self.company.hear(dict.fromkeys(self.others, self.beat), now)
        return self.errands.choose(unclaimed, self.others, (), now)


def parts(size: int) -> list[Part]:
    """Envoys first."""
    found = [Part(f"node-{number}", size) for number in range(size)]
    return sorted(found, key=lambda part: part.company.own_id not in part.company.envoys(0.0))


def first_of(pieces: int, count: int) -> int:
    """The first `count` of a set of pieces."""
    first = 0
    for _ in range(count):
        first |= pieces & -pieces
        pieces &= pieces - 1
    return first


def test_envoys_share_all_pieces_out_and_others_ask_for_none() -> None:
    everybody = parts(20)
    shares = [part.choose(ALL, START) for part in everybody]
    assert sum(map(int.bit_count, shares)) == COUNT
    assert sum(map(bool, shares)) <= MAX_ENVOYS
    assert not any(shares[MAX_ENVOYS:])


def test_before_it_knows_the_company_a_node_asks_for_nothing_that_others_may_ask_for_too() -> None:
    part = Part("node-0", 4)
    assert part.choose(ALL, 0.01) == 0
    assert part.errands.look_again_at is not None
    assert part.choose(ALL, START)


def test_where_pieces_are_many_each_begins_with_any_before_it_knows_the_company() -> None:
    count = 4 * SAFE_PIECES
    begun = [Part(f"node-{number}", 4, count).choose((1 << count) - 1, 0.01) for number in range(4)]
    assert all(piece.bit_count() == 1 for piece in begun)
    assert len(set(begun)) == len(begun), "each another one"
    assert Part("node-0", 4, count).choose((1 << count - 1) - 1, 0.01) == 0, "now they are too few"


def test_a_node_of_very_many_waits_until_it_knows_who_asks() -> None:
    assert Part("node-0", 40, 4096).choose((1 << 4096) - 1, 0.01) == 0


def begun(part: Part) -> int:
    """The first pieces of each other's share: those that it will come to soon."""
    shares = part.shares.by_owner(part.others).values()
    return sum(first_of(share, OWNER_LEFT_PIECES) for share in shares) & ~part.choose(ALL, START)


def test_what_another_will_not_come_to_soon_is_taken_at_once_by_one_of_the_others() -> None:
    everybody = parts(4)
    slow, *fast = everybody
    left = slow.choose(ALL, START)
    taken = [part.choose(left, START) for part in fast]
    assert all(piece.bit_count() == 1 for piece in taken)
    assert len(set(taken)) == len(taken), "each another one"
    assert not sum(taken) & begun(fast[0])
    for part in fast:
        spare = left & part.shares.within(part.others, 2) & ~begun(part)
        assert part.choose(left, START) == spare & -spare, "in file order, for the hash to follow"


def test_who_is_far_ahead_of_another_helps_that_one_first() -> None:
    slow, *fast = (Part(f"node-{number}", 3, 4 * COUNT) for number in range(3))
    behind = slow.shares.within(slow.others, 1) & (1 << 2 * COUNT) - 1
    ahead = ALL << 2 * COUNT
    for part in fast:
        spare = behind & part.shares.within(part.others, 2) & ~first_of(behind, OWNER_LEFT_PIECES)
        assert part.choose(behind | ahead, START) == spare & -spare != 0, "in file order, for the hash to follow"


def test_who_is_not_far_ahead_keeps_to_its_own() -> None:
    part = Part("node-0", 3)
    own = part.shares.within(part.others, 1)
    assert part.choose(ALL, START) == own


def test_over_the_wan_nobody_helps_early() -> None:
    part = Part("node-0", 3, 4 * COUNT)
    own = part.shares.within(part.others, 1) & ALL << 3 * COUNT
    slow = part.shares.by_owner(part.others)["node-1"]
    part.choose(own | slow, START)
    assert part.errands.choose(own | slow, part.others, (), START, is_far=True) == own


def test_a_piece_that_its_owner_will_come_to_soon_is_taken_over_once_that_was_said_for_long_enough() -> None:
    part = next(
        part for part in parts(4) if (begun(part) & part.shares.within(part.others, 2)).bit_count() >= MAX_INTENTS
    )
    others = begun(part)
    assert part.choose(others, START) == 0
    said_at = START + TAKE_OVER_SHARE_SECONDS + 0.01
    assert part.choose(others, said_at) == 0
    intents = part.errands.intents
    assert intents.bit_count() == MAX_INTENTS
    assert intents & others == intents
    taken = part.choose(others, said_at + INTENT_SECONDS + 0.01)
    assert taken.bit_count() == 1
    assert taken & intents, "what it had said it would take"


def test_a_piece_that_another_claims_meanwhile_is_left_to_it() -> None:
    part = parts(4)[0]
    others = begun(part)
    part.choose(others, START)
    said_at = START + TAKE_OVER_SHARE_SECONDS + 0.01
    part.choose(others, said_at)
    claimed = part.errands.intents
    assert part.choose(others & ~claimed, said_at + INTENT_SECONDS + 0.01) == 0
    assert part.errands.intents & claimed == 0


def test_an_outsider_asks_when_nothing_has_come_round_for_long() -> None:
    part = parts(20)[-1]
    left = ALL
    for second in range(60):
        left &= left - 1
        assert part.choose(left, START + second) == 0, "others bring piece after piece"
    late = START + 60 + 3 * OUTSIDER_SECONDS
    assert part.choose(left, late).bit_count() == 1


def test_one_that_becomes_an_envoy_late_begins_when_nothing_comes_round() -> None:
    part = parts(20)[-1]
    assert part.choose(ALL, START) == 0
    part.others = []
    now = START + 10.0
    assert part.choose(ALL >> 1, now) == 0, "what was on its way comes round"
    assert part.choose(ALL >> 1, now + 3 * PROMOTED_SECONDS).bit_count() == 1
    assert part.choose(ALL >> 1, now + 3 * PROMOTED_SECONDS) == ALL >> 1, "now it is known to be needed"


def test_what_one_had_that_left_is_thought_to_come_round_from_others_for_a_while() -> None:
    part = parts(20)[0]
    own = part.choose(ALL, START)
    part.errands.left(own)
    assert part.choose(ALL, START) & own == 0
    assert part.choose(ALL, START + RUMOUR_SECONDS + 0.1) == own
