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

if TYPE_CHECKING:
    from hfpeer.config.peer_names import PeerName

Parsed = TypeVar("Parsed")


class Word(click.ParamType, Generic[Parsed]):  # type: ignore[type-arg] # generic itself only since click 8.4
    """A word of the command line that is parsed into a value. The parser raises InvalidName."""

    def __init__(self, name: str, parse: Callable[[str], Parsed]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._parse(value) if isinstance(value, str) else value


def parse_size(text: str) -> int:
    """A number of bytes: `4GB`, `700MiB`, `4000000000`. Raises InvalidName."""
    found = size_bytes(text)
    if found is None:
        raise InvalidName(f"{text!r} is not a size.", hint="Write 100MB, 4GiB or 4000000000.", value=text)
    return found


SIZE = Word("size", parse_size)
REVISION = Word("revision", Revision.parse)
FILE = Word("path", FilePath.parse)
FOLDER = Word("folder", lambda text: _folder(text))
"""A folder of this machine, which need not exist; variables and ~ are expanded."""
PEER = Word("peer", lambda text: _peer(text))
"""An address, or a DNS name behind which peers are."""
PORT = click.IntRange(1, 65535)


def _peer(text: str) -> PeerName:
    from hfpeer.config.peer_names import parse_peer  # most commands name no peer

    return parse_peer(text)


def _folder(text: str) -> Path:
    from hfpeer.config.keys import expanded  # most commands name no folder

    return expanded(text).absolute()


type_option = click.option(
    "--type",
    "type_",
    type=click.Choice([kind.value for kind in RepoType]),
    default=RepoType.MODEL.value,
    help="What a REPO without a prefix is.",
)
"""For commands whose REPO may be of any type."""
