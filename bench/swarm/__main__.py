"""The swarm beside what people would use instead, on a LAN of network namespaces, in one run.

    python -m bench.swarm                         all of it: 512 MiB, three runs, medians; some hours
    python -m bench.swarm --quick                 64 MiB, one run: a look, some minutes
    python -m bench.swarm holder --receivers 1,4,8 --ways hfpeer

Needs root (network namespaces), nginx, curl, and for BitTorrent the package libtorrent (`pip install -e '.[bench]'`).
Scenarios:

    holder         one node holds the model, N others get it, starting together
    on             the same with one command, `add --on all` at the holder, for 8 nodes
    wan            only the hub has it, behind a narrow link that all share; N nodes start within 2 s
    wan-killed     the same, one node killed (SIGKILL) in the middle
    wan-slow       the same, one node's link slowed to a tenth
    wan-liar       the same, one node lies in 1 % of its pieces
    holder-killed  the holder is killed when it has sent 1.2 copies
    small          1,000 files of 10 KB from one holder to 8 nodes
    many           12 fetches at once, of 12 models, among 6 nodes

Everything lies in memory (--dir, by default /dev/shm), about (N + 2) times the size, and is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fakes.network.lan import MBIT, why_not
from fakes.network.namespaces import CannotBuild

from .plan import MIB, SCENARIOS, Model, Plan, Scale, Shape, plans
from .plot import draw
from .report import as_json, rows, table
from .trial import Outcome, perform
from .ways import WAYS, HfPeer

FOLDER = "hfpeer-swarm"
QUICK_MIB, QUICK_RUNS = 64, 1


class Models:
    """Models of noise, made when they are first needed and shared by all trials."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._made: dict[tuple[int, Shape], Model] = {}

    def of(self, plan: Plan) -> list[Model]:
        return [self._model(number, shape) for number, shape in enumerate(plan.shapes)]

    def _model(self, number: int, shape: Shape) -> Model:
        key = number, shape
        if key not in self._made:
            self._made[key] = _make_model(self._place / f"m{number}-{shape.files}x{shape.file_bytes}", shape)
        return self._made[key]


def _make_model(folder: Path, shape: Shape) -> Model:
    folder.mkdir(parents=True)
    noise, digests = random.Random(folder.name), {}
    for number in range(shape.files):
        name, digest = f"part-{number:04}.bin", hashlib.sha256()
        with (folder / name).open("wb") as file:
            for start in range(0, shape.file_bytes, MIB):
                chunk = noise.randbytes(min(MIB, shape.file_bytes - start))
                file.write(chunk)
                digest.update(chunk)
        digests[name] = digest.hexdigest()
    return Model(folder.name, folder, shape, digests)


def main() -> int:
    options = _parse()
    obstacle = why_not("tc", "sysctl")
    if obstacle:
        print(f"no LAN can be built here: {obstacle}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    outcomes: list[Outcome] = []
    try:
        _sweep(options.dir or Path(tempfile.gettempdir()))
        with tempfile.TemporaryDirectory(prefix=f"{FOLDER}-{os.getpid()}-", dir=options.dir) as name:
            _measure(options, Path(name), outcomes)
    except KeyboardInterrupt:
        print("interrupted; what was measured until here:", file=sys.stderr)
        return 130
    finally:
        _publish(options, outcomes)
    return 0


def _sweep(place: Path) -> None:
    """Removes the folders of runs that were killed before they could; they fill the memory."""
    for folder in place.glob(f"{FOLDER}-*-*"):
        owner = folder.name.removeprefix(f"{FOLDER}-").split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _interrupt(number: int, frame: object) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # the cleaning up is not interrupted; it is bounded
    raise KeyboardInterrupt


def _measure(options: argparse.Namespace, place: Path, outcomes: list[Outcome]) -> None:
    """All trials; the ways of one plan take turns in every round."""
    scale, models = _scale(options), Models(place / "models")
    available = [name for name in options.ways if _can_be_had(name)]
    for scenario in options.scenarios:
        for plan in plans(scenario, scale):
            ways = [name for name in plan.ways if name in available]
            for round_number in range(options.runs):
                for way in ways:
                    if way.startswith(HfPeer.name) or round_number < options.reference_runs:
                        _try(plan, way, models.of(plan), place, outcomes, options.logs)


def _can_be_had(name: str) -> bool:
    obstacle = WAYS[name].why_not()
    if obstacle:
        print(f"{name} is left out: {obstacle}", file=sys.stderr)
    return obstacle is None


def _try(plan: Plan, way: str, models: list[Model], place: Path, outcomes: list[Outcome], logs: Path | None) -> None:
    began_at = time.monotonic()
    print(f"{plan.scenario:14}{way:12} N={plan.receivers:<3}", end="", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=place) as name:
        try:
            outcome = perform(plan, way, models, Path(name))
        except (CannotBuild, TimeoutError) as error:
            print(f"could not be set up: {error}", file=sys.stderr)
            return
        finally:
            if logs is not None:
                _keep_logs(Path(name), logs / f"{plan.scenario}-{way}-{plan.receivers}-{len(outcomes)}")
    outcomes.append(outcome)
    ratio = "failed" if outcome.ratio is None else f"{outcome.ratio:6.2f} of the bound"
    ended = f"{outcome.finished}/{outcome.awaited} nodes"
    if outcome.first_bytes_seconds is not None:
        ended += f", bytes from {outcome.first_bytes_seconds:.1f} to {outcome.last_bytes_seconds:.1f} s"
    print(f"{ratio}, {ended}, {time.monotonic() - began_at:.0f} s with set-up", file=sys.stderr)
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome.cpu_seconds.items())
    print(f"    CPU: {spent}; machine {outcome.machine_busy:.0%} busy", file=sys.stderr)
    for remark in outcome.remarks:
        print(f"    {remark}", file=sys.stderr)


