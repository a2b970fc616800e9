"""Lots: who is asked for which of a commit's small files, when several nodes want them."""

from __future__ import annotations

import hashlib
from collections import Counter

from hfpeer.names import Digest
from hfpeer.transfer.small.bundle import Bundle
from hfpeer.transfer.sources.tiers import Tier

FILES = [Digest("sha256", hashlib.sha256(str(n).encode()).hexdigest()) for n in range(100)]
NODES = ("ara", "bootes", "crux", "draco")
EVERYTHING = (1 << len(FILES)) - 1


def bundle_of(node: str, leechers: tuple[str, ...] = NODES) -> Bundle:
    """The bundle of one node, beside a seed and a hub, when it knows its leechers, who have nothing yet."""
    bundle = Bundle(FILES, FILES, own_id=node)
    bundle.meet("seed", Tier.PEER, "id of the seed")
    bundle.meet("hub", Tier.ORIGIN)
    for leecher in leechers:
        if leecher != node:
            bundle.meet(leecher, Tier.PEER, leecher)
            bundle.fetches(leecher, 0)
    return bundle


def test_all_together_ask_a_seed_for_each_file_once_and_each_for_about_as_many() -> None:
    asked = {node: bundle_of(node).claim("seed", 100, rank=1) for node in NODES}
    assert Counter(digest for digests in asked.values() for digest in digests) == Counter(FILES)
    assert all(10 <= len(digests) <= 45 for digests in asked.values())


def test_a_node_alone_asks_for_everything() -> None:
    assert bundle_of("ara", leechers=()).claim("seed", 100, rank=1) == FILES


def test_a_hub_is_asked_only_for_what_no_seed_has_given() -> None:
    bundle = bundle_of("ara")
    assert bundle.claim("hub", 100, rank=1) == []
    own = bundle.claim("seed", 100, rank=1)
    assert bundle.claim("hub", 100, rank=1) == []
    bundle.unclaim("seed", own)
    assert bundle.claim("hub", 100, rank=1) == own


def test_what_a_leecher_has_is_asked_of_it_and_of_nobody_else() -> None:
    bundle = bundle_of("ara")
    bundle.gains("crux", range(100))
    assert bundle.claim("seed", 100, rank=1) == []
    assert bundle.claim("bootes", 100, rank=1) == []
    assert bundle.claim("crux", 30, rank=1) == FILES[:30]


def test_what_a_leecher_said_it_has_and_did_not_give_is_asked_of_the_seed() -> None:
    bundle = bundle_of("ara")
    share = bundle_of("ara").claim("seed", 100, rank=1)
    bundle.gains("crux", range(100))
    bundle.unclaim("crux", bundle.claim("crux", 100, rank=1))
    assert bundle.claim("seed", 100, rank=1) == share


def test_shares_of_leechers_are_taken_over_the_further_the_longer_nothing_comes() -> None:
    taken = [len(bundle_of("ara").claim("seed", 100, rank)) for rank in range(1, 5)]
    assert taken == sorted(taken)
    assert 0 < taken[0] < taken[-1] == 100


def test_the_share_of_a_leecher_that_left_goes_to_the_others() -> None:
    bundles = {node: bundle_of(node) for node in NODES[:3]}
    for bundle in bundles.values():
        bundle.leecher_left("draco")
    assert Counter(d for bundle in bundles.values() for d in bundle.claim("seed", 100, rank=1)) == Counter(FILES)


def test_a_source_that_is_gone_keeps_nobody_waiting() -> None:
    bundle = bundle_of("ara", leechers=())
    bundle.gone("seed")
    assert bundle.claim("hub", 100, rank=1) == FILES


def test_what_is_kept_is_told_and_numbers_from_nowhere_are_ignored() -> None:
    bundle = Bundle(FILES, FILES[10:], FILES[:10], own_id="ara")
    first = bundle.piece_map()
    assert int.from_bytes(first.bitfield or b"", "little") == (1 << 10) - 1
    bundle.kept(FILES[20:22])
    version, news = bundle.news_since(first.version)
    assert news is not None
    assert (news.added, version) == ((20, 21), first.version + 2)
    bundle.meet("crux", Tier.PEER, "crux")
    bundle.fetches("crux", EVERYTHING << 7)
    bundle.gains("crux", [99, 100, 1 << 40])
    assert bundle.claim("crux", 1000, rank=1) == FILES[10:]


def test_a_leecher_that_gave_nothing_is_asked_again_for_what_it_gets() -> None:
    bundle = bundle_of("ara")
    bundle.gains("crux", [3])
    bundle.unclaim("crux", bundle.claim("crux", 9, rank=1))
    assert bundle.claim("crux", 9, rank=1) == []
    bundle.gains("crux", [3])
    assert bundle.claim("crux", 9, rank=1) == [FILES[3]]


def test_a_slow_leecher_holds_back_no_hub_but_a_seed_at_home() -> None:
    bundle = bundle_of("ara", leechers=("crux",))
    bundle.gains("crux", range(len(FILES)))
    bundle.comes_last("seed")
    assert bundle.claim("hub", 1, rank=1) == []
    bundle.is_slow("crux", True)
    assert bundle.claim("hub", 1, rank=1) != []
    bundle = bundle_of("ara", leechers=("crux",))
    bundle.gains("crux", range(len(FILES)))
    bundle.is_slow("crux", True)
    assert bundle.claim("seed", 1, rank=1) == []
