"""`hfpeer uninstall`: removes hfpeer's own files, and nothing else.

These are the files that a node writes into HFPEER_HOME, by name, and its partial blobs below the cache's `.locks`. The
Hugging Face cache, configured folders, and other files in HFPEER_HOME are never touched. No link is followed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from hfpeer.config.paths import folder_without_locks
from hfpeer.errors import BrokenCache
from hfpeer_cli.commands.shell.completion import installed
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.screen.terminal import on_screen

COMMIT_PATTERN = "[0-9a-f]" * 40
OWN_PATTERNS = (
    "settings.toml",
    "settings.toml.[0-9]*",
    "node-id",
    "node-id.[0-9]*",
    "catalog.sqlite*",
    "shares.json",
    "shares.json.*.incomplete",
    "leftovers.json",
    "leftovers.json.*.incomplete",
    "transfers.jsonl",
    "transfers.jsonl.*.incomplete",
    "history.jsonl",
    "history.jsonl.*.incomplete",
    "published.json",
    "published.json.*.incomplete",
    "daemon.pid",
    "control.sock",
    "logs/hfpeerd.log*",
    "logs/startup.log",
    f"manifests/*--*/{COMMIT_PATTERN}.json",
    f"manifests/*--*/{COMMIT_PATTERN}.json.*.incomplete",
    "grants.json",
    "grants.json.*.incomplete",
    f"answers/*--*/{COMMIT_PATTERN}/*.json",
    f"answers/*--*/{COMMIT_PATTERN}/*.json.*.incomplete",
    "packs/*--*/*.pack",
    "packs/*--*/*.json",
    "packs/*--*/*.incomplete",
)
"""The files that a node writes below its home. Folders are removed when they are empty."""
OTHER_HOMES = "caches/*"
"""The homes that `snapshot_download` makes for other caches: they have the same files as the first."""


@click.command("uninstall", cls=Verb, examples=["hfpeer uninstall", "hfpeer uninstall --yes"])
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def uninstall(invocation: Invocation, yes: bool) -> None:
    """Stop the daemon and remove hfpeer's own files.

    Removes settings, catalog, logs, manifests and partial blobs. The Hugging Face cache and all files that hfpeer did
    not write stay.
    """
    from hfpeer.cache.cleaning.leftovers import sweep
    from hfpeer.cache.disk import layout
    from hfpeer.control.process import stop_daemon

    places = invocation.settings.places
    belongings = Belongings(places.home, places.control_socket, tuple(installed(invocation.environ)))
    partials = layout.partials_folder(places.cache)
    output = invocation.output
    output.note(_announcement(belongings, partials, places.cache))
    if not yes and not _is_agreed():
        output.note("Nothing was removed.")
        return
    was_running = asyncio.run(stop_daemon(invocation.settings))
    removed = belongings.remove()
    freed_bytes = sweep(places.cache)
    with suppress(OSError):
        partials.rmdir()
    left = sorted(str(path) for path in places.home.iterdir()) if places.home.is_dir() else []
    document = {
        "daemon_was_running": was_running,
        "removed": [str(path) for path in removed],
        "freed_partial_bytes": freed_bytes,
        "left": left,
        "cache": str(places.cache),
    }
    output.result(_farewell(len(removed), freed_bytes, left, places.home), document)
    output.note("`pip uninstall hfpeer`, or what you installed it with, removes the program itself.")


@dataclass(frozen=True)
class Belongings:
    """The files that a node has written below its home, and the completion `scripts` of shells."""

    home: Path
    control_socket: Path
    scripts: tuple[Path, ...] = ()

    def files(self) -> Iterator[Path]:
        """The files that are there now. Links are not followed into other folders."""
        for home in (self.home, *self._other_homes()):
            for pattern in OWN_PATTERNS:
                yield from (path for path in home.glob(pattern) if not path.is_dir() and self._is_inside(path))
        if self.home not in self.control_socket.parents and self.control_socket.is_socket():
            yield self.control_socket
        yield from folder_without_locks(self.home).glob("catalog.sqlite*")
        yield from self.scripts

    def remove(self) -> list[Path]:
        """Removes the files, and folders that are empty then. Returns the removed files. Raises BrokenCache."""
        removed = list(self.files())
        try:
            for path in removed:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise BrokenCache(f"{error.filename} cannot be removed: {error.strerror}.", hint="Whose is it?") from error
        for folder in sorted({parent for path in removed for parent in self._folders_of(path)}, reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            folder_without_locks(self.home).rmdir()
        return removed

    def _other_homes(self) -> list[Path]:
        return [folder for folder in self.home.glob(OTHER_HOMES) if folder.is_dir()]

    def _folders_of(self, path: Path) -> list[Path]:
        return [folder for folder in path.parents if folder == self.home or self.home in folder.parents]

    def _is_inside(self, path: Path) -> bool:
        folders = self._folders_of(path)
        return not any(folder.is_symlink() for folder in folders if folder != self.home)


def _announcement(belongings: Belongings, partials: Path, cache: Path) -> list[str]:
    lines = sorted({f"  {_top(path, belongings.home)}" for path in belongings.files()})
    lines += [f"  {partials} (half-fetched blobs)"] if partials.is_dir() else []
    if not lines:
        return [f"There is nothing of hfpeer's in {belongings.home}."]
    return ["This will stop the daemon and remove:", *lines, f"The cache {cache} stays as it is."]


def _top(path: Path, home: Path) -> Path:
    return home / path.relative_to(home).parts[0] if home in path.parents else path


def _is_agreed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Not a terminal: pass --yes to confirm.")
    return click.confirm(on_screen("Go on?"), err=True)


def _farewell(removed: int, freed_bytes: int, left: list[str], home: Path) -> list[str]:
    text = f"Removed {counted(removed, 'file')} of hfpeer's own"
    text += f" and {human_size(freed_bytes)} of half-fetched blobs." if freed_bytes else "."
    if not left:
        return [text]
    return [text, f"Left in {home}, because hfpeer did not write it:", *(f"  {path}" for path in left)]
