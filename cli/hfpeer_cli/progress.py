"""The picture of a transfer while it runs, on stderr, and the summary when it is over.

Drawn only on a terminal; elsewhere nothing is written until the end. Events come from any thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hfpeer.transfer.events import CheckBegan, Event, Finished, Listener, Planned, Progressed, Resolved, SourceFailed
from hfpeer_cli.output import Output, counted, human_size, human_time

if TYPE_CHECKING:
    from rich.console import Group
    from rich.progress import Progress, TaskID

MAX_FILES_SHOWN = 6
MAX_GIVERS_SHOWN, MAX_GIVERS_NAMED = 6, 12
MAX_NAME, BAR_CELLS = 28, 16


@contextmanager
def watching(output: Output, *, names_revision: bool) -> Iterator[Listener]:
    """Gives the listener of one `add`: bars on a terminal, else only what a person must know.

    `names_revision` is False when the user left the revision open, so that what it became is worth a sentence.
    """
    say = output.note
    if not sys.stderr.isatty():
        yield _Reporter(say, names_revision=names_revision)
        return
    with _Bars() as bars:
        yield _Reporter(bars.say if not output.is_json else say, names_revision=names_revision, draw=bars.draw)


class _Reporter:
    """A listener that says the few facts a person wants now, and hands pictures on to be drawn."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        names_revision: bool,
        draw: Callable[[Progressed], None] | None = None,
    ) -> None:
        self._say = say
        self._names_revision = names_revision
        self._draw = draw

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed):
            if self._draw:
                self._draw(event)
        elif isinstance(event, Resolved):
            self._say(resolved_sentence(event, names_revision=self._names_revision))
        elif isinstance(event, SourceFailed) and (self._draw or event.was_lying):
            self._say(failed_sentence(event))
        elif isinstance(event, CheckBegan) and self._draw:
            self._say(f"Verifying first what other tools put here: {_amount(event.files, event.size_bytes)}.")
        elif isinstance(event, Planned) and self._draw:
            self._say(planned_sentence(event))


def resolved_sentence(event: Resolved, *, names_revision: bool) -> str:
    """What the revision became, who said so, and how old the answer is if nobody could be asked now."""
    if event.revision == event.commit:
        return f"{event.repo} at commit {event.commit}."
    pinned = f"{event.revision} of {event.repo} is commit {event.commit}"
    if not names_revision:
        pinned = f"No revision given: took {event.revision} of {event.repo}, pinned to commit {event.commit}"
    if event.age_seconds is None:
        return f"{pinned} (says {event.answered_by})."
    age = human_time(event.age_seconds)
    return f"{pinned} (nobody could be asked now; {event.answered_by} said so {age} ago)."


def planned_sentence(event: Planned) -> str:
    """How much there is, and how much of it is missing."""
    total = _amount(event.files, event.size_bytes)
    if not event.missing_files:
        return f"{total}: all of it is here already."
    return f"{total}; to fetch: {_amount(event.missing_files, event.missing_bytes)}."


def _amount(files: int, size_bytes: int) -> str:
    return f"{counted(files, 'file')}, {human_size(size_bytes)}"


def failed_sentence(event: SourceFailed) -> str:
    """Which source failed with which file, and why."""
    if event.was_lying:
        return f"{event.source} gave wrong bytes of {event.path}; they are fetched again elsewhere. {event.reason}"
    return f"{event.source} gave up on {event.path} ({event.reason}); going on from the others."


def summary(finished: Finished) -> list[str]:
    """The last words of an `add`: how much, how long, how much from each source, how much WAN was saved."""
    received = sum(finished.bytes_by_kind.values())
    files = _amount(finished.files, finished.size_bytes)
    seconds = max(finished.seconds, 1e-9)
    if not received:
        return [f"{files}: all of it was here already. Took {human_time(finished.seconds)}."]
    lines = [f"{files} in {human_time(finished.seconds)}; {human_size(received / seconds)}/s over the wire."]
    lines += [
        f"  from {kind:<8}{human_size(size_bytes):>10}" for kind, size_bytes in _largest_first(finished.bytes_by_kind)
    ]
    if finished.reused_bytes:
        lines.append(f"  {'from here':<13}{human_size(finished.reused_bytes):>10}")
    rates = {name: size_bytes / seconds for name, size_bytes in finished.bytes_by_source.items()}
    lines += ["  by source", *(f"  {line}" for line in givers(finished.bytes_by_source, rates, MAX_GIVERS_NAMED))]
    if finished.refetched_bytes:
        lines.append(f"  fetched twice{human_size(finished.refetched_bytes):>10}")
    saved, total = max(0, finished.wan_saved_bytes), max(1, finished.size_bytes)
    lines.append(f"WAN saved: {human_size(saved)} of {human_size(finished.size_bytes)} ({saved / total:.0%}).")
    return lines


