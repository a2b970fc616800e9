"""Opens files of text: unpacked, in UTF-8, and those in a zip one after the other.

How a file is packed is told by its first bytes, as in `datasets`: names often do not say. Source: datasets
`file_utils`, `MAGIC_NUMBER_TO_COMPRESSION_PROTOCOL`.
"""

from __future__ import annotations

import codecs
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hfpeer.conversion.media.zips import ZipIndex
from hfpeer.conversion.sources.batches import LocalFile
from hfpeer.errors import ConversionFailed

BLOCK_BYTES = 1024 * 1024
_ZIP, _XZ = b"PK\x03\x04", b"\xfd7zXZ\x00"
_BY_ARROW = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_STRANGE = {b"Rar!": "RAR", b"7z\xbc\xaf\x27\x1c": "7z"}
ENCODING, ENCODING_ERRORS = "encoding", "encoding_errors"
"""The options of a config that say which bytes its texts are made of."""


def contents(file: LocalFile, reading: Mapping[str, Any] | None = None) -> Iterator[IO[bytes]]:
    """The text of a file, or of each file in a zip, as UTF-8 if `reading` names another encoding. Each is closed when
    the next is asked for. Raises ConversionFailed for a packing that is not unpacked here."""
    encoding = known_encoding(file, reading or {})
    errors = str((reading or {}).get(ENCODING_ERRORS) or "strict")
    is_plain = errors == "strict" and codecs.lookup(encoding).name == "utf-8"
    for raw in _unpacked(file):
        with raw, io.BufferedReader(raw if is_plain else _Utf8(raw, encoding, errors), BLOCK_BYTES) as content:
            yield content


def known_encoding(file: LocalFile, reading: Mapping[str, Any]) -> str:
    """The encoding that a config names. Raises ConversionFailed for one that there is not."""
    encoding = str(reading.get(ENCODING) or "utf-8")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ConversionFailed(f"{file.path} cannot be read: {error}.", path=file.path) from error
    return encoding


@contextmanager
def failing(file: LocalFile) -> Iterator[None]:
    """Within the block, bytes of `contents` that cannot be unpacked or decoded raise ConversionFailed."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error, UnicodeError) as error:
        raise ConversionFailed(f"{file.path} cannot be read: {str(error)[:300]}", path=file.path) from error


def _unpacked(file: LocalFile) -> Iterator[Any]:
    start = _start_of(file.place)
    if start.startswith(_ZIP):
        with ZipIndex(file.place) as index:
            for name in index.names:
                yield index.open(name)
        return
    strange = next((name for magic, name in _STRANGE.items() if start.startswith(magic)), None)
    if strange is not None:
        raise ConversionFailed(f"{file.path} is packed as {strange}, which is not unpacked here.", path=file.path)
    compression = next((name for magic, name in _BY_ARROW.items() if start.startswith(magic)), None)
    if compression is not None:
        import pyarrow as pa

        with pa.OSFile(str(file.place)) as packed:
            yield pa.CompressedInputStream(packed, compression)
    elif start.startswith(_XZ):
        with lzma.LZMAFile(file.place) as unpacked:
            yield unpacked
    else:
        yield io.FileIO(file.place)


def _start_of(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(8)


class _Utf8(io.RawIOBase):
    """The bytes of a text in another encoding, as UTF-8."""

    def __init__(self, raw: Any, encoding: str, errors: str) -> None:
        self._text = io.TextIOWrapper(io.BufferedReader(raw), encoding, errors, newline="")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or self._text.read(BLOCK_BYTES).encode()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
