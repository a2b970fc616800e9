"""The table of tiers: peers before mirrors before the origin, for blobs and bundles alike."""

from __future__ import annotations

from hfpeer.transfer.sources.tiers import Tier


def test_named_peers_come_before_others_then_mirrors_then_the_origin_with_modelscope_where_the_owner_says() -> None:
    before, after, last = map(Tier.of_site, ("before-mirrors", "after-mirrors", "after-origin"))
    hubs = [before, Tier.of("mirror"), after, Tier.of("origin"), last]
    assert sorted(Tier) == [Tier.of("peer", is_named=True), Tier.of("peer"), *hubs]
    assert [tier.is_upstream for tier in sorted(Tier)] == [False, False, *(True for _ in hubs)]
    assert Tier.of("modelscope") is after
    assert Tier.of("peer").trust < before.trust == after.trust == last.trust < Tier.of("mirror").trust


def test_leechers_ask_a_seed_for_no_more_at_a_time_than_a_lonely_node_does() -> None:
    assert all(1 <= tier.swarm_requests <= tier.blob_requests for tier in Tier)
    assert all(tier.bundle_requests >= 1 for tier in Tier)
