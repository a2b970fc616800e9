"""The progress of an add on stderr, and its summary at the end.

A terminal shows bars; a pipe, a log and a dumb terminal get a line from time to time. Events come from any thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hfpeer.language.cells import cells, padded
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
from hfpeer_cli.language.chosen import translated_word
from hfpeer_cli.output import Output, counted, human_size, human_time
from hfpeer_cli.progress_lines import ProgressLines
from hfpeer_cli.screen.bars import Bars, contributions, pace
from hfpeer_cli.screen.terminal import draws

MAX_CONTRIBUTIONS_NAMED = 12
FROM_KINDS = {
    "peer": "from peers",
    "mirror": "from mirrors",
    "origin": "from the origin",
    "modelscope": "from ModelScope",
}
"""By kind of source: its line in the summary."""


@contextmanager
def watching(output: Output) -> Iterator[OnEvent]:
    """The on_event function of one `add`. It draws bars on a terminal, and prints the facts that matter everywhere."""
    say = output.note
    if output.is_lines:
        yield output.event
        return
    if not draws(sys.stderr) or output.is_quiet:
        yield _Reporter(say, lines=ProgressLines(say, progress_sentence))
        return
    with Bars() as bars:
        yield _Reporter(bars.say if not output.is_json else say, draw=bars.draw)


@contextmanager
def watching_check(output: Output) -> Iterator[OnEvent]:
    """Gives the on_event function of a check of files on disk: bars on a terminal, lines of JSON, else a line now and
    then."""
    if output.is_lines:
        yield output.event
        return
    if not draws(sys.stderr) or output.is_json or output.is_quiet:
        lines = ProgressLines(output.note, progress_sentence)
        yield lambda event: lines(event) if isinstance(event, Progressed) else None
        return
    with Bars() as bars:
        yield lambda event: bars.draw(event) if isinstance(event, Progressed) else None


class _Reporter:
    """An on_event function that prints a sentence for each event that matters, and passes progress on to `draw` or
    `lines`."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        draw: Callable[[Progressed], None] | None = None,
        lines: ProgressLines | None = None,
    ) -> None:
        self._say = say
        self._lines = lines
        self._draw = draw
        self._told = set[tuple[str, str]]()

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
            self._say(resolved_sentence(event))
        elif isinstance(event, NamedPeerSilent):
            self._say(f"{event.reason} Going on without it.")
        elif isinstance(event, WaitBegan):
            self._say(event.reason)
        elif isinstance(event, SourceFailed):
            self._tell_failure(event)
        elif isinstance(event, CheckBegan):
            self._say(f"Hashing first what is on this machine: {_amount(event.files, event.size_bytes)}.")
        elif isinstance(event, Planned):
            for glob in event.unmatched:
                self._say(f"No file matches --include {glob!r}.")
            if event.missing_files:
                self._say(planned_sentence(event))

    def _tell_failure(self, event: SourceFailed) -> None:
        """Says once of a source why it failed; each wrong byte is told."""
        if self._lines and not event.was_lying:
            self._lines.note_failure(event)
        elif event.was_lying or (event.source, event.reason) not in self._told:
            self._told.add((event.source, event.reason))
            self._say(failed_sentence(event))


def progress_sentence(event: Progressed) -> str:
    """How far a transfer is, without a full stop: `412.0 MB of 1.0 GB, 3 of 5 files, 12.3 MB/s, 0:48 left`."""
    files = f", {event.files_done} of {counted(event.files_total, 'file')}" if event.files_total else ""
    return f"{human_size(event.present_bytes)} of {human_size(event.size_bytes)}{files}, {pace(event)}"


def joined_sentence(event: TransferJoined) -> str:
    """A sentence on a transfer that another command began."""
    if event.state == "paused":
        return f"Transfer {event.id} is paused: `hfpeer transfers resume {event.id}` lets it go on."
    if event.state == "queued":
        return f"Going on with transfer {event.id} of an earlier add."
    return f"Transfer {event.id} does this already: it is {event.state}."


def resolved_sentence(event: Resolved) -> str:
    """A sentence with the commit of a revision, the source of the answer, and its age if it is an old one."""
    commit = event.commit[:12]
    name = f"{event.revision} of {event.repo}"
    if event.revision == event.commit:
        return f"{event.repo} at commit {event.commit}."
    if event.voice == "hub":
        sentence = f"{name} is commit {commit} ({event.answered_by})."
    elif event.voice == "cache":
        sentence = f"{name} is commit {commit}: no other in the cache begins so. {_why_no_hub(event)}"
    elif event.voice in ("published here", "published"):
        by = "this node" if event.voice == "published here" else event.answered_by
        published = f"{name} is commit {commit}, published by {by}"
        sentence = f"{published}, on no hub." if event.hubs == "no repo" else f"{published}. {_why_no_hub(event)}"
    else:
        when = "at an unknown time" if event.age_seconds is None else f"{human_time(event.age_seconds)} ago"
        sentence = f"{name} was commit {commit} {when}, {_as_said(event)}. {_why_no_hub(event)}"
    return f"{sentence} {event.hubs_said}".rstrip()


def _as_said(event: Resolved) -> str:
    """Names the source of an old answer."""
    if event.voice == "told":
        return "as peers said before"
    if event.answered_by == "cache":
        return "as another tool wrote it here"
    # A name of a node has no space: with one, these are several.
    return f"say {event.answered_by}" if " " in event.answered_by else f"says {event.answered_by}"


def _why_no_hub(event: Resolved) -> str:
    return "No hub was asked." if event.hubs == "not asked" else "No hub answers now."


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
    of_others = finished.size_bytes - finished.reused_bytes - finished.kept_bytes - received + finished.refetched_bytes
    amounts = [
        *((FROM_KINDS.get(kind, f"from {kind}"), size) for kind, size in _largest_first(finished.bytes_by_kind)),
        ("was here", finished.reused_bytes),
        ("begun before", finished.kept_bytes),
        ("by another add", of_others),
        ("of other tools", finished.adopted_bytes),
        ("fetched twice", finished.refetched_bytes),
    ]
    rates = {name: size_bytes / seconds for name, size_bytes in finished.bytes_by_source.items()}
    saved, total = max(0, finished.wan_saved_bytes), max(1, finished.size_bytes)
    return [
        f"{files} in {human_time(finished.seconds)}; {human_size(received / seconds)}/s over the wire.",
        *_amount_lines([(label, size) for label, size in amounts if size > 0]),
        *contributions(finished.bytes_by_source, rates, MAX_CONTRIBUTIONS_NAMED),
        f"WAN saved: {human_size(saved)} of {human_size(finished.size_bytes)} ({saved / total:.0%}).",
    ]


def _amount_lines(amounts: Sequence[tuple[str, int]]) -> list[str]:
    labels = [translated_word(label) for label, _ in amounts]
    width = max(map(cells, labels), default=0)
    return [f"  {padded(label, width)}{human_size(size):>11}" for label, (_, size) in zip(labels, amounts, strict=True)]


def _largest_first(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, size) for name, size in sizes.items() if size), key=lambda item: -item[1])
