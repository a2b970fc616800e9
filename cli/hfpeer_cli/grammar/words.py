"""Words of the command line that are parsed before any work begins. A malformed word raises InvalidName before anything
was read, written or asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from hfpeer.config.amounts import size_bytes
from hfpeer.errors import InvalidName
from hfpeer.names import FilePath, RepoType, Revision
from hfpeer_cli.grammar.completions import complete_file, complete_peer, complete_revision

if TYPE_CHECKING:
    from hfpeer.config.peer_names import PeerName

Parsed = TypeVar("Parsed")


class Word(click.ParamType, Generic[Parsed]):  # type: ignore[type-arg] # generic itself only since click 8.4
    """A word of the command line that is parsed into a value. The parser raises InvalidName."""

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Parsed],
        complete: Callable[[click.Context, str], list[Any]] | None = None,
    ) -> None:
        self.name = name
        self._parse = parse
        self._complete = complete

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._parse(value) if isinstance(value, str) else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self._complete(ctx, incomplete) if self._complete is not None else []


def parse_size(text: str) -> int:
    """A number of bytes: `4GB`, `700MiB`, `4000000000`. Raises InvalidName."""
    found = size_bytes(text)
    if found is None:
        raise InvalidName(f"{text!r} is not a size.", hint="Write 100MB, 4GiB or 4000000000.", value=text)
    return found


SIZE = Word("size", parse_size)
REVISION = Word("revision", Revision.parse, complete_revision)
FILE = Word("path", FilePath.parse, complete_file)
FOLDER = Word("folder", lambda text: _folder(text), lambda ctx, incomplete: _folders(incomplete))
"""A folder of this machine, which need not exist; variables and ~ are expanded."""
PEER = Word("peer", lambda text: _peer(text), complete_peer)
"""An address, or a DNS name behind which peers are."""
PORT = click.IntRange(1, 65535)


def _peer(text: str) -> PeerName:
    from hfpeer.config.peer_names import parse_peer  # most commands name no peer

    return parse_peer(text)


def _folders(incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def _folder(text: str) -> Path:
    from hfpeer.config.keys import expanded  # most commands name no folder

    return expanded(text).absolute()


type_option = click.option(
    "--type",
    "--repo-type",
    "type_",
    type=click.Choice([kind.value for kind in RepoType]),
    default=RepoType.MODEL.value,
    help="What a REPO without a prefix is.",
)
"""For commands whose REPO may be of any type."""
