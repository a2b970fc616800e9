"""The program that reads files by the `datasets` library. Never imported by hfpeer.

It is started as a file. Its arguments are the number of a file descriptor and a JSON object: builder, path, options,
rows. It writes batches to that descriptor: the length in 8 bytes, then an Arrow stream. Length 0 is the end. An error
is a length of all ones, then its text.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

ERROR = (1 << 64) - 1


def main() -> None:
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):  # noqa: PTH100, PTH120
        del sys.path[0]
    order = json.loads(sys.argv[2])
    with os.fdopen(int(sys.argv[1]), "wb") as pipe:
        try:
            for content in batches(order):
                pipe.write(len(content).to_bytes(8, "big"))
                pipe.write(content)
            pipe.write((0).to_bytes(8, "big"))
        except BrokenPipeError:
            os._exit(1)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the reader has to say it
            text = f"{type(error).__name__}: {error}".encode()[:2000]
            pipe.write(ERROR.to_bytes(8, "big") + len(text).to_bytes(8, "big") + text)


def batches(order: dict[str, Any]) -> Any:
    import datasets
    import pyarrow as pa

    stream = datasets.load_dataset(
        order["builder"], data_files={"train": [order["path"]]}, split="train", streaming=True, **order["options"]
    )
    features = stream.features or {}
    for name, feature in features.items():
        if getattr(feature, "decode", None):
            stream = stream.cast_column(name, type(feature)(decode=False))
    schema = None if stream.features is None else stream.features.arrow_schema
    rows: list[dict[str, Any]] = []
    for row in stream:
        rows.append(row)
        if len(rows) >= order["rows"]:
            yield encoded(pa, rows, schema)
            rows = []
    if rows:
        yield encoded(pa, rows, schema)


def encoded(pa: Any, rows: list[dict[str, Any]], schema: Any) -> bytes:
    try:
        table = pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError):
        table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


if __name__ == "__main__":
    main()
