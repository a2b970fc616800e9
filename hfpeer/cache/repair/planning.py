"""Decides what a repair does about each finding of a verification. Changes nothing.

A file is mended from the list of its commit. A ref is written only from knowledge: what a hub, a peer or an archive
told this node, or what the user says. A finding that needs a list or bytes says so; the operation finds them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from hfpeer.cache.disk import layout
from hfpeer.cache.repair.local_copies import LocalCopies
from hfpeer.cache.repair.results import (
    CANNOT,
    COPY,
    FETCH,
    KEEP_REF,
    LEAVE,
    LINK,
    LIST,
    OPEN,
    REMOVE,
    REMOVE_REF,
    RENAME,
    SET_ASIDE,
    TAKE,
    WRITE_LIST,
    WRITE_PROOF,
    WRITE_REF,
)
from hfpeer.cache.store import Store
from hfpeer.cache.verify.findings import Finding
from hfpeer.cache.verify.inspection import UNFINISHED, Inspection
from hfpeer.cache.verify.verification import Examined
from hfpeer.errors import InvalidName
from hfpeer.git.lfs import MAX_POINTER_BYTES
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, Revision, keeping_ref

BYTES = {"wrong_bytes", "wrong_size", "lfs_pointer", "no_bytes", "shared_store"}
"""Kinds of finding on the bytes of a file; other kinds are on the way to them."""
FIRST = (OPEN, LIST, RENAME, COPY)
"""Actions after which less is wrong, or more is known: the cache is looked at again before bytes are fetched."""


@dataclass(frozen=True)
class Step:
    """What to do about one finding. `commit` is that of the file or of the ref; empty for a blob that no snapshot
    needs. `file` is the file to mend, `fetch_bytes` what is missing of it on this machine. `revision` is the name of a
    ref. `why` is a sentence, for people."""

    finding: Finding
    repo: RepoId
    action: str
    commit: Commit
    file: ManifestFile | None = None
    fetch_bytes: int = 0
    revision: Revision | None = None
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The identity of its finding in later verifications."""
        return key_of(self.finding)


def key_of(finding: Finding) -> tuple[str, str, str, str]:
    return finding.repo, finding.commit, finding.path, finding.kind


@dataclass(frozen=True)
class Knowledge:
    """What a plan may know beside the cache: the refs that the user told, and the revisions whose list cannot be had,
    each with the reason."""

    refs: Mapping[Revision, Commit]
    without_list: Mapping[tuple[RepoId, Commit], str]


def make_plan(store: Store, examined: Examined, copies: LocalCopies, knowledge: Knowledge) -> list[Step]:
    """A step for each finding in a repo, in their order. What lies beside the repos is left alone. Blocking."""
    planners = {
        str(repo): _RepoPlanner(store, repo, inspection, copies, knowledge) for repo, inspection in examined.inspections
    }
    return [planners[one.repo].step(one) for one in examined.report.findings if one.repo in planners]


def manifest_of(store: Store, repo: RepoId, commit: Commit, inspection: Inspection) -> Manifest | None:
    """The manifest of a revision: the one that this node knows, else one made of the list that was found."""
    known = store.manifests.load(repo, commit)
    listing = inspection.listings.get(commit)
    if known is not None or listing is None or not listing.files:
        return known
    return Manifest(repo, commit, tuple(sorted(listing.files.values(), key=attrgetter("path"))))


