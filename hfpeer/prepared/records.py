"""The records of sets: `.hfpeer.json` in the folder of a set, which every copy carries, and `prepared.json` in the
home, which has the level of trust that this node has found.

A level is never read from a folder: a copy may come from anywhere. It counts only while the record in the folder has
the same bytes as when the level was found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfpeer.budgets import MAX_SET_MANIFEST_BYTES
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.snapshots import write_file
from hfpeer.errors import BadArchive
from hfpeer.prepared.layout import MANIFEST
from hfpeer.prepared.levels import Level
from hfpeer.prepared.manifest import SetFile, SetManifest, bad_manifest
from hfpeer.system.ownership import read_own

MAX_RECORD_BYTES = 3 * MAX_SET_MANIFEST_BYTES


@dataclass(frozen=True)
class SetRecord:
    """The manifest of a set, and its files as they lie in the folder: with paths of this machine in the Arrow they have
    other sizes and hashes than in the manifest."""

    manifest: SetManifest
    files: tuple[SetFile, ...]

    def to_json(self) -> bytes:
        placed = [[file.path, file.size_bytes, file.sha256] for file in self.files]
        document = {"manifest": self.manifest.to_document(), "placed": placed}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def id(self) -> str:
        """The sha256 of the record."""
        return hashlib.sha256(self.to_json()).hexdigest()


def read_record(folder: Path) -> SetRecord | None:
    """The record in the folder of a set; None if there is none. Raises BadArchive for one that cannot be used."""
    try:
        fd = os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(fd, "rb") as file:
            text = file.read(MAX_RECORD_BYTES + 1)
        if len(text) > MAX_RECORD_BYTES:
            raise ValueError(f"it has more than {MAX_RECORD_BYTES} bytes")
        document = json.loads(text)
        manifest = SetManifest.from_document(document["manifest"])
        placed = {str(path): SetFile(str(path), int(size), str(sha256)) for path, size, sha256 in document["placed"]}
        return SetRecord(manifest, tuple(placed[file.path] for file in manifest.files))
    except BadArchive:
        raise
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise bad_manifest(f"{folder / MANIFEST}: {error}") from error


def write_record(folder: Path, record: SetRecord) -> None:
    """Writes the record of a set. The folder keeps its mtime, by which `datasets` chooses between commits."""
    with translated("write the record of a prepared set", folder):
        facts = folder.stat()
        write_file(folder / MANIFEST, record.to_json().decode(), fresh=folder / f"{MANIFEST}.{os.getpid()}")
        os.utime(folder, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@dataclass(frozen=True)
class Finding:
    """The level that this node found, when, and whose word it rests on, or which versions built it here."""

    level: Level
    by: str
    at: float
    record: str

    def holds_for(self, record: SetRecord | None) -> bool:
        return record is not None and record.id == self.record


NOTHING_FOUND = Finding(Level.UNCHECKED, "", 0.0, "")


class Levels:
    """The levels by folder: `prepared.json` in the home."""

    def __init__(self, home: Path) -> None:
        self._path = home / "prepared.json"

    def all(self) -> Mapping[str, Finding]:
        """By the path of the folder of a set. Entries that cannot be read are left out: less is trusted then."""
        found: dict[str, Finding] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            document: dict[str, Any] = json.loads(read_own(self._path))
            for folder, said in document.items():
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    found[folder] = Finding(
                        Level(said["level"]), str(said["by"]), float(said["at"]), str(said["record"])
                    )
        return found

    def of(self, folder: Path, record: SetRecord | None) -> Finding:
        """What this node found of a set, if its record is still the same."""
        return finding_of(self.all(), folder, record)

    def note(self, folder: Path, record: SetRecord, level: Level, by: str) -> None:
        """Keeps a level. Raises NoSpace, BrokenCache."""
        known = {place: found for place, found in self.all().items() if Path(place).is_dir()}
        known[str(folder)] = Finding(level, by, time.time(), record.id)
        document = {place: {**asdict(found), "level": found.level.value} for place, found in known.items()}
        write_file(self._path, json.dumps(document, indent=1, sort_keys=True), 0o600)


def finding_of(known: Mapping[str, Finding], folder: Path, record: SetRecord | None) -> Finding:
    """The level of a set among those that are known."""
    found = known.get(str(folder), NOTHING_FOUND)
    return found if found.holds_for(record) else NOTHING_FOUND
