"""The program of a process that makes parts: `python -m hfpeer.conversion.part.worker JSON`.

It reads the number of a part a line, and writes JSON a line: progress, then the report or the problem.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hfpeer.conversion.extra import spare_memory
from hfpeer.conversion.output.output import PLAN, WORK, OutputFolder
from hfpeer.conversion.part.part import convert_part
from hfpeer.conversion.plan import ConversionPlan
from hfpeer.errors import HfpeerError

TELL_SECONDS = 0.2
"""Seconds between two lines of progress."""


def main() -> None:
    """Makes parts until the input ends."""
    spare_memory()
    order = json.loads(sys.argv[1])
    folder = Path(order["folder"])
    plan = ConversionPlan.from_json(json.loads((folder / WORK / PLAN).read_text(encoding="utf-8")))
    output = OutputFolder(folder, plan)
    told = 0.0

    def on_rows(rows: int, done: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            _say({"rows": rows, "done": done})

    for line in sys.stdin:
        part = plan.parts[int(line)]
        try:
            report = convert_part(plan, part, Path(order["snapshot"]), output, order["roots"], on_rows)
            _say({"report": report.to_json()})
        except HfpeerError as error:
            _say({"problem": error.to_problem()})


def _say(document: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the command that started this process is gone
        os._exit(1)


if __name__ == "__main__":
    main()
