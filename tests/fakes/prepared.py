"""Prepared sets written by hand, as the `datasets` library lays them out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hfpeer.names import RepoId
from hfpeer.prepared.arrow.extra import has_arrow
from hfpeer.prepared.layout import INFO, SetPlace, dataset_folder, shard_names

REPO = RepoId.parse("acme/PlainText", "dataset")
COMMIT, OLDER = "c" * 40, "0" * 39 + "1"
TEXTS = {"text": {"dtype": "string", "_type": "Value"}}

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the extra `datasets` (the library)"
)
needs_arrow = pytest.mark.skipif(not has_arrow(), reason="needs the extra `datasets` (pyarrow)")


def place_of(repo: RepoId = REPO, hash: str = COMMIT, config: str = "default") -> SetPlace:
    return SetPlace.parse(dataset_folder(repo), config, "0.0.0", hash)


def info_text(
    splits: Mapping[str, Sequence[int]], config: str = "default", features: Mapping[str, Any] = TEXTS, **more: Any
) -> bytes:
    """A `dataset_info.json`; by split, the rows of each shard."""
    document = {
        "builder_name": "parquet",
        "config_name": config,
        "features": features,
        "splits": {
            name: {"name": name, "num_examples": sum(rows), "shard_lengths": list(rows) if len(rows) > 1 else None}
            for name, rows in splits.items()
        },
        **more,
    }
    return json.dumps(document).encode()


def write_set(cache: Path, place: SetPlace, splits: Mapping[str, Sequence[int]], **facts: Any) -> Path:
    """A set whose shards are no real Arrow: enough for all that opens none."""
    folder = place.folder(cache)
    folder.mkdir(parents=True)
    (folder / INFO).write_bytes(info_text(splits, place.config_id, **facts))
    for split, rows in splits.items():
        for name, count in zip(shard_names(place.name, split, len(rows)), rows, strict=True):
            (folder / name).write_bytes(b"A" * count)
    return folder


def write_arrow(path: Path, table: Any, rows_per_batch: int = 1000) -> None:
    """A shard as `datasets` writes it: an Arrow stream."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)


def write_arrow_set(cache: Path, place: SetPlace, tables: Mapping[str, Any], features: Mapping[str, Any]) -> Path:
    """A set of real Arrow, one shard for each split."""
    folder = place.folder(cache)
    folder.mkdir(parents=True)
    (folder / INFO).write_bytes(
        info_text({name: [table.num_rows] for name, table in tables.items()}, place.config_id, features)
    )
    for name, table in tables.items():
        write_arrow(folder / shard_names(place.name, name, 1)[0], table)
    return folder
