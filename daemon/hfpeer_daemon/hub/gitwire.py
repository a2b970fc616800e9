"""Git's lines, read and written: advertisements, commands, what a fetch asks, the sections of its answer. Pure.

Protocol version 2 (gitprotocol-v2), and as much of the older one (gitprotocol-pack) as a clone or fetch without
`multi_ack` needs. dulwich knows what a pkt-line is.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dulwich.errors import GitProtocolError, HangupException
from dulwich.protocol import Protocol, pkt_line

from hfpeer import __version__
from hfpeer.endpoint.git import DEFAULT_BRANCH, Wanted
from hfpeer.errors import InvalidName

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""Unpacked: 600,000 objects wanted at once."""
MAX_DATA_BYTES = 65515
ENDLESS = 0x7FFFFFFF
"""The depth that git asks for when it wants all."""
FLUSH, DELIMITER = b"0000", b"0001"
HEAD = f"refs/heads/{DEFAULT_BRANCH}"
AGENT = f"agent=hfpeer/{__version__}"
CAPABILITIES = ("version 2", AGENT, "ls-refs=unborn", "fetch=shallow filter", "server-option", "object-format=sha1")
OLD_CAPABILITIES = (
    "side-band side-band-64k ofs-delta shallow no-progress filter allow-tip-sha1-in-want allow-reachable-sha1-in-want"
)
_NO_ID = "0" * 40

Channel = Literal[1, 2, 3]


@dataclass(frozen=True)
class Command:
    """A command of protocol version 2."""

    name: str
    arguments: tuple[str, ...]

    def values(self, key: str) -> list[str]:
        """What follows `key` in each argument that starts with it."""
        return [argument[len(key) + 1 :] for argument in self.arguments if argument.startswith(f"{key} ")]

    def wanted(self) -> Wanted:
        """What a `fetch` asks. Raises InvalidName."""
        return Wanted(
            wants=tuple(dict.fromkeys(self.values("want"))),
            haves=frozenset(self.values("have")),
            shallow=frozenset(self.values("shallow")),
            depth=self._depth(),
            filter=next(iter(self.values("filter")), None),
            is_done="done" in self.arguments,
        )

    def _depth(self) -> int | None:
        if "deepen-relative" in self.arguments or self.values("deepen-since") or self.values("deepen-not"):
            return ENDLESS
        return next(map(_number, self.values("deepen")), None)


@dataclass(frozen=True)
class OldFetch:
    """A request of the older protocol. It may end before a word was said of what the client has: then it wants to hear
    of the shallow commits only."""

    wanted: Wanted
    capabilities: frozenset[str]
    has_haves: bool


# Requests


def unpacked(body: bytes, encoding: str | None) -> bytes:
    """A request's body without its Content-Encoding. Raises InvalidName."""
    if encoding not in ("gzip", "x-gzip"):
        return body
    inflating = zlib.decompressobj(31)
    try:
        plain = inflating.decompress(body, MAX_REQUEST_BYTES)
    except zlib.error as error:
        raise InvalidName("The body of this request is no gzip.") from error
    if not inflating.eof:
        raise InvalidName(f"The body of this request may unpack to {MAX_REQUEST_BYTES} bytes at most.")
    return plain


def read_command(body: bytes) -> Command | None:
    """A request of protocol version 2; None for an empty one, by which git finds out who it may be."""
    lines = list(_lines(body))
    head = lines[: lines.index(None)] if None in lines else lines
    name = next((line[8:] for line in head if line is not None and line.startswith("command=")), None)
    if name is None:
        if head:
            raise InvalidName("This is no command of git's protocol version 2.")
        return None
    return Command(name, tuple(line for line in lines[len(head) :] if line is not None))


def read_old_fetch(body: bytes) -> OldFetch | None:
    """A request of the older protocol; None for an empty one. Raises InvalidName."""
    lines = list(_lines(body))
    asked = [line for line in (lines[: lines.index(None)] if None in lines else lines) if line is not None]
    rest = lines[len(asked) + 1 :]
    if not asked:
        return None
    first, *capabilities = asked[0].removeprefix("want ").split(" ")
    command = Command("fetch", (f"want {first}", *asked[1:], *(line for line in rest if line is not None)))
    return OldFetch(command.wanted(), frozenset(capabilities), bool(rest))


