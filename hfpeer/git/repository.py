"""Reads a repository of git on this disk: its commit, the files of it, and small objects. It writes nothing.

Another user may have made it, so it is read within bounds: no object is unpacked to more than the caller allows, no
chain of deltas is followed for ever, and nothing of its configuration is obeyed. Objects are trusted for nothing: the
caller proves what it makes of them. Source: gitrepository-layout, gitformat-pack.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from dulwich.errors import ObjectFormatException

from hfpeer.budgets import MAX_COMMIT_BYTES, MAX_DELTA_DEPTH, MAX_TREE_BYTES, MAX_UNPACKED_CLONE_BYTES
from hfpeer.errors import ForgedManifest, InvalidName
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer, pointer_text
from hfpeer.git.proof import is_file_name, path_from_git, prove
from hfpeer.git.trees import BrokenTree, leaves
from hfpeer.git.varint import read_varint
from hfpeer.manifest import FILE_MODES, Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.system.cancellation import check_stop

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Bytes of a text of git that are read: a ref, the packed refs, the configuration."""
_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA, _REF_DELTA = 6, 7
_HEADER_BYTES = 4096
"""Bytes that are unpacked of an object to know its kind and size."""
_NAMES = 8 + 4 * 256
"""Where the ids of objects begin in the index of a pack."""
_ID = re.compile(r"[0-9a-f]{40}")
_SECTION = re.compile(r'\s*\[\s*remote\s+"([^"\n]*)"\s*\]')
_URL = re.compile(r"\s*url\s*=\s*(\S+)")
_BROKEN = (ObjectFormatException, zlib.error, OSError, AssertionError, LookupError, ValueError)
"""Raised while reading bytes that are no valid repository."""


class NoRepository(Exception):
    """There is no repository, or it cannot be read. The text says why."""


class _Packed(NamedTuple):
    """An object in a pack: its kind, the size that its own stream unpacks to, where that begins, and its base."""

    kind: int
    size: int
    start: int
    base: int | str | None


