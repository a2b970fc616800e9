"""Reads the files of a zip by their names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO


class ZipIndex:
    """The files of a zip; one that lies deeper is found by the end of its path too, if that is unique in it."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        names = [info.filename for info in self._zip.infolist() if not info.is_dir()]
        self.names = sorted(name for name in names if not is_of_a_mac(name))
        self._by_name = dict.fromkeys(self.names, "")
        self._by_last: dict[str, str] = {}
        for name in self.names:
            last = name.rpartition("/")[2]
            self._by_last[last] = "" if last in self._by_last else name

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if the zip does not have it."""
        whole = name if name in self._by_name else self._deeper(name)
        return self._zip.read(whole) if whole else None

    def open(self, name: str) -> IO[bytes]:
        """A file of the zip, by its whole name."""
        return self._zip.open(name)

    def _deeper(self, name: str) -> str:
        last = self._by_last.get(name.rpartition("/")[2], "")
        return last if last == name or last.endswith(f"/{name}") else ""

    def __enter__(self) -> ZipIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()


def is_of_a_mac(name: str) -> bool:
    """Whether macOS has put a file into an archive for itself."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")
