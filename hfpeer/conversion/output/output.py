"""The folder of a conversion: which parts are done, what is under way, and `conversion.json` at the end.

Unfinished work lies in `.conversion/` below it. A part is done when its file has its final name and the hash that its
record has, so a kill at any moment loses only the parts that were under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hfpeer.cache.disk.locks import NO_FLOCK, take_flock
from hfpeer.cache.disk.os_errors import translated
from hfpeer.cache.partial.hashing import hash_file
from hfpeer.conversion.media.kinds import is_media_name
from hfpeer.conversion.media.writing import written_media
from hfpeer.conversion.output.joining import joined, with_one_schema
from hfpeer.conversion.plan import ConversionPlan, Part
from hfpeer.conversion.request.options import RULES
from hfpeer.conversion.results import (
    MAX_NAMED,
    ConversionReport,
    ConvertedFile,
    Miss,
    PartReport,
    total_replaced,
)
from hfpeer.conversion.shapes.shape import side_files
from hfpeer.errors import InvalidName, Locked
from hfpeer.names import Commit, RepoId, path_problem

RECORD = "conversion.json"
WORK = ".conversion"
PLAN = "plan.json"
FORMAT = 1
ELSEWHERE = "give another folder with -o"
"""The way out of a volume that is full or cannot be written."""
LOCK_SECONDS, POLL_SECONDS = 5.0, 0.1
"""Seconds for which a lock is waited for, and between two tries."""


@dataclass(frozen=True)
class PartWork:
    """The work on one part, under its lock. `partial` is the file to write, `name` its final path below the folder."""

    name: str
    partial: Path
    target: Path
    scratch: Path
    record: Path

    def finish(self, report: PartReport) -> PartReport:
        """Makes the part visible. Its record comes first: a file without one is not believed."""
        with translated("write a part of a conversion", self.target, elsewhere=ELSEWHERE):
            fresh = self.record.with_suffix(".json.partial")
            fresh.write_text(json.dumps(report.to_json(), ensure_ascii=False), encoding="utf-8")
            fresh.replace(self.record)
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.partial.replace(self.target)
        return report


class OutputFolder:
    """The folder of one conversion. Raises InvalidName if another one is in it, unless `restarts`."""

    def __init__(self, folder: Path, plan: ConversionPlan, *, restarts: bool = False) -> None:
        self.folder = folder
        self._plan = plan
        self._work = folder / WORK
        with translated("make the folder of a conversion", folder, elsewhere=ELSEWHERE):
            refuse_another(folder, plan.key, restarts=restarts)
            if self.finished() is None:
                self._refuse_foreign_files()
                (self._work / "parts").mkdir(parents=True, exist_ok=True)
                self._keep_plan()

    def media_folder(self, part: Part) -> Path:
        """Where the folder `images` of a part lies."""
        return self.folder / part.output if self._plan.options.to == "imagefolder" else self.folder

    def file_of(self, part: Part) -> Path:
        """The file of a part: one of the output, or one that is joined with others at the end."""
        if self._plan.options.joins:
            return self._work / "parts" / f"{part.number:06}.rows"
        return self.folder / self._plan.file_of(part)

    @contextmanager
    def part_work(self, part: Part) -> Iterator[PartWork]:
        """Work on one part, in a fresh scratch folder. Raises Locked if another process works on it."""
        if self.finished() is not None:
            yield self._paths(part)
            return
        with self._locked(f"parts/{part.number:06}.lock"):
            paths = self._paths(part)
            with translated("prepare a part of a conversion", paths.scratch, elsewhere=ELSEWHERE):
                shutil.rmtree(paths.scratch, ignore_errors=True)
                paths.scratch.mkdir(parents=True)
            yield paths
            shutil.rmtree(paths.scratch, ignore_errors=True)

    def done(self, part: Part) -> PartReport | None:
        """The report of a part that is made; None for one that is not, or whose file is not what it was."""
        finished = self.finished()
        if finished is not None:
            path = self._plan.joined_file(part.output) if self._plan.options.joins else self._plan.file_of(part)
            made = next(ConvertedFile(**one) for one in finished["files"] if one["path"] == path)
            return PartReport(part.number, path, part.output, made.rows, made.size_bytes, made.sha256)
        report = self.recorded(part)
        if report is None or (report.missing and self._plan.options.missing != "fail"):
            return None
        file = self.file_of(part)
        with contextlib.suppress(OSError):
            if file.stat().st_size == report.size_bytes:
                is_same = hash_file(file, "sha256", report.size_bytes) == report.sha256
                return report if is_same else None
        return None

    def recorded(self, part: Part) -> PartReport | None:
        """The report of a part by its record, if its file is there too."""
        try:
            report = PartReport.from_json(json.loads(self._record(part).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return report if self.file_of(part).is_file() else None

    def missing_parts(self) -> list[Part]:
        """The parts that no record says are made."""
        return [part for part in self._plan.parts if self.recorded(part) is None]

    def finished(self) -> dict[str, Any] | None:
        """What `conversion.json` says; None if the conversion is not finished."""
        document = read_record(self.folder)
        if document is None or document.get("key") != self._plan.key:
            return None
        return document if {file["path"] for file in document["files"]} >= set(self._names()) else None

    def is_damaged(self) -> bool:
        """Whether a file of a finished conversion is not what it was; of pictures the number and the sizes count."""
        record = self.finished() or {}
        for file in record.get("files", []):
            place, size_bytes = self.folder / file["path"], file["size_bytes"]
            if not place.is_file() or place.stat().st_size != size_bytes:
                return True
            if hash_file(place, "sha256", size_bytes) != file["sha256"]:
                return True
        return "media" in record and record["media"] != self._media()

    def _media(self) -> dict[str, int]:
        """What the folders of pictures have."""
        return written_media(list(dict.fromkeys(map(self.media_folder, self._plan.parts))))

    def finish(self) -> bool:
        """Joins parts and writes `conversion.json`, if all parts are made. Returns whether it is finished."""
        if self.finished() is not None:
            return True
        with self._locked("finish.lock"):
            if self.finished() is not None:
                return True
            reports = [self.recorded(part) for part in self._plan.parts]
            made = [report for report in reports if report is not None]
            if len(made) < len(reports):
                return False
            with translated("finish a conversion", self.folder, elsewhere=ELSEWHERE):
                if self._plan.options.to == "parquet" and not self._plan.options.joins:
                    made = self._with_one_schema(made)
                files = self._joined(made) if self._plan.options.joins else self._files(made)
                files += self._side_files(files, has_pictures=any(report.pictures for report in made))
                self._write_record(files, made)
        shutil.rmtree(self._work, ignore_errors=True)
        return True

    def report(self, kept_parts: int, misses: tuple[PartReport, ...] = ()) -> ConversionReport:
        """What there is now. `misses` are parts that were not kept, because pictures are missing."""
        plan, document = self._plan, self.finished()
        made = [] if document is not None else [one for one in map(self.recorded, plan.parts) if one is not None]
        known = [*made, *misses]
        files = self._files(made) if not plan.options.joins else []
        if document is not None:
            files = [ConvertedFile(**file) for file in document["files"]]
        get = (document or {}).get
        return ConversionReport(
            repo=plan.repo.full_name,
            commit=plan.commit,
            config=plan.config,
            folder=str(self.folder),
            format=plan.options.to,
            shape=plan.options.shape,
            rows=get("rows", sum(one.rows for one in made)),
            files=tuple(files),
            parts=len(plan.parts) if document is not None else len(made),
            parts_total=len(plan.parts),
            kept_parts=kept_parts,
            pictures=get("pictures", sum(one.pictures for one in made)),
            missing=get("missing", sum(one.missing for one in known)),
            misses=tuple(Miss(**one) for one in get("misses", [])) or _named(known),
            replaced=get("replaced", total_replaced(known)),
            is_complete=document is not None,
        )

    # Inside

    def _refuse_foreign_files(self) -> None:
        """Raises InvalidName if a file of the user has the name of one of the output, in a folder that no conversion
        has begun. A damaged `conversion.json` still tells that the files are those of a conversion."""
        if self._work.exists() or (self.folder / RECORD).exists():
            return
        names = [*self._names(), *side_files(self._plan.options, {}, has_pictures=False)]
        foreign = next((name for name in names if os.path.lexists(self.folder / name)), None)
        if foreign is not None:
            raise InvalidName(
                f"{self.folder / foreign} is there already, and no conversion made it.",
                hint="Give another -o, or move the file away.",
                path=str(self.folder / foreign),
            )

    def _names(self) -> list[str]:
        """The files of rows, below the folder."""
        plan = self._plan
        return [*map(plan.joined_file, plan.outputs)] if plan.options.joins else [*map(plan.file_of, plan.parts)]

    def _paths(self, part: Part, partial: Path | None = None) -> PartWork:
        scratch = self._work / "parts" / f"{part.number:06}.work"
        target = self.file_of(part)
        name = self._plan.joined_file(part.output) if self._plan.options.joins else self._plan.file_of(part)
        partial = partial or scratch / f"{target.name}.partial"
        return PartWork(name, partial, target, scratch, self._record(part))

    def _record(self, part: Part) -> Path:
        return self._work / "parts" / f"{part.number:06}.json"

    def _keep_plan(self) -> None:
        place = self._work / PLAN
        if not place.exists():
            fresh = self._work / f"{PLAN}.{os.getpid()}.partial"
            fresh.write_bytes(self._plan.to_bytes())
            fresh.replace(place)

    def _files(self, made: list[PartReport]) -> list[ConvertedFile]:
        return [ConvertedFile(one.file, one.output, one.rows, one.size_bytes, one.sha256) for one in made]

    def _with_one_schema(self, made: list[PartReport]) -> list[PartReport]:
        """Gives all parts of a split the columns and types of all of its rows: those of JSON are known only now."""
        reports = {report.part: report for report in made}
        for output in self._plan.outputs:
            parts = {self.file_of(part): part for part in self._plan.parts_of(output)}
            for file, (fresh, size_bytes, sha256) in with_one_schema(list(parts), self._work).items():
                part = parts[file]
                report = replace(reports[part.number], size_bytes=size_bytes, sha256=sha256)
                reports[part.number] = self._paths(part, partial=fresh).finish(report)
        return list(reports.values())

    def _joined(self, made: list[PartReport]) -> list[ConvertedFile]:
        files = []
        for output in self._plan.outputs:
            reports = [one for one in made if one.output == output]
            parts = [self.file_of(part) for part in self._plan.parts_of(output)]
            name = self._plan.joined_file(output)
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._work / "joined.partial"
            size_bytes, sha256 = joined(self._plan.options.to, parts, fresh)
            fresh.replace(target)
            rows = sum(one.rows for one in reports)
            files.append(ConvertedFile(name, output, rows, size_bytes, sha256))
        return files

    def _side_files(self, files: list[ConvertedFile], *, has_pictures: bool) -> list[ConvertedFile]:
        """The files that a shape needs beside its rows."""
        made, paths = [], {file.split: file.path for file in files}
        for name, content in side_files(self._plan.options, paths, has_pictures=has_pictures).items():
            fresh = self._work / f"{name}.partial"
            fresh.write_bytes(content)
            sha256 = hash_file(fresh, "sha256", len(content))
            fresh.replace(self.folder / name)
            made.append(ConvertedFile(name, "", 0, len(content), sha256))
        return made

    def _write_record(self, files: list[ConvertedFile], made: list[PartReport]) -> None:
        plan = self._plan
        document = {
            "format": FORMAT,
            "rules": RULES,
            "key": plan.key,
            "repo": plan.repo.full_name,
            "commit": plan.commit,
            "config": plan.config,
            "builder": plan.builder,
            "options": plan.options.to_json(),
            "sources": [asdict(file) for file in plan.sources],
            "files": [asdict(file) for file in files],
            "rows": sum(one.rows for one in made),
            "pictures": sum(one.pictures for one in made),
            "media": self._media(),
            "missing": sum(one.missing for one in made),
            "misses": [asdict(miss) for miss in _named(made)],
            "replaced": total_replaced(made),
        }
        fresh = self._work / f"{RECORD}.partial"
        fresh.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        fresh.replace(self.folder / RECORD)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Holds a lock of this folder, against other processes. Raises Locked. Where locks do not work, goes on."""
        place = self._work / name
        with translated("lock a part of a conversion", place, elsewhere=ELSEWHERE):
            fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _is_taken(fd):
                raise Locked(
                    f"Another process works on this conversion in {self.folder}.",
                    hint="Wait for it; or give each process parts of its own with --part K/N.",
                )
            yield
        finally:
            os.close(fd)


