"""Finds the files on this machine that may have the bytes of a blob that a repair needs.

The damaged blob itself, blobs of the same name in other repos, copies in snapshots, blobs under a name of another case,
unfinished downloads of the Hub client, and the targets of links that lead elsewhere. All of them may lie.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hfpeer.cache.disk import layout
from hfpeer.cache.verify.checking import RIGHT, Checked
from hfpeer.cache.verify.inspection import UNFINISHED
from hfpeer.cache.verify.verification import Examined
from hfpeer.names import Digest, RepoId


class LocalCopies:
    """The files of one cache, as a verification found it. Thread-safe."""

    def __init__(self, cache: Path, examined: Examined) -> None:
        self._cache = cache
        self._repos = [repo for repo, _ in examined.inspections]
        self._verdicts: dict[str, Checked] = {one.blob.name: one for one in examined.checked}
        self._copies: dict[Digest, list[Path]] = defaultdict(list)
        self._odd: dict[str, list[Path]] = defaultdict(list)
        self._linked: dict[Digest, list[Path]] = defaultdict(list)
        for repo, inspection in examined.inspections:
            for blob in inspection.copies:
                for digest in (blob.digest,) if blob.digest else blob.may_be:
                    self._copies[digest].append(blob.path)
            for finding in inspection.findings:
                if finding.path.startswith("blobs/"):
                    self._note_blob(layout.repo_folder(cache, repo) / finding.path)
                elif finding.kind in ("absolute_link", "outside_link", "wrong_link") and finding.digest:
                    place = layout.snapshots_folder(cache, repo) / finding.commit / finding.path
                    self._linked[Digest.parse(finding.digest)].append(place)

    def _note_blob(self, path: Path) -> None:
        """A file among the blobs whose name is nearly that of a blob: in another case, or with the end of an unfinished
        download."""
        is_unfinished = path.name.endswith(UNFINISHED)
        name = (path.name.partition(".")[0] if is_unfinished else path.name).lower()
        if name != path.name:
            self._odd[name].append(path)

    def of(self, digest: Digest, repo: RepoId) -> list[tuple[Path, bool]]:
        """The files that may have a blob, the likeliest first, each with whether its bytes are known to be other ones.
        Each file once."""
        seen: set[tuple[int, int]] = set()
        found: list[tuple[Path, bool]] = []
        for path in self._paths(digest, repo):
            real = self._real(path)
            try:
                facts = real.stat() if real is not None else None
            except OSError:
                continue
            if real is None or facts is None or (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            checked = self._verdicts.get(str(path))
            found.append((real, checked is not None and (checked.verdict != RIGHT or checked.digest != digest)))
        return sorted(found, key=lambda one: one[1])

    def _paths(self, digest: Digest, repo: RepoId) -> Iterator[Path]:
        for one in dict.fromkeys([repo, *self._repos]):
            yield layout.blob_path(self._cache, one, digest)
        yield from self._copies.get(digest, ())
        yield from self._odd.get(digest.hex, ())
        yield from self._linked.get(digest, ())

    def _real(self, path: Path) -> Path | None:
        """The file at the end of links. A link out of the cache counts only if this user made it: another user's may
        lead to what is private."""
        try:
            facts = path.lstat()
            real = path.resolve()
        except (OSError, RuntimeError):
            return None
        is_inside = real.is_relative_to(self._cache.resolve())
        return real if real == path or is_inside or facts.st_uid == os.geteuid() else None
