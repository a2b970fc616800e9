"""`hfpeer uninstall`: removes what is hfpeer's own, and nothing else.

Own is what a node itself writes into HFPEER_HOME, by name, and its partial blobs below the cache's `.locks`. The
Hugging Face cache, a folder that merely was configured, and whatever else lies in HFPEER_HOME are never touched; no
link is followed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from hfpeer.errors import BrokenCache
from hfpeer_cli.grammar import Verb, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size

COMMIT_PATTERN = "[0-9a-f]" * 40
OWN_PATTERNS = (
    "settings.toml",
    "settings.toml.[0-9]*",
    "node-id",
    "node-id.[0-9]*",
    "catalog.sqlite*",
    "shares.json",
    "shares.json.*.incomplete",
    "daemon.pid",
    "control.sock",
    "logs/hfpeerd.log*",
    "logs/startup.log",
    f"manifests/*--*/{COMMIT_PATTERN}.json",
    f"manifests/*--*/{COMMIT_PATTERN}.json.*.incomplete",
    "verdicts.json",
    "verdicts.json.*.incomplete",
    f"answers/*--*/{COMMIT_PATTERN}/*.json",
    f"answers/*--*/{COMMIT_PATTERN}/*.json.*.incomplete",
    "packs/*--*/*.pack",
    "packs/*--*/*.json",
    "packs/*--*/*.incomplete",
)
"""The files a node writes below its home. Folders go when nothing else is left in them."""
OTHER_HOMES = "caches/*"
"""Where the library keeps what belongs to caches that were named in a call: homes like the first."""


@click.command("uninstall", cls=Verb, examples=["hfpeer uninstall", "hfpeer uninstall --yes"])
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def uninstall(invocation: Invocation, yes: bool) -> None:
    """Stop the daemon and remove what is hfpeer's own.

    Settings, catalogue, logs, manifests and half-fetched blobs go. The Hugging Face cache stays as it is, and so does
    every file that hfpeer did not write.
    """
    from hfpeer.cache import blobs, layout
    from hfpeer.lifecycle import stop_daemon

    places = invocation.settings.places
    belongings = Belongings(places.home, places.control_socket)
    partials = layout.partials_folder(places.cache)
    output = invocation.output
    output.note(_announcement(belongings, partials, places.cache))
    if not yes and not _is_agreed():
        output.note("Nothing was removed.")
        return
    was_running = asyncio.run(stop_daemon(invocation.settings))
    removed = belongings.remove()
    freed_bytes = blobs.sweep(places.cache, older_than=float("inf"))
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
    """What a node has written below its home."""

    home: Path
    control_socket: Path

    def files(self) -> Iterator[Path]:
        """Every file of hfpeer's own, as it lies there now. Links are not followed into other folders."""
        for home in (self.home, *self._other_homes()):
            for pattern in OWN_PATTERNS:
                yield from (path for path in home.glob(pattern) if not path.is_dir() and self._is_inside(path))
        if self.home not in self.control_socket.parents and self.control_socket.is_socket():
            yield self.control_socket

    def remove(self) -> list[Path]:
        """Removes them and the folders they leave empty; what was removed. Raises BrokenCache."""
        removed = list(self.files())
        try:
            for path in removed:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise BrokenCache(f"{error.filename} cannot be removed: {error.strerror}.", hint="Whose is it?") from error
        for folder in sorted({parent for path in removed for parent in self._folders_of(path)}, reverse=True):
            with suppress(OSError):
                folder.rmdir()
        return removed

    def _other_homes(self) -> list[Path]:
        return [folder for folder in self.home.glob(OTHER_HOMES) if folder.is_dir()]

    def _folders_of(self, path: Path) -> list[Path]:
        return [folder for folder in path.parents if folder == self.home or self.home in folder.parents]

    def _is_inside(self, path: Path) -> bool:
        folders = self._folders_of(path)
        return not any(folder.is_symlink() for folder in folders if folder != self.home)


def _announcement(belongings: Belongings, partials: Path, cache: Path) -> str:
    lines = sorted({f"  {_top(path, belongings.home)}" for path in belongings.files()})
    lines += [f"  {partials} (half-fetched blobs)"] if partials.is_dir() else []
    if not lines:
        return f"There is nothing of hfpeer's in {belongings.home}."
    return "\n".join(["The daemon is stopped, and this is removed:", *lines, f"The cache {cache} stays as it is."])


def _top(path: Path, home: Path) -> Path:
    return home / path.relative_to(home).parts[0] if home in path.parents else path


def _is_agreed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody can be asked here; give --yes to remove it.")
    return click.confirm("Go on?", err=True)


def _farewell(removed: int, freed_bytes: int, left: list[str], home: Path) -> str:
    text = f"Removed {removed:,} files of hfpeer's own"
    text += f" and {human_size(freed_bytes)} of half-fetched blobs." if freed_bytes else "."
    if left:
        text += f"\nLeft in {home}, because hfpeer did not write it:\n" + "\n".join(f"  {path}" for path in left)
    return text
