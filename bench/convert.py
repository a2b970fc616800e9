"""Measures conversions beside other ways to write JSON Lines: `python -m bench.convert`.

One run makes text and pictures, and a file with one large row group, and converts each by hfpeer, by `datasets`
(`to_json`, and row by row from a stream), by polars and by duckdb, where they are installed. Each runs in a process of
its own. Printed are CPU seconds, seconds and the peak of anonymous memory of all processes, and the ratios to polars.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFERENCE = "polars"
WAYS = ("hfpeer", "polars", "duckdb", "datasets to_json", "datasets rows", "disk")
LIBRARY = {"polars": "polars", "duckdb": "duckdb", "datasets to_json": "datasets", "datasets rows": "datasets"}
WORDS = 5000


# What is converted


def text_rows(count: int, first: int, dice: random.Random) -> dict[str, list[Any]]:
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 10))) for _ in range(WORDS)]

    def text(length: int) -> str:
        return " ".join(dice.choices(words, k=length))

    return {
        "id": list(range(first, first + count)),
        "question": [text(20) for _ in range(count)],
        "answer": [f'{text(40)}\n"quoted" é' for _ in range(count)],
        "score": [dice.random() for _ in range(count)],
        "messages": [
            [{"role": "user", "content": text(30)}, {"role": "assistant", "content": text(40)}] for _ in range(count)
        ],
    }


def make(kind: str, folder: Path, size_mb: int) -> list[str]:
    """Writes the files of one kind, of about this size; their names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = random.Random(1)
    if kind == "pictures":
        names = []
        for number in range(4):
            count = size_mb * 1_000_000 // 4 // 65_000
            pictures = [
                {"bytes": b"\xff\xd8\xff" + dice.randbytes(dice.randint(30_000, 100_000)), "path": "image.jpg"}
                for _ in range(count)
            ]
            names.append(f"pictures-{number}.parquet")
            table = pa.table({"id": list(range(count)), "image": pictures})
            pq.write_table(table, folder / names[-1], row_group_size=100)
        return names
    # The same thousand rows many times: to make them takes longer than to convert them.
    block = pa.table(text_rows(10_000, 0, dice))
    copies = max(1, size_mb * 1_000_000 // block.nbytes)
    if kind == "group":
        table = pa.concat_tables([block] * copies).combine_chunks()
        pq.write_table(table, folder / "group.parquet", row_group_size=1 << 30)
        return ["group.parquet"]
    names = [f"text-{number}.parquet" for number in range(4)]
    for name in names:
        table = pa.concat_tables([block] * max(1, copies // 4)).combine_chunks()
        pq.write_table(table, folder / name, row_group_size=100_000)
    return names


# The ways


def by_hfpeer(source: Path, names: list[str], target: Path) -> None:
    from hfpeer.conversion.extra import spare_memory
    from hfpeer.conversion.options import ConversionOptions
    from hfpeer.conversion.output import OutputFolder
    from hfpeer.conversion.part import convert_part
    from hfpeer.conversion.plan import ConversionPlan, Part, SourceFile
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
    """Reads, hashes and copies the files: the least that work on pictures costs."""
    for name in names:
        hashed = hashlib.sha256()
        with (source / name).open("rb") as read, (target / name).open("wb") as written:
            while block := read.read(1 << 20):
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


# The measuring


def measure(way: str, source: Path, names: list[str], scratch: Path) -> dict[str, float] | None:
    """CPU seconds, seconds and the peak of anonymous memory of one way; None if it fails."""
    target = scratch / "out"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    words = [sys.executable, "-m", "bench.convert", "--one", way, str(source), str(target), *names]
    quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1", "POLARS_VERBOSE": "0"}
    began = time.monotonic()
    process = subprocess.Popen(words, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, anonymous_mb(process.pid))
        time.sleep(0.02)
    seconds = time.monotonic() - began
    cpu = float((target / "cpu").read_text()) if (target / "cpu").exists() else 0.0
    return None if process.returncode else {"cpu": cpu, "seconds": seconds, "MB": peak}


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


def run_one(way: str, source: Path, target: Path, names: list[str]) -> None:
    PROGRAMS[way](source, names, target)
    used = os.times()
    (target / "cpu").write_text(str(used.user + used.system + used.children_user + used.children_system))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=200, help="megabytes of text, of pictures, and of the row group")
    parser.add_argument("--kinds", default="text,pictures,group")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        way, source, target, *names = words.one
        run_one(way, Path(source), Path(target), names)
        return
    with tempfile.TemporaryDirectory(prefix="bench-convert-", dir=words.folder) as scratch:
        for kind in words.kinds.split(","):
            compare(kind, words.ways.split(","), words.size, Path(scratch))


def compare(kind: str, ways: list[str], size_mb: int, scratch: Path) -> None:
    source = scratch / kind
    source.mkdir()
    names = make(kind, source, size_mb)
    size = sum((source / name).stat().st_size for name in names) / 1e6
    print(f"{kind}: {len(names)} files of Parquet, {size:.0f} MB")
    results = {}
    for way in ways:
        if way in LIBRARY and importlib.util.find_spec(LIBRARY[way]) is None:
            print(f"  {way:18} not installed")
            continue
        found = measure(way, source, names, scratch)
        if found is None:
            print(f"  {way:18} fails")
            continue
        results[way] = found
        print(f"  {way:18} {found['cpu']:7.1f} CPU s {found['seconds']:7.1f} s {found['MB']:7.0f} MB")
    reference = results.get(REFERENCE) or results.get("disk")
    ours = results.get("hfpeer")
    if reference is not None and ours is not None:
        told = ", ".join(f"{key} {ours[key] / max(reference[key], 1e-3):.2f}" for key in ("cpu", "seconds", "MB"))
        print(f"  hfpeer to {REFERENCE if REFERENCE in results else 'disk'}: {told}")
    shutil.rmtree(source)


if __name__ == "__main__":
    main()
