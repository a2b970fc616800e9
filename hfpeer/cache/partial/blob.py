"""Partials: blobs that are not whole yet, written at any offset by many threads.

Other tools see a blob only after `ingest` has moved its data.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from hfpeer.cache.disk.layout import partial_folder
from hfpeer.cache.disk.linking import RANGE_BYTES, copy_range
from hfpeer.cache.disk.os_errors import storage_error, translated
from hfpeer.cache.partial import journal
from hfpeer.cache.partial.files import PartialFiles, allocate, fdatasync
from hfpeer.names import Digest
from hfpeer.ranges import PIECE_SIZE_BYTES, PieceGrid, RangeSet
from hfpeer.system.cancellation import check_stop


class PartialBlob:
    """An open partial. Thread-safe, except `close` and `remove` during a `write`.

    A range is first written by `write`, then made present by `record`. The caller verifies the bytes of the whole blob.
    """

    def __init__(self, digest: Digest, size_bytes: int, files: PartialFiles, known: journal.Replay) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.path = files.path
        self._files = files
        self._present = known.present
        self._sources = known.sources
        self.is_given = known.is_given
        """Whether all bytes that ever arrived were given openly. It never becomes True again."""
        self._grid = PieceGrid(size_bytes)
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()

    @property
    def present(self) -> RangeSet:
        """A copy of the set of present bytes."""
        with self._lock:
            return self._present.copy()

    @property
    def is_whole(self) -> bool:
        """Whether every byte is present, verified or not."""
        with self._lock:
            return self._present.covers(0, self.size_bytes)

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is present."""
        with self._lock:
            return self._present.covers(start, stop)

    def write(self, offset: int, view: memoryview) -> None:
        """Writes all of `view` at `offset`. Raises NoSpace or BrokenCache."""
        try:
            written = os.pwrite(self._files.data_fd, view, offset)
            while written < len(view):
                written += os.pwrite(self._files.data_fd, view[written:], offset + written)
        except OSError as error:
            raise storage_error(error, "write a blob", self.path, self.size_bytes - self.present.total) from error

    def take(self, fd: int, start: int, stop: int, source: str) -> None:
        """Makes present what an open file has of `[start, stop)`, as given by `source`. Pieces that the disk cannot
        read are left out. Shares the blocks of the file where the volume can. Raises NoSpace, BrokenCache and
        Stopped."""
        step_bytes = RANGE_BYTES
        while start < stop:
            check_stop()
            end = min(stop, (start // step_bytes + 1) * step_bytes)
            try:
                came = copy_range(fd, self._files.data_fd, start, end)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise storage_error(error, "write a blob", self.path, stop - start) from error
                if step_bytes == PIECE_SIZE_BYTES:
                    start = end
                step_bytes = PIECE_SIZE_BYTES
                continue
            if came:
                self.record(start, start + came, source)
            if start + came < end:
                return
            start = end

    def record(self, start: int, stop: int, source: str, *, is_open: bool = False) -> None:
        """Makes `[start, stop)`, which was written, present; `is_open`: its `source` gives openly.

        Journals every piece that is whole now, and each part that was present before, because its source changes.
        """
        with self._lock:
            if self.is_given and not is_open:
                self._files.append(journal.closed())
                self.is_given = False
            changed = self._present.within(start, stop)
            self._present.add(start, stop)
            self._sources.give(start, stop, source)
            for piece in self._grid.pieces_touching(start, stop):
                extent = self._grid.range_of(piece)
                if self._present.covers(*extent):
                    changed.add(*extent)
            if changed:
                self._files.append(journal.have(part for run in changed for part in self._sources.inside(*run)))

    def sources(self) -> list[tuple[int, int, str]]:
        """`(start, stop, source)` for all present bytes, in order."""
        with self._lock:
            return list(self._sources)

    def discard(self, start: int, stop: int) -> None:
        """Removes bytes that were found wrong, durably."""
        with self._lock:
            self._present.discard(start, stop)
            self._sources.drop(start, stop)
            self._files.append(journal.drop(start, stop))
        with translated("sync the journal of a blob", self._files.folder):
            os.fsync(self._files.journal_fd)

    def read(self, offset: int, view: memoryview) -> int:
        """Reads into the front of `view` from `offset`. Returns the number of bytes, 0 at the end."""
        with translated("read a blob", self.path):
            return os.preadv(self._files.data_fd, [view], offset)

    def open_again(self) -> int:
        """A new descriptor of the data, for another reader. Raises OSError when the partial is closed, or another file
        is in its place, which another user may have put there."""
        with self._lock:
            return self._files.open_data_again()

    def sync(self) -> None:
        """Makes the present bytes survive a power cut. As slow as the disk."""
        with self._sync_lock, translated("sync a blob", self.path):
            self._append_locked(journal.mark())
            fdatasync(self._files.data_fd)
            self._append_locked(journal.synced())
            fdatasync(self._files.journal_fd)

    def close(self) -> None:
        """Closes the files; a later open continues. May be called again."""
        with self._lock:
            self._files.close()

    def remove(self) -> None:
        """Closes the partial and deletes its files: both, or only the journal after `move_to`."""
        self._files.unlink()
        self.close()
        self._files.remove_folder()

    def move_to(self, blob: Path) -> None:
        """Syncs the data and renames it to `blob`, over any file there; then closes the partial and deletes the rest.

        A repo whose folder is a link to another volume gets a copy. Raises NoSpace or BrokenCache, and leaves the
        partial as before.
        """
        with translated("put a blob into the cache", blob):
            self._files.move_data(blob)
        self.remove()

    def _append_locked(self, records: bytes) -> None:
        with self._lock:
            self._files.append(records)


def open_partial(
    cache: Path,
    digest: Digest,
    size_bytes: int,
    boot: str | None = None,
) -> PartialBlob:
    """Opens the partial of a blob, new or with the bytes that it has, and locks it against other processes.

    Raises Locked at once when another process has it open. That one may ingest the blob meanwhile, so look for the blob
    before a new try. Raises NoSpace when the volume cannot take the whole blob, and BrokenCache. `boot` is the id of
    this boot of the machine.
    """
    folder = partial_folder(cache, digest)
    boot = journal.boot_id() if boot is None else boot
    with translated("make a partial file", folder, size_bytes):
        files = PartialFiles(cache, digest)
        try:
            known = files.open_journal(digest, size_bytes, boot)
        except BaseException:
            files.close()
            raise
    partial = PartialBlob(digest, size_bytes, files, known)
    try:
        with translated("make room for a blob", folder, size_bytes - known.present.total):
            allocate(files.data_fd, size_bytes)
    except BaseException:
        (partial.close if known.present else partial.remove)()
        raise
    return partial
