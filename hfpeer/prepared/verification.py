"""Verifies one prepared set: its files, the paths in it, and its rows against the proved files of its commit.

Changes nothing. What can be said without pyarrow is said without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpeer.errors import CorruptData
from hfpeer.names import FilePath
from hfpeer.prepared.arrow.extra import has_arrow
from hfpeer.prepared.hashing import OnBytes, hashed
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import FoundSet
from hfpeer.prepared.media import Snapshot

WRONG, BROKEN, NOTED = "wrong", "broken", "noted"
"""How bad a finding is: wrong bytes or rows; a program cannot load the set, or not all of it; good to know."""
MAX_FOREIGN = 5
"""At most this many foreign paths of one set are named."""


@dataclass(frozen=True)
class SetFinding:
    """One thing that is not as it should be. `meaning` is the end of a sentence."""

    kind: str
    severity: str
    path: str
    meaning: str


@dataclass(frozen=True)
class SourceFiles:
    """The files of the snapshot that each split of a set is made of, and how the builder reads them."""

    snapshot: Path
    splits: Mapping[str, Sequence[FilePath]]
    builder: str
    reading: Mapping[str, Any]


@dataclass(frozen=True)
class SetVerdict:
    """What a verification found. `level` is what it shows of the content; `uncompared` says why the rows were not
    compared, empty if they were."""

    findings: tuple[SetFinding, ...]
    level: Level
    uncompared: str = ""

    @property
    def is_wrong(self) -> bool:
        return any(one.severity == WRONG for one in self.findings)

    @property
    def is_broken(self) -> bool:
        return any(one.severity == BROKEN for one in self.findings)


def verify_set(
    found: FoundSet,
    snapshot: Snapshot | None,
    sources: SourceFiles | None,
    known: Level,
    *,
    is_quick: bool = False,
    why_no_sources: str = "",
    on_bytes: OnBytes = lambda count: None,
) -> SetVerdict:
    """Verifies a set. `known` is the level found before, which stays unless the bytes are wrong.

    `is_quick` looks at names and sizes only. Without `sources` no row is compared, for the reason `why_no_sources`.
    """
    findings = _structure(found)
    if is_quick or found.info is None or any(one.kind == "no_shard" for one in findings):
        return SetVerdict(tuple(findings), known, "" if not is_quick else "quick: names and sizes only")
    findings += _hashes(found, on_bytes)
    if not has_arrow():
        why = "pyarrow is not installed beside hfpeer (the extra `datasets`)"
        return SetVerdict(tuple(findings), _level(findings, known), why)
    findings += _arrow(found, snapshot)
    if any(one.kind == "unreadable" for one in findings):
        return SetVerdict(tuple(findings), Level.UNCHECKED, "its files are damaged")
    if sources is None:
        return SetVerdict(
            tuple(findings), _level(findings, known), why_no_sources or "which files it was made of is not known"
        )
    return _compared(found, sources, known, findings, on_bytes)


def _structure(found: FoundSet) -> list[SetFinding]:
    """The problems of the listing, as findings."""
    severities = {"wrong_size": WRONG}
    return [
        SetFinding(one.kind, severities.get(one.kind, NOTED if one.is_harmless else BROKEN), one.path, one.meaning)
        for one in found.problems
    ]


def _hashes(found: FoundSet, on_bytes: OnBytes) -> list[SetFinding]:
    """Compares the files with the record, where there is one."""
    findings = []
    for file in found.record.files if found.record is not None else ():
        path = f"{found.place}/{file.path}"
        try:
            now = hashed(found.folder / file.path, file.path, on_bytes)
        except OSError as error:
            findings.append(SetFinding("unreadable", BROKEN, path, f"it cannot be read: {error.strerror or error}"))
            continue
        if now != file:
            findings.append(SetFinding("wrong_bytes", WRONG, path, "its bytes are not those that its record says"))
    return findings


def _arrow(found: FoundSet, snapshot: Snapshot | None) -> list[SetFinding]:
    """Reads every shard: whether it is whole, has the rows of its split, and names only files of the commit here."""
    from hfpeer.prepared.arrow.shards import foreign_texts, paths_of, rows_of

    findings: list[SetFinding] = []
    assert found.info is not None
    rows = {split.name: 0 for split in found.info.splits}
    seen, lost, texts = 0, 0, set[str]()
    for split, name in found.shards:
        path = f"{found.place}/{name}"
        try:
            rows[split] += rows_of(found.folder / name)
            for named in paths_of(found.folder / name):
                if snapshot is None or not snapshot.is_here(named.text):
                    seen += 1
                    if seen <= MAX_FOREIGN:
                        meaning = f"it names a file elsewhere: {named}"
                        findings.append(SetFinding("foreign_path", BROKEN, path, meaning))
                elif not _is_file(named.text):
                    lost += 1
            for named in foreign_texts(found.folder / name):
                if named.column not in texts:
                    texts.add(named.column)
                    meaning = f"a text looks like a path of some machine: {named}"
                    findings.append(SetFinding("foreign_text", NOTED, path, meaning))
        except CorruptData as error:
            findings.append(SetFinding("unreadable", WRONG, path, error.message.rstrip(".")))
    if seen > MAX_FOREIGN:
        findings.append(SetFinding("foreign_path", BROKEN, str(found.place), f"and {seen - MAX_FOREIGN:,} more"))
    if lost:
        meaning = f"{lost:,} pictures or sounds that it names are not in the snapshot here"
        findings.append(SetFinding("no_media", BROKEN, str(found.place), meaning))
    for one in found.info.splits:
        if rows[one.name] != one.rows and not any(finding.kind == "unreadable" for finding in findings):
            meaning = f"the split {one.name} has {rows[one.name]:,} rows, and should have {one.rows:,}"
            findings.append(SetFinding("wrong_rows", WRONG, str(found.place), meaning))
    return findings


def _is_file(text: str) -> bool:
    from hfpeer.prepared.media import split_chain

    return Path(split_chain(text)[1]).is_file()


def _compared(
    found: FoundSet, sources: SourceFiles, known: Level, findings: list[SetFinding], on_bytes: OnBytes
) -> SetVerdict:
    """Compares the rows of every split with the files that it is made of."""
    from hfpeer.prepared.arrow.comparison import NotComparable, SplitSources, compare_split

    assert found.info is not None
    names = [split.name for split in found.info.splits]
    if set(names) != set(sources.splits):
        meaning = f"its splits are {', '.join(sorted(names))}; the commit has {', '.join(sorted(sources.splits))}"
        findings.append(SetFinding("other_splits", WRONG, str(found.place), meaning))
        return SetVerdict(tuple(findings), Level.UNCHECKED)
    for name in names:
        shards = tuple(found.folder / shard for split, shard in found.shards if split == name)
        files = tuple(sources.snapshot / path for path in sources.splits[name])
        try:
            different = compare_split(SplitSources(name, shards, files, sources.builder, sources.reading), on_bytes)
        except NotComparable as error:
            return SetVerdict(tuple(findings), _level(findings, known), str(error))
        if different is not None:
            findings.append(SetFinding("other_rows", WRONG, str(found.place), str(different)))
    return SetVerdict(tuple(findings), _level(findings, Level.CHECKED))


def _level(findings: Sequence[SetFinding], shown: Level) -> Level:
    return Level.UNCHECKED if any(one.severity == WRONG for one in findings) else shown
