"""Finds the liars when a blob does not have its digest, and names them when it has.

An inquiry proposes which sources to exclude. Their bytes are discarded and come again from others, until the digest is
right. Only then is a source named as a liar: it gave, or vouched for, other bytes than the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from hfpeer.errors import CorruptData, HfpeerError
from hfpeer.peers.protocol.pieces import PIECE_DIGEST_BYTES, piece_digest
from hfpeer.ranges import MIB, PIECE_SIZE_BYTES, ByteRange
from hfpeer.transfer.fetch.job import FetchJob
from hfpeer.transfer.fetch.piece_check import GAVE_WRONG_BYTES, VOUCHED_WRONGLY, Contradiction
from hfpeer.transfer.fetch.state import FetchState
from hfpeer.transfer.integrity.inquiry import Inquiry
from hfpeer.transfer.integrity.local_bytes import LocalBytes
from hfpeer.transfer.integrity.sampling import ask_once
from hfpeer.transfer.sources.local_files import THIS_MACHINE

SAMPLE_SILENCES = 3
"""A source may take this many times the silence limit to give one piece for comparison."""
DIGESTED_BYTES_PER_SECOND = 16 * MIB
"""Bytes per second of the blob that a peer must at least read to tell the digests of its pieces."""


class WholeCheck:
    """Of one fetch; belongs to the conductor's thread."""

    def __init__(self, job: FetchJob, state: FetchState) -> None:
        self._job = job
        self._state = state
        self.inquiry = Inquiry(job.partial, self._sample, self._tiers, self._seeds)
        self._local = LocalBytes(job.partial, self._ask_digests, self._seed_peers)

    def try_otherwise(self) -> None:
        """The digest is wrong: discards what is wrong of local files; else excludes the next sources, and discards what
        they gave.

        Raises CorruptData when every way has been tried.
        """
        if not self.inquiry.is_open and (wrong := self._local.to_discard()):
            self._state.discard(wrong, refetches=False)
            return
        excluded = self.inquiry.next_exclusion()
        if excluded is None:
            raise self._wrong_everywhere()
        wrong = [span for name in excluded for span in self.inquiry.remember(name)]
        self._state.exclude(excluded)
        self._state.discard(wrong)

    def name_liars(self, contradictions: Mapping[str, Contradiction]) -> None:
        """The digest is right: the sources that gave or vouched for other bytes are liars. Where a seed has lied, a
        leecher that vouched for what the seed gave is not one."""
        liars = dict.fromkeys(self.inquiry.find_liars() if self.inquiry.is_open else (), GAVE_WRONG_BYTES)
        sources = self._state.sources()
        has_lying_seed = any(name in sources and sources[name].gives_first_hand for name in liars)
        for name, said in contradictions.items():
            is_excused = has_lying_seed and said.reason == VOUCHED_WRONGLY
            if name not in liars and not is_excused and self._digest_of(said.piece) != said.digest:
                liars[name] = said.reason
        for piece, (name, digest) in self._local.told.items():
            if name not in liars and self._digest_of(piece) != digest:
                liars[name] = VOUCHED_WRONGLY
        self._report(liars)

    def _report(self, liars: Mapping[str, str]) -> None:
        liars = {name: reason for name, reason in liars.items() if name != THIS_MACHINE}
        self._job.report.liars = list(liars)
        for name, reason in liars.items():
            self._job.source_failed(name, reason, was_lying=True)

    def _digest_of(self, piece: int) -> str:
        start, stop = self._job.grid.range_of(piece)
        view = memoryview(bytearray(stop - start))
        self._job.partial.read(start, view)
        return piece_digest(view)

    def _wrong_everywhere(self) -> HfpeerError:
        self._report(dict.fromkeys(self.inquiry.liars, GAVE_WRONG_BYTES))
        blob = self._job.blob
        names = sorted({*self.inquiry.excluded, *self.inquiry.contributions()} - {THIS_MACHINE})
        self._state.discard([ByteRange(0, blob.size_bytes)], refetches=False)
        return CorruptData(
            f"{blob.path} does not hash to {blob.digest}; it came from {', '.join(names) or 'nobody'}.",
            hint="Nothing of it was kept. Try again later, or from another network.",
            path=str(blob.path),
            sources=names,
        )

    # What the inquiry asks for

    def _sample(self, name: str, span: ByteRange) -> bytes | None:
        """The bytes of a range from one source, beside all requests; None if they do not come in time."""
        source = self._state.source(name)
        found = ask_once(
            lambda: source.open_range(self._job.blob, span.start, span.stop),
            span.size_bytes,
            SAMPLE_SILENCES * self._job.limits.silence_seconds,
            lambda: self._state.is_over,
        )
        self._state.count_sample(name, len(found) if found is not None else 0)
        return found

    def _ask_digests(self, name: str, pieces: range) -> bytes | None:
        """The digests of pieces, from one seed; None if they do not come in time."""
        source = self._state.source(name)
        read_bytes = len(pieces) * PIECE_SIZE_BYTES
        return ask_once(
            lambda: source.open_piece_digests(self._job.blob, pieces),
            len(pieces) * PIECE_DIGEST_BYTES,
            SAMPLE_SILENCES * self._job.limits.silence_seconds + read_bytes / DIGESTED_BYTES_PER_SECOND,
            lambda: self._state.is_over,
        )

    def _tiers(self) -> dict[str, int]:
        """The trust in each source that can be asked for a sample, also in the excluded ones."""
        sources = self._state.sources().values()
        return {
            source.name: source.tier.trust for source in sources if source.excluded_because is None or source.is_removed
        }

    def _seeds(self) -> list[str]:
        return [source.name for source in self._state.sources().values() if source.is_seed]

    def _seed_peers(self) -> list[str]:
        """The peers among them that may be asked."""
        sources = self._state.sources().values()
        return [one.name for one in sources if one.is_seed and not one.tier.is_upstream and not one.excluded_because]
