"""The end of `add --local-dir` and `export --to-folder`: a snapshot becomes a plain folder, and a note says how."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfpeer_cli.output import Output, counted
from hfpeer_cli.progress import watching_check

if TYPE_CHECKING:
    from hfpeer.control.operations import AddRequest, CachedFile, Operations
    from hfpeer.node.operations.moving.local_dir import FilledFolder
    from hfpeer.transfer.events import Finished, OnEvent

MAX_PATHS = 20
"""At most this many paths are printed in a note."""


async def add_and_list(
    node: Operations, request: AddRequest, on_event: OnEvent, *, lists: bool
) -> tuple[Finished, list[CachedFile]]:
    """Adds a repo. With `lists` it also returns the files that the request selects."""
    finished = await node.add(request, on_event)
    if not lists:
        return finished, []
    from hfpeer.node.operations.moving.local_dir import selected_files

    return finished, await selected_files(node, request, finished)


def fill(
    output: Output,
    local_dir: Path,
    finished: Finished,
    files: Sequence[CachedFile],
    *,
    replaceable: Container[str],
    links: bool,
) -> FilledFolder:
    """Fills a folder in this process: a daemon may not see the same volumes."""
    from hfpeer.node.operations.moving.local_dir import fill_folder

    folder = Path(os.path.realpath(local_dir.expanduser()))
    with watching_check(output) as on_event:
        return fill_folder(
            folder,
            Path(finished.snapshot),
            finished.commit,
            files,
            replaceable=replaceable,
            links_large_files=links,
            on_event=on_event,
        )


def filled_lines(filled: FilledFolder, *, replaces: str) -> list[str]:
    """How the files came to the folder, and which were changed there. `replaces` is the option that replaces one."""
    words = {"clone": "with shared blocks", "hard_link": "as hard links, read-only"}
    ways: dict[str, int] = {}
    for way, number in filled.ways.items():
        ways[words.get(way, "copied")] = ways.get(words.get(way, "copied"), 0) + number
    parts = [f"{number:,} {way}" for way, number in sorted(ways.items())]
    if filled.right_files:
        parts.append(f"{filled.right_files:,} right already")
    lines = [f"{filled.folder}: {counted(sum(ways.values()) + filled.right_files, 'file')} ({', '.join(parts)})."]
    if not parts:
        lines = []
    if filled.kept:
        lines.append(f"Changed in the folder and left alone; {replaces} replaces one:")
        lines += [f"  {path}" for path in _first(filled.kept)]
    if filled.replaced:
        lines.append("Changed in the folder and replaced, because -f names it:")
        lines += [f"  {path}" for path in _first(filled.replaced)]
    return lines


def _first(paths: Sequence[str]) -> list[str]:
    """The first MAX_PATHS paths, and how many more there are."""
    more = len(paths) - MAX_PATHS
    return [*paths[:MAX_PATHS], *([f"and {more:,} more"] if more > 0 else [])]