def _keep_logs(place: Path, target: Path) -> None:
    """Copies what the programs of a run wrote."""
    for path in (*place.glob("**/*.out"), *place.glob("**/*.err")):
        kept = target / path.relative_to(place)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)


def _publish(options: argparse.Namespace, outcomes: list[Outcome]) -> None:
    if not outcomes:
        return
    first = outcomes[0]
    settings: dict[str, Any] = {
        "size_bytes": options.mib * MIB,
        "runs": options.runs,
        "rate_mbit": options.rate,
        "wan_mbit": options.wan,
        "wan_rtt_ms": 30,
        "wan_delay": next((outcome.delay for outcome in outcomes if outcome.delay != "none"), "none"),
        "congestion_control": first.congestion_control,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    found = rows(outcomes)
    print("  ".join(f"{name}={value}" for name, value in settings.items()))
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(as_json(outcomes, settings), indent=1) + "\n")
    if options.plot:
        options.plot.write_text(draw(found))


def _scale(options: argparse.Namespace) -> Scale:
    scale = Scale(options.mib * MIB, options.rate * MBIT, options.wan * MBIT)
    if options.receivers:
        counts = options.receivers
        return Scale(scale.size_bytes, scale.rate_bits, scale.wan_bits, counts, counts, max(counts))
    return scale


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.swarm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    memory = Path("/dev/shm")
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO", help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MIB} MiB, {QUICK_RUNS} run")
    parser.add_argument("--mib", type=int, help="F, in MiB (512)")
    parser.add_argument("--runs", type=int, help="of which the medians are taken (3)")
    parser.add_argument("--reference-runs", type=int, metavar="N", help="of the ways beside hfpeer (as many as --runs)")
    parser.add_argument("--rate", type=float, default=200, help="Mbit/s of each NIC each way; half of it above N = 8")
    parser.add_argument("--wan", type=float, default=100, help="Mbit/s of the link to the hub")
    parser.add_argument("--receivers", type=_counts, metavar="N,…", help="default: 1,2,4,8,12; 1,2,4,8 with the hub")
    parser.add_argument("--ways", type=_ways, default=list(WAYS), metavar="WAY,…", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the programs wrote there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the medians there")
    parser.add_argument("--dir", type=Path, default=memory if memory.is_dir() else None, help="where files lie")
    options = parser.parse_args()
    options.scenarios = options.scenarios or list(SCENARIOS)
    options.mib = options.mib or (QUICK_MIB if options.quick else 512)
    options.runs = options.runs or (QUICK_RUNS if options.quick else 3)
    options.reference_runs = options.runs if options.reference_runs is None else options.reference_runs
    return options


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if not all(1 <= count <= 100 for count in counts):
        raise argparse.ArgumentTypeError("1 to 100 receivers")
    return counts


def _ways(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in WAYS]
    if unknown:
        raise argparse.ArgumentTypeError(f"the ways are {', '.join(WAYS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
