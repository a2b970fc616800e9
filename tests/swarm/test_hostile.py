"""A node beside peers that waste its time, alone and in pairs: an honest hub brings everything, nearly once, and the
liars are named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pytest

from fakes import hostile
from fakes.hostile import HOSTILE, HostilePeer, Outcome, Stage, ordeal_hub

AT_ONCE = 4
LIMIT_SECONDS = 100.0
"""Seconds that an add may take before it counts as hanging."""
Cast = tuple[type[HostilePeer], ...]
IN_EVERY_RUN: tuple[Cast, ...] = (
    (hostile.ClaimsAndRefuses,),
    (hostile.ClaimsInTurn,),
    (hostile.OneFileABatch,),
    (hostile.AByteNowAndThen,),
    (hostile.NeverAnswers,),
    (hostile.InventsMembers,),
    (hostile.TalksWithoutEnd,),
    (hostile.JustAboveNothing,),
    (hostile.ClaimsAndRefuses, hostile.StallsAtOnce),
    (hostile.SilentLeecher, hostile.AFileASecond),
    (hostile.APieceAndAStall, hostile.BusyForNoTime),
)
SOME_PAIRS = list(combinations(HOSTILE, 2))[::16]
"""`python -m bench.hostile` tries all of them."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ordeal_hub() as stage:
        yield stage


async def ordeals(stage: Stage, folder: Path, casts: Sequence[Cast]) -> dict[Cast, Outcome]:
    """One add beside each of these, some side by side, and one without peers."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(cast: Cast) -> tuple[Cast, Outcome]:
        home = folder / "+".join(["add", *(kind.__name__ for kind in cast)])
        async with slots:
            return cast, await stage.add(home, cast, limit_seconds=LIMIT_SECONDS)

    return dict(await asyncio.gather(*map(one, [(), *casts])))


async def check(stage: Stage, folder: Path, casts: Sequence[Cast]) -> None:
    """What holds on any machine. How long each takes on a quiet one, `bench.hostile` measures."""
    outcomes = await ordeals(stage, folder, casts)
    control = outcomes.pop(())
    assert {cast: outcome.error for cast, outcome in outcomes.items() if outcome.error} == {}
    assert {cast: outcome.copies for cast, outcome in outcomes.items() if outcome.copies >= 1.35} == {}
    named = {cast: set(outcome.liars) for cast, outcome in outcomes.items()}
    assert named == {cast: {kind.__name__.lower() for kind in cast if kind.lies} for cast in casts}
    hangs = {cast: outcome.seconds for cast, outcome in outcomes.items() if outcome.seconds > 3 * control.seconds + 20}
    assert hangs == {}


@pytest.mark.timeout(600)
async def test_some_of_those_who_waste_time_stop_nothing(stage: Stage, tmp_path: Path) -> None:
    await check(stage, tmp_path, IN_EVERY_RUN)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_of_them_alone_stops_nothing(stage: Stage, tmp_path: Path) -> None:
    await check(stage, tmp_path, [(kind,) for kind in HOSTILE])


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_pairs_of_them_stop_nothing(stage: Stage, tmp_path: Path) -> None:
    await check(stage, tmp_path, SOME_PAIRS)
