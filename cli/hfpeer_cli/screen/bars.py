"""The picture of an add that runs: how far it is, the files in flight, the sources."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hfpeer.language.amounts import human_size
from hfpeer.language.cells import cells, padded
from hfpeer.system.printable import printable
from hfpeer_cli.language.chosen import translated, translated_word
from hfpeer_cli.screen.tables import cut
from hfpeer_cli.screen.terminal import in_symbols, on_screen, width_cells

if TYPE_CHECKING:
    from rich.text import Text

    from hfpeer.transfer.events import Progressed

MAX_FILES_SHOWN = 6
MAX_SOURCES_SHOWN = 6
MAX_NAME_CELLS = 40
MIN_BAR_CELLS, MAX_BAR_CELLS = 8, 40
DONE, REST = "━", "─"
REFRESHES_PER_SECOND = 8


def picture(event: Progressed, width: int) -> list[str]:
    """The lines of the picture, none wider than `width` cells."""
    files = event.files[:MAX_FILES_SHOWN]
    done = translated(f"{event.files_done:,} of {event.files_total:,} files") if event.files_total else "in all"
    names = [translated_word(done), *(f"  {shortened(printable(file.path), MAX_NAME_CELLS)}" for file in files)]
    sizes = [(event.present_bytes, event.size_bytes), *((file.present_bytes, file.size_bytes) for file in files)]
    lines = _bar_lines(names, sizes, width)
    sources = contributions(event.bytes_by_source, event.rate_by_source, MAX_SOURCES_SHOWN, width)
    return [*lines, translated(pace(event)), *sources]


def _bar_lines(names: Sequence[str], sizes: Sequence[tuple[int, int]], width: int) -> list[str]:
    """A line for each name: a bar, percent, and how much of how much. The bars are as wide as there is room."""
    here, whole = ([human_size(size) for size in column] for column in zip(*sizes, strict=True))
    amounts = [
        f"{percent(*size):>4} {first:>{max(map(len, here))}} / {second:>{max(map(len, whole))}}"
        for size, first, second in zip(sizes, here, whole, strict=True)
    ]
    room = width - len(amounts[0]) - 3
    name_cells = max(8, min(max(map(cells, names)), room - MIN_BAR_CELLS))
    bar_cells = min(MAX_BAR_CELLS, room - name_cells)
    lines = []
    for name, size, amount in zip(names, sizes, amounts, strict=True):
        bar = f"{_bar(*size, bar_cells)} " if bar_cells >= MIN_BAR_CELLS else ""
        lines.append(f"{padded(cut(name, name_cells), name_cells)}  {bar}{amount}")
    return lines


def _bar(present: int, size: int, room: int) -> str:
    done = room if size <= 0 else min(room, int(room * present / size))
    return DONE * done + REST * (room - done)


def percent(part: int, whole: int) -> str:
    """`75%`, rounded down: 100% is all of it."""
    return f"{min(100, int(100 * part / whole)) if whole > 0 else 100}%"


def contributions(sizes: Mapping[str, int], rates: Mapping[str, float], limit: int, width: int = 80) -> list[str]:
    """A line for each source that gave bytes, at most `limit`, the largest first, under headings: its name, what came
    from it, its share of all that came, its rate. No bar: a share is no progress."""
    names = sorted({*sizes, *rates}, key=lambda name: (-sizes.get(name, 0), -rates.get(name, 0.0), name))
    names = [name for name in names if sizes.get(name) or rates.get(name, 0.0) >= 1]
    if not names:
        return []
    shown, others = names[:limit], names[limit:]
    rows = [(printable(name), sizes.get(name, 0), rates.get(name, 0.0)) for name in shown]
    if others:
        given = sum(sizes.get(name, 0) for name in others), sum(rates.get(name, 0.0) for name in others)
        rows.append((translated(f"{len(others)} more sources" if len(others) > 1 else "1 more source"), *given))
    total = max(1, sum(sizes.values()))
    head, *heads = (translated_word(word) for word in ("from", "received", "share", "rate"))
    cells_of_names = min(max(map(cells, [head, *(name for name, _, _ in rows)])), MAX_NAME_CELLS, max(12, width - 36))
    lines = [(head, heads)]
    lines += [(name, [human_size(size), f"{size / total:.0%}", f"{human_size(rate)}/s"]) for name, size, rate in rows]
    return [
        f"  {padded(cut(name, cells_of_names), cells_of_names)}"
        + "".join(" " * (room - cells(text)) + text for text, room in zip(texts, (11, 8, 13), strict=True))
        for name, texts in lines
    ]


def shortened(path: str, width: int) -> str:
    """A path in at most `width` characters. Its folders are cut first, then the end of its name: names of shards differ
    before their end."""
    if len(path) > width and "/" in path:
        path = f"…/{path.rsplit('/', 1)[1]}"
    return path if len(path) <= width else f"{path[: width - 1]}…"


def pace(event: Progressed) -> str:
    """`112.0 MB/s, about 1:05 left`."""
    rate = event.rate_bytes_per_second
    if rate < 1:
        return "waiting for the sources"
    return f"{human_size(rate)}/s, about {clock_time((event.size_bytes - event.present_bytes) / rate)} left"


def clock_time(seconds: float) -> str:
    """`1:05`, `2:03:04`."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


class Bars:
    """Draws the picture of one transfer on stderr, which must be a terminal. Thread-safe."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = sys.stderr  # while the picture is drawn, sys.stderr is a proxy of it
        self._console = Console(stderr=True, highlight=False)
        self._latest: Progressed | None = None
        self._live = Live(
            get_renderable=self._drawn,
            console=self._console,
            transient=True,
            refresh_per_second=REFRESHES_PER_SECOND,
        )

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line above the picture."""
        self._console.print(on_screen(text, self._stream), markup=False, soft_wrap=True)

    def draw(self, event: Progressed) -> None:
        """Takes the newest progress; the next refresh shows it."""
        self._latest = event

    def _drawn(self) -> Text:
        from rich.text import Text

        event = self._latest
        lines = [] if event is None else picture(event, width_cells())
        drawn = Text(in_symbols("\n".join(lines), self._stream), no_wrap=True, overflow="crop")
        drawn.highlight_regex("[━#]+", "green")
        drawn.highlight_regex("─+|--+", "bright_black")
        return drawn
