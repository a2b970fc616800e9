"""Exports revisions of the cache to an archive, and imports archives and copies of caches.

It works on the cache in this process, also while a daemon runs: the archive may be a pipe, or on a volume that only
this user sees. The catalog and the locks are made for several processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hfpeer.archive.export import plan_export, read_have, write_archive
from hfpeer.archive.have import Have
from hfpeer.archive.importing import ImportOptions
from hfpeer.archive.parts import Stream, archives_of
from hfpeer.archive.progress import telling
from hfpeer.archive.results import ExportedSet, ExportReport, ImportReport
from hfpeer.archive.sources import ArchiveSource, FolderSource, Source
from hfpeer.archive.store_target import import_into
from hfpeer.cache.disk.kinds import is_cache
from hfpeer.cache.partial.files import kept_prefixes
from hfpeer.cache.store import Store
from hfpeer.config.settings import Settings
from hfpeer.errors import BadArchive, HfpeerError, NotFound
from hfpeer.names import Commit, Digest, RepoId, RepoType, Revision
from hfpeer.node.operations.prepared.places import SetPlaces
from hfpeer.node.operations.selection import Selection
from hfpeer.prepared.commits import SET_FILE, commit_of
from hfpeer.prepared.listing import list_sets
from hfpeer.prepared.manifest import NO_MEDIA
from hfpeer.resolver.resolver import Resolver
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import OnEvent

if TYPE_CHECKING:
    from hfpeer.prepared.arrow.packing import PackedSet
    from hfpeer.prepared.results import PreparedSet


@dataclass(frozen=True)
class ExportRequest:
    """Export these revisions; `all_revisions` takes every revision that is here with a list of its files.

    `target` is a file, a folder in which the archive is named after its content, or an open pipe. `have` is a
    have-file, or an earlier archive for the same target. `include` and `exclude` are globs as of an add. `configs` are
    those of prepared sets that go along: none without a list, all with an empty one.
    """

    revisions: tuple[tuple[RepoId, Revision], ...]
    target: Path | BinaryIO
    all_revisions: bool = False
    have: Path | None = None
    part_bytes: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    configs: tuple[str, ...] | None = None


async def export(settings: Settings, request: ExportRequest, on_event: OnEvent) -> ExportReport:
    """Writes an archive. Raises NotFound, CorruptData, InvalidName, BadArchive, NoSpace, BrokenCache."""
    with opened(settings) as store:
        await in_thread(store.scan)
        commits = Resolver(store, None).commits
        chosen = [(repo, (await commits.resolve_cached(repo, name)).commit) for repo, name in request.revisions]

        def work() -> ExportReport:
            notes: list[str] = []
            wanted = [*chosen, *(_all(store, notes) if request.all_revisions else ())]
            if not wanted:
                raise NotFound(
                    "There is nothing to export in the cache.", hint="`hfpeer model ls` lists what is there."
                )
            have = read_have(request.have) if request.have is not None else Have()
            selected = Selection(request.include, request.exclude)
            with sets_of(settings, wanted, request.configs) as (sets, left_out):
                plan = plan_export(store, wanted, have, selected.files_of, sets)
                target = request.target
                if isinstance(target, Path) and target.is_dir():
                    target /= _name([(one.repo, one.commit) for one in plan.manifests], plan.index.omitted)
                report = write_archive(plan, target, request.part_bytes, telling(on_event))
            told = tuple(map(exported_set, sets))
            return replace(report, notes=(*notes, *left_out, *report.notes), sets=told)

        return await in_thread(work)


@contextmanager
def sets_of(
    settings: Settings, revisions: Sequence[tuple[RepoId, Commit]], configs: tuple[str, ...] | None
) -> Iterator[tuple[list[PackedSet], list[str]]]:
    """The prepared sets of these commits that go along, until the end of the block, and notes on those that do not.

    Raises NotFound, ForeignPath, MissingExtra, CorruptData.
    """
    if configs is None:
        yield [], []
        return
    from hfpeer.prepared.arrow.extra import need_arrow
    from hfpeer.prepared.arrow.packing import packed_sets

    datasets = [(repo, commit) for repo, commit in revisions if repo.type is RepoType.DATASET and not repo.is_of_sets]
    if not datasets:
        raise NotFound("Only datasets have prepared sets.", hint="Name one as `datasets/ORG/NAME`.")
    need_arrow()
    places = SetPlaces(settings)
    with packed_sets(places.cache, places.hub_cache, datasets, configs, places.origin) as packed:
        yield packed


def exported_set(packed: PackedSet) -> ExportedSet:
    """A set as the results of commands tell of it."""
    one = packed.manifest
    repo, commit, config_id = one.repo.full_name, one.commit or "", one.place.config_id
    names_files = one.media_paths != NO_MEDIA
    snapshot = f"{packed.commit.repo.folder}/snapshots/{packed.commit.commit}"
    facts = (one.rows, one.size_bytes, one.made_by, names_files, str(one.place), snapshot)
    return ExportedSet(repo, commit, config_id, *facts)


def _all(store: Store, notes: list[str]) -> Iterator[tuple[RepoId, Commit]]:
    """Every revision with a list of its files; a note for each other one."""
    for one in store.revisions.all():
        repo, commit = RepoId.parse(one.repo, one.type), Commit.parse(one.commit)
        if store.manifests.load(repo, commit) is None:
            add = f"`hfpeer {one.type} add -r {one.repo} -v {commit}`"
            notes.append(f"{repo} at {commit.short} is left out: nothing here lists its files. {add} gets the list.")
        else:
            yield repo, commit


def _name(revisions: Sequence[tuple[RepoId, Commit]], omitted: Sequence[object]) -> str:
    """The name of an archive in a folder: that of its only revision, or of their number and a hash of them."""
    import hashlib

    if len({*revisions}) == 1 and not omitted:
        repo, commit = revisions[0]
        return f"{repo.folder}@{commit.short}.tar"
    text = "".join(sorted(f"{repo}@{commit}\n" for repo, commit in {*revisions})) + "".join(map(str, omitted))
    return f"hfpeer-{hashlib.sha256(text.encode()).hexdigest()[:12]}.tar"


async def have(settings: Settings) -> Have:
    """The bytes that this node has: its whole blobs, and the first bytes of those that are not whole yet."""

    def look() -> Have:
        store.scan_blobs(None)
        whole = frozenset(store.inventory.whole()).union(_digests_of_sets(settings))
        prefixes = {one.digest: one.kept_bytes for one in kept_prefixes(store.cache) if one.kept_bytes}
        return Have(whole, {digest: count for digest, count in prefixes.items() if digest not in whole})

    with opened(settings) as store:
        return await in_thread(look)


def _digests_of_sets(settings: Settings) -> set[Digest]:
    """The blobs of the commits of prepared sets that are whole in the datasets cache: no archive has to bring them."""
    found = list_sets(settings.datasets_cache, settings.cache).sets
    manifests = [one.record.manifest for one in found if one.record is not None and one.is_whole]
    return {digest for manifest in manifests for digest in commit_of(manifest).sizes}


async def import_all(
    settings: Settings,
    places: Sequence[Path | BinaryIO],
    options: ImportOptions,
    on_event: OnEvent,
    *,
    takes_sets: bool = True,
) -> list[ImportReport]:
    """Imports archives, parts of archives, folders with archives, folders that are caches, or a pipe. Prepared sets in
    them come into the datasets cache, if it `takes_sets`; a report tells those that could not.

    Raises BadArchive, ForgedManifest, NotFound, NoSpace, BrokenCache, Locked.
    """
    with opened(settings) as store:

        def work() -> list[ImportReport]:
            store.scan()
            reports = []
            for source in _sources(store, places):
                here = _sets_here(settings, source, takes_sets=takes_sets)
                report = import_into(store, source, options, telling(on_event)).run()
                if not options.is_dry_run:
                    report = _with_sets(settings, store, source, report, on_event)
                reports.append(replace(report, sets=(*here, *report.sets)))
            if not options.is_dry_run:
                store.scan()
            return reports

        return await in_thread(work)


def _sets_here(settings: Settings, source: Source, *, takes_sets: bool) -> list[PreparedSet]:
    """Takes prepared sets that are in the datasets cache already out of a source, or all of them. Returns the first."""
    sets = [one for one in source.revisions if one.manifest.repo.is_of_sets]
    if not sets:
        return []
    from hfpeer.node.operations.prepared.taking import sets_here

    named = [(one, one.manifest.by_path.get(SET_FILE)) for one in sets if takes_sets]
    here = sets_here(SetPlaces(settings), [file.digest.hex for _, file in named if file is not None])
    left = [one for one, file in named if file is None or file.digest.hex not in here]
    source.revisions = [one for one in source.revisions if not one.manifest.repo.is_of_sets] + left
    return list(here.values())


def _with_sets(
    settings: Settings, store: Store, source: Source, report: ImportReport, on_event: OnEvent
) -> ImportReport:
    """Installs the prepared sets that a source has brought. An error of one is kept in the report."""
    commits = [one.manifest for one in source.revisions if one.manifest.repo.is_of_sets]
    if not commits:
        return report
    from hfpeer.node.operations.prepared.taking import take_set
    from hfpeer.prepared.levels import Level

    taken, failed = [], []
    for one in commits:
        try:
            if store.inventory.missing(one.files):
                raise BadArchive(
                    f"The prepared set {one.commit.short} in {source.name} is damaged.",
                    hint="Copy the damaged parts again and run the same command: it takes the rest.",
                )
            taken.append(
                take_set(SetPlaces(settings), store, one.repo, one.commit, Level.ATTESTED, source.name, on_event)
            )
        except HfpeerError as error:
            failed.append(error.to_problem())
    return replace(report, sets=tuple(taken), failed_sets=tuple(failed))


def _sources(store: Store, places: Sequence[Path | BinaryIO]) -> Iterator[Source]:
    files: list[Path] = []
    for place in places:
        if not isinstance(place, Path):
            yield ArchiveSource(Stream(place))
        elif is_cache(place):
            yield FolderSource(place.absolute(), store.manifests)
        elif place.is_dir():
            found = sorted([*place.glob("*.tar"), *place.glob("*.tar.[0-9][0-9][0-9]*")])
            files += [path for path in found if path.is_file() and not path.name.endswith(".incomplete")]
            if not found:
                raise NotFound(
                    f"{place} has no archive, and is no cache.",
                    hint="Name the files, or the folder with `models--…` in it.",
                )
        elif place.is_file():
            files.append(place)
        else:
            raise NotFound(f"There is no file {place}.", hint="Name an archive, a folder, or `-` for a pipe.")
    for data in archives_of(files):
        yield ArchiveSource(data)


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The cache of this machine until the end of the block."""
    store = Store(
        settings.cache,
        settings.home,
        settings.read_caches,
        makes_cache=settings.makes_cache,
        makes_links=settings.makes_links,
    )
    try:
        yield store
    finally:
        store.close()
