"""Git's lines, read and written: the one place that knows them. Pure.

Speaks protocol version 2 (gitprotocol-v2), and of the older one (gitprotocol-pack) as much as a clone or fetch without
`multi_ack` needs. A request becomes a `GitRequest`; a `FetchResponse` writes the answer in the same version. dulwich
reads and writes single pkt-lines.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from dulwich.errors import GitProtocolError, HangupException
from dulwich.protocol import Protocol, pkt_line

from hfpeer.budgets import MAX_UNPACKED_BYTES
from hfpeer.endpoint.fetch_request import FetchRequest, PackPlan
from hfpeer.endpoint.upload_pack import DEFAULT_BRANCH
from hfpeer.errors import InvalidName
from hfpeer.version import __version__

MAX_DATA_BYTES = 65515
"""Most bytes of data in one pkt-line, with `side-band-64k`."""
SMALL_DATA_BYTES = 995
"""The same with plain `side-band`."""
ENDLESS = 0x7FFFFFFF
"""The depth that git sends for the whole history."""
FLUSH, DELIMITER = b"0000", b"0001"
HEAD = f"refs/heads/{DEFAULT_BRANCH}"
AGENT = f"agent=hfpeer/{__version__}"
CAPABILITIES = ("version 2", AGENT, "ls-refs=unborn", "fetch=shallow filter", "server-option", "object-format=sha1")
OLD_CAPABILITIES = (
    "side-band side-band-64k ofs-delta shallow no-progress filter allow-tip-sha1-in-want allow-reachable-sha1-in-want"
)
_NO_ID = "0" * 40

Channel = Literal[1, 2, 3]
Version = Literal[0, 2]


@dataclass(frozen=True)
class GitRequest:
    """A request of a git client to `git-upload-pack`.

    `command` is `ls-refs` or `fetch`, empty if the client sent nothing, else a command that is not known here.
    `arguments` are its lines. `frame_bytes` is the most data that fits a frame of the answer, None without frames. Only
    a client of the older protocol may send a fetch without `haves_sent`: then it wants the shallow commits and no pack.
    """

    version: Version
    command: str
    arguments: tuple[str, ...] = ()
    fetch: FetchRequest = field(default_factory=FetchRequest)
    frame_bytes: int | None = MAX_DATA_BYTES
    haves_sent: bool = True

    def values(self, key: str) -> list[str]:
        """The rest of each argument that starts with `key`."""
        return _values(self.arguments, key)


# Requests


def protocol_version(header: str | None) -> Version:
    """The version that a `Git-Protocol` header asks for. Version 1 is answered as version 0."""
    return 2 if "version=2" in (header or "").split(":") else 0


def unpacked(body: bytes, encoding: str | None, most_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """A request's body without its Content-Encoding. Raises InvalidName if it is no gzip or has more bytes."""
    if encoding not in ("gzip", "x-gzip"):
        return body
    inflating = zlib.decompressobj(31)
    try:
        plain = inflating.decompress(body, most_bytes)
    except zlib.error as error:
        raise InvalidName("The body of this request is no gzip.") from error
    if not inflating.eof:
        raise InvalidName(f"The body of this request may unpack to {most_bytes} bytes at most.")
    return plain


def read_request(body: bytes, version: Version) -> GitRequest:
    """The request in a body. Raises InvalidName."""
    lines = list(_lines(body))
    head = lines[: lines.index(None)] if None in lines else lines
    first = [line for line in head if line is not None]
    rest = [line for line in lines[len(head) :] if line is not None]
    if not first:
        return GitRequest(version, "")
    return _read_command(first, rest) if version == 2 else _read_old_fetch(first, rest)


def _read_command(head: list[str], arguments: list[str]) -> GitRequest:
    command = next((line[8:] for line in head if line.startswith("command=")), None)
    if command is None:
        raise InvalidName("This is no command of git's protocol version 2.")
    fetch = _fetch(arguments) if command == "fetch" else FetchRequest()
    return GitRequest(2, command, tuple(arguments), fetch)


def _read_old_fetch(wants: list[str], haves: list[str]) -> GitRequest:
    first, *capabilities = wants[0].removeprefix("want ").split(" ")
    arguments = [f"want {first}", *wants[1:], *haves]
    frame_bytes = SMALL_DATA_BYTES if "side-band" in capabilities else None
    return GitRequest(
        0,
        "fetch",
        tuple(arguments),
        _fetch(arguments),
        frame_bytes=MAX_DATA_BYTES if "side-band-64k" in capabilities else frame_bytes,
        haves_sent=bool(haves),
    )


def _fetch(arguments: Collection[str]) -> FetchRequest:
    """Raises InvalidName."""
    return FetchRequest(
        wants=tuple(dict.fromkeys(_values(arguments, "want"))),
        haves=frozenset(_values(arguments, "have")),
        shallow=frozenset(_values(arguments, "shallow")),
        depth=_depth(arguments),
        filter=next(iter(_values(arguments, "filter")), None),
        is_done="done" in arguments,
    )


def _depth(arguments: Collection[str]) -> int | None:
    # Relative depths and dates are not resolved here: the client is given the whole history.
    if "deepen-relative" in arguments or _values(arguments, "deepen-since") or _values(arguments, "deepen-not"):
        return ENDLESS
    return next(map(_number, _values(arguments, "deepen")), None)