class Repository:
    """The repository of a clone, or a bare one. A context manager, for one thread."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the clone. Raises NoRepository."""
        self._packs: list[tuple[mmap.mmap, mmap.mmap]] = []
        self._left_bytes = MAX_UNPACKED_CLONE_BYTES
        self._git = _git_folder(folder)
        self._common = _common_folder(self._git)
        self._stores = list(_object_stores(self._common / "objects"))
        try:
            for store in self._stores:
                self._open_packs(store / "pack")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes its packs."""
        for index, data in self._packs:
            data.close()
            index.close()
        self._packs.clear()

    def _open_packs(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.idx")):
            with contextlib.suppress(*_BROKEN):
                index = _mapped(path)
                try:
                    self._packs.append((index, _mapped(path.with_suffix(".pack"))))
                except BaseException:
                    index.close()
                    raise

    # Names

    def head(self) -> Commit:
        """The commit that is checked out. Raises NoRepository."""
        text = _text(self._git / "HEAD").strip()
        for _ in range(8):  # a ref may name a ref
            if not text.startswith("ref:"):
                break
            name = text.removeprefix("ref:").strip()
            text = self._ref(name)
        try:
            return Commit.parse(text)
        except InvalidName as error:
            raise NoRepository("it has no commit checked out") from error

    def _ref(self, name: str) -> str:
        if not name.startswith("refs/") or ".." in name or "\0" in name:
            return ""
        for folder in (self._git, self._common):
            with contextlib.suppress(NoRepository):
                return _text(folder / name).strip()
        return next((id for packed, id in self._packed_refs() if packed == name), "")

    def _packed_refs(self) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(NoRepository):
            for line in _text(self._common / "packed-refs").splitlines():
                id, _, name = line.partition(" ")
                if _ID.fullmatch(id):
                    yield name, id

    def told(self, commit: Commit) -> Iterator[tuple[str, float]]:
        """The branches that a remote had at this commit when it was last asked, and the time of that in seconds since
        the epoch."""
        found: dict[str, float] = {}
        packed = self._common / "packed-refs"
        for name, id in self._packed_refs():
            if id == commit and name.startswith("refs/remotes/"):
                found[name] = _mtime(packed)
        top = self._common / "refs" / "remotes"
        for path in sorted(top.rglob("*")):
            with contextlib.suppress(NoRepository):
                if path.is_file() and _text(path).strip() == commit:
                    found[str(path.relative_to(self._common))] = _mtime(path)
        for name, at in found.items():
            branch = name.removeprefix("refs/remotes/").partition("/")[2]
            if branch and branch != "HEAD":
                yield branch, at

    def remote_urls(self) -> list[str]:
        """The URLs of the remotes, that of `origin` first. They may hold a password: never show them."""
        found: list[tuple[bool, str]] = []
        section = None
        with contextlib.suppress(NoRepository):
            for line in _text(self._common / "config").splitlines():
                head = _SECTION.match(line)
                if line.lstrip().startswith("["):
                    section = head[1] if head is not None else None
                url = _URL.match(line)
                if section is not None and url is not None:
                    found.append((section != "origin", url[1]))
        return [url for _, url in sorted(found, key=lambda one: one[0])]

    # Files

    def manifest(self, repo: RepoId, commit: Commit) -> Manifest:
        """The proved manifest of a commit. Raises NoRepository if objects are missing, malformed, or beyond a bound."""
        raw = self.read(commit, "commit", MAX_COMMIT_BYTES)
        if raw is None or not raw.startswith(b"tree "):
            raise NoRepository(f"it has no commit {commit.short}")
        files: list[ManifestFile] = []
        opaque: list[OpaqueEntry] = []
        try:
            for entry in leaves(lambda id: self.read(id, "tree", MAX_TREE_BYTES), raw[5:45].decode("ascii")):
                path = path_from_git(entry.path)
                if entry.mode in FILE_MODES and is_file_name(path):
                    files.append(self._file(FilePath(path), entry.mode, entry.object_id))
                else:
                    opaque.append(OpaqueEntry(path, entry.mode, entry.object_id))
            files.sort(key=lambda file: file.path)
            manifest = Manifest(repo, commit, tuple(files), tuple(opaque), raw)
            prove(manifest)
        except (BrokenTree, ForgedManifest, *_BROKEN) as error:
            raise NoRepository(f"its commit {commit.short} cannot be read: {str(error)[:200]}") from error
        return manifest

    def _file(self, path: FilePath, mode: str, id: str) -> ManifestFile:
        """A file by the id of its blob, which is that of an LFS pointer for an LFS file."""
        size_bytes = self.size(id)
        if size_bytes is None:
            raise NoRepository(f"it lacks the content of {str(path)[:200]!r}")
        text = self.read(id, "blob", MAX_POINTER_BYTES) if size_bytes <= MAX_POINTER_BYTES else None
        pointer = parse_pointer(text) if text is not None and mode != "120000" else None
        if text is None or pointer is None:
            return ManifestFile(path, size_bytes, Digest("git-sha1", id), mode)
        digest, lfs_bytes = pointer
        odd = None if text == pointer_text(digest.hex, lfs_bytes) else text
        return ManifestFile(path, lfs_bytes, digest, mode, id, odd)

    # Objects

    def read(self, id: str, kind: str, max_bytes: int) -> bytes | None:
        """The body of an object of this kind; None if there is none, or if it has more than `max_bytes`."""
        with contextlib.suppress(*_BROKEN):
            body = self._read_loose(id, kind, max_bytes)
            return self._read_packed(id, kind, max_bytes) if body is None else body
        return None

    def size(self, id: str) -> int | None:
        """The bytes of an object, without unpacking it; None if there is none."""
        with contextlib.suppress(*_BROKEN):
            for store in self._stores:
                with contextlib.suppress(FileNotFoundError):
                    return _loose_head(_inflated(_open(store / id[:2] / id[2:]), _HEADER_BYTES))[1]
            found = self._find(id)
            if found is not None:
                data, offset = found
                entry = _entry(data, offset)
                if entry.base is None:
                    return entry.size
                head = _inflate(data, entry.start, entry.size, 32)
                return read_varint(head, read_varint(head, 0)[1])[0]
        return None

    def _read_loose(self, id: str, kind: str, max_bytes: int) -> bytes | None:
        for store in self._stores:
            with contextlib.suppress(FileNotFoundError):
                text = _inflated(_open(store / id[:2] / id[2:]), max_bytes + 64)
                found, size_bytes, start = _loose_head(text)
                return text[start:] if found == kind and len(text) - start == size_bytes <= max_bytes else None
        return None

    def _read_packed(self, id: str, kind: str, max_bytes: int) -> bytes | None:
        found = self._find(id)
        if found is None:
            return None
        data, offset = found
        deltas: list[bytes] = []
        entry = _entry(data, offset)
        while entry.base is not None:
            if len(deltas) >= MAX_DELTA_DEPTH or entry.size > max_bytes:
                return None
            self._spend(entry.size)
            deltas.append(_inflate(data, entry.start, entry.size, entry.size))
            if isinstance(entry.base, str):
                there = self._find(entry.base)
                if there is None:
                    return None
                data, offset = there
            else:
                offset = entry.base
            entry = _entry(data, offset)
        if _KINDS.get(entry.kind) != kind or entry.size > max_bytes:
            return None
        self._spend(entry.size)
        body = _inflate(data, entry.start, entry.size, entry.size)
        for delta in reversed(deltas):
            body = _apply(body, delta, max_bytes)
            self._spend(len(body))
        return body

    def _spend(self, size_bytes: int) -> None:
        """Counts bytes that are unpacked. A step costs at least as many as a header has."""
        check_stop()
        self._left_bytes -= max(size_bytes, _HEADER_BYTES)
        if self._left_bytes < 0:
            raise NoRepository(f"its objects take more than {MAX_UNPACKED_CLONE_BYTES} bytes")

    def _find(self, id: str) -> tuple[mmap.mmap, int] | None:
        wanted = bytes.fromhex(id)
        for index, data in self._packs:
            offset = _offset_of(index, wanted)
            if offset is not None:
                return data, offset
        return None


def _git_folder(folder: Path) -> Path:
    """The folder in which git keeps what belongs to one work tree. A work tree of many has a file that names it."""
    place = folder / ".git"
    if place.is_file():
        place = folder / _text(place).strip().removeprefix("gitdir:").strip()
    elif not place.is_dir():
        place = folder
    if not (place / "HEAD").is_file():
        raise NoRepository("it is no clone of git")
    return place


def _common_folder(git: Path) -> Path:
    """The folder with the objects, which several work trees share."""
    try:
        return git / _text(git / "commondir").strip()
    except NoRepository:
        return git


def _object_stores(objects: Path) -> Iterator[Path]:
    """The folders of objects: the clone's own, and those that it borrows from."""
    yield objects
    with contextlib.suppress(NoRepository):
        for line in _text(objects / "info" / "alternates").splitlines()[:4]:
            if line and not line.startswith("#") and "\0" not in line:
                yield objects / line


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _text(path: Path) -> str:
    """A text of git. Raises NoRepository if there is none, or if it is too long."""
    try:
        with open(_open(path), "rb") as file:
            text = file.read(MAX_TEXT_BYTES + 1)
    except (OSError, ValueError) as error:
        raise NoRepository(f"{path.name} cannot be read") from error
    if len(text) > MAX_TEXT_BYTES:
        raise NoRepository(f"{path.name} has more than {MAX_TEXT_BYTES} bytes")
    return text.decode("utf-8", "replace")


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _mapped(path: Path) -> mmap.mmap:
    fd = _open(path)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def _offset_of(index: mmap.mmap, id: bytes) -> int | None:
    """Where an object begins in a pack, by its index of version 2. Source: gitformat-pack."""
    if index[:8] != b"\377tOc\0\0\0\2":
        return None
    start, stop = _entry_number(index, id[0] - 1) if id[0] else 0, _entry_number(index, id[0])
    count = _entry_number(index, 255)
    while start < stop:
        middle = (start + stop) // 2
        found = index[_NAMES + 20 * middle : _NAMES + 20 * middle + 20]
        if found == id:
            at = _NAMES + 24 * count + 4 * middle
            offset = int.from_bytes(index[at : at + 4], "big")
            if offset < 1 << 31:
                return offset
            at = _NAMES + 28 * count + 8 * (offset & ~(1 << 31))
            return int.from_bytes(index[at : at + 8], "big")
        start, stop = (middle + 1, stop) if found < id else (start, middle)
    return None


