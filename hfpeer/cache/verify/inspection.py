"""Looks at the structure of one repo in a cache: names, links, sizes, refs, lists. Reads the bytes of no blob.

No link is followed, except from a blob into the shared store of the Hub client. Changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from hfpeer.cache.disk import layout
from hfpeer.cache.disk.access import group_advice, why_unreadable
from hfpeer.cache.disk.mounts import mount_of
from hfpeer.cache.snapshots import ASIDE_SUFFIX, is_tree_of, read_tree
from hfpeer.cache.verify.blobs import Blob, are_twins, blob_of, digest_of
from hfpeer.cache.verify.findings import NAMED, Finding, VerifiedRevision
from hfpeer.cache.verify.listings import Listing
from hfpeer.errors import InvalidName
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.system.cancellation import check_stop

UNFINISHED = (".incomplete", ".downloadInProgress", ".part")
"""Ends of the names of unfinished downloads. Source: huggingface_hub, llama.cpp."""
KNOWN = {"blobs", "snapshots", "refs", "trees", ".no_exist", layout.PROOFS}
"""Names that the Hub client and hfpeer make in a repo's folder."""
MAX_REF_BYTES = 256
"""Bytes read of a ref. A longer one has no commit in it."""
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass
class Inspection:
    """A repo as it lies there: its findings, its revisions, and the files whose bytes can be hashed."""

    findings: list[Finding] = field(default_factory=list)
    revisions: list[VerifiedRevision] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    """Those in `blobs/`."""
    copies: list[Blob] = field(default_factory=list)
    """Regular files in snapshots."""
    listings: dict[Commit, Listing] = field(default_factory=dict)
    """The list of the files of each revision."""


def inspect(
    cache: Path,
    repo: RepoId,
    find_listing: Callable[[Commit], Listing],
    known_refs: Mapping[str, str],
) -> Inspection:
    """Inspects one repo. `known_refs` are the refs, with their commits, that the node knows from hubs. Raises
    Stopped."""
    return _Inspector(cache, repo, find_listing, known_refs).run()