def _values(arguments: Iterable[str], key: str) -> list[str]:
    return [argument[len(key) + 1 :] for argument in arguments if argument.startswith(f"{key} ")]


def _lines(body: bytes) -> Iterator[str | None]:
    """The lines without their ends; None between sections."""
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


# Responses


def line(text: str) -> bytes:
    """One line."""
    return bytes(pkt_line(f"{text}\n".encode()))


def error_line(message: str) -> bytes:
    """The line that makes git stop and show the message."""
    return bytes(pkt_line(f"ERR {message}".encode()[:1000]))


def advertisement() -> bytes:
    """The capabilities of protocol version 2."""
    return b"".join(map(line, CAPABILITIES)) + FLUSH


def old_advertisement(refs: Mapping[str, str], shallow: Iterable[str]) -> bytes:
    """All refs, in the older protocol, and the commits at which the history begins."""
    shown = {**({"HEAD": refs[HEAD]} if HEAD in refs else {}), **refs}
    head = f"symref=HEAD:{HEAD} " if HEAD in refs else ""
    capabilities = f"\0{OLD_CAPABILITIES} {head}object-format=sha1 {AGENT}"
    lines = [f"{commit} {name}" for name, commit in shown.items()] or [f"{_NO_ID} capabilities^{{}}"]
    lines[0] += capabilities
    lines += [f"shallow {commit}" for commit in shallow]
    return service() + b"".join(map(line, lines)) + FLUSH


def service() -> bytes:
    """The start of an advertisement of the older protocol over HTTP."""
    return line("# service=git-upload-pack") + FLUSH


def ls_refs(refs: Mapping[str, str], request: GitRequest) -> bytes:
    """The response to `ls-refs`. No ref has a peeled id: the Hub lists the commit of a tag."""
    prefixes = tuple(request.values("ref-prefix"))
    target = f" symref-target:{HEAD}" if "symrefs" in request.arguments else ""
    lines = []
    if HEAD in refs:
        lines.append(f"{refs[HEAD]} HEAD{target}")
    elif "unborn" in request.arguments:
        lines.append(f"unborn HEAD{target}")
    lines += [f"{commit} {name}" for name, commit in refs.items()]
    wanted = [text for text in lines if not prefixes or text.split(" ")[1].startswith(prefixes)]
    return b"".join(map(line, wanted)) + FLUSH


@dataclass(frozen=True)
class FetchResponse:
    """Writes the response to a fetch: `head`, then the pack as `data`, then `end`. In its place `without_pack`, where
    the client expects no pack yet."""

    request: GitRequest
    plan: PackPlan

    @property
    def without_pack(self) -> bytes | None:
        """The whole response if no pack is in it; None if the pack follows."""
        fetch = self.request.fetch
        if self.request.version == 2:
            waits = bool(fetch.haves) and not fetch.is_done and not self.plan.is_all
            return acknowledged(self.plan.common, is_ready=False) if waits else None
        if not self.request.haves_sent:
            return self._old_shallow
        return None if fetch.is_done else self._old_shallow + line("NAK")

    @property
    def head(self) -> bytes:
        """The part before the pack."""
        fetch, common = self.request.fetch, self.plan.common
        if self.request.version == 2:
            is_ready = bool(fetch.haves) and not fetch.is_done
            acks = acknowledged(common, is_ready=True) if is_ready else b""
            return acks + shallow_info(self.plan.shallow) + line("packfile")
        return self._old_shallow + line(f"ACK {common[-1]}" if common else "NAK")

    def data(self, piece: bytes) -> bytes:
        """A piece of the pack."""
        limit = self.request.frame_bytes
        return piece if limit is None else framed(piece, 1, limit)

    def message(self, text: str, channel: Channel) -> bytes:
        """A message for the user on channel 2, or an error on channel 3. Empty if the client takes no frames."""
        limit = self.request.frame_bytes
        return b"" if limit is None else framed(text.encode(), channel, limit)

    @property
    def end(self) -> bytes:
        """The part after the pack."""
        return b"" if self.request.frame_bytes is None else FLUSH

    @property
    def _old_shallow(self) -> bytes:
        if self.request.fetch.depth is None:
            return b""
        return b"".join(line(f"shallow {commit}") for commit in self.plan.shallow) + FLUSH


def acknowledged(common: Collection[str], *, is_ready: bool) -> bytes:
    """The section that lists the common commits. With `is_ready` the pack follows."""
    acks = [*(f"ACK {commit}" for commit in common)] or ["NAK"]
    lines = ["acknowledgments", *acks, *(["ready"] if is_ready else [])]
    return b"".join(map(line, lines)) + (DELIMITER if is_ready else FLUSH)


def shallow_info(shallow: Collection[str]) -> bytes:
    """The section that says where the client's history begins; empty if nothing changes."""
    if not shallow:
        return b""
    return b"".join(map(line, ["shallow-info", *(f"shallow {commit}" for commit in shallow)])) + DELIMITER


def framed(data: bytes, channel: Channel = 1, limit: int = MAX_DATA_BYTES) -> bytes:
    """Data of any length on a channel: 1 the pack, 2 messages for the user, 3 an error."""
    pieces = (data[start : start + limit] for start in range(0, len(data), limit))
    return b"".join(map(partial(_frame, bytes([channel])), pieces))


def _frame(channel: bytes, piece: bytes) -> bytes:
    return bytes(pkt_line(channel + piece))
