"""The entry of a node in a registry: its id, and where peers reach it. Nothing else. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hfpeer import json_fields
from hfpeer.budgets import MAX_ADDRESSES, MAX_REGISTRATION_BYTES
from hfpeer.errors import InvalidName
from hfpeer.net.address import Address
from hfpeer.peers.protocol.paths import PROTOCOL_VERSION


@dataclass(frozen=True)
class Registration:
    """The entry of one node: IP addresses with ports, the nearest first as the node sees them."""

    node_id: str
    addresses: tuple[Address, ...]

    @classmethod
    def of(cls, node_id: str, addresses: Sequence[Address]) -> Registration:
        return cls(node_id, tuple(addresses)[:MAX_ADDRESSES])

    def to_text(self) -> str:
        return json.dumps(
            {"protovers": PROTOCOL_VERSION, "id": self.node_id, "addresses": list(map(str, self.addresses))}
        )

    @classmethod
    def from_text(cls, text: bytes) -> Registration | None:
        """The inverse of `to_text`; None for an entry that no node of this protocol version wrote."""
        if not text or len(text) > MAX_REGISTRATION_BYTES:
            return None
        try:
            document = json.loads(text)
            if document["protovers"] != PROTOCOL_VERSION:
                return None
            node_id = json_fields.text(document["id"], 64)
            written = [json_fields.text(one) for one in document["addresses"][:MAX_ADDRESSES]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        addresses = filter(None, map(_ip_address, written))
        return cls(node_id, tuple(dict.fromkeys(addresses))) if node_id else None


def _ip_address(text: str) -> Address | None:
    """None for a name, which is not looked up: a stranger wrote it."""
    try:
        address = Address.parse(text)
    except InvalidName:
        return None
    return address if address.ip is not None else None
