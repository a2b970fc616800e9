"""Where the sets of this machine are, and what a set is, in words for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.config.settings import Settings
from hfpeer.endpoint.metadata.answer_cache import AnswerCache
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.prepared.arrow.making import Origin
from hfpeer.prepared.downloads import read_downloads
from hfpeer.prepared.info import reader_of
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import read_set
from hfpeer.prepared.manifest import SetManifest
from hfpeer.prepared.media import Snapshot
from hfpeer.prepared.results import PreparedSet


@dataclass(frozen=True)
class SetPlaces:
    """The folders of this machine, by its settings."""

    settings: Settings

    @property
    def cache(self) -> Path:
        """The datasets cache."""
        return self.settings.datasets_cache

    @property
    def hub_cache(self) -> Path:
        return self.settings.cache

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def answers(self) -> AnswerCache:
        """What `datasets` has said of commits."""
        return AnswerCache(self.settings.home / "answers")

    @property
    def node_name(self) -> str:
        return self.settings.name

    @property
    def shares(self) -> bool:
        """Whether the owner lets peers have sets."""
        return self.settings.shares_prepared_sets

    def manifest(self, repo: RepoId, commit: Commit) -> Manifest | None:
        """The list of the files of a commit that this node has."""
        return Manifests(self.home / "manifests", self.hub_cache).load(repo, commit)

    def snapshot(self, repo: RepoId, commit: Commit | None) -> Snapshot | None:
        """The files that the paths of a set may name."""
        if commit is None:
            return None
        manifest = self.manifest(repo, commit)
        folder = self.hub_cache / repo.folder / "snapshots" / commit
        return Snapshot(repo, commit, folder, None if manifest is None else manifest.by_path)

    def origin(self, repo: RepoId, commit: Commit | None) -> Origin:
        """What is known of the origin of a set that some program has left in the datasets cache."""
        return Origin(repo, self.snapshot(repo, commit), read_downloads(self.cache))


def result_of(
    places: SetPlaces,
    manifest: SetManifest,
    folder: Path,
    how: str,
    level: Level,
    *,
    taken_from: str = "",
    notes: tuple[str, ...] = (),
) -> PreparedSet:
    """A set as commands tell of it."""
    found = read_set(places.cache, manifest.place, manifest.repo)
    needs = reader_of(found.info.needs) if found is not None and found.info is not None else ""
    return PreparedSet(
        manifest.repo.full_name,
        manifest.commit or "",
        manifest.config_name,
        manifest.place.config_id,
        str(folder),
        manifest.rows,
        manifest.size_bytes,
        how,
        level.value,
        level.meaning,
        manifest.made_by,
        needs,
        taken_from,
        notes,
    )
