"""The bytes of an archive: its parts as files, or a stream. Reads and writes by the offset in the whole archive.

A volume that holds no file of the archive's size gets parts without being asked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from hfpeer.cache.disk.mounts import mount_of
from hfpeer.cache.disk.os_errors import free_bytes, storage_error, translated
from hfpeer.cache.disk.volume import max_file_bytes, refuse_unfit
from hfpeer.errors import BadArchive, InvalidName, NoSpace, NotThisVolume
from hfpeer.system.cancellation import check_stop

CHUNK_BYTES = 1024 * 1024
"""Bytes read or written at a time."""
SMALL_BYTES = 1024 * 1024
"""Blobs of at most this size go through memory: nothing is kept of a part of one."""
SYNC_BYTES = 64 * 1024 * 1024
"""Bytes written between two syncs. After a power cut the last of them may be wrong, so a resumed export writes these
again."""
PART_SIZES = 4_000_000_000, 2_000_000_000
"""Bytes of a part where nobody said so, the largest first: FAT holds files below 4 GiB, some servers below 2 GiB."""
MAX_NAMED = 4
"""At most this many parts are named for one blob."""
INCOMPLETE = ".incomplete"
"""The end of the name of a part until it is whole."""
_NUMBERED = re.compile(r"(.+)\.(\d{3,6})")


class Missing(Exception):
    """The archive has no bytes at an offset: it was cut short, or a part is not there."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


