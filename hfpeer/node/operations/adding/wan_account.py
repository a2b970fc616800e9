"""The bytes of one add that crossed the WAN: for it, for an add beside it, or for an earlier one that was cut short.

Only what peers or files of this machine gave, and what other revisions had before, counts as saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from hfpeer.cache.records import Contribution, FetchRecord
from hfpeer.cache.store import Store
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, RepoId
from hfpeer.peers.protocol.batch import MAX_BATCH_BLOB_BYTES
from hfpeer.transfer.events import WAN_KINDS
from hfpeer.transfer.snapshot import FetchTotals


class WanAccount:
    """To be made before the add fetches. Blocking."""

    def __init__(
        self,
        store: Store,
        repo: RepoId,
        commit: Commit,
        files: Sequence[ManifestFile],
        missing: Sequence[ManifestFile],
    ) -> None:
        """`missing` are the files to fetch, each digest once."""
        self._store = store
        absent = {file.digest for file in missing}
        self._large = {file.digest: file.size_bytes for file in missing if file.size_bytes > MAX_BATCH_BLOB_BYTES}
        here = {file.digest: file.size_bytes for file in files if file.digest not in absent} if missing else {}
        self._earlier = {digest: here[digest] for digest in store.in_no_other(repo, commit, here)}
        """Blobs that are here and that no other revision has: an add of this commit may have brought them."""

    def wan_bytes(self, totals: FetchTotals) -> int:
        """The bytes that crossed the WAN, after the add has fetched `totals`."""
        small_bytes = sum(totals.small_bytes_by_kind.get(kind, 0) for kind in WAN_KINDS)
        records = self._store.history.find(map(str, [*self._large, *self._earlier]))
        large = (_of_wan(records.get(str(digest)), size, size) for digest, size in self._large.items())
        earlier = (_of_wan(records.get(str(digest)), size, 0) for digest, size in self._earlier.items())
        return small_bytes + sum(large) + sum(earlier)


def _of_wan(record: FetchRecord | None, size_bytes: int, if_unknown_bytes: int) -> int:
    """The bytes of a blob that crossed the WAN."""
    if record is None:
        return if_unknown_bytes
    return min(size_bytes, sum(one.size_bytes for one in record.contributions if _is_of_wan(one)))


def _is_of_wan(one: Contribution) -> bool:
    """Whether a source is beyond the WAN. One that is not known any more is, unless its network is known."""
    return one.kind in WAN_KINDS or (not one.kind and one.network != "lan")
