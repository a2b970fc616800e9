"""The results of `export` and `import`, as plain frozen values that become JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfpeer.prepared.results import PreparedSet


@dataclass(frozen=True)
class ExportedRevision:
    """A revision in an archive. `files` of `listed_files` are packed; the others are not in this cache."""

    repo: str
    commit: str
    refs: tuple[str, ...]
    files: int
    listed_files: int
    size_bytes: int
    visibility: str
    is_proved: bool


@dataclass(frozen=True)
class ExportedSet:
    """A prepared set in an archive: of which commit, and by what it was made. It is never proved. `folder` is its place
    below the datasets cache, `snapshot` that of its files below the Hub cache after a plain `tar x`."""

    repo: str
    commit: str
    config_id: str
    rows: int
    size_bytes: int
    made_by: str
    names_files: bool
    folder: str
    snapshot: str


@dataclass(frozen=True)
class ExportReport:
    """An archive that was written: its parts, or `-`. `written_bytes` is less than `size_bytes` after a resume."""

    archive: str
    paths: tuple[str, ...]
    size_bytes: int
    written_bytes: int
    revisions: tuple[ExportedRevision, ...]
    blobs: int
    omitted_blobs: int
    seconds: float
    notes: tuple[str, ...] = ()
    sets: tuple[ExportedSet, ...] = ()


@dataclass(frozen=True)
class Damage:
    """A place in an archive, or a file of a copy, that is not as it should be. `digest` is that of a blob that could
    not be taken from it, else empty; `part` is the file."""

    path: str
    digest: str
    part: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} in {self.part}: {self.reason}"


@dataclass(frozen=True)
class ImportedRevision:
    """A revision after an import: `files` of `packed_files` in the archive, of `listed_files` of the commit, are
    installed. `kept_refs` are refs of this cache that name another commit, as `name commit`."""

    repo: str
    commit: str
    files: int
    packed_files: int
    listed_files: int
    size_bytes: int
    is_proved: bool
    refs: tuple[str, ...]
    kept_refs: tuple[str, ...]
    visibility: str
    is_shared: bool


@dataclass(frozen=True)
class ImportReport:
    """The result of one import. `present_bytes` were in the cache before, `taken_bytes` came from the archive.
    `failed_sets` are the errors, as JSON, of prepared sets that could not be installed."""

    archive: str
    revisions: tuple[ImportedRevision, ...]
    blobs: int
    taken_blobs: int
    taken_bytes: int
    present_bytes: int
    is_dry_run: bool
    seconds: float
    damage: tuple[Damage, ...] = ()
    notes: tuple[str, ...] = ()
    sets: tuple[PreparedSet, ...] = ()
    failed_sets: tuple[dict[str, Any], ...] = ()
