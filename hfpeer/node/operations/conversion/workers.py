"""A process that makes parts, so that several processors convert at once. It ends when its pipe breaks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hfpeer.conversion.part import worker
from hfpeer.conversion.part.part import OnRows
from hfpeer.conversion.plan import Part
from hfpeer.conversion.results import PartReport
from hfpeer.errors import ConversionFailed, from_problem

LINE_BYTES = 64 * 1024 * 1024
"""Bytes of the longest answer: a report that names missing pictures."""


class WorkerProcess:
    """One process with the plan that lies in the folder of the conversion."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, snapshot: Path, folder: Path, roots: Sequence[str]) -> WorkerProcess:
        words = json.dumps({"snapshot": str(snapshot), "folder": str(folder), "roots": list(roots)})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            worker.__name__,
            words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            # Ctrl-C is for the command, which ends this process.
            start_new_session=True,
        )
        return cls(process)

    async def convert(self, part: Part, on_rows: OnRows) -> PartReport:
        """Makes a part there. Raises the errors of `convert_part`, and ConversionFailed if the process ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{part.number}\n".encode())
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            if "problem" in answer:
                raise from_problem(answer["problem"])
            if "report" in answer:
                return PartReport.from_json(answer["report"])
            on_rows(answer["rows"], answer["done"])
        code = await self._process.wait()
        raise ConversionFailed(
            f"A process that converted a part ended with code {code}: it was killed, or the memory was full.",
            hint="Run the command again, with fewer --jobs; what is done is kept.",
        )

    async def stop(self) -> None:
        """Ends the process, also in the middle of a part."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
