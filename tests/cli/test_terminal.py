"""The output on a terminal of 80 columns: bars while an add runs, a summary after it, tables that fit."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from fakes.program import program
from fakes.stub_node import COMMIT
from hfpeer.transfer.events import Progressed
from hfpeer_cli.output import human_size, human_time
from hfpeer_cli.progress import contributions, pace, shortened

pty = pytest.importorskip("pty")

PLAY = """
import asyncio, sys
from fakes.stub_node import COMMIT, StubNode
from hfpeer.transfer.events import FileProgress, Planned, Progressed, Resolved, SourceFailed
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.main import main

class Node(StubNode):
    async def add(self, request, on_event):
        on_event(Resolved("acme/tiny", "main", COMMIT, "hf-mirror.com"))
        on_event(Planned("acme/tiny", COMMIT, 3, 1_200_000_000, 2, 300_000_000, "pegasus", True))
        on_event(SourceFailed("orion", "config.json", "it closed the connection"))
        path = "weights/with/a/very/long/name/model-00002-of-00003.safetensors"
        for step in range(3):
            files = (FileProgress(path, step * 10_000_000, 100_000_000),)
            rates = {"pegasus": 90e6, "hf-mirror.com": 2.2e6}
            given = {"pegasus": 3_000_000, "hf-mirror.com": 1_000_000}
            present = 900_000_000 + step * 1_000_000
            on_event(Progressed(present, 1_200_000_000, 112e6, given, rates, files, 1, 3))
            await asyncio.sleep(0.2)
        return self.finished

main(sys.argv[1:], Invocation(open_session=Node().session))
"""


def at_terminal(environ: dict[str, str], *words: str, term: str = "xterm-256color") -> str:
    """All that a command wrote to a terminal of 80 columns, without control sequences."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    ours = kept | environ | {"TERM": term, "PYTHONPATH": paths, "COLUMNS": "80"}
    screen, terminal = pty.openpty()
    with program([sys.executable, "-c", PLAY, *words], stdout=terminal, stderr=terminal, env=ours) as child:
        os.close(terminal)
        written = b""
        while chunk := _read(screen):
            written += chunk
        os.close(screen)
        assert child.wait(timeout=20) == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).replace("\r\n", "\n")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


def test_an_add_shows_how_far_it_is_and_where_the_bytes_come_from_now(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "model", "add", "-r", "acme/tiny")
    assert re.search(r"1 of 3 files +\S+ +90\d\.0 MB/1.2 GB 112\.0 MB/s, 0:03 left", seen)
    assert re.search(r"…/model-00002-of-00… +\S+ +10\.0 MB/100\.0 MB", seen)
    assert re.search(r"pegasus +━{12} +3\.0 MB  75% +90\.0 MB/s", seen)
    assert re.search(r"hf-mirror\.com +━{4} +1\.0 MB  25% +2\.2 MB/s", seen)
    assert f"pinned to commit {COMMIT}" in seen
    assert "orion gave up on config.json (it closed the connection)" in seen
    assert "to fetch: 2 files, 300.0 MB" in seen
    assert "WAN saved: 1.1 MB of 1.2 MB (92%)." in seen


def test_the_lines_of_a_picture_fit_the_terminal(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "model", "add", "-r", "acme/tiny")
    bars = [line for line in re.split(r"[\r\n]", seen) if "MB/" in line and "…" in line]
    assert bars
    assert max(map(len, bars)) <= 80


def test_nothing_moves_on_a_dumb_terminal(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "model", "add", "-r", "acme/tiny", term="dumb")
    assert "90.0 MB/s" not in seen
    assert "WAN saved" in seen


def test_tables_fit_the_terminal(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "conf", "ls")
    assert max(map(len, seen.splitlines())) <= 80
    assert "endpoint.listen" in seen


def test_words_for_sizes_and_times() -> None:
    sizes = [human_size(size) for size in (0, 1, 999, 1000, 1_234_567, 60e9)]
    assert sizes == ["0 B", "1 B", "999 B", "1.0 kB", "1.2 MB", "60.0 GB"]
    times = [human_time(seconds) for seconds in (0.42, 12, 90, 7200, 2e6)]
    assert times == ["0.4 s", "12 s", "2 min", "2 h", "23 days"]
    assert shortened("a/config.json", 20) == "a/config.json"
    assert shortened("onnx/quantized/config.json", 20) == "…/config.json"
    assert shortened("onnx/model-00001-of-00003.safetensors", 20) == "…/model-00001-of-00…"


def test_a_transfer_that_stands_still_is_said_to_wait() -> None:
    still = Progressed(5, 10, 0.0, {}, {"pegasus": 0.0}, (), 0, 1)
    assert pace(still) == "waiting"
    assert contributions(still.bytes_by_source, still.rate_by_source, 6) == []
    assert pace(Progressed(0, 7200, 1.0, {}, {}, (), 0, 1)) == "1 B/s, 2:00:00 left"


def test_many_contributions_are_summed_up() -> None:
    sizes = {f"node-{number:02}": 1000 * (number + 1) for number in range(20)}
    lines = contributions(sizes, dict.fromkeys(sizes, 5.0), 3)
    assert [line.split()[0] for line in lines] == ["node-19", "node-18", "node-17", "17"]
    assert re.search(r"17 more +━+ +153\.0 kB  73% +85 B/s", lines[-1])
    assert len({len(line) for line in lines}) == 1
