"""`hfpeer status`: the state of the node."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from hfpeer.control.operations import NodeStatus, TransferStatus
from hfpeer.net.address import LAN_PORT, Address
from hfpeer_cli.commands.node.peer import in_order, states_of
from hfpeer_cli.commands.shell.environment import lan_urls, reachable
from hfpeer_cli.commands.transfers.listing import done_words, state_words
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import FROM_KINDS
from hfpeer_cli.screen.bars import clock_time

MAX_PEERS = 6
"""More peers than these are counted, not listed."""
MAX_TRANSFERS = 6
"""At most this many transfers are listed; further ones are counted."""
MAX_MONTHS = 3
"""At most this many months are shown, the latest; JSON has all."""


@click.command("status", cls=Verb, examples=["hfpeer status", "hfpeer --json status"])
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show the state of this node: its addresses, its cache, its peers, and the bytes from each kind of source.

    Without a daemon it shows the cache; `hfpeer daemon status` exits 9 then.
    """
    picture = invocation.run(lambda node: node.status())
    print_status(invocation, picture)
    if invocation.open_session is None:
        from hfpeer.node.session import differences

        found = differences(invocation.daemon, invocation.settings, invocation.environ)
        invocation.output.note(map(str, found))


def print_status(invocation: Invocation, node: NodeStatus) -> None:
    """Prints the state of a node on this machine."""
    endpoint = node.listeners.get("endpoint")
    urls = lan_urls(Address.parse(endpoint)) if endpoint else []
    invocation.output.result(describe(node, time.time(), urls), node)


def describe(node: NodeStatus, now: float, open_urls: Sequence[str] = ()) -> list[str]:
    """The state in lines. `now` is in seconds since the epoch; `open_urls` are the URLs of the endpoint for other
    machines."""
    endpoint = node.listeners.get("endpoint")
    state = f"runs for {human_time(max(0.0, now - node.started_at))} as process {node.pid}"
    if not node.is_daemon:
        state = "no daemon runs (`hfpeer daemon start` starts it)"
    if node.holder:
        state = f"a daemon ({node.holder}) holds this home and cannot be reached (`hfpeer daemon status` says more)"
    facts: dict[str, str | list[str]] = {
        "node": f"{node.name} ({node.node_id}), hfpeer {node.version}",
        "state": state,
        "home": node.home,
        "cache": node.cache,
        **({"also reads": [_read_cache(*one) for one in node.read_caches.items()]} if node.read_caches else {}),
        "listens": _pairs(node.listeners),
        **({"page": f"{reachable(Address.parse(endpoint)).url}/"} if endpoint else {}),
        **({"elsewhere": f"hfpeer peer add {_typed(node.addresses[0])}"} if node.addresses else {}),
        **({"not used": _passed_over(node)} if node.passed_over else {}),
        **({"for others": f"HF_ENDPOINT={open_urls[0]} (public repos)"} if open_urls else {}),
        "upstreams": [_upstream(node, name) for name in node.upstreams],
        "holds": _holds(node),
        **({"disk": _disk(node)} if node.free_bytes is not None and node.disk_bytes else {}),
        **({"half-fetched": _begun(node)} if node.begun_blobs else {}),
        "received": ", ".join(f"{human_size(size)} {FROM_KINDS[kind]}" for kind, size in node.received_bytes.items()),
        **({"WAN saved": _saved(node)} if node.received_bytes.get("peer") else {}),
        "sent": _sent(node),
        "fetching": _transfers(node),
        "peers": _peers(node),
        **({"note": list(node.notes)} if node.notes else {}),
    }
    lines = []
    for name, text in facts.items():
        first, *others = [text] if isinstance(text, str) else text or [""]
        lines += [f"{name:<10} {first or '-'}", *(f"{'':<11}{other}" for other in others)]
    return lines


def _pairs(facts: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in facts.items()]


