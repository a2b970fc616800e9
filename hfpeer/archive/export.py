"""Makes an archive of revisions of the cache. Every blob is hashed while it is read; wrong bytes end the export.

The archive follows from its index, so the same command goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hfpeer.archive.contents import Member, index_head, members, packed
from hfpeer.archive.have import Have, parse_have
from hfpeer.archive.headers import END, padding_bytes
from hfpeer.archive.index import (
    MAX_TIME,
    ArchivedBlob,
    ArchivedRef,
    ArchivedRevision,
    ArchiveIndex,
    id_of,
    with_offsets,
)
from hfpeer.archive.parts import (
    CHUNK_BYTES,
    PART_SIZES,
    SMALL_BYTES,
    FileSink,
    PartFiles,
    StreamSink,
    Writer,
    begun_archive,
    make_first_part,
    part_bytes_for,
    parts_note,
    refuse_large_parts,
    remove_begun,
)
from hfpeer.archive.results import ExportedRevision, ExportReport
from hfpeer.archive.sources import absences, read_index
from hfpeer.budgets import MAX_LISTING_BYTES
from hfpeer.cache.index.inventory import BlobFile
from hfpeer.cache.partial.hashing import BlobHash
from hfpeer.cache.store import Store
from hfpeer.errors import (
    BadArchive,
    CorruptData,
    EntryNotFound,
    HfpeerError,
    InvalidName,
    NotFound,
    NotThisVolume,
)
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import MAIN, Commit, Digest, RepoId, Revision, Visibility, keeping_ref
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    from hfpeer.prepared.arrow.packing import PackedSet

Select = Callable[[Manifest], Iterable[ManifestFile]]
"""Chooses the files of a manifest that are packed."""
OnProgress = Callable[[str, int, int], None]
"""Called with the path that is read, the bytes done and the bytes of all."""
Send = Callable[[int, int, int], int]
"""Sends bytes of an open file: its descriptor, their offset, their number. Returns how many there were."""


class _Sink(Protocol):
    paths: tuple[str, ...]
    written_bytes: int

    def has(self, start: int, stop: int) -> bool: ...
    def write(self, offset: int, chunk: bytes | memoryview) -> None: ...
    def cut(self, offset: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """The content of an archive. `files` are the blobs on the disk."""

    index: ArchiveIndex
    text: bytes
    manifests: tuple[Manifest, ...]
    listings: tuple[bytes, ...]
    files: Mapping[Digest, BlobFile]

    def members(self) -> list[Member]:
        return list(members(self.index, self.text, self.manifests, self.listings))

    def with_index(self, index: ArchiveIndex, text: bytes) -> Plan:
        """The same plan with the index that an earlier export has written."""
        return replace(self, index=index, text=text)


def plan_export(
    store: Store,
    revisions: Sequence[tuple[RepoId, Commit]],
    have: Have | None = None,
    select: Select = lambda manifest: manifest.files,
    sets: Sequence[PackedSet] = (),
) -> Plan:
    """Finds the manifests and blobs of these revisions, of the files that `select` gives, and adds prepared sets.
    Leaves out what the target has.

    Raises NotFound for a revision without a manifest or without such files here, and CorruptData for a small file with
    wrong bytes.
    """
    have = have or Have()
    found = [_manifest(store, repo, commit) for repo, commit in sorted({*revisions})]
    listings = [manifest.to_json().encode() for manifest in found]
    sizes: dict[Digest, int] = {}
    for manifest in found:
        selected = {file.digest: file.size_bytes for file in select(manifest)}
        sizes |= selected
    of_sets = {digest: path for one in sets for digest, path in one.files.items() if digest not in sizes}
    sizes |= {digest: size for one in sets for digest, size in one.commit.sizes.items()}
    omitted = sorted(digest for digest in sizes if digest in have.whole)
    places = store.inventory.places(digest for digest in sizes if digest not in have.whole and digest not in of_sets)
    files = {
        digest: BlobFile(digest, path, sizes[digest], True)
        for digest, path in of_sets.items()
        if digest not in have.whole
    }
    for digest, rows in places.items():
        blob = store.inventory.best(rows)
        if blob is not None and blob.size_bytes == sizes[digest]:
            files[digest] = blob
    blobs = [
        ArchivedBlob(digest, sizes[digest], _sha256(files[digest]), 0, _skipped_bytes(have, digest, sizes[digest]))
        for digest in sorted(files, key=lambda digest: (sizes[digest], digest))
    ]
    archived = []
    for manifest, listing in zip(found, listings, strict=True):
        if not any(file.digest in files or file.digest in have.whole for file in manifest.files):
            raise _not_here(manifest.repo, manifest.commit)
        archived.append(_revision(store, manifest, listing))
    for one in sets:
        found.append(one.commit)
        listings.append(one.commit.to_json().encode())
        archived.append(_revision_of_set(one.commit, listings[-1]))
    made_at = max(max(one.asked_at, *(ref.answered_at for ref in one.refs)) for one in archived)
    index = ArchiveIndex(made_at, tuple(archived), tuple(blobs), tuple(omitted))
    text = index.to_json()
    behind = len(index_head(text, made_at))
    offsets = {
        member.digest: member.start - behind
        for member in members(index, text, found, listings)
        if member.digest is not None
    }
    index = with_offsets(index, offsets)
    return Plan(index, index.to_json(), tuple(found), tuple(listings), files)


def _manifest(store: Store, repo: RepoId, commit: Commit) -> Manifest:
    manifest = store.manifests.load(repo, commit)
    if manifest is None:
        raise NotFound(
            f"No list of the files of {repo} at {commit.short} is here, so nothing could prove its archive.",
            hint=f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {commit}` asks a hub or a peer for it, and "
            "fetches only what is missing.",
            repo=str(repo),
            commit=str(commit),
        )
    if len(manifest.to_json()) > MAX_LISTING_BYTES:
        raise EntryNotFound(f"The list of the files of {repo} at {commit.short} is too long for an archive.")
    return manifest


def _not_here(repo: RepoId, commit: Commit) -> NotFound:
    return NotFound(
        f"{repo} at {commit.short} is not in the cache.",
        hint=f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {commit}` fetches it.",
        repo=str(repo),
        commit=str(commit),
    )


def _revision(store: Store, manifest: Manifest, listing: bytes) -> ArchivedRevision:
    repo, commit = manifest.repo, manifest.commit
    said = store.shared.verdict(repo, commit)
    cached = next((one for one in store.revisions.of(repo) if one.commit == commit), None)
    refs = []
    for name in sorted({MAIN, *map(Revision.parse, cached.refs if cached else ())}):
        answer = store.refs.read(repo, name) or store.refs.read_published(repo, name)
        if answer is None and store.refs.read_told(repo, name) == commit:
            answer = commit, 0.0, "peers"
        if answer is not None and answer[0] == commit and not name.is_commit and name != keeping_ref(commit):
            refs.append(ArchivedRef(name, answer[2][:255], _whole_seconds(answer[1])))
    if not refs:
        refs.append(ArchivedRef(keeping_ref(commit)))
    return ArchivedRevision(
        repo,
        commit,
        tuple(refs),
        said.visibility,
        said.said_by[:255],
        _whole_seconds(said.asked_at or 0),
        not manifest.is_attested,
        len(listing),
        hashlib.sha256(listing).hexdigest(),
        absences(store.cache, manifest),
    )


def _revision_of_set(commit: Manifest, listing: bytes) -> ArchivedRevision:
    """The commit of a prepared set. No hub knows it, so the archive says nothing of its visibility."""
    refs = (ArchivedRef(keeping_ref(commit.commit)),)
    sha256 = hashlib.sha256(listing).hexdigest()
    return ArchivedRevision(commit.repo, commit.commit, refs, Visibility.UNKNOWN, "", 0, True, len(listing), sha256)


def _skipped_bytes(have: Have, digest: Digest, size_bytes: int) -> int:
    """The first bytes of a blob that the target has; 0 for a blob that is sent in one piece anyway."""
    kept = have.prefixes.get(digest, 0)
    return kept if size_bytes > SMALL_BYTES and kept < size_bytes else 0


def _whole_seconds(seconds: float) -> int:
    return min(max(0, int(seconds)), MAX_TIME)


def _sha256(blob: BlobFile) -> str:
    """The sha256 of a blob. A blob with git's digest is hashed by both. Raises CorruptData for wrong bytes."""
    if blob.digest.algorithm == "sha256":
        return blob.digest.hex
    known, wanted = BlobHash(blob.digest.algorithm, blob.size_bytes), hashlib.sha256()
    try:
        with open(blob.open(), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                check_stop()
                known.update(chunk)
                wanted.update(chunk)
    except OSError as error:
        raise _wrong_bytes(blob, str(error.strerror or error)) from error
    if known.hexdigest() != blob.digest.hex:
        raise _wrong_bytes(blob, "its bytes have another hash")
    return wanted.hexdigest()


def _wrong_bytes(blob: BlobFile, reason: str) -> CorruptData:
    return CorruptData(
        f"The blob {blob.digest} cannot be packed: {reason} ({blob.path}).",
        hint="`hfpeer verify` names the files that need it and their repair. Then run the export again: it continues.",
        digest=str(blob.digest),
        path=str(blob.path),
    )


def write_archive(
    plan: Plan,
    target: Path | Writer,
    part_bytes: int | None = None,
    on_progress: OnProgress = lambda *facts: None,
    send: Send | None = None,
) -> ExportReport:
    """Writes the archive to a file, to parts of `part_bytes`, or to a pipe. Continues an earlier export to that file.
    Without `part_bytes` it writes parts only where the volume holds no file of that size, and the report says so.

    `send` writes to the same pipe as `target`. With it the blobs whose verdict holds are not hashed again here: the
    reader of the pipe hashes them.

    Raises CorruptData for a blob with wrong bytes, InvalidName if the file is another archive, NotThisVolume, NoSpace,
    BrokenCache.
    """
    began = time.monotonic()
    if not isinstance(target, Path):
        return _write(plan, StreamSink(target), on_progress, began, send)
    if part_bytes is not None:
        refuse_large_parts(target, part_bytes)
        return _write_files(plan, target, part_bytes, on_progress, began)
    needed = part_bytes_for(target, _total_bytes(plan)) or _begun_part_bytes(plan, target)
    try:
        report = _write_files(plan, target, needed, on_progress, began)
    except NotThisVolume:
        # FUSE and some servers tell their limit only when it is reached.
        needed = make_first_part(target) if needed is None else None
        if needed is None:
            raise
        report = _write_files(plan, target, needed, on_progress, began)
    if needed is None:
        return report
    return replace(report, notes=(parts_note(target, report.size_bytes, len(report.paths)), *report.notes))


def _total_bytes(plan: Plan) -> int:
    return plan.members()[-1].stop + len(END)


def _begun_part_bytes(plan: Plan, path: Path) -> int | None:
    """The size of the parts that an earlier export of the same has made of this archive by itself; None if it has
    not."""
    begun, is_whole = begun_archive(path, is_in_parts=True)
    if begun is None or not is_whole or path.exists() or begun.end not in PART_SIZES:
        return None
    return begun.end if begun.end < _total_bytes(plan) and _begun_index(plan, begun) is not None else None


def _write_files(plan: Plan, path: Path, part_bytes: int | None, on_progress: OnProgress, began: float) -> ExportReport:
    plan = _continued(plan, path, is_in_parts=part_bytes is not None)
    return _write(plan, FileSink(path, _total_bytes(plan), part_bytes), on_progress, began)


def _write(plan: Plan, sink: _Sink, on_progress: OnProgress, began: float, send: Send | None = None) -> ExportReport:
    everything = plan.members()
    total_bytes = everything[-1].stop + len(END)
    try:
        for member in everything:
            check_stop()
            on_progress(member.path, member.offset, total_bytes)
            if sink.has(member.offset, member.stop):
                continue
            sink.write(member.offset, member.head)
            if member.digest is not None:
                blob = plan.files[member.digest]
                if send is not None and blob.is_verified:
                    _send_blob(member, blob, sink, send, on_progress, total_bytes)
                else:
                    _write_blob(member, blob, sink, on_progress, total_bytes)
        sink.write(everything[-1].stop, END)
    finally:
        sink.close()
    notes = [
        f"{revision.repo} is {revision.visibility.value}: give this archive only to people who may have it."
        for revision in plan.index.revisions
        if revision.visibility in (Visibility.GATED, Visibility.PRIVATE)
    ]
    return ExportReport(
        id_of(plan.text),
        sink.paths,
        total_bytes,
        sink.written_bytes,
        tuple(
            _exported(revision, manifest, plan.index)
            for revision, manifest in zip(plan.index.revisions, plan.manifests, strict=True)
            if not revision.repo.is_of_sets
        ),
        len(plan.index.blobs),
        len(plan.index.omitted),
        time.monotonic() - began,
        tuple(notes),
    )


def _exported(revision: ArchivedRevision, manifest: Manifest, index: ArchiveIndex) -> ExportedRevision:
    files = packed(index, manifest)
    return ExportedRevision(
        str(revision.repo),
        str(revision.commit),
        tuple(map(str, (ref.name for ref in revision.refs))),
        len(files),
        len(manifest.files),
        sum({file.digest: file.size_bytes for file in files}.values()),
        revision.visibility.value,
        revision.is_proved,
    )


def _continued(plan: Plan, path: Path, *, is_in_parts: bool) -> Plan:
    """The plan with the index of an earlier export to this file, if that packs the same; newer answers of hubs do not
    make it another archive. Removes unfinished parts of another archive."""
    begun, is_final = begun_archive(path, is_in_parts=is_in_parts)
    if begun is None:
        return plan
    same = _begun_index(plan, begun)
    if same is not None:
        return plan.with_index(*same)
    if is_final:
        raise InvalidName(
            f"{begun.part_at(0)} exists, and is another archive or no archive.",
            hint="Remove it, or give `-o` another name.",
        )
    remove_begun(path)
    return plan


def _begun_index(plan: Plan, begun: PartFiles) -> tuple[ArchiveIndex, bytes] | None:
    """The index of an archive that was begun, if that packs the same as a plan."""
    try:
        index, text = read_index(begun)
    except HfpeerError:
        return None
    return (index, text) if _packs_same(index, plan.index) else None


def _packs_same(one: ArchiveIndex, other: ArchiveIndex) -> bool:
    def shape(index: ArchiveIndex) -> object:
        revisions = [(revision.repo, revision.commit, revision.listing_sha256) for revision in index.revisions]
        blobs = [(blob.digest, blob.size_bytes, blob.skipped_bytes) for blob in index.blobs]
        return revisions, blobs, index.omitted

    return shape(one) == shape(other)


def _write_blob(member: Member, blob: BlobFile, sink: _Sink, on_progress: OnProgress, total_bytes: int) -> None:
    """Copies a blob and hashes it. Its last chunk is written only when the hash is right."""
    size_bytes = member.skipped_bytes + member.size_bytes
    digest = BlobHash(blob.digest.algorithm, size_bytes)
    offset = member.start - member.skipped_bytes
    last: bytes = b""
    try:
        fd = blob.open()
    except OSError as error:
        sink.cut(member.offset)
        raise _wrong_bytes(blob, "it was removed or changed during the export") from error
    buffer = memoryview(bytearray(min(CHUNK_BYTES, size_bytes)))
    left = size_bytes
    try:
        while left:
            check_stop()
            view = buffer[:left]
            count = os.readv(fd, [view])
            if count == 0:
                break
            digest.update(view[:count])
            left -= count
            packed = view[max(0, member.start - offset) : count]
            offset += count
            if left and packed:
                sink.write(offset - len(packed), packed)
                on_progress(member.path, offset, total_bytes)
            elif not left:
                last = bytes(packed)
        if left or digest.hexdigest() != blob.digest.hex or os.read(fd, 1):
            raise _wrong_bytes(blob, "its bytes have another hash")
    except OSError as error:
        sink.cut(member.offset)
        raise _wrong_bytes(blob, str(error.strerror or error)) from error
    except CorruptData:
        sink.cut(member.offset)
        raise
    finally:
        os.close(fd)
    sink.write(offset - len(last), last + b"\0" * padding_bytes(member.size_bytes))


def _send_blob(
    member: Member, blob: BlobFile, sink: _Sink, send: Send, on_progress: OnProgress, total_bytes: int
) -> None:
    """Copies a blob whose verdict holds, without reading its bytes here."""
    try:
        fd = blob.open()
    except OSError as error:
        raise _wrong_bytes(blob, "it was removed or changed during the export") from error
    offset, stop = member.skipped_bytes, member.skipped_bytes + member.size_bytes
    try:
        while offset < stop:
            check_stop()
            count = send(fd, offset, min(CHUNK_BYTES, stop - offset))
            if count == 0:
                raise _wrong_bytes(blob, "it became shorter during the export")
            offset += count
            sink.written_bytes += count
            on_progress(member.path, member.start + offset - member.skipped_bytes, total_bytes)
    except OSError as error:
        raise _wrong_bytes(blob, str(error.strerror or error)) from error
    finally:
        os.close(fd)
    sink.write(member.stop - padding_bytes(member.size_bytes), b"\0" * padding_bytes(member.size_bytes))


def read_have(path: Path) -> Have:
    """The blobs of a have-file, of an archive, or of the index of an archive. Raises BadArchive, BrokenCache."""
    from hfpeer.archive.parts import archives_of
    from hfpeer.cache.disk.os_errors import translated

    with translated("read the have-file", path), path.open("rb") as file:
        start = file.read(16)
        if start.startswith(b".locks/"):
            (data,) = archives_of([path])
            index = read_index(data)[0]
        elif start.startswith(b"{"):
            index = ArchiveIndex.from_json(path.read_bytes())
        else:
            try:
                return parse_have(path.read_text(encoding="utf-8"))
            except UnicodeDecodeError as error:
                raise BadArchive(f"{path} is no have-file.", hint="`hfpeer have -o FILE` writes one.") from error
    return Have(frozenset(blob.digest for blob in index.blobs).union(index.omitted))
