"""Who is in the table of peers, who is asked first, and what strangers can and cannot do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.budgets import (
    MAX_ADDRESSES,
    MAX_PEERS_PER_HOST,
    MAX_UNANSWERED,
    MAX_UNANSWERED_PER_HOST,
    MAX_UNANSWERED_PER_PEER,
)
from hfpeer.names import Commit, RepoId
from hfpeer.net.address import Address
from hfpeer.peers.gossip import parse_gossiped_address
from hfpeer.peers.protocol.messages import NodeMessage, RevisionMessage
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION
from hfpeer.peers.table.catalogs import Catalog
from hfpeer.peers.table.table import (
    ALIVE_SECONDS,
    BAN_SECONDS,
    FIRST_BACKOFF_SECONDS,
    FORGET_GONE_SECONDS,
    FORGET_SECONDS,
    GONE_AFTER_FAILURES,
    MAX_BACKOFF_SECONDS,
    Origin,
    Peer,
    PeerTable,
    State,
)

OWN = "own"
COMMIT = Commit("c" * 40)


def at(number: int, port: int = 9437) -> Address:
    return Address(f"10.0.0.{number}", port)


def says(node_id: str, generation: int = 1, name: str = "") -> NodeMessage:
    return NodeMessage(node_id, name or node_id, "1.0", PROTOCOL_VERSION, generation)


def catalog(generation: int, *commits: Commit) -> Catalog:
    repo = RepoId.parse("org/model")
    return Catalog(generation, (RevisionMessage(repo, commit, True, 1, 1, {}) for commit in commits))


def must(peer: Peer | None) -> Peer:
    assert peer is not None
    return peer


@pytest.fixture
def table() -> PeerTable:
    return PeerTable(OWN)


# ---- who is who


def test_a_configured_address_is_a_peer_before_anybody_answers_there(table: PeerTable) -> None:
    peer = table.add_static(at(1), 0)
    assert (peer.node_id, peer.key, peer.origin, peer.state(0)) == (None, "10.0.0.1:9437", Origin.STATIC, State.KNOWN)
    assert table.due(0) == [peer]


def test_a_configured_address_becomes_one_with_its_node_when_it_answers(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    table.announced("n1", [at(2)], 0, name="left", generation=4, hints=frozenset({COMMIT.short}))
    assert len(table) == 2
    peer = must(table.answered(at(1), says("n1", 5), 1))
    assert len(table) == 1
    assert peer.addresses == (at(1), at(2))
    assert (peer.origin, peer.generation, peer.state(1)) == (Origin.STATIC, 5, State.ALIVE)
    assert peer.may_have(COMMIT)
    assert table.get("10.0.0.2:9437") == table.get("n1") == peer


def test_an_announcement_from_a_configured_address_is_that_peer(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    peer = must(table.announced("n1", [at(1), at(2)], 1))
    assert (len(table), peer.node_id, peer.origin) == (1, "n1", Origin.STATIC)


def test_the_own_node_is_never_a_peer(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    assert table.announced(OWN, [at(2)], 0) is None
    assert table.answered(at(1), says(OWN), 0) is None
    assert len(table) == 0
    table.announced("n1", [at(3)], 0)
    assert table.gossiped("n1", [str(at(1))], 0) == []


def test_a_node_that_moved_is_found_at_its_new_address(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    peer = must(table.announced("n1", [at(2)], ALIVE_SECONDS + 1))
    assert (len(table), peer.addresses) == (1, (at(2),))


def test_an_announcement_cannot_take_away_the_address_that_answers(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    peer = must(table.announced("n1", [at(66)], 1))
    assert peer.address == at(1)


def test_an_address_belongs_to_whoever_answered_there_last(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    table.answered(at(1), says("old"), 0)
    new = must(table.answered(at(1), says("new"), 1))
    assert [peer.node_id for peer in table.all()] == ["new"]
    assert new.origin is Origin.STATIC


def test_a_node_that_announces_the_address_of_another_loses_it_when_that_one_answers(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    table.announced("n2", [at(1), at(2)], 1)
    table.announced("n3", [at(1)], 1)
    table.answered(at(1), says("n1"), 2)
    assert {peer.key: peer.addresses for peer in table.all()} == {"n1": (at(1),), "n2": (at(2),)}


def test_a_peer_with_many_addresses_keeps_few_and_the_configured_ones(table: PeerTable) -> None:
    table.announced("n1", [at(number) for number in range(1, 100)], 0)
    table.add_static(at(200), 0)
    peer = must(table.answered(at(200), says("n1"), 0))
    peer = must(table.announced("n1", [at(number) for number in range(50, 100)], ALIVE_SECONDS + 1))
    assert len(peer.addresses) == MAX_ADDRESSES
    assert at(200) in peer.addresses


def test_removing_a_configured_peer_forgets_it_unless_it_announced_itself(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    table.add_static(at(2), 0)
    table.announced("n2", [at(2)], 0)
    assert table.remove_static(at(1)) and table.remove_static(at(2))
    assert not table.remove_static(at(1))
    assert [(peer.node_id, peer.origin) for peer in table.all()] == [("n2", Origin.MDNS)]


# ---- who is alive


def test_an_answer_makes_a_peer_alive_for_a_while_and_traffic_spares_the_probe(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    assert must(table.get("n1")).state(ALIVE_SECONDS - 1) is State.ALIVE
    assert must(table.get("n1")).state(ALIVE_SECONDS) is State.KNOWN
    assert table.due(ALIVE_SECONDS / 2 - 1) == []
    assert len(table.due(ALIVE_SECONDS / 2)) == 1
    table.gave("n1", ALIVE_SECONDS / 2)
    assert table.due(ALIVE_SECONDS / 2 + 1) == []


def test_a_peer_that_keeps_failing_backs_off_longer_and_longer_up_to_a_limit(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    now, rests = 0.0, []
    for _ in range(12):
        peer = must(table.failed("10.0.0.1:9437", now, "refused"))
        assert peer.retry_at is not None
        rests.append(peer.retry_at - now)
        assert table.due(peer.retry_at - 0.1) == table.candidates(peer.retry_at - 0.1) == []
        now = peer.retry_at
        assert len(table.due(now)) == 1
    assert rests[:4] == [1, 2, 4, 8]
    assert max(rests) == rests[-1] == MAX_BACKOFF_SECONDS
    assert must(table.get("10.0.0.1:9437")).state(now) is State.GONE
    assert must(table.answered(at(1), says("n1"), now)).state(now) is State.ALIVE


def test_a_failure_counts_once_however_many_addresses_a_peer_has(table: PeerTable) -> None:
    table.announced("n1", [at(1), at(2), at(3)], 0)
    table.failed("n1", 0)
    assert table.due(0) == [] and len(table.due(FIRST_BACKOFF_SECONDS)) == 1
    assert must(table.get("n1")).addresses == (at(1), at(2), at(3))
    assert must(table.answered(at(2), says("n1"), 2)).address == at(2)


def test_a_goodbye_is_believed_until_a_probe_says_otherwise(table: PeerTable) -> None:
    table.announced("n1", [at(1)], 0, hints=frozenset({COMMIT.short}))
    table.answered(at(1), says("n1"), 0)
    table.left("n1", 1)
    assert must(table.get("n1")).state(1) is State.GONE
    assert table.candidates(1) == table.due(1) == []
    assert len(table.due(10)) == 1
    assert must(table.announced("n1", [at(1)], 11)).state(11) is State.ALIVE


def test_silent_peers_are_forgotten_but_never_the_configured_ones(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    table.announced("n2", [at(2)], 0)
    table.announced("n3", [at(3)], 0)
    table.answered(at(3), says("n3"), 100)
    assert [peer.key for peer in table.forget_silent(FORGET_SECONDS)] == ["n2"]
    assert [peer.key for peer in table.forget_silent(FORGET_SECONDS + 100)] == ["n3"]
    assert table.forget_silent(FORGET_SECONDS * 100) == []
    assert [peer.key for peer in table.all()] == ["10.0.0.1:9437"]


def test_a_peer_that_is_gone_is_forgotten_soon_and_may_be_removed_at_once(table: PeerTable) -> None:
    for number in (1, 2, 3):
        table.announced(f"n{number}", [at(number)], 0)
        table.answered(at(number), says(f"n{number}"), 0)
    table.left("n1", 1)
    table.left("n2", 1)
    assert must(table.forget("n2")).key == "n2"
    assert [peer.key for peer in table.forget_silent(FORGET_GONE_SECONDS)] == ["n1"]
    assert [peer.key for peer in table.all()] == ["n3"]
    table.add_static(at(9), 0)
    assert table.forget(str(at(9))) is None


def test_a_link_local_address_that_answers_stays_behind_one_that_others_can_use(table: PeerTable) -> None:
    local = Address("fe80::2%eth0", 9437)
    table.announced("n1", [at(1), local], 0)
    assert must(table.answered(local, says("n1"), 0)).address == at(1)
    assert must(table.answered(at(1), says("n1"), 0)).addresses == (at(1), local)


# ---- who is asked first


def test_those_with_the_commit_come_first_then_the_living_then_the_reliable(table: PeerTable) -> None:
    table.announced("hinted", [at(1)], 0, hints=frozenset({COMMIT.short}))
    table.announced("merely-known", [at(2)], 0)
    for number, node_id in enumerate(("has-it", "alive", "alive-but-failed", "liar"), start=3):
        table.answered(at(number), says(node_id), 0)
    table.read("has-it", catalog(1, COMMIT), 0)
    table.read("liar", catalog(1, COMMIT), 0)
    table.lied("liar", 0)
    table.failed("alive-but-failed", 0)
    ranked = [peer.key for peer in table.candidates(5, COMMIT)]
    assert ranked == ["has-it", "hinted", "alive", "alive-but-failed", "merely-known", "liar"]
    assert [peer.key for peer in table.candidates(5)][-1] == "liar"


def test_a_liar_is_put_last_and_after_a_second_lie_not_asked_for_a_while(table: PeerTable) -> None:
    for number in (1, 2):
        table.answered(at(number), says(f"n{number}"), 0)
    table.lied("n1", 0)
    assert [peer.key for peer in table.candidates(0)] == ["n2", "n1"]
    table.lied("n1", 10)
    assert [peer.key for peer in table.candidates(10)] == ["n2"]
    table.gave("n1", 11)
    table.announced("n1", [at(1)], 11)
    assert [peer.key for peer in table.candidates(11)] == ["n2"]
    assert at(1) not in table.alive_addresses(11)
    table.gave("n2", 10 + BAN_SECONDS)
    assert [peer.key for peer in table.candidates(10 + BAN_SECONDS)] == ["n2", "n1"]


def test_a_catalog_is_read_again_when_its_generation_changed(table: PeerTable) -> None:
    assert must(table.answered(at(1), says("n1", 3), 0)).needs_catalog
    assert not must(table.read("n1", catalog(3, COMMIT), 0)).needs_catalog
    assert must(table.announced("n1", [at(1)], 1, generation=4)).needs_catalog
    assert must(table.get("n1")).may_have(COMMIT)


def test_a_new_catalog_that_was_announced_is_outdated_until_it_is_read(table: PeerTable) -> None:
    table.answered(at(1), says("n1", 3), 0)
    table.read("n1", catalog(3), 0)
    table.announced("n1", [at(1)], 10, generation=3)
    assert table.outdated(100, 0) == []
    table.announced("n1", [at(1)], 20, generation=4)
    table.announced("n1", [at(1)], 25, generation=5)
    assert table.outdated(29, 10) == []
    assert [peer.key for peer in table.outdated(30, 10)] == ["n1"], "a peer with many news does not put it off"
    table.read("n1", catalog(5), 31)
    assert table.outdated(100, 0) == []


def test_an_announcement_that_came_late_outdates_nothing(table: PeerTable) -> None:
    table.answered(at(1), says("n1", 4), 0)
    table.read("n1", catalog(4), 0)
    table.announced("n1", [at(1)], 1, generation=3)
    table.answered(at(1), says("n1", 4), 2)
    assert table.outdated(100, 0) == []


# ---- what peers tell of each other


def test_peers_of_peers_are_only_known_until_they_answer_themselves(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    (told,) = table.gossiped("n1", ["10.0.0.2:9437", "10.0.0.1:9437"], 0)
    assert (told.state(0), told.origin, told.node_id) == (State.KNOWN, Origin.GOSSIP, None)
    assert table.alive_addresses(0) == [at(1)]
    table.answered(at(2), says("n2"), 0)
    assert set(table.alive_addresses(0)) == {at(1), at(2)}


LAN = Address("192.168.1.5", 9437)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host.example:9437",
        "localhost:9437",
        "127.0.0.1:9437",
        "127.9.9.9",
        "[::1]:9437",
        "[::ffff:127.0.0.1]:9437",
        "0.0.0.0:9437",
        "[::]:9437",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "255.255.255.255:1",
        "169.254.169.254:80",
        "[fe80::1%eth0]:9437",
        "[fe80::1]:9437",
        "8.8.8.8:53",
        "10.0.0.2:0",
        "10.0.0.2:65536",
        "10.0.0.2:http",
        "10.0.0.256:1",
        "10.0.0.2:9437/path",
        "user@10.0.0.2:9437",
        "10.0.0.2:9437\r\nX: y",
    ],
)
def test_an_address_that_a_stranger_may_not_send_us_to_is_ignored(text: str) -> None:
    assert parse_gossiped_address(text, LAN) is None


def test_an_address_on_the_lan_is_worth_a_try() -> None:
    assert parse_gossiped_address("10.0.0.2", LAN) == Address("10.0.0.2", 9437)
    assert parse_gossiped_address("[fd00::2]:1234", LAN) == Address("fd00::2", 1234)
    assert parse_gossiped_address("127.0.0.1:9500", Address("127.0.0.1", 9437)) == Address("127.0.0.1", 9500)
    assert parse_gossiped_address("8.8.8.8:9437", Address("8.8.4.4", 9437)) == Address("8.8.8.8", 9437)


def test_people_see_what_a_peer_told_of_once_it_has_answered_and_never_this_node_itself(table: PeerTable) -> None:
    table.answered(at(1), says("n1", name="one"), 0)
    table.gossiped("n1", [str(at(2)), str(at(3)), str(at(4))], 0)
    assert [peer.name for peer in table.listed_peers()] == ["one"]
    table.answered(at(2), says("n2", name="two"), 0)
    table.answered(at(3), says(OWN), 0)
    assert [peer.name for peer in table.listed_peers()] == ["one", "two"]


def test_gossip_of_one_peer_cannot_fill_the_table(table: PeerTable) -> None:
    table.answered(at(1), says("n1"), 0)
    for third in range(1, 20):
        table.gossiped("n1", [f"10.0.{third}.{fourth}" for fourth in range(1, 65)], 0)
    assert len(table) == 1 + MAX_UNANSWERED_PER_PEER
    assert table.gossiped("stranger", ["10.9.9.9"], 0) == []


def test_a_full_table_prefers_announced_peers_to_gossiped_ones_and_both_to_peers_that_are_gone() -> None:
    table = PeerTable(OWN, max_peers=3)
    table.add_static(at(100), 0)
    table.answered(at(1), says("n1"), 0)
    table.gossiped("n1", ["10.0.0.2", "10.0.0.3", "10.0.0.4"], 0)
    assert len(table) == 4
    assert table.announced("n5", [at(5)], 1) is not None
    assert table.announced("n6", [at(6)], 1) is not None
    assert table.announced("n7", [at(7)], 1) is None
    assert {peer.key for peer in table.all()} == {"10.0.0.100:9437", "n1", "n5", "n6"}
    for now in range(GONE_AFTER_FAILURES):
        table.failed("n5", now)
    assert table.announced("n7", [at(7)], 10) is not None
    assert table.get("n5") is None and table.get("10.0.0.100:9437") is not None


def test_a_name_brings_peers_and_takes_them_away_again(table: PeerTable) -> None:
    assert [peer.origin for peer in table.listed("dns:a", [at(1), at(2)], 0)] == [Origin.DNS, Origin.DNS]
    assert table.listed("dns:a", [at(1), at(2)], 1) == []
    table.answered(at(1), says("n1"), 1)
    table.listed("dns:b", [at(2)], 1)
    assert table.listed("dns:a", [at(3)], 2) == [table.get(str(at(3)))]
    assert {(peer.key, peer.dns_name) for peer in table.all()} == {(str(at(2)), "dns:b"), (str(at(3)), "dns:a")}
    table.listed("dns:a", [], 3)
    table.listed("dns:b", [], 3)
    assert not table.all()


def test_a_peer_that_is_known_otherwise_outlives_its_name(table: PeerTable) -> None:
    table.add_static(at(1), 0)
    table.announced("n2", [at(2)], 0)
    table.announced("n3", [at(3)], 0, by=Origin.REGISTRY)
    table.listed("dns:a", [at(1), at(2), at(3)], 0)
    assert [peer.origin for peer in table.all()] == [Origin.STATIC, Origin.DNS, Origin.DNS]
    table.listed("dns:a", [], 1)
    assert [peer.origin for peer in table.all()] == [Origin.STATIC, Origin.MDNS, Origin.REGISTRY]


def test_a_listed_peer_is_not_forgotten_and_this_node_is_none(table: PeerTable) -> None:
    table.answered(at(9), says(OWN), 0)
    table.listed("dns:a", [at(1), at(9)], 0)
    assert not table.forget_silent(10 * FORGET_SECONDS)
    assert [peer.address for peer in table.all()] == [at(1)]


def test_a_registration_adds_to_an_announcement_and_takes_no_hints_away(table: PeerTable) -> None:
    table.announced("n1", [at(1)], 0, generation=3, hints=frozenset({COMMIT[:12]}))
    again = must(table.announced("n1", [at(2)], 1, by=Origin.REGISTRY))
    assert (again.origin, again.generation, again.may_have(COMMIT)) == (Origin.MDNS, 3, True)


# ---- whatever happens

_events = st.lists(
    st.tuples(
        st.sampled_from(
            ["static", "unstatic", "listed", "heard", "told", "answered", "gave", "failed", "lied", "left", "forget"]
        ),
        st.integers(1, 6),
        st.integers(1, 6),
        st.floats(0, 1000),
    ),
    max_size=60,
)


@given(_events)
def test_whatever_happens_each_node_is_in_the_table_once_and_an_address_is_its_who_answers_there(
    events: list[tuple[str, int, int, float]],
) -> None:
    table, static, listed, now = PeerTable(OWN, max_peers=4), set[Address](), set[Address](), 0.0
    for what, node, place, later in events:
        now += later
        node_id = OWN if node == 6 else f"n{node}"
        if what == "static":
            static.add(at(place))
            table.add_static(at(place), now)
        elif what == "unstatic":
            static.discard(at(place))
            table.remove_static(at(place))
        elif what == "listed":
            listed = {at(place), at(place + 1)} if node % 2 else set()
            table.listed("dns:a", listed, now)
        elif what == "heard":
            table.announced(node_id, [at(place), at(place + 1)], now)
        elif what == "told":
            table.gossiped(node_id, [str(at(place)), str(at(place + 1))], now)
        elif what == "answered":
            table.answered(at(place), says(node_id), now)
        elif what == "left":
            table.left(node_id, now)
        elif what == "forget":
            table.forget_silent(now)
        else:
            getattr(table, what)(node_id, now)
        peers = table.all()
        node_ids = [peer.node_id for peer in peers if peer.node_id]
        assert len(node_ids) == len(set(node_ids)) and OWN not in node_ids
        assert all(peer.addresses and table.get(peer.key) == peer for peer in peers)
        assert all((peer.origin is Origin.STATIC) == (not static.isdisjoint(peer.addresses)) for peer in peers)
        assert all((peer.dns_name != "") == (not listed.isdisjoint(peer.addresses)) for peer in peers)
        if what == "answered":
            assert [peer.node_id for peer in peers if at(place) in peer.addresses] == [node_id] * (node_id != OWN)
        assert {peer.key for peer in table.candidates(now)} <= {peer.key for peer in peers}


def test_a_host_has_a_largest_number_of_peers_of_any_origin() -> None:
    table = PeerTable(OWN)
    for port in range(1, MAX_PEERS_PER_HOST + 20):
        table.announced(f"n{port}", [at(1, port)], 0)
    assert len(table) == MAX_PEERS_PER_HOST
    table.announced("sender", [at(2)], 0)
    assert table.gossiped("sender", [str(at(1, 30_000)), str(at(3))], 0) == [table.get(str(at(3)))]
    assert must(table.add_static(at(1, 40_000), 0)).origin is Origin.STATIC


def test_gossiped_addresses_without_a_response_are_bounded_per_host_and_in_all() -> None:
    table, told = PeerTable(OWN), 0
    for host in range(1, 12):
        for port in range(1, 4):
            table.announced(f"n{host}-{port}", [at(host, port)], 0)
            invented = [f"10.{host}.{port}.{last}" for last in range(1, MAX_UNANSWERED_PER_PEER + 1)]
            told += len(table.gossiped(f"n{host}-{port}", invented, 0))
        if host == 1:
            assert told == MAX_UNANSWERED_PER_HOST
    assert told == MAX_UNANSWERED


def tells(*addresses: Address) -> NodeMessage:
    return replace(says("ara"), addresses=tuple(map(str, addresses)))


def test_a_peer_is_known_at_all_addresses_that_it_tells(table: PeerTable) -> None:
    table.add_static(at(1), 0.0)
    peer = must(table.answered(at(1), tells(at(2), at(1), at(3)), 1.0))
    assert peer.addresses == (at(1), at(2), at(3)), "where it responded first"


def test_addresses_told_from_behind_a_nat_are_of_another_network(table: PeerTable) -> None:
    assert must(table.answered(at(1), tells(at(2), at(3)), 1.0)).addresses == (at(1),)


def test_a_peer_gets_no_address_where_another_one_responds_or_no_peer_can_be(table: PeerTable) -> None:
    table.answered(at(2), says("bea"), 0.0)
    told = tells(at(1), at(2), Address("127.0.0.1"), Address("169.254.169.254"), Address("8.8.8.8"), Address("host"))
    assert must(table.answered(at(1), told, 1.0)).addresses == (at(1),)
    assert must(table.get("bea")).addresses == (at(2),)


def test_an_address_that_was_told_is_taken_by_the_node_that_responds_there(table: PeerTable) -> None:
    table.answered(at(1), tells(at(1), at(2)), 0.0)
    table.answered(at(2), says("bea"), 1.0)
    assert must(table.get("ara")).addresses == (at(1),)