def _is_taken(fd: int) -> bool:
    """Takes a lock, or goes on without one where locks do not work. Waits a moment for a process that is about to end,
    because its parent was killed. Returns whether it is taken."""
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while not take_flock(fd):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
    return True


def _named(reports: list[PartReport]) -> tuple[Miss, ...]:
    return tuple([miss for report in reports for miss in report.misses][:MAX_NAMED])


def read_record(folder: Path) -> dict[str, Any] | None:
    """What the `conversion.json` of a folder says; None without a usable one. It names only files below the folder: it
    may have come with a folder of others."""
    document = _document(folder)
    try:
        files = [ConvertedFile(**file) for file in (document or {})["files"]]
        is_usable = all(path_problem(file.path) is None and file.size_bytes >= 0 for file in files)
    except (KeyError, TypeError, AttributeError):
        return None
    return document if is_usable else None


def _document(folder: Path) -> dict[str, Any] | None:
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def converted_from(folder: Path) -> str | None:
    """The commit that was converted into a folder, as `datasets/ORG/NAME@COMMIT`; None for any other folder."""
    record = _document(folder) or {}
    try:
        return f"{RepoId.parse(record['repo'], 'dataset').api_path}@{Commit.parse(record['commit'])}"
    except (KeyError, TypeError, AttributeError, InvalidName):
        return None


