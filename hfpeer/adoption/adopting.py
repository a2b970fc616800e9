"""One adoption: looks at places, installs the revisions whose lists are proved or known, and hashes the other files.

Files are known as soon as they are hashed, so that the same command goes on after a kill. No file of a place is changed
unless the user asked for links or for a move; then it changes when its bytes come into the cache.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from hfpeer.adoption.candidates import Found
from hfpeer.adoption.hashing import Hasher
from hfpeer.adoption.keeping import Keeper, PlacedFile
from hfpeer.adoption.places import hub_cache
from hfpeer.adoption.reading import read_place
from hfpeer.adoption.results import AdoptableFile, AdoptedPlace, AdoptReport, Trouble, WaitingRevision
from hfpeer.adoption.revisions import PlaceSource
from hfpeer.adoption.walking import Walk, walk
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.results import ImportedRevision
from hfpeer.archive.store_target import import_into
from hfpeer.cache.adopted import TakeBy
from hfpeer.cache.disk.access import why_unreadable
from hfpeer.cache.disk.linking import LINK_MIN_BYTES, can_clone
from hfpeer.cache.index.adopted import holds
from hfpeer.cache.index.schema import AdoptedRow
from hfpeer.cache.store import Store
from hfpeer.errors import CorruptData, InvalidName, NoSpace, NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Digest, RepoId
from hfpeer.system.cancellation import check_stop

MAX_ELSEWHERE = 64
"""Places that the settings in one place name elsewhere. The others are not looked at."""
SHARED_MIN_BYTES = 1024 * 1024
"""A file of fewer bytes does not come to share blocks with a blob: that would free too little for two opened files."""
MAX_LISTED = 100_000
"""Files that a listing has. The others are only counted."""


@dataclass(frozen=True)
class WantedPlace:
    """A place to look at. `is_named`: the user named it, so that copies of its revisions may take space."""

    tool: str
    path: str
    is_named: bool = False


@dataclass(frozen=True)
class AdoptOptions:
    """How the bytes come into the cache, and which files count.

    With `repo` only files count whose size is among `sizes`. `hosts` are those of the configured hubs. `is_dry_run`
    lists the files and changes nothing.
    """

    way: TakeBy = TakeBy.COPY
    repo: RepoId | None = None
    sizes: frozenset[int] | None = None
    hosts: tuple[str, ...] = ()
    is_dry_run: bool = False


OnProgress = Callable[[str, int, int, int, int], None]
"""Called with the path that is read, the bytes done and those of all, the files done and all files."""


class Adoption:
    """One adoption into `store`, whose cache folders are `caches`. Blocking, for one thread."""

    def __init__(
        self,
        store: Store,
        caches: Collection[Path],
        options: AdoptOptions,
        on_progress: OnProgress = lambda *facts: None,
    ) -> None:
        self._store = store
        self._caches = [cache.resolve() for cache in caches]
        self._options = options
        self._on_progress = on_progress
        self._met: set[tuple[int, int]] = set()
        self._places: list[AdoptedPlace] = []
        self._files: list[PlacedFile] = []
        self._here: list[PlacedFile] = []
        self._installed: list[ImportedRevision] = []
        self._waiting: list[WaitingRevision] = []
        self._troubles: list[Trouble] = []
        self._clones: dict[int, bool] = {}
        self._pointers = self._twice_bytes = 0

    def run(self, wanted: Sequence[WantedPlace]) -> AdoptReport:
        """Looks at the places in turn. Raises NotFound for one that the user named and that is not there; NoSpace,
        BrokenCache, Locked, Stopped."""
        began = time.monotonic()
        waiting = list(wanted)
        met: set[str] = set()
        while waiting:
            place = waiting.pop(0)
            if not _is_usable(place.path) or os.path.realpath(place.path) in met:
                continue
            met.add(os.path.realpath(place.path))
            found = self._look_at(place)
            waiting += [WantedPlace(place.tool, elsewhere) for elsewhere in found.elsewhere[:MAX_ELSEWHERE]]
        return self._listed(began) if self._options.is_dry_run else self._adopted(began)

    # Looking

    def _look_at(self, place: WantedPlace) -> Found:
        """Finds the candidates of a place, and installs the revisions of it."""
        top, inside = Path(os.path.expanduser(place.path)).absolute(), ""  # noqa: PTH111  of no user: stays as it is
        if not os.path.exists(top):  # noqa: PTH110  a folder that may not be entered is no error yet
            if place.is_named:
                self._refuse_missing(top)
            return Found()
        if any(top.resolve().is_relative_to(cache) for cache in self._caches):
            if place.is_named:
                raise InvalidName(
                    f"{top} is in a cache of this node.", hint="Name a folder of another tool.", path=str(top)
                )
            return Found()
        if _is_repo_folder(top):
            top, inside = top.parent, top.name
        walked = walk(top, inside, leaves_out=self._caches)
        self._troubles += walked.troubles
        found = read_place(walked.listing, place.tool)
        if not _is_own(walked.top):
            found.elsewhere = []  # another user's settings lead nowhere
        files = list(self._of_place(walked, found))
        if not self._options.is_dry_run:
            doubles = self._install(place, walked, found, files)
            files = [file for file in files if file.path not in doubles]
            self._forget_gone(walked)
        tools = Counter(file.candidate.tool for file in files)
        tool = tools.most_common(1)[0][0] if tools else place.tool
        size_bytes = sum(file.candidate.size_bytes for file in files)
        is_hub_cache = tool == hub_cache.TOOL and any(not revision.folder for revision in found.revisions)
        if files or place.is_named:
            self._places.append(AdoptedPlace(tool, place.path, len(files), size_bytes, is_hub_cache))
        self._files += files
        return found

    def _forget_gone(self, walked: Walk) -> None:
        """Forgets files of a place that are not there any more, if all of it could be listed."""
        if not walked.troubles:
            top = f"{walked.top}{os.sep}"
            known = self._store.adopted.table.below(str(walked.top / walked.inside))
            self._store.adopted.table.drop(path for path in known if path.removeprefix(top) not in walked.listing)

    def _refuse_missing(self, top: Path) -> None:
        try:
            top.stat()
        except PermissionError as error:
            reason, hint = why_unreadable(_nearest(top), error)
            self._troubles.append(Trouble(str(top), reason, hint))
        except OSError as error:
            raise NotFound(
                f"There is no file or folder {top}.",
                hint="`hfpeer adopt --list` shows the places that hfpeer finds by itself.",
                path=str(top),
            ) from error

    def _of_place(self, walked: Walk, found: Found) -> Iterator[PlacedFile]:
        """The candidates that count, each file once."""
        sizes = self._options.sizes
        for candidate in found.candidates:
            check_stop()
            listed = walked.listing[candidate.path]
            path = walked.top / candidate.path
            if listed.identity in self._met or (sizes is not None and candidate.size_bytes not in sizes):
                continue
            self._met.add(listed.identity)
            file = PlacedFile(str(path), candidate, listed.identity)
            if listed.is_link and self._is_in_a_cache(path):
                self._here.append(file)
            else:
                yield file

    def _is_in_a_cache(self, path: Path) -> bool:
        try:
            target = path.resolve()
        except (OSError, RuntimeError):
            return False
        return any(target.is_relative_to(cache) for cache in self._caches)

    # Revisions

    def _install(self, place: WantedPlace, walked: Walk, found: Found, files: Sequence[PlacedFile]) -> Collection[str]:
        """Installs the revisions of a place, if that takes no space or the user named the place. Returns the files that
        need not be hashed, because they are second copies of others."""
        if not found.revisions:
            return ()
        options = self._options
        with PlaceSource(walked.top, self._store.manifests, options.way, options.hosts) as source:
            for revision in found.revisions:
                check_stop()
                if place.is_named or _is_own(source.folder_of(revision)):
                    source.add(revision, options.repo)
                else:
                    command = f"`hfpeer adopt {quote(place.path)}`"
                    source.leave(revision, f"it is another user's, so it is installed only if you name it: {command}")
            self._twice_bytes += source.twice_bytes
            self._waiting += source.waiting
            if source.revisions:
                self._import(place, source, files)
            return source.doubles

    def _import(self, place: WantedPlace, source: PlaceSource, files: Sequence[PlacedFile]) -> None:
        takes_space = self._options.way is not TakeBy.MOVE and not self._may_clone(files)
        if takes_space and not place.is_named and self._options.way is not TakeBy.LINK:
            reason = f"copying it takes space: `hfpeer adopt {quote(place.path)}` does so"
            self._waiting += [_waiting(source, revision.manifest, reason) for revision in source.revisions]
            return

        met: set[str] = set()

        def on_progress(path: str, done_bytes: int, size_bytes: int) -> None:
            met.add(path)
            self._on_progress(path, done_bytes, size_bytes, len(met) - 1, source.blob_count)

        importing = import_into(
            self._store,
            source,
            ImportOptions(trusts_attested=True, learns_visibility=False, takes_space=takes_space),
            on_progress,
        )
        try:
            report = importing.run()
        except (NoSpace, CorruptData) as error:
            self._waiting += [_waiting(source, revision.manifest, error.message) for revision in source.revisions]
            self._troubles.append(Trouble(place.path, error.message, error.hint or ""))
            return
        self._installed += report.revisions
        self._troubles += [Trouble(f"{source.name}/{one.path}", one.reason) for one in report.damage]

    def _may_clone(self, files: Sequence[PlacedFile]) -> bool:
        return any(self._clones_from(file) for file in files[:1])

    def _clones_from(self, file: PlacedFile) -> bool:
        """Whether files of a volume can share blocks with the cache: tried once for each volume."""
        device = file.identity[0]
        if not os.access(file.path, os.R_OK):
            return False
        if device not in self._clones:
            folder = next(one for one in (self._store.cache, *self._store.cache.parents) if one.is_dir())
            self._clones[device] = can_clone(Path(file.path), folder)
        return self._clones[device]

    # Files

    def _adopted(self, began: float) -> AdoptReport:
        known = self._known(self._files)
        held = {path for path, rows in known.items() if all(map(holds, rows))}
        self._keep_way(row for path in held for row in known[path])
        here = self._here_by_hint([file for file in self._files if file.path not in held])
        rest = [file for file in self._files if file.path not in held and file.path not in here]
        by_path = {file.path: file for file in rest}
        keeper = Keeper(self._store.adopted.table, self._options.way, by_path)
        hasher = Hasher(keeper.keep, self._on_progress)
        self._store.adopted.table.drop(path for path in by_path if path in known)
        try:
            hasher.run([(file.path, file.candidate.size_bytes) for file in rest])
        finally:
            keeper.flush()
        self._troubles += hasher.troubles
        self._pointers = keeper.pointers
        serving = [file for file in self._files if file.path in held or file.path in keeper.kept]
        shared_bytes = self._share([*serving, *(file for file in self._files if file.path in here)])
        self._here += [file for file in self._files if file.path in here]
        hashed_bytes = sum(by_path[path].candidate.size_bytes for path in keeper.kept)
        report = self._report(began, serving, len(keeper.kept), hashed_bytes)
        return replace(report, shared_bytes=shared_bytes)

    def _share(self, files: Sequence[PlacedFile]) -> int:
        """Lets blobs of the cache share the blocks of files with the same bytes. Returns the bytes that this frees."""
        large = [file for file in files if file.candidate.size_bytes >= SHARED_MIN_BYTES and self._clones_from(file)]
        known = self._known(large)
        total_bytes, done_bytes, shared_bytes = _size(large), 0, 0
        for number, file in enumerate(large):
            check_stop()
            self._on_progress(file.path, done_bytes, total_bytes, number, len(large))
            done_bytes += file.candidate.size_bytes
            hint = file.candidate.hint.digest if file.candidate.hint is not None else None
            digests = {Digest.parse(row.digest) for row in known.get(file.path, ())} or {hint} - {None}
            shared_bytes += sum(self._store.adopted.share(Path(file.path), digest) for digest in digests if digest)
        return shared_bytes

    def _known(self, files: Sequence[PlacedFile]) -> dict[str, list[AdoptedRow]]:
        """The rows of files that were hashed before."""
        return self._store.adopted.table.of_paths(file.path for file in files)

    def _keep_way(self, rows: Iterable[AdoptedRow]) -> None:
        """Gives known files the way that the user wants now."""
        way = self._options.way.value
        changed = [replace(row, way=way) for row in rows if row.way != way]
        if changed:
            self._store.adopted.table.put(changed)

    def _here_by_hint(self, files: Sequence[PlacedFile]) -> set[str]:
        """The files whose bytes the cache has, if what their place says of their digests is true. If not, nothing is
        lost but their use."""
        hinted = {file.path: file.candidate.hint.digest for file in files if file.candidate.hint is not None}
        rows = self._store.inventory.places(digest for digest in hinted.values() if digest is not None)
        verified = {digest for digest, found in rows.items() if any(row.verified_at for row in found)}
        return {path for path, digest in hinted.items() if digest in verified}

    def _report(self, began: float, serving: Sequence[PlacedFile], hashed_files: int, hashed_bytes: int) -> AdoptReport:
        repo_bytes: Counter[str] = Counter()
        for file in [*serving, *self._here]:
            if file.candidate.repo is not None:
                repo_bytes[str(file.candidate.repo)] += file.candidate.size_bytes
        return AdoptReport(
            tuple(self._places),
            len(serving),
            _size(serving),
            hashed_files,
            hashed_bytes,
            len(self._here),
            _size(self._here),
            dict(repo_bytes.most_common()),
            tuple(self._installed),
            tuple(self._waiting),
            tuple(self._troubles),
            pointers=self._pointers,
            twice_bytes=self._twice_bytes,
            seconds=time.monotonic() - began,
        )

    # Listing

    def _listed(self, began: float) -> AdoptReport:
        known = self._known(self._files)
        here = self._here_by_hint(self._files)
        listed = [self._adoptable(file, known, here) for file in self._files[:MAX_LISTED]]
        listed += [_adoptable(file, "here") for file in self._here[: MAX_LISTED - len(listed)]]
        report = self._report(began, self._files, 0, 0)
        return replace(report, listed=tuple(listed), is_dry_run=True)

    def _adoptable(self, file: PlacedFile, known: dict[str, list[AdoptedRow]], here: Collection[str]) -> AdoptableFile:
        if not os.access(file.path, os.R_OK):
            reason, _ = why_unreadable(Path(file.path), None)
            return _adoptable(file, "unreadable", reason)
        if file.path in here:
            return _adoptable(file, "here")
        if file.path in known and all(map(holds, known[file.path])):
            return _adoptable(file, "known")
        if self._clones_from(file):
            return _adoptable(file, "clone")
        way = self._options.way
        if way is TakeBy.LINK and not _may_link(file):
            return _adoptable(file, "copy", "only large files of this user are linked")
        return _adoptable(file, way.value)


def _is_own(folder: Path) -> bool:
    """Whether a folder is this user's or root's. A proof shows that files are those of a commit, and not that the
    commit is one of the repo: for that the owner of a place is believed."""
    try:
        return folder.stat().st_uid in (os.geteuid(), 0)
    except OSError:
        return False


def _is_usable(path: str) -> bool:
    """Whether a text can be a path of this system. Settings of other tools may hold any text."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _adoptable(file: PlacedFile, how: str, why: str = "") -> AdoptableFile:
    candidate = file.candidate
    hint = "" if candidate.hint is None else f"{candidate.hint.algorithm}:{candidate.hint.hex}"
    repo = "" if candidate.repo is None else str(candidate.repo)
    return AdoptableFile(candidate.tool, file.path, candidate.size_bytes, repo, how, hint, why)


def _may_link(file: PlacedFile) -> bool:
    try:
        return file.candidate.size_bytes >= LINK_MIN_BYTES and os.stat(file.path).st_uid == os.geteuid()  # noqa: PTH116
    except OSError:
        return False


def _size(files: Iterable[PlacedFile]) -> int:
    return sum(file.candidate.size_bytes for file in files)


def _nearest(path: Path) -> Path:
    """The nearest folder around a path that this user can see."""
    for folder in path.parents:
        try:
            folder.stat()
        except OSError:
            continue
        return folder
    return Path("/")


def _is_repo_folder(path: Path) -> bool:
    """Whether a folder is that of one repo in a Hub cache: then the cache around it gives it its name."""
    try:
        RepoId.from_folder(path.name)
    except InvalidName:
        return False
    return (path / "snapshots").is_dir() or (path / "blobs").is_dir()


def _waiting(source: PlaceSource, manifest: Manifest, reason: str) -> WaitingRevision:
    repo = manifest.repo
    return WaitingRevision(repo.full_name, repo.type.value, str(manifest.commit), source.name, reason)
