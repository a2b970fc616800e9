"""The results of commands on prepared sets, as plain frozen values that become JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetProblem:
    """Something that is wrong with a set, and its repair. `is_harmless`: the set loads as it is."""

    kind: str
    path: str
    meaning: str
    repair: str
    is_harmless: bool


@dataclass(frozen=True)
class ListedSet:
    """A prepared set of the datasets cache. `commit` is empty where its folder does not tell it; `needs` says which
    versions of `datasets` read it; `level` and `level_by` are of `levels`. `other_bytes` are results of `map` and
    leftovers in its folder, `disk_bytes` the space that all of it takes."""

    repo: str
    config_name: str
    config_id: str
    commit: str
    hash: str
    rows: int
    files: int
    size_bytes: int
    other_bytes: int
    disk_bytes: int
    changed_at: float
    folder: str
    builder: str
    built_with: str
    needs: str
    level: str
    level_by: str
    problems: tuple[SetProblem, ...] = ()


@dataclass(frozen=True)
class RemovedSets:
    """The folders that were removed, of sets or of leftovers, and the bytes that are free again. `repo` is empty for
    all repos; `kept` are the leftovers that a running build uses."""

    repo: str
    folders: tuple[str, ...]
    freed_bytes: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedSet:
    """A set that is ready for `load_dataset`. `how` is `here` (it was right already), `mended` (its paths were those of
    another machine), `built`, or `taken` from the peers or the archive that `taken_from` names."""

    repo: str
    commit: str
    config_name: str
    config_id: str
    folder: str
    rows: int
    size_bytes: int
    how: str
    level: str
    level_meaning: str
    made_by: str
    needs: str
    taken_from: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifiedSet:
    """A set after a verification. `exit_code` is 7 for wrong bytes or rows, 8 for a set that does not load, else 0;
    `uncompared` says why its rows were not compared with the commit, empty if they were."""

    repo: str
    config_id: str
    commit: str
    hash: str
    folder: str
    rows: int
    size_bytes: int
    level: str
    level_meaning: str
    made_by: str
    uncompared: str
    findings: tuple[SetProblem, ...]
    exit_code: int