class _RepoPlanner:
    """The steps of one repo."""

    def __init__(
        self, store: Store, repo: RepoId, inspection: Inspection, copies: LocalCopies, knowledge: Knowledge
    ) -> None:
        self._store = store
        self._repo = repo
        self._folder = layout.repo_folder(store.cache, repo)
        self._inspection = inspection
        self._copies = copies
        self._knowledge = knowledge
        self._counted: set[Digest] = set()
        self._here = {revision.commit for revision in inspection.revisions}
        self._lost = [one for one in inspection.findings if one.kind == "orphan" and one.repair.startswith("hfpeer ")]
        """Blobs of a snapshot that is gone or empty."""
        self._file_kinds = dict.fromkeys(
            (
                "wrong_bytes",
                "wrong_size",
                "lfs_pointer",
                "no_bytes",
                "shared_store",
                "no_link",
                "no_place",
                "wrong_link",
                "absolute_link",
                "outside_link",
                "copy",
            ),
            self._plan_file,
        )
        self._kinds: dict[str, Callable[[Finding], Step]] = {
            **self._file_kinds,
            "unreadable": self._plan_mode,
            "not_group_writable": self._plan_group,
            "ref_text": lambda finding: self._plan_ref(finding, Commit(finding.commit)),
            "ref_missing": lambda finding: self._plan_ref(finding, Commit(finding.commit)),
            "ref_malformed": self._plan_bad_ref,
            "ref_dangling": self._plan_bad_ref,
            "no_ref": self._plan_no_ref,
            "empty_revision": lambda finding: self._plan_list(finding),
            "bad_listing": lambda finding: self._plan_record(finding, WRITE_LIST),
            "bad_proof": lambda finding: self._plan_record(finding, WRITE_PROOF),
            "false_absence": lambda finding: self._make(finding, REMOVE),
            "foreign": self._plan_foreign,
        }

    def step(self, finding: Finding) -> Step:
        plan = self._kinds.get(finding.kind)
        return self._make(finding, LEAVE) if plan is None else plan(finding)

    def _make(
        self,
        finding: Finding,
        action: str,
        *,
        commit: Commit | None = None,
        file: ManifestFile | None = None,
        fetch_bytes: int = 0,
        revision: Revision | None = None,
        why: str = "",
    ) -> Step:
        commit = Commit(finding.commit) if commit is None else commit
        return Step(finding, self._repo, action, commit, file, fetch_bytes, revision, why)

    # Files

    def _plan_file(self, finding: Finding) -> Step:
        if finding.path.startswith("blobs/") and not finding.commit:
            return self._plan_blob(finding)
        if finding.kind == "outside_link" and not finding.path.count("/") and not finding.commit:
            return self._make(finding, CANNOT, why="Move the folder itself to the place of the link.")
        file = self._file_of(finding)
        if file is None:
            return self._plan_list(finding)
        return self._plan_bytes(finding, file)

    def _plan_bytes(self, finding: Finding, file: ManifestFile) -> Step:
        self._store.inventory.find(file.digest, self._repo)
        if not self._store.inventory.missing([file]):
            return self._make(finding, TAKE if finding.kind in BYTES else LINK, file=file)
        fetch_bytes = 0 if file.digest in self._counted else self._missing_bytes(file)
        self._counted.add(file.digest)
        return self._make(finding, FETCH, file=file, fetch_bytes=fetch_bytes)

    def _plan_blob(self, finding: Finding) -> Step:
        """A finding on a blob by itself: a link that leads away, or wrong bytes that no link in a snapshot leads to."""
        path = self._folder / finding.path
        if finding.kind in ("absolute_link", "outside_link"):
            return self._make(finding, COPY)
        digest = Digest.from_etag(path.name)
        for commit, listing in self._inspection.listings.items() if self._here else ():
            for file in listing.files.values():
                if file.digest == digest and commit in self._here and self._is_there(commit, file.path):
                    return replace(self._plan_bytes(finding, file), commit=commit)
        copy = self._store.inventory.find(digest, self._repo)
        if copy is not None:
            return self._make(finding, TAKE, file=ManifestFile(FilePath(path.name), copy.size_bytes, digest))
        return self._aside(finding)

    def _is_there(self, commit: Commit, name: str) -> bool:
        """Whether a snapshot has an entry of this name."""
        return os.path.lexists(layout.snapshot_path(self._store.cache, self._repo, commit) / name)

    def _aside(self, finding: Finding) -> Step:
        why = "No file of a snapshot needs it, and its bytes are not those of its name."
        return self._make(finding, SET_ASIDE, why=why)

    def _file_of(self, finding: Finding) -> ManifestFile | None:
        """The file of a finding: from the list of its commit, else by the digest of a blob that is here."""
        commit = Commit(finding.commit)
        manifest = self._store.manifests.load(self._repo, commit)
        if manifest is not None and (file := manifest.by_path.get(FilePath(finding.path))) is not None:
            return file
        listing = self._inspection.listings.get(commit)
        known = listing.files.get(finding.path) if listing is not None else None
        if known is not None:
            return known
        if not finding.digest:
            return None
        digest = Digest.parse(finding.digest)
        found = self._store.inventory.find(digest, self._repo)
        try:
            path = FilePath.parse(finding.path)
        except InvalidName:
            return None
        return None if found is None else ManifestFile(path, found.size_bytes, digest)

    def _missing_bytes(self, file: ManifestFile) -> int:
        """At most so many bytes of a file have to come over a network; fewer if a peer tells which pieces differ."""
        best = 0
        for path, is_wrong in self._copies.of(file.digest, self._repo):
            try:
                size_bytes = path.stat().st_size
            except OSError:
                continue
            if not is_wrong and size_bytes == file.size_bytes:
                return 0
            if MAX_POINTER_BYTES < size_bytes != file.size_bytes and file.size_bytes > SMALL_BYTES:
                best = max(best, min(size_bytes, file.size_bytes))
        return file.size_bytes - best

    # Lists

    def _plan_list(self, finding: Finding, commit: Commit | None = None) -> Step:
        commit = commit or Commit(finding.commit)
        why = self._knowledge.without_list.get((self._repo, commit))
        if why is not None:
            return self._make(finding, CANNOT, commit=commit, why=why)
        return self._make(finding, LIST, commit=commit)

    def _plan_record(self, finding: Finding, action: str) -> Step:
        """A list or a proof that cannot be used: written anew from a manifest, removed if there is none."""
        commit = Commit(finding.commit)
        manifest = self._store.manifests.load(self._repo, commit)
        is_enough = manifest is not None and not (action == WRITE_PROOF and manifest.is_attested)
        if is_enough:
            return self._make(finding, action, commit=commit)
        if (self._repo, commit) in self._knowledge.without_list:
            return self._make(finding, REMOVE, commit=commit, why="No source could give it anew.")
        return self._make(finding, LIST, commit=commit)

    # Refs

    def _plan_ref(self, finding: Finding, commit: Commit) -> Step:
        try:
            revision = Revision.parse(finding.path.removeprefix("refs/"))
        except InvalidName as error:
            return self._make(finding, CANNOT, why=error.message)
        return self._make(finding, WRITE_REF, revision=revision, commit=commit)

    def _plan_bad_ref(self, finding: Finding) -> Step:
        """A ref to nothing: to what this node knows of its name, else it is removed."""
        name = finding.path.removeprefix("refs/")
        known = self._known_refs().get(name)
        if known in self._here and known is not None:
            return self._plan_ref(finding, known)
        if finding.kind == "ref_dangling" and self._lost:
            commit = Commit(finding.commit)
            why = self._knowledge.without_list.get((self._repo, commit))
            if why is None:
                return self._make(finding, LIST, commit=commit)
            if not self._store.manifests.load(self._repo, commit):
                return self._make(finding, CANNOT, commit=commit, why=f"Blobs of a lost snapshot are here. {why}")
        return self._make(finding, REMOVE_REF)

    def _plan_no_ref(self, finding: Finding) -> Step:
        commit = Commit(finding.commit)
        for name, known in self._known_refs().items():
            place = self._folder / "refs" / name
            if known == commit and not os.path.lexists(place):
                return self._make(finding, WRITE_REF, revision=Revision(name), commit=commit)
        return self._make(finding, KEEP_REF, revision=keeping_ref(commit), commit=commit)

    def _known_refs(self) -> dict[str, Commit]:
        """By name: the commits that the user, a hub or an archive told this node."""
        known = self._store.refs.known(self._repo)
        return {**known, **{str(name): commit for name, commit in self._knowledge.refs.items()}}

    # The rest

    def _plan_mode(self, finding: Finding) -> Step:
        path = self._folder / finding.path
        try:
            is_own = path.lstat().st_uid == os.geteuid()
        except OSError:
            is_own = False
        if is_own:
            return self._make(finding, OPEN)
        return self._make(finding, CANNOT, why=f"{finding.repair[:1].upper()}{finding.repair[1:]}")

    def _plan_group(self, finding: Finding) -> Step:
        is_own = self._folder.stat().st_uid == os.geteuid()
        if is_own and not any(one.kind == "unreadable" for one in self._inspection.findings):
            return self._make(finding, OPEN)
        return self._make(finding, LEAVE, why=finding.repair)

    def _plan_foreign(self, finding: Finding) -> Step:
        """A blob whose name is in another case is renamed, if its bytes are right; anything else is left alone."""
        path = Path(finding.path)
        is_blob = path.parent == Path("blobs") and not path.name.endswith(UNFINISHED)
        if is_blob and path.name != path.name.lower() and (self._folder / path).is_file():
            try:
                Digest.from_etag(path.name.lower())
            except InvalidName:
                return self._make(finding, LEAVE)
            return self._make(finding, RENAME)
        return self._make(finding, LEAVE)


SMALL_BYTES = 256 * 1024
"""A file of at most this size is fetched whole: a part of it is of no use."""
