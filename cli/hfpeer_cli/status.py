"""`hfpeer status`: the node in one picture."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from hfpeer.names import Address
from hfpeer.operations import NodeStatus
from hfpeer_cli.environment import lan_urls
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time


@click.command("status", cls=Verb, examples=["hfpeer status", "hfpeer --json status"])
@pass_invocation
def status(invocation: Invocation) -> None:
    """Say what this node is, where it listens, what it holds, and what came from where.

    Without a daemon it says so, and tells what the cache holds; `hfpeer daemon status` exits 9 then.
    """
    picture = invocation.run(lambda node: node.status())
    print_status(invocation, picture)


def print_status(invocation: Invocation, node: NodeStatus) -> None:
    """The result of a command that asked for the picture of a node on this machine."""
    endpoint = node.listeners.get("endpoint")
    urls = lan_urls(Address.parse(endpoint)) if endpoint else []
    invocation.output.result("\n".join(describe(node, time.time(), urls)), node)


def describe(node: NodeStatus, now: float, open_urls: Sequence[str] = ()) -> list[str]:
    """The picture in lines; `now` is in seconds since the epoch, `open_urls` where others reach its endpoint."""
    state = f"pid {node.pid}, up {human_time(max(0.0, now - node.started_at))}"
    if not node.is_daemon:
        state = "no daemon runs (`hfpeer daemon start` starts it)"
    facts = {
        "node": f"{node.name} ({node.node_id}), hfpeer {node.version}",
        "state": state,
        "home": node.home,
        "cache": node.cache,
        "listens": _pairs(node.listeners),
        **({"for others": f"HF_ENDPOINT={open_urls[0]} (public repos)"} if open_urls else {}),
        "upstreams": _pairs(node.upstreams),
        "holds": _holds(node),
        "received": ", ".join(f"{human_size(size)} from {kind}" for kind, size in node.received_bytes.items()),
        "sent": human_size(node.sent_bytes),
        "fetching": ", ".join(node.transfers),
        "peers": _peers(node),
    }
    return [f"{name:<10} {text or '-'}" for name, text in facts.items()]


def _pairs(facts: dict[str, str]) -> str:
    return f"\n{'':<11}".join(f"{name}: {value}" for name, value in facts.items())


def _holds(node: NodeStatus) -> str:
    held = f"{counted(node.revisions, 'revision')}, {counted(node.files, 'file')}, {human_size(node.size_bytes)}"
    return f"{held} ({node.unverified_files:,} still to be verified)" if node.unverified_files else held


def _peers(node: NodeStatus) -> str:
    return f"\n{'':<11}".join(f"{peer.name or '?'} {peer.address} {peer.state}" for peer in node.peers)
