"""Matches patterns against untrusted names without backtracking: fnmatch's for `--include`, and those of
`.gitattributes`.

A pattern is cut at its stars. Each part between two stars has a fixed length, so the leftmost place where it fits is
the best one, and one search finds it. The time grows with the length of the pattern times the length of the name, never
faster. Pure.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import AnyStr, Generic

_POSIX = {
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": b"\t ",
    b"cntrl": b"\0-\x1f\x7f",
    b"digit": b"0-9",
    b"graph": b"!-~",
    b"lower": b"a-z",
    b"print": b" -~",
    b"punct": b"!-/:-@[-`{-~",
    b"space": b"\t\n\r ",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}
"""Git's character classes, the same in every locale."""
_STAR, _BACKSLASH, _OPEN, _CLOSE, _DASH, _SLASH, _MARK = b"*\\[]-/?"


class FileGlob:
    """A pattern of `fnmatch.fnmatchcase` over whole paths: `*` crosses `/`."""

    def __init__(self, pattern: str) -> None:
        pieces = _fnmatch_pieces(pattern)
        self._pieces = _Pieces([(re.compile(_unanchored(piece)), length) for piece, length in pieces])

    def matches(self, path: str) -> bool:
        return self._pieces.match(path)


class GitPattern:
    """A pattern of a `.gitattributes` file, over paths relative to the folder of that file.

    Source: git's `dir.c` (match_basename, match_pathname) and `wildmatch.c`.
    """

    def __init__(self, pattern: bytes) -> None:
        self._is_basename = b"/" not in pattern
        self._prefix = b"" if self._is_basename else _literal_prefix(pattern.removeprefix(b"/"))
        self._runs: list[list[_Pieces[bytes]]] | None = None
        """Patterns of path components, cut at each `**`; None for a pattern that matches no file."""
        self._name: _Pieces[bytes] | None = None
        """The pattern of a file name, if the pattern is nothing more."""
        if pattern.endswith(b"/") or not pattern:
            return
        try:
            runs = [list(run) for run in _runs(pattern.removeprefix(b"/").removeprefix(self._prefix))]
        except _Malformed:
            return
        self._runs = runs
        if self._is_basename and len(runs) == len(runs[0]) == 1:
            self._name = runs[0][0]

    def matches(self, path: bytes) -> bool:
        if self._name is not None:  # nearly all patterns are such, and each is tried for each file
            return self._name.match(path[path.rfind(b"/") + 1 :])
        if self._runs is None or not path.startswith(self._prefix):
            return False
        path = path[len(self._prefix) :]
        parts = [path.rpartition(b"/")[2]] if self._is_basename else path.split(b"/")
        return _match_runs(self._runs, parts)


class _Pieces(Generic[AnyStr]):
    """The parts between stars, each as a regular expression without repetition, and its length."""

    def __init__(self, pieces: Sequence[tuple[re.Pattern[AnyStr], int]]) -> None:
        self._first: tuple[re.Pattern[AnyStr], int] = pieces[0]
        self._others: Sequence[tuple[re.Pattern[AnyStr], int]] = pieces[1:]
        self._least = sum(length for _, length in pieces)

    def match(self, text: AnyStr) -> bool:
        if len(text) < self._least:
            return False
        first, length = self._first
        if not self._others:
            return length == len(text) and first.match(text) is not None
        if first.match(text) is None:
            return False
        *middle, (last, last_length) = self._others
        end, place = len(text) - last_length, length
        for piece, _ in middle:
            found: re.Match[AnyStr] | None = piece.search(text, place, end)  # type: ignore[call-overload]
            if found is None:
                return False
            place = found.end()
        return place <= end and last.match(text, end) is not None


def _unanchored(piece: str) -> str:
    """fnmatch's own translation without the anchor, its last two characters."""
    return fnmatch.translate(piece)[:-2]


def _fnmatch_pieces(pattern: str) -> list[tuple[str, int]]:
    pieces, start, length, at = [], 0, 0, 0
    while at < len(pattern):
        if pattern[at] == "*":
            pieces.append((pattern[start:at], length))
            start, length = at + 1, -1
        elif pattern[at] == "[":
            # A `]` right after the `[` is a member of the set. A `[` that is never closed stands for itself.
            first = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
            end = pattern.find("]", first + 1)
            at = at if end < 0 else end
        length, at = length + 1, at + 1
    return [*pieces, (pattern[start:], length)]


def _match_runs(runs: Sequence[Sequence[_Pieces[bytes]]], parts: Sequence[bytes]) -> bool:
    """`_Pieces.match` one level up: each run between two `**` has a fixed number of components."""

    def fits(run: Sequence[_Pieces[bytes]], place: int) -> bool:
        return all(each.match(part) for each, part in zip(run, parts[place : place + len(run)], strict=True))

    first, *others = runs
    if len(parts) < sum(map(len, runs)) or (not others and len(parts) != len(first)) or not fits(first, 0):
        return False
    if not others:
        return True
    *middle, last = others
    end, place = len(parts) - len(last), len(first)
    for run in middle:
        place = next((at for at in range(place, end - len(run) + 1) if fits(run, at)), len(parts)) + len(run)
    return place <= end and fits(last, end)


