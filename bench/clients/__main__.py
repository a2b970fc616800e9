"""Real clients against a node's Hub endpoint, in front of a simulated hub: a matrix, and what they see of faults.

    python -m bench.clients                     all of it, and the page written anew: some minutes
    python -m bench.clients --check             compare with the page instead of writing it, as CI does
    python -m bench.clients --only curl,git     clients whose name or work contains one of these words; prints only

Each client has an environment of its own, built by pip from the index that pip is set to and kept for a day (--envs).
A client that cannot be had here is "not run", which is no failure. Exits with 1 if a client got anything but the
right bytes, or
asked the hub for what the node had.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import faults, situations, table
from .environments import Environments, NotRun
from .rows import CLIENTS

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "en" / "reference" / "tested-clients.md"


def main() -> int:
    options = _parse()
    clients = [client for client in CLIENTS if _is_chosen(f"{client.name} {client.does}", options.only)]
    trials = [trial for trial in faults.TRIALS if _is_chosen(trial.name, options.only)]
    environments = Environments(options.envs)
    wanted = [*(client.environment for client in clients), *(trial.environment for trial in trials)]
    for name in dict.fromkeys(filter(None, wanted)):
        environments.begin(name)
    with tempfile.TemporaryDirectory(prefix="hfpeer-clients-") as name:
        try:
            rows = situations.conduct(clients, environments, Path(name), options.at_once)
            outcomes = faults.conduct(trials, environments, Path(name), options.at_once)
            versions = _versions(environments, {*(row.client.environment for row in rows if not row.not_run)})
        finally:
            environments.close()
    made = table.document(rows, versions, faults.lines(outcomes))
    return _report(made, options)


def _report(made: str, options: argparse.Namespace) -> int:
    found = table.verdicts(made)
    wrong = [key for key, verdict in found.items() if verdict == "✗"]
    changed = table.drift(TABLE.read_text(), made) if options.check else []
    if options.check or options.only:
        print(made)
    else:
        TABLE.write_text(made)
    for line in [*(f"wrong: {key}" for key in wrong), *changed]:
        print(line, file=sys.stderr)
    return 1 if wrong or changed else 0


def _versions(environments: Environments, names: Iterable[str | None]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for name in filter(None, names):
        try:
            for package, version in environments.versions(name).items():
                found.setdefault(package, set()).add(version)
        except NotRun:
            continue
    return {package: ", ".join(sorted(versions, reverse=True)) for package, versions in sorted(found.items())}


def _is_chosen(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def _parse() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(
        prog="python -m bench.clients", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="WORD,…")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a verdict has changed")
    parser.add_argument(
        "--envs", type=Path, default=cache / "hfpeer-clients", metavar="DIR", help="where they are built"
    )
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="clients that run at the same time (2)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