def kept_plan(folder: Path, key: str) -> ConversionPlan | None:
    """The plan of a conversion that was begun in a folder; None if there is none of this key."""
    try:
        document = json.loads((folder / WORK / PLAN).read_text(encoding="utf-8"))
        plan = ConversionPlan.from_json(document)
    except (OSError, ValueError, InvalidName):
        return None
    return plan if document.get("key") == key == plan.key else None


def refuse_another(folder: Path, key: str, *, restarts: bool) -> None:
    """Raises InvalidName if another conversion is in a folder. With `restarts` takes away what conversions left."""
    record = read_record(folder)
    begun = None
    with contextlib.suppress(OSError, ValueError):
        begun = json.loads((folder / WORK / PLAN).read_text(encoding="utf-8"))
    others = [one for one in (record, begun) if isinstance(one, dict)]
    if restarts:
        for one in others:
            _remove(folder, one)
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return
    other = next((one for one in others if one.get("key") != key), None)
    if other is not None:
        raise InvalidName(
            f"{folder} has another conversion: {other.get('repo')} at {str(other.get('commit'))[:12]}, with other "
            "options or of another commit.",
            hint="Give another -o, or --restart to begin anew there.",
            folder=str(folder),
        )


def _remove_pictures(folder: Path) -> None:
    """Removes pictures that are named by their hash, and the folders that are empty then."""
    for picture in folder.glob("??/*"):
        if is_media_name(picture.name):
            picture.unlink(missing_ok=True)
    for place in (*folder.glob("??"), folder):
        with contextlib.suppress(OSError):
            place.rmdir()


def _remove(folder: Path, document: dict[str, Any]) -> None:
    """Removes the files that a conversion made, begun or finished, and nothing else."""
    names = [str(file["path"]) for file in document.get("files", [])]
    if "parts" in document:
        plan = ConversionPlan.from_json(document)
        made = [plan.file_of(part) for part in plan.parts]
        names += [name for name in made if path_problem(name) is None]
    outputs = {name.partition("/")[0] for name in names if "/" in name}
    options = document.get("options", {})
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if options.get("images") == "save":
        for place in [folder, *(folder / output for output in outputs)]:
            _remove_pictures(place / "images")
    (folder / RECORD).unlink(missing_ok=True)
