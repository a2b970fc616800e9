"""Which files of a manifest a request selects. Pure.

Globs match as huggingface_hub's `filter_repo_objects` matches them: fnmatch, `*` crosses `/`, `dir/` means `dir/*`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hfpeer.control.operations import AddRequest
from hfpeer.git.globs import FileGlob
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry


class Selection:
    """The paths that globs and names select. Without `include` and `named` all are, but those that `exclude` names."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), named: Collection[str] = ()) -> None:
        self._include = _globs(include)
        self._exclude = _globs(exclude)
        self._named = frozenset(named)

    def has(self, path: str) -> bool:
        """Whether a path is selected."""
        is_narrowed = bool(self._named or self._include)
        if is_narrowed and path not in self._named and not _matches(path, self._include):
            return False
        return not _matches(path, self._exclude)

    def files_of(self, manifest: Manifest) -> list[ManifestFile]:
        """The selected files of a manifest."""
        return [file for file in manifest.files if self.has(file.path)]


def select(manifest: Manifest, request: AddRequest) -> list[ManifestFile]:
    """The files that a request selects. Raises EntryNotFound for a named file that the manifest does not have."""
    for path in request.files:
        manifest.file(path)
    return _selection(request).files_of(manifest)


def select_unusable(manifest: Manifest, request: AddRequest) -> list[OpaqueEntry]:
    """The entries that a request selects and that this system cannot store."""
    selection = _selection(request)
    return [entry for entry in manifest.unusable if selection.has(entry.path)]


def _selection(request: AddRequest) -> Selection:
    return Selection(request.include, request.exclude, request.files)


def _globs(patterns: Sequence[str]) -> list[FileGlob]:
    return [FileGlob(f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns]


def _matches(path: str, globs: Sequence[FileGlob]) -> bool:
    return any(glob.matches(path) for glob in globs)