def _entry_number(index: mmap.mmap, first_byte: int) -> int:
    """The number of objects whose ids begin with this byte or a smaller one."""
    return int.from_bytes(index[8 + 4 * first_byte : 12 + 4 * first_byte], "big")


def _inflated(fd: int, max_bytes: int) -> bytes:
    """The first bytes that a file unpacks to. Closes it."""
    inflater = zlib.decompressobj()
    text = bytearray()
    with open(fd, "rb", buffering=0) as file:
        while len(text) < max_bytes and not inflater.eof:
            chunk = file.read(64 * 1024)
            if not chunk:
                break
            text += inflater.decompress(chunk, max_bytes - len(text))
    return bytes(text)


def _loose_head(text: bytes) -> tuple[str, int, int]:
    """Kind and size of a loose object, and where its body begins."""
    head, end, _ = text[:64].partition(b"\0")
    kind, _, size = head.partition(b" ")
    if not end:
        raise ValueError("an object without a header")
    return kind.decode("ascii"), int(size), len(head) + 1


def _entry(data: mmap.mmap, offset: int) -> _Packed:
    """The header of an object in a pack."""
    if not 0 < offset < len(data):
        raise ValueError("an object outside of its pack")
    kind = data[offset] >> 4 & 7
    size, start = read_varint(data, offset, first_bits=4)
    if kind == _REF_DELTA:
        return _Packed(kind, size, start + 20, data[start : start + 20].hex())
    if kind == _OFFSET_DELTA:
        back, start = _distance(data, start)
        if not 0 < back <= offset:
            raise ValueError("a base outside of its pack")
        return _Packed(kind, size, start, offset - back)
    return _Packed(kind, size, start, None)