def _literal_prefix(pattern: bytes) -> bytes:
    """What stands before a `**` within a name: `a` of `a**/b`.

    Git compares the part without wildcards by itself and gives wildmatch the rest, which then begins with `**`
    (match_pathname in `dir.c`). So `a**/b` matches `a/x/b` too, while the `**` of `[a]**/b` is no more than `*`.
    """
    found = re.match(rb"([^*?\[\\]*[^*?\[\\/])\*\*+(/|$)", pattern)
    return found[1] if found else b""


class _Malformed(ValueError):
    """A pattern that git's wildmatch rejects: it matches nothing."""


_ANY_NAME = _Pieces([(re.compile(b""), 0), (re.compile(b""), 0)])


def _runs(pattern: bytes) -> Iterator[list[_Pieces[bytes]]]:
    """The components of a pattern, cut at each `**`. Raises _Malformed."""
    components = list(_components(pattern))
    run: list[_Pieces[bytes]] = []
    for number, component in enumerate(components):
        if component is None:
            yield run
            # At the end, `**` matches everything inside the folder, but not the folder itself.
            run = [_ANY_NAME] if number == len(components) - 1 else []
        else:
            run.append(component)
    yield run


def _components(pattern: bytes) -> Iterator[_Pieces[bytes] | None]:
    """The pieces of each component; None for `**`. A slash within brackets separates nothing."""
    pieces: list[tuple[bytes, int]] = []
    piece, length, at, start = b"", 0, 0, 0
    while at <= len(pattern):
        byte = pattern[at] if at < len(pattern) else _SLASH
        if byte == _SLASH:
            part = pattern[start:at]
            is_deep = len(part) > 1 and not part.strip(b"*")
            yield None if is_deep else _Pieces([(re.compile(p, re.DOTALL), n) for p, n in [*pieces, (piece, length)]])
            pieces, piece, length, start = [], b"", 0, at + 1
        elif byte == _STAR:
            pieces.append((piece, length))
            piece, length = b"", 0
        elif byte == _OPEN:
            members, at = _bracket(pattern, at + 1)
            piece, length = piece + members, length + 1
        elif byte == _MARK:
            piece, length = piece + b"[^/]", length + 1
        else:
            if byte == _BACKSLASH:
                at += 1
                if at == len(pattern):
                    raise _Malformed(pattern)
            piece, length = piece + re.escape(pattern[at : at + 1]), length + 1
        at += 1


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The set that begins at `at`, right after its `[`, as a regular expression, and the position of its `]`."""
    is_negated = pattern[at : at + 1] in (b"!", b"^")
    at += is_negated
    members: set[int] = set()
    before: int | None = None
    is_first = True
    while is_first or pattern[at : at + 1] != b"]":
        is_first = False
        byte = _at(pattern, at)
        if byte == _DASH and before is not None and pattern[at + 1 : at + 2] not in (b"", b"]"):
            at += 2 if pattern[at + 1] == _BACKSLASH else 1
            members |= set(range(before, _at(pattern, at) + 1))
            before = None
        elif byte == _OPEN and pattern[at + 1 : at + 2] == b":" and (named := _named(pattern, at)) is not None:
            members |= named[0]
            before, at = None, named[1]
        else:
            at += byte == _BACKSLASH
            before = _at(pattern, at)
            members.add(before)
        at += 1
    found = (set(range(256)) - members if is_negated else members) - {_SLASH}
    return b"[%b]" % b"".join(b"\\x%02x" % byte for byte in sorted(found)) if found else b"(?!)", at


def _named(pattern: bytes, at: int) -> tuple[set[int], int] | None:
    """The members of `[:name:]` and the position of its last `]`; None for anything else. Raises _Malformed."""
    end = pattern.find(b"]", at + 2)
    if end < 0:
        raise _Malformed(pattern)
    if end == at + 2 or pattern[end - 1 : end] != b":":
        return None
    spelled = _POSIX.get(pattern[at + 2 : end - 1])
    if spelled is None:
        raise _Malformed(pattern)
    return set(_spelled_out(spelled)), end


def _spelled_out(ranges: bytes) -> Iterable[int]:
    at = 0
    while at < len(ranges):
        is_range = ranges[at + 1 : at + 2] == b"-" and at + 2 < len(ranges)
        yield from range(ranges[at], ranges[at + 2] + 1) if is_range else (ranges[at],)
        at += 3 if is_range else 1


def _at(pattern: bytes, at: int) -> int:
    if at >= len(pattern):
        raise _Malformed(pattern)
    return pattern[at]
