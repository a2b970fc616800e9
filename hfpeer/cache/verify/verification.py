"""Verifies a cache: inspects the structure of each repo, hashes its files, and reports the faults.

Works on this node's cache, whose verdicts it keeps, and on any other folder that is a cache, in which it changes
nothing. Asks no network.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.disk import layout
from hfpeer.cache.disk.access import group_advice
from hfpeer.cache.disk.kinds import other_kind
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.partial.files import partial_folders
from hfpeer.cache.verify.blobs import Blob
from hfpeer.cache.verify.checking import (
    CHANGING,
    POINTER,
    RIGHT,
    UNREADABLE,
    Checked,
    Hashed,
    Progress,
    Verdicts,
    check,
)
from hfpeer.cache.verify.findings import NAMED, Finding, VerifyReport, folder_of, in_order
from hfpeer.cache.verify.inspection import Inspection, inspect, link_command
from hfpeer.cache.verify.listings import find_listing
from hfpeer.errors import InvalidName, NotFound
from hfpeer.names import RepoId
from hfpeer.system.cancellation import check_stop

OTHERS = {layout.LOCKS, "blobs", "CACHEDIR.TAG", "version.txt", ".DS_Store"}
"""Names beside the repos of a cache that the Hub client, or the system, makes."""
_PROBABLY = "a file of the same size lies where a link should be: the same bytes are probably here twice"
_KIND_OF = {POINTER: "lfs_pointer", CHANGING: "changing", UNREADABLE: "unreadable"}


@dataclass(frozen=True)
class Examined:
    """The result of a verification, with what it saw of each repo, and of the files that `Hashed.notable` has."""

    report: VerifyReport
    inspections: tuple[tuple[RepoId, Inspection], ...]
    checked: tuple[Checked, ...]


def examine(
    cache: Path,
    manifests: Manifests,
    catalog: Catalog | None,
    repos: Sequence[RepoId] = (),
    *,
    is_only_read: bool = False,
    is_quick: bool = False,
    trusts_verdicts: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Examined:
    """Verifies these repos, or all. With a `catalog` earlier verdicts are used, unless not `trusts_verdicts`, and new
    ones are kept, and the refs that this node knows have to be there, unless the cache `is_only_read`. `is_quick`
    hashes nothing. Blocking.

    Raises NotFound for a repo, or a cache, that is not there, BrokenCache if the cache cannot be listed, and Stopped.
    """
    began = time.monotonic()
    there, findings = _repos(cache)
    missing = [repo for repo in repos if repo not in there]
    if missing:
        raise NotFound(
            f"{missing[0]} is not in the cache {cache}.",
            hint=f"`hfpeer {missing[0].type.value} ls` lists what is in this node's cache.",
            repo=str(missing[0]),
        )
    if repos:
        findings = []
    inspections = []
    for repo in repos or there:
        check_stop()
        rows = catalog.refs(repo.folder) if catalog and not is_only_read else ()
        refs = {row.name: row.commit for row in rows}
        inspections.append((repo, inspect(cache, repo, partial(find_listing, cache, manifests, repo), refs)))
    if not repos:
        findings += _second_names(cache, inspections) + _partials(cache) + _closed_locks(cache)
    hashed = Hashed()
    if not is_quick:
        blobs = [blob for _, inspection in inspections for blob in _hashable(inspection)]
        verdicts = Verdicts(catalog) if catalog else None
        hashed = check(cache, blobs, verdicts, on_progress, trusts_verdicts=trusts_verdicts)
    for _, inspection in inspections:
        findings += _settled(inspection, {id(one.blob): one for one in hashed.notable}, is_quick=is_quick)
    findings += _judged(cache, hashed.notable, inspections)
    in_it = in_order(replace(one, cache=str(cache)) for one in findings)
    report = VerifyReport(
        str(cache),
        is_quick,
        tuple(replace(one, cache=str(cache)) for _, inspection in inspections for one in inspection.revisions),
        in_it,
        hashed.files,
        hashed.size_bytes,
        hashed.known_files,
        hashed.known_bytes,
        time.monotonic() - began,
        (folder_of(str(cache), in_it),),
    )
    return Examined(report, tuple(inspections), hashed.notable)


def _repos(cache: Path) -> tuple[list[RepoId], list[Finding]]:
    """The repos of a cache, and a finding for each name beside them that no Hub client makes."""
    found, foreign = [], []
    try:
        with translated("look at the cache", cache), os.scandir(cache) as entries:
            names = sorted(entry.name for entry in entries)
    except Exception as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            raise NotFound(f"There is no cache at {cache}.", hint="Check --cache.", path=str(cache)) from error
        raise
    for name in names:
        try:
            found.append(RepoId.from_folder(name))
        except InvalidName:
            if name not in OTHERS:
                foreign.append(_of_cache(name, "foreign", 0, ""))
    if not found:
        _refuse_other_folder(cache)
    return found, foreign


def _refuse_other_folder(folder: Path) -> None:
    """Raises NotFound for a folder of another kind, and says which kind it is."""
    what = other_kind(folder)
    if what:
        raise NotFound(
            f"{folder} is no Hub cache, but {what}.",
            hint="A Hub cache has folders such as models--ORG--NAME; it is the folder that `hf cache ls` shows.",
            path=str(folder),
        )


def _of_cache(path: str, kind: str, size_bytes: int, repair: str, digest: str = "") -> Finding:
    shown = path.encode("utf-8", "replace").decode()
    return Finding("", "", shown, kind, digest, size_bytes, NAMED, repair)


def _partials(cache: Path) -> list[Finding]:
    """Blobs that hfpeer has begun to fetch."""
    found = []
    for folder in partial_folders(cache):
        try:
            size_bytes = (folder / "data").lstat().st_blocks * 512
        except OSError:
            continue
        path = str(folder.relative_to(cache))
        found.append(_of_cache(path, "unfinished", size_bytes, "The same `hfpeer … add` goes on from it."))
    return found


def _closed_locks(cache: Path) -> list[Finding]:
    """The folder of locks and partials, if the group of the cache cannot write there."""
    advice = group_advice(cache, cache / layout.LOCKS)
    return [_of_cache(layout.LOCKS, "not_group_writable", 0, advice)] if advice else []


def _second_names(cache: Path, inspections: Iterable[tuple[RepoId, Inspection]]) -> list[Finding]:
    """Blobs that can be changed through a name outside of the cache: a hard link, and a mode that allows writing."""
    blobs = [(repo, blob) for repo, one in inspections for blob in (*one.blobs, *one.copies) if blob.names > 1]
    inside = Counter(blob.inode for _, blob in blobs)
    return [
        Finding(
            str(repo),
            "",
            str(blob.path.relative_to(cache / repo.folder)),
            "second_name",
            str(blob.digest or ""),
            blob.size_bytes,
            NAMED,
            "",
        )
        for repo, blob in blobs
        if blob.names > inside[blob.inode] and blob.is_writable
    ]


def _hashable(inspection: Inspection) -> Iterator[Blob]:
    """Every file that has a digest, or may be a copy of a blob. A file of the wrong size is judged already."""
    for blob in (*inspection.blobs, *inspection.copies):
        if (blob.digest is not None or blob.may_be) and not blob.has_wrong_size:
            yield blob


def _settled(inspection: Inspection, checked: dict[int, Checked], *, is_quick: bool) -> list[Finding]:
    """The findings of an inspection, without the copies that turned out to have other bytes than their blob.

    A copy gets a repair, which deletes its bytes, only if it was hashed and its blob too.
    """
    if is_quick:
        hint = "Without --quick: both must be hashed first."
        return [
            replace(one, detail=_PROBABLY, repair=hint) if one.kind == "copy" else one for one in inspection.findings
        ]
    copies = {str(blob.path): checked[id(blob)] for blob in inspection.copies if id(blob) in checked}
    by_place = {(one.blob.commit, one.blob.used_as): one for one in copies.values()}
    hashed = (blob for blob in inspection.blobs if copies and not blob.has_wrong_size)
    right = {str(blob.digest) for blob in hashed if id(blob) not in checked}
    settled = []
    for finding in inspection.findings:
        one = by_place.get((finding.commit, finding.path)) if finding.kind == "copy" else None
        if one is None:
            settled.append(finding)
        elif one.verdict == RIGHT and str(one.digest) in right:
            # Several blobs may have its size: the link leads to the one that has its bytes.
            repair = link_command(finding.path, one.digest.hex, one.blob.name) if one.digest else ""
            settled.append(replace(finding, digest=str(one.digest), repair=repair))
    return settled


def _judged(cache: Path, checked: Iterable[Checked], inspections: Iterable[tuple[RepoId, Inspection]]) -> list[Finding]:
    """A finding for each file whose bytes are wrong or cannot be read: of the first revision that needs it."""
    grades = {
        (str(repo), revision.commit): revision.grade
        for repo, inspection in inspections
        for revision in inspection.revisions
    }
    reported = {
        (finding.repo, finding.digest)
        for _, inspection in inspections
        for finding in inspection.findings
        if finding.kind == "unreadable"
    }
    found = []
    for one in checked:
        blob = one.blob
        repo = RepoId.from_folder(blob.path.relative_to(cache).parts[0])
        if one.verdict == RIGHT or blob.digest is None:
            continue
        if one.verdict == UNREADABLE and (str(repo), str(blob.digest)) in reported:
            continue
        commit, path = blob.commit, blob.used_as or f"blobs/{blob.file}"
        pinned = f" -v {commit}" if commit else ""
        found.append(
            Finding(
                str(repo),
                commit,
                path,
                _KIND_OF.get(one.verdict, "wrong_bytes"),
                str(blob.digest),
                blob.size_bytes,
                grades.get((str(repo), commit), NAMED),
                f"hfpeer {repo.type.value} add -r {repo.full_name}{pinned}",
                one.reason.rstrip("."),
            )
        )
    return found
