"""Which transfers run, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hfpeer.control.operations import PRIORITIES
from hfpeer.control.transfers import FAILED, PAUSED, QUEUED, RUNNING, WAITING
from hfpeer.node.operations.transfers.transfer import LONGEST_RETRY_SECONDS, Transfer

DONE_SECONDS = 24 * 3600.0
"""Seconds for which a transfer that is done stays in the list."""
FAILED_SECONDS = 7 * 24 * 3600.0
"""Seconds for which one that failed does."""
MAX_OVER = 100
"""At most this many transfers that are over stay in the list, the last ones."""
MAX_QUEUED = 10_000
"""At most this many transfers that are not over."""
_STATES = (RUNNING, QUEUED, WAITING, PAUSED, FAILED)


def in_order(transfers: Iterable[Transfer]) -> list[Transfer]:
    """The transfers as they are listed: by state, then in the order in which they run."""
    return sorted(transfers, key=_rank)


def _rank(transfer: Transfer) -> tuple[float, ...]:
    state = _STATES.index(transfer.state) if transfer.state in _STATES else len(_STATES)
    return state, *_turn(transfer)


def _turn(transfer: Transfer) -> tuple[int, int, int]:
    return PRIORITIES.index(transfer.priority), transfer.place, transfer.id


def startable(transfers: Sequence[Transfer], now: float, at_once: int) -> list[Transfer]:
    """The transfers to start now, so that at most `at_once` run: by priority and place. A waiting transfer takes no
    room before its next try, nor does one that another node is asked to do."""
    running = sum(one.state == RUNNING for one in transfers if not one.is_elsewhere)
    ready = sorted((one for one in transfers if one.state == QUEUED or _is_due(one, now)), key=_turn)
    here = [one for one in ready if not one.is_elsewhere][: max(0, at_once - running)]
    return [*here, *(one for one in ready if one.is_elsewhere)]


def _is_due(transfer: Transfer, now: float) -> bool:
    """Whether it is to be tried again. A time far ahead was noted by a clock that went wrong."""
    at = transfer.next_try_at or 0.0
    return transfer.state == WAITING and not now < at <= now + LONGEST_RETRY_SECONDS


def next_due_at(transfers: Iterable[Transfer], now: float) -> float | None:
    """When the next of the waiting ones becomes due."""
    return min(
        (one.next_try_at or 0.0 for one in transfers if one.state == WAITING and not _is_due(one, now)), default=None
    )


def moved(transfer: Transfer, transfers: Iterable[Transfer], *, is_first: bool) -> Transfer:
    """The transfer before all others of the queue, or after them."""
    others = [one for one in transfers if one.id != transfer.id and not one.is_over]
    if not others:
        return transfer
    if is_first:
        head = min(others, key=_turn)
        return replace(transfer, priority=head.priority, place=head.place - 1)
    tail = max(others, key=_turn)
    return replace(transfer, priority=tail.priority, place=tail.place + 1)


def expired(transfers: Iterable[Transfer], now: float) -> list[Transfer]:
    """The transfers that leave the list: they are over for too long, or too many are."""
    over = sorted((one for one in transfers if one.is_over), key=lambda one: one.ended_at or 0.0)
    kept = [one for one in over if now - (one.ended_at or 0.0) < _kept_seconds(one)]
    dropped = kept[: max(0, len(kept) - MAX_OVER)]
    return [one for one in over if one not in kept] + dropped


def _kept_seconds(transfer: Transfer) -> float:
    return FAILED_SECONDS if transfer.state == FAILED else DONE_SECONDS
