"""The ways to write JSON Lines and files of pictures that are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from bench.convert.content import PICTURE_BYTES

LIBRARY = {"polars": "polars", "duckdb": "duckdb", "datasets to_json": "datasets", "datasets rows": "datasets"}
"""By way: the library that it needs beside hfpeer's own."""


def by_hfpeer(source: Path, names: list[str], target: Path) -> None:
    from hfpeer.conversion.extra import spare_memory
    from hfpeer.conversion.output.output import OutputFolder
    from hfpeer.conversion.part.part import convert_part
    from hfpeer.conversion.plan import ConversionPlan, Part, SourceFile
    from hfpeer.conversion.request.options import ConversionOptions
    from hfpeer.names import Commit, RepoId

    spare_memory()  # as the command does
    parts = tuple(
        Part(
            number,
            "train",
            number,
            len(names),
            "train",
            (SourceFile(name, "sha256:" + "0" * 64, (source / name).stat().st_size),),
        )
        for number, name in enumerate(names)
    )
    repo = RepoId.parse("bench/rows", "dataset")
    plan = ConversionPlan(repo, Commit("0" * 40), "default", "parquet", ConversionOptions("rows"), parts)
    output = OutputFolder(target, plan)
    for part in parts:
        convert_part(plan, part, source, output)
    output.finish()


def by_polars(source: Path, names: list[str], target: Path) -> None:
    import polars as pl

    for name in names:
        frame = pl.scan_parquet(source / name)
        if "image" not in frame.collect_schema():
            frame.sink_ndjson(target / f"{name}.jsonl")
            continue
        with (target / f"{name}.jsonl").open("w") as lines:
            for batch in frame.collect_batches(chunk_size=100):
                for row in batch.iter_rows(named=True):
                    row["image"] = saved(target, row["image"]["bytes"])
                    lines.write(json.dumps(row) + "\n")


def by_duckdb(source: Path, names: list[str], target: Path) -> None:
    import duckdb

    for name in names:
        query = f"SELECT * FROM '{source / name}'"
        if "image" not in duckdb.sql(query).columns:
            duckdb.sql(f"COPY ({query}) TO '{target / name}.jsonl' (FORMAT json)")
            continue
        cursor = duckdb.connect().execute(query)
        with (target / f"{name}.jsonl").open("w") as lines:
            while rows := cursor.fetchmany(100):
                for row in rows:
                    lines.write(json.dumps({"id": row[0], "image": saved(target, row[1]["bytes"])}) + "\n")


def by_to_json(source: Path, names: list[str], target: Path) -> None:
    import datasets

    files = [str(source / name) for name in names]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(target / "cache"))
    loaded.to_json(target / "all.jsonl")


def by_rows(source: Path, names: list[str], target: Path) -> None:
    import datasets

    files = [str(source / name) for name in names]
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    if "image" in (stream.column_names or []):
        stream = stream.cast_column("image", datasets.Image(decode=False))
    with (target / "all.jsonl").open("w") as lines:
        for row in stream:
            if "image" in row:
                row["image"] = saved(target, row["image"]["bytes"])
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def by_disk(source: Path, names: list[str], target: Path) -> None:
    """Reads, hashes and writes the bytes, pictures as a file each: the least that work on them costs."""
    for name in names:
        hashed = hashlib.sha256()
        with (source / name).open("rb") as read, (target / name).open("wb") as written:
            while block := read.read(PICTURE_BYTES if name.startswith("pictures") else 1 << 20):
                if len(block) == PICTURE_BYTES:
                    saved(target, block)
                else:
                    hashed.update(block)
                    written.write(block)


def saved(target: Path, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    name = target / "images" / sha256[:2] / f"{sha256}.jpg"
    if not name.exists():
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(content)
    return str(name.relative_to(target))


PROGRAMS: dict[str, Callable[[Path, list[str], Path], None]] = {
    "hfpeer": by_hfpeer,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "datasets to_json": by_to_json,
    "datasets rows": by_rows,
    "disk": by_disk,
}
