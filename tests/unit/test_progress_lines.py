"""Progress without bars: a line now and then, with the sources that failed meanwhile."""

from __future__ import annotations

from hfpeer.transfer.events import Progressed, SourceFailed
from hfpeer_cli.progress import progress_sentence
from hfpeer_cli.progress_lines import ProgressLines


def progress(present_bytes: int) -> Progressed:
    return Progressed(present_bytes, 10**9, 2e6, {}, {}, (), 1, 3)


def test_a_line_comes_after_each_while_and_names_each_failing_source_once() -> None:
    now, said = [0.0], list[str]()
    lines = ProgressLines(said.append, progress_sentence, every_seconds=30, clock=lambda: now[0])
    for second in range(65):
        now[0] = float(second)
        lines.note_failure(SourceFailed("hub", "big.bin", f"silent for {second} s"))
        lines(progress(second * 1_000_000))
    assert said == [
        "30.0 MB of 1.0 GB, 1 of 3 files, 2.0 MB/s, about 8:05 left.",
        "hub gave up on big.bin (silent for 30 s).",
        "60.0 MB of 1.0 GB, 1 of 3 files, 2.0 MB/s, about 7:50 left.",
        "hub gave up on big.bin (silent for 60 s).",
    ]
