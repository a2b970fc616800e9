"""`hfpeer conf cache`: the folder that this node keeps its cache in, and others that it only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hfpeer.config.settings import find_key
from hfpeer.errors import HfpeerError, InvalidName, NotFound
from hfpeer_cli.commands.conf.writing import print_value, write
from hfpeer_cli.grammar import FOLDER, Noun, pass_invocation
from hfpeer_cli.grammar.completions import complete_read_cache
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import watching_check
from hfpeer_cli.screen.tables import exact, name, number, words

if TYPE_CHECKING:
    from hfpeer.config.settings import Settings
    from hfpeer.node.operations.cache.folders import ChosenFolder


COLUMNS = (
    name("FOLDER", least=24),
    words("USE"),
    words("HOLDS"),
    number("FREE"),
    exact("KIND", rank=1),
    words("FROM", rank=2),
)


def read_caches(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Completes to the folders that are only read."""
    return complete_read_cache(ctx, incomplete)


@click.group(
    "cache",
    cls=Noun,
    no_args_is_help=True,
    examples=["hfpeer conf cache ls", "hfpeer conf cache set /data/hub", "hfpeer conf cache add /mnt/share/hub"],
)
def cache() -> None:
    """The folder of the cache, and more folders to read from."""


@cache.command("get", examples=["hfpeer conf cache get"])
@pass_invocation
def get_cache(invocation: Invocation) -> None:
    """Print the folder that the cache is kept in."""
    print_value(invocation, find_key("cache"))


@cache.command("ls", examples=["hfpeer conf cache ls", "hfpeer conf cache ls --json"])
@pass_invocation
def list_folders(invocation: Invocation) -> None:
    """List the cache folders, the one that is written first."""
    from hfpeer.node.operations.cache.folders import describe

    settings = invocation.settings
    facts = [
        {
            **asdict(folder),
            "is_first": is_first,
            "from": settings.origins["cache" if is_first else "read_caches"],
            "follows": list(folder.consequences),
        }
        for is_first, folder in describe(settings.cache, settings.read_caches)
    ]
    rows = [
        (
            fact["path"],
            "read and written" if fact["is_first"] else "only read",
            fact["away"] or counted(fact["repos"], "repo"),
            human_size(fact["volume"]["free_bytes"]) if fact["volume"] else "-",
            (fact["volume"] or {}).get("file_system") or "-",
            fact["from"],
        )
        for fact in facts
    ]
    invocation.output.table(COLUMNS, rows, facts)


@cache.command("set", examples=["hfpeer conf cache set /data/hub", "hfpeer conf cache set /media/disk/hub"])
@click.argument("folder", metavar="DIR", type=FOLDER)
@pass_invocation
def set_cache(invocation: Invocation, folder: Path) -> None:
    """Keep the cache in another folder, and say what its volume can do.

    A missing folder is made. Nothing is copied there, and nothing is removed: `hfpeer conf cache move DIR` copies.
    """
    keep_cache_in(invocation, folder)


@cache.command("move", examples=["hfpeer conf cache move /media/disk/hub"])
@click.argument("folder", metavar="DIR", type=FOLDER)
@pass_invocation
def move_cache(invocation: Invocation, folder: Path) -> None:
    """Copy the cache to another folder, and keep it there.

    Every byte is hashed on its way. The old folder stays as it is, until you remove it. Interrupted, the same command
    goes on. On one volume both folders share the bytes.
    """
    import asyncio

    from hfpeer.node.operations.cache.folders import choose_first
    from hfpeer.node.operations.cache.relocation import copy_cache

    settings = invocation.settings
    old = settings.cache
    if not old.is_dir():
        raise NotFound(f"There is no cache at {old}.", hint=f"hfpeer conf cache set {folder}", path=str(old))
    chosen = choose_first(folder, [old, *settings.read_caches])
    if folder.resolve() == old.resolve():
        raise InvalidName(f"The cache is in {folder} already.", hint="`hfpeer conf cache ls` lists the folders.")
    output = invocation.output
    output.note(_lines(chosen))
    invocation.when_interrupted = "Interrupted. Nothing is lost: the same command continues from there."
    with watching_check(output) as on_event:
        copied = asyncio.run(copy_cache(settings, folder, on_event))
    runs_with = _daemon_caches(settings)
    facts = {**_facts(chosen), "copied": asdict(copied), "daemon_caches": runs_with}
    settings = write(invocation, find_key("cache"), str(folder), **facts)
    output.note(
        f"There: {counted(copied.revisions, 'revision')}, {counted(copied.files, 'file')}, "
        f"{human_size(copied.size_bytes)}. Every byte was hashed on its way."
    )
    for sentence in copied.left:
        output.note(f"Left: {sentence}")
    output.note(f"The old cache stays as it is. To remove it: rm -r {quote(str(old))}")
    _note_daemon(invocation, settings, runs_with)