class _Inspector:
    def __init__(
        self, cache: Path, repo: RepoId, find_listing: Callable[[Commit], Listing], known_refs: Mapping[str, str]
    ) -> None:
        self._cache = cache
        self._repo = repo
        self._folder = layout.repo_folder(cache, repo)
        self._find_listing = find_listing
        self._known_refs = known_refs
        self._found = Inspection()
        self._blobs: dict[str, Blob] = {}
        self._lost: dict[str, str] = {}
        """By name: the target of each blob that is a link to nothing."""
        self._listings = self._found.listings
        self._without_links: bool | None = None

    def run(self) -> Inspection:
        if self._is_closed():
            return self._found
        self._look_around()
        self._read_blobs()
        snapshots = self._snapshots()
        refs = self._read_refs()
        self._add_lost_snapshots(snapshots, refs)
        refs_of: dict[str, list[str]] = defaultdict(list)
        for name, commit in refs.items():
            refs_of[commit].append(name)
        for commit in sorted(snapshots):
            self._inspect_revision(commit, snapshots[commit], tuple(sorted(refs_of[commit])))
        self._judge_refs(refs, snapshots)
        self._judge_blobs()
        return self._found

    # The folder

    def _is_closed(self) -> bool:
        """Whether this user may not read the folder at all. Then that is the only finding: of another user's folder a
        note, of an own one a fault."""
        try:
            (self._folder / "snapshots").lstat()
            os.scandir(self._folder).close()
        except PermissionError as error:
            detail, repair = why_unreadable(self._folder, error)
            is_own = self._folder.stat().st_uid == os.geteuid()
            self._add("unreadable" if is_own else "closed", "", "", repair=repair, detail=detail)
            return True
        except OSError:
            return False
        return False

    def _look_around(self) -> None:
        for entry in self._entries(self._folder):
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name in KNOWN and is_folder:
                continue
            if entry.name in KNOWN and entry.is_symlink():
                self._add("outside_link", "", entry.name, repair="Move the folder itself there.")
            elif entry.name.endswith(ASIDE_SUFFIX):
                self._add("unfinished", "", entry.name, size_bytes=_size(entry), repair=_REMOVE)
            else:
                detail = _SET_ASIDE * (is_folder and entry.name == layout.SET_ASIDE)
                self._add("foreign", "", entry.name + "/" * is_folder, size_bytes=_size(entry), detail=detail)
        advice = group_advice(self._cache, self._folder)
        if advice:
            self._add("not_group_writable", "", "", repair=advice)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """The entries of a folder, one at a time; none if it does not exist or is a link. A finding if it cannot be
        read."""
        try:
            if folder.is_symlink() and folder != self._folder:
                return
            with os.scandir(folder) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._add_unreadable(folder, error)

    def _walk(self, folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """All below a folder that is no folder, by path."""
        stack = [("", folder)]
        while stack:
            prefix, place = stack.pop()
            for entry in self._entries(place):
                check_stop()
                if entry.is_dir(follow_symlinks=False):
                    stack.append((f"{prefix}{entry.name}/", Path(entry.path)))
                else:
                    yield prefix + entry.name, entry

    # Blobs

    def _read_blobs(self) -> None:
        for entry in self._entries(layout.blobs_folder(self._cache, self._repo)):
            check_stop()
            name = f"blobs/{entry.name}"
            if entry.name.endswith(UNFINISHED):
                self._add("unfinished", "", name, size_bytes=_size(entry), repair=_REMOVE)
            elif not _HEX.fullmatch(entry.name):
                self._add("foreign", "", name, size_bytes=_size(entry))
            else:
                self._read_blob(entry)

    def _read_blob(self, entry: os.DirEntry[str]) -> None:
        digest = digest_of(entry.name)
        if entry.is_symlink():
            target = os.readlink(entry.path)  # noqa: PTH115 - as for the links of snapshots
            if not os.path.realpath(entry.path).startswith(os.path.realpath(self._cache) + os.sep):
                kind = "absolute_link" if target.startswith("/") else "outside_link"
                self._add(kind, "", f"blobs/{entry.name}", repair=self._fetch(""))
            if not os.path.exists(entry.path):  # noqa: PTH110
                self._lost[entry.name] = target
                return
        try:
            facts = entry.stat()
        except OSError as error:
            self._add_unreadable(Path(entry.path), error)
            return
        if not stat.S_ISREG(facts.st_mode):
            self._add("foreign", "", f"blobs/{entry.name}")
            return
        self._blobs[entry.name] = blob_of(entry, facts)
        if not os.access(entry.path, os.R_OK):
            self._add_unreadable(Path(entry.path), None, digest, facts.st_size)

    # Revisions

    def _snapshots(self) -> dict[Commit, Path]:
        found = {}
        for entry in self._entries(layout.snapshots_folder(self._cache, self._repo)):
            try:
                commit = Commit.parse(entry.name)
            except InvalidName:
                self._add("foreign", "", f"snapshots/{entry.name}")
                continue
            if entry.is_dir(follow_symlinks=False):
                found[commit] = Path(entry.path)
            else:
                self._add("outside_link", commit, "", repair=self._fetch(commit))
        return found

    def _add_lost_snapshots(self, snapshots: dict[Commit, Path], refs: Mapping[str, Commit]) -> None:
        """Adds the revisions that a ref names, whose snapshot is gone, and of which at least one blob is here."""
        for commit in {*refs.values()} - snapshots.keys():
            listing = self._listing(commit)
            if any(file.digest.hex in self._blobs for file in listing.files.values()):
                snapshots[commit] = layout.snapshot_path(self._cache, self._repo, commit)

    def _is_without_links(self) -> bool:
        """Whether the volume has no links. A link in a snapshot shows that it has."""
        if self._without_links is None:
            self._without_links = mount_of(self._cache).has_no_links and not any(
                entry.is_symlink() for _, entry in self._walk(layout.snapshots_folder(self._cache, self._repo))
            )
        return self._without_links

    def _listing(self, commit: Commit) -> Listing:
        if commit not in self._listings:
            self._listings[commit] = self._find_listing(commit)
        return self._listings[commit]

    def _inspect_revision(self, commit: Commit, folder: Path, refs: tuple[str, ...]) -> None:
        listing = self._listing(commit)
        self._judge_lists(commit, listing)
        here: set[str] = set()
        distinct: dict[str, int] = {}
        files = listing.files
        for path, entry in self._walk(folder):
            expected = files.get(path)
            if expected is None and path.endswith(UNFINISHED):
                self._add("unfinished", commit, path, size_bytes=_size(entry), repair=_REMOVE)
                continue
            if files and expected is None:
                self._add("foreign", commit, path, size_bytes=_size(entry))
                self._note_needed(entry)
                continue
            path = path if expected is None else expected.path  # one text for both
            here.add(path)
            blob = self._inspect_entry(commit, path, entry, expected)
            if blob is not None:
                distinct[blob.digest.hex if blob.digest else path] = blob.size_bytes
                self._judge_size(commit, path, blob, expected)
        for path, file in files.items():
            if path not in here:
                self._judge_absent(commit, file)
        self._judge_absences(commit, listing)
        if not here and not listing.files and os.access(folder, os.R_OK | os.X_OK):
            self._add("empty_revision", commit, "", repair=self._fetch(commit))
        if not refs:
            self._add("no_ref", commit, "")
        self._found.revisions.append(
            VerifiedRevision(
                self._repo.full_name,
                self._repo.type.value,
                commit,
                refs,
                listing.grade,
                len(here),
                len(listing.files) if listing.grade != NAMED else None,
                sum(distinct.values()),
            )
        )

    def _judge_lists(self, commit: Commit, listing: Listing) -> None:
        if listing.bad_proof:
            path = layout.proof_path(self._cache, self._repo, commit)
            self._add("bad_proof", commit, "", repair=_rm(path), detail=listing.bad_proof.rstrip("."))
        tree = layout.tree_path(self._cache, self._repo, commit)
        try:
            tree.lstat()
        except OSError:
            return
        if not os.access(tree, os.R_OK):
            self._add_unreadable(tree, None, commit=commit)
        elif not is_tree_of(tree, listing.files.values()) and read_tree(tree) is None:
            self._add("bad_listing", commit, f"trees/{commit}.json", repair=_rm(tree))

    def _inspect_entry(
        self, commit: Commit, path: str, entry: os.DirEntry[str], expected: ManifestFile | None
    ) -> Blob | None:
        """The bytes behind an entry of a snapshot; None if there are none, or not the right ones."""
        if entry.is_symlink():
            return self._inspect_link(commit, path, os.readlink(entry.path), expected)  # noqa: PTH115 - thousands
        try:
            facts = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._add_unreadable(Path(entry.path), error, commit=commit)
            return None
        if not stat.S_ISREG(facts.st_mode):
            self._add("foreign", commit, path)
            return None
        if not os.access(entry.path, os.R_OK):
            self._add_unreadable(Path(entry.path), None, expected.digest if expected else None, facts.st_size, commit)
        blob = blob_of(entry, facts, expected.digest if expected else None, is_in_blobs=False)
        self._found.copies.append(blob)
        names = [expected.digest.hex] if expected else self._blobs
        twins = [name for name in names if name in self._blobs and are_twins(blob, self._blobs[name])]
        if twins:
            for name in twins:
                self._need(name)
            blob.may_be = tuple(map(digest_of, twins))
            repair = link_command(path, twins[0], entry.path)
            self._add("copy", commit, path, blob.may_be[0], blob.size_bytes, repair=repair)
        return blob

    def _inspect_link(self, commit: Commit, path: str, target: str, expected: ManifestFile | None) -> Blob | None:
        name = target.rpartition("/")[2]
        digest = expected.digest if expected else digest_of(name) if _HEX.fullmatch(name) else None
        size_bytes = expected.size_bytes if expected else 0
        if expected:
            self._need(expected.digest.hex)
        if expected and target == layout.link_target(FilePath(path), expected.digest):
            pass
        elif target.startswith("/"):
            repair = self._link(commit, path, name) if name in self._blobs else self._fetch(commit)
            self._add("absolute_link", commit, path, digest, size_bytes, repair=repair)
            self._need(name)
            return self._blobs.get(name) if expected is None or name == expected.digest.hex else None
        elif (place := self._end_of(commit, path, target)) is None:
            self._add("outside_link", commit, path, digest, size_bytes, repair=self._fetch(commit))
            return None
        elif not _is_blob(place):
            detail = "the name in the snapshot leads to another name, and not to the blob itself"
            digest = digest or self._at_the_end(commit, path)
            self._add("wrong_link", commit, path, digest, size_bytes, repair=self._fetch(commit), detail=detail)
            return None
        elif expected and name != expected.digest.hex:
            self._need(name)
            self._add("wrong_link", commit, path, digest, size_bytes, repair=self._fetch(commit))
            return None
        self._need(name)
        blob = self._blobs.get(name)
        if blob is None:
            self._add_no_bytes(commit, path, name, digest, size_bytes)
        return blob

    def _at_the_end(self, commit: Commit, path: str) -> Digest | None:
        """The digest of the blob of this repo at the end of a chain of links; None if there is none."""
        folder = os.path.realpath(self._folder)
        end = os.path.realpath(f"{folder}/snapshots/{commit}/{path}")
        name = end.removeprefix(f"{folder}/blobs/")
        if name not in self._blobs:
            return None
        self._need(name)
        return digest_of(name)

    def _end_of(self, commit: Commit, path: str, target: str) -> str | None:
        """The path, in the repo's folder, to which a relative link leads; None if it leads out."""
        place = os.path.normpath(os.path.join("snapshots", commit, os.path.dirname(path), target))  # noqa: PTH118, PTH120
        return None if place.startswith("..") else place

    def _add_no_bytes(self, commit: Commit, path: str, name: str, digest: Digest | None, size_bytes: int) -> None:
        kind = "shared_store" if "/blobs/" in self._lost.get(name, "") else "no_bytes"
        repair = self._fetch(commit)
        if kind == "shared_store":
            repair = f"Copy it there again and follow links (`rsync -aL`), or fetch it: {repair}"
        self._add(kind, commit, path, digest, size_bytes, repair=repair)

    def _judge_size(self, commit: Commit, path: str, blob: Blob, expected: ManifestFile | None) -> None:
        if expected is None or blob.size_bytes == expected.size_bytes:
            blob.note_use(commit, path)
            return
        is_first = not blob.has_wrong_size
        blob.has_wrong_size = True
        if is_first:
            digest, size_bytes = expected.digest, expected.size_bytes
            detail = f"it has {blob.size_bytes:,} bytes instead of {size_bytes:,}"
            self._add("wrong_size", commit, path, digest, size_bytes, repair=self._fetch(commit), detail=detail)

    def _judge_absent(self, commit: Commit, file: ManifestFile) -> None:
        """A file of the list that has no entry in the snapshot."""
        path, name, size_bytes = file.path, file.digest.hex, file.size_bytes
        self._need(name)
        blob = self._blobs.get(name)
        if blob is None:
            if name in self._lost:
                self._add_no_bytes(commit, path, name, file.digest, size_bytes)
            else:
                self._add("not_here", commit, path, file.digest, size_bytes, repair=self._fetch(commit))
            return
        kind = "no_place" if self._is_without_links() else "no_link"
        repair = self._link(commit, path, name)
        if kind == "no_place":
            repair = "Copy the folder of the cache to a volume with links, and verify it there."
        self._add(kind, commit, path, file.digest, size_bytes, repair=repair)
        self._judge_size(commit, path, blob, file)

    def _judge_absences(self, commit: Commit, listing: Listing) -> None:
        """The Hub client's notes on files that the commit does not have."""
        folder = layout.absences_path(self._cache, self._repo, commit)
        for path, entry in self._walk(folder) if listing.files else ():
            expected = listing.files.get(path)
            if expected:
                digest, size_bytes = expected.digest, expected.size_bytes
                self._add("false_absence", commit, path, digest, size_bytes, repair=_rm(entry.path))

    def _need(self, name: str) -> None:
        """Notes that a file of a snapshot or a list needs the blob of this name."""
        blob = self._blobs.get(name)
        if blob is not None:
            blob.is_needed = True

    def _note_needed(self, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink():
            self._need(os.readlink(entry.path).rpartition("/")[2])  # noqa: PTH115

    # Refs

    def _read_refs(self) -> dict[str, Commit]:
        """The refs that have a commit in them."""
        found: dict[str, Commit] = {}
        for name, entry in self._walk(layout.refs_folder(self._cache, self._repo)):
            path = f"refs/{name}"
            try:
                fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    text = os.read(fd, MAX_REF_BYTES + 1).decode("utf-8", "replace")
                finally:
                    os.close(fd)
            except OSError as error:
                self._add_unreadable(Path(entry.path), error)
                continue
            try:
                found[name] = commit = Commit.parse(text.strip())
            except InvalidName:
                self._add("ref_malformed", "", path, repair=_rm(entry.path))
                continue
            if text != commit:
                self._add("ref_text", commit, path, repair=_write(commit, entry.path))
        return found

    def _judge_refs(self, refs: Mapping[str, Commit], snapshots: Mapping[Commit, Path]) -> None:
        for name, commit in refs.items():
            if commit not in snapshots:
                path = layout.refs_folder(self._cache, self._repo) / name
                repair = f"{self._fetch(commit)}, or {_rm(path)}"
                self._add("ref_dangling", commit, f"refs/{name}", repair=repair)
        for name, known in self._known_refs.items() if not refs else ():
            if known in snapshots:
                path = layout.refs_folder(self._cache, self._repo) / name
                repair = f"mkdir -p {quote(str(path.parent))} && {_write(known, path)}"
                self._add("ref_missing", known, f"refs/{name}", repair=repair)

    def _judge_blobs(self) -> None:
        # One by one, because the bytes of a blob may be wanted by several revisions, and by none.
        # Without a snapshot, or with an empty one, these are its files: an add finds them by their digests.
        is_lost = not self._found.revisions or any(one.kind == "empty_revision" for one in self._found.findings)
        for name, blob in self._blobs.items():
            if not blob.is_needed:
                repair = self._fetch("") if is_lost else _rm(blob.path)
                self._add("orphan", "", f"blobs/{name}", blob.digest, blob.size_bytes, repair=repair)
        self._found.blobs = list(self._blobs.values())

    # Findings

    def _fetch(self, commit: str) -> str:
        pinned = f" -v {commit}" if commit else ""
        return f"hfpeer {self._repo.type.value} add -r {self._repo.full_name}{pinned}"

    def _link(self, commit: str, path: str, name: str) -> str:
        place = self._folder / "snapshots" / commit / path
        return f"mkdir -p {quote(str(place.parent))} && {link_command(path, name, place)}"

    def _add_unreadable(
        self,
        path: Path,
        error: OSError | None,
        digest: Digest | None = None,
        size_bytes: int = 0,
        commit: str = "",
    ) -> None:
        detail, repair = why_unreadable(path, error)
        inside = os.path.relpath(path, self._folder)
        self._add("unreadable", commit, inside, digest, size_bytes, repair=repair, detail=detail)

    def _add(
        self,
        kind: str,
        commit: str,
        path: str,
        digest: Digest | None = None,
        size_bytes: int = 0,
        *,
        repair: str = "",
        detail: str = "",
    ) -> None:
        known = self._listings.get(Commit(commit)) if commit else None
        self._found.findings.append(
            Finding(
                str(self._repo),
                str(commit),
                _text(path),
                kind,
                str(digest or ""),
                size_bytes,
                known.grade if known else NAMED,
                _text(repair),
                detail,
            )
        )


_SET_ASIDE = "a repair has put aside there what nothing explains; delete it when you need nothing of it"
_REMOVE = "The next download of the same file goes on from it; `hf cache prune` removes it."


def _rm(path: Path | str) -> str:
    return f"rm {quote(str(path))}"


def link_command(path: str, name: str, place: Path | str) -> str:
    """The command that makes `place` the link to a blob. With `-n` a link to a folder in its place is not entered."""
    return f"ln -sfn {layout.link_target(FilePath(path), digest_of(name))} {quote(str(place))}"


def _write(commit: str, ref: Path | str) -> str:
    return f"printf %s {commit} > {quote(str(ref))}"


def _text(text: str) -> str:
    """Text without the lone surrogates that stand for bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _is_blob(place: str) -> bool:
    """Whether this path in a repo's folder is that of a blob."""
    return place.startswith("blobs/") and place.count("/") == 1


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size if not entry.is_symlink() else 0
    except OSError:
        return 0
