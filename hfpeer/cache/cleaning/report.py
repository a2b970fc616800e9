"""Tells all that lies in a cache and beside it: revisions with their space, leftovers, and what each kind takes.

Only reads.
"""

from __future__ import annotations

import os
import stat
from collections import Counter as Tally
from collections.abc import Iterable
from pathlib import Path

from hfpeer.cache.cleaning.facts import CacheReport, Place, StoredRevision
from hfpeer.cache.cleaning.survey.counting import Counter
from hfpeer.cache.cleaning.survey.repo_folder import FOREIGN
from hfpeer.cache.cleaning.survey.survey import Survey
from hfpeer.cache.records import CachedRevision
from hfpeer.names import RepoId

HOME = "home"
"""The name of the place with hfpeer's own data."""
OWN_KINDS = {"manifests": "manifests", "packs": "packs", "answers": "answers", "logs": "logs", "caches": "other caches"}
"""By folder of hfpeer's home: the kind of its data."""
SETTINGS = {"settings.toml", "node-id", "shares.json", "published.json", "leftovers.json", "grants.json"}


def make_report(
    cache: Path,
    home: Path,
    others: Iterable[tuple[str, Path]],
    survey: Survey,
    revisions: Iterable[CachedRevision],
) -> CacheReport:
    """The report of a cache after a `survey`. `others` are folders beside it, with names, that are only counted."""
    own_bytes: Tally[tuple[str, str]] = Tally()
    for blob in survey.blobs:
        if len(blob.users) == 1 and not blob.has_other_names:
            own_bytes[next(iter(blob.users))] += blob.size_bytes
    rows = []
    for revision in revisions:
        key = (RepoId.parse(revision.repo, revision.type).folder, revision.commit)
        used_at = max(revision.used_at, survey.read_at.get(key, 0.0))
        rows.append(StoredRevision(revision, own_bytes[key], used_at))
    counted = [count_home(home), *(_count(name, folder) for name, folder in others)]
    free_bytes, volume_bytes = _volume(cache)
    return CacheReport(
        str(cache),
        (*survey.places, *(place for place in counted if place.files)),
        tuple(survey.repos),
        tuple(rows),
        tuple(survey.leftovers),
        survey.duplicates,
        survey.duplicate_bytes,
        free_bytes,
        volume_bytes,
        tuple(survey.unreadable),
    )


def count_home(home: Path) -> Place:
    """The space of hfpeer's own data, by kind."""
    counter = Counter(HOME, home)
    for entry in counter.entries(str(home), "settings"):
        facts = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            counter.add_tree(entry.path, OWN_KINDS.get(entry.name, FOREIGN))
        elif entry.name.startswith("catalog.sqlite"):
            counter.add("catalog", facts)
        else:
            counter.add("settings" if entry.name.partition(".json")[0] + ".json" in SETTINGS else "run", facts)
    return counter.place()


def _count(name: str, folder: Path) -> Place:
    counter = Counter(name, folder)
    counter.add_tree(str(folder), name)
    return counter.place()


def _volume(folder: Path) -> tuple[int, int]:
    """The free bytes and the size of the volume of a folder, or of its nearest parent that exists."""
    for place in (folder, *folder.parents):
        try:
            facts = os.statvfs(place)
        except OSError:
            continue
        return facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    return 0, 0