class ArchiveBytes(Protocol):
    """An archive to read. `name` is for people."""

    name: str
    is_stream: bool
    """Whether bytes can be read once only, in order."""
    end: int | None
    """The offset behind the last byte that can be read; None while that is not known."""

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of `[start, stop)`. Raises Missing at the first that is not there, and BrokenCache."""
        ...

    def part_at(self, offset: int) -> str:
        """The name of the part that should have the byte at an offset."""
        ...

    def parts_of(self, start: int, stop: int) -> str:
        """The names of the parts that should have these bytes, in one text."""
        ...


def read(data: ArchiveBytes, start: int, size_bytes: int) -> bytes:
    """These bytes, in memory. Raises Missing, BrokenCache."""
    return b"".join(data.chunks(start, start + size_bytes))


class Stream:
    """An archive from a pipe."""

    is_stream = True

    def __init__(self, stream: BinaryIO, name: str = "-") -> None:
        self.name = name
        self.end: int | None = None
        self._stream = stream
        self._offset = 0

    def part_at(self, offset: int) -> str:
        return self.name

    def parts_of(self, start: int, stop: int) -> str:
        return self.name

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        if start < self._offset:
            raise ValueError(f"byte {start} of a stream was read before")
        while self._offset < stop:
            check_stop()
            limit = stop if self._offset >= start else start
            chunk = self._stream.read(min(CHUNK_BYTES, limit - self._offset))
            if not chunk:
                self.end = self._offset
                raise Missing(self.name)
            at, self._offset = self._offset, self._offset + len(chunk)
            if at >= start:
                yield chunk


class PartFiles:
    """An archive in one file, or in parts of equal size of which the last may be shorter."""

    is_stream = False

    def __init__(self, paths: dict[int, Path], name: str) -> None:
        """`paths` are the parts by their number, from 0. Raises BrokenCache for one that cannot be read."""
        self.name = name
        self._paths = paths
        self._sizes: dict[int, int] = {}
        for number, path in paths.items():
            with translated("read the archive", path):
                self._sizes[number] = path.stat().st_size
        self._part_bytes = max(1, *self._sizes.values())
        last = max(paths)
        self.end: int | None = last * self._part_bytes + self._sizes[last]

    def part_at(self, offset: int) -> str:
        number = offset // self._part_bytes
        if number in self._paths or len(self._paths) == 1:
            return str(self._paths.get(number, self.name))
        return f"{self.name}.{number:03d}"

    def parts_of(self, start: int, stop: int) -> str:
        numbers = range(start // self._part_bytes, max(start, stop - 1) // self._part_bytes + 1)
        names = [self.part_at(number * self._part_bytes) for number in numbers[:MAX_NAMED]]
        return " or ".join(names) if len(numbers) <= MAX_NAMED else f"{names[0]} or one of the next {len(numbers) - 1}"

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            number, inside = divmod(start, self._part_bytes)
            path = self._paths.get(number)
            if path is None or inside >= self._sizes[number]:
                raise Missing(self.part_at(start))
            count = min(stop - start, self._sizes[number] - inside)
            with translated("read the archive", path), path.open("rb", buffering=0) as file:
                file.seek(inside)
                while count:
                    check_stop()
                    chunk = file.read(min(CHUNK_BYTES, count))
                    if not chunk:
                        raise Missing(str(path))
                    count -= len(chunk)
                    start += len(chunk)
                    yield chunk


def archives_of(paths: Sequence[Path]) -> list[PartFiles]:
    """The archives in these files: a name that ends in `.000`, `.001`, … is a part of one.

    Raises BadArchive for the same part twice, and BrokenCache.
    """
    found: dict[Path, dict[int, Path]] = {}
    for path in paths:
        numbered = _NUMBERED.fullmatch(path.name)
        whole, number = (path.with_name(numbered[1]), int(numbered[2])) if numbered else (path, 0)
        parts = found.setdefault(whole, {})
        if number in parts:
            raise BadArchive(f"Part {number:03d} of {whole} is named twice.", hint="Name each file once.")
        parts[number] = path
    return [PartFiles(parts, str(whole)) for whole, parts in found.items()]


class Writer(Protocol):
    """A pipe, or anything that is written as one. `write` takes all of a chunk."""

    def write(self, chunk: bytes | memoryview, /) -> object: ...
    def flush(self) -> object: ...


class StreamSink:
    """Writes an archive to a pipe."""

    def __init__(self, stream: Writer) -> None:
        self._stream = stream
        self.written_bytes = 0
        self.paths: tuple[str, ...] = ("-",)

    def has(self, start: int, stop: int) -> bool:
        return False

    def write(self, offset: int, chunk: bytes | memoryview) -> None:
        """Writes bytes at an offset; the offsets follow each other."""
        self._stream.write(chunk)
        self.written_bytes += len(chunk)

    def cut(self, offset: int) -> None:
        """Does nothing: the bytes are gone through the pipe."""

    def close(self) -> None:
        self._stream.flush()


class FileSink:
    """Writes an archive of `total_bytes` to a file, or to numbered parts of `part_bytes`.

    A part has the name with INCOMPLETE until it is whole. Parts that are there stay, and one that is begun goes on.
    """

    def __init__(self, path: Path, total_bytes: int, part_bytes: int | None) -> None:
        """Raises, before anything is written, InvalidName for a file that is no part of the archive, NotThisVolume for
        a name that the volume cannot hold, and NoSpace."""
        self._part_bytes = part_bytes or total_bytes
        count = -(-total_bytes // self._part_bytes)
        if count > 999_999:
            raise InvalidName("--part-size is too small.", hint="An archive has at most 999,999 parts.")
        names = [path] if part_bytes is None else [path.with_name(f"{path.name}.{n:03d}") for n in range(count)]
        self.paths: tuple[str, ...] = tuple(map(str, names))
        self.written_bytes = 0
        self._names = names
        self._total_bytes = total_bytes
        self._begun = [self._begun_bytes(number) for number in range(count)]
        self._open: tuple[int, int] | None = None
        self._last = -1
        self._unsynced_bytes = 0
        refuse_unfit(path.parent, [(path.name, 0)], hint="Give `-o` another name.")
        self._check_space(path)

    def _check_space(self, path: Path) -> None:
        needed = self._total_bytes
        for name in self._names:
            for one in (name, _incomplete(name)):
                with contextlib.suppress(FileNotFoundError):
                    needed -= one.stat().st_size
        free = free_bytes(path)
        if free is not None and needed > free:
            raise NoSpace(
                f"The archive needs {needed:,} bytes, and {free:,} are free on the volume of {path.parent}.",
                hint="Make room there, or give `-o` a file on another volume. `--have FILE` leaves out what the target "
                "has.",
                needed_bytes=needed,
                free_bytes=free,
            )

    def _size(self, number: int) -> int:
        return min(self._part_bytes, self._total_bytes - number * self._part_bytes)

    def _begun_bytes(self, number: int) -> int:
        """The bytes of a part that need not be written: all of a whole part, else all but the last SYNC_BYTES."""
        with contextlib.suppress(FileNotFoundError):
            size_bytes = self._names[number].stat().st_size
            if size_bytes != self._size(number):
                raise InvalidName(
                    f"{self._names[number]} exists, and is no part of this archive.",
                    hint="Remove it, or give `-o` another name.",
                )
            return size_bytes
        with contextlib.suppress(FileNotFoundError):
            begun = _incomplete(self._names[number]).stat().st_size
            return max(0, min(begun, self._size(number)) - SYNC_BYTES)
        return 0

    def has(self, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is written."""
        while start < stop:
            number, inside = divmod(start, self._part_bytes)
            if inside >= self._begun[number]:
                return False
            start = min(stop, number * self._part_bytes + self._begun[number])
        return True

    def write(self, offset: int, chunk: bytes | memoryview) -> None:
        """Writes the bytes of a chunk that are not there yet. Raises NoSpace or BrokenCache."""
        view = memoryview(chunk)
        while view:
            number, inside = divmod(offset, self._part_bytes)
            count = min(len(view), self._size(number) - inside)
            skipped = max(0, min(count, self._begun[number] - inside))
            if skipped and not self._has_bytes(number, inside, view[:skipped]):
                self._shorten(number, inside)
                skipped = 0
            if skipped < count:
                self._write_part(number, inside + skipped, view[skipped:count])
            view = view[count:]
            offset += count

    def _has_bytes(self, number: int, inside: int, view: memoryview) -> bool:
        """Whether a part has these bytes. An export that was interrupted may have left bytes of a blob that was wrong:
        the hash tells that only at its end."""
        name = self._names[number]
        with translated("read the archive", name):
            path = name if name.is_file() else _incomplete(name)
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), len(view), inside) == view

    def _shorten(self, number: int, size_bytes: int) -> None:
        """Removes what a part has from an offset on. It is no whole part then."""
        self.close()
        name = self._names[number]
        with contextlib.suppress(FileNotFoundError):
            name.rename(_incomplete(name))
        with contextlib.suppress(FileNotFoundError):
            os.truncate(_incomplete(name), size_bytes)
        self._begun[number] = min(self._begun[number], size_bytes)

    def _write_part(self, number: int, inside: int, view: memoryview) -> None:
        name = self._names[number]
        self._last = number
        try:
            fd = self._descriptor(number)
            position = inside
            while view:
                written = os.pwrite(fd, view, position)
                position, view = position + written, view[written:]
            self.written_bytes += position - inside
            self._begun[number] = position
            self._unsynced_bytes += position - inside
            if self._unsynced_bytes >= SYNC_BYTES:
                os.fsync(fd)
                self._unsynced_bytes = 0
            if position == self._size(number):
                os.ftruncate(fd, position)
                self.close()
                _incomplete(name).replace(name)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise _too_large(name, self._size(number)) from error
            needed = self._total_bytes - number * self._part_bytes - inside
            raise storage_error(error, "write the archive", name, needed) from error

    def _descriptor(self, number: int) -> int:
        if self._open is None or self._open[0] != number:
            self.close()
            path = _incomplete(self._names[number])
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = number, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            os.ftruncate(self._open[1], self._begun[number])
        return self._open[1]

    def cut(self, offset: int) -> None:
        """Removes the bytes from an offset to the last that was written, also in parts that are whole, so that a
        resumed export makes them again."""
        for number in range(offset // self._part_bytes, self._last + 1):
            self._shorten(number, max(0, offset - number * self._part_bytes))

    def close(self) -> None:
        """Syncs and closes the part that is being written."""
        if self._open is not None:
            fd, self._open = self._open[1], None
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def part_bytes_for(path: Path, total_bytes: int) -> int | None:
    """The size of parts that the volume of an archive needs; None where it holds the archive in one file."""
    limit = max_file_bytes(path.parent) if total_bytes > PART_SIZES[-1] else None
    if limit is None or total_bytes <= limit:
        return None
    return next((size for size in PART_SIZES if size <= limit), limit)


def refuse_large_parts(path: Path, part_bytes: int) -> None:
    """Raises NotThisVolume if the volume of an archive holds no part of this size."""
    limit = max_file_bytes(path.parent) if part_bytes > PART_SIZES[-1] else None
    if limit is not None and part_bytes > limit:
        raise _too_large(path, part_bytes)


def _too_large(path: Path, size_bytes: int) -> NotThisVolume:
    return NotThisVolume(
        f"The volume of {path} takes no file of {size_bytes:,} bytes.",
        hint="Write smaller parts: `--part-size 4GB` on FAT. `hfpeer import` takes them in any order.",
        path=str(path),
        size_bytes=size_bytes,
    )


def parts_note(path: Path, total_bytes: int, count: int) -> str:
    """Why an archive is in parts that nobody asked for."""
    kind = mount_of(path.parent).file_system
    volume = f"The volume of {path.parent}" + (f" ({kind})" if kind else "")
    return f"{volume} holds no file of {total_bytes:,} bytes, so the archive is in {count:,} parts."


def make_first_part(path: Path) -> int | None:
    """Makes what an export has begun in one file its first part, where the volume took no more. Returns the size of the
    parts, or None if there is too little of it."""
    begun, first = _incomplete(path), path.with_name(f"{path.name}.000")
    try:
        size_bytes = next((size for size in PART_SIZES if size <= begun.stat().st_size), None)
        if size_bytes is not None:
            os.truncate(begun, size_bytes)
            begun.replace(first)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "write the archive", first) from error
    return size_bytes


def begun_archive(path: Path, *, is_in_parts: bool) -> tuple[PartFiles | None, bool]:
    """The first part that an earlier export has left under this name, and whether it is whole; None if there is
    none."""
    first = path.with_name(f"{path.name}.000") if is_in_parts else path
    for one in (first, _incomplete(first)):
        if one.is_file():
            return PartFiles({0: one}, str(path)), one == first
    return None, False


def remove_begun(path: Path) -> None:
    """Removes the unfinished parts of another archive under this name."""
    for one in (_incomplete(path), *path.parent.glob(f"{path.name}.*{INCOMPLETE}")):
        numbered = _NUMBERED.fullmatch(one.name.removesuffix(INCOMPLETE))
        if one.name == path.name + INCOMPLETE or (numbered and numbered[1] == path.name):
            one.unlink(missing_ok=True)


def _incomplete(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE)
