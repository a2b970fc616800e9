"""How much peers that want a node never to finish cost it: each of them alone, and each pair.

    python -m bench.hostile                          all alone, then all pairs; some minutes
    python -m bench.hostile --alone
    python -m bench.hostile ClaimsAndRefuses OneFileABatch+StallsAtOnce

An honest hub of a certain speed has a repo of large and of small files; a node adds it beside the peers. It may take
1.5 times as long as without them, and five seconds. The cast is in tests/fakes/hostile.py. Several runs go side
by side, and so does, again and again, one without peers: with the median of these is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from fakes import hostile
from fakes.hostile import HOSTILE, HostilePeer, Outcome, Stage, ordeal_hub

CONTROL_EVERY = 12
Cast = tuple[type[HostilePeer], ...]


def is_bearable(outcome: Outcome, control: Outcome) -> bool:
    """Whether an add went as well as it must, beside what it takes without bad peers."""
    return not outcome.error and outcome.seconds <= 1.5 * control.seconds + 5.0


async def run(stage: Stage, casts: Sequence[Cast], at_once: int, folder: Path) -> int:
    """Runs all, prints a line for each, and gives how many took too long."""
    slots = asyncio.Semaphore(at_once)
    outcomes: list[tuple[Cast, Outcome]] = []

    async def one(number: int, cast: Cast) -> None:
        async with slots:
            home = folder / str(number)
            outcomes.append((cast, await stage.add(home, cast)))
            shutil.rmtree(home, ignore_errors=True)
            print(".", end="", flush=True, file=sys.stderr)

    every = [cast for at, cast in enumerate(casts) for cast in ([(), cast] if at % CONTROL_EVERY == 0 else [cast])]
    await asyncio.gather(*(one(number, cast) for number, cast in enumerate(every)))
    controls = sorted((outcome for cast, outcome in outcomes if not cast), key=lambda outcome: outcome.seconds)
    control = controls[len(controls) // 2]
    print(f"\n{'peers':52} seconds  ratio  hub sent  liars")
    bad = 0
    for cast, outcome in sorted(outcomes, key=lambda found: (len(found[0]), found[1].seconds)):
        is_bad = bool(cast) and not is_bearable(outcome, control)
        bad += is_bad
        names = " + ".join(kind.__name__ for kind in cast) or "(none)"
        print(
            f"{names:52} {outcome.seconds:7.1f}  {outcome.seconds / control.seconds:5.2f}  {outcome.copies:6.2f} F"
            f"  {','.join(sorted(outcome.liars))}{'  TOO LONG' if is_bad else ''}  {outcome.error[:120]}"
        )
    print(f"{len(outcomes)} runs, {bad} too long; without peers {control.seconds:.1f} s")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the cast; + between those that are to be there together")
    parser.add_argument("--alone", action="store_true", help="no pairs")
    parser.add_argument("--at-once", type=int, default=3, help="how many runs go side by side (default: 3)")
    parser.add_argument("--rate", type=float, default=12.0, help="of the hub, in MB/s (default: 12)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    casts: list[Cast] = [tuple(getattr(hostile, name) for name in names.split("+")) for names in options.names]
    if not casts:
        casts = [(kind,) for kind in HOSTILE] + ([] if options.alone else list(combinations(HOSTILE, 2)))
    with tempfile.TemporaryDirectory() as folder, ordeal_hub(bytes_per_second=options.rate * 1e6) as stage:
        return 1 if asyncio.run(run(stage, casts, options.at_once, Path(folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
