"""Why sources did not give small files, and the error that a person gets for it. Its owner holds a lock."""

from __future__ import annotations

from collections.abc import Sequence

from hfpeer.budgets import MAX_HUB_MISSES
from hfpeer.errors import AccessDenied, HfpeerError
from hfpeer.names import Digest
from hfpeer.transfer.no_source_left import WRONG_BYTES, no_source_left, refused
from hfpeer.transfer.sources.sources import WantedBlob


class SourceFailures:
    """The failures of one fetch."""

    def __init__(self) -> None:
        self._of_sources: dict[str, str] = {}
        """The reasons of the sources that are not asked any more."""
        self._of_files: dict[Digest, dict[str, str]] = {}
        """By file and source, the reasons that are about single files."""
        self._refusals: dict[Digest, AccessDenied] = {}
        self._misses: dict[str, int] = {}
        """How many files in a row each upstream did not give."""
        self._retry_after_seconds: float | None = None
        self._threads: dict[str, int] = {}
        """Of each source the threads that have not given it up."""

    def begin(self, source: str, threads: int) -> None:
        """This number of threads begins to ask a source."""
        self._threads[source] = threads

    def is_last_thread(self, source: str) -> bool:
        """A thread gives a source up. Whether all have."""
        self._threads[source] -= 1
        return self._threads[source] == 0

    def limited(self, retry_after_seconds: float) -> None:
        """An upstream asks to be asked again after this time."""
        self._retry_after_seconds = retry_after_seconds

    def of_file(self, source: str, digest: Digest, reason: str, refusal: AccessDenied | None = None) -> None:
        """A source did not give one file; an upstream may have refused it."""
        self._of_files.setdefault(digest, {})[source] = reason
        if refusal is not None:
            self._refusals[digest] = refusal

    def of_source(self, source: str, reason: str) -> None:
        """A source is not asked any more. The first reason stays, unless it lied."""
        if reason == WRONG_BYTES:
            self._of_sources[source] = reason
        else:
            self._of_sources.setdefault(source, reason)

    def missed(self, upstream: str) -> bool:
        """An upstream refused a file or gave it wrongly. Whether it has missed enough in a row to be asked no more."""
        self._misses[upstream] = self._misses.get(upstream, 0) + 1
        return self._misses[upstream] >= MAX_HUB_MISSES

    def gave(self, source: str) -> None:
        """A source gave a file."""
        self._misses.pop(source, None)

    def error(self, missing: Sequence[WantedBlob], *, is_partly: bool) -> HfpeerError:
        """Names the first file that is missing and counts the others; `is_partly`: other files came.

        It is AccessDenied if an upstream refused any of them.
        """
        first = missing[0]
        what = str(first.path) + (f" and {len(missing) - 1} more small files" if len(missing) > 1 else "")
        refusal = next((self._refusals[blob.digest] for blob in missing if blob.digest in self._refusals), None)
        if refusal is not None:
            return refused(refusal, what) if is_partly else refusal
        reasons = {**self._of_sources, **self._of_files.get(first.digest, {})}
        return no_source_left(first.path, reasons, what, retry_after_seconds=self._retry_after_seconds)
