"""Which files of a manifest a request selects. Pure.

Globs match as huggingface_hub's `filter_repo_objects` matches them: fnmatch, `*` crosses `/`, `dir/` means `dir/*`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

from hfpeer.control.operations import AddRequest
from hfpeer.errors import EntryNotFound
from hfpeer.git.globs import FileGlob
from hfpeer.manifest import Manifest, ManifestFile, OpaqueEntry
from hfpeer.names import FilePath

MAX_COMPARED_NAMES = 2_000
"""At most this many names are compared with one that is not there: a comparison takes about 10 microseconds."""


class Selection:
    """The paths that globs and names select. Without `include`, `named` and `optional` all are, but those that
    `exclude` names. What is `optional` need not be there."""

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        named: Collection[str] = (),
        optional: Collection[str] = (),
    ) -> None:
        self._include = dict(zip(include, _globs(include), strict=True))
        self._exclude = _globs(exclude)
        self._named = dict.fromkeys(named)
        self._optional = frozenset(optional)

    def has(self, path: str) -> bool:
        """Whether a path is selected."""
        is_narrowed = bool(self._named or self._optional or self._include)
        is_named = path in self._named or path in self._optional
        if is_narrowed and not is_named and not _matches(path, self._include.values()):
            return False
        return not _matches(path, self._exclude)

    def files_of(self, manifest: Manifest) -> list[ManifestFile]:
        """The selected files of a manifest. Raises EntryNotFound for a named file that it does not have, and where it
        has files and none of them is selected, unless what is selected is optional."""
        for path in self._named:
            try:
                manifest.file(FilePath(path))
            except EntryNotFound as error:
                hint = _near(manifest, [path]) + _listed_by(manifest)
                raise EntryNotFound(error.message, hint=hint, **error.facts) from None
        is_all = not (self._named or self._optional or self._include or self._exclude)
        found = list(manifest.files) if is_all else [file for file in manifest.files if self.has(file.path)]
        if not found and not self._optional and manifest.files and not self.unusable_of(manifest):
            raise _nothing_selected(manifest, tuple(self._include), is_excluding=bool(self._exclude))
        return found

    def unusable_of(self, manifest: Manifest) -> list[OpaqueEntry]:
        """The selected entries of a manifest that this system cannot store."""
        return [entry for entry in manifest.unusable if self.has(entry.path)]

    def unmatched(self, manifest: Manifest) -> tuple[str, ...]:
        """The globs of `include` that match no file of a manifest."""
        if not self._include:
            return ()
        paths = [*(file.path for file in manifest.files), *(entry.path for entry in manifest.unusable)]
        return tuple(glob for glob, compiled in self._include.items() if not any(map(compiled.matches, paths)))


def selection_of(request: AddRequest) -> Selection:
    """What a request selects."""
    return Selection(request.include, request.exclude, request.files, request.optional)


def _globs(patterns: Sequence[str]) -> list[FileGlob]:
    return [FileGlob(f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns]


def _matches(path: str, globs: Iterable[FileGlob]) -> bool:
    return any(glob.matches(path) for glob in globs)


def _nothing_selected(manifest: Manifest, include: Sequence[str], *, is_excluding: bool) -> EntryNotFound:
    place = f"{manifest.repo} at {manifest.commit.short}"
    matches = f"No file of {place} matches {' or '.join(map(repr, include))}"
    excluded = " and is not excluded" if is_excluding else ""
    return EntryNotFound(
        f"{matches}{excluded}." if include else f"`--exclude` leaves no file of {place}.",
        hint=_split(include) + _near(manifest, include) + _listed_by(manifest),
        repo=str(manifest.repo),
        commit=str(manifest.commit),
        include=list(include),
    )


def _split(include: Sequence[str]) -> str:
    """A sentence if globs stand in one word."""
    sentence = "Each glob has an --include of its own."
    return f"{sentence} " if any("," in glob for glob in include) else ""


def _listed_by(manifest: Manifest) -> str:
    repo = manifest.repo
    return f"`hfpeer {repo.type.value} ls -r {repo.full_name} -v {manifest.commit.short}` lists all."


def _near(manifest: Manifest, wanted: Sequence[str]) -> str:
    """A sentence with names that may have been meant by names or globs."""
    names = {file.path.casefold(): file.path for file in islice(manifest.files, MAX_COMPARED_NAMES)}
    near = [name for one in wanted for name in get_close_matches(one.replace("*", "").casefold(), names, n=3)]
    sentence = f"Near to it: {', '.join(names[name] for name in dict.fromkeys(near))}."
    return f"{sentence} " if near else ""