def _passed_over(node: NodeStatus) -> str:
    """The interfaces that are not used, and the setting that takes one."""
    shown = ", ".join(f"{name} ({host})" for name, host in node.passed_over.items())
    host = next(iter(node.passed_over.values()))
    return f"{shown}: no LAN behind it. `hfpeer conf set lan.listen {host}` takes it nevertheless"


def _sent(node: NodeStatus) -> str:
    """The bytes sent to peers, and the rate while bytes leave."""
    size, rate = human_size(node.sent_bytes), node.sent_bytes_per_second
    return f"{size}; sending {human_size(rate)}/s now" if rate >= 1 else size


def _typed(address: str) -> str:
    """An address as it may be typed."""
    return address.removesuffix(f":{LAN_PORT}")


def _upstream(node: NodeStatus, name: str) -> str:
    """A hub: its address, and whether it answers."""
    contact = node.contacts.get(name)
    if contact is None:
        return f"{name}: {node.upstreams[name]}"
    answered, failed = contact.answered_seconds_ago, contact.failed_seconds_ago
    said = "not asked yet" if answered is None else f"answered {human_time(answered)} ago"
    if failed is not None:
        said = f"does not answer (asked {human_time(failed)} ago; {'it never did' if answered is None else said})"
    return f"{name}: {node.upstreams[name]}, {contact.kind}, {said}"


def _holds(node: NodeStatus) -> str:
    held = f"{counted(node.revisions, 'revision')}, {counted(node.files, 'file')}, {human_size(node.size_bytes)}"
    return f"{held} ({node.unverified_files:,} still to be verified)" if node.unverified_files else held


def _disk(node: NodeStatus) -> str:
    return f"{human_size(node.free_bytes or 0)} of {human_size(node.disk_bytes or 0)} are free"


def _begun(node: NodeStatus) -> str:
    here = f"{human_size(node.kept_bytes)} of {human_size(node.begun_whole_bytes)}"
    return f"{counted(node.begun_blobs, 'blob')}, {here}; takes {human_size(node.reserved_bytes)}"


def _saved(node: NodeStatus) -> str:
    """What peers gave instead of the WAN: over all time, and in the last months."""
    months = [f"{month}: {human_size(size)}" for month, size in list(node.peer_bytes_by_month.items())[:MAX_MONTHS]]
    saved = human_size(node.received_bytes["peer"])
    return f"{saved} came from peers instead: {', '.join(months)}" if months else f"{saved} came from peers instead"


def _peers(node: NodeStatus) -> list[str]:
    """Each peer if there are few; of many how many are in which state."""
    if len(node.peers) > MAX_PEERS:
        return [f"{states_of(node.peers)} (`hfpeer peer ls` lists them)"]
    return [f"{peer.name or '?'}  {peer.address}  {peer.state}" for peer in in_order(node.peers)]


def _transfers(node: NodeStatus) -> list[str]:
    """The first transfers, and the number of the others."""
    lines = [_transfer(one) for one in node.transfers[:MAX_TRANSFERS]]
    others = len(node.transfers) - len(lines)
    return [*lines, f"and {counted(others, 'transfer')} more (`hfpeer transfers` lists them)"] if others > 0 else lines


def _transfer(one: TransferStatus) -> str:
    """A transfer, or a file that is fetched for a caller of the endpoint: how far it is, how fast, how long still."""
    name = f"{one.id} {one.repo}" if one.id else f"{one.repo} {one.path} (endpoint)"
    name = f"{name} on {one.node}" if one.node else name
    facts = [state_words(one, time.time()), done_words(one)]
    if one.rate_bytes_per_second >= 1:
        facts.append(f"{human_size(one.rate_bytes_per_second)}/s")
    if one.left_seconds is not None:
        facts.append(f"about {clock_time(one.left_seconds)} left")
    return f"{name}: {', '.join(filter(None, facts))}"


def _read_cache(folder: str, reason: str) -> str:
    return f"{folder} (passed over: {reason})" if reason else folder