def _largest_first(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, size) for name, size in sizes.items() if size), key=lambda item: -item[1])


def givers(sizes: dict[str, int], rates: dict[str, float], limit: int) -> list[str]:
    """A line for each source that gave or gives something, the most generous first, at most `limit`: its name, its
    share of all that came as a bar, in bytes and in percent, and its rate."""
    names = sorted({*sizes, *rates}, key=lambda name: (-sizes.get(name, 0), -rates.get(name, 0.0), name))
    names = [name for name in names if sizes.get(name) or rates.get(name, 0.0) >= 1]
    shown, others = names[:limit], names[limit:]
    rows = [(name, sizes.get(name, 0), rates.get(name, 0.0)) for name in shown]
    if others:
        given = sum(sizes.get(name, 0) for name in others), sum(rates.get(name, 0.0) for name in others)
        rows.append((f"{len(others)} more", *given))
    total = max(1, sum(sizes.values()))
    width = max((len(shortened(name, MAX_NAME)) for name, _, _ in rows), default=0)
    return [
        f"  {shortened(name, MAX_NAME):<{width}}  {_bar(size / total)}"
        f"{human_size(size):>10}{size / total:>5.0%}{human_size(rate):>10}/s"
        for name, size, rate in rows
    ]


def _bar(share: float) -> str:
    return ("━" * round(share * BAR_CELLS)).ljust(BAR_CELLS)


class _Bars:
    """The bars of one transfer: the total, the files in flight, and who gives how much of it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column
        from rich.text import Text

        wide = Column(no_wrap=True, ratio=3, overflow="ellipsis")
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=wide),
            BarColumn(bar_width=None, table_column=Column(ratio=2)),
            TextColumn("{task.fields[amount]}", markup=False, justify="right", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            expand=True,
        )
        self._sources = Text("", no_wrap=True, overflow="ellipsis")
        self._total: TaskID | None = None
        self._files: dict[str, TaskID] = {}
        self._live = Live(get_renderable=self._picture, console=self._console, transient=True, refresh_per_second=8)

    def __enter__(self) -> _Bars:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text, markup=False, soft_wrap=True)

    def draw(self, event: Progressed) -> None:
        """Takes the newest picture; the next refresh shows it."""
        self._draw_total(event)
        shown = {file.path: file for file in event.files[:MAX_FILES_SHOWN]}
        for path in self._files.keys() - shown.keys():
            self._progress.remove_task(self._files.pop(path))
        for path, file in shown.items():
            if path not in self._files:
                self._files[path] = _add_bar(self._progress, f"  {shortened(path, self._console.width // 4)}")
            _set_bar(self._progress, self._files[path], file.present_bytes, file.size_bytes, "")
        self._sources.plain = "\n".join(givers(event.bytes_by_source, event.rate_by_source, MAX_GIVERS_SHOWN))

    def _draw_total(self, event: Progressed) -> None:
        if self._total is None:
            self._total = _add_bar(self._progress, "")
        done = f"{event.files_done} of {counted(event.files_total, 'file')}"
        self._progress.update(self._total, description=done)
        _set_bar(self._progress, self._total, event.present_bytes, event.size_bytes, pace(event))

    def _picture(self) -> Group:
        from rich.console import Group

        return Group(self._progress.get_renderable(), self._sources)


def _add_bar(progress: Progress, description: str) -> TaskID:
    return progress.add_task(description, total=None, amount="", pace="")


def _set_bar(progress: Progress, bar: TaskID, present: int, size: int, pace: str) -> None:
    progress.update(bar, completed=present, total=size, amount=f"{human_size(present)}/{human_size(size)}", pace=pace)


def shortened(path: str, width: int) -> str:
    """A path in `width` characters: its folders go first, then the end of its name, because shards differ before."""
    if len(path) > width and "/" in path:
        path = f"…/{path.rsplit('/', 1)[1]}"
    return path if len(path) <= width else f"{path[: width - 1]}…"


def pace(event: Progressed) -> str:
    """`112.0 MB/s, 1:05 left`."""
    rate = event.rate_bytes_per_second
    if rate < 1:
        return "waiting"
    minutes, seconds = divmod(round((event.size_bytes - event.present_bytes) / rate), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{human_size(rate)}/s, {left} left"
