"""`hfpeer peer`: the other nodes on the LAN."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hfpeer.control.operations import PeerStatus
from hfpeer.net.address import Address
from hfpeer_cli.grammar import ADDRESS, PORT, Noun, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size, human_time

HEADINGS = ("NAME", "ADDRESS", "STATE", "FOUND BY", "REVISIONS", "RECEIVED", "LAST SEEN")
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

    Nodes find each other by mDNS; add one by hand where multicast does not reach.
    """


@peer.command("add", examples=["hfpeer peer add 192.168.1.20", "hfpeer peer add gpu-3.local:9500"])
@click.argument("address", metavar="HOST[:PORT]", type=ADDRESS)
@click.option("-p", "--port", type=PORT, help="The peer's port, instead of :PORT.")
@pass_invocation
def add(invocation: Invocation, address: Address, port: int | None) -> None:
    """Remember a peer, and say whether it answers."""
    called = str(Address(address.host, port or address.port))
    status = invocation.run(lambda node: node.add_peer(called))
    output = invocation.output
    output.result(added_sentence(status), status)


def added_sentence(status: PeerStatus) -> str:
    """A sentence on a peer that was added: whether it answers."""
    if status.state == "alive":
        return f"{status.name or status.address} answers at {status.address}; it shares {status.revisions:,} revisions."
    why = f" ({status.note})" if status.note else ""
    return f"{status.address} is remembered; it does not answer now{why}."


@peer.command("rm", examples=["hfpeer peer rm 192.168.1.20", "hfpeer peer rm gpu-3.local:9500"])
@click.argument("address", metavar="HOST[:PORT]", type=ADDRESS)
@click.option("-p", "--port", type=PORT, help="The peer's port, instead of :PORT.")
@pass_invocation
def rm(invocation: Invocation, address: Address, port: int | None) -> None:
    """Forget a peer that was added by hand."""
    called = str(Address(address.host, port or address.port))
    invocation.run(lambda node: node.remove_peer(called))
    invocation.output.result(f"{called} is forgotten.", {"address": called})


@peer.command("ls", examples=["hfpeer peer ls", "hfpeer peer ls --json"])
@pass_invocation
def ls(invocation: Invocation) -> None:
    """List the peers.

    Their names, whether they answer, and how many bytes came from each.
    """
    node = invocation.run(lambda node: node.status())
    peers = node.peers
    invocation.output.table(HEADINGS, map(peer_row, peers), peers, names=1)
    for sentence in (*(f"{peer.address}: {peer.note}" for peer in _noted(peers)), *node.notes):
        invocation.output.note(sentence)
    if not peers:
        invocation.output.note("No peers yet. `hfpeer peer add HOST` adds one that mDNS does not find.")


def _noted(peers: Sequence[PeerStatus]) -> list[PeerStatus]:
    """The first peers that do not answer and say why."""
    return [peer for peer in peers if peer.note and peer.state != "alive"][:MAX_NOTES]


def peer_row(status: PeerStatus) -> tuple[str, ...]:
    """One line of the table of peers, under HEADINGS."""
    seen = status.last_seen_seconds_ago
    return (
        status.name or "?",
        status.address,
        status.state,
        status.origin,
        f"{status.revisions:,}",
        human_size(status.received_bytes),
        "never" if seen is None else f"{human_time(seen)} ago",
    )
