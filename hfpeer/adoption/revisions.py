"""The revisions of a place as a source of an import: those whose lists of files are proved there or known here.

A Hub cache may carry the proof of a commit; a clone of git always does. Of a plain folder the commit may be known, and
then the manifest that this node has counts. Every byte is hashed by the import on its way into the cache.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from hfpeer.adoption.candidates import FoundRevision, RevisionKind, repo_named
from hfpeer.adoption.results import WaitingRevision
from hfpeer.archive.index import MAX_TIME, ArchivedRef
from hfpeer.archive.parts import Missing
from hfpeer.archive.sources import FilesSource, SourceBlob, SourceRevision, absences, cached_places, refs_in
from hfpeer.cache.adopted import TakeBy
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import read_proof
from hfpeer.cache.index.adopted import stamp_of
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.errors import CorruptData, InvalidName
from hfpeer.git.repository import NoRepository, Repository
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId, RepoType, Revision

MAX_OPEN_CLONES = 64
"""Clones of one place whose revisions are read; the files of the others are candidates like any."""
FROM_CLONE = "a clone"
"""The source of a ref that a clone remembers of its remote."""
_URL = re.compile(r"(?:[a-z+]+://(?:[^/@]*@)?([^/:]+)(?::\d+)?/|(?:[^/@]+@)?([^/:]+):)(.+?)(?:\.git)?/?")
HUB_HOSTS = frozenset({"hf.co", "hf-mirror.com", "huggingface.co"})


class PlaceSource(FilesSource):
    """The revisions of one place. A context manager: it keeps the repositories of clones open.

    `waiting` are the revisions that it does not have, each with the reason. `twice_bytes` of clones lie among the LFS
    objects and in the work tree; `doubles` are the files in the work tree.
    """

    def __init__(self, top: Path, manifests: Manifests, way: TakeBy, hosts: Collection[str] = ()) -> None:
        """`hosts` are those of the configured hubs, whose repos clones may be of."""
        super().__init__(top)
        self.waiting: list[WaitingRevision] = []
        self.tools: dict[Digest, str] = {}
        self.twice_bytes = 0
        self.doubles: set[str] = set()
        self._manifests = manifests
        self._way = way
        self._hosts = {*HUB_HOSTS, *hosts}
        self._repositories: list[Repository] = []
        self._objects: dict[Digest, tuple[Repository, int]] = {}

    def __enter__(self) -> PlaceSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for repository in self._repositories:
            repository.close()

    def add(self, found: FoundRevision, wanted: RepoId | None = None) -> None:
        """Adds a revision of the place, if its list of files is proved or known. `wanted`: only this repo counts, and a
        plain folder without a repo is taken for one of it."""
        if wanted is not None and found.repo not in (None, wanted):
            return
        if found.kind is RevisionKind.HUB_CACHE:
            self._add_cached(found)
        elif found.kind is RevisionKind.GIT:
            self._add_clone(found, wanted)
        else:
            self._add_folder(found, wanted)

    def leave(self, found: FoundRevision, reason: str) -> None:
        """Leaves a revision of the place out."""
        self._wait(found, found.repo, reason)

    def folder_of(self, found: FoundRevision) -> Path:
        """The folder whose owner vouches for a revision."""
        folder = self.top / found.folder
        if found.kind is RevisionKind.HUB_CACHE and found.repo is not None:
            return folder / found.repo.folder
        return folder

    @property
    def blob_count(self) -> int:
        return len(self._places.keys() | self._objects.keys())

    # The three kinds

    def _add_cached(self, found: FoundRevision) -> None:
        folder = self.top / found.folder
        assert found.repo is not None and found.commit is not None
        try:
            manifest = read_proof(folder, found.repo, found.commit)
        except CorruptData:
            manifest = None
        manifest = manifest or self._manifests.load(found.repo, found.commit)
        if manifest is None:
            self._wait(found, found.repo, "nothing there proves its list of files, and none is known here", True)
            return
        files = [file for file in manifest.files if self.find(file, cached_places(folder, manifest, file))]
        refs = tuple(refs_in(folder, found.repo, found.commit))
        self._add(found, manifest, files, refs, absences(folder, manifest))

    def _add_folder(self, found: FoundRevision, wanted: RepoId | None) -> None:
        assert found.commit is not None
        folder = self.top / found.folder
        named = found.repo or wanted
        repos = [named] if named is not None else self._manifests.repos_of(found.commit)
        manifests = [self._manifests.load(repo, found.commit) for repo in repos]
        known = [manifest for manifest in manifests if manifest is not None]
        for manifest in known:
            self._add(found, manifest, [file for file in manifest.files if self.find(file, [folder / file.path])])
        if not known:
            self._wait(found, named, "its list of files is not known here", True)

    def _add_clone(self, found: FoundRevision, wanted: RepoId | None) -> None:
        folder = self.top / found.folder
        if len(self._repositories) >= MAX_OPEN_CLONES:
            self._wait(found, None, f"the place has more than {MAX_OPEN_CLONES} clones")
            return
        try:
            repository = Repository(folder)
            self._repositories.append(repository)
            repo = self._remote(repository)
            if repo is None:
                self._wait(found, None, "it is a clone of no hub")
            elif wanted in (None, repo):
                commit = repository.head()
                manifest = repository.manifest(repo, commit)
                refs = tuple(_refs_of(repository, commit))
                files = [file for file in manifest.files if self._find_cloned(folder, repository, file)]
                self._add(found, manifest, files, refs)
        except NoRepository as error:
            self._wait(found, None, str(error))

    def _remote(self, repository: Repository) -> RepoId | None:
        """The repo of the Hub that a clone is of."""
        for url in repository.remote_urls():
            match = _URL.fullmatch(url)
            if match is None or (match[1] or match[2]) not in self._hosts:
                continue
            kind, _, name = match[3].partition("/")
            types = {type.plural: type for type in RepoType}
            repo = repo_named(name, types[kind]) if kind in types else repo_named(match[3])
            if repo is not None:
                return repo
        return None

    def _find_cloned(self, folder: Path, repository: Repository, file: ManifestFile) -> bool:
        """Looks for an LFS file among the LFS objects and in the work tree, and for a plain one in git's objects."""
        if not file.is_lfs:
            self._objects.setdefault(file.digest, (repository, file.size_bytes))
            return True
        hex = file.digest.hex
        above = folder / ".git" if (folder / ".git").is_dir() else folder
        places = (above / "lfs" / "objects" / hex[:2] / hex[2:4] / hex, folder / file.path)
        twice_bytes = _bytes_twice(*places)
        if twice_bytes:
            self.twice_bytes += twice_bytes
            self.doubles.add(str(places[1]))
        return self.find(file, places)

    def _add(
        self,
        found: FoundRevision,
        manifest: Manifest,
        files: Iterable[ManifestFile],
        refs: tuple[ArchivedRef, ...] = (),
        absent: tuple[FilePath, ...] = (),
    ) -> None:
        files = tuple(files)
        if not files:
            self._wait(found, manifest.repo, "none of its files is there")
            return
        self.tools.update(dict.fromkeys((file.digest for file in files), found.tool))
        self.revisions.append(SourceRevision(manifest, files, refs, absent=absent))

    def _wait(self, found: FoundRevision, repo: RepoId | None, reason: str, needs_list: bool = False) -> None:
        commit = str(found.commit or "")
        name, type = (repo.full_name, repo.type.value) if repo is not None else ("", "")
        place = str(self.top / found.folder)
        self.waiting.append(WaitingRevision(name, type, commit, place, reason, needs_list))

    # As a source

    def walk(self) -> Iterator[SourceBlob]:
        for digest, (_, size_bytes) in sorted(self._objects.items()):
            if digest not in self._places:
                yield SourceBlob(digest, size_bytes, f".git: {digest}")
        yield from super().walk()

    def chunks(self, blob: SourceBlob, start: int) -> Iterator[bytes]:
        if blob.digest in self._places:
            yield from super().chunks(blob, start)
            return
        repository, size_bytes = self._objects[blob.digest]
        body = repository.read(blob.digest.hex, "blob", size_bytes)
        if body is None:
            raise Missing(self.name)
        yield body[start:]

    def file_of(self, blob: SourceBlob) -> AdoptedRow | None:
        place = self._places.get(blob.digest)
        if place is None:
            return None
        with contextlib.suppress(OSError):
            size_bytes, mtime_ns, ctime_ns, inode = stamp_of(place.stat())
            tool = self.tools.get(blob.digest, "")
            name, digest = str(place), str(blob.digest)
            return AdoptedRow(name, digest, tool, "", self._way.value, size_bytes, mtime_ns, ctime_ns, inode)
        return None


def _refs_of(repository: Repository, commit: Commit) -> Iterator[ArchivedRef]:
    """The branches that the hub had at a commit when the clone last asked."""
    for name, at in repository.told(commit):
        with contextlib.suppress(InvalidName):
            yield ArchivedRef(Revision.parse(name), FROM_CLONE, min(max(0, int(at)), MAX_TIME))


def _bytes_twice(one: Path, other: Path) -> int:
    """The bytes of two files of one size that share no blocks by being one file."""
    with contextlib.suppress(OSError):
        first, second = one.stat(), other.lstat()
        if first.st_size == second.st_size and (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
            return first.st_size
    return 0