def _lines(body: bytes) -> Iterator[str | None]:
    """The lines without their ends; None for what stands between sections."""
    protocol = Protocol(io.BytesIO(body).read, lambda data: None)
    while True:
        try:
            line = protocol.read_pkt_line()
        except HangupException:
            return
        except GitProtocolError as error:
            raise InvalidName("This is no request of git.") from error
        yield None if line is None else line.decode("utf-8", "replace").rstrip("\n")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) == 0:
        raise InvalidName(f"{text[:40]!r} is no depth.")
    return int(text)


# Answers


def line(text: str) -> bytes:
    """One line."""
    return bytes(pkt_line(f"{text}\n".encode()))


def error_line(message: str) -> bytes:
    """What makes git stop and show the message."""
    return bytes(pkt_line(f"ERR {message}".encode()[:1000]))


def advertisement() -> bytes:
    """What protocol version 2 can do here."""
    return b"".join(map(line, CAPABILITIES)) + FLUSH


def old_advertisement(refs: Mapping[str, str], shallow: Iterable[str]) -> bytes:
    """All refs, as the older protocol tells them, and the commits where history begins."""
    shown = {**({"HEAD": refs[HEAD]} if HEAD in refs else {}), **refs}
    head = f"symref=HEAD:{HEAD} " if HEAD in refs else ""
    capabilities = f"\0{OLD_CAPABILITIES} {head}object-format=sha1 {AGENT}"
    lines = [f"{commit} {name}" for name, commit in shown.items()] or [f"{_NO_ID} capabilities^{{}}"]
    lines[0] += capabilities
    lines += [f"shallow {commit}" for commit in shallow]
    return service() + b"".join(map(line, lines)) + FLUSH


def service() -> bytes:
    """How an advertisement of the older protocol begins over HTTP."""
    return line("# service=git-upload-pack") + FLUSH


def ls_refs(refs: Mapping[str, str], asked: Command) -> bytes:
    """The answer to `ls-refs`. No ref has anything to peel: the Hub tells what a tag's commit is."""
    prefixes = tuple(asked.values("ref-prefix"))
    lines = []
    if HEAD in refs:
        lines.append(f"{refs[HEAD]} HEAD" + (f" symref-target:{HEAD}" if "symrefs" in asked.arguments else ""))
    elif "unborn" in asked.arguments:
        lines.append("unborn HEAD" + (f" symref-target:{HEAD}" if "symrefs" in asked.arguments else ""))
    lines += [f"{commit} {name}" for name, commit in refs.items()]
    kept = [text for text in lines if not prefixes or text.split(" ")[1].startswith(prefixes)]
    return b"".join(map(line, kept)) + FLUSH


def acknowledged(common: Collection[str], *, is_ready: bool) -> bytes:
    """The section that says what both have; whether the pack follows."""
    said = [*(f"ACK {commit}" for commit in common)] or ["NAK"]
    lines = ["acknowledgments", *said, *(["ready"] if is_ready else [])]
    return b"".join(map(line, lines)) + (DELIMITER if is_ready else FLUSH)


def shallow_info(shallow: Collection[str]) -> bytes:
    """The section that says where the client's history begins; nothing if nothing changes."""
    if not shallow:
        return b""
    return b"".join(map(line, ["shallow-info", *(f"shallow {commit}" for commit in shallow)])) + DELIMITER


def old_shallow(shallow: Iterable[str]) -> bytes:
    """The same in the older protocol, where it stands before everything else."""
    return b"".join(line(f"shallow {commit}") for commit in shallow) + FLUSH


def framed(data: bytes, channel: Channel = 1, limit: int = MAX_DATA_BYTES) -> bytes:
    """Data of any length on a channel: 1 the pack, 2 words for the user, 3 what went wrong."""
    pieces = (data[start : start + limit] for start in range(0, len(data), limit))
    return b"".join(map(partial(_frame, bytes([channel])), pieces))


def _frame(channel: bytes, piece: bytes) -> bytes:
    return bytes(pkt_line(channel + piece))