@cache.command("add", examples=["hfpeer conf cache add /mnt/share/hub", "hfpeer conf cache add /media/disk/hub"])
@click.argument("folder", metavar="DIR", type=FOLDER)
@pass_invocation
def add_cache(invocation: Invocation, folder: Path) -> None:
    """Read from one more cache folder, and share what is in it.

    Nothing is ever written there. An add of what lies there takes no byte from outside: it puts the files into the
    folder that is written, where tools look. A folder that is unplugged is passed over until it is back.
    """
    from hfpeer.node.operations.cache.folders import choose_other

    settings = invocation.settings
    chosen = choose_other(folder, settings.cache, settings.read_caches)
    _write_folders(invocation, [*settings.read_caches, folder], chosen)


@cache.command("rm", examples=["hfpeer conf cache rm /mnt/share/hub"])
@click.argument("folder", metavar="DIR", type=FOLDER, shell_complete=read_caches)
@pass_invocation
def remove_cache(invocation: Invocation, folder: Path) -> None:
    """Read from a folder no longer. Nothing in it is removed."""
    settings = invocation.settings
    if folder not in settings.read_caches:
        is_first = folder == settings.cache
        raise NotFound(
            f"{folder} is the folder that the cache is kept in." if is_first else f"{folder} is no cache folder here.",
            hint="`hfpeer conf cache set DIR` takes another." if is_first else "`hfpeer conf cache ls` lists them.",
            path=str(folder),
        )
    _write_folders(invocation, [one for one in settings.read_caches if one != folder])


@cache.command("reset", examples=["hfpeer conf cache reset"])
@pass_invocation
def reset_cache(invocation: Invocation) -> None:
    """Keep the cache where huggingface_hub has it."""
    runs_with = _daemon_caches(invocation.settings)
    _note_daemon(invocation, write(invocation, find_key("cache"), None, daemon_caches=runs_with), runs_with)


def keep_cache_in(invocation: Invocation, folder: Path) -> None:
    """Checks a folder, makes it if it is missing, and writes it into the file."""
    from hfpeer.node.operations.cache.folders import choose_first

    settings = invocation.settings
    chosen = choose_first(folder, [settings.cache, *settings.read_caches])
    runs_with = _daemon_caches(settings)
    settings = write(invocation, find_key("cache"), str(folder), **_facts(chosen), daemon_caches=runs_with)
    invocation.output.note(_lines(chosen))
    _note_daemon(invocation, settings, runs_with)


def _write_folders(invocation: Invocation, folders: Sequence[Path], chosen: ChosenFolder | None = None) -> None:
    text = ",".join(map(str, folders)) or None
    runs_with = _daemon_caches(invocation.settings)
    facts = _facts(chosen) if chosen else {}
    settings = write(invocation, find_key("read_caches"), text, **facts, daemon_caches=runs_with)
    if chosen is not None:
        invocation.output.note(_lines(chosen))
    _note_daemon(invocation, settings, runs_with)


def _facts(chosen: ChosenFolder) -> dict[str, Any]:
    return {"folder": asdict(chosen), "follows": list(chosen.consequences)}


def _lines(chosen: ChosenFolder) -> list[str]:
    """The lines about a folder: one with what it holds and its volume, then one for each consequence."""
    there = "a new folder" if chosen.is_new else counted(chosen.repos, "repo")
    lines, volume = [there], chosen.volume
    if volume is not None:
        room = f"{human_size(volume.free_bytes)} of {human_size(volume.size_bytes)} free"
        lines = [f"{there}, {room}{f' ({volume.file_system})' if volume.file_system else ''}"]
    if chosen.others:
        is_one = chosen.others == 1
        lines.append(
            f"{counted(chosen.others, 'other thing')} there {'stays as it is' if is_one else 'stay as they are'}."
        )
    return [*lines, *chosen.consequences]


def _daemon_caches(settings: Settings) -> list[str] | None:
    """The cache folders of the daemon that runs, the first before all; None if none answers."""
    import asyncio

    from hfpeer.control.process import find_daemon

    try:
        status = asyncio.run(find_daemon(settings))
    except HfpeerError:
        return None
    return None if status is None else [status.cache, *status.read_caches]


def _note_daemon(invocation: Invocation, settings: Settings, runs_with: list[str] | None) -> None:
    """Prints a note if the daemon that runs has other cache folders than these settings."""
    if runs_with not in (None, [str(settings.cache), *map(str, settings.read_caches)]):
        folders = ", ".join(runs_with or ())
        invocation.output.note(f"The daemon that runs keeps {folders} until `hfpeer daemon restart`.")
