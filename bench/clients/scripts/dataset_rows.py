"""datasets: `make FORMAT FOLDER` writes rows there, `load FORMAT REPO` and `stream FORMAT REPO` read them. All print
the number of rows and a digest of them."""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets

ROWS = 3000


def rows(seed: str) -> Iterator[dict[str, Any]]:
    for number in range(ROWS):
        text = hashlib.sha256(f"{seed} {number}".encode()).hexdigest()
        yield {"id": number, "text": text, "score": number / 8}


def make(kind: str, folder: str) -> Any:
    target = Path(folder) / "data"
    target.mkdir(parents=True)
    made = datasets.Dataset.from_list(list(rows(kind + folder)))
    if kind == "parquet":
        made.to_parquet(target / "train-00000-of-00001.parquet")
    else:
        made.to_json(target / "train.jsonl")
    return made


def facts(found: Iterable[Any]) -> dict[str, Any]:
    digest, count = hashlib.sha256(), 0
    for row in found:
        digest.update(json.dumps(row, sort_keys=True).encode())
        count += 1
    return {"rows": count, "digest": digest.hexdigest()}


verb, kind, place = sys.argv[1:]
found = make(kind, place) if verb == "make" else datasets.load_dataset(place, split="train", streaming=verb == "stream")
print(json.dumps(facts(found)))
