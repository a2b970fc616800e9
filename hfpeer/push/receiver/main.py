"""The receiver: says what the cache of the far end has, then takes an archive from stdin into it.

The protocol: a line of JSON comes in (`cache`, `sizes` by digest, `checks_present`), and `{"have": …}` goes out. Then
an archive comes in, and events go out as JSON, an object a line, last `{"result": …}` or `{"problem": …}`. If stdin
ends instead, nothing is changed.

It runs from one file that `source` makes of this package's modules, under Python 3.8 and later.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any

from hfpeer.archive.importing import Import, ImportOptions, damage_error
from hfpeer.archive.parts import Stream
from hfpeer.archive.progress import telling
from hfpeer.archive.sources import ArchiveSource
from hfpeer.cache.disk.os_errors import free_bytes, translated
from hfpeer.errors import HfpeerError
from hfpeer.names import Digest
from hfpeer.push.receiver.plain_target import PlainTarget
from hfpeer.transfer.events import Event


def main(stream: BufferedReader) -> int:
    """Serves one push from `stream`. Returns the exit code."""
    try:
        request = json.loads(stream.readline())
        cache = Path(request["cache"])
        sizes = {Digest.parse(digest): int(size_bytes) for digest, size_bytes in request["sizes"].items()}
        target = PlainTarget(cache, checks_present=bool(request["checks_present"]))
        have = target.have(sizes, telling(_tell))
        prefixes = {str(digest): count for digest, count in have.prefixes.items()}
        _say({"have": {"digests": sorted(map(str, have.whole)), "prefixes": prefixes, "free_bytes": free_bytes(cache)}})
        if not stream.peek(1):
            return 0
        with translated("make the cache", cache):
            cache.mkdir(parents=True, exist_ok=True)
        source = ArchiveSource(Stream(stream))
        report = Import(target, source, ImportOptions(trusts_attested=True), telling(_tell)).run()
        _say({"result": asdict(report)})
        error = damage_error([report])
        if error is not None:
            raise error
    except HfpeerError as problem:
        _say({"problem": problem.to_problem()})
        return problem.exit_code
    except BrokenPipeError:
        # The other end is gone. What has arrived is kept.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


def _tell(event: Event) -> None:
    _say(event.to_json())


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line, default=str), flush=True)
