"""Takes revisions from a source into the cache. Nothing in a source is trusted but digests.

Every blob is hashed before it becomes one of the cache. Links, listings and refs are made from proved manifests; refs
come last, and only for a revision of which everything in the source is here. The same command goes on after a kill.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from queue import Queue
from typing import TYPE_CHECKING, TypeAlias

from hfpeer.archive.parts import CHUNK_BYTES, SMALL_BYTES, SYNC_BYTES, Missing
from hfpeer.archive.results import Damage, ImportedRevision, ImportReport
from hfpeer.archive.sources import Source, SourceBlob, SourceRevision
from hfpeer.archive.target import Target
from hfpeer.cache.disk.os_errors import free_bytes
from hfpeer.cache.disk.volume import refuse_unfit, refuse_unfit_repos
from hfpeer.cache.partial.blob import PartialBlob
from hfpeer.cache.partial.files import begun_bytes, kept_prefixes
from hfpeer.cache.partial.hashing import BlobHash
from hfpeer.errors import BadArchive, ForgedManifest, NoSpace
from hfpeer.git.lfs import MAX_POINTER_BYTES, parse_pointer
from hfpeer.language.amounts import counted
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    from hfpeer.cache.index.schema import AdoptedRow

BATCH_BYTES = 16 * SMALL_BYTES
"""Bytes of small blobs in memory at a time."""
BATCH_BLOBS = 2000
QUEUED_CHUNKS = 8
"""At most this many chunks wait to be hashed, while the next ones are read and written."""

OnProgress: TypeAlias = "Callable[[str, int, int], None]"
"""Called with the path that is taken, the bytes done and the bytes of all."""


@dataclass(frozen=True)
class ImportOptions:
    """`commit`: the source must have this one and no other. `trusts_attested` takes manifests without a proof.
    `learns_visibility` takes the visibility of a repo from the archive. `hubs` are the URLs of the configured hubs.
    `takes_space` is False if the bytes share the blocks of the source, or are moved.
    """

    commit: Commit | None = None
    trusts_attested: bool = False
    learns_visibility: bool = True
    is_dry_run: bool = False
    hubs: tuple[str, ...] = ()
    takes_space: bool = True


class Import:
    """One import into a target. Blocking, for one thread."""

    def __init__(
        self, target: Target, source: Source, options: ImportOptions, on_progress: OnProgress = lambda *facts: None
    ) -> None:
        self._target = target
        self._source = source
        self._options = options
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._files: dict[Digest, ManifestFile] = {}
        self._repos: dict[Digest, RepoId] = {}
        for revision in source.revisions:
            for file in revision.files:
                self._files.setdefault(file.digest, file)
                self._repos.setdefault(file.digest, revision.manifest.repo)
        self._batch: dict[RepoId, dict[Digest, bytes]] = {}
        self._batch_bytes = 0
        self._taken: dict[Digest, int] = {}
        self._done_bytes = 0
        self._total_bytes = 0

    def run(self) -> ImportReport:
        """Takes the missing blobs. The report tells the damage; the rest was imported.

        Raises BadArchive before anything is written: for a revision that is not allowed, and for blobs that the archive
        leaves out and this node does not have. Raises ForgedManifest, NoSpace, BrokenCache, Locked.
        """
        self._check_allowed()
        missing = self._missing()
        omitted = sorted(missing & self._source.omitted)
        if omitted:
            raise BadArchive(
                f"The archive leaves out {counted(len(omitted), 'blob')}, not known to this node: "
                f"{', '.join(map(str, omitted[:3]))}{' …' if len(omitted) > 3 else ''}.",
                hint="Make it again with a fresh list: `hfpeer have -o FILE` here, `hfpeer export --have FILE` there.",
                digests=[str(digest) for digest in omitted],
            )
        self._check_prefixes(missing)
        if not self._options.is_dry_run:
            revisions = self._source.revisions
            refuse_unfit_repos(self._target.cache, [revision.manifest.repo.folder for revision in revisions])
            for revision in revisions:
                refuse_unfit(self._target.cache, [(file.path, file.size_bytes) for file in revision.files])
        if self._options.takes_space:
            self._check_space(missing)
        if self._options.is_dry_run:
            return self._report(missing)
        self._total_bytes = sum(self._files[digest].size_bytes for digest in missing)
        try:
            for blob in self._source.walk():
                check_stop()
                if blob.digest in missing:
                    self._take(blob)
        finally:
            self._flush()
        return self._report(missing, self._install())

    # Before the first byte

    def _check_allowed(self) -> None:
        wanted = self._options.commit
        for revision in self._source.revisions:
            manifest = revision.manifest
            if wanted is not None and manifest.commit != wanted and not manifest.repo.is_of_sets:
                raise BadArchive(
                    f"{self._source.name} has {manifest.repo} at {manifest.commit}, not {wanted}.",
                    hint="Import it without `-v` if that is the one you want.",
                )
            if manifest.is_attested and not self._options.trusts_attested:
                raise BadArchive(
                    f"Nothing in {self._source.name} proves the list of the files of {manifest.repo} at "
                    f"{manifest.commit.short}: it rests on the word of the machine that made it.",
                    hint="`--trust-archive` takes it at its word.",
                    repo=str(manifest.repo),
                    commit=str(manifest.commit),
                )

    def _missing(self) -> set[Digest]:
        """The blobs that the cache does not have. Those that other tools put there are hashed first, also those to
        which no link leads."""
        if not self._options.is_dry_run:
            self._target.verify(self._source.revisions)
        return {file.digest for file in self._target.missing(self._files.values())}

    def _check_prefixes(self, missing: Collection[Digest]) -> None:
        skipped = {digest: count for digest, count in self._source.skipped.items() if digest in missing}
        if not skipped:
            return
        kept = {prefix.digest: prefix.kept_bytes for prefix in kept_prefixes(self._target.cache)}
        lost = [digest for digest, count in skipped.items() if kept.get(digest, 0) < count]
        if lost:
            raise BadArchive(
                f"The archive leaves out the first {skipped[lost[0]]:,} bytes of {lost[0]}, and this node does not "
                "have them any more.",
                hint="Make it again with a fresh list: `hfpeer have -o FILE` here, `hfpeer export --have FILE` there.",
                digests=[str(digest) for digest in lost],
            )

    def _check_space(self, missing: Collection[Digest]) -> None:
        needed = sum(self._files[digest].size_bytes for digest in missing)
        free = free_bytes(self._target.cache)
        begun = begun_bytes(self._target.cache, missing)
        if free is not None and needed - begun > free:
            raise NoSpace(
                f"The import needs {needed - begun:,} bytes, and {free:,} are free on the volume of "
                f"{self._target.cache}.",
                hint="Make room (`hfpeer cache prune`, `hfpeer model rm`), or move the cache with "
                "`hfpeer conf cache set`.",
                needed_bytes=needed - begun,
                free_bytes=free,
            )

    # Blobs

    def _take(self, blob: SourceBlob) -> None:
        self._on_progress(blob.path, self._done_bytes, self._total_bytes)
        part = self._source.part_of(blob)
        try:
            reason = self._take_small(blob) if blob.size_bytes <= SMALL_BYTES else self._take_large(blob)
        except Missing as error:
            part, reason = error.part, "its bytes are missing: the file is not there, or was cut short"
        if reason:
            self._source.damage.append(Damage(blob.path, str(blob.digest), part, reason))
        else:
            self._taken[blob.digest] = blob.size_bytes

    def _take_small(self, blob: SourceBlob) -> str:
        body = b"".join(self._source.chunks(blob, 0))
        if not _has_digest(blob, body):
            return "its bytes do not have its digest"
        if blob.digest.algorithm == "git-sha1" and len(body) <= MAX_POINTER_BYTES and parse_pointer(body) is not None:
            file, repo = self._files[blob.digest], self._repos[blob.digest]
            raise ForgedManifest(
                f"{self._source.name} passes the LFS pointer {file.path} of {repo} off as the file itself.",
                hint="Do not use this archive: its list of files was made to mislead.",
                repo=str(repo),
                path=str(file.path),
            )
        self._batch.setdefault(self._repos[blob.digest], {})[blob.digest] = body
        self._batch_bytes += len(body)
        self._done_bytes += len(body)
        if self._batch_bytes >= BATCH_BYTES or sum(map(len, self._batch.values())) >= BATCH_BLOBS:
            self._flush()
        return ""

    def _flush(self) -> None:
        """Ingests the small blobs in memory."""
        batch, self._batch, self._batch_bytes = self._batch, {}, 0
        for repo, bodies in batch.items():
            self._target.ingest_many(repo, bodies)

    def _take_large(self, blob: SourceBlob) -> str:
        file = self._source.file_of(blob)
        return self._take_chunks(blob) if file is None else self._take_file(blob, file)

    def _take_file(self, blob: SourceBlob, row: AdoptedRow) -> str:
        """Takes a file as a whole. What was copied counts half, and what was hashed."""
        moved_bytes = 0

        def on_chunk(count: int) -> None:
            nonlocal moved_bytes
            moved_bytes += count
            self._on_progress(blob.path, self._done_bytes + moved_bytes // 2, self._total_bytes)

        file, repo = self._files[blob.digest], self._repos[blob.digest]
        is_right = self._target.bring(file, repo, row, on_chunk)
        self._done_bytes += blob.size_bytes
        return "" if is_right else "its bytes do not have its digest, or cannot be read"

    def _take_chunks(self, blob: SourceBlob) -> str:
        """Fills the partial of a blob and ingests it. Bytes that it has from before are not read again, unless the
        whole has another hash: then all of them come from the source."""
        partial = self._target.open_partial(blob.digest, blob.size_bytes)
        try:
            had_bytes = partial.present.total
            is_right = self._fill(blob, partial)
            can_read_again = self._source.can_read_again and blob.digest not in self._source.skipped
            if not is_right and had_bytes and can_read_again:
                partial.discard(0, blob.size_bytes)
                is_right = self._fill(blob, partial)
            if is_right:
                self._target.ingest_blob(partial, self._repos[blob.digest])
                return ""
            partial.remove()
            return "its bytes do not have its digest"
        finally:
            partial.close()

    def _fill(self, blob: SourceBlob, partial: PartialBlob) -> bool:
        """Brings the missing bytes, and returns whether the whole has its digest. Raises Missing; the bytes until then
        stay in the partial."""
        with HashThread(BlobHash(blob.digest.algorithm, blob.size_bytes)) as digest:
            self._fill_gaps(blob, partial, digest)
            return digest.hexdigest() == blob.digest.hex

    def _fill_gaps(self, blob: SourceBlob, partial: PartialBlob, digest: HashThread) -> None:
        position, unsynced = 0, 0
        for start, stop in list(partial.present.gaps(0, blob.size_bytes)):
            _hash_present(digest, partial, position, start)
            position = start
            wanted = self._source.chunks(blob, start)
            for chunk in wanted:
                view = memoryview(chunk)[: stop - position]
                partial.write(position, view)
                partial.record(position, position + len(view), self._source.name)
                digest.update(view)
                position += len(view)
                unsynced += len(view)
                self._done_bytes += len(view)
                self._on_progress(blob.path, self._done_bytes, self._total_bytes)
                if unsynced >= 4 * SYNC_BYTES:
                    partial.sync()
                    unsynced = 0
                if position >= stop:
                    break
            if position < stop:
                raise Missing(self._source.part_of(blob))
        _hash_present(digest, partial, position, blob.size_bytes)

    # Links and refs

    def _install(self) -> dict[tuple[RepoId, Commit], _Installed]:
        """Installs the files whose blobs are here, then writes the refs."""
        done = {}
        missing = {file.digest for file in self._target.missing(self._files.values())}
        for revision in self._source.revisions:
            files = [file for file in revision.files if file.digest not in missing]
            if files:
                self._target.install(revision, files)
            done[revision.manifest.repo, revision.manifest.commit] = _Installed(len(files))
        for revision in self._source.revisions:
            installed = done[revision.manifest.repo, revision.manifest.commit]
            if installed.files == len(revision.files):
                self._write_refs(revision, installed)
            if self._options.learns_visibility and installed.files:
                self._target.learn(revision)
        return done

    def _write_refs(self, revision: SourceRevision, installed: _Installed) -> None:
        for ref in revision.refs:
            kept = self._target.write_ref(revision.manifest, ref)
            if kept is None:
                installed.refs.append(str(ref.name))
            else:
                installed.kept_refs.append(f"{ref.name} {kept}")

    # The report

    def _report(
        self, missing: Collection[Digest], done: dict[tuple[RepoId, Commit], _Installed] | None = None
    ) -> ImportReport:
        sizes = {digest: file.size_bytes for digest, file in self._files.items()}
        return ImportReport(
            self._source.name,
            tuple(
                self._imported(revision, done)
                for revision in self._source.revisions
                if not revision.manifest.repo.is_of_sets
            ),
            len(sizes),
            len(self._taken) if done is not None else len(missing),
            sum(self._taken.values()) if done is not None else sum(sizes[digest] for digest in missing),
            sum(size for digest, size in sizes.items() if digest not in missing),
            self._options.is_dry_run,
            time.monotonic() - self._began,
            tuple(self._source.damage),
            tuple(self._source.notes),
        )

    def _imported(
        self, revision: SourceRevision, done: dict[tuple[RepoId, Commit], _Installed] | None
    ) -> ImportedRevision:
        manifest = revision.manifest
        installed = (done or {}).get((manifest.repo, manifest.commit), _Installed(0))
        return ImportedRevision(
            str(manifest.repo),
            str(manifest.commit),
            installed.files,
            len(revision.files),
            len(manifest.files),
            sum({file.digest: file.size_bytes for file in revision.files}.values()),
            not manifest.is_attested,
            tuple(installed.refs),
            tuple(installed.kept_refs),
            revision.visibility.value,
            self._target.is_shared(manifest.repo, manifest.commit) if done is not None else False,
        )


class _Installed:
    """The installed part of a revision: files, refs, and the refs that stayed as they were."""

    def __init__(self, files: int) -> None:
        self.files = files
        self.refs: list[str] = []
        self.kept_refs: list[str] = []


def _has_digest(blob: SourceBlob, body: bytes) -> bool:
    digest = BlobHash(blob.digest.algorithm, len(body))
    digest.update(body)
    return len(body) == blob.size_bytes and digest.hexdigest() == blob.digest.hex


def _hash_present(digest: HashThread, partial: PartialBlob, start: int, stop: int) -> None:
    """Feeds bytes of the partial to the hash."""
    while start < stop:
        check_stop()
        buffer = memoryview(bytearray(min(CHUNK_BYTES, stop - start)))
        count = partial.read(start, buffer)
        if count == 0:
            return
        digest.update(buffer[:count])
        start += count


class HashThread:
    """A hash that is computed in a thread of its own, while the next bytes are read and written."""

    def __init__(self, digest: BlobHash) -> None:
        self._digest = digest
        self._chunks: Queue[memoryview | None] = Queue(QUEUED_CHUNKS)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> HashThread:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def update(self, chunk: memoryview) -> None:
        """Takes the next bytes, which nothing may change from then on."""
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        """The hash of all bytes. Nothing can follow."""
        self._end()
        return self._digest.hexdigest()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._digest.update(chunk)


def damage_error(reports: Sequence[ImportReport]) -> BadArchive | None:
    """The error for the damage in these reports; None without any."""
    damage = [one for report in reports for one in report.damage]
    if not damage:
        return None
    more = f" And {len(damage) - 1:,} more." if len(damage) > 1 else ""
    return BadArchive(
        f"The archive is damaged: {damage[0]}.{more}",
        hint="All that is whole was imported. Copy the damaged parts again and run the same command: it takes the "
        "rest.",
        damage=[vars(one) for one in damage],
    )
