"""Takes the verified blobs of a bundle fetch: into the cache, and to other fetches of the node that want them too.

A thread of its own keeps what has come while the others fetch: the slower the disk, the more it keeps at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hfpeer.errors import ForgedManifest
from hfpeer.names import Digest
from hfpeer.transfer.integrity.forgery import check_plain
from hfpeer.transfer.small.in_flight import InFlight
from hfpeer.transfer.small.state import BundleState
from hfpeer.transfer.small.verified import VerifiedBlob
from hfpeer.transfer.sources.sources import Source, WantedBlob

Keep = Callable[[Sequence[VerifiedBlob]], None]
"""Puts verified blobs into the cache. Called from one thread at a time; may raise StorageError."""
Find = Callable[[Sequence[WantedBlob]], Collection[Digest]]
"""Finds blobs that came into the cache since the fetch was planned, and makes them visible. Blocks; may raise
StorageError."""


class Keeper:
    """Keeps the blobs of one fetch. It is the party of this fetch in `in_flight`.

    With `only_given` it accepts from other fetches only bytes that were given openly. With `is_kept_later`, `keep` only
    passes the bytes on, and its owner tells `in_flight` when they are in the cache.
    """

    def __init__(
        self,
        state: BundleState,
        wanted: Mapping[Digest, WantedBlob],
        keep: Keep,
        find: Find,
        in_flight: InFlight,
        *,
        only_given: bool,
        is_kept_later: bool,
    ) -> None:
        self._state = state
        self._wanted = wanted
        self._keep = keep
        self._find = find
        self._in_flight = in_flight
        self._only_given = only_given
        self._is_kept_later = is_kept_later

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs, a thread keeps what comes. All of it is kept when the block is left."""
        thread = threading.Thread(target=self._keep_all, name="keep small", daemon=True)
        thread.start()
        try:
            self._in_flight.join(self, self._wanted)
            yield
        finally:
            self._state.close_unkept()
            thread.join()
            self._in_flight.leave(self, list(self._wanted))

    def take(self, source: Source, blobs: Iterable[tuple[WantedBlob, bytes]]) -> None:
        """Blobs from a source that hash to their digests. Waits while too many are not kept yet."""
        verified = [
            VerifiedBlob(blob, data, source.name, source.kind, source.is_open or not data) for blob, data in blobs
        ]
        self._in_flight.came(self, verified)
        self._state.came(verified)

    def check(self, released: Sequence[Digest]) -> None:
        """Blobs are to be requested by this fetch, unless they are in the cache by now."""
        here = self._find([self._wanted[digest] for digest in released])
        self._in_flight.kept(self, here)
        self._state.free(released, here)

    def pass_on(self, blobs: Iterable[WantedBlob]) -> None:
        """A request for these blobs has ended: those that no source here can give are requested by other fetches that
        want them."""
        hopeless = self._state.hopeless(blobs)
        if hopeless:
            self._in_flight.pass_on(self, hopeless)

    def _keep_all(self) -> None:
        try:
            while blobs := self._state.next_unkept():
                digests = [verified.blob.digest for verified in blobs]
                self._keep(blobs)
                self._state.kept(digests)
                if self._is_kept_later:
                    self._in_flight.kept_later(self, digests)
                else:
                    self._in_flight.kept(self, digests)
        except BaseException as error:  # noqa: BLE001  it reaches the caller of the fetch
            self._state.fail(error)

    # Other fetches of the node: see `in_flight.Party`

    def accept(self, verified: VerifiedBlob) -> bool:
        blob, data = self._wanted[verified.blob.digest], verified.data
        try:
            check_plain(blob, data)
        except ForgedManifest as error:
            self._state.fail(error)
            return True
        if len(data) != blob.size_bytes or (self._only_given and not verified.is_given):
            return False
        self._state.came([replace(verified, blob=blob)], is_joined=True)
        return True

    def request(self, digests: Iterable[Digest]) -> None:
        self._state.request(digests)

    def prefer(self, digests: Iterable[Digest]) -> None:
        self._state.prefer(digests)