def _distance(buffer: mmap.mmap, offset: int) -> tuple[int, int]:
    """How far before a delta its base begins, and the offset after the number."""
    value = -1
    for at in range(offset, offset + 10):
        byte = buffer[at]
        value = (value + 1) << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + 1
    raise ValueError("a distance has no end")


def _inflate(data: mmap.mmap, start: int, size: int, max_bytes: int) -> bytes:
    """The first `max_bytes` of a stream in a pack, or all `size` of it. Raises ValueError if it has another size."""
    inflater = zlib.decompressobj()
    text = bytearray()
    while len(text) < max_bytes and not inflater.eof and start < len(data):
        window = data[start : start + 64 * 1024]
        start += len(window)
        text += inflater.decompress(window, max_bytes - len(text))
        while inflater.unconsumed_tail and len(text) < max_bytes:
            text += inflater.decompress(inflater.unconsumed_tail, max_bytes - len(text))
    if len(text) != min(size, max_bytes):
        raise ValueError("an object has another size than it says")
    return bytes(text)


def _apply(base: bytes, delta: bytes, max_bytes: int) -> bytes:
    """The object that a delta makes of its base. Raises ValueError for a delta of another base, and one that makes too
    much."""
    base_bytes, at = read_varint(delta, 0)
    size_bytes, at = read_varint(delta, at)
    if base_bytes != len(base) or size_bytes > max_bytes:
        raise ValueError("a delta of another base, or too large a result")
    made = bytearray()
    while at < len(delta):
        code = delta[at]
        at += 1
        if code & 0x80:
            start = count = 0
            for bit in range(7):
                if code & 1 << bit:
                    byte, at = delta[at], at + 1
                    if bit < 4:
                        start |= byte << 8 * bit
                    else:
                        count |= byte << 8 * (bit - 4)
            made += base[start : start + (count or 0x10000)]
        elif code:
            made += delta[at : at + code]
            at += code
        else:
            raise ValueError("a delta with an unknown instruction")
        if len(made) > size_bytes:
            raise ValueError("a delta makes more than it says")
    if len(made) != size_bytes:
        raise ValueError("a delta makes less than it says")
    return bytes(made)
