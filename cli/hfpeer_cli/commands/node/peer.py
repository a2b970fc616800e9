"""`hfpeer peer`: the other nodes on the LAN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from hfpeer.config.peer_names import PeerName, with_port
from hfpeer.control.operations import PeerStatus
from hfpeer_cli.grammar import PEER, PORT, Noun, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time, natural
from hfpeer_cli.screen.tables import age, exact, name, number, words

COLUMNS = (
    name("NAME"),
    exact("ADDRESS"),
    words("STATE"),
    words("FOUND BY", rank=2),
    number("SHARES", rank=1),
    number("RECEIVED"),
    age("LAST SEEN"),
)
MAX_NOTES = 8
"""At most this many peers are shown with the reason why they do not answer."""


@click.group(
    "peer",
    cls=Noun,
    no_args_is_help=True,
    examples=["hfpeer peer ls", "hfpeer peer add 192.168.1.20", "hfpeer peer rm 192.168.1.20"],
)
def peer() -> None:
    """Other nodes on the LAN.

    Nodes find each other by mDNS. Where multicast does not reach, name a peer, a DNS name that has the addresses of
    peers, or a registry (`hfpeer conf set registry redis://HOST`).
    """


@peer.command(
    "add",
    examples=[
        "hfpeer peer add 192.168.1.20",
        "hfpeer peer add gpu-3.local:9500",
        "hfpeer peer add dns:hfpeer.models.svc.cluster.local",
        "hfpeer peer add srv:_hfpeer._tcp.lab.example",
    ],
)
@click.argument("peer", metavar="PEER", type=PEER)
@click.option("-p", "--port", type=PORT, help="The peer's port, instead of :PORT.")
@pass_invocation
def add(invocation: Invocation, peer: PeerName, port: int | None) -> None:
    """Remember a peer, and say whether it answers.

    PEER is HOST[:PORT]; or dns:NAME[:PORT], all addresses of a DNS name; or srv:NAME, all its SRV records. Names are
    looked up again as their records expire.
    """
    called = str(with_port(peer, port) if port else peer)
    status = invocation.run(lambda node: node.add_peer(called))
    output = invocation.output
    output.result(added_sentence(status), status)


def added_sentence(status: PeerStatus) -> str:
    """A sentence on a peer that was added: whether it answers."""
    if status.origin == "dns":
        pause = ". " if status.state == "unresolved" or status.note[:1].isupper() else "; "
        return f"{status.address} is remembered{pause}{status.note.rstrip('.')}."
    if status.state == "alive":
        shared = counted(status.revisions, "revision")
        return f"{status.name or status.address} answers at {status.address}; it shares {shared}."
    _, silent, reason = status.note.rpartition("does not answer: ")
    if status.note and not silent:  # another program may answer there
        return f"Added {status.address}. {status.note}"
    why = f" ({reason.rstrip('.')})" if reason else ""
    return f"Added {status.address}. It does not answer yet{why}."


@peer.command("rm", examples=["hfpeer peer rm 192.168.1.20", "hfpeer peer rm dns:hfpeer.models.svc.cluster.local"])
@click.argument("peer", metavar="PEER", type=PEER)
@click.option("-p", "--port", type=PORT, help="The peer's port, instead of :PORT.")
@pass_invocation
def rm(invocation: Invocation, peer: PeerName, port: int | None) -> None:
    """Forget a peer that was added by hand, or one that is gone."""
    called = str(with_port(peer, port) if port else peer)
    invocation.run(lambda node: node.remove_peer(called))
    invocation.output.result(f"{called} is forgotten.", {"address": called})


@peer.command("ls", examples=["hfpeer peer ls", "hfpeer peer ls --json"])
@pass_invocation
def ls(invocation: Invocation) -> None:
    """List the peers.

    Their names, whether they answer, by what they were found, and how many bytes came from each.
    """
    node = invocation.run(lambda node: node.status())
    peers = in_order(node.peers)
    invocation.output.table(COLUMNS, map(peer_row, peers), peers, names=1)
    for sentence in (*(f"{peer.address}: {peer.note}" for peer in _noted(peers)), *node.notes):
        invocation.output.note(sentence)
    if peers:
        invocation.output.note(total_line(peers))
    else:
        invocation.output.note("No peers yet. `hfpeer peer add HOST` adds one that mDNS does not find.")


def in_order(peers: Sequence[PeerStatus]) -> list[PeerStatus]:
    """By name, those without one last: m2 before m10."""
    return sorted(peers, key=lambda peer: (not peer.name, natural(peer.name), natural(peer.address)))


def states_of(peers: Sequence[PeerStatus]) -> str:
    """How many peers there are, and how many in each state."""
    counts = Counter(peer.state for peer in peers)
    states = ", ".join(f"{number_of:,} {state}" for state, number_of in counts.most_common())
    return f"{counted(len(peers), 'peer')}: {states}"


def total_line(peers: Sequence[PeerStatus]) -> str:
    """The sums under the table."""
    shared = counted(sum(peer.revisions for peer in peers), "revision")
    received = human_size(sum(peer.received_bytes for peer in peers))
    return f"{states_of(peers)}. They share {shared}; {received} came from them."


def _noted(peers: Sequence[PeerStatus]) -> list[PeerStatus]:
    """The first peers that do not answer and say why. Why a name has no address, the node says."""
    return [peer for peer in peers if peer.note and peer.state not in ("alive", "unresolved")][:MAX_NOTES]


def peer_row(status: PeerStatus) -> tuple[str, ...]:
    """One line of the table of peers, under COLUMNS."""
    seen = status.last_seen_seconds_ago
    return (
        status.name or "?",
        status.address,
        status.state,
        status.found_by or status.origin,
        f"{status.revisions:,}",
        human_size(status.received_bytes),
        "never" if seen is None else f"{human_time(seen)} ago",
    )
