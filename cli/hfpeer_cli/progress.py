"""The progress of an add on stderr, and its summary at the end.

Bars are drawn only on a terminal. Events come from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hfpeer.transfer.events import (
    Asking,
    CheckBegan,
    Event,
    Finished,
    NamedPeerSilent,
    OnEvent,
    Planned,
    Progressed,
    Resolved,
    SourceFailed,
    TransferJoined,
    WaitBegan,
)
from hfpeer_cli.output import Output, counted, human_size, human_time, on_screen
from hfpeer_cli.progress_lines import ProgressLines, can_draw

if TYPE_CHECKING:
    from rich.console import Group
    from rich.progress import Progress, TaskID

MAX_FILES_SHOWN = 6
MAX_CONTRIBUTIONS_SHOWN, MAX_CONTRIBUTIONS_NAMED = 6, 12
MAX_NAME, BAR_CELLS = 28, 16


@contextmanager
def watching(output: Output, *, names_revision: bool) -> Iterator[OnEvent]:
    """The on_event function of one `add`. It draws bars on a terminal, and prints the facts that matter elsewhere too.

    `names_revision`: the user named a revision. Else a sentence says which one was taken.
    """
    say = output.note
    if output.is_lines:
        yield output.event
        return
    if not can_draw() or output.is_quiet:
        yield _Reporter(say, names_revision=names_revision, lines=ProgressLines(say, progress_sentence))
        return
    with _Bars() as bars:
        yield _Reporter(bars.say if not output.is_json else say, names_revision=names_revision, draw=bars.draw)


@contextmanager
def watching_check(output: Output) -> Iterator[OnEvent]:
    """Gives the on_event function of a check of files on disk: bars on a terminal, lines of JSON, else a line now and
    then."""
    if output.is_lines:
        yield output.event
        return
    if not can_draw() or output.is_json or output.is_quiet:
        lines = ProgressLines(output.note, progress_sentence)
        yield lambda event: lines(event) if isinstance(event, Progressed) else None
        return
    with _Bars() as bars:
        yield lambda event: bars.draw(event) if isinstance(event, Progressed) else None


class _Reporter:
    """An on_event function that prints a sentence for each event that matters, and passes progress on to `draw`."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        names_revision: bool,
        draw: Callable[[Progressed], None] | None = None,
        lines: ProgressLines | None = None,
    ) -> None:
        self._say = say
        self._lines = lines
        self._names_revision = names_revision
        self._draw = draw

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed):
            if self._draw:
                self._draw(event)
            elif self._lines:
                self._lines(event)
        elif isinstance(event, TransferJoined):
            if not event.is_new:
                self._say(joined_sentence(event))
        elif isinstance(event, Asking):
            self._say(f"Asking {' and '.join(event.hubs)} …")
        elif isinstance(event, Resolved):
            self._say(resolved_sentence(event, names_revision=self._names_revision))
        elif isinstance(event, NamedPeerSilent):
            self._say(f"{event.reason} Going on without it.")
        elif isinstance(event, WaitBegan):
            self._say(event.reason)
        elif isinstance(event, SourceFailed) and (self._draw or event.was_lying):
            self._say(failed_sentence(event))
        elif isinstance(event, SourceFailed) and self._lines:
            self._lines.note_failure(event)
        elif isinstance(event, CheckBegan) and self._draw:
            self._say(f"Hashing first what is on this machine: {_amount(event.files, event.size_bytes)}.")
        elif isinstance(event, Planned):
            for glob in event.unmatched:
                self._say(f"No file matches --include {glob!r}.")
            if self._draw:
                self._say(planned_sentence(event))
            elif event.kept_bytes:
                self._say(f"Resuming: {human_size(event.kept_bytes)} of what is missing are here.")


def progress_sentence(event: Progressed) -> str:
    """How far a transfer is, without a full stop: `412.0 MB of 1.0 GB, 3 of 5 files, 12.3 MB/s, 0:48 left`."""
    files = f", {event.files_done} of {counted(event.files_total, 'file')}" if event.files_total else ""
    return f"{human_size(event.present_bytes)} of {human_size(event.size_bytes)}{files}, {pace(event)}"


def joined_sentence(event: TransferJoined) -> str:
    """A sentence on a transfer that another command began."""
    if event.state == "paused":
        return f"Transfer {event.id} is paused: `hfpeer transfers resume {event.id}` lets it go on."
    return f"Transfer {event.id} does this already: it is {event.state}."


def resolved_sentence(event: Resolved, *, names_revision: bool) -> str:
    """A sentence with the commit of a revision, the source of the answer, and its age if it is an old one."""
    if event.revision == event.commit:
        return f"{event.repo} at commit {event.commit}."
    pinned = f"{event.revision} of {event.repo} is commit {event.commit}"
    if not names_revision:
        pinned = f"No revision given: took {event.revision} of {event.repo}, pinned to commit {event.commit}"
    return f"{pinned} ({_source_of(event)})." + (f" {event.hubs_said}" if event.hubs_said else "")


def _source_of(event: Resolved) -> str:
    """Names the source of the answer, its age, and why no source of a higher rank answered."""
    if event.voice == "hub":
        return f"says {event.answered_by}"
    when = "at an unknown time" if event.age_seconds is None else f"{human_time(event.age_seconds)} ago"
    why = "--local-only asks no hub" if event.hubs == "not asked" else "no hub could be asked now"
    if event.voice == "cache":
        return f"the only commit in the cache that begins so; {why}"
    if event.voice == "published here":
        return "published by this node" + (", on no hub" if event.hubs == "no repo" else f"; {why}")
    if event.voice == "published":
        said = f"published by {event.answered_by}"
        return f"{said}, on no hub" if event.hubs == "no repo" else f"{said}, as that peer says; {why}"
    if event.voice == "peer":
        # A name of a node has no space: with one, these are several.
        by = f"peers {event.answered_by} say" if " " in event.answered_by else f"peer {event.answered_by} says"
        told = f"a hub said so {when}" if event.age_seconds is not None else "when a hub said so is unknown"
        return f"as the {by}: {told}; {why}"
    if event.voice == "told":
        return f"as peers said before; {why}"
    if event.answered_by == "cache":
        return f"as another tool wrote it here {when}; {why}"
    return f"{event.answered_by} said so {when}; {why}"


