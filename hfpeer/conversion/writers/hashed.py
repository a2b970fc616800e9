"""A file whose SHA-256 is known when it is written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType


class HashedFile:
    """A file that is being written. It is a binary file for pyarrow too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, content: bytes | memoryview) -> int:
        self._hash.update(content)
        self.size_bytes += len(content)
        self._file.write(content)
        return len(content)

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
