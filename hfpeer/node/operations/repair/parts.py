"""The parts of a node that a repair uses, and the reasons why steps fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hfpeer.cache.repair.planning import Step
from hfpeer.cache.store import Store
from hfpeer.errors import HfpeerError, NoSourceLeft, Unreachable
from hfpeer.resolver.peer_queries import PeerTrust
from hfpeer.resolver.resolver import Resolver
from hfpeer.transfer.events import OnEvent
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.sources.lan import Lan
from hfpeer.upstream.upstreams import Upstreams

Key = tuple[str, str, str, str]
"""See `Step.key`."""
WOULD_HELP = "A peer that has it, a hub, or an archive (`hfpeer import`) would help."


@dataclass(frozen=True)
class RepairParts:
    """`upstreams` are empty where no hub may be asked."""

    store: Store
    fetches: Fetches
    resolver: Resolver
    lan: Lan
    upstreams: Upstreams
    trust: PeerTrust
    on_event: OnEvent

    @property
    def may_ask(self) -> bool:
        """Whether any source beside this machine may be asked."""
        return bool(self.upstreams.upstreams) or self.trust.asks_peers


class Reasons:
    """Why findings are still there, by the keys of their steps."""

    def __init__(self) -> None:
        self.by_key: dict[Key, str] = {}
        """A sentence each, with what would help."""
        self.unreachable: set[Key] = set()
        """Those for which no source answered."""

    @contextmanager
    def of(self, steps: Iterable[Step]) -> Iterator[None]:
        """An error that leaves the block is noted as the reason of these steps, and does not go further."""
        try:
            yield
        except HfpeerError as error:
            self.note_error(steps, error)

    def note_error(self, steps: Iterable[Step], error: HfpeerError) -> None:
        reason = f"{error.message} {error.hint or ''}".strip()
        if isinstance(error, NoSourceLeft):
            reason = f"{reason} {WOULD_HELP}"
        self.note(steps, reason, is_unreachable=isinstance(error, Unreachable))

    def note(self, steps: Iterable[Step], reason: str, *, is_unreachable: bool = False) -> None:
        for step in steps:
            self.by_key[step.key] = reason
            if is_unreachable:
                self.unreachable.add(step.key)
