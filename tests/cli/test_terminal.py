"""The output on a terminal of 80 columns: bars while an add runs, a summary after it, tables that fit."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from fakes.program import program
from fakes.stub_node import COMMIT
from hfpeer.transfer.events import FileProgress, Progressed, SourceFailed
from hfpeer_cli.language.chosen import choose_language
from hfpeer_cli.output import human_size, human_time
from hfpeer_cli.progress import _Reporter
from hfpeer_cli.screen.bars import contributions, pace, picture, shortened

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
    written = raw_at_terminal({"TERM": term, **environ}, *words)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written).replace("\r\n", "\n")


def raw_at_terminal(environ: dict[str, str], *words: str, code: int = 0) -> str:
    """All that a command wrote to a terminal of 80 columns."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "LC_ALL", "LC_CTYPE")}
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    ours = kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | environ | {"PYTHONPATH": paths, "COLUMNS": "80"}
    screen, terminal = pty.openpty()
    with program([sys.executable, "-c", PLAY, *words], stdout=terminal, stderr=terminal, env=ours) as child:
        os.close(terminal)
        written = b""
        while chunk := _read(screen):
            written += chunk
        os.close(screen)
        assert child.wait(timeout=20) == code
    return written.decode()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


def test_an_add_shows_how_far_it_is_and_where_the_bytes_come_from_now(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "model", "add", "-r", "acme/tiny")
    assert re.search(r"1 of 3 files +━+─+ +75% +90\d\.0 MB / +1.2 GB", seen)
    assert re.search(r"…/model-00002-of-\S+ +━+─+ +10% +10\.0 MB / 100\.0 MB", seen)
    assert "112.0 MB/s, about 0:03 left" in seen
    assert re.search(r"from +received +share +rate", seen)
    assert re.search(r"pegasus +3\.0 MB +75% +90\.0 MB/s", seen)
    assert re.search(r"hf-mirror\.com +1\.0 MB +25% +2\.2 MB/s", seen)
    assert f"main of acme/tiny is commit {COMMIT[:12]} (hf-mirror.com)." in seen
    assert "orion gave up on config.json (it closed the connection)" in seen
    assert "to fetch: 2 files, 300.0 MB" in seen
    assert "WAN saved: 1.1 MB of 1.2 MB (92%)." in seen


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_picture_fits_every_width(width: int, language: str) -> None:
    choose_language({"HFPEER_LANG": language})
    files = tuple(
        FileProgress(f"weights/with/a/very/long/name/model-0000{number}-of-00003.safetensors", number * 10**9, 10**10)
        for number in range(3)
    )
    given = {"gpu-node-03.cluster-b.lab.example.com": 10**9, "模型服务器.example.com": 10**12, "hf-mirror.com": 1}
    event = Progressed(10**11, 10**12, 112e6, given, dict.fromkeys(given, 1e9), files, 1, 3)
    lines = picture(event, width)
    choose_language({})
    assert max(map(cell_len, lines)) <= width
    assert [line.count("━") + line.count("─") >= 8 for line in lines[:4]] == [True] * 4
    assert not any("━" in line for line in lines[4:]), "a share is no progress"
    assert len({cell_len(line) for line in lines[5:]}) == 1, "the columns stand below each other"


def test_a_dumb_terminal_gets_lines_and_no_colour(environ: dict[str, str]) -> None:
    seen = at_terminal(environ, "model", "add", "-r", "acme/tiny", term="dumb")
    assert "━" not in seen and "\x1b" not in seen
    assert "WAN saved" in seen


def test_no_color_has_no_colour_in_errors_and_headings(environ: dict[str, str]) -> None:
    for word in ("NO_COLOR", "TERM"):
        raw = raw_at_terminal(environ | {word: "dumb" if word == "TERM" else "1"}, "peer", "rm", "nobody", code=4)
        assert "Error:" in raw and "\x1b" not in raw
    assert "\x1b[" in raw_at_terminal(environ, "peer", "rm", "nobody", code=4)


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": ""}])
def test_a_terminal_of_ascii_gets_ascii(environ: dict[str, str], locale: dict[str, str]) -> None:
    seen = at_terminal(environ | locale, "model", "add", "-r", "acme/tiny")
    assert re.search(r"1 of 3 files +#+-+ +75%", seen)
    assert ".../model-00002" in seen
    assert seen.isascii() and "\\u" not in seen


def test_beside_bars_each_failure_of_a_source_is_told_once() -> None:
    said = list[str]()
    hear = _Reporter(said.append, draw=lambda event: None)
    for number in range(9):
        hear(SourceFailed("orion", f"file-{number}", "it closed the connection"))
    assert said == ["orion gave up on file-0 (it closed the connection); going on from the others."]


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
    assert pace(still) == "waiting for the sources"
    assert contributions(still.bytes_by_source, still.rate_by_source, 6) == []
    assert pace(Progressed(0, 7200, 1.0, {}, {}, (), 0, 1)) == "1 B/s, about 2:00:00 left"


def test_many_contributions_are_summed_up() -> None:
    sizes = {f"node-{number:02}": 1000 * (number + 1) for number in range(20)}
    head, *lines = contributions(sizes, dict.fromkeys(sizes, 5.0), 3)
    assert head.split() == ["from", "received", "share", "rate"]
    assert [line.split()[0] for line in lines] == ["node-19", "node-18", "node-17", "17"]
    assert re.search(r"17 more sources +153\.0 kB +73% +85 B/s", lines[-1])
    assert len({len(line) for line in [head, *lines]}) == 1
