"""Files of other tools whose digests this node has computed, so that an add takes their bytes instead of fetching them.

The bytes are hashed again on their way into the cache, so a wrong row costs time and nothing else. No such file is ever
given to peers. It is changed only if the user asked for a hard link or for a move.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from hfpeer.cache.disk.linking import HardLinks, OnChunk, Way, share_blocks
from hfpeer.cache.index.adopted import NO_INODE, AdoptedTable, holds, stamp_of
from hfpeer.cache.index.history import History
from hfpeer.cache.index.inventory import Inventory
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.cache.partial.hashing import BlobHash
from hfpeer.cache.records import Contribution, FetchRecord
from hfpeer.errors import BrokenCache, CorruptData
from hfpeer.manifest import ManifestFile
from hfpeer.names import Digest, RepoId

log = logging.getLogger(__name__)


class TakeBy(str, Enum):
    """How the bytes of a file of another tool come into the cache."""

    COPY = "copy"
    """By shared blocks, else by a copy. The file stays as it is."""
    LINK = "link"
    """By shared blocks, else by a hard link under the rules of `HardLinks.READ_ONLY`, else by a copy."""
    MOVE = "move"
    """As by COPY or by a hard link; then the file is removed."""


class AdoptedFiles:
    """The adopted files of one node: `table` knows them, `bring` takes their bytes. Thread-safe."""

    def __init__(self, table: AdoptedTable, inventory: Inventory, history: History) -> None:
        self.table = table
        self._inventory = inventory
        self._history = history

    def read(self, file: ManifestFile, rows: Sequence[AdoptedRow]) -> tuple[bytes, AdoptedRow] | None:
        """The verified bytes of a small file, and the row of the adopted file that has them; None if none has. Many
        small files are read, ingested together, and then noted with `note`."""
        for row in rows:
            body = _body(row.path, file.size_bytes) if row.size_bytes == file.size_bytes else None
            if body is None:
                continue
            hashed = BlobHash(file.digest.algorithm, file.size_bytes)
            hashed.update(body)
            if hashed.hexdigest() == file.digest.hex:
                return body, row
            self.table.drop([row.path])
        return None

    def note(self, taken: Iterable[tuple[ManifestFile, AdoptedRow]]) -> None:
        """Keeps records of which files gave blobs, for `why`."""
        now = time.time()
        self._history.note([_record(file, row, now) for file, row in taken])

    def bring(
        self,
        file: ManifestFile,
        repo: RepoId,
        rows: Sequence[AdoptedRow],
        on_chunk: OnChunk = lambda count: None,
    ) -> Way | None:
        """Puts the bytes of one of these files, all of one digest, into `blobs/` of `repo`. None if none of them could
        be read, or has these bytes: then the blob has to be fetched.

        `on_chunk` is called with the bytes copied and those hashed. Raises NoSpace.
        """
        for row in rows:
            if row.size_bytes != file.size_bytes:
                continue
            way = self._take(row, file.digest, repo, on_chunk)
            if way is not None:
                self.note([(file, row)])
                return way
        return None

    def share(self, path: Path, digest: Digest) -> int:
        """Makes the blob of a digest share the blocks of a file with the same bytes, where the file system can. Returns
        the bytes that take no space of their own from now on. The kernel compares them; neither file is written to."""
        blob = self._inventory.find(digest)
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            if blob is not None:
                old = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                opened.callback(os.close, old)
                new = blob.open()
                opened.callback(os.close, new)
                return share_blocks(old, new)
        return 0

    def _take(self, row: AdoptedRow, digest: Digest, repo: RepoId, on_chunk: OnChunk) -> Way | None:
        path = Path(row.path)
        try:
            way = self._inventory.adopt(path, digest, repo, _hard_links(row, digest), on_chunk)
        except (CorruptData, BrokenCache) as error:
            if isinstance(error, CorruptData) or not holds(row):
                self.table.drop([row.path])
            log.info("%s was not taken: %s", row.path, error)
            return None
        if row.way == TakeBy.MOVE:
            self._remove(row)
        elif way is Way.HARD_LINK or holds(row):
            self._keep(row)
        return way or Way.COPY

    def _remove(self, row: AdoptedRow) -> None:
        """Removes a file after its bytes came into the cache, unless it was changed since, or is a link."""
        path = Path(row.path)
        with contextlib.suppress(OSError):
            facts = path.lstat()
            is_same = (facts.st_size, facts.st_mtime_ns) == (row.size_bytes, row.mtime_ns)
            if stat.S_ISREG(facts.st_mode) and is_same and row.inode in (NO_INODE, facts.st_ino):
                path.unlink()
                self.table.drop([row.path])

    def _keep(self, row: AdoptedRow) -> None:
        """Keeps a file that was just hashed. A hard link has given it a new ctime."""
        with contextlib.suppress(OSError):
            _, mtime_ns, ctime_ns, inode = stamp_of(Path(row.path).stat())
            now = replace(row, mtime_ns=mtime_ns, ctime_ns=ctime_ns, inode=inode)
            others = self.table.of_paths([row.path]).get(row.path, [])
            self.table.put([*(replace(one, ctime_ns=ctime_ns) for one in others), now])


def _hard_links(row: AdoptedRow, digest: Digest) -> HardLinks:
    """A plain file is never linked, because users edit configurations. A file that is moved keeps no second name."""
    if row.way == TakeBy.LINK and digest.algorithm == "sha256":
        return HardLinks.READ_ONLY
    is_moved = row.way == TakeBy.MOVE and not Path(row.path).is_symlink()
    return HardLinks.BLOBS if is_moved else HardLinks.NEVER


def _body(path: str, size_bytes: int) -> bytes | None:
    """The bytes of a regular file of this size; None if it is none, or cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            body = os.pread(file.fileno(), size_bytes + 1, 0)
    except OSError:
        return None
    return body if len(body) == size_bytes else None


def _record(file: ManifestFile, row: AdoptedRow, now: float) -> FetchRecord:
    size_bytes = file.size_bytes
    giver = Contribution(f"{row.path} ({row.tool})", "local", "", "", "", size_bytes, ((0, size_bytes),))
    return FetchRecord(str(file.digest), size_bytes, now, now, now, (giver,))