def planned_sentence(event: Planned) -> str:
    """A sentence with the size of the selected files, and of the missing ones."""
    total = _amount(event.files, event.size_bytes)
    if not event.missing_files:
        return f"{total}: all of it is here already."
    kept = f"; resuming: {human_size(event.kept_bytes)} of it are here" if event.kept_bytes else ""
    return f"{total}; to fetch: {_amount(event.missing_files, event.missing_bytes)}{kept}."


def _amount(files: int, size_bytes: int) -> str:
    return f"{counted(files, 'file')}, {human_size(size_bytes)}"


def failed_sentence(event: SourceFailed) -> str:
    """A sentence on a source that failed: which, with which file, and why."""
    if event.was_lying:
        return f"{event.source} gave wrong bytes of {event.path}; they are fetched again elsewhere. {event.reason}"
    return f"{event.source} gave up on {event.path} ({event.reason}); going on from the others."


def summary(finished: Finished) -> list[str]:
    """The lines printed after an `add`: bytes, time, bytes from each source, WAN traffic saved."""
    received = sum(finished.bytes_by_kind.values())
    files = _amount(finished.files, finished.size_bytes)
    seconds = max(finished.seconds, 1e-9)
    if not received:
        copied = f", {human_size(finished.copied_bytes)} in another cache folder" if finished.copied_bytes else ""
        copied += f", {human_size(finished.adopted_bytes)} in other tools" if finished.adopted_bytes else ""
        return [f"{files}: all of it was here already{copied}. Took {human_time(finished.seconds)}."]
    lines = [f"{files} in {human_time(finished.seconds)}; {human_size(received / seconds)}/s over the wire."]
    lines += [
        f"  from {kind:<10}{human_size(size_bytes):>10}" for kind, size_bytes in _largest_first(finished.bytes_by_kind)
    ]
    if finished.reused_bytes:
        lines.append(f"  {'from here':<15}{human_size(finished.reused_bytes):>10}")
    if finished.kept_bytes:
        lines.append(f"  {'begun before':<15}{human_size(finished.kept_bytes):>10}")
    of_others = finished.size_bytes - finished.reused_bytes - finished.kept_bytes - received + finished.refetched_bytes
    if of_others > 0:
        lines.append(f"  {'by another add':<15}{human_size(of_others):>10}")
    if finished.adopted_bytes:
        lines.append(f"  {'of other tools':<15}{human_size(finished.adopted_bytes):>10}")
    rates = {name: size_bytes / seconds for name, size_bytes in finished.bytes_by_source.items()}
    lines += [
        "  by source",
        *(f"  {line}" for line in contributions(finished.bytes_by_source, rates, MAX_CONTRIBUTIONS_NAMED)),
    ]
    if finished.refetched_bytes:
        lines.append(f"  {'fetched twice':<15}{human_size(finished.refetched_bytes):>10}")
    saved, total = max(0, finished.wan_saved_bytes), max(1, finished.size_bytes)
    lines.append(f"WAN saved: {human_size(saved)} of {human_size(finished.size_bytes)} ({saved / total:.0%}).")
    return lines


def _largest_first(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, size) for name, size in sizes.items() if size), key=lambda item: -item[1])


def contributions(sizes: dict[str, int], rates: dict[str, float], limit: int) -> list[str]:
    """A line for each source that gave bytes, with the largest share first, at most `limit` lines: name, share of all
    bytes (as a bar, in bytes, in percent) and rate."""
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
    """The bars of one transfer: the total, the files in flight, and the share of each source."""

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
        self._console.print(on_screen(text), markup=False, soft_wrap=True)

    def draw(self, event: Progressed) -> None:
        """Takes the newest progress; the next refresh shows it."""
        self._draw_total(event)
        shown = {file.path: file for file in event.files[:MAX_FILES_SHOWN]}
        for path in self._files.keys() - shown.keys():
            self._progress.remove_task(self._files.pop(path))
        for path, file in shown.items():
            if path not in self._files:
                self._files[path] = _add_bar(
                    self._progress, f"  {on_screen(shortened(path, self._console.width // 4))}"
                )
            _set_bar(self._progress, self._files[path], file.present_bytes, file.size_bytes, "")
        self._sources.plain = on_screen(
            contributions(event.bytes_by_source, event.rate_by_source, MAX_CONTRIBUTIONS_SHOWN)
        )

    def _draw_total(self, event: Progressed) -> None:
        if self._total is None:
            self._total = _add_bar(self._progress, "")
        done = f"{event.files_done} of {counted(event.files_total, 'file')}" if event.files_total else "in all"
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
    """A path in at most `width` characters. Its folders are cut first, then the end of its name: names of shards differ
    before their end."""
    if len(path) > width and "/" in path:
        path = f"…/{path.rsplit('/', 1)[1]}"
    return path if len(path) <= width else f"{path[: width - 1]}…"


def pace(event: Progressed) -> str:
    """`112.0 MB/s, 1:05 left`."""
    rate = event.rate_bytes_per_second
    if rate < 1:
        return "waiting"
    return f"{human_size(rate)}/s, {clock_time((event.size_bytes - event.present_bytes) / rate)} left"


def clock_time(seconds: float) -> str:
    """`1:05`, `2:03:04`."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
