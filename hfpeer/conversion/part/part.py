"""Converts one part: from files of the commit to one file of the output. A function of the plan and of these files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hfpeer.cache.disk.os_errors import translated
from hfpeer.conversion.extra import need_libraries
from hfpeer.conversion.media.roots import ImageRoots, is_address, places_in_commit
from hfpeer.conversion.media.writing import MediaWriter
from hfpeer.conversion.output.output import ELSEWHERE, OutputFolder, PartWork
from hfpeer.conversion.part.making import RowMaking, check_found, check_names
from hfpeer.conversion.plan import ConversionPlan, Part
from hfpeer.conversion.results import PartReport
from hfpeer.conversion.rows.media_columns import Picture, media_names
from hfpeer.conversion.shapes.shape import Shape, shape_of
from hfpeer.conversion.sources.batches import Batch, LocalFile, Source
from hfpeer.conversion.sources.kinds import is_read_here, source_of
from hfpeer.conversion.sources.parquet import schema_of, text_leaves
from hfpeer.conversion.sources.selection import Selection
from hfpeer.conversion.writers.hashed import HashedFile
from hfpeer.conversion.writers.parquet import ParquetWriter, RowParquetWriter
from hfpeer.conversion.writers.text import JsonLinesWriter, TableWriter
from hfpeer.errors import EntryNotFound
from hfpeer.system.cancellation import check_stop

if TYPE_CHECKING:
    import pyarrow as pa

OnRows = Callable[[int, float], None]
"""Called with the rows that a part has now, and with the share of its files that has been read."""


def convert_part(
    plan: ConversionPlan,
    part: Part,
    snapshot: Path,
    output: OutputFolder,
    roots: Sequence[str] = (),
    on_rows: OnRows = lambda rows, done: None,
) -> PartReport:
    """Makes one part, unless it is made. Its files have to be in the snapshot.

    Raises ConversionFailed, EntryNotFound for a column that is not there, InvalidName, Locked, and the errors of a
    disk.
    """
    need_libraries()
    with output.part_work(part) as work:
        known = output.done(part)
        if known is not None:
            return known
        with translated("convert a part", work.target, elsewhere=ELSEWHERE):
            report = _Conversion(plan, part, snapshot, output, roots, work).run(on_rows)
        fails = plan.options.missing == "fail" and report.missing > 0
        return report if fails else work.finish(report)


class _Conversion:
    """The conversion of one part."""

    def __init__(
        self,
        plan: ConversionPlan,
        part: Part,
        snapshot: Path,
        output: OutputFolder,
        roots: Sequence[str],
        work: PartWork,
    ) -> None:
        self._plan = plan
        self._part = part
        self._work = work
        self._snapshot = snapshot
        self._replaced: Counter[str] = Counter()
        self._roots = roots
        self._media_folder = output.media_folder(part)
        self._files = local_files(part, snapshot)

    def run(self, on_rows: OnRows) -> PartReport:
        plan, part, options = self._plan, self._part, self._plan.options
        selection = Selection.of(part, options.seed)
        reference = f"hf://datasets/{plan.repo.full_name}@{plan.commit}"
        with ImageRoots(self._snapshot, self._roots) as roots:
            media = MediaWriter(
                options.way_of_images, options.missing, roots, self._media_folder, self._work.scratch, reference
            )
            making = RowMaking(plan, media, self._replaced)
            source = source_of(plan, self._replaced, self._columns())
            with HashedFile(self._work.partial) as file:
                sink = self._sink(file, making)
                for batch in source.batches(self._files, selection):
                    check_stop()
                    sink.add(batch, selection.chosen(batch.first, batch.count))
                    on_rows(sink.rows, batch.done)
                if sink.rows and part.number == 0:  # later files may have fewer columns
                    making.check_seen()
                if not sink.rows:
                    schema = self._schema(source)
                    sink.name_columns(None if schema is None else making.without_rows(schema))
                sink.end()
        return PartReport(
            part.number,
            self._work.name,
            part.output,
            sink.rows,
            file.size_bytes,
            file.sha256,
            media.pictures,
            media.missing,
            tuple(media.misses),
            dict(sorted(self._replaced.items())),
        )

    def _columns(self) -> tuple[str, ...]:
        """The columns to read of Parquet; none for all. Raises EntryNotFound for one that the first file does not
        have, and InvalidName."""
        options = self._plan.options
        if self._plan.builder != "parquet" or not is_read_here("parquet", self._plan.reading or {}):
            return ()
        schema = schema_of(self._files[0])
        if self._part.number == 0:
            check_found(options, schema.names)
        check_names(options, schema.names)
        columns = tuple(name for name in options.columns if name in schema.names)
        if options.way_of_images != "drop":
            return columns
        dropped = media_names(schema, self._plan.features, options.image_columns)
        return tuple(name for name in columns or schema.names if name not in dropped)

    def _schema(self, source: Source) -> pa.Schema | None:
        """The columns of a part without rows: those of its files, or of the features; None if nothing tells them. A
        type that is not known is null."""
        import pyarrow as pa

        if self._plan.builder == "parquet" and is_read_here("parquet", self._plan.reading or {}):
            schema, columns = schema_of(self._files[0]), self._columns()
            return pa.schema([schema.field(name) for name in columns or schema.names], schema.metadata)
        first = next(iter(source.batches(self._files, Selection(0, 1))), None)
        if first is not None and first.arrow is not None:
            return first.arrow.schema
        fields = (self._plan.features.fields if self._plan.features else None) or {}
        names = fields or dict.fromkeys(name for row in (first.rows if first else ())[:1] for name in row)
        return pa.schema([(name, pa.null()) for name in names]) if names else None

    def _sink(self, file: HashedFile, making: RowMaking) -> _Sink:
        options, replaced = self._plan.options, self._replaced
        if options.to == "parquet":
            return _ParquetSink(file, making, self._work.scratch / "rows.jsonl", replaced)
        shape = shape_of(options, self._part.output, making.media_columns)
        if options.to == "tsv":
            columns = options.new_columns if shape is None and options.way_of_images != "drop" else ()
            return _RowSink(TableWriter(file, replaced, columns), making, shape, self._part.row + self._part.skip)
        if shape is None:
            return _LineSink(JsonLinesWriter(file, replaced), making)
        return _RowSink(JsonLinesWriter(file, replaced), making, shape)


def local_files(part: Part, snapshot: Path) -> list[LocalFile]:
    """The files of a part, as they lie in the snapshot. Raises EntryNotFound if one is not there."""
    files = [LocalFile(file.path, snapshot / file.path) for file in part.files]
    missing = next((file for file in files if not file.place.is_file()), None)
    if missing is not None:
        raise EntryNotFound(
            f"{missing.path} is not in the cache.", hint="Run the conversion without --local-only.", path=missing.path
        )
    return files


def named_files(plan: ConversionPlan, part: Part, snapshot: Path, paths: Container[str]) -> set[str]:
    """The files of the commit that rows of a part name as pictures. `paths` are all files of the commit."""
    options = plan.options
    if plan.builder == "parquet" and options.way_of_images != "drop":
        return _named_in_parquet(plan, part, snapshot, paths)
    names_files = options.image_columns or plan.is_listed
    if not names_files or options.way_of_images == "drop":
        return set()
    found: set[str] = set()
    selection = Selection.of(part, options.seed)
    for batch in source_of(plan, Counter()).batches(local_files(part, snapshot), selection):
        check_stop()
        rows = batch.rows if batch.arrow is None else batch.arrow.to_pylist()
        for place in selection.chosen(batch.first, batch.count):
            for column, value in rows[place].items():
                if column in options.image_columns or plan.is_listed:
                    _add_named(found, value, batch.file, paths, is_named=column in options.image_columns)
    return found


def _named_in_parquet(plan: ConversionPlan, part: Part, snapshot: Path, paths: Container[str]) -> set[str]:
    files = local_files(part, snapshot)
    names = media_names(schema_of(files[0]), plan.features, plan.options.image_columns)
    leaves = text_leaves(files[0], [name for name in names if name in (plan.options.columns or names)])
    found: set[str] = set()
    if not leaves:
        return found
    selection = Selection.of(part, plan.options.seed)
    for batch in source_of(plan, Counter(), leaves).batches(files, selection):
        check_stop()
        assert batch.arrow is not None
        for column in batch.arrow.columns:
            for value in column.to_pylist():
                _add_named(found, value, batch.file, paths)
    return found


def _add_named(found: set[str], value: Any, source: str, paths: Container[str], *, is_named: bool = True) -> None:
    """Adds the files of the commit that a value names, at any depth. Texts count only with `is_named`."""
    if isinstance(value, Picture):
        value, is_named = value.path if value.content is None else None, True
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _add_named(found, inner, source, paths, is_named=is_named)
    elif isinstance(value, str) and value and is_named and not is_address(value):
        name = value.rpartition("::")[2].rpartition("/snapshots/")[2]
        found.update([place for place in places_in_commit(name, source) if place in paths][:1])


class _Sink(Protocol):
    """Takes the batches of a part."""

    rows: int

    def add(self, batch: Batch, places: Sequence[int]) -> None: ...

    def name_columns(self, columns: pa.RecordBatch | None) -> None:
        """There are no rows, and these columns, if they are known."""
        ...

    def end(self) -> None: ...


class _Writer(Protocol):
    def write(self, rows: Sequence[dict[str, Any]]) -> None: ...

    def end(self) -> None: ...


class _RowSink:
    """Writes rows as text, in a shape."""

    def __init__(self, writer: _Writer, making: RowMaking, shape: Shape | None, first: int = 0) -> None:
        self._writer = writer
        self._making = making
        self._shape = shape
        self._first = first
        self.rows = 0

    def add(self, batch: Batch, places: Sequence[int]) -> None:
        if not places:
            return
        if batch.arrow is not None:
            rows = self._making.rows_of(self._making.arrow(batch, places))
        else:
            rows = self._making.rows(batch, places)
        shaped = rows if self._shape is None else self._shape(rows, self._first + self.rows)
        self._writer.write(shaped)
        self.rows += len(shaped)

    def name_columns(self, columns: pa.RecordBatch | None) -> None:
        if columns is not None and self._shape is None and isinstance(self._writer, TableWriter):
            self._writer.write_heading(columns.schema.names)

    def end(self) -> None:
        self._writer.end()


class _LineSink:
    """Writes rows as lines of JSON: whole columns where that is possible."""

    def __init__(self, writer: JsonLinesWriter, making: RowMaking) -> None:
        self._writer = writer
        self._making = making
        self.rows = 0

    def add(self, batch: Batch, places: Sequence[int]) -> None:
        if not places:
            return
        if batch.arrow is None:
            rows = self._making.rows(batch, places)
        else:
            made = self._making.arrow(batch, places)
            lines = self._making.lines_of(made)
            if lines is not None:
                self._writer.write_lines(lines)
                self.rows += made.num_rows
                return
            rows = self._making.rows_of(made)
        self._writer.write(rows)
        self.rows += len(rows)

    def name_columns(self, columns: pa.RecordBatch | None) -> None:
        """Lines have no heading."""

    def end(self) -> None:
        self._writer.end()


class _ParquetSink:
    """Writes Parquet, of Arrow or of rows."""

    def __init__(self, file: HashedFile, making: RowMaking, spool: Path, replaced: Counter[str]) -> None:
        self._file = file
        self._making = making
        self._spool = spool
        self._replaced = replaced
        self._arrow: ParquetWriter | None = None
        self._plain: RowParquetWriter | None = None
        self.rows = 0

    def add(self, batch: Batch, places: Sequence[int]) -> None:
        if batch.arrow is not None:
            self._arrow = self._arrow or ParquetWriter(self._file)
            made = self._making.arrow(batch, places)
            self._arrow.write(made, self._making.media_kinds)
            self.rows += made.num_rows
            return
        self._plain = self._plain or RowParquetWriter(self._file, self._spool, self._replaced)
        rows = [self._making.plain_row(row) for row in self._making.rows(batch, places)]
        self._plain.write(rows)
        self.rows += len(rows)

    def name_columns(self, columns: pa.RecordBatch | None) -> None:
        if columns is not None and self._arrow is None:
            self._plain = None
            self._arrow = ParquetWriter(self._file)
            self._arrow.write(columns, self._making.media_kinds)

    def end(self) -> None:
        if self._plain is not None:
            self._plain.end(self._making.media_kinds)
        else:
            (self._arrow or ParquetWriter(self._file)).end()
