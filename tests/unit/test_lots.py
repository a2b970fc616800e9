"""Lots: who is asked for which of a commit's small files, when several nodes want them."""

from __future__ import annotations

import hashlib
from collections import Counter

from hfpeer.names import Digest
from hfpeer.transfer.lots import Lot

FILES = [Digest("sha256", hashlib.sha256(str(n).encode()).hexdigest()) for n in range(100)]
NODES = ("ara", "bootes", "crux", "draco")
EVERYTHING = (1 << len(FILES)) - 1


def lot_of(node: str, fellows: tuple[str, ...] = NODES) -> Lot:
    """The lot of one node, beside a holder and a hub, when it knows its fellows, who have nothing yet."""
    lot = Lot(FILES, FILES, own_id=node)
    lot.meet("holder", 0, "id of the holder")
    lot.meet("hub", 2)
    for fellow in fellows:
        if fellow != node:
            lot.meet(fellow, 0, fellow)
            lot.fetches(fellow, 0)
    return lot


def test_all_together_ask_a_holder_for_each_file_once_and_each_for_about_as_many() -> None:
    asked = {node: lot_of(node).claim("holder", 100, rank=1) for node in NODES}
    assert Counter(digest for digests in asked.values() for digest in digests) == Counter(FILES)
    assert all(10 <= len(digests) <= 45 for digests in asked.values())


def test_a_node_alone_asks_for_everything() -> None:
    assert lot_of("ara", fellows=()).claim("holder", 100, rank=1) == FILES


def test_a_hub_is_asked_only_for_what_no_holder_has_given() -> None:
    lot = lot_of("ara")
    assert lot.claim("hub", 100, rank=1) == []
    own = lot.claim("holder", 100, rank=1)
    assert lot.claim("hub", 100, rank=1) == []
    lot.unclaim("holder", own)
    assert lot.claim("hub", 100, rank=1) == own


def test_what_a_fellow_has_is_asked_of_it_and_of_nobody_else() -> None:
    lot = lot_of("ara")
    lot.gains("crux", range(100))
    assert lot.claim("holder", 100, rank=1) == []
    assert lot.claim("bootes", 100, rank=1) == []
    assert lot.claim("crux", 30, rank=1) == FILES[:30]


def test_what_a_fellow_said_it_has_and_did_not_give_is_asked_of_the_holder() -> None:
    lot = lot_of("ara")
    share = lot_of("ara").claim("holder", 100, rank=1)
    lot.gains("crux", range(100))
    lot.unclaim("crux", lot.claim("crux", 100, rank=1))
    assert lot.claim("holder", 100, rank=1) == share


def test_shares_of_fellows_are_taken_over_the_further_the_longer_nothing_comes() -> None:
    taken = [len(lot_of("ara").claim("holder", 100, rank)) for rank in range(1, 5)]
    assert taken == sorted(taken)
    assert 0 < taken[0] < taken[-1] == 100


def test_the_share_of_a_fellow_that_left_goes_to_the_others() -> None:
    lots = {node: lot_of(node) for node in NODES[:3]}
    for lot in lots.values():
        lot.fellow_left("draco")
    assert Counter(d for lot in lots.values() for d in lot.claim("holder", 100, rank=1)) == Counter(FILES)


def test_a_source_that_is_gone_keeps_nobody_waiting() -> None:
    lot = lot_of("ara", fellows=())
    lot.gone("holder")
    assert lot.claim("hub", 100, rank=1) == FILES


def test_what_is_kept_is_told_and_numbers_from_nowhere_are_ignored() -> None:
    lot = Lot(FILES, FILES[10:], FILES[:10], own_id="ara")
    first = lot.piece_map()
    assert int.from_bytes(first.bits or b"", "little") == (1 << 10) - 1
    lot.kept(FILES[20:22])
    version, news = lot.news_since(first.version)
    assert news is not None
    assert (news.added, version) == ((20, 21), first.version + 2)
    lot.meet("crux", 0, "crux")
    lot.fetches("crux", EVERYTHING << 7)
    lot.gains("crux", [99, 100, 1 << 40])
    assert lot.claim("crux", 1000, rank=1) == FILES[10:]


def test_a_fellow_that_gave_nothing_is_asked_again_for_what_it_gets() -> None:
    lot = lot_of("ara")
    lot.gains("crux", [3])
    lot.unclaim("crux", lot.claim("crux", 9, rank=1))
    assert lot.claim("crux", 9, rank=1) == []
    lot.gains("crux", [3])
    assert lot.claim("crux", 9, rank=1) == [FILES[3]]
